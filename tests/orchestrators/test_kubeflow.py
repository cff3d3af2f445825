"""The pipeline compiles for Kubeflow Pipelines, from the definition that local runs use too."""

import json
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.config import ConfigError

COMPILER = Path(__file__).parents[2] / "kubeflow" / "compile.py"

pytestmark = pytest.mark.component


@pytest.fixture(scope="module")
def spec(tmp_path_factory):
    pytest.importorskip("kfp", reason="kfp is not installed; it comes with the extra 'kubeflow'")
    from google.protobuf import json_format
    from kfp.pipeline_spec import pipeline_spec_pb2

    output = tmp_path_factory.mktemp("kubeflow") / "movielens.json"
    compile_pipeline = runpy.run_path(str(COMPILER))["compile_pipeline"]
    compile_pipeline("sample", [], "image:tag", "/data", "/artifacts", "/serving", output)
    return json_format.ParseDict(json.loads(output.read_text())["pipelineSpec"], pipeline_spec_pb2.PipelineSpec())


def test_the_compiled_pipeline_has_every_component_of_the_graph(spec):
    tasks = set(spec.root.dag.tasks)
    models = ("dcn", "retrieval", "ranking", "joint")
    for stage in ("Trainer", "Evaluator", "Pusher"):
        assert {f"{stage}.{model}" for model in models} <= tasks
    assert {"MovieLensExampleGen", "DataGate", "Transform", "RecommenderBuilder", "Pusher.recommender"} <= tasks


def test_example_gen_has_the_outputs_examples_and_quarantine(spec):
    outputs = spec.components["MovieLensExampleGen"].output_definitions.artifacts
    assert set(outputs) == {"examples", "quarantine"}


def test_the_compiled_pipeline_keeps_the_dependencies(spec):
    gate = spec.root.dag.tasks["DataGate"]
    assert {"StatisticsGen", "ImportSchemaGen", "ExampleValidator", "DistributionValidator"} <= set(
        gate.dependent_tasks
    )
    for name in ("Transform", "Trainer.dcn", "Evaluator.dcn"):
        assert "DataGate" in spec.root.dag.tasks[name].dependent_tasks
        assert "ImportSchemaGen" not in spec.root.dag.tasks[name].dependent_tasks
    recommender = spec.root.dag.tasks["RecommenderBuilder"]
    assert {"Evaluator.retrieval", "Evaluator.ranking", "Transform"} <= set(recommender.dependent_tasks)


def test_a_window_of_spans_is_refused(tmp_path):
    command = [sys.executable, str(COMPILER), "--image", "image:tag", "--data", "d", "--root", "r", "--serving", "s"]
    output = tmp_path / "movielens.json"
    options = ["--set", "data.spans=2", "--output", str(output)]
    done = subprocess.run([*command, *options], capture_output=True, text=True, check=False, cwd=COMPILER.parents[1])
    assert done.returncode == 2
    assert "Error: ml1m: data.spans should be null for Kubeflow Pipelines; received 2." in done.stderr
    assert "Traceback" not in done.stderr
    assert not output.exists()


def test_a_warm_start_is_refused(tmp_path):
    compile_pipeline = runpy.run_path(str(COMPILER))["compile_pipeline"]
    settings = ["models.joint.warm_start=true"]
    with pytest.raises(ConfigError, match=r"models\.joint\.warm_start should be false .*; received true"):
        compile_pipeline("sample", settings, "image:tag", "d", "r", "s", tmp_path / "movielens.json")


def test_every_container_runs_the_given_image(spec):
    from google.protobuf import json_format

    executors = json_format.MessageToDict(spec.deployment_spec)["executors"].values()
    images = [executor["container"]["image"] for executor in executors if "container" in executor]
    assert images
    assert set(images) == {"image:tag"}
