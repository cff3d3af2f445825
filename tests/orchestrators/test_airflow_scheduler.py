"""A real Airflow runs the DAG: its scheduler with the LocalExecutor, and its database on a PostgreSQL.

Airflow and the pipeline have environments of their own. AIRFLOW_ENVIRONMENTS names those of Airflow, separated by
colons; `make test-airflow` makes one for each version. The pipeline is the small one that stands in for the graph.
"""

import json
import os
import pwd
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.orchestrators.test_airflow import ROOT, write_dag
from tests.pipeline.local.standin import TROUBLE
from tests.servers import free_port

DAG = "sample"
NODES = ["Source", "Worker", "FeatureImportance", "Latest", "Pusher.recommender"]
ENVIRONMENTS = [Path(each) for each in os.environ.get("AIRFLOW_ENVIRONMENTS", "").split(":") if each]
SECONDS = 900

# The next Worker does what the file "trouble" says, once.
COMMAND = """#!/bin/sh
cd {root}
if [ "$5" = Worker ] && mv {folder}/trouble {folder}/trouble-taken 2>/dev/null; then
    {variable}=$(cat {folder}/trouble-taken)
    export {variable}
fi
exec {python} -m tests.pipeline.local.standin_movielens "$@"
"""

pytestmark = [pytest.mark.airflow, pytest.mark.timeout(3600)]


def until(condition: Callable[[], object], seconds: float = SECONDS) -> None:
    """Waits until a condition holds."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it took too long"
        time.sleep(1)


@pytest.fixture(scope="module")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a PostgreSQL that listens on this machine alone, with a database for each environment."""
    programs = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if not programs:
        pytest.skip("PostgreSQL is not installed; it is Debian's package postgresql")
    folder, port = tmp_path_factory.mktemp("postgres"), free_port()
    # It refuses to run as root.
    user = "postgres" if os.geteuid() == 0 else pwd.getpwuid(os.geteuid()).pw_name
    if os.geteuid() == 0:
        shutil.chown(folder, user)
        for parent in [folder, *folder.parents][:3]:
            parent.chmod(0o755)

    def call(program: str, *arguments: str) -> None:
        as_user = ["runuser", "-u", user, "--"] if os.geteuid() == 0 else []
        subprocess.run([*as_user, str(programs[-1].with_name(program)), *arguments], check=True, cwd="/")

    data = str(folder / "data")
    call("initdb", "-D", data, "-A", "trust", "-U", "airflow")
    options = f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={folder}"
    call("pg_ctl", "-D", data, "-w", "-l", str(folder / "log"), "-o", options, "start")
    for environment in ENVIRONMENTS:
        call("createdb", "-h", "127.0.0.1", "-p", str(port), "-U", "airflow", environment.name)
    yield f"postgresql+psycopg2://airflow@127.0.0.1:{port}"
    call("pg_ctl", "-D", data, "-m", "immediate", "stop")


