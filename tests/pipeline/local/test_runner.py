"""`movielens run` from outside, with a small pipeline that stands in for the graph."""

import json
import os
import signal
import sqlite3
import subprocess
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests import warm_processes
from tests.pipeline.command_line import STANDIN_MOVIELENS, run_code

SMALL = ["--set", "data.sample={users: 20, movies: 30, ratings: 300}"]
IDS = ["Source", "Worker", "FeatureImportance", "Latest", "Pusher.recommender"]

pytestmark = [pytest.mark.component, pytest.mark.timeout(1200)]


def command(output: Path, *arguments: str) -> list[str]:
    return ["run", *SMALL, "--output", str(output), *arguments]


def run(output: Path, *arguments: str, trouble: str = "") -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"STANDIN_TROUBLE": trouble}
    return warm_processes.run(STANDIN_MOVIELENS, *command(output, *arguments), environment=environment)


def states(output: Path) -> dict[str, str]:
    summary = json.loads((output / "summary.json").read_text())
    return {component["id"]: component["state"] for component in summary["components"]}


def pushed(output: Path) -> list[str]:
    return [file.read_text() for file in sorted(output.glob("serving/recommender/*/saved_model.pb"))]


def test_runs_then_reuses_then_reruns_what_depends_on_a_change(tmp_path: Path) -> None:
    # In a new interpreter, since much that may reach the console is printed when TensorFlow and TFX are loaded.
    first = run_code(STANDIN_MOVIELENS, *command(tmp_path))
    assert first.returncode == 0, first.stderr
    assert states(tmp_path) == dict(zip(IDS, ["complete", "complete", "complete", "resolved", "complete"], strict=True))
    for line in ("[1/5] Source … ", "[2/5] Worker … ", "Latest … resolved", "Pusher.recommender … "):
        assert line in first.stderr
    (log,) = (tmp_path / "logs").iterdir()
    assert f"Log: {log}" in first.stdout.splitlines()
    assert "Going to run a new execution" in log.read_text()
    # Nothing but progress reaches the console: a line before, and one for each node.
    assert len(first.stderr.splitlines()) == 1 + len(IDS), first.stderr

    second = run(tmp_path)
    assert second.returncode == 0, second.stderr
    assert states(tmp_path) == dict(zip(IDS, ["cached", "cached", "cached", "resolved", "cached"], strict=True))
    assert "[2/5] Worker … cached" in second.stderr
    assert len(pushed(tmp_path)) == 1

    changed = run(tmp_path, "--set", "models.ranking.epochs=2")
    assert changed.returncode == 0, changed.stderr
    assert states(tmp_path) == dict(zip(IDS, ["cached", "complete", "complete", "resolved", "complete"], strict=True))
    assert pushed(tmp_path)[-1] == "abab"


def test_a_version_that_was_deleted_by_hand_is_reported_and_not_pushed_again(tmp_path: Path) -> None:
    assert run(tmp_path, trouble="error").returncode == 1
    assert run(tmp_path).returncode == 0
    (version,) = tmp_path.glob("serving/recommender/*")
    by_hand = version.with_name("9999999999")
    version.rename(by_hand)
    again = run(tmp_path)
    assert again.returncode == 3
    (reason,) = json.loads((tmp_path / "summary.json").read_text())["recommender"]["reasons"]
    assert f"version {version.name} of recommender was pushed on " in reason
    assert f"recommender was blessed, but it was not pushed: {reason}." in again.stderr
    assert list(tmp_path.glob("serving/recommender/*")) == [by_hand]


