"""Airflow itself loads the pipeline as a DAG, from the definition that local runs use too."""

import json
import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.component

LOAD = """
import json, sys
from airflow.models import DagBag
bag = DagBag(sys.argv[1], include_examples=False)
dags = {name: {task.task_id: sorted(task.upstream_task_ids) for task in dag.tasks} for name, dag in bag.dags.items()}
print("RESULT" + json.dumps({"errors": {str(k): str(v) for k, v in bag.import_errors.items()}, "dags": dags}))
"""


def load_dags(dags, tmp_path, **settings):
    environment = os.environ | {
        "AIRFLOW_HOME": str(tmp_path / "airflow"),
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{tmp_path}/airflow.db",
        "AIRFLOW__CORE__DAGBAG_IMPORT_TIMEOUT": "300",
        **settings,
    }
    done = subprocess.run(
        [sys.executable, "-c", LOAD, str(dags)],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.rsplit("RESULT", 1)[1])


@pytest.fixture
def dags(tmp_path):
    pytest.importorskip("airflow", reason="airflow is not installed; it comes with the extra 'airflow'")
    folder = tmp_path / "dags"
    folder.mkdir()
    (folder / "movielens.py").write_text(
        "# An airflow dag.\nfrom pipeline.airflow_dag import create_dag\n\nmovielens = create_dag()\n"
    )
    return folder


@pytest.mark.timeout(600)
def test_the_dag_has_the_components_and_their_dependencies(dags, tmp_path):
    found = load_dags(
        dags, tmp_path, MOVIELENS_CONFIG="sample", MOVIELENS_DATA=str(tmp_path), MOVIELENS_OUTPUT=str(tmp_path / "out")
    )
    assert found["errors"] == {}
    tasks = found["dags"]["sample"]
    assert "MovieLensExampleGen" in tasks["StatisticsGen"]
    assert {"ExampleValidator", "DistributionValidator"} <= set(tasks["DataGate"])
    assert "DataGate" in tasks["Transform"]
    assert {"Trainer.retrieval", "Evaluator.retrieval"} <= set(tasks["Pusher.retrieval"])
    assert {"Evaluator.retrieval", "Evaluator.ranking"} <= set(tasks["Resolver.recommender_parts"])
    assert "Resolver.recommender_parts" in tasks["RecommenderBuilder"]
    assert {"RecommenderBuilder", "Resolver.recommender"} <= set(tasks["Evaluator.recommender"])
    assert {"RecommenderBuilder", "Evaluator.recommender"} <= set(tasks["Pusher.recommender"])


@pytest.mark.timeout(600)
def test_a_missing_setting_is_named_in_the_import_error(dags, tmp_path):
    found = load_dags(dags, tmp_path, MOVIELENS_OUTPUT="")
    assert "MOVIELENS_OUTPUT should be set" in "".join(found["errors"].values())


REFUSED = """
import os
from pipeline.airflow_dag import create_dag
for settings in [
    {"MOVIELENS_DATA": "gs://bucket/data"},
    {"MOVIELENS_OUTPUT": "s3://bucket/out"},
    {"MOVIELENS_CONFIG": "file:///config.yaml"},
    {"MOVIELENS_OUTPUT": "/out[1]"},
]:
    os.environ.update({"MOVIELENS_DATA": "/data", "MOVIELENS_OUTPUT": "out", "MOVIELENS_CONFIG": "sample"} | settings)
    try:
        create_dag()
        print("RESULT accepted")
    except ValueError as error:
        print("RESULT", error)
"""


@pytest.mark.timeout(600)
def test_uris_and_folders_that_read_as_patterns_are_refused(tmp_path):
    pytest.importorskip("airflow", reason="airflow is not installed; it comes with the extra 'airflow'")
    done = subprocess.run(
        [sys.executable, "-c", REFUSED],
        env=os.environ
        | {
            "AIRFLOW_HOME": str(tmp_path / "airflow"),
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{tmp_path}/airflow.db",
            "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
        },
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    results = [line.removeprefix("RESULT ") for line in done.stdout.splitlines() if line.startswith("RESULT")]
    assert results[:3] == [
        "MOVIELENS_DATA: should be a path on this machine; received the URI 'gs://bucket/data'.",
        "MOVIELENS_OUTPUT: should be a path on this machine; received the URI 's3://bucket/out'.",
        "--config: should be a path on this machine; received the URI 'file:///config.yaml'.",
    ]
    assert results[3].startswith("MOVIELENS_OUTPUT: should have none of the characters")
    assert not (tmp_path / "out").exists()
