"""`movielens compile`, `run-node` and `summary` from outside: each node in a process of its own."""

import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

import pipeline
from pipeline import cli
from pipeline.commands import run
from pipeline.local.store import FileStore
from tests.pipeline.command_line import STANDIN_MOVIELENS, run_code
from tests.pipeline.local import standin
from tests.warm_processes import WarmProcess

IDS = ["Source", "Worker", "FeatureImportance", "Latest", "Pusher.recommender"]

pytestmark = [pytest.mark.component, pytest.mark.timeout(1200)]


class Folder:
    """A folder with a compiled pipeline and its runs.

    Commands are called in this process, which has TFX in memory; those that are to be killed, or to run at the same
    time, in processes of their own.
    """

    def __init__(self, path: Path, monkeypatch: pytest.MonkeyPatch):
        self.pipeline, self.output = path / "pipeline.pb", path / "output"
        self.data = path / "data"
        self._monkeypatch = monkeypatch
        monkeypatch.setitem(sys.modules, "pipeline.graph", standin)
        monkeypatch.setattr(pipeline, "graph", standin, raising=False)
        monkeypatch.setattr(run, "_show_recommendations", lambda *_: None)

    def start(self, *arguments: str, trouble: str = "") -> WarmProcess:
        environment = os.environ | {standin.TROUBLE: trouble, "COLUMNS": "200"}
        return WarmProcess(STANDIN_MOVIELENS, *arguments, environment=environment)

    def do(self, *arguments: str, trouble: str = "") -> tuple[int, str, str]:
        self._monkeypatch.setenv(standin.TROUBLE, trouble)
        result = CliRunner().invoke(cli.app, arguments, env={"COLUMNS": "200", "TERM": "dumb"})
        return result.exit_code, result.stdout, result.stderr

    def compile(self, *settings: str) -> tuple[int, str, str]:
        options = [option for setting in settings for option in ("--set", setting)]
        folders = ["--data", str(self.data), "--root", str(self.output), "--output", str(self.pipeline)]
        return self.do("compile", *folders, *options)

    def arguments(self, node: str, run: str) -> list[str]:
        return ["run-node", "--pipeline", str(self.pipeline), "--node", node, "--run-id", run]

    def node(self, node: str, run: str, trouble: str = "") -> tuple[int, str, str]:
        return self.do(*self.arguments(node, run), trouble=trouble)

    def nodes(self, run: str, *nodes: str) -> list[int]:
        return [self.node(node, run)[0] for node in nodes]

    def summary(self, run: str) -> tuple[int, str, str]:
        return self.do("summary", "--pipeline", str(self.pipeline), "--run-id", run)

    def states(self) -> dict[str, str]:
        components = json.loads((self.output / "summary.json").read_text())["components"]
        return {component["id"]: component["state"] for component in components}

    def executions(self) -> int:
        return len(FileStore(self.output / "metadata.sqlite").open().get_executions())

    def pushed(self) -> list[str]:
        return [file.read_text() for file in sorted(self.output.glob("serving/recommender/*/saved_model.pb"))]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Folder:
    made = Folder(tmp_path, monkeypatch)
    assert made.compile("models.ranking.epochs=1")[0] == 0
    return made


@pytest.fixture
def waiting(folder: Folder) -> Iterator[WarmProcess]:
    """A Worker in the middle of its work."""
    assert folder.node("Source", "monday")[0] == 0
    process = folder.start(*folder.arguments("Worker", "monday"), trouble="wait")
    while not list(folder.output.glob("pipeline/Worker/model/*/result")):
        assert process.poll() is None, process.communicate(1)
        time.sleep(0.1)
    yield process
    process.kill()
    process.wait(60)


