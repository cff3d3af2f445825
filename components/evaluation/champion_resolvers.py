"""Resolvers for blessed models: the champion of a candidate, what training starts from, the recommender's parts.

What they choose, and why, is in `components.evaluation.champions`.
"""

import logging
from collections.abc import Mapping

import ml_metadata as mlmd
from tfx import types
from tfx import v1 as tfx
from tfx.dsl.components.base.base_node import BaseNode
from tfx.dsl.components.common.resolver import Resolver, ResolverStrategy
from tfx.types import standard_artifacts

from components.evaluation.champions import Champions, Choice

CANDIDATE = "candidate"
DATA = "transform_graph"
MODEL = "model"
MODEL_BLESSING = "model_blessing"
# All Transform outputs, among which is that of the chosen models.
GRAPHS = "transform_graphs"
# Behind the name of a part of the recommender, such as `retrieval`.
PART_MODEL, PART_BLESSING = "_model", "_blessing"

_logger = logging.getLogger(__name__)


class ChampionStrategy(ResolverStrategy):
    """The champion of a candidate.

    TFX's own strategy would take any blessed model of the store. If a pipeline is run again and the Trainer's model
    comes from the cache, it would return that same model: the Evaluator would then run again and compare the model with
    itself, and the model would be pushed again.

    Inputs: `candidate`, the model under test; `model` and `model_blessing`, all models and blessings in the metadata
    store.
    """

    def resolve_artifacts(
        self, store: mlmd.MetadataStore, input_dict: dict[str, list[types.Artifact]]
    ) -> dict[str, list[types.Artifact]]:
        """Returns the chosen model and its blessing (no artifacts if there is none), and the candidate unchanged.

        TFX asks a resolver before it looks at conditions. So there may be no candidate, where nothing made one.
        """
        if not input_dict[CANDIDATE]:
            return {CANDIDATE: [], MODEL: [], MODEL_BLESSING: []}
        champions = Champions(store, input_dict[MODEL], input_dict[MODEL_BLESSING])
        choice = champions.of_candidate(input_dict[CANDIDATE])
        return {CANDIDATE: input_dict[CANDIDATE], **_artifacts(choice, "The champion")}


class BaseModelStrategy(ResolverStrategy):
    """The model that training starts from.

    Inputs: `transform_graph`, the Transform output, which identifies the data; `model` and `model_blessing`, all models
    and blessings in the metadata store.
    """

    def __init__(self, trainer: str):
        """Takes the id of the Trainer whose models are considered."""
        self._trainer = trainer

    def resolve_artifacts(
        self, store: mlmd.MetadataStore, input_dict: dict[str, list[types.Artifact]]
    ) -> dict[str, list[types.Artifact]]:
        """Returns the chosen model and its blessing (no artifacts if there is none), and the graph unchanged."""
        champions = Champions(store, input_dict[MODEL], input_dict[MODEL_BLESSING])
        choice = champions.to_start_from(self._trainer, input_dict[DATA])
        return {DATA: input_dict[DATA], **_artifacts(choice, f"The model that {self._trainer} starts from")}


class PartsStrategy(ResolverStrategy):
    """The blessed models that the recommender is made of, so that it is made anew with each night's data.

    Inputs: `transform_graph`, the run's Transform output; for each part `PART_model` and `PART_blessing`, the run's
    model and its blessing; `model`, `model_blessing` and `transform_graphs`, all that are in the metadata store.
    """

    def __init__(self, parts: list[str]):
        """Takes the names of the parts."""
        self._parts = parts

    def resolve_artifacts(
        self, store: mlmd.MetadataStore, input_dict: dict[str, list[types.Artifact]]
    ) -> dict[str, list[types.Artifact]]:
        """Returns the Transform output, the models and the blessings that were chosen, and nothing else."""
        pair = Champions(store, input_dict[MODEL], input_dict[MODEL_BLESSING]).pair_for_recommender(
            {part: input_dict[part + PART_MODEL] for part in self._parts},
            {part: input_dict[part + PART_BLESSING] for part in self._parts},
        )
        taken = ", ".join(f"{part} model {model.id} at {model.uri}" for part, model in pair.models.items())
        _logger.info("The recommender's parts: %s%s.", taken, f"; {pair.why}" if pair.why else "")
        graphs = [max(input_dict[DATA], key=lambda graph: graph.id)]
        if pair.graph is not None:
            graphs = [graph for graph in input_dict[GRAPHS] if graph.id == pair.graph]
        chosen: dict[str, list[types.Artifact]] = {MODEL: [], MODEL_BLESSING: [], GRAPHS: [], DATA: graphs}
        for part in self._parts:
            chosen |= {part + PART_MODEL: [pair.models[part]], part + PART_BLESSING: [pair.blessings[part]]}
        return chosen


def parts_of_recommender(
    transform: BaseNode, models: Mapping[str, types.BaseChannel], blessings: Mapping[str, types.BaseChannel]
) -> Resolver:
    """Makes a node whose outputs are those of `PartsStrategy`.

    Args:
      transform: the run's Transform.
      models: the run's model of each part.
      blessings: its blessing, likewise.
    """
    channels = {
        DATA: transform.outputs[DATA],
        GRAPHS: tfx.dsl.Channel(type=standard_artifacts.TransformGraph),
        MODEL: tfx.dsl.Channel(type=standard_artifacts.Model),
        MODEL_BLESSING: tfx.dsl.Channel(type=standard_artifacts.ModelBlessing),
        **{part + PART_MODEL: channel for part, channel in models.items()},
        **{part + PART_BLESSING: channel for part, channel in blessings.items()},
    }
    return Resolver(strategy_class=PartsStrategy, config={"parts": list(models)}, **channels)


def base_model(trainer: str, transform: BaseNode) -> Resolver:
    """Makes a node whose output `model` is the one that a Trainer starts from; empty if there is none."""
    channels = {
        DATA: transform.outputs[DATA],
        MODEL: tfx.dsl.Channel(type=standard_artifacts.Model),
        MODEL_BLESSING: tfx.dsl.Channel(type=standard_artifacts.ModelBlessing),
    }
    return Resolver(strategy_class=BaseModelStrategy, config={"trainer": trainer}, **channels)


def _artifacts(choice: Choice, what: str) -> dict[str, list[types.Artifact]]:
    if choice.model is None:
        _logger.info("%s: none, because %s.", what, choice.why)
        return {MODEL: [], MODEL_BLESSING: []}
    passed_over = f", because {choice.why}" if choice.why else ""
    _logger.info("%s: model %d at %s%s.", what, choice.model.id, choice.model.uri, passed_over)
    return {MODEL: [choice.model], MODEL_BLESSING: [choice.blessing] if choice.blessing else []}
