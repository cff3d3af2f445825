"""The whole graph with artifacts and pushed models at URIs makes what it makes in a folder, by every way to run it.

The URIs are those of TensorFlow's files in memory, so everything is done in this process. Whole runs take minutes and
are nightly; every test run has the data, one model with its gate, and what was pushed.
"""

import json
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from tfx import v1 as tfx
from typer.testing import CliRunner

from components.data.sample import generate_sample
from components.storage.paths import stored_path
from pipeline import cli
from pipeline.config import load_config
from pipeline.graph import data_stage
from pipeline.local.runner import run_pipeline
from pipeline.local.store import metadata_config
from pipeline.model_stage import model_stage
from tests import ram_files
from tests.pipeline.silent import Silent
from tests.pipeline.test_e2e import NODES, SETTINGS

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(3600)]


@dataclass(frozen=True)
class Ended:
    """How a command ended, with what it printed."""

    code: int
    out: str
    err: str


@dataclass(frozen=True)
class Runs:
    """An output folder, and the settings of the runs that write to it."""

    root: Path
    settings: tuple[str, ...] = ()

    def command(self, *arguments: str, settings: tuple[str, ...] = ()) -> Ended:
        options = [option for each in (*SETTINGS, *self.settings, *settings) for option in ("--set", each)]
        return invoke(*arguments, *options)

    def run(self, *options: str) -> dict[str, Any]:
        ended = self.command("run", "--output", str(self.root), *options)
        assert ended.code == 0, ended
        return self.summary | {"out": ended.out}

    @property
    def summary(self) -> dict[str, Any]:
        summary: dict[str, Any] = json.loads((self.root / "summary.json").read_text())
        return summary


def invoke(*arguments: str) -> Ended:
    result = CliRunner().invoke(cli.app, arguments, env={"COLUMNS": "200", "TERM": "dumb"})
    return Ended(result.exit_code, result.stdout, result.stderr)


def answers(summary: dict[str, Any]) -> dict[str, np.ndarray]:
    """What the pushed recommender answers to known users, an unknown one, and one with another history."""
    recommend = tf.saved_model.load(summary["recommender"]["pushed"]).signatures["serving_default"]
    history = tf.constant([[0, 0]] * 4 + [[1, 2]], tf.int64)
    answer = recommend(
        user_id=tf.constant([1, 2, 3, 10**6, 0], tf.int64),
        history_movie_ids=history,
        history_ratings=tf.cast(history > 0, tf.float32) * 5,
    )
    return {name: values.numpy() for name, values in answer.items()}


def states(summary: dict[str, Any]) -> dict[str, str]:
    return {component["id"]: component["state"] for component in summary["components"]}


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    """A place in memory."""
    with pytest.MonkeyPatch.context() as patch:
        ram_files.behave_as_elsewhere(patch)
        yield f"ram://{uuid.uuid4().hex}"


@pytest.fixture(scope="module")
def runs(bucket: str, tmp_path_factory: pytest.TempPathFactory) -> Runs:
    places = (f"storage.artifacts={bucket}/movielens/pipeline", f"storage.serving={bucket}/movielens/serving")
    return Runs(tmp_path_factory.mktemp("uris"), places)


