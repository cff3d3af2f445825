"""With data, artifacts and pushed models on Google Cloud Storage, the whole graph makes what it makes in a folder.

An emulator answers for the storage; TensorFlow, Beam and the library for raw files ask it as they would ask Google. The
first run is by Beam's runner; in the next one, each node is a process of its own. What is pushed is read by a new
process.
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest

from components.data.sample import generate_sample
from tests.google_storage import GoogleStorage, running_google_storage
from tests.pipeline.command_line import MOVIELENS, ROOT, run_code
from tests.pipeline.test_e2e import NODES, SETTINGS

pytestmark = [pytest.mark.e2e, pytest.mark.nightly, pytest.mark.timeout(3600)]

# What a recommender answers to people who were there in training, and to one who was not.
ANSWER = """
import json, sys
from transform.legacy_keras import ensure_legacy_keras
ensure_legacy_keras()
import tensorflow as tf
recommend = tf.saved_model.load(sys.argv[1]).signatures["serving_default"]
history = tf.zeros([4, 2], tf.int64)
answer = recommend(
    user_id=tf.constant([1, 2, 3, 10**6], tf.int64),
    history_movie_ids=history,
    history_ratings=tf.cast(history, tf.float32),
)
print(json.dumps({name: values.numpy().tolist() for name, values in answer.items()}, default=bytes.decode))
"""
COPY = """
import sys, fsspec
files = fsspec.filesystem("gs")
for name in sys.argv[2:]:
    files.put(name, sys.argv[1])
"""
FILES = """
import sys, tensorflow as tf
for folder, _, files in tf.io.gfile.walk(sys.argv[1]):
    print(*(f"{folder.rstrip('/')}/{name}" for name in files), sep="\\n")
"""


class Runs:
    """Commands that reach the bucket, and the output folder that they share."""

    def __init__(self, storage: GoogleStorage, output: Path):
        self.storage, self.output, self.place = storage, output, f"gs://{storage.bucket}/movielens"

    def code(self, code: str, *arguments: str) -> CompletedProcess[str]:
        return self.storage.call(sys.executable, "-c", code, *arguments, PYTHONPATH=str(ROOT), COLUMNS="200")

    def movielens(self, *arguments: str) -> CompletedProcess[str]:
        return self.code(MOVIELENS, *arguments)

    def options(self, *settings: str) -> list[str]:
        places = [f"storage.{kind}={self.place}/{kind}" for kind in ("artifacts", "serving")]
        return [option for each in (*SETTINGS, *places, *settings) for option in ("--set", each)]

    def run(self, *options: str) -> dict[str, Any]:
        data = f"gs://{self.storage.bucket}/ml-1m"
        done = self.movielens("run", "--data", data, "--output", str(self.output), *options, *self.options())
        assert done.returncode == 0, done.stdout + done.stderr
        return self.summary

    @property
    def summary(self) -> dict[str, Any]:
        summary: dict[str, Any] = json.loads((self.output / "summary.json").read_text())
        return summary

    def files(self, place: str) -> set[str]:
        done = self.code(FILES, place)
        assert done.returncode == 0, done.stderr
        return set(done.stdout.split())


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "ml-1m"
    generate_sample(folder, users=300, movies=150, ratings=15_000)
    return folder


@pytest.fixture(scope="module")
def runs(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runs]:
    with running_google_storage(tmp_path_factory.mktemp("storage")) as storage:
        runs = Runs(storage, tmp_path_factory.mktemp("output"))
        done = runs.code(COPY, f"{storage.bucket}/ml-1m/", *(str(file) for file in data.iterdir() if file.is_file()))
        assert done.returncode == 0, done.stderr
        yield runs


@pytest.fixture(scope="module")
def first(runs: Runs) -> dict[str, Any]:
    return runs.run("--runner", "beam")


@pytest.fixture(scope="module")
def in_folder(data: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The summary of a run on the same data with everything in its output folder, and what its recommender answers."""
    output = tmp_path_factory.mktemp("folder")
    done = run_code(MOVIELENS, "run", "--data", str(data), "--output", str(output), settings=SETTINGS, timeout=1800)
    assert done.returncode == 0, done.stdout + done.stderr
    summary: dict[str, Any] = json.loads((output / "summary.json").read_text())
    return summary | {"answer": answer(run_code(ANSWER, summary["recommender"]["pushed"]))}


