"""Airflow runs the DAG, one command for each node, and shows what the command's exit code means."""

import json

import pytest

from tests.orchestrators.small_airflow import ROOT, Airflow

pytestmark = [pytest.mark.component, pytest.mark.timeout(900)]


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
