"""The Pusher as a node of a pipeline that runs again and again."""

import os
import shutil
import signal
import subprocess
import sys
import uuid
from datetime import UTC, datetime
from pathlib import Path

import ml_metadata as mlmd
import pytest
from tfx import v1 as tfx
from tfx.types import standard_artifacts

from components.pushing.pushed_models import Withdrawal, mark_withdrawn, parts, pushes
from components.pushing.versions import unfinished
from components.storage.paths import remove_folder, stored_path, write_whole
from pipeline.launcher import compile_pipeline, launch_node, new_run_id, node_ids
from pipeline.local.choices import read_outputs
from pipeline.local.output import OutputFolder
from pipeline.local.recovery import recover
from pipeline.local.store import metadata_config
from pipeline.local.withdrawing import withdraw
from pipeline.model_stage import pusher
from pipeline.nodes import NodeRun
from pipeline.storage_config import StorageConfig
from serving.local.versions import list_versions
from tests import ram_files

pytestmark = pytest.mark.component

assert ram_files.SCHEME  # Beam knows files in memory once this was imported.

ROOT = Path(__file__).resolve().parents[3]


@tfx.dsl.components.component
def Train(
    content: tfx.dsl.components.Parameter[str],
    model: tfx.dsl.components.OutputArtifact[standard_artifacts.Model],
) -> None:
    """Writes a model where a Trainer does."""
    folder = stored_path(model.uri) / "Format-Serving"
    (folder / "variables").mkdir(parents=True)
    write_whole(folder / "variables" / "data", content)
    write_whole(folder / "saved_model.pb", content)


@tfx.dsl.components.component
def Bless(
    model: tfx.dsl.components.InputArtifact[standard_artifacts.Model],
    blessed: tfx.dsl.components.Parameter[int],
    gate: tfx.dsl.components.Parameter[str],
    blessing: tfx.dsl.components.OutputArtifact[standard_artifacts.ModelBlessing],
) -> None:
    """Blesses a model as the Evaluator does; with another `gate`, anew."""
    del gate
    write_whole(stored_path(blessing.uri) / ("BLESSED" if blessed else "NOT_BLESSED"), "")
    blessing.set_int_custom_property("blessed", blessed)
    blessing.set_int_custom_property("current_model_id", model.id)


def run_pusher(root: Path, content: str = "first", gate: str = "", blessed: int = 1, cache: bool = True):
    """Runs Train, Bless and Pusher; gives the Pusher's state and what it says of the pushed model."""
    output = OutputFolder(root)
    train = Train(content=content).with_id("Trainer.ranking")
    bless = Bless(model=train.outputs["model"], blessed=blessed, gate=gate).with_id("Evaluator.ranking")
    push = pusher("ranking", train.outputs["model"], bless.outputs["blessing"], str(output.serving))
    connection = metadata_config(output.metadata)
    ir = compile_pipeline(
        tfx.dsl.Pipeline(
            pipeline_name="test",
            pipeline_root=str(output.artifacts),
            components=[train, bless, push],
            enable_cache=cache,
            metadata_connection_config=connection,
        )
    )
    run_id = new_run_id()
    launched = [launch_node(ir, node_id, run_id) for node_id in node_ids(ir)][-1]
    node = NodeRun("Pusher.ranking", launched.state, 0.0, launched.execution_id)
    pushed = read_outputs(mlmd.MetadataStore(connection), [node])["Pusher.ranking"]["pushed_model"]
    return launched.state, pushed.properties.get("pushed"), str(pushed.properties.get("refused", ""))


def served(root: Path) -> list[str]:
    """The contents of the versions, the oldest first, and nothing else that lies there."""
    folder = OutputFolder(root).serving / "ranking"
    versions = list_versions(folder, settle_seconds=0)[::-1]
    assert sorted(folder.iterdir()) == [version.path for version in versions]
    return [(version.path / "variables" / "data").read_text() for version in versions]


def newest(root: Path) -> Path:
    return list_versions(OutputFolder(root).serving / "ranking", settle_seconds=0)[0].path


def test_a_blessed_model_is_pushed_whole_and_once(tmp_path):
    assert run_pusher(tmp_path) == ("complete", 1, "")
    assert run_pusher(tmp_path) == ("cached", 1, "")
    # Several pushes may fall into one second.
    assert run_pusher(tmp_path, "second") == ("complete", 1, "")
    assert served(tmp_path) == ["first", "second"]
    store = mlmd.MetadataStore(metadata_config(OutputFolder(tmp_path).metadata))
    assert [push.destination for push in pushes(store)][-1] == newest(tmp_path)
    assert {(push.archive / "saved_model.pb").read_text() for push in pushes(store)} == {"first", "second"}


