"""Artifacts and pushed models may lie at URIs, which belong to one output folder and are known to every command."""

import json
import shutil
import uuid
from pathlib import Path

import ml_metadata as mlmd
import pytest
from ml_metadata.proto.metadata_store_pb2 import Execution
from typer.testing import CliRunner

from components.pushing.pushed_models import pushes
from components.pushing.versions import VERSION_FILE, add
from components.storage.paths import remove_folder, stored_path, write_whole
from pipeline import cli
from pipeline.local import storage
from pipeline.local.output import OutputFolder
from pipeline.local.recovery import recover
from pipeline.local.relocation import follow_move
from pipeline.local.storage import OWNER, StorageError
from pipeline.local.store import metadata_config
from pipeline.storage_config import StorageConfig
from tests import ram_files
from tests.components.pushing.recorded import Recorded, write_version

BUCKET = "ram://{}/movielens"


@pytest.fixture
def places() -> StorageConfig:
    """A folder for artifacts and one for models, in a bucket that no other test has."""
    bucket = BUCKET.format(uuid.uuid4().hex)
    return StorageConfig(artifacts=f"{bucket}/pipeline", serving=f"{bucket}/serving")


@pytest.fixture
def output(tmp_path: Path, places: StorageConfig) -> OutputFolder:
    folder = OutputFolder(tmp_path / "output")
    folder.prepare(0)
    folder.keep_storage(places)
    return folder