def test_a_withdrawn_model_is_not_pushed_again_and_the_next_one_is(tmp_path: Path) -> None:
    assert run(tmp_path, "--set", "models.ranking.epochs=1").returncode == 0
    assert run(tmp_path, "--set", "models.ranking.epochs=2").returncode == 0
    older, version = sorted(tmp_path.glob("serving/recommender/*"))
    withdrawal = ["withdraw", "recommender", version.name, "--output", str(tmp_path), "--why", "it loves sequels"]
    before = datetime.now(UTC)
    withdrawn = warm_processes.run(STANDIN_MOVIELENS, *withdrawal)
    assert (withdrawn.returncode, withdrawn.stdout.splitlines()) == (
        0,
        [
            f"recommender {version.name} is withdrawn; no later run pushes it again.",
            f"Taken out of serving: recommender {version.name}.",
            f"Served as recommender from now on: {older.name}.",
        ],
    ), withdrawn.stderr
    again = run(tmp_path, "--set", "models.ranking.epochs=2")
    assert again.returncode == 3
    assert states(tmp_path)["Worker"] == "cached"
    entry = json.loads((tmp_path / "summary.json").read_text())["recommender"]
    # The clock may have passed midnight.
    (reason,) = entry["reasons"]
    assert reason in {f"withdrawn on {time:%Y-%m-%d}: it loves sequels" for time in (before, datetime.now(UTC))}
    assert entry == {"blessed": True, "reasons": [reason], "pushed": None, "made_of": None}
    assert f"recommender was blessed, but it was not pushed: {reason}." in again.stderr
    assert pushed(tmp_path) == ["ab"]
    assert run(tmp_path, "--set", "models.ranking.epochs=3").returncode == 0
    assert pushed(tmp_path) == ["ab", "ababab"]


def test_beam_runs_and_reuses_the_same_pipeline(tmp_path: Path) -> None:
    first = run(tmp_path, "--runner", "beam")
    assert first.returncode == 0, first.stderr
    assert states(tmp_path) == dict(zip(IDS, ["complete", "complete", "complete", "resolved", "complete"], strict=True))
    (log,) = (tmp_path / "logs").iterdir()
    assert "prism" not in log.read_text().lower()

    second = run(tmp_path, "--runner", "beam")
    assert second.returncode == 0, second.stderr
    assert states(tmp_path) == dict(zip(IDS, ["cached", "cached", "cached", "resolved", "cached"], strict=True))


def test_a_failure_is_one_message(tmp_path: Path) -> None:
    failed = run(tmp_path, trouble="error")
    assert failed.returncode == 1
    lines = failed.stderr.splitlines()
    assert "[2/5] Worker … failed after" in failed.stderr
    assert "Error: Worker failed: ZeroDivisionError: factor should not be zero" in lines
    (log,) = (tmp_path / "logs").iterdir()
    assert lines[-1] == f"Log: {log}"
    assert "Traceback" not in failed.stderr
    assert "Traceback" in log.read_text()
    assert not pushed(tmp_path)
    assert not (tmp_path / "summary.json").exists()


@pytest.mark.parametrize("runner", ["local", "beam"])
def test_a_node_that_only_reports_fails_alone(tmp_path: Path, runner: str) -> None:
    failed = run(tmp_path, "--runner", runner, trouble="report")
    assert failed.returncode == 1
    (log,) = (tmp_path / "logs").iterdir()
    assert failed.stderr.splitlines()[-3:] == [
        "Error: FeatureImportance failed: ZeroDivisionError: [rows] should not be zero",
        "It only reports; all else was done.",
        f"Log: {log}",
    ]
    assert "Traceback" not in failed.stderr
    assert "Traceback" in log.read_text()
    # Everything else was done, and what the report had half written is gone.
    assert states(tmp_path) == dict(zip(IDS, ["complete", "complete", "failed", "resolved", "complete"], strict=True))
    assert pushed(tmp_path) == ["ab" * json_epochs(tmp_path)]
    assert str(max(tmp_path.glob("serving/recommender/*"))) in (tmp_path / "summary.json").read_text()
    (component,) = (
        each
        for each in json.loads((tmp_path / "summary.json").read_text())["components"]
        if each["id"] == "FeatureImportance"
    )
    assert component["problem"] == "ZeroDivisionError: [rows] should not be zero"
    assert not list(tmp_path.glob("pipeline/FeatureImportance/report/*"))

    # The next run makes up for it, and does nothing else again.
    again = run(tmp_path, "--runner", runner)
    assert again.returncode == 0, again.stderr
    assert states(tmp_path) == dict(zip(IDS, ["cached", "cached", "complete", "resolved", "cached"], strict=True))
    assert "problem" not in (tmp_path / "summary.json").read_text()


