"""A plan says what the next run then does, and leaves the output folder as it is."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from components.data.raw_files import DataError
from pipeline.config import load_config
from pipeline.local.output import OutputFolder
from pipeline.local.plan import Planned, plan
from pipeline.local.runner import run_pipeline
from pipeline.local.store import metadata_config
from tests.pipeline.local import standin
from tests.pipeline.silent import Silent

pytestmark = pytest.mark.component


class Output:
    """An output folder, in which the stand-in pipeline is planned and run."""

    def __init__(self, folder: Path):
        self.folder = folder

    def pipeline(self, **changes: Any) -> Any:
        settings = [f"models.ranking.epochs={changes.pop('factor', 2)}"]
        return standin.create_pipeline(
            config=load_config("sample", settings),
            data_dir="",
            pipeline_root=str(self.folder / "artifacts"),
            serving_dir=str(self.folder / "serving"),
            metadata_connection_config=metadata_config(OutputFolder(self.folder).metadata),
            enable_cache=True,
        )

    def plan(self, **changes: Any) -> dict[str, Planned]:
        before = self.contents()
        planned, _ = plan(self.pipeline(**changes), OutputFolder(self.folder), np.zeros(0, np.uint64))
        assert self.contents() == before
        return {node.node: node for node in planned}

    def run(self, **changes: Any) -> dict[str, str]:
        return {node.id: node.state for node in run_pipeline(self.pipeline(**changes), "local", Silent())}

    def contents(self) -> dict[Path, bytes | None]:
        return {path: path.read_bytes() if path.is_file() else None for path in self.folder.rglob("*")}


@pytest.fixture
def output(tmp_path: Path) -> Output:
    return Output(tmp_path)


def does(planned: dict[str, Planned]) -> dict[str, str]:
    return {name: node.does for name, node in planned.items()}


def test_in_a_new_folder_everything_would_run(output: Output) -> None:
    planned = output.plan()
    assert does(planned) == {
        "Source": "run",
        "Worker": "run",
        "FeatureImportance": "run",
        "Latest": "depend",
        "Pusher.recommender": "run",
    }
    assert planned["Source"].why == "it never ran here"
    assert planned["Worker"].why == "as Source would run"
    assert not any(output.folder.iterdir())


def test_what_did_not_change_would_come_from_the_cache(output: Output) -> None:
    output.run()
    cached = dict.fromkeys(("Source", "Worker", "FeatureImportance", "Pusher.recommender"), "cached")
    assert does(output.plan()) == cached | {"Latest": "resolve"}
    assert output.run() == cached | {"Latest": "resolved"}


def test_a_changed_setting_is_named_and_what_depends_on_it_would_run(output: Output) -> None:
    output.run()
    planned = output.plan(factor=3)
    assert planned["Source"].does == "cached"
    assert planned["Worker"] == Planned("Worker", "run", "changed: factor")
    assert planned["FeatureImportance"] == Planned("FeatureImportance", "run", "as Worker would run")
    assert planned["Pusher.recommender"].why == "as Worker would run"
    states = output.run(factor=3)
    assert {name for name, state in states.items() if state == "complete"} == {
        name for name, node in planned.items() if node.does == "run"
    }
    # Back to the setting before, whose results are still there.
    assert output.plan(factor=2)["Worker"].does == "cached"


def test_what_failed_would_run_again(output: Output, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(standin.TROUBLE, "data")
    with pytest.raises(Exception, match="rating should be"):
        output.run()
    monkeypatch.delenv(standin.TROUBLE)
    planned = output.plan()
    assert (planned["Source"].does, planned["Worker"].does) == ("cached", "run")
    assert planned["Worker"].why == "it never ran here"


def test_what_a_driver_refuses_is_refused(output: Output, tmp_path: Path) -> None:
    from pipeline.graph import create_data_pipeline

    config = load_config("sample", ["data.spans=2"])
    (tmp_path / "data").mkdir()
    pipeline = create_data_pipeline(
        config=config, data_dir=str(tmp_path / "data"), pipeline_root=str(tmp_path / "root")
    )
    with pytest.raises(DataError, match="should hold the folders span-1"):
        plan(pipeline, OutputFolder(output.folder), np.zeros(0, np.uint64))
