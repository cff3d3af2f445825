"""Before a new run, recovery removes what an interrupted run left unfinished, and keeps everything else."""

import shutil
import time
from pathlib import Path

import ml_metadata as mlmd
import pytest
from ml_metadata.proto.metadata_store_pb2 import Execution

from components.pushing.versions import VERSION_FILE, unfinished
from pipeline.local.output import OutputFolder
from pipeline.local.recovery import recover
from pipeline.local.store import metadata_config
from tests.components.pushing.recorded import Recorded, write_version

UNFINISHED = [Execution.NEW, Execution.RUNNING, Execution.FAILED]


class Store(Recorded):
    """An output folder with a metadata store; its methods add single records and files."""

    def __init__(self, root: Path):
        self.output = OutputFolder(root)
        super().__init__(mlmd.MetadataStore(metadata_config(self.output.metadata)))

    def artifact(self, node: str, execution: int) -> Path:
        folder = self.output.artifacts / node / "model" / str(execution)
        folder.mkdir(parents=True)
        (folder / "file").write_text("content")
        return folder

    def version(self, number: int) -> Path:
        return write_version(self.output.serving / "dcn" / str(number))

    def pusher(self, state: int, version: Path) -> int:
        """A Pusher that has written down which version it adds."""
        execution = self.execution("Pusher", state)
        record = self.output.artifacts / "Pusher.dcn" / ".system" / "executor_execution" / str(execution) / VERSION_FILE
        record.parent.mkdir(parents=True)
        record.write_text(f"{version.parent.name}/{version.name}")
        return execution


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path)


def test_a_new_folder_needs_no_recovery(tmp_path: Path) -> None:
    assert recover(OutputFolder(tmp_path)) == 0


@pytest.mark.parametrize("state", [Execution.NEW, Execution.RUNNING])
def test_open_executions_are_marked_failed_and_their_files_removed(store: Store, state: int) -> None:
    done = store.execution("Trainer")
    interrupted = store.execution("Trainer", state)
    kept, unfinished_one = store.artifact("Trainer.dcn", done), store.artifact("Trainer.dcn", interrupted)
    assert recover(store.output) == 1
    assert kept.is_dir()
    assert not unfinished_one.exists()
    states = {execution.id: execution.last_known_state for execution in store.store.get_executions()}
    assert states == {done: Execution.COMPLETE, interrupted: Execution.FAILED}
    assert recover(store.output) == 0


@pytest.mark.parametrize("state", UNFINISHED)
def test_what_a_push_that_did_not_end_has_written_is_removed(store: Store, state: int) -> None:
    # One was killed while it copied; the other after that, before it was written down that it had succeeded.
    half, whole = store.output.serving / "dcn" / "1700000000", store.version(1700000001)
    write_version(unfinished(half))
    store.pusher(state, half)
    store.pusher(state, whole)
    recover(store.output)
    assert list((store.output.serving / "dcn").iterdir()) == []


@pytest.mark.parametrize("state", UNFINISHED)
def test_versions_that_no_failed_push_wrote_survive_every_start(store: Store, state: int) -> None:
    pushed = store.version(1700000000)
    store.push(store.model(), pushed)
    store.pusher(Execution.COMPLETE, pushed)
    store.pusher(state, store.version(1700000001))
    # A Pusher of an earlier version of this project, and one that failed before it chose a version.
    store.execution("tfx.components.pusher.component.Pusher", state)
    # Made by hand, and a rollback to a version whose number is higher than any.
    by_hand = [store.version(number) for number in (1, int(time.time()) + 1, 9_999_999_999)]
    other = write_version(store.output.serving / "own_model" / "4000000000")
    for _ in range(3):
        recover(store.output)
        assert sorted((store.output.serving / "dcn").iterdir()) == sorted([pushed, *by_hand])
        assert other.is_dir()


def test_a_version_that_takes_the_place_of_a_removed_one_survives(store: Store) -> None:
    version = store.version(1700000000)
    store.pusher(Execution.FAILED, version)
    recover(store.output)
    assert not version.exists()
    store.version(1700000000)
    recover(store.output)
    assert version.is_dir()


def test_the_archive_of_a_version_that_was_deleted_by_hand_stays(store: Store) -> None:
    version = store.version(1700000000)
    execution = store.pusher(Execution.COMPLETE, version)
    archive = store.artifact("Pusher.dcn", execution)
    store.push(store.model(), version, archive)
    store.execution("Pusher", Execution.FAILED)
    shutil.rmtree(version)
    recover(store.output)
    assert archive.is_dir()