def test_a_model_that_is_not_blessed_is_not_pushed(tmp_path):
    assert run_pusher(tmp_path, blessed=0) == ("complete", 0, "")
    assert not OutputFolder(tmp_path).serving.exists()


def test_a_withdrawn_model_is_never_pushed_again(tmp_path):
    run_pusher(tmp_path)
    run_pusher(tmp_path, "bad")
    store = mlmd.MetadataStore(metadata_config(OutputFolder(tmp_path).metadata))
    mark_withdrawn(store, pushes(store)[-1], Withdrawal(datetime(2026, 3, 1, tzinfo=UTC), "it loves sequels"))
    shutil.rmtree(newest(tmp_path))
    reason = "withdrawn on 2026-03-01: it loves sequels"
    assert run_pusher(tmp_path, "bad") == ("complete", 0, reason)
    assert run_pusher(tmp_path, "bad") == ("cached", 0, reason)
    # Measured and blessed once more, by other gates.
    assert run_pusher(tmp_path, "bad", gate="lower") == ("complete", 0, reason)
    assert served(tmp_path) == ["first"]
    # Others are pushed as ever.
    assert run_pusher(tmp_path, "good") == ("complete", 1, "")
    assert served(tmp_path) == ["first", "good"]


def test_a_version_that_was_deleted_by_hand_is_reported_and_not_pushed_under_another_number(tmp_path):
    run_pusher(tmp_path)
    version = newest(tmp_path)
    shutil.rmtree(version)
    for gate in ("", "", "lower"):
        recover(OutputFolder(tmp_path))
        _, pushed, refused = run_pusher(tmp_path, gate=gate)
        assert pushed == 0
        assert f"version {version.name} of ranking was pushed on " in refused
    assert served(tmp_path) == []
    # Put back as the message says, it counts as pushed.
    archive = refused.removesuffix(f" to {version}").split("To serve it, copy ")[1]
    shutil.copytree(archive, version)
    assert run_pusher(tmp_path) == ("cached", 1, "")
    assert served(tmp_path) == ["first"]


@tfx.dsl.components.component
def Join(
    retrieval_model: tfx.dsl.components.InputArtifact[standard_artifacts.Model],
    ranking_model: tfx.dsl.components.InputArtifact[standard_artifacts.Model],
    recommender: tfx.dsl.components.OutputArtifact[standard_artifacts.Model],
) -> None:
    """Writes a recommender where RecommenderBuilder does."""
    shutil.copytree(retrieval_model.uri, recommender.uri, dirs_exist_ok=True)
    del ranking_model


def test_a_recommender_of_one_model_is_known_to_be_made_of_it(tmp_path):
    train = Train(content="joint").with_id("Trainer.joint")
    model = train.outputs["model"]
    join = Join(retrieval_model=model, ranking_model=model)
    connection = metadata_config(tmp_path / "metadata.sqlite")
    ir = compile_pipeline(
        tfx.dsl.Pipeline(
            pipeline_name="test",
            pipeline_root=str(tmp_path / "pipeline"),
            components=[train, join],
            metadata_connection_config=connection,
        )
    )
    for node_id in node_ids(ir):
        launch_node(ir, node_id, "run")
    store = mlmd.MetadataStore(connection)
    joint, recommender = (artifact.id for artifact in store.get_artifacts_by_type("Model"))
    assert parts(store, [recommender, joint]) == {recommender: {joint}, joint: set()}


# Runs the pipeline and dies in its Pusher: in the midst of the copy, or after the version got its name.
DIE = """
import os, shutil, signal, sys
from pathlib import Path
from components.pushing import versions
from tests.components.pushing import test_pusher
moment, root = sys.argv[1:]
def die(*_, **__): os.kill(os.getpid(), signal.SIGKILL)
if moment == "copy":
    def copy_folder(source, target, exist_ok):
        Path(target).mkdir(parents=True, exist_ok=True)
        shutil.copy(Path(source) / "saved_model.pb", target)
        die()
    versions.copy_folder = copy_folder
else:
    from components.pushing.pusher import Executor
    Executor._MarkPushed = die
test_pusher.run_pusher(Path(root), "second")
"""


