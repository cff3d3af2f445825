"""Single nodes of a compiled pipeline, launched as a runner on another machine would do it."""

from pathlib import Path

import pytest

from tests import warm_processes
from tests.pipeline.command_line import run_code

pytestmark = pytest.mark.component

IDS = ["Source", "Worker", "FeatureImportance", "Latest", "Pusher.recommender"]

# A process that has nothing but the compiled pipeline.
LAUNCH = """
import sys
from pathlib import Path
from tfx.proto.orchestration import pipeline_pb2
from pipeline.launcher import launch_node
ir = pipeline_pb2.Pipeline.FromString(Path(sys.argv[1]).read_bytes())
for node_id in sys.argv[3:]:
    launched = launch_node(ir, node_id, sys.argv[2])
    print("LAUNCHED", node_id, launched.state, " ".join(launched.problem.split()))
"""


@pytest.fixture
def ir(tmp_path):
    """The stand-in pipeline, compiled."""
    from pipeline.config import load_config
    from pipeline.launcher import compile_pipeline
    from pipeline.local.store import metadata_config
    from tests.pipeline.local.standin import create_pipeline

    return compile_pipeline(
        create_pipeline(
            config=load_config("sample", ["models.ranking.epochs=3"]),
            data_dir=str(tmp_path),
            pipeline_root=str(tmp_path / "pipeline"),
            serving_dir=str(tmp_path / "serving"),
            metadata_connection_config=metadata_config(tmp_path / "metadata.sqlite"),
            enable_cache=True,
        )
    )


def launch(ir, folder: Path, run_id: str, *node_ids: str, run=warm_processes.run) -> list[str]:
    """Launches nodes in a process of their own, which `run` starts; gives each one's id and state."""
    path = folder / "pipeline.pb"
    path.write_bytes(ir.SerializeToString(deterministic=True))
    done = run(LAUNCH, str(path), run_id, *node_ids)
    assert done.returncode == 0, done.stderr[-3000:]
    return [line.removeprefix("LAUNCHED ").strip() for line in done.stdout.splitlines() if line.startswith("LAUNCHED")]


def test_nodes_come_in_an_order_in_which_they_can_run(ir):
    from pipeline.launcher import node_ids

    assert node_ids(ir) == IDS


def test_nodes_of_one_run_find_each_other_across_processes_and_a_second_run_takes_the_cache(ir, tmp_path):
    # In new interpreters, so that nothing is loaded but what launching a node loads.
    first = [state for nodes in (IDS[:2], IDS[2:]) for state in launch(ir, tmp_path, "run-1", *nodes, run=run_code)]
    assert first == [
        "Source complete",
        "Worker complete",
        "FeatureImportance complete",
        "Latest resolved",
        "Pusher.recommender complete",
    ]
    (pushed,) = (tmp_path / "serving" / "recommender").glob("*/saved_model.pb")
    assert pushed.read_text() == "ababab"
    assert launch(ir, tmp_path, "run-2", "Source", "Worker") == ["Source cached", "Worker cached"]


def test_inputs_that_this_run_has_not_made_are_a_failure_with_a_reason(ir, tmp_path):
    (worker,) = launch(ir, tmp_path, "run-1", "Worker")
    assert worker.startswith("Worker failed Traceback")
    assert "InsufficientInputError" in worker


def test_an_unknown_node_is_an_error_that_names_those_there_are(ir):
    from pipeline.launcher import launch_node

    before = ir.SerializeToString(deterministic=True)
    with pytest.raises(
        KeyError, match=r"Trainer\.dcn should be one of the pipeline's nodes: Source, Worker, FeatureImportance"
    ):
        launch_node(ir, "Trainer.dcn", "run-1")
    assert ir.SerializeToString(deterministic=True) == before
