"""Runs a pipeline on this machine, node by node or with TFX's BeamDagRunner, and reports every node to an observer."""

import time
from typing import Literal

from absl import logging as absl_logging
from tfx import v1 as tfx
from tfx.proto.orchestration import pipeline_pb2

from pipeline.launcher import compile_pipeline, launch_node, new_run_id, node_ids
from pipeline.local import beam_runner
from pipeline.local.errors import NodeFailed, node_failure
from pipeline.nodes import NodeRun, Observer, State

RunnerName = Literal["local", "beam"]


def run_pipeline(pipeline: tfx.dsl.Pipeline, runner: RunnerName, observer: Observer) -> list[NodeRun]:
    """Runs the pipeline to its end, or to its first failure.

    Args:
      pipeline: what to run.
      runner: `local` launches one node after the other in this process; `beam` lets TFX's BeamDagRunner do so.
      observer: hears of every node that starts and ends.

    Returns:
      What became of the nodes, in the order in which they ran.

    Raises:
      NodeFailed: a node failed; nodes after it did not run.
    """
    absl_logging.set_verbosity(absl_logging.INFO)
    nodes = _ObservedNodes(observer)
    if runner == "local":
        ir, run_id = compile_pipeline(pipeline), new_run_id()
        for node_id in node_ids(ir):
            nodes.run(ir, node_id, run_id)
        return nodes.finished
    try:
        beam_runner.run(pipeline, nodes.run)
    except Exception as error:
        # Beam passes errors on as text; the one that the node itself raised says more.
        if nodes.failure is None or nodes.failure is error:
            raise
        raise nodes.failure from error
    return nodes.finished


class _ObservedNodes:
    """Launches nodes and keeps account of them.

    Attributes:
      finished: the nodes that have ended.
      failure: of the node that failed, if one did.
    """

    def __init__(self, observer: Observer):
        self.finished: list[NodeRun] = []
        self.failure: NodeFailed | None = None
        self._observer = observer

    def run(self, ir: pipeline_pb2.Pipeline, node_id: str, run_id: str | None = None) -> None:
        """Launches a node; the arguments are `launch_node`'s.

        Raises:
          NodeFailed: the node failed.
        """
        self._observer.started(node_id)
        start = time.monotonic()
        state: State = "failed"
        execution_id = None
        try:
            launched = launch_node(ir, node_id, run_id)
            state, execution_id = launched.state, launched.execution_id
            if state == "failed":
                # TFX records inputs that cannot be resolved and goes on; the nodes that follow would lack their inputs.
                self.failure = node_failure(node_id, RuntimeError(launched.problem))
                raise self.failure
        except Exception as error:
            self.failure = self.failure or node_failure(node_id, error)
            raise self.failure from (None if error is self.failure else error)
        finally:
            self._finish(NodeRun(node_id, state, time.monotonic() - start, execution_id))

    def _finish(self, node: NodeRun) -> None:
        self.finished.append(node)
        self._observer.finished(node)