def answer(done: CompletedProcess[str]) -> dict[str, Any]:
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def states(summary: dict[str, Any]) -> dict[str, str]:
    return {component["id"]: component["state"] for component in summary["components"]}


def test_models_are_those_of_a_run_in_a_folder(runs: Runs, first: dict[str, Any], in_folder: dict[str, Any]) -> None:
    assert states(first).keys() == NODES
    assert states(first) == states(in_folder)
    for name, model in in_folder["models"].items():
        assert first["models"][name]["metrics"] == pytest.approx(model["metrics"], abs=1e-6, nan_ok=True)
    assert first["recommender"]["metrics"] == pytest.approx(in_folder["recommender"]["metrics"], abs=1e-6, nan_ok=True)
    found = answer(runs.code(ANSWER, first["recommender"]["pushed"]))
    assert found.keys() == in_folder["answer"].keys()
    assert found["movie_id"] == in_folder["answer"]["movie_id"]
    for one, other in zip(found["predicted_rating"], in_folder["answer"]["predicted_rating"], strict=True):
        assert one == pytest.approx(other, abs=1e-5)


def test_what_is_made_is_in_the_bucket_and_nowhere_else(runs: Runs, first: dict[str, Any]) -> None:
    made = runs.files(runs.place)
    pushed = [first["recommender"]["pushed"], *(model["pushed"] for model in first["models"].values())]
    assert len(pushed) == 5
    for version in pushed:
        assert version.startswith(f"{runs.place}/serving/")
        assert f"{version}/saved_model.pb" in made
    nodes = {path.removeprefix(f"{runs.place}/artifacts/").split("/")[0] for path in made if "/artifacts/" in path}
    assert {node for node in NODES if not node.startswith("Resolver")} <= nodes
    assert not {"pipeline", "serving"} & {path.name for path in runs.output.iterdir()}
    assert not (ROOT / "gs:").exists()


def test_nodes_in_processes_of_their_own_find_what_is_there_and_make_the_rest(
    runs: Runs, first: dict[str, Any]
) -> None:
    file = runs.output / "pipeline.pb"
    data = f"gs://{runs.storage.bucket}/ml-1m"
    folders = ("--data", data, "--root", str(runs.output), "--output", str(file))
    compiled = runs.movielens("compile", *folders, *runs.options("recommender.order=rating"))
    assert compiled.returncode == 0, compiled.stderr
    of_run = ("--pipeline", str(file), "--run-id", "by nodes")
    for node in json.loads(file.with_suffix(".json").read_text())["nodes"]:
        done = runs.movielens("run-node", "--node", node["id"], *of_run)
        assert done.returncode in (0, 3), done.stdout + done.stderr
    assert runs.movielens("summary", *of_run).returncode in (0, 3)
    found = states(runs.summary)
    made = {node for node, state in found.items() if state in ("complete", "skipped")}
    of_recommender = {"RecommenderBuilder", "Evaluator.recommender", "Pusher.recommender"}
    assert made in (of_recommender, of_recommender - {"Pusher.recommender"})
    assert found["RecommenderBuilder"] == found["Evaluator.recommender"] == "complete"
    assert {state for node, state in found.items() if node not in of_recommender} == {"cached", "resolved"}


def test_a_withdrawn_version_is_gone_from_the_bucket(runs: Runs, first: dict[str, Any]) -> None:
    pushed = first["models"]["dcn"]["pushed"]
    version = pushed.rpartition("/")[2]
    done = runs.movielens("withdraw", "dcn", version, "--output", str(runs.output), "--why", "only a test")
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"dcn {version} is withdrawn" in done.stdout
    assert not [path for path in runs.files(f"{runs.place}/serving/dcn") if f"/{version}/" in path]
