"""A metadata store with what pipelines would have written to it."""

from pathlib import Path

import ml_metadata as mlmd
from ml_metadata.proto import metadata_store_pb2
from ml_metadata.proto.metadata_store_pb2 import Artifact, ArtifactType, Event, Execution, ExecutionType

COMPLETE = Execution.COMPLETE


class Recorded:
    """Writes single records to a store: of executions, of models, and of models that were pushed."""

    def __init__(self, store: mlmd.MetadataStore | None = None):
        if store is None:
            config = metadata_store_pb2.ConnectionConfig()
            config.fake_database.SetInParent()
            store = mlmd.MetadataStore(config)
        self.store = store

    def execution(self, kind: str, state: int = COMPLETE) -> int:
        type_id = self.store.put_execution_type(ExecutionType(name=kind))
        (execution,) = self.store.put_executions([Execution(type_id=type_id, last_known_state=state)])
        return execution

    def model(self, **inputs: int) -> int:
        """A model, made of artifacts by name."""
        artifact = self._artifact("Model")
        self._write(self.execution("Trainer"), inputs, "model", artifact)
        return artifact

    def push(self, model: int, version: Path, archive: Path | None = None) -> int:
        """A push of a model, whose version is there if its folder is."""
        properties: dict[str, int | str] = {"pushed": 1, "pushed_destination": str(version)}
        return self._pushed(model, properties, archive or version.with_name("archive"))

    def refused(self, model: int) -> int:
        """The run of a Pusher that pushed nothing."""
        return self._pushed(model, {"pushed": 0}, Path("/archive"))

    def cached(self, pushed: int, model: int) -> None:
        """A later run whose Pusher came from the cache."""
        self._write(self.execution("Pusher", Execution.CACHED), {"model": model}, "pushed_model", pushed)

    def _pushed(self, model: int, properties: dict[str, int | str], archive: Path) -> int:
        artifact = self._artifact("PushedModel", str(archive), properties)
        self._write(self.execution("Pusher"), {"model": model}, "pushed_model", artifact)
        return artifact

    def _artifact(self, kind: str, uri: str = "", properties: dict[str, int | str] | None = None) -> int:
        type_id = self.store.put_artifact_type(ArtifactType(name=kind))
        artifact = Artifact(type_id=type_id, uri=uri, state=Artifact.LIVE)
        for name, value in (properties or {}).items():
            if isinstance(value, int):
                artifact.custom_properties[name].int_value = value
            else:
                artifact.custom_properties[name].string_value = value
        (number,) = self.store.put_artifacts([artifact])
        return number

    def _write(self, execution: int, inputs: dict[str, int], output: str, artifact: int) -> None:
        paths = {(Event.INPUT, name): number for name, number in inputs.items()} | {(Event.OUTPUT, output): artifact}
        events = []
        for (kind, name), number in paths.items():
            event = Event(type=kind, artifact_id=number, execution_id=execution)
            event.path.steps.add().key = name
            event.path.steps.add().index = 0
            events.append(event)
        self.store.put_events(events)


def write_version(folder: Path, content: str = "model") -> Path:
    """A version as a model server wants it."""
    (folder / "variables").mkdir(parents=True)
    (folder / "variables" / "data").write_text(content)
    (folder / "saved_model.pb").write_text(content)
    return folder
