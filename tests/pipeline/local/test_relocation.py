"""After its output folder was moved, a run's artifacts and pushed models are found again."""

import shutil
from pathlib import Path

import ml_metadata as mlmd
import pytest

from components.pushing.pushed_models import pushes
from pipeline.config import load_config
from pipeline.local.output import OutputFolder
from pipeline.local.relocation import follow_move
from pipeline.local.runner import run_pipeline
from pipeline.local.store import metadata_config
from tests.components.pushing.recorded import Recorded
from tests.pipeline.local import standin
from tests.pipeline.silent import Silent

pytestmark = pytest.mark.component


@pytest.fixture
def output(tmp_path: Path) -> OutputFolder:
    """The folder of a run of the stand-in pipeline, which pushes a model."""
    folder = OutputFolder(tmp_path / "here")
    folder.root.mkdir()
    run(folder)
    return folder


def run(folder: OutputFolder) -> dict[str, str]:
    pipeline = standin.create_pipeline(
        config=load_config("sample"),
        data_dir="",
        pipeline_root=str(folder.artifacts),
        serving_dir=str(folder.serving),
        metadata_connection_config=metadata_config(folder.metadata),
        enable_cache=True,
    )
    return {node.id: node.state for node in run_pipeline(pipeline, "local", Silent())}


def store_of(folder: OutputFolder) -> mlmd.MetadataStore:
    return mlmd.MetadataStore(metadata_config(folder.metadata))


def uris(folder: OutputFolder) -> list[str]:
    return [artifact.uri for artifact in store_of(folder).get_artifacts() if artifact.uri]


def test_where_nothing_was_moved_nothing_changes(output: OutputFolder) -> None:
    before = output.metadata.read_bytes()
    assert follow_move(store_of(output), output) == []
    assert output.metadata.read_bytes() == before


def test_artifacts_and_pushed_models_are_where_the_folder_is_now(output: OutputFolder, tmp_path: Path) -> None:
    before = uris(output)
    moved = OutputFolder(output.root.rename(tmp_path / "elsewhere"))
    assert follow_move(store_of(moved), moved) == [output.root]
    assert uris(moved) == [uri.replace(str(output.root), str(moved.root)) for uri in before]
    (push,) = pushes(store_of(moved))
    assert push.destination.parent == moved.serving / "recommender"
    assert push.archive.is_relative_to(moved.artifacts)
    assert push.is_there
    assert follow_move(store_of(moved), moved) == []
    # What was changed is other data to TFX; only `Source` reads none.
    assert {name for name, state in run(moved).items() if state == "cached"} == {"Source"}
    assert "complete" not in run(moved).values()


def test_a_copy_goes_on_with_what_the_first_folder_has(output: OutputFolder, tmp_path: Path) -> None:
    copy = OutputFolder(shutil.copytree(output.root, tmp_path / "copy"))
    before = uris(copy)
    assert follow_move(store_of(copy), copy) == []
    assert uris(copy) == before


def test_a_folder_that_was_moved_twice_is_found(output: OutputFolder, tmp_path: Path) -> None:
    first = OutputFolder(output.root.rename(tmp_path / "first"))
    follow_move(store_of(first), first)
    run(first)
    second = OutputFolder(first.root.rename(tmp_path / "second"))
    # Nothing ran between the two moves.
    third = OutputFolder(second.root.rename(tmp_path / "third"))
    assert follow_move(store_of(third), third) == [first.root]
    assert all(str(third.root) in uri for uri in uris(third))


def test_what_took_the_place_of_a_moved_folder_is_not_taken_for_it(output: OutputFolder, tmp_path: Path) -> None:
    moved = OutputFolder(output.root.rename(tmp_path / "elsewhere"))
    # The new folder has artifacts at the very same paths.
    output.root.mkdir()
    run(output)
    before = uris(output)
    assert set(uris(moved)) == set(before)
    assert follow_move(store_of(moved), moved) == [output.root]
    assert all(Path(uri).is_relative_to(moved.root) for uri in uris(moved))
    assert follow_move(store_of(output), output) == []
    assert uris(output) == before


def test_a_bucket_is_no_folder_that_was_moved(output: OutputFolder) -> None:
    recorded = Recorded(store_of(output))
    recorded.push(
        recorded.model(), Path("/gone/serving/ranking/1"), archive=Path("gs:/bucket/pipeline/Pusher/pushed/1")
    )
    (artifact,) = [each for each in recorded.store.get_artifacts() if each.uri.startswith("gs:")]
    artifact.uri = artifact.uri.replace("gs:/", "gs://")
    recorded.store.put_artifacts([artifact])
    follow_move(recorded.store, output)
    assert artifact.uri in uris(output)
