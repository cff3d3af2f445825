"""`movielens submit` against a small server that answers like Kubeflow Pipelines' API, which needs a cluster itself."""

import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from pipeline import cli
from pipeline.commands import submit

pytest.importorskip("kfp", reason="kfp is not installed; it comes with the extra 'kubeflow'")

pytestmark = pytest.mark.component


class Api:
    """The server: it takes one run, and shows it in the states that a test has laid ready.

    Attributes:
      states: of the run, each with the states of its tasks; the last one stays.
      runs: what it was asked to run.
      tokens: what clients have shown.
    """

    def __init__(self) -> None:
        self.states: list[tuple[str, dict[str, str]]] = [("SUCCEEDED", {})]
        self.refuse: tuple[int, str] | None = None
        self.refuse_looks: tuple[int, str] | None = None
        self.page = False  # Whether everything is answered by a page to log on.
        self.silent = False
        self.runs: list[dict[str, Any]] = []
        self.tokens: set[str | None] = set()
        api = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                api.tokens.add(self.headers.get("Authorization"))
                if api.silent:
                    time.sleep(60)
                if api.refuse_looks and self.path.startswith("/apis/v2beta1/runs/"):
                    self.answer(api.refuse_looks[0], {"error": api.refuse_looks[1]})
                elif self.path.startswith("/apis/v2beta1/experiments"):
                    self.answer(200, {"experiments": [{"experiment_id": "e", "display_name": "movielens"}]})
                elif self.path.startswith("/apis/v2beta1/runs/"):
                    state, tasks = api.states.pop(0) if len(api.states) > 1 else api.states[0]
                    details = [
                        {"display_name": name.partition("#")[0], "task_id": name, "state": each}
                        for name, each in tasks.items()
                    ]
                    self.answer(200, {"run_id": "r", "state": state, "run_details": {"task_details": details}})
                else:
                    self.answer(200, {"multi_user": False})

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                if self.path == "/apis/v2beta1/experiments":
                    self.answer(200, {"experiment_id": "e"})
                elif api.refuse:
                    self.answer(api.refuse[0], {"error": api.refuse[1]})
                else:
                    api.runs.append(body)
                    self.answer(200, {"run_id": "r"})

            def answer(self, code: int, content: dict[str, Any]) -> None:
                text = b"<html>Log on</html>" if api.page else json.dumps(content).encode()
                self.send_response(code)
                self.send_header("Content-Type", "text/html" if api.page else "application/json")
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.server.server_port}"


@pytest.fixture
def api() -> Iterator[Api]:
    api = Api()
    thread = threading.Thread(target=api.server.serve_forever)
    thread.start()
    yield api
    api.server.shutdown()
    thread.join()
    api.server.server_close()


@pytest.fixture
def spec(tmp_path: Path) -> Path:
    from pipeline.kubeflow_config import KubeflowConfig
    from pipeline.kubeflow_spec import write_spec

    file = tmp_path / "movielens.yaml"
    write_spec({"A": [], "B": ["A"]}, "sample", "{}", KubeflowConfig(), "image@sha256:0", "/data/d", "/data/o", file)
    return file


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(submit, "_SECONDS", 0.01)