class Airflow:
    """A scheduler, with whatever else its version needs, and the DAG of the small pipeline."""

    def __init__(self, environment: Path, folder: Path, postgres: str):
        self.folder, self.output = folder, folder / "output"
        self._bin = environment / "bin"
        self._processes: list[subprocess.Popen[bytes]] = []
        command = folder / "movielens"
        command.write_text(COMMAND.format(root=ROOT, folder=folder, python=sys.executable, variable=TROUBLE))
        command.chmod(0o755)
        compiled = folder / "pipeline.pb"
        folders = ["--data", str(folder / "data"), "--root", str(self.output), "--output", str(compiled)]
        subprocess.run([str(command), "compile", *folders, "--set", "models.ranking.epochs=1"], check=True)
        write_dag(folder / "dags")
        api = f"http://127.0.0.1:{free_port()}"
        self._env = {name: value for name, value in os.environ.items() if not name.startswith("MOVIELENS_")} | {
            "PATH": f"{self._bin}:{os.environ['PATH']}",
            "AIRFLOW_HOME": str(folder / "airflow"),
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": postgres,
            "AIRFLOW__CORE__EXECUTOR": "LocalExecutor",
            "AIRFLOW__CORE__PARALLELISM": "3",
            "AIRFLOW__CORE__DAGS_FOLDER": str(folder / "dags"),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "False",
            "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"{api}/execution/",
            "AIRFLOW__API__BASE_URL": api,
            "AIRFLOW__API__PORT": api.rpartition(":")[2],
            "AIRFLOW__API__HOST": "127.0.0.1",
            "AIRFLOW__API_AUTH__JWT_SECRET": "a secret of this test and of nothing else",
            "AIRFLOW__SCHEDULER__ENABLE_HEALTH_CHECK": "False",
            "MOVIELENS_PIPELINE": str(compiled.with_suffix(".json")),
            "MOVIELENS_COMMAND": str(command),
            "MOVIELENS_RETRY_MINUTES": "0.05",
        }
        self.version = int(self.call("version").splitlines()[-1].partition(".")[0])

    def call(self, *arguments: str) -> str:
        done = subprocess.run(
            [str(self._bin / "airflow"), *arguments], env=self._env, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def listed(self, *arguments: str) -> list[dict[str, str]]:
        """What a command lists; lines of Airflow's log may come first."""
        printed = self.call(*arguments, "-o", "json")
        begin = re.search(r"^\[(\s*\{|\])", printed, re.MULTILINE)
        assert begin, printed
        found: list[dict[str, str]] = json.loads(printed[begin.start() :])
        return found

    def start(self) -> None:
        self.call("db", "migrate")
        for service in ("scheduler", *(("api-server", "dag-processor") if self.version > 2 else ())):
            with (self.folder / f"{service}.log").open("wb") as log:
                process = subprocess.Popen(
                    [str(self._bin / "airflow"), service],
                    env=self._env,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
            self._processes.append(process)
        until(lambda: DAG in self.call("dags", "list", "-o", "plain"), 180)

    def stop(self) -> None:
        for process in reversed(self._processes):
            os.killpg(process.pid, signal.SIGTERM)
        for process in self._processes:
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait(30)

    def trigger(self, run: str, **params: object) -> None:
        self.call("dags", "trigger", "-r", run, "-c", json.dumps(params), DAG)

    def runs(self) -> dict[str, dict[str, str]]:
        arguments = [DAG] if self.version > 2 else ["-d", DAG]
        return {run["run_id"]: run for run in self.listed("dags", "list-runs", *arguments)}

    def ended(self, run: str) -> str:
        """The state of a run, once it has come to its end."""
        until(lambda: self.runs()[run]["state"] in ("success", "failed"))
        return self.runs()[run]["state"]

    def tasks(self, run: str) -> dict[str, str]:
        return {task["task_id"]: task["state"] for task in self.listed("tasks", "states-for-dag-run", DAG, run)}

    def log(self, run: str, task: str) -> str:
        folder = self.folder / "airflow" / "logs" / f"dag_id={DAG}" / f"run_id={run}" / f"task_id={task}"
        return "".join(file.read_text() for file in sorted(folder.glob("attempt=*.log")))


@pytest.fixture(scope="module", params=ENVIRONMENTS, ids=lambda path: path.name)
def airflow(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, postgres: str
) -> Iterator[Airflow]:
    folder = tmp_path_factory.mktemp("airflow")
    started = Airflow(request.param, folder, f"{postgres}/{request.param.name}")
    try:
        started.start()
        yield started
    finally:
        started.stop()


@pytest.mark.skipif(bool(ENVIRONMENTS), reason="AIRFLOW_ENVIRONMENTS is set")
def test_environments_are_named() -> None:
    pytest.skip("AIRFLOW_ENVIRONMENTS is not set; `make test-airflow` makes the environments, and sets it")


def test_a_run_comes_to_its_end_and_the_next_takes_what_has_not_changed(airflow: Airflow) -> None:
    airflow.trigger("first")
    assert airflow.ended("first") == "success"
    assert airflow.tasks("first") == dict.fromkeys(["compile", *NODES, "summary"], "success")
    airflow.trigger("changed", settings=["models.ranking.epochs=2"])
    assert airflow.ended("changed") == "success"
    summary = json.loads((airflow.output / "summary.json").read_text())
    states = {component["id"]: component["state"] for component in summary["components"]}
    assert (states["Source"], states["Worker"], states["Latest"]) == ("cached", "complete", "resolved")
    pushed = sorted(airflow.output.glob("serving/recommender/*/saved_model.pb"))
    assert [file.read_text() for file in pushed] == ["ab", "abab"]


def test_a_task_that_is_killed_succeeds_on_the_next_try(airflow: Airflow) -> None:
    (airflow.folder / "trouble").write_text("wait")
    airflow.trigger("killed", settings=["models.ranking.epochs=3"])
    until(lambda: "half" in [file.read_text() for file in airflow.output.glob("pipeline/Worker/model/*/result")])
    pattern = "standin_movielens run-node .*--node Worker"
    subprocess.run(["pkill", "-KILL", "-f", pattern], check=True)
    assert airflow.ended("killed") == "success"
    assert "Worker ended with -9" in airflow.log("killed", "Worker")
    assert sorted(airflow.output.glob("serving/recommender/*/saved_model.pb"))[-1].read_text() == "ababab"


def test_bad_data_are_a_failed_task_with_the_reason_in_its_log(airflow: Airflow) -> None:
    (airflow.folder / "trouble").write_text("data")
    airflow.trigger("bad", settings=["models.ranking.epochs=4"])
    assert airflow.ended("bad") == "failed"
    tasks = airflow.tasks("bad")
    # The summary says what failed.
    assert sorted(name for name, state in tasks.items() if state == "failed") == ["Worker", "summary"]
    assert "Worker failed: ratings.dat:17: rating should be 1 to 5" in airflow.log("bad", "summary")
    assert tasks["Pusher.recommender"] == "upstream_failed"
    log = airflow.log("bad", "Worker")
    assert "ratings.dat:17: rating should be 1 to 5" in log
    assert log.count("--node Worker") == 1


def test_two_runs_at_once_queue(airflow: Airflow) -> None:
    for run in ("one", "two"):
        airflow.trigger(run)
    seen = set[tuple[str, ...]]()

    def both_ended() -> bool:
        runs = airflow.runs()
        states = {run: runs[run]["state"] for run in ("one", "two")}
        seen.add(tuple(sorted(states.values())))
        return set(states.values()) <= {"success", "failed"}

    until(both_ended)
    assert ("queued", "running") in seen
    assert ("running", "running") not in seen
    assert [airflow.runs()[run]["state"] for run in ("one", "two")] == ["success", "success"]