def test_the_same_pipeline_compiles_to_the_same_bytes_in_every_process(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run is of one compiled pipeline, so a task that compiles it once more must not begin another run."""
    folder.data.mkdir()
    assert folder.compile()[0] == 0
    before = folder.pipeline.read_bytes()
    folders = ["--data", str(folder.data), "--root", str(folder.output), "--output", str(folder.pipeline)]
    for seed in ("1", "2"):
        # The order of sets depends on it.
        monkeypatch.setenv("PYTHONHASHSEED", seed)
        folder.pipeline.unlink()
        done = run_code(STANDIN_MOVIELENS, "compile", *folders)
        assert done.returncode == 0, done.stderr
        assert folder.pipeline.read_bytes() == before


def test_nodes_one_by_one_are_a_run_and_the_next_run_takes_what_has_not_changed(folder: Folder) -> None:
    described = json.loads(folder.pipeline.with_suffix(".json").read_text())
    assert [node["id"] for node in described["nodes"]] == IDS
    assert {node["id"]: node["upstream"] for node in described["nodes"]}["FeatureImportance"] == ["Worker"]
    assert folder.nodes("monday", *IDS) == [0] * len(IDS)
    code, out, _ = folder.summary("monday")
    assert (code, folder.pushed()) == (0, ["ab"])
    assert f"Summary: {folder.output / 'summary.json'}" in out
    assert list(folder.states().values()) == ["complete", "complete", "complete", "resolved", "complete"]

    assert folder.compile("models.ranking.epochs=2")[0] == 0
    assert folder.nodes("tuesday", *IDS) == [0] * len(IDS)
    assert folder.summary("tuesday")[0] == 0
    assert list(folder.states().values()) == ["cached", "complete", "complete", "resolved", "complete"]
    assert folder.pushed() == ["ab", "abab"]
    # A whole run on this machine knows what single nodes have made, and the other way round.
    small = ["--set", "data.sample={users: 20, movies: 30, ratings: 300}", "--set", "models.ranking.epochs=2"]
    assert folder.do("run", "--output", str(folder.output), *small)[0] == 0
    assert list(folder.states().values()) == ["cached", "cached", "cached", "resolved", "cached"]


def test_nodes_that_do_not_wait_for_each_other_run_at_the_same_time(folder: Folder) -> None:
    assert folder.nodes("monday", "Source", "Worker") == [0, 0]
    processes = [folder.start(*folder.arguments(node, "monday")) for node in IDS[2:]]
    assert [process.wait(600) for process in processes] == [0, 0, 0]
    assert folder.summary("monday")[0] == 0


def test_a_node_that_was_killed_is_run_again_and_one_that_is_done_is_not(folder: Folder, waiting: WarmProcess) -> None:
    waiting.kill()
    waiting.wait(60)
    (half,) = folder.output.glob("pipeline/Worker/model/*/result")
    assert half.read_text() == "half"
    assert "has not come to its end" in folder.summary("monday")[2]
    code, _, err = folder.node("Worker", "monday")
    assert (code, "Worker: complete" in err) == (0, True)
    assert [file.read_text() for file in folder.output.glob("pipeline/Worker/model/*/result")] == ["ab"]
    before = {path: path.stat().st_mtime_ns for path in folder.output.glob("pipeline/*/*/*/*")}
    assert folder.nodes("monday", "Worker") == [0]
    assert {path: path.stat().st_mtime_ns for path in folder.output.glob("pipeline/*/*/*/*")} == before
    assert folder.nodes("monday", *IDS[2:]) == [0, 0, 0]
    assert folder.summary("monday")[0] == 0


def test_another_node_runs_beside_a_node_but_neither_the_same_one_nor_a_whole_run(
    folder: Folder, waiting: WarmProcess
) -> None:
    assert folder.nodes("tuesday", "Source") == [0]
    code, _, err = folder.node("Worker", "tuesday")
    assert code == 1
    assert f"Worker is running already (process {waiting.pid})" in err
    code, _, err = folder.do("run", "--output", str(folder.output))
    assert code == 1
    assert "another run (of single nodes) is writing here" in err
    assert [file.read_text() for file in folder.output.glob("pipeline/Worker/model/*/result")] == ["half"]


@pytest.mark.parametrize(
    ("trouble", "code", "message"),
    [
        ("error", 1, "Error: Worker failed: ZeroDivisionError: factor should not be zero"),
        ("data", 2, "Error: Worker failed: ratings.dat:17: rating should be 1 to 5"),
    ],
)
def test_a_failure_is_one_message_and_leaves_nothing_behind(
    folder: Folder, trouble: str, code: int, message: str
) -> None:
    assert folder.node("Source", "monday")[0] == 0
    failed, _, err = folder.node("Worker", "monday", trouble)
    assert (failed, message in err, "Traceback" in err) == (code, True, False), err
    assert not list(folder.output.glob("pipeline/Worker/model/*"))
    assert message.partition(": ")[2] in folder.summary("monday")[2]
    # What waits for it does not start.
    for name in ("monday", "tuesday"):
        code, _, err = folder.node("Pusher.recommender", name)
        assert code == 1
        assert f"Pusher.recommender waits for Worker, which should be done in '{name}' first" in err
    assert folder.node("Worker", "monday")[0] == 0


def test_what_a_second_try_makes_is_known_by_what_it_was_made_of(folder: Folder) -> None:
    assert folder.nodes("monday", "Source") == [0]
    assert folder.node("Worker", "monday", "error")[0] == 1
    assert folder.nodes("monday", "Worker") == [0]
    assert folder.compile("models.ranking.epochs=2")[0] == 0
    # The pipeline is another one now, and so is the run, whatever its name.
    assert "waits for Source" in folder.node("Worker", "monday")[2]
    assert folder.nodes("monday", "Source") == [0]
    assert folder.node("Worker", "monday", "error")[0] == 1
    assert folder.nodes("monday", "Worker") == [0]
    assert folder.compile("models.ranking.epochs=1")[0] == 0
    assert folder.nodes("tuesday", "Source") == [0]
    assert "Worker: cached" in folder.node("Worker", "tuesday")[2]
    assert folder.nodes("tuesday", *IDS[2:]) == [0, 0, 0]
    assert folder.pushed() == ["ab"]


def test_a_resolver_finds_once_what_it_finds_in_a_run(folder: Folder) -> None:
    assert folder.nodes("monday", "Source", "Worker", "Latest") == [0, 0, 0]
    assert folder.compile("models.ranking.epochs=2")[0] == 0
    assert folder.nodes("tuesday", "Source", "Worker", "Latest") == [0, 0, 0]
    assert folder.compile("models.ranking.epochs=1")[0] == 0
    executions = folder.executions()
    assert "Latest: resolved" in folder.node("Latest", "monday")[2]
    assert folder.executions() == executions


def test_a_folder_whose_metadata_are_gone_is_refused(folder: Folder) -> None:
    assert folder.nodes("monday", "Source") == [0]
    (folder.output / "metadata.sqlite").unlink()
    for answer in (folder.node("Source", "monday"), folder.compile()):
        assert answer[0] == 1
        assert "metadata.sqlite, are gone" in answer[2]


def test_one_may_compile_alike_with_other_settings_but_not_with_other_nodes(folder: Folder, tmp_path: Path) -> None:
    like = str(folder.pipeline.with_suffix(".json"))
    other = tmp_path / "runs" / "other.pb"
    assert folder.do("compile", "--like", like, "--output", str(other), "--set", "models.ranking.epochs=3")[0] == 0
    described = [json.loads(Path(file).read_text()) for file in (like, other.with_suffix(".json"))]
    assert [each["config"]["models"]["ranking"]["epochs"] for each in described] == [1, 3]
    assert described[0]["output"] == described[1]["output"]
    folder.pipeline = other
    assert folder.nodes("monday", *IDS) == [0] * len(IDS)
    assert folder.pushed() == ["ababab"]
    code, _, err = folder.do("compile", "--like", like, "--root", str(tmp_path))
    assert (code, "give no --config, --root or --nodes" in " ".join(err.split())) == (2, True)
    code, _, err = folder.do("compile", "--like", like, "--output", str(other), "--set", "metadata.backend=mysql")
    assert (code, "metadata.backend should be sqlite, as in" in " ".join(err.split())) == (2, True)
    nodes = json.loads(Path(like).read_text())
    nodes["nodes"][2]["upstream"] = []
    Path(like).write_text(json.dumps(nodes))
    code, _, err = folder.do("compile", "--like", like, "--output", str(other))
    assert (code, "what differs: FeatureImportance" in err) == (2, True)


def test_an_orchestrator_that_has_another_graph_is_refused(folder: Folder, tmp_path: Path) -> None:
    drawn = {
        node["id"]: node["upstream"] for node in json.loads(folder.pipeline.with_suffix(".json").read_text())["nodes"]
    }
    other = tmp_path / "other.pb"
    options = ["--config", "sample", "--data", str(folder.data), "--root", str(folder.output), "--output", str(other)]
    assert folder.do("compile", *options, "--nodes", json.dumps(drawn))[0] == 0
    other.unlink()
    drawn["Tuner.dcn"] = drawn.pop("Latest")
    for nodes, expected in (
        (json.dumps(drawn), "what differs: Latest, Tuner.dcn"),
        ("[]", "--nodes: should be JSON, lists of nodes by node"),
        ("{", "--nodes: should be JSON, lists of nodes by node"),
    ):
        code, _, err = folder.do("compile", *options, "--nodes", nodes)
        assert (code, expected in err) == (2, True), err
        assert not other.exists()
    code, _, err = folder.do("compile", *options, "--nodes", json.dumps(drawn), "--set", "kubeflow.retries=5")
    assert (code, "the section `kubeflow` says how containers are started" in err) == (2, True)


def test_a_withdrawn_model_is_not_pushed_by_a_node_either(folder: Folder) -> None:
    assert folder.nodes("monday", *IDS) == [0] * len(IDS)
    (version,) = folder.output.glob("serving/recommender/*")
    withdrawn = ["withdraw", "recommender", version.name, "--output", str(folder.output), "--why", "it loves sequels"]
    assert folder.do(*withdrawn)[0] == 0
    assert folder.nodes("tuesday", *IDS[:-1]) == [0] * 4
    code, _, err = folder.node(IDS[-1], "tuesday")
    assert code == 3
    assert "it loves sequels" in err
    code, _, err = folder.summary("tuesday")
    assert (code, "recommender was blessed, but it was not pushed: withdrawn on " in err) == (3, True)


def test_a_summary_before_the_end_names_what_should_have_run(folder: Folder) -> None:
    code, _, err = folder.summary("monday")
    assert (code, "'monday', which has no nodes" in err) == (1, True)
    assert folder.nodes("monday", "Source") == [0]
    code, _, err = folder.summary("monday")
    assert (code, "Worker, FeatureImportance, Latest, Pusher.recommender should have run in 'monday' first" in err) == (
        1,
        True,
    )
    assert not (folder.output / "summary.json").exists()


def test_what_cannot_be_run_is_refused_with_a_reason(
    folder: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*arguments: str) -> str:
        code, _, err = folder.do(*arguments)
        assert code == 2, err
        return " ".join(err.split())

    assert "should be one of Source, Worker, " in refused(*folder.arguments("Trainer", "monday"))
    assert "--run-id: should be a name" in refused(*folder.arguments("Source", " "))
    nowhere = Folder(tmp_path / "nowhere", monkeypatch)
    assert "pipeline.pb: should be a file that `movielens compile` wrote; No such file" in refused(
        *nowhere.arguments("Source", "monday")
    )
    description = folder.pipeline.with_suffix(".json")
    whole = description.read_text()
    other = json.loads(whole) | {"source": "0123456789abcdef"}
    description.write_text(json.dumps(other))
    assert "was compiled from other code than this" in refused(*folder.arguments("Source", "monday"))
    other = json.loads(whole) | {"key": "0123456789abcdef"}
    description.write_text(json.dumps(other))
    assert "describes another one" in refused(*folder.arguments("Source", "monday"))
    description.write_text("{}")
    assert "it holds something else" in refused(*folder.arguments("Source", "monday"))
    description.write_text(whole)
    folder.pipeline.write_bytes(b"\x00 no pipeline")
    assert "describes another one" in refused(*folder.arguments("Source", "monday"))
    assert not folder.output.exists()
    compiled = ["compile", "--data", str(folder.data), "--output", str(tmp_path)]
    assert "--output: should be a file such as pipeline.pb" in refused(*compiled)