def do(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(cli.app, ["submit", *arguments], env={"COLUMNS": "200", "TERM": "dumb"})
    return result.exit_code, result.stderr


def test_a_run_is_started_with_its_parameters_and_followed(api: Api, spec: Path, monkeypatch) -> None:
    monkeypatch.setenv("MOVIELENS_KUBEFLOW_TOKEN", "a-token")
    api.states = [
        ("PENDING", {}),
        ("RUNNING", {"A": "RUNNING"}),
        ("RUNNING", {"A": "SUCCEEDED", "B": "RUNNING"}),
        ("SUCCEEDED", {"A": "SUCCEEDED", "B": "SUCCEEDED"}),
    ]
    options = ["--data", "/data/other", "--set", "models.ranking.epochs=1"]
    code, err = do("--host", api.address, "--spec", str(spec), *options)
    assert code == 0, err
    (run,) = api.runs
    assert run["experiment_id"] == "e"
    assert run["runtime_config"]["parameters"] == {"data": "/data/other", "settings": ["models.ranking.epochs=1"]}
    assert run["pipeline_spec"]["pipeline_spec"]["pipelineInfo"]["name"] == "sample"
    assert "kubernetes" in run["pipeline_spec"]["platform_spec"]["platforms"]
    said = [line for line in err.splitlines() if line.startswith(("A:", "B:"))]
    assert said == ["A: running", "A: succeeded", "B: running", "B: succeeded"]
    assert "a-token" not in err
    assert any("a-token" in str(token) for token in api.tokens)


@pytest.mark.parametrize("state", ["FAILED", "CANCELED"])
def test_a_run_that_fails_is_exit_code_1(api: Api, spec: Path, state: str) -> None:
    api.states = [("RUNNING", {}), (state, {"A": state})]
    code, err = do("--host", api.address, "--spec", str(spec))
    assert code == 1
    assert f"The run ended as {state}" in err


def test_nobody_has_to_wait(api: Api, spec: Path) -> None:
    api.states = [("RUNNING", {})]
    assert do("--host", api.address, "--spec", str(spec), "--no-follow")[0] == 0
    assert len(api.runs) == 1


def test_a_refusal_is_a_message(api: Api, spec: Path) -> None:
    api.refuse = (403, "the user may not create runs")
    code, err = do("--host", api.address, "--spec", str(spec))
    assert code == 1
    assert "answers 403 Forbidden: the user may not create runs" in err
    assert "Traceback" not in err


def test_an_address_where_nobody_answers_is_a_message(spec: Path) -> None:
    code, err = do("--host", "http://127.0.0.1:1", "--spec", str(spec))
    assert code == 1
    assert "--host: http://127.0.0.1:1 should be the address of Kubeflow Pipelines" in err
    assert "Traceback" not in err


def test_an_address_that_is_none_is_a_message(spec: Path) -> None:
    code, err = do("--host", "http://[::1", "--spec", str(spec))
    assert code == 1
    assert "http://[::1" in err
    assert "Traceback" not in err


def test_a_page_to_log_on_is_no_run(api: Api, spec: Path) -> None:
    api.page = True
    code, err = do("--host", api.address, "--spec", str(spec), "--no-follow")
    assert code == 1
    assert f"{api.address}: " in err
    assert "Run None" not in err
    assert "Traceback" not in err


def test_whoever_is_refused_while_following_is_told_at_once_that_the_run_goes_on(api: Api, spec: Path) -> None:
    api.refuse_looks = (401, "the token has expired")
    code, err = do("--host", api.address, "--spec", str(spec))
    assert code == 1
    assert "No longer followed; the run goes on." in err
    assert "answers 401 Unauthorized: the token has expired" in err


def test_a_server_that_does_not_answer_is_given_up(api: Api, spec: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(submit, "_PATIENCE", 1)
    api.silent = True
    code, err = do("--host", api.address, "--spec", str(spec))
    assert code == 1
    assert "timed out" in err


def test_tasks_of_the_same_name_are_told_apart(api: Api, spec: Path) -> None:
    api.states = [
        ("RUNNING", {"A#1": "FAILED", "A#2": "RUNNING"}),
        ("SUCCEEDED", {"A#1": "FAILED", "A#2": "SUCCEEDED"}),
    ]
    code, err = do("--host", api.address, "--spec", str(spec))
    assert code == 0, err
    assert [line for line in err.splitlines() if line.startswith("A:")] == ["A: failed", "A: running", "A: succeeded"]


def test_a_setting_of_another_shape_starts_nothing(api: Api, spec: Path) -> None:
    code, err = do("--host", api.address, "--spec", str(spec), "--set", "models.ranking.epochs")
    assert code == 2
    assert "--set models.ranking.epochs: should be KEY=VALUE" in err
    assert api.runs == []


def test_vertex_is_refused_with_the_reason(api: Api, spec: Path) -> None:
    code, err = do("--host", api.address, "--spec", str(spec), "--runner", "vertex")
    assert code == 2
    assert "--runner: should be kubeflow; Vertex AI knows two resolvers only" in err
    assert api.runs == []