def test_bad_data_met_by_a_node_that_only_reports_is_a_failure_of_the_report(tmp_path: Path) -> None:
    failed = run(tmp_path, trouble="report data")
    assert failed.returncode == 1
    assert "FeatureImportance failed: ratings.dat:17: rating should be 1 to 5; received '7'." in failed.stderr
    assert pushed(tmp_path)


def test_bad_data_met_by_a_component_exits_with_2(tmp_path: Path) -> None:
    failed = run(tmp_path, "--runner", "beam", trouble="data")
    assert failed.returncode == 2
    assert "Worker failed: ratings.dat:17: rating should be 1 to 5; received '7'." in failed.stderr


@pytest.mark.parametrize("runner", ["local", "beam"])
def test_anomalies_are_listed_and_exit_with_2(tmp_path: Path, runner: str) -> None:
    failed = run(tmp_path, "--runner", runner, trouble="anomalies")
    assert failed.returncode == 2
    assert (
        "Error: Worker failed: the data should fit the schema; received 2 anomalies:\n"
        "  train, occupation: Out-of-range values. Unexpectedly large value: 21.\n"
        "  train_eval, genres: High Linfty distance. It is 0.3, above the threshold 0.1.\n"
        "Nothing was pushed by it or after it.\n"
    ) in failed.stderr
    assert "Traceback" not in failed.stderr
    assert not pushed(tmp_path)
    assert not (tmp_path / "summary.json").exists()


def test_goes_on_after_sigkill(tmp_path: Path) -> None:
    killed = run(tmp_path, trouble="kill")
    assert killed.returncode == -signal.SIGKILL
    (half,) = tmp_path.glob("pipeline/Worker/model/*/result")
    assert half.read_text() == "half"

    resumed = run(tmp_path)
    assert resumed.returncode == 0, resumed.stderr
    assert states(tmp_path) == dict(zip(IDS, ["cached", "complete", "complete", "resolved", "complete"], strict=True))
    assert pushed(tmp_path) == ["ab" * json_epochs(tmp_path)]
    assert not half.exists()
    with sqlite3.connect(tmp_path / "metadata.sqlite") as store:
        open_executions = store.execute("SELECT COUNT(*) FROM Execution WHERE last_known_state IN (1, 2)").fetchone()
    assert open_executions == (0,)


def json_epochs(output: Path) -> int:
    """The stand-in's factor under the default configuration."""
    from pipeline.config import load_config

    return load_config("sample").models.ranking.epochs


def test_two_runs_cannot_share_an_output(tmp_path: Path) -> None:
    environment = os.environ | {"STANDIN_TROUBLE": "wait"}
    first = warm_processes.WarmProcess(STANDIN_MOVIELENS, *command(tmp_path), environment=environment)
    try:
        deadline = time.monotonic() + 60
        while not list(tmp_path.glob("logs/*")) and time.monotonic() < deadline:
            time.sleep(0.1)
        second = run(tmp_path)
    finally:
        first.kill()
        first.wait(60)
    assert second.returncode == 1
    assert f"another run (process {first.pid}) is writing here" in second.stderr


def test_a_full_disk_is_one_message(tmp_path: Path) -> None:
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=230m", "tmpfs", str(tmp_path)], capture_output=True, text=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"a small file system cannot be mounted here: {mounted.stderr.strip()}")
    try:
        failed = run(tmp_path, trouble="disk")
        assert failed.returncode == 1
        assert "Error: Worker failed: No space left on device" in failed.stderr.splitlines()
        assert "Traceback" not in failed.stderr
        assert not pushed(tmp_path)
        # What did not fit is gone again.
        assert not list(tmp_path.glob("pipeline/Worker/model/*"))
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)
