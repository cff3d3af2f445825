"""A model that starts from the one before, in a pipeline of the data stage and the DCN: on new data, and run again."""

import logging

import pytest
from tfx import v1 as tfx
from tfx.dsl.input_resolution.strategies.latest_blessed_model_strategy import LatestBlessedModelStrategy

from components.data.sample import generate_sample
from components.evaluation.latest_blessed_model import LatestOtherBlessedModelStrategy
from pipeline.config import load_config
from pipeline.graph import create_pipeline, data_stage
from pipeline.local.runner import run_pipeline
from pipeline.model_stage import model_stage

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1200)]

SETTINGS = ["models.dcn.warm_start=true", "models.dcn.epochs=6", "models.dcn.batch_size=128"]
# Which of the models is the better is not at stake here.
SETTINGS += ["evaluation.mse_tolerance=100"]


class Unseen:
    def started(self, node_id):
        pass

    def finished(self, node):
        pass


@pytest.fixture
def run(tmp_path, caplog):
    """Runs it on data of a seed; returns the nodes' states and what the Trainer said of its start."""
    config = load_config("sample", SETTINGS)
    store = tfx.orchestration.metadata.sqlite_metadata_connection_config(str(tmp_path / "metadata.sqlite"))
    root, serving = str(tmp_path / "pipeline"), str(tmp_path / "serving")

    def of_seed(seed):
        folder = tmp_path / "data"
        generate_sample(folder, users=200, movies=100, ratings=8000, seed=seed, force=True)
        data = data_stage(config, str(folder))
        strategy = LatestOtherBlessedModelStrategy
        stage = model_stage("dcn", config, data.examples, data.gate, data.transform, root, serving, strategy)
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
        states = {node.id: node.state for node in run_pipeline(pipeline, "local", Unseen())}
        starts = [record.getMessage() for record in caplog.records if "start" in record.getMessage()]
        return states, [line for line in starts if line.startswith("dcn: ")]

    return of_seed


def test_new_data_start_from_the_blessed_model_and_the_same_data_from_the_cache(run):
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


def test_only_models_that_are_to_start_warm_have_a_node_for_it(tmp_path):
    pipeline = create_pipeline(
        config=load_config("sample", ["models.joint.warm_start=true"]),
        data_dir=str(tmp_path),
        pipeline_root=str(tmp_path),
        serving_dir=str(tmp_path),
        resolver_strategy=LatestBlessedModelStrategy,
    )
    assert [node.id for node in pipeline.components if node.id.endswith("_base")] == ["Resolver.joint_base"]
