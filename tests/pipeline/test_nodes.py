"""The list of nodes that only report is true of the graph."""

import pytest

from pipeline.config import load_config
from pipeline.nodes import ONLY_REPORT


@pytest.mark.component
def test_no_other_node_needs_one_that_only_reports():
    from pipeline.graph import create_pipeline

    for overrides in ([], ["data.spans=2", "models.joint.warm_start=true", "tuning.models=[dcn]"]):
        config = load_config("sample", overrides)
        pipeline = create_pipeline(config=config, data_dir="/data", pipeline_root="/root", serving_dir="/serving")
        nodes = {node.id: node for node in pipeline.components}
        assert set(nodes) >= ONLY_REPORT
        # Whatever nothing depends on either reports or pushes.
        leaves = {name for name, node in nodes.items() if not node.downstream_nodes}
        assert leaves == ONLY_REPORT | {name for name in nodes if name.startswith("Pusher.")}
