"""Airflow loads the DAG without TFX and runs it, one command for each node; what a command's exit code means is shown.

The commands are stand-ins that note down how they were called.
"""

import importlib.util
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from pipeline import cli

ROOT = Path(__file__).resolve().parents[2]

pytestmark = [pytest.mark.component, pytest.mark.timeout(900)]

LOAD = """
import json, sys
from airflow.models import DagBag
bag = DagBag(sys.argv[1], include_examples=False)
heavy = sorted({"tensorflow", "tfx", "apache_beam", "ml_metadata"} & set(sys.modules))
dags = {
    name: {
        "tasks": {task.task_id: sorted(task.upstream_task_ids) for task in dag.tasks},
        "groups": {task.task_id: task.task_group.group_id for task in dag.tasks},
        "pools": {task.task_id: task.pool for task in dag.tasks},
        "outlets": {task.task_id: [outlet.uri for outlet in task.outlets] for task in dag.tasks if task.outlets},
        "schedule": dag.timetable.summary,
        "params": sorted(dag.params),
        "active": dag.max_active_runs,
        "retries": sorted({task.retries for task in dag.tasks}),
        "slas": sorted({task.sla.total_seconds() / 3600 for task in dag.tasks if task.sla}),
        "alerts": {task.task_id: bool(task.on_failure_callback) for task in dag.tasks},
        "hours": sorted({task.execution_timeout.total_seconds() / 3600 for task in dag.tasks}),
    }
    for name, dag in bag.dags.items()
}
errors = {str(k): str(v) for k, v in bag.import_errors.items()}
print("RESULT" + json.dumps({"errors": errors, "dags": dags, "heavy": heavy}))
"""

RUN = """
import json, sys
from airflow.models import DagBag, TaskInstance
from airflow.utils.session import create_session
(dag,) = DagBag(sys.argv[1], include_examples=False).dags.values()
run = dag.test(run_conf=json.loads(sys.argv[2]))
with create_session() as session:
    tasks = session.query(TaskInstance).filter(TaskInstance.run_id == run.run_id).all()
    states = {task.task_id: str(task.state) for task in tasks}
print("RESULT" + json.dumps({"run": str(run.state), "run_id": run.run_id, "tasks": states}))
"""

# Ends a task as Airflow does, once its command has written into a file which process it has started.
END = """
import json, sys, threading, time
from pathlib import Path
from airflow.models import DagBag
(dag,) = DagBag(sys.argv[1], include_examples=False).dags.values()
task, file, error = dag.get_task("Ingest"), Path(sys.argv[2]), None
def end():
    while not (file.exists() and task._process):
        time.sleep(0.1)
    task.on_kill()
threading.Thread(target=end, daemon=True).start()
try:
    task.execute({})
except Exception as raised:
    error = f"{type(raised).__name__}: {raised}"
print("RESULT" + json.dumps({"error": error}))
"""

# Runs a task until somebody kills this process.
EXECUTE = """
import sys
from airflow.models import DagBag
(dag,) = DagBag(sys.argv[1], include_examples=False).dags.values()
dag.get_task("Ingest").execute({})
"""

# Notes down how it was called, and ends with what the variable of its node says.
COMMAND = """#!{python}
import json, os, sys
with open({calls!r}, "a") as file:
    file.write(json.dumps(sys.argv[1:]) + "\\n")
arguments = dict(zip(sys.argv[2::2], sys.argv[3::2]))
name = arguments.get("--node", sys.argv[1])
print(f"{{name}}: why it ended so")
print("Log: /out/logs/run.log")
sys.exit(json.loads(os.environ.get("EXIT_CODES", "{{}}")).get(name, 0))
"""


def write_dag(folder: Path) -> None:
    """Writes the file that the documentation shows into a new DAG folder."""
    folder.mkdir()
    lines = ["# An Airflow DAG.", "import sys", f"sys.path.insert(0, {str(ROOT)!r})"]
    lines += ["from pipeline.airflow_dag import create_dag", "dag = create_dag()"]
    (folder / "movielens.py").write_text("\n".join(lines))


