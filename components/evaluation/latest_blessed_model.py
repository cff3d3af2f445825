"""Which earlier model a run takes up: to measure a candidate against, and to start from."""

import os

import ml_metadata as mlmd
from ml_metadata.proto import metadata_store_pb2
from tfx import types
from tfx import v1 as tfx
from tfx.dsl.components.base.base_node import BaseNode
from tfx.dsl.components.common.resolver import Resolver, ResolverStrategy
from tfx.dsl.input_resolution.strategies.latest_blessed_model_strategy import LatestBlessedModelStrategy
from tfx.types import standard_artifacts

CANDIDATE = "candidate"
DATA = "transform_graph"
MODEL = "model"
MODEL_BLESSING = "model_blessing"


class LatestOtherBlessedModelStrategy(ResolverStrategy):
    """The latest blessed model but for the candidate.

    TFX's own strategy would, when a pipeline is run again and the Trainer's model comes from the cache, find that very
    model: the Evaluator would then run again, to compare a model with itself, and the model would be pushed again.

    Inputs: `candidate`, the model under test; `model` and `model_blessing`, all models and blessings in the store.
    """

    def resolve_artifacts(
        self, store: mlmd.MetadataStore, input_dict: dict[str, list[types.Artifact]]
    ) -> dict[str, list[types.Artifact]]:
        """Gives the chosen model and its blessing, or neither; and the candidate as it came."""
        candidates = {model.id for model in input_dict[CANDIDATE]}
        # A component keeps all its models in one folder: those beside the candidate are of the same kind.
        folders = {os.path.dirname(model.uri) for model in input_dict[CANDIDATE]}
        others = [
            model for model in input_dict[MODEL] if model.id not in candidates and os.path.dirname(model.uri) in folders
        ]
        return {CANDIDATE: input_dict[CANDIDATE], **_latest_blessed(store, others, input_dict[MODEL_BLESSING])}


class BaseModelStrategy(ResolverStrategy):
    """The latest blessed model of a Trainer that was trained on other data than this run's.

    A run again on the same data starts from the same model, so that its Trainer still comes from the cache; a model
    that starts from another of the same data would only have been trained for longer.

    Inputs: `transform_graph`, which stands for the data; `model` and `model_blessing`, all in the store.
    """

    def __init__(self, trainer: str):
        """Makes the strategy, for the models of the Trainer with this id."""
        self._trainer = trainer

    def resolve_artifacts(
        self, store: mlmd.MetadataStore, input_dict: dict[str, list[types.Artifact]]
    ) -> dict[str, list[types.Artifact]]:
        """Gives the chosen model and its blessing, or neither; and the graph as it came."""
        graphs = {graph.id for graph in input_dict[DATA]}
        earlier = [
            model
            # PIPELINE/TRAINER/model/EXECUTION
            for model in input_dict[MODEL]
            if model.uri.split("/")[-3:-2] == [self._trainer] and not graphs & _trained_on(store, model)
        ]
        return {DATA: input_dict[DATA], **_latest_blessed(store, earlier, input_dict[MODEL_BLESSING])}


def base_model(trainer: str, transform: BaseNode) -> Resolver:
    """A node whose output `model` is what a Trainer may start from, if there is something."""
    channels = {
        DATA: transform.outputs[DATA],
        MODEL: tfx.dsl.Channel(type=standard_artifacts.Model),
        MODEL_BLESSING: tfx.dsl.Channel(type=standard_artifacts.ModelBlessing),
    }
    return Resolver(strategy_class=BaseModelStrategy, config={"trainer": trainer}, **channels)


def _trained_on(store: mlmd.MetadataStore, model: types.Artifact) -> set[int]:
    """Ids of the artifacts that a model was made from."""
    executions = {event.execution_id for event in store.get_events_by_artifact_ids([model.id]) if _is_output(event)}
    events = store.get_events_by_execution_ids(executions) if executions else []
    return {event.artifact_id for event in events if not _is_output(event)}


def _is_output(event: metadata_store_pb2.Event) -> bool:
    return event.type == metadata_store_pb2.Event.OUTPUT


def _latest_blessed(
    store: mlmd.MetadataStore, models: list[types.Artifact], blessings: list[types.Artifact]
) -> dict[str, list[types.Artifact]]:
    chosen = LatestBlessedModelStrategy().resolve_artifacts(store, {MODEL: models, MODEL_BLESSING: blessings}) or {}
    return {name: chosen.get(name, []) for name in (MODEL, MODEL_BLESSING)}
