"""With a warm start, a pipeline of the data stage and the DCN trains on new data from the blessed model."""

import logging

import pytest
from tfx import v1 as tfx

from components.data.sample import generate_sample
from pipeline.config import load_config
from pipeline.graph import create_pipeline, data_stage
from pipeline.local.runner import run_pipeline
from pipeline.model_stage import model_stage
from tests.pipeline.silent import Silent

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1200)]

SETTINGS = ["models.dcn.warm_start=true", "models.dcn.epochs=6", "models.dcn.batch_size=128"]
# A large tolerance blesses every model, because these tests do not depend on which one is better.
SETTINGS += ["evaluation.mse_tolerance=100"]


@pytest.fixture
def run(tmp_path, caplog):
    """A function that runs the pipeline on a sample drawn with a seed.

    It returns the state of each node, and the Trainer's log lines about the model that it starts from.
    """
    config = load_config("sample", SETTINGS)
    store = tfx.orchestration.metadata.sqlite_metadata_connection_config(str(tmp_path / "metadata.sqlite"))
    root, serving = str(tmp_path / "pipeline"), str(tmp_path / "serving")

    def run_on_sample(seed):
        folder = tmp_path / "data"
        generate_sample(folder, users=200, movies=150, ratings=16_000, seed=seed, force=True)
        data = data_stage(config, str(folder))
        stage = model_stage("dcn", config, data.examples, data.gate, data.transform, root, serving)
        nodes = [*data.nodes, *stage.nodes]
        pipeline = tfx.dsl.Pipeline(
            pipeline_name="warm",
            pipeline_root=root,
            components=nodes,
            enable_cache=True,
            metadata_connection_config=store,
            beam_pipeline_args=config.beam.args(),
        )
        caplog.clear()
        caplog.set_level(logging.INFO, logger="trainers")
        states = {node.id: node.state for node in run_pipeline(pipeline, "local", Silent())}
        starts = [record.getMessage() for record in caplog.records if "start" in record.getMessage()]
        return states, [line for line in starts if line.startswith("dcn: ")]

    return run_on_sample


def test_new_data_start_from_the_blessed_model_and_the_same_data_use_the_cache(run):
    states, starts = run(seed=0)
    assert states["Resolver.dcn_base"] == "resolved"
    assert starts == ["dcn: there is no model to start from; it starts from scratch."]

    states, starts = run(seed=1)
    assert states["Trainer.dcn"] == "complete"
    (line,) = starts
    assert "Trainer.dcn/model/" in line
    assert "0 weights taken" not in line

    states, starts = run(seed=1)
    assert states["Trainer.dcn"] == states["Evaluator.dcn"] == states["Pusher.dcn"] == "cached"
    assert not starts


def test_only_models_with_a_warm_start_have_a_resolver_of_the_base_model(tmp_path):
    pipeline = create_pipeline(
        config=load_config("sample", ["models.joint.warm_start=true"]),
        data_dir=str(tmp_path),
        pipeline_root=str(tmp_path),
        serving_dir=str(tmp_path),
    )
    assert [node.id for node in pipeline.components if node.id.endswith("_base")] == ["Resolver.joint_base"]
