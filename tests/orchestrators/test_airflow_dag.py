"""Airflow reads the DAG without TFX, and the DAG has what the pipeline and the settings say."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from pipeline import cli
from tests.orchestrators.small_airflow import Airflow

pytestmark = [pytest.mark.component, pytest.mark.timeout(900)]


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
