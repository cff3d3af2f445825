"""A real Airflow runs the DAG: its scheduler with the LocalExecutor, and its database on a PostgreSQL.

The pipeline is the small one that stands in for the graph; tests/nightly/test_same_everywhere.py runs the whole one.
"""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.orchestrators.airflow_service import ENVIRONMENTS, Airflow, until
from tests.orchestrators.small_airflow import ROOT
from tests.pipeline.local.standin import TROUBLE
from tests.servers import running_postgres

NODES = ["Source", "Worker", "FeatureImportance", "Latest", "Pusher.recommender"]

# The next Worker does what the file "trouble" says, once.
COMMAND = """#!/bin/sh
cd {root}
if [ "$5" = Worker ] && mv {folder}/trouble {folder}/trouble-taken 2>/dev/null; then
    {variable}=$(cat {folder}/trouble-taken)
    export {variable}
fi
exec {python} -m tests.pipeline.local.standin_movielens "$@"
"""

# A DAG of the same pipeline that is late after a second, and what is called then.
LATE = """# An Airflow DAG.
import sys
from datetime import timedelta
from airflow.sdk import DeadlineAlert, DeadlineReference, SyncCallback
sys.path.insert(0, {root!r})
from pipeline.airflow_dag import create_dag
late = create_dag(
    dag_id="late",
    deadline=DeadlineAlert(
        reference=DeadlineReference.DAGRUN_QUEUED_AT,
        interval=timedelta(seconds=1),
        callback=SyncCallback("alerts.note", {{"file": {file!r}}}),
    ),
)
"""
ALERTS = """
def note(context, file):
    with open(file, "a") as notes:
        notes.write(context["dag_run"]["dag_run_id"])
"""

pytestmark = [pytest.mark.airflow, pytest.mark.timeout(3600)]


@pytest.fixture(scope="module")
def postgres() -> Iterator[str]:
    with running_postgres([environment.name for environment in ENVIRONMENTS]) as address:
        yield address


class SmallPipeline(Airflow):
    """An Airflow with the small pipeline; `output` is the pipeline's folder."""

    def __init__(self, environment: Path, folder: Path, database: str):
        self.output = folder / "output"
        command = folder / "movielens"
        command.write_text(COMMAND.format(root=ROOT, folder=folder, python=sys.executable, variable=TROUBLE))
        command.chmod(0o755)
        compiled = folder / "pipeline.pb"
        folders = ["--data", str(folder / "data"), "--root", str(self.output), "--output", str(compiled)]
        subprocess.run([str(command), "compile", *folders, "--set", "models.ranking.epochs=1"], check=True)
        super().__init__(environment, folder, database, command, compiled.with_suffix(".json"))
        if self.version > 2:
            self.late = folder / "late"
            (folder / "dags" / "late.py").write_text(LATE.format(root=str(ROOT), file=str(self.late)))
            (folder / "dags" / "alerts.py").write_text(ALERTS)


@pytest.fixture(scope="module", params=ENVIRONMENTS, ids=lambda path: path.name)
def airflow(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, postgres: str
) -> Iterator[SmallPipeline]:
    folder = tmp_path_factory.mktemp("airflow")
    started = SmallPipeline(request.param, folder, f"{postgres}/{request.param.name}")
    try:
        started.start()
        yield started
    finally:
        started.stop()


@pytest.mark.skipif(bool(ENVIRONMENTS), reason="AIRFLOW_ENVIRONMENTS is set")
def test_environments_are_named() -> None:
    pytest.skip("AIRFLOW_ENVIRONMENTS is not set; `make test-airflow` makes the environments, and sets it")


def test_a_run_comes_to_its_end_and_the_next_takes_what_has_not_changed(airflow: SmallPipeline) -> None:
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


def test_a_task_that_is_killed_succeeds_on_the_next_try(airflow: SmallPipeline) -> None:
    (airflow.folder / "trouble").write_text("wait")
    airflow.trigger("killed", settings=["models.ranking.epochs=3"])
    until(lambda: "half" in [file.read_text() for file in airflow.output.glob("pipeline/Worker/model/*/result")])
    # With the folder of this Airflow, as another one may run beside it.
    pattern = f"standin_movielens run-node --pipeline {airflow.folder}/.*--node Worker"
    subprocess.run(["pkill", "-KILL", "-f", pattern], check=True)
    assert airflow.ended("killed") == "success"
    assert "Worker ended with -9" in airflow.log("killed", "Worker")
    assert sorted(airflow.output.glob("serving/recommender/*/saved_model.pb"))[-1].read_text() == "ababab"


def test_bad_data_are_a_failed_task_with_the_reason_in_its_log(airflow: SmallPipeline) -> None:
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


def test_two_runs_at_once_queue(airflow: SmallPipeline) -> None:
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


def test_a_run_that_takes_too_long_is_told(airflow: SmallPipeline) -> None:
    if airflow.version < 3:
        pytest.skip("deadlines came with Airflow 3.1")
    until(lambda: "late" in airflow.call("dags", "list", "-o", "plain"), 180)
    airflow.call("dags", "trigger", "-r", "slow", "late")
    until(lambda: airflow.late.exists() and airflow.late.read_text())
    assert airflow.late.read_text() == "slow"