@pytest.fixture(scope="module")
def in_folder(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The summary of a run that keeps everything in its output folder, with what its recommender answers."""
    summary = Runs(tmp_path_factory.mktemp("folder")).run()
    return summary | {"answers": answers(summary)}


@pytest.fixture(scope="module")
def first(runs: Runs) -> dict[str, Any]:
    return runs.run()


@pytest.fixture(scope="module")
def second(runs: Runs, first: dict[str, Any]) -> dict[str, Any]:
    return runs.run("--runner", "beam")


@pytest.fixture(scope="module")
def by_nodes(runs: Runs, second: dict[str, Any]) -> dict[str, Any]:
    """The summary of a run node by node, with another recommender, and how each node ended."""
    (data,) = (runs.root / "data").iterdir()
    file = runs.root / "pipeline.pb"
    folders = ("--data", str(data), "--root", str(runs.root), "--output", str(file))
    compiled = runs.command("compile", *folders, settings=("recommender.order=rating",))
    assert compiled.code == 0, compiled
    nodes = [node["id"] for node in json.loads(file.with_suffix(".json").read_text())["nodes"]]
    of_run = ("--pipeline", str(file), "--run-id", "by nodes")
    ended = {node: invoke("run-node", "--node", node, *of_run) for node in nodes}
    summary = invoke("summary", *of_run)
    return runs.summary | {"ended": ended, "code": summary.code}


def test_the_data_and_a_model_are_at_the_uris_and_nowhere_else(bucket: str, tmp_path: Path) -> None:
    root, serving = f"{bucket}/small/pipeline", f"{bucket}/small/serving"
    config = load_config("sample", ["models.dcn.epochs=2", "models.dcn.batch_size=128", "evaluation.mse_margin=0"])
    generate_sample(tmp_path / "data", users=200, movies=150, ratings=10_000)
    data = data_stage(config, str(tmp_path / "data"))
    model = model_stage("dcn", config, data.examples, data.gate, data.transform, root, serving)
    pipeline = tfx.dsl.Pipeline(
        pipeline_name="small",
        pipeline_root=root,
        components=[*data.nodes, *model.nodes],
        metadata_connection_config=metadata_config(tmp_path / "metadata.sqlite"),
        beam_pipeline_args=config.beam.args(),
    )
    run_pipeline(pipeline, "local", Silent())

    made = {path.name for path in stored_path(root).iterdir() if path.is_dir()}
    assert made == {node.id for node in pipeline.components if not node.id.startswith("Resolver")}
    (version,) = stored_path(f"{serving}/dcn").iterdir()
    predict = tf.saved_model.load(str(version)).signatures["serving_default"]
    (ratings,) = predict(examples=tf.constant([tf.train.Example().SerializeToString()])).values()
    assert 1 <= float(ratings[0]) <= 5
    assert {path.name for path in tmp_path.iterdir()} == {"data", "metadata.sqlite"}
    assert not Path("ram:").exists()


@pytest.mark.nightly
def test_every_node_has_done_its_work(runs: Runs, first: dict[str, Any]) -> None:
    assert set(states(first)) == NODES
    assert set(states(first).values()) == {"complete", "resolved"}
    # A first answer comes from a model server, which has a copy.
    assert "from the model server" in first["out"]


@pytest.mark.nightly
def test_artifacts_and_models_are_at_the_uris_and_nowhere_else(runs: Runs, first: dict[str, Any], bucket: str) -> None:
    places = {path.name for path in stored_path(f"{bucket}/movielens").iterdir()}
    assert places == {"pipeline", "serving"}
    nodes = {path.name for path in stored_path(f"{bucket}/movielens/pipeline").iterdir() if path.is_dir()}
    assert nodes == {node for node in NODES if not node.startswith("Resolver")}
    pushed = [first["recommender"]["pushed"], *(model["pushed"] for model in first["models"].values())]
    assert len(pushed) == 5
    for version in pushed:
        assert version.startswith(f"{bucket}/movielens/serving/")
        assert stored_path(f"{version}/saved_model.pb").is_file()
    assert {path.name for path in runs.root.iterdir()} >= {"data", "logs", "metadata.sqlite", "summary.json"}
    assert not (runs.root / "pipeline").exists()
    assert not (runs.root / "serving").exists()
    assert not Path("ram:").exists()


@pytest.mark.nightly
def test_the_models_are_those_of_a_run_in_a_folder(first: dict[str, Any], in_folder: dict[str, Any]) -> None:
    found, expected = answers(first), in_folder["answers"]
    assert found.keys() == expected.keys()
    np.testing.assert_array_equal(found["movie_id"], expected["movie_id"])
    np.testing.assert_allclose(found["predicted_rating"], expected["predicted_rating"], atol=1e-5)
    for name, model in in_folder["models"].items():
        assert first["models"][name]["metrics"] == pytest.approx(model["metrics"], abs=1e-6, nan_ok=True)


@pytest.mark.nightly
def test_the_next_run_has_the_cache(second: dict[str, Any]) -> None:
    assert set(states(second).values()) == {"cached", "resolved"}


@pytest.mark.nightly
def test_nodes_that_are_run_one_by_one_find_everything(by_nodes: dict[str, Any], second: dict[str, Any]) -> None:
    assert {node: ended for node, ended in by_nodes["ended"].items() if ended.code not in (0, 3)} == {}
    made = {node for node, state in states(by_nodes).items() if state == "complete"}
    assert (
        {"RecommenderBuilder", "Evaluator.recommender"}
        <= made
        <= {
            "RecommenderBuilder",
            "Evaluator.recommender",
            "Pusher.recommender",
        }
    )
    assert by_nodes["code"] in (0, 3)


@pytest.mark.nightly
def test_a_search_writes_its_records_there_and_reads_them(runs: Runs, second: dict[str, Any], bucket: str) -> None:
    ended = runs.command("tune", "ranking", "--output", str(runs.root), "--trials", "1")
    assert ended.code == 0, ended
    assert (runs.root / "tuned-ranking.yaml").is_file()
    (search,) = stored_path(f"{bucket}/movielens/pipeline/Tuner.ranking/trials").iterdir()
    assert (search / "trial_0" / "trial.json").is_file()
