"""What a run wrote, and which earlier models it chose: champions, and the pair that its recommender is made of."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, cast

from pipeline.nodes import NodeRun
from trainers.registry import MODELS, RECOMMENDER

if TYPE_CHECKING:
    import numpy as np
    from ml_metadata import MetadataStore
    from tfx import types

    from components.evaluation.champions import Champions, Choice


# The node that makes each model, and the name of its output.
MADE_BY = {name: (f"Trainer.{name}", "model") for name in MODELS} | {RECOMMENDER: ("RecommenderBuilder", RECOMMENDER)}


@dataclass(frozen=True)
class Artifact:
    """An output of a node: where it lies, its custom properties, and its id in the metadata."""

    uri: str
    properties: Mapping[str, int | float | str] = field(default_factory=dict)
    id: int = 0


Outputs = Mapping[str, Mapping[str, Artifact]]


def read_outputs(store: "MetadataStore", nodes: Iterable[NodeRun]) -> Outputs:
    """The outputs of nodes, as {node: {output: artifact}}; of several artifacts of one output, the last."""
    from ml_metadata.proto import metadata_store_pb2

    kinds = (metadata_store_pb2.Event.OUTPUT, metadata_store_pb2.Event.INTERNAL_OUTPUT)
    outputs: dict[str, dict[str, Artifact]] = {}
    for node in nodes:
        if node.execution_id is None:
            continue
        events = [event for event in store.get_events_by_execution_ids([node.execution_id]) if event.type in kinds]
        artifacts = {a.id: a for a in store.get_artifacts_by_id([event.artifact_id for event in events])}
        for event in events:
            artifact = artifacts[event.artifact_id]
            properties = {
                name: getattr(value, cast(str, value.WhichOneof("value")))
                for name, value in artifact.custom_properties.items()
            }
            outputs.setdefault(node.id, {})[event.path.steps[0].key] = Artifact(artifact.uri, properties, artifact.id)
    return outputs


@dataclass(frozen=True)
class Champion:
    """The earlier model that a candidate was compared with.

    Attributes:
      model: its id in the metadata; None if there was none.
      uri: where it lies; None if there was none.
      why: why later models were passed over, or there was none; "" if it is the latest blessed one.
    """

    model: int | None
    uri: str | None
    why: str


def read_champions(store: "MetadataStore", outputs: Outputs) -> dict[str, Champion]:
    """The champion that each model of a run met, as its resolver chose it, and why; by model."""
    models, champions = _known(store)
    met = {}
    for name, (node, output) in MADE_BY.items():
        candidate = outputs.get(node, {}).get(output)
        if candidate is not None:
            met[name] = _champion(champions.of_candidate([models[candidate.id]]))
    return met


def _champion(choice: "Choice") -> Champion:
    model = choice.model
    return Champion(model and model.id, model and model.uri, choice.why)


@dataclass(frozen=True)
class MadeOf:
    """The models that a recommender is made of.

    Attributes:
      parts: the id and the URI of the model of each part.
      transform_graph: the URI of the Transform output of both; None if it is that of the run.
      why: why they are not the run's own, or why there is no recommender; "" if they are the run's own.
    """

    parts: dict[str, tuple[int, str]]
    transform_graph: str | None
    why: str


def planned_champions(
    store: "MetadataStore", pipeline: str, does: Mapping[str, str], tested: "np.ndarray"
) -> dict[str, Champion]:
    """The champion that each model would meet that is not known to be skipped; by model.

    Of what depends on nodes that would run, it is the champion of a model that is made anew: where it comes from the
    cache after all, it meets what it met before.

    Args:
      store: the metadata store, in which what would come from the cache is recorded already.
      pipeline: the name of the pipeline.
      does: what would become of each node by its id, as in `plan.Planned`.
      tested: uint64 [test rows], the keys of the rows that models would be measured on.
    """
    models, champions = _known(store)
    met = {}
    for name, (node, output) in MADE_BY.items():
        if does.get(node) == "skip":
            continue
        candidate = _latest_output(store, f"{pipeline}.{node}", output) if does.get(node) == "cached" else None
        if candidate is None:
            choice = champions.of_next(pipeline, node, output, tested)
        else:
            choice = champions.of_candidate([models[candidate]])
        met[name] = _champion(choice)
    return met


def _latest_output(store: "MetadataStore", node: str, output: str) -> int | None:
    """The id of what a node's latest execution has as an output."""
    from ml_metadata.proto import metadata_store_pb2

    context = store.get_context_by_type_and_name("node", node)
    executions = [each.id for each in store.get_executions_by_context(context.id)] if context else []
    events = store.get_events_by_execution_ids([max(executions)]) if executions else []
    is_output = metadata_store_pb2.Event.OUTPUT
    return next((e.artifact_id for e in events if e.type == is_output and e.path.steps[0].key == output), None)


def read_made_of(store: "MetadataStore", outputs: Outputs, part_names: tuple[str, str]) -> MadeOf | None:
    """The models that a run's recommender is made of, as their resolver chose them; None if the run got no further.

    Args:
      store: the metadata store.
      outputs: of the run's nodes.
      part_names: the names of the model that retrieves and of the one that predicts ratings.
    """
    kinds = ("retrieval", "ranking")
    trained = {
        kind: outputs.get(f"Trainer.{name}", {}).get("model") for kind, name in zip(kinds, part_names, strict=True)
    }
    blessed = {
        kind: outputs.get(f"Evaluator.{name}", {}).get("blessing") for kind, name in zip(kinds, part_names, strict=True)
    }
    if None in (*trained.values(), *blessed.values()):
        return None
    models, champions = _known(store)
    blessings = _all(store, "ModelBlessing")
    pair = champions.pair_for_recommender(
        {kind: [models[artifact.id]] for kind, artifact in trained.items() if artifact},
        {kind: [blessings[artifact.id]] for kind, artifact in blessed.items() if artifact},
    )
    graph = store.get_artifacts_by_id([pair.graph])[0].uri if pair.graph is not None else None
    return MadeOf({kind: (model.id, model.uri) for kind, model in pair.models.items()}, graph, pair.why)


def _known(store: "MetadataStore") -> "tuple[dict[int, types.Artifact], Champions]":
    from components.evaluation.champions import Champions

    models = _all(store, "Model")
    return models, Champions(store, models.values(), _all(store, "ModelBlessing").values())


def _all(store: "MetadataStore", type_name: str) -> "dict[int, types.Artifact]":
    """All artifacts of a type, by id."""
    from tfx.types import artifact_utils

    artifacts = store.get_artifacts_by_type(type_name)
    # A store in which there was never such an artifact does not know its type.
    kind = store.get_artifact_type(type_name) if artifacts else None
    return {artifact.id: artifact_utils.deserialize_artifact(kind, artifact) for artifact in artifacts}
