"""TFX's BeamDagRunner, with nodes that this project launches itself, and without a download.

BeamDagRunner makes each node a step of a Beam pipeline. Two things about it are adapted, both here:

* The class of the steps is an attribute of BeamDagRunner that sub-classes may replace; ours launches the node through
  a function of the caller, who thus sees every node start and end.
* BeamDagRunner takes no options for its Beam pipeline, so that Beam would use its default runner. Since Beam 2.68 that
  one first tries to download and start Prism, a server in Go. `_in_process_beam` therefore sets Beam's default runner
  for the time of the run. It is the only patch of a library in this project: neither TFX nor Beam has a setting for it.
"""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

from apache_beam.options.pipeline_options import StandardOptions
from tfx import v1 as tfx
from tfx.orchestration.beam import beam_dag_runner
from tfx.proto.orchestration import pipeline_pb2

LaunchNode = Callable[[pipeline_pb2.Pipeline, str], None]

# Beam copies its steps by pickling them, which a function with an observer behind it would not survive. The steps run
# in this process, so they find the function here.
_launch_node: LaunchNode | None = None


def run(pipeline: tfx.dsl.Pipeline, launch: LaunchNode) -> None:
    """Runs a pipeline; one at a time in a process.

    Args:
      pipeline: what to run.
      launch: launches a node, given the compiled pipeline, which names the run, and the id of the node.

    Raises:
      Exception: whatever `launch` raises, as Beam passes it on.
    """
    global _launch_node
    _launch_node = launch
    try:
        with _in_process_beam():
            _Runner().run(pipeline)
    finally:
        _launch_node = None


class _NodeStep(beam_dag_runner.PipelineNodeAsDoFn):
    """A step of the Beam pipeline: one node. When to run it is the base class's business."""

    def __init__(self, pipeline: pipeline_pb2.Pipeline, pipeline_node: pipeline_pb2.PipelineNode, **arguments: Any):
        super().__init__(pipeline=pipeline, pipeline_node=pipeline_node, **arguments)
        self._ir, self._id = pipeline, pipeline_node.node_info.id

    def _run_node(self) -> None:
        assert _launch_node is not None, "Nodes run within `run` only."
        _launch_node(self._ir, self._id)


class _Runner(beam_dag_runner.BeamDagRunner):
    _PIPELINE_NODE_DO_FN_CLS = _NodeStep


@contextlib.contextmanager
def _in_process_beam() -> Iterator[None]:
    default = StandardOptions.DEFAULT_RUNNER
    StandardOptions.DEFAULT_RUNNER = "FnApiRunner"
    try:
        yield
    finally:
        StandardOptions.DEFAULT_RUNNER = default