def command(*arguments: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(cli.app, arguments, env={"COLUMNS": "200", "TERM": "dumb"})
    return result.exit_code, result.stdout, result.stderr


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_without_the_settings_everything_is_in_the_folder(tmp_path: Path) -> None:
    output = OutputFolder(tmp_path)
    output.keep_storage(StorageConfig())
    assert (output.artifacts, output.serving) == (tmp_path / "pipeline", tmp_path / "serving")
    assert output.places == []
    assert list(tmp_path.iterdir()) == []


def test_whoever_has_the_folder_knows_the_places(output: OutputFolder, places: StorageConfig) -> None:
    again = OutputFolder(output.root)
    assert [str(again.artifacts), str(again.serving)] == [places.artifacts, places.serving]
    again.keep_storage(places)
    again.check_metadata()
    assert names(output.root) == ["logs", "storage.json"]


def test_one_of_the_two_may_be_in_the_folder(tmp_path: Path, places: StorageConfig) -> None:
    output = OutputFolder(tmp_path / "output")
    output.keep_storage(StorageConfig(serving=places.serving))
    assert output.artifacts == output.root / "pipeline"
    assert str(output.serving) == places.serving


@pytest.mark.parametrize("artifacts", [None, "ram://other/pipeline"])
def test_a_used_folder_keeps_to_its_places(output: OutputFolder, places: StorageConfig, artifacts: str | None) -> None:
    with pytest.raises(
        StorageError, match=f"artifacts at {places.artifacts}, .*storage.artifacts is {artifacts or 'null'}"
    ):
        output.keep_storage(StorageConfig(artifacts=artifacts, serving=places.serving), write=False)


def test_a_folder_that_has_artifacts_keeps_to_itself(tmp_path: Path, places: StorageConfig) -> None:
    output = OutputFolder(tmp_path)
    (output.artifacts / "Transform").mkdir(parents=True)
    with pytest.raises(StorageError, match="has pipeline, in which artifacts and pushed models are kept unless"):
        output.keep_storage(places)
    assert names(tmp_path) == ["pipeline"]


def test_two_folders_do_not_share_a_place(output: OutputFolder, places: StorageConfig, tmp_path: Path) -> None:
    other = OutputFolder(tmp_path / "other")
    for config in (places, StorageConfig(serving=places.serving), StorageConfig(artifacts=places.artifacts)):
        with pytest.raises(StorageError, match=f"belongs to the output folder {output.root}"):
            other.keep_storage(config)
        # What was refused binds it to nothing.
        assert other.places == []


def test_a_copy_of_a_folder_is_refused_and_one_that_was_moved_is_not(
    output: OutputFolder, places: StorageConfig, tmp_path: Path
) -> None:
    copy = OutputFolder(shutil.copytree(output.root, tmp_path / "copy"))
    with pytest.raises(StorageError, match=f"belongs to the output folder {output.root}"):
        copy.keep_storage(places)
    moved = OutputFolder(output.root.rename(tmp_path / "moved"))
    moved.keep_storage(places)
    # Now the place knows where the folder is, and the copy is one still.
    with pytest.raises(StorageError, match=f"belongs to the output folder {moved.root}"):
        copy.check_places()


def test_a_check_writes_nothing(tmp_path: Path, places: StorageConfig) -> None:
    OutputFolder(tmp_path / "output").keep_storage(places, write=False)
    assert list(tmp_path.iterdir()) == []
    assert places.artifacts
    assert not stored_path(places.artifacts).exists()


def test_artifacts_without_their_metadata_are_an_error(output: OutputFolder) -> None:
    (output.artifacts / "Transform").mkdir()
    with pytest.raises(Exception, match=r"ram://.*/pipeline holds artifacts, but the metadata that describe them"):
        output.check_metadata()


def test_an_unreadable_mark_is_an_error(output: OutputFolder) -> None:
    (output.root / "storage.json").write_text("{")
    with pytest.raises(StorageError, match=r"storage\.json: should say where artifacts and pushed models lie"):
        _ = output.artifacts


def test_a_place_that_is_refused_leaves_the_other_one_free(
    output: OutputFolder, places: StorageConfig, tmp_path: Path
) -> None:
    free = f"{BUCKET.format(uuid.uuid4().hex)}/pipeline"
    other = OutputFolder(tmp_path / "other")
    with pytest.raises(StorageError, match=r"storage\.serving: .* belongs to the output folder"):
        other.keep_storage(StorageConfig(artifacts=free, serving=places.serving))
    assert other.places == []
    assert not stored_path(free).exists()
    other.keep_storage(StorageConfig(artifacts=free))
    assert [str(place) for place in other.places] == [free]


def test_of_two_commands_that_begin_at_once_both_have_the_first_ones_places(
    tmp_path: Path, places: StorageConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = OutputFolder(tmp_path / "output"), OutputFolder(tmp_path / "output")
    known = storage._check_known

    def late(kept: storage.Kept) -> None:
        # The first one does all of its work while the second one loads TensorFlow.
        monkeypatch.setattr(storage, "_check_known", known)
        first.keep_storage(places)
        known(kept)

    monkeypatch.setattr(storage, "_check_known", late)
    second.keep_storage(places)
    for folder in (first, second):
        assert [str(place) for place in folder.places] == [places.artifacts, places.serving]
        folder.check_places(places)
    assert names(first.root) == ["storage.json"]


def test_a_folder_that_was_deleted_has_its_places_still(output: OutputFolder, places: StorageConfig) -> None:
    shutil.rmtree(output.root)
    with pytest.raises(StorageError, match=rf"an earlier output folder {output.root}, which is gone.* Delete ram://"):
        output.keep_storage(places)
    for uri in (places.artifacts, places.serving):
        assert uri
        remove_folder(stored_path(uri))
    output.keep_storage(places)


def test_a_folder_that_lost_its_mark_is_not_used_as_if_it_had_none(output: OutputFolder, places: StorageConfig) -> None:
    (output.root / "storage.json").unlink()
    with pytest.raises(StorageError, match=r"should keep artifacts at ram://.*; storage\.json does not say so"):
        output.check_places(places)


def test_what_cannot_be_told_to_be_gone_is_taken_to_be_there(
    output: OutputFolder, places: StorageConfig, tmp_path: Path
) -> None:
    copy = OutputFolder(shutil.copytree(output.root, tmp_path / "copy"))
    (output.root / "storage.json").write_text("{")
    with pytest.raises(StorageError, match=f"belongs to the output folder {output.root}"):
        copy.keep_storage(places)


SMALL = ("--set", "data.sample={users: 20, movies: 30, ratings: 300}")


@pytest.mark.parametrize("name", ["run", "plan"])
@pytest.mark.parametrize("setting", ["artifacts", "serving"])
def test_a_scheme_that_tensorflow_does_not_know_is_named(tmp_path: Path, name: str, setting: str) -> None:
    uri = "s3://bucket/x"
    code, _, err = command(name, "--output", str(tmp_path / "out"), *SMALL, "--set", f"storage.{setting}={uri}")
    assert code == 2
    assert f"storage.{setting}: should be a URI that TensorFlow knows, of gs://, ram://; received '{uri}'" in err
    assert "s3:// needs a plug-in for TensorFlow's file systems" in err
    assert not (tmp_path / "out" / "storage.json").exists()
    assert not (tmp_path / "out" / "metadata.sqlite").exists()


def test_so_is_one_that_beam_does_not_know(
    tmp_path: Path, places: StorageConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ram_files.RamFileSystem, "scheme", classmethod(lambda cls: "another"))
    with pytest.raises(
        StorageError, match=r"should be a URI that Apache Beam knows, too; received 'ram://.* for gs://"
    ):
        OutputFolder(tmp_path).keep_storage(places)


@pytest.mark.parametrize(
    ("kind", "problem", "exit_code"),
    [
        ("PermissionDeniedError", "should be a folder that can be written; .*no answer from ram://", 2),
        # An orchestrator tries again.
        ("UnavailableError", "cannot be reached; .*no answer from ram://", 1),
        ("DeadlineExceededError", "cannot be reached; .*no answer from ram://", 1),
    ],
)
@pytest.mark.parametrize("method", ["makedirs", "GFile"])
def test_a_place_that_cannot_be_written_is_named(
    *,
    tmp_path: Path,
    places: StorageConfig,
    monkeypatch: pytest.MonkeyPatch,
    method: str,
    kind: str,
    problem: str,
    exit_code: int,
) -> None:
    import tensorflow as tf

    def failing(path: str, *_: object) -> None:
        raise getattr(tf.errors, kind)(None, None, f"no answer from {path}")

    monkeypatch.setattr(tf.io.gfile, method, failing)
    output = OutputFolder(tmp_path)
    with pytest.raises(StorageError, match=rf"storage\.artifacts: ram://.* {problem}") as caught:
        output.keep_storage(places)
    assert caught.value.exit_code == exit_code
    assert output.places == []


class Runs(Recorded):
    """What runs have written to an output folder whose artifacts and models are at URIs."""

    def __init__(self, output: OutputFolder, model: Path):
        super().__init__(mlmd.MetadataStore(metadata_config(output.metadata)))
        self.output, self._model = output, model

    def version(self, name: str, number: int) -> Path:
        version = self.output.serving / name / str(number)
        add(self._model, version)
        return version

    def artifact(self, node: str, execution: int) -> Path:
        folder = self.output.artifacts / node / "model" / str(execution)
        folder.mkdir(parents=True)
        (folder / "file").write_bytes(b"content")
        return folder

    def pusher(self, state: int, version: Path) -> int:
        execution = self.execution("Pusher", state)
        record = self.output.artifacts / "Pusher.dcn" / ".system" / "executor_execution" / str(execution)
        record.mkdir(parents=True)
        (record / VERSION_FILE).write_bytes(f"{version.parent.name}/{version.name}".encode())
        return execution


@pytest.fixture
def runs(output: OutputFolder, tmp_path: Path) -> Runs:
    return Runs(output, write_version(tmp_path / "model"))


@pytest.mark.parametrize("state", [Execution.NEW, Execution.RUNNING, Execution.FAILED])
def test_recovery_removes_what_did_not_come_to_its_end_and_no_more(runs: Runs, state: int) -> None:
    done, open_ = runs.execution("Trainer"), runs.execution("Trainer", state)
    kept, half = runs.artifact("Trainer.dcn", done), runs.artifact("Trainer.dcn", open_)
    working = runs.output.artifacts / "Trainer.dcn" / ".system" / "stateful_working_dir" / "2026"
    working.mkdir(parents=True)
    whole, by_hand = runs.version("dcn", 17), runs.version("dcn", 18)
    # The Pusher was killed before the last file.
    partial = runs.output.serving / "dcn" / "19"
    (partial / "variables").mkdir(parents=True)
    for version in (whole, partial):
        runs.pusher(state, version)
    recover(runs.output)
    assert [path.exists() for path in (kept, half, working, whole, partial)] == [True, False, False, False, False]
    assert names(runs.output.serving / "dcn") == [by_hand.name]
    assert recover(runs.output) == 0
    assert kept.is_dir()


def test_recovery_of_one_node_leaves_the_others_alone(runs: Runs) -> None:
    other = runs.artifact("Trainer.dcn", runs.execution("Trainer", Execution.RUNNING))
    recover(runs.output, ("sample", "Trainer.joint"))
    assert other.is_dir()


def test_a_version_is_withdrawn_where_it_is(runs: Runs) -> None:
    good, bad = runs.model(), runs.model()
    for number, model in ((11, good), (21, bad)):
        runs.push(model, runs.version("ranking", number))
    arguments = ("withdraw", "ranking", "21", "--output", str(runs.output.root), "--why", "it loves sequels")
    code, out, err = command(*arguments)
    assert (code, err) == (0, "")
    assert out.splitlines() == [
        "ranking 21 is withdrawn; no later run pushes it again.",
        "Taken out of serving: ranking 21.",
        "Served as ranking from now on: 11.",
    ]
    assert names(runs.output.serving / "ranking") == ["11"]
    assert "was already withdrawn" in command(*arguments)[1]
    assert [push.is_there for push in pushes(runs.store)] == [True, False]


def test_a_withdrawal_from_a_copy_of_the_folder_is_refused(runs: Runs, tmp_path: Path) -> None:
    runs.push(runs.model(), runs.version("ranking", 11))
    copy = shutil.copytree(runs.output.root, tmp_path / "copy")
    code, _, err = command("withdraw", "ranking", "11", "--output", str(copy), "--why", "bad")
    assert code == 2
    assert "belongs to the output folder" in err
    assert names(runs.output.serving / "ranking") == ["11"]
    assert [push.withdrawal for push in pushes(runs.store)] == [None]


@pytest.mark.parametrize("options", [(), ("--yes",)])
def test_nothing_is_pruned_at_a_uri(runs: Runs, options: tuple[str, ...]) -> None:
    version = runs.version("ranking", 11)
    runs.push(runs.model(), version)
    code, out, err = command("prune", "--output", str(runs.output.root), *options)
    assert (code, out) == (2, "")
    assert f"are at {runs.output.artifacts} and {runs.output.serving}. Nothing was removed." in err
    assert version.is_dir()


def test_what_is_at_a_uri_does_not_move_with_the_folder(runs: Runs, places: StorageConfig, tmp_path: Path) -> None:
    version = runs.version("ranking", 11)
    archive = runs.artifact("Pusher.ranking", 1)
    runs.push(runs.model(), version, archive)
    moved = OutputFolder(runs.output.root.rename(tmp_path / "moved"))
    moved.keep_storage(places)
    store = mlmd.MetadataStore(metadata_config(moved.metadata))
    assert follow_move(store, moved) == []
    (push,) = pushes(store)
    assert (push.destination, push.archive) == (version, archive)
    assert push.is_there
    assert push.is_in(moved.serving)


@pytest.fixture
def compiled(tmp_path: Path, places: StorageConfig) -> Path:
    """A compiled pipeline whose artifacts and models are at URIs."""
    from components.data.sample import generate_sample

    generate_sample(tmp_path / "data", 20, 30, 300, 0)
    folders = ("--data", str(tmp_path / "data"), "--root", str(tmp_path / "output"))
    settings = (f"storage.artifacts={places.artifacts}", f"storage.serving={places.serving}")
    file = tmp_path / "pipeline.pb"
    options = [option for setting in settings for option in ("--set", setting)]
    code, _, err = command("compile", *folders, "--output", str(file), *options)
    assert code == 0, err
    return file


def test_a_compiled_pipeline_has_the_places(compiled: Path, places: StorageConfig) -> None:
    from pipeline.local.compiled import read

    first = read(compiled)
    assert str(first.output.serving) == places.serving
    assert first.ir.runtime_spec.pipeline_root.runtime_parameter.default_value.string_value == places.artifacts
    description = compiled.with_suffix(".json")
    assert json.loads(description.read_text())["config"]["storage"] == places.model_dump()
    # Runs that are started from it, as Airflow's, keep to the places.
    run = compiled.with_name("run.pb")
    code, _, err = command("compile", "--like", str(description), "--output", str(run))
    assert code == 0, err
    assert read(run).ir == first.ir


def test_no_node_runs_at_a_place_that_is_not_its_folders(compiled: Path, places: StorageConfig) -> None:
    assert places.artifacts
    write_whole(stored_path(places.artifacts) / OWNER, '{"folder": "another", "root": "/data/another"}')
    code, _, err = command("run-node", "--pipeline", str(compiled), "--node", "ImportSchemaGen", "--run-id", "first")
    assert code == 2
    assert "belongs to the output folder /data/another" in err
    assert names(stored_path(places.artifacts)) == [OWNER]
