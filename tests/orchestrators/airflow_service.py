"""Real Airflows, each in an environment of its own, that run the DAG on this machine for as long as a test needs them.

AIRFLOW_ENVIRONMENTS names the environments, separated by colons; `make test-airflow` makes one for each version.
"""

import contextlib
import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from tests.orchestrators.small_airflow import write_dag
from tests.servers import free_port

DAG = "sample"
ENVIRONMENTS = [Path(each) for each in os.environ.get("AIRFLOW_ENVIRONMENTS", "").split(":") if each]
SECONDS = 900


def until(condition: Callable[[], object], seconds: float = SECONDS, every: float = 1) -> None:
    """Waits until a condition holds, and looks every so many seconds."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it took too long"
        time.sleep(every)


class Airflow:
    """A scheduler, with whatever else its version needs, and the DAG of a compiled pipeline, whose name is `sample`."""

    def __init__(
        self,
        environment: Path,
        folder: Path,
        database: str,
        command: Path,
        compiled: Path,
        variables: Mapping[str, str] | None = None,
    ):
        """Prepares an Airflow, without starting it.

        Args:
          environment: where its version is installed.
          folder: an existing folder, for its files and its logs.
          database: address of an empty database.
          command: the project's command.
          compiled: the list of nodes that `movielens compile` wrote.
          variables: further environment variables, of the scheduler and of the tasks.
        """
        self.folder = folder
        self._bin = environment / "bin"
        self._processes: list[subprocess.Popen[bytes]] = []
        write_dag(folder / "dags")
        api = f"http://127.0.0.1:{free_port()}"
        self._env = {name: value for name, value in os.environ.items() if not name.startswith("MOVIELENS_")} | {
            "PATH": f"{self._bin}:{os.environ['PATH']}",
            "AIRFLOW_HOME": str(folder / "airflow"),
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": database,
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
            "MOVIELENS_PIPELINE": str(compiled),
            "MOVIELENS_COMMAND": str(command),
            "MOVIELENS_RETRY_MINUTES": "0.05",
            **(variables or {}),
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
        # Tasks are in groups of their own, and would go on.
        for task in self._tasks():
            with contextlib.suppress(ProcessLookupError):
                os.kill(task, signal.SIGKILL)
        for process in reversed(self._processes):
            os.killpg(process.pid, signal.SIGTERM)
        for process in self._processes:
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait(30)

    def _tasks(self) -> list[int]:
        """The processes that have the environment of this Airflow, but for its services."""
        found, mine = [], f"AIRFLOW_HOME={self.folder}/airflow".encode()
        for environment in Path("/proc").glob("[0-9]*/environ"):
            with contextlib.suppress(OSError):
                if mine in environment.read_bytes().split(b"\0"):
                    found.append(int(environment.parent.name))
        return [process for process in found if process not in {each.pid for each in self._processes}]

    def trigger(self, run: str, **params: object) -> None:
        self.call("dags", "trigger", "-r", run, "-c", json.dumps(params), DAG)

    def runs(self) -> dict[str, dict[str, str]]:
        arguments = [DAG] if self.version > 2 else ["-d", DAG]
        return {run["run_id"]: run for run in self.listed("dags", "list-runs", *arguments)}

    def ended(self, run: str, seconds: float = SECONDS) -> str:
        """The state of a run, once it has come to its end."""
        # Each look starts an Airflow, which takes seconds of a processor from what is waited for.
        until(lambda: self.runs()[run]["state"] in ("success", "failed"), seconds, every=5)
        return self.runs()[run]["state"]

    def tasks(self, run: str) -> dict[str, str]:
        return {task["task_id"]: task["state"] for task in self.listed("tasks", "states-for-dag-run", DAG, run)}

    def log(self, run: str, task: str) -> str:
        folder = self.folder / "airflow" / "logs" / f"dag_id={DAG}" / f"run_id={run}" / f"task_id={task}"
        return "".join(file.read_text() for file in sorted(folder.glob("attempt=*.log")))