@pytest.mark.parametrize("moment", ["copy", "named"])
def test_what_a_killed_pusher_leaves_is_removed_and_pushed_by_the_next_run(tmp_path, moment):
    run_pusher(tmp_path)
    by_hand = newest(tmp_path).with_name("9999999999")
    shutil.copytree(newest(tmp_path), by_hand)
    killed = subprocess.run(
        [sys.executable, "-c", DIE, moment, str(tmp_path)], cwd=ROOT, env=os.environ, capture_output=True, check=False
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()[-3000:]
    folder = OutputFolder(tmp_path).serving / "ranking"
    if moment == "copy":
        # No model server takes it for a version.
        assert len(list_versions(folder, settle_seconds=0)) == 2
    assert len(list(folder.iterdir())) == 3
    assert recover(OutputFolder(tmp_path)) == 1
    assert served(tmp_path) == ["first", "first"]
    assert run_pusher(tmp_path, "second") == ("complete", 1, "")
    assert served(tmp_path) == ["first", "second", "first"]
    assert by_hand.is_dir()


def test_a_push_that_fails_leaves_nothing_after_recovery(tmp_path, monkeypatch):
    run_pusher(tmp_path)

    def broken(model: Path, version: Path) -> None:
        unfinished(version).mkdir()
        raise OSError(28, "No space left on device", str(version))

    monkeypatch.setattr("components.pushing.pusher.add", broken)
    with pytest.raises(OSError, match="No space left"):
        run_pusher(tmp_path, "second")
    monkeypatch.undo()
    recover(OutputFolder(tmp_path))
    assert served(tmp_path) == ["first"]


@pytest.fixture
def at_uris(tmp_path: Path) -> OutputFolder:
    """An output folder whose artifacts and versions are at URIs."""
    bucket, output = f"ram://{uuid.uuid4().hex}", OutputFolder(tmp_path)
    output.keep_storage(StorageConfig(artifacts=f"{bucket}/pipeline", serving=f"{bucket}/serving"))
    return output


def contents(output: OutputFolder) -> list[str]:
    """The contents of the versions of an output folder, the oldest first."""
    versions = sorted((output.serving / "ranking").iterdir(), key=lambda version: int(version.name))
    return [(version / "saved_model.pb").read_text() for version in versions]


def test_at_uris_models_are_pushed_withdrawn_and_missed_as_in_folders(at_uris: OutputFolder) -> None:
    assert run_pusher(at_uris.root) == ("complete", 1, "")
    assert run_pusher(at_uris.root) == ("cached", 1, "")
    assert run_pusher(at_uris.root, "second") == ("complete", 1, "")
    assert run_pusher(at_uris.root, "third", blessed=0) == ("complete", 0, "")
    assert contents(at_uris) == ["first", "second"]
    first, second = pushes(mlmd.MetadataStore(metadata_config(at_uris.metadata)))
    assert [(push.archive / "variables" / "data").read_text() for push in (first, second)] == ["first", "second"]
    assert withdraw(at_uris, "ranking", second.version, "it loves sequels").served == {"ranking": first.version}
    assert contents(at_uris) == ["first"]
    state, pushed, refused = run_pusher(at_uris.root, "second")
    assert (state, pushed) == ("complete", 0)
    assert "it loves sequels" in refused
    remove_folder(first.destination)
    state, pushed, refused = run_pusher(at_uris.root)
    assert (state, pushed) == ("complete", 0)
    assert f"To serve it, copy {first.archive} to {first.destination}" in refused
    assert not (at_uris.root / "pipeline").exists()
    assert not (at_uris.root / "serving").exists()


def test_a_push_to_a_uri_that_fails_leaves_nothing_after_recovery(at_uris: OutputFolder, monkeypatch) -> None:
    run_pusher(at_uris.root)

    def broken(model: Path, version: Path) -> None:
        (version / "variables").mkdir(parents=True)
        write_whole(version / "variables" / "data", "half")
        raise OSError(5, "no network", str(version))

    monkeypatch.setattr("components.pushing.pusher.add", broken)
    with pytest.raises(OSError, match="no network"):
        run_pusher(at_uris.root, "second")
    monkeypatch.undo()
    recover(at_uris)
    assert contents(at_uris) == ["first"]
    assert run_pusher(at_uris.root, "second") == ("complete", 1, "")
    assert contents(at_uris) == ["first", "second"]
