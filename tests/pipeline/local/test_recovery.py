"""Before a new run, recovery removes what an interrupted run left unfinished, and keeps everything finished."""

import time
from pathlib import Path

import ml_metadata as mlmd
import pytest
from ml_metadata.proto import metadata_store_pb2

from pipeline.local.output import OutputFolder
from pipeline.local.recovery import metadata_config, recover

Execution = metadata_store_pb2.Execution
PUSHER = "tfx.components.pusher.component.Pusher"


class Store:
    """An output folder with a metadata store; its methods add single records and files."""

    def __init__(self, root: Path):
        self.output = OutputFolder(root)
        self.mlmd = mlmd.MetadataStore(metadata_config(self.output.metadata))

    def execution(self, kind: str, state: int) -> int:
        type_id = self.mlmd.put_execution_type(metadata_store_pb2.ExecutionType(name=kind))
        (execution_id,) = self.mlmd.put_executions([Execution(type_id=type_id, last_known_state=state)])
        return execution_id

    def artifact(self, node: str, execution_id: int) -> Path:
        folder = self.output.artifacts / node / "model" / str(execution_id)
        folder.mkdir(parents=True)
        (folder / "file").write_text("content")
        return folder

    def version(self, name: str, number: int) -> Path:
        folder = self.output.serving / name / str(number)
        folder.mkdir(parents=True)
        (folder / "saved_model.pb").write_text("content")
        return folder

    def pushed(self, version: Path, archive: Path) -> None:
        type_id = self.mlmd.put_artifact_type(metadata_store_pb2.ArtifactType(name="PushedModel"))
        artifact = metadata_store_pb2.Artifact(type_id=type_id, uri=str(archive))
        artifact.custom_properties["pushed"].int_value = 1
        artifact.custom_properties["pushed_destination"].string_value = str(version)
        self.mlmd.put_artifacts([artifact])


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path)


def test_a_new_folder_needs_no_recovery(tmp_path: Path) -> None:
    assert recover(OutputFolder(tmp_path)) == 0


@pytest.mark.parametrize("state", [Execution.NEW, Execution.RUNNING])
def test_open_executions_are_marked_failed_and_their_files_removed(store: Store, state: int) -> None:
    done = store.execution("Trainer", Execution.COMPLETE)
    interrupted = store.execution("Trainer", state)
    kept, unfinished = store.artifact("Trainer.dcn", done), store.artifact("Trainer.dcn", interrupted)
    assert recover(store.output) == 1
    assert kept.is_dir()
    assert not unfinished.exists()
    states = {execution.id: execution.last_known_state for execution in store.mlmd.get_executions()}
    assert states == {done: Execution.COMPLETE, interrupted: Execution.FAILED}
    assert recover(store.output) == 0


def test_the_version_of_an_unfinished_push_is_removed(store: Store) -> None:
    now = int(time.time())
    older = store.version("dcn", now - 1000)
    copied_by_hand = store.version("dcn", 1)
    store.pushed(older, store.artifact("Pusher.dcn", store.execution(PUSHER, Execution.COMPLETE)))
    store.execution(PUSHER, Execution.RUNNING)
    unfinished = store.version("dcn", now + 1)
    recover(store.output)
    assert older.is_dir()
    assert copied_by_hand.is_dir()
    assert not unfinished.exists()


def test_a_version_whose_push_is_recorded_stays_although_another_push_failed(store: Store) -> None:
    store.execution(PUSHER, Execution.FAILED)
    version = store.version("dcn", int(time.time()) + 1)
    archive = store.artifact("Pusher.dcn", store.execution(PUSHER, Execution.COMPLETE))
    store.pushed(version, archive)
    recover(store.output)
    assert version.is_dir()
    assert archive.is_dir()


def test_the_artifact_of_a_push_is_removed_if_its_version_is_gone(store: Store) -> None:
    archive = store.artifact("Pusher.dcn", store.execution(PUSHER, Execution.COMPLETE))
    store.pushed(store.output.serving / "dcn" / "1700000000", archive)
    recover(store.output)
    assert not archive.exists()
