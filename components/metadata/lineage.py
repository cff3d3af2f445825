"""What the metadata say of where a model comes from: the node that made it, and the data that it was fitted to.

Nothing here depends on where an artifact lies, so that it holds after a folder was moved or mounted elsewhere.
"""

from collections.abc import Iterable

import ml_metadata as mlmd
from ml_metadata.proto import metadata_store_pb2
from tfx.types import standard_artifacts

_NODE = "node"  # TFX's type of context for the executions of a node; its name is PIPELINE.NODE.
_OUTPUT = metadata_store_pb2.Event.OUTPUT


class Lineage:
    """Reads a metadata store."""

    def __init__(self, store: mlmd.MetadataStore):
        """Takes the store."""
        self._store = store

    def producer(self, artifact: int) -> tuple[str, str] | None:
        """The node that made an artifact, as PIPELINE.NODE, and the name of its output; None if it is not known."""
        events = [event for event in self._store.get_events_by_artifact_ids([artifact]) if event.type == _OUTPUT]
        # Executions that took it from the cache have it as an output, too.
        for event in sorted(events, key=lambda event: event.execution_id):
            for context in self._store.get_contexts_by_execution(event.execution_id):
                if context.type == _NODE:
                    return context.name, event.path.steps[0].key
        return None

    def last_given(self, artifacts: Iterable[int]) -> dict[int, int]:
        """The latest execution that had each artifact as an output: made it, or took it from the cache; 0 for none."""
        latest = dict.fromkeys(artifacts, 0)
        for event in self._store.get_events_by_artifact_ids(list(latest)) if latest else []:
            if event.type == _OUTPUT:
                latest[event.artifact_id] = max(latest[event.artifact_id], event.execution_id)
        return latest

    def own_data(self, model: int) -> list[metadata_store_pb2.Artifact]:
        """The Examples artifacts of raw rows that a model was made with itself, by rising id.

        A recommender reads them, any other model was trained with what Transform made of them. What a model started
        from, or is made of, may have been made of other data; see `data`.
        """
        direct = self._store.get_artifacts_by_id(sorted(self._inputs([model])))
        raw = [
            each
            for each in direct
            if each.type == standard_artifacts.Examples.TYPE_NAME and not self._inputs([each.id])
        ]
        graph = self.transform_graph(model)
        return raw or self.data(model if graph is None else graph.id)

    def data(self, *artifacts: int) -> list[metadata_store_pb2.Artifact]:
        """The Examples artifacts of raw rows that some artifacts were made of, whatever was between, by rising id."""
        ancestors = self._ancestors(artifacts)
        examples = [
            each
            for each in self._store.get_artifacts_by_id(sorted(ancestors))
            if each.type == standard_artifacts.Examples.TYPE_NAME
        ]
        # Transformed rows are made of raw ones, which are made of no others.
        return [each for each in examples if not self._inputs([each.id])]

    def transform_graph(self, model: int) -> metadata_store_pb2.Artifact | None:
        """The Transform output that a model was trained with; None if none is known."""
        graphs = [
            each
            for each in self._store.get_artifacts_by_id(sorted(self._inputs([model])))
            if each.type == standard_artifacts.TransformGraph.TYPE_NAME
        ]
        return max(graphs, key=lambda each: each.id, default=None)

    def _ancestors(self, artifacts: Iterable[int]) -> set[int]:
        known, new = set[int](), set(artifacts)
        while new:
            known |= new
            new = self._inputs(new) - known
        return known - set(artifacts)

    def _inputs(self, artifacts: Iterable[int]) -> set[int]:
        """The artifacts that went into those executions of which some artifacts are outputs."""
        made_by = {
            event.execution_id
            for event in self._store.get_events_by_artifact_ids(list(artifacts))
            if event.type == _OUTPUT
        }
        events = self._store.get_events_by_execution_ids(made_by) if made_by else []
        inputs = (metadata_store_pb2.Event.INPUT, metadata_store_pb2.Event.DECLARED_INPUT)
        return {event.artifact_id for event in events if event.type in inputs}