class Airflow:
    """An Airflow of its own, with a DAG of four nodes."""

    def __init__(self, folder: Path):
        self.folder, self.calls = folder, folder / "calls"
        self.dags = folder / "dags"
        write_dag(self.dags)
        command = folder / "movielens"
        command.write_text(COMMAND.format(python=sys.executable, calls=str(self.calls)))
        command.chmod(0o755)
        upstream = {"Ingest": [], "Trainer.dcn": ["Ingest"], "Evaluator.dcn": ["Trainer.dcn"]}
        upstream["Pusher.dcn"] = ["Trainer.dcn", "Evaluator.dcn"]
        nodes = [
            {"id": name, "group": name.partition(".")[2] or "data", "upstream": before}
            for name, before in upstream.items()
        ]
        self.description = folder / "pipeline.json"
        described = {"name": "four", "data": "/data", "output": str(folder / "out"), "nodes": nodes}
        self.description.write_text(json.dumps(described))

    def environment(self, **settings: str) -> dict[str, str]:
        return {name: value for name, value in os.environ.items() if not name.startswith("MOVIELENS_")} | {
            "AIRFLOW_HOME": str(self.folder / "airflow"),
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{self.folder}/airflow.db",
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__CORE__UNIT_TEST_MODE": "False",
            "MOVIELENS_PIPELINE": str(self.description),
            "MOVIELENS_COMMAND": str(self.folder / "movielens"),
            "MOVIELENS_RETRY_MINUTES": "0.001",
            **settings,
        }

    def python(self, program: str, *arguments: str, **settings: str) -> dict[str, Any]:
        done = subprocess.run(
            [sys.executable, "-c", program, str(self.dags), *arguments],
            env=self.environment(**settings),
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        result: dict[str, Any] = json.loads(done.stdout.rsplit("RESULT", 1)[1].splitlines()[0])
        return result | {"log": done.stdout + done.stderr}

    def load(self, **settings: str) -> dict[str, Any]:
        return self.python(LOAD, **settings)

    def run(self, exit_codes: dict[str, int], **params: object) -> dict[str, Any]:
        """A run, after an Airflow database was made for the first."""
        if not (self.folder / "airflow.db").exists():
            self.python("from airflow.utils import db; db.initdb(); print('RESULT{}')")
        self.calls.unlink(missing_ok=True)
        return self.python(RUN, json.dumps(params), EXIT_CODES=json.dumps(exit_codes))

    def called(self) -> list[list[str]]:
        return [json.loads(line) for line in self.calls.read_text().splitlines()]


@pytest.fixture
def airflow(tmp_path: Path) -> Airflow:
    """Airflow in processes of its own: to import it sets up logging, so the tests' process must never do so."""
    if importlib.util.find_spec("airflow") is None:
        pytest.skip("airflow is not installed; it comes with the extra 'airflow'")
    return Airflow(tmp_path)


def test_the_dag_has_the_nodes_and_their_dependencies_and_needs_no_tfx(airflow: Airflow, tmp_path: Path) -> None:
    folders = ["--data", str(tmp_path), "--root", str(tmp_path / "out"), "--output", str(tmp_path / "sample.pb")]
    assert CliRunner().invoke(cli.app, ["compile", *folders]).exit_code == 0
    found = airflow.load(MOVIELENS_PIPELINE=str(tmp_path / "sample.json"), MOVIELENS_POOL="gpu")
    assert (found["errors"], found["heavy"]) == ({}, [])
    dag = found["dags"]["sample"]
    tasks = dag["tasks"]
    assert tasks["MovieLensExampleGen"] == ["compile"]
    assert "MovieLensExampleGen" in tasks["StatisticsGen"]
    assert {"ExampleValidator", "DistributionValidator"} <= set(tasks["DataGate"])
    assert "DataGate" in tasks["Transform"]
    assert {"Trainer.retrieval", "Evaluator.retrieval"} <= set(tasks["Pusher.retrieval"])
    assert {"Evaluator.retrieval", "Evaluator.ranking"} <= set(tasks["Resolver.recommender_parts"])
    assert "Resolver.recommender_parts" in tasks["RecommenderBuilder"]
    assert {"RecommenderBuilder", "Resolver.recommender"} <= set(tasks["Evaluator.recommender"])
    assert {"RecommenderBuilder", "Evaluator.recommender"} <= set(tasks["Pusher.recommender"])
    assert {"Pusher.dcn", "Pusher.recommender", "FeatureImportance"} <= set(tasks["summary"])
    groups = dag["groups"]
    assert (groups["Transform"], groups["Trainer.joint"], groups["FeatureImportance"]) == ("data", "joint", "dcn")
    assert (groups["RecommenderBuilder"], groups["Resolver.recommender_parts"]) == ("recommender", "recommender")
    assert {name for name, pool in dag["pools"].items() if pool == "gpu"} == {
        name for name in tasks if name.startswith("Trainer.")
    }
    assert dag["outlets"]["Pusher.joint"] == [f"file://{tmp_path}/out/serving/joint"]
    assert len(dag["outlets"]) == 5
    assert (dag["active"], dag["retries"], dag["hours"], dag["schedule"]) == (1, [0, 2], [6.0], "None")


def test_models_that_are_pushed_to_a_uri_have_it_as_their_outlet(airflow: Airflow) -> None:
    described = json.loads(airflow.description.read_text())
    described["config"] = {"storage": {"artifacts": None, "serving": "gs://bucket/serving"}}
    airflow.description.write_text(json.dumps(described))
    assert airflow.load()["dags"]["four"]["outlets"]["Pusher.dcn"] == ["gs://bucket/serving/dcn"]


def test_settings_decide_about_schedule_retries_and_hours(airflow: Airflow) -> None:
    settings = {"SCHEDULE": "0 3 * * *", "RETRIES": "5", "NODE_HOURS": "0.5"}
    dag = airflow.load(**{f"MOVIELENS_{name}": value for name, value in settings.items()})["dags"]["four"]
    assert (dag["schedule"], dag["retries"], dag["hours"]) == ("0 3 * * *", [0, 5], [0.5])


def test_settings_may_be_airflows_variables_and_environment_comes_first(airflow: Airflow) -> None:
    variables = {"AIRFLOW_VAR_MOVIELENS_RETRIES": "7", "AIRFLOW_VAR_MOVIELENS_NODE_HOURS": "3"}
    dag = airflow.load(**variables, MOVIELENS_NODE_HOURS="2")["dags"]["four"]
    assert (dag["retries"], dag["hours"]) == ([0, 7], [2.0])


def test_alerts_on_long_runs_are_airflows_own(airflow: Airflow) -> None:
    """As the module's docstring says, for Airflow 2."""
    file = airflow.dags / "movielens.py"
    alert = "default_args={'sla': timedelta(hours=4)}, sla_miss_callback=print"
    shown = file.read_text().replace("create_dag()", f"create_dag({alert})")
    file.write_text(f"from datetime import timedelta\n{shown}")
    found = airflow.load()
    assert found["errors"] == {}
    assert found["dags"]["four"]["slas"] == [4.0]


@pytest.mark.parametrize(
    ("description", "problem"),
    [
        (None, "No such file"),
        ("{", "pipeline.json that `movielens compile` wrote"),
        ('{"name": "a", "data": "b"}', "it lacks output"),
        (
            '{"name": "a", "data": "b", "output": "/c", "nodes": [{"id": "Ingest"}]}',
            "a node lacks its id, its group, or what it waits for",
        ),
    ],
)
def test_what_lists_no_nodes_is_named_in_the_import_error(
    airflow: Airflow, description: str | None, problem: str
) -> None:
    airflow.description.unlink()
    if description is not None:
        airflow.description.write_text(description)
    found = airflow.load()
    assert found["dags"] == {}
    (error,) = found["errors"].values()
    assert problem in error
    assert str(airflow.description) in error


@pytest.mark.parametrize(
    ("name", "value"), [("RETRIES", "two"), ("COMMAND", "it's"), ("COMMAND", ""), ("PIPELINE", "")]
)
def test_a_setting_that_cannot_be_read_is_named(airflow: Airflow, name: str, value: str) -> None:
    found = airflow.load(**{f"MOVIELENS_{name}": value})
    (error,) = found["errors"].values()
    assert f"MOVIELENS_{name} " in error


def test_every_node_is_called_after_those_that_it_waits_for_with_what_was_typed_into_the_form(airflow: Airflow) -> None:
    settings = ["models.dcn.epochs=3", "data.split.seed=1; touch /tmp/typed"]
    described = json.loads(airflow.description.read_text())
    airflow.description.write_text(json.dumps(described | {"config": {"data": {"spans": 3}}}))
    ended = airflow.run({}, data="/other data", spans=7, settings=settings)
    assert ended["run"] == "success"
    assert set(ended["tasks"].values()) == {"success"}
    compiled, *nodes, summary = airflow.called()
    file = str(airflow.folder / "out" / "runs" / f"{ended['run_id']}.pb")
    assert compiled == [
        *["compile", "--like", str(airflow.description), "--output", file, "--data", "/other data"],
        *["--set", "data.spans=7", "--set", settings[0], "--set", settings[1]],
    ]
    node = ["run-node", "--pipeline", file, "--node"]
    assert nodes == [
        [*node, name, "--run-id", ended["run_id"]] for name in ("Ingest", "Trainer.dcn", "Evaluator.dcn", "Pusher.dcn")
    ]
    assert summary == ["summary", "--pipeline", file, "--run-id", ended["run_id"]]


def test_what_comes_after_a_skipped_task_is_called_all_the_same(airflow: Airflow) -> None:
    # The command decides, and records for the summary that there was nothing to do.
    ended = airflow.run(dict.fromkeys(("Ingest", "Trainer.dcn", "Evaluator.dcn", "Pusher.dcn", "summary"), 3))
    assert ended["run"] == "success"
    assert [dict(zip(call[1::2], call[2::2], strict=True)).get("--node", call[0]) for call in airflow.called()] == [
        *("compile", "Ingest", "Trainer.dcn", "Evaluator.dcn", "Pusher.dcn", "summary")
    ]


@pytest.mark.parametrize(
    ("executor", "elsewhere"),
    [
        ("CeleryExecutor", "CeleryExecutor"),
        ("LocalExecutor,mine:airflow.y.KubernetesExecutor", "mine:airflow.y.KubernetesExecutor"),
        ("LocalExecutor", None),
        # As Airflow 3 has them, with aliases and teams.
        ("Mine:LocalExecutor", None),
        ("LocalExecutor;team1=LocalExecutor", None),
        ("LocalExecutor;team1=CeleryExecutor", "team1=CeleryExecutor"),
    ],
)
def test_metadata_in_a_file_are_refused_where_tasks_may_run_on_several_machines(
    airflow: Airflow, executor: str, elsewhere: str | None
) -> None:
    described = json.loads(airflow.description.read_text())
    airflow.description.write_text(json.dumps(described | {"config": {"metadata": {"backend": "sqlite"}}}))
    found = airflow.load(AIRFLOW__CORE__EXECUTOR=executor)
    assert bool(found["dags"]) == (elsewhere is None)
    for error in found["errors"].values():
        assert (
            f"metadata.backend should be mysql where tasks may run on several machines, as with {elsewhere};" in error
        )


def test_metadata_on_a_server_are_for_every_executor(airflow: Airflow) -> None:
    described = json.loads(airflow.description.read_text())
    airflow.description.write_text(json.dumps(described | {"config": {"metadata": {"backend": "mysql"}}}))
    assert airflow.load(AIRFLOW__CORE__EXECUTOR="CeleryExecutor")["errors"] == {}


def test_a_failure_is_told_once_for_the_task_and_once_for_the_run(airflow: Airflow) -> None:
    called = airflow.folder / "failures"
    (airflow.dags / "movielens.py").write_text(
        "import sys\n"
        f"sys.path.insert(0, {str(ROOT)!r})\n"
        "from pipeline.airflow_dag import create_dag\n"
        "def told(context):\n"
        f"    with open({str(called)!r}, 'a') as file:\n"
        "        file.write(f\"{context['task_instance'].task_id}\\n\")\n"
        "dag = create_dag(on_failure=told)\n"
    )
    assert airflow.run({"Trainer.dcn": 2, "summary": 1})["run"] == "failed"
    first, *others = called.read_text().splitlines()
    assert first == "Trainer.dcn"
    assert len(others) == 1
    assert airflow.load()["dags"]["four"]["alerts"] == {
        **dict.fromkeys(("compile", "Ingest", "Trainer.dcn", "Evaluator.dcn", "Pusher.dcn"), True),
        "summary": False,
    }


@pytest.mark.parametrize("spans", [None, 3])
def test_the_form_asks_for_spans_where_the_pipeline_has_them(
    airflow: Airflow, tmp_path: Path, spans: int | None
) -> None:
    folders = ["--data", str(tmp_path), "--root", str(tmp_path / "out"), "--output", str(tmp_path / "sample.pb")]
    settings = [] if spans is None else ["--set", f"data.spans={spans}"]
    assert CliRunner().invoke(cli.app, ["compile", *folders, *settings]).exit_code == 0
    found = airflow.load(MOVIELENS_PIPELINE=str(tmp_path / "sample.json"))["dags"]["sample"]
    assert ("spans" in found["params"]) == (spans is not None)
    # What the form asks for is what can be compiled.
    again = ["compile", "--like", str(tmp_path / "sample.json"), "--output", str(tmp_path / "run.pb")]
    code = CliRunner().invoke(cli.app, [*again, "--set", "data.spans=2"]).exit_code
    assert code == (2 if spans is None else 0)


def test_a_model_that_was_not_blessed_is_a_skipped_task_with_the_reason(airflow: Airflow) -> None:
    ended = airflow.run({"Pusher.dcn": 3, "summary": 3})
    assert ended["run"] == "success"
    assert ended["tasks"]["Pusher.dcn"] == "skipped"
    assert ended["tasks"]["summary"] == "success"
    assert "Pusher.dcn: why it ended so" in ended["log"]


def test_bad_data_fail_at_once_and_other_failures_are_tried_again(airflow: Airflow) -> None:
    # As the real command does, the summary fails if a node has failed.
    bad = airflow.run({"Ingest": 2, "summary": 1})
    assert bad["run"] == "failed"
    assert bad["tasks"]["Ingest"] == "failed"
    assert bad["tasks"]["Trainer.dcn"] == "upstream_failed"
    assert [call[0] for call in airflow.called()] == ["compile", "run-node", "summary"]
    broken = airflow.run({"Ingest": 1, "summary": 1})
    assert broken["run"] == "failed"
    assert broken["tasks"]["Ingest"] == "failed"
    assert [call[0] for call in airflow.called()] == ["compile", "run-node", "run-node", "run-node", "summary"]
    assert "Ingest ended with 1: Ingest: why it ended so" in broken["log"]


def waiting_command(folder: Path) -> tuple[Path, Path]:
    """A command that starts a process and waits for it, and the file into which it writes that process's number."""
    command, file = folder / "waits", folder / "started"
    command.write_text(f"#!/bin/sh\nsleep 600 &\necho $! > {file}.new\nmv {file}.new {file}\nwait\n")
    command.chmod(0o755)
    return command, file


def is_running(process: int) -> bool:
    """Whether a process is there, and no mere record of its end."""
    try:
        return "State:\tZ" not in Path(f"/proc/{process}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


def until(condition: Callable[[], bool], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.1)


def test_a_task_that_airflow_ends_leaves_no_process(airflow: Airflow, tmp_path: Path) -> None:
    command, file = waiting_command(tmp_path)
    ended = airflow.python(END, str(file), MOVIELENS_COMMAND=str(command))
    assert ended["error"] == "AirflowException: Ingest ended with -15: "
    until(lambda: not is_running(int(file.read_text())))


def test_a_command_ends_with_its_task_so_that_the_next_try_meets_no_other(airflow: Airflow, tmp_path: Path) -> None:
    command, file = waiting_command(tmp_path)
    # The shell becomes `sleep`, which is then the command itself.
    command.write_text(f"#!/bin/sh\necho $$ > {file}.new\nmv {file}.new {file}\nexec sleep 600\n")
    task = subprocess.Popen(
        [sys.executable, "-c", EXECUTE, str(airflow.dags)],
        env=airflow.environment(MOVIELENS_COMMAND=str(command)),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        until(file.exists)
        assert is_running(int(file.read_text()))
    finally:
        task.kill()
        task.wait(60)
    until(lambda: not is_running(int(file.read_text())))
