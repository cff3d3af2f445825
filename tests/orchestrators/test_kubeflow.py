"""The pipeline compiles for Kubeflow Pipelines, from the definition that local runs use too."""

import json
import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.config import ConfigError

COMPILER = Path(__file__).parents[2] / "kubeflow" / "compile.py"

RECOMMENDER = {"RecommenderBuilder", "Evaluator.recommender", "Pusher.recommender"}

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
    assert {"MovieLensExampleGen", "DataGate", "Transform"} | RECOMMENDER <= tasks


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


def test_the_recommender_is_built_measured_and_pushed_if_its_parts_are_blessed(spec):
    tasks = spec.root.dag.tasks
    builder = tasks["RecommenderBuilder"]
    inputs = {"examples", "transform_graph", "retrieval_model", "ranking_model"}
    assert inputs <= set(builder.inputs.artifacts)
    sources = {name: builder.inputs.artifacts[name].task_output_artifact.producer_task for name in inputs}
    assert (sources["retrieval_model"], sources["ranking_model"]) == ("Trainer.retrieval", "Trainer.ranking")
    for name in RECOMMENDER:
        assert {"Evaluator.retrieval", "Evaluator.ranking"} <= set(tasks[name].dependent_tasks)
        for part in ("retrieval", "ranking"):
            blessed = f"inputs.artifacts['_Evaluator.{part}.blessing'].artifacts[0].metadata['blessed'] == 1.0"
            assert blessed in tasks[name].trigger_policy.condition
    assert "RecommenderBuilder" in tasks["Evaluator.recommender"].dependent_tasks
    assert "Evaluator.recommender" in tasks["Pusher.recommender"].dependent_tasks
    assert not tasks["Pusher.joint"].trigger_policy.condition


def test_a_window_of_spans_is_refused(tmp_path):
    command = [sys.executable, str(COMPILER), "--image", "image:tag", "--data", "d", "--root", "r", "--serving", "s"]
    output = tmp_path / "movielens.json"
    options = ["--set", "data.spans=2", "--output", str(output)]
    done = subprocess.run([*command, *options], capture_output=True, text=True, check=False, cwd=COMPILER.parents[1])
    assert done.returncode == 2
    assert "Error: ml1m: data.spans should be null for Kubeflow Pipelines; received 2." in done.stderr
    assert "Traceback" not in done.stderr
    assert not output.exists()


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--set", "name=my_movies"], "ml1m: name: String should match pattern"),
        (["--set", f"name={'a' * 64}"], "ml1m: name: String should match pattern"),
        (["--output", "a" * 300], "File name too long"),
        (["--config", "a" * 300], "File name too long"),
        (["--image", " "], "--image: should be the name of a container image; received ' '."),
        (["--data", ""], "--data: should be the path or the URI of a folder; received ''."),
        (["--data", "gs://b/d[1]"], "--data: should have none of the characters"),
        (["--root", "gs://b/r?"], "--root: should have none of the characters"),
        (["--serving", "gs://b/s*"], "--serving: should have none of the characters"),
        (["--output", "{folder}"], "--output: should be a file in a folder"),
        (["--output", "{folder}/file/movielens.json"], "--output: should be a file in a folder"),
        (["--output", "gs://b/movielens.json"], "should be a path on this machine"),
        (["--config", "gs://b/config.yaml"], "--config: should be a path on this machine"),
    ],
)
def test_what_cannot_be_compiled_is_a_message_and_leaves_nothing(tmp_path, options, expected):
    (tmp_path / "file").write_text("")
    output = tmp_path / "new" / "movielens.json"
    given = {
        "--image": "i",
        "--data": "gs://b/d",
        "--root": "gs://b/r",
        "--serving": "gs://b/s",
        "--output": str(output),
    }
    given |= {options[0]: options[1].format(folder=tmp_path)}
    command = [sys.executable, str(COMPILER), *(word for option in given.items() for word in option)]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
        cwd=COMPILER.parents[1],
        env=os.environ | {"COLUMNS": "300", "TERM": "dumb"},
    )
    assert done.returncode == 2, done.stderr
    assert expected in done.stderr
    assert "Traceback" not in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_buckets_are_compiled(tmp_path):
    pytest.importorskip("kfp", reason="kfp is not installed; it comes with the extra 'kubeflow'")
    output = tmp_path / "new" / "movielens.json"
    compile_pipeline = runpy.run_path(str(COMPILER))["compile_pipeline"]
    compile_pipeline("sample", [], "image:tag", "gs://b/data", "gs://b/root", "gs://b/serving", output)
    text = output.read_text()
    assert all(f"gs://b/{name}" in text for name in ("data", "root", "serving"))


def test_a_file_that_cannot_be_written_is_named(tmp_path):
    pytest.importorskip("kfp", reason="kfp is not installed; it comes with the extra 'kubeflow'")
    compile_pipeline = runpy.run_path(str(COMPILER))["compile_pipeline"]
    with pytest.raises(ValueError, match=r"^--output: should be a file that can be written; .*/proc/none"):
        compile_pipeline("sample", [], "image:tag", "d", "r", "s", Path("/proc/none/movielens.json"))


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
