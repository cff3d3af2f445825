"""Resolvers for earlier blessed models: the one a candidate is compared with, and the one training starts from."""

import os

import ml_metadata as mlmd
from ml_metadata.proto import metadata_store_pb2
from tfx import types
from tfx import v1 as tfx
from tfx.dsl.components.base.base_node import BaseNode
from tfx.dsl.components.common.resolver import Resolver, ResolverStrategy
from tfx.dsl.input_resolution.strategies.latest_blessed_model_strategy import LatestBlessedModelStrategy
from tfx.types import standard_artifacts

from components.pushing.pushed_models import withdrawals

CANDIDATE = "candidate"
DATA = "transform_graph"
MODEL = "model"
MODEL_BLESSING = "model_blessing"


class LatestOtherBlessedModelStrategy(ResolverStrategy):
    """The latest blessed model other than the candidate that was not withdrawn.

    If a pipeline is run again and the Trainer's model comes from the cache, TFX's own strategy would return that same
    model. The Evaluator would then run again and compare the model with itself, and the model would be pushed again.

    Inputs: `candidate`, the model under test; `model` and `model_blessing`, all models and blessings in the metadata
    store.
    """

    def resolve_artifacts(
        self, store: mlmd.MetadataStore, input_dict: dict[str, list[types.Artifact]]
    ) -> dict[str, list[types.Artifact]]:
        """Returns the chosen model and its blessing (no artifacts if there is none), and the candidate unchanged."""
        candidates = {model.id for model in input_dict[CANDIDATE]}
        # A Trainer writes all its models into one folder, so models beside the candidate are from the same Trainer.
        folders = {os.path.dirname(model.uri) for model in input_dict[CANDIDATE]}
        others = [
            model for model in input_dict[MODEL] if model.id not in candidates and os.path.dirname(model.uri) in folders
        ]
        return {CANDIDATE: input_dict[CANDIDATE], **_latest_blessed(store, others, input_dict[MODEL_BLESSING])}


class BaseModelStrategy(ResolverStrategy):
    """The latest blessed model of a Trainer that was trained on other data than this run's, and not withdrawn.

    Models of the same data are left out so that a repeated run finds the same base model, and its Trainer still comes
    from the cache. Besides, a model that starts from another of the same data would only be trained for longer.

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
        graphs = {graph.id for graph in input_dict[DATA]}
        earlier = [
            model
            # A model's URI is PIPELINE/TRAINER/model/EXECUTION.
            for model in input_dict[MODEL]
            if model.uri.split("/")[-3:-2] == [self._trainer] and not graphs & _input_ids(store, model)
        ]
        return {DATA: input_dict[DATA], **_latest_blessed(store, earlier, input_dict[MODEL_BLESSING])}


def base_model(trainer: str, transform: BaseNode) -> Resolver:
    """Makes a node whose output `model` is the one that a Trainer starts from; empty if there is none."""
    channels = {
        DATA: transform.outputs[DATA],
        MODEL: tfx.dsl.Channel(type=standard_artifacts.Model),
        MODEL_BLESSING: tfx.dsl.Channel(type=standard_artifacts.ModelBlessing),
    }
    return Resolver(strategy_class=BaseModelStrategy, config={"trainer": trainer}, **channels)


def _input_ids(store: mlmd.MetadataStore, model: types.Artifact) -> set[int]:
    """Returns the ids of the artifacts that were inputs of the execution that wrote the model."""
    executions = {event.execution_id for event in store.get_events_by_artifact_ids([model.id]) if _is_output(event)}
    events = store.get_events_by_execution_ids(executions) if executions else []
    return {event.artifact_id for event in events if not _is_output(event)}


def _is_output(event: metadata_store_pb2.Event) -> bool:
    return event.type == metadata_store_pb2.Event.OUTPUT


def _latest_blessed(
    store: mlmd.MetadataStore, models: list[types.Artifact], blessings: list[types.Artifact]
) -> dict[str, list[types.Artifact]]:
    """Returns the latest blessed model that was not withdrawn, and its blessing; no artifacts if there is none."""
    withdrawn = withdrawals(store, [model.id for model in models])
    standing = [model for model in models if model.id not in withdrawn]
    chosen = LatestBlessedModelStrategy().resolve_artifacts(store, {MODEL: standing, MODEL_BLESSING: blessings}) or {}
    return {name: chosen.get(name, []) for name in (MODEL, MODEL_BLESSING)}
