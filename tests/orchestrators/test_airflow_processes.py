"""A task's command is a process of its own, which ends with the task."""

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.orchestrators.small_airflow import Airflow

pytestmark = [pytest.mark.component, pytest.mark.timeout(900)]

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
