"""Resolvers for earlier blessed models: the champion a candidate is compared with, and the one training starts from.

What they choose, and why, is in `components.evaluation.champions`.
"""

import logging

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
        """Returns the chosen model and its blessing (no artifacts if there is none), and the candidate.

        Of all models that the candidate's node ever made, it is the latest. The others are not handed on: the champion
        may be among them, and ML Metadata takes an artifact once only for the outputs of an execution.
        """
        champions = Champions(store, input_dict[MODEL], input_dict[MODEL_BLESSING])
        choice = champions.of_candidate(input_dict[CANDIDATE])
        candidate = max(input_dict[CANDIDATE], key=lambda model: model.id)
        return {CANDIDATE: [candidate], **_artifacts(choice, "The champion")}


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
