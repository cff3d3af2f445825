"""Runs a pipeline on this machine, node by node or with TFX's BeamDagRunner, and reports every node to an observer."""

import logging
import time
from typing import Literal

from absl import logging as absl_logging
from tfx import v1 as tfx
from tfx.proto.orchestration import pipeline_pb2

from pipeline.launcher import compile_pipeline, launch_node, new_run_id, node_ids
from pipeline.local import beam_runner
from pipeline.local.errors import NodeFailed, node_failure
from pipeline.nodes import ONLY_REPORT, NodeRun, Observer, State

_logger = logging.getLogger(__name__)

RunnerName = Literal["local", "beam"]


def run_pipeline(pipeline: tfx.dsl.Pipeline, runner: RunnerName, observer: Observer) -> list[NodeRun]:
    """Runs the pipeline to its end, or to the first failure of a node on which others depend.

    A node that only reports (`pipeline.nodes.ONLY_REPORT`) may fail; the others run all the same.

    Args:
      pipeline: what to run.
      runner: `local` launches one node after the other in this process; `beam` lets TFX's BeamDagRunner do so.
      observer: hears of every node that starts and ends.

    Returns:
      What became of the nodes, in the order in which they ran.

    Raises:
      NodeFailed: a node failed that does more than report; nodes after it did not run.
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
      failure: of the node that ended the run, if one did.
    """

    def __init__(self, observer: Observer):
        self.finished: list[NodeRun] = []
        self.failure: NodeFailed | None = None
        self._observer = observer

    def run(self, ir: pipeline_pb2.Pipeline, node_id: str, run_id: str | None = None) -> None:
        """Launches a node; the arguments are `launch_node`'s.

        Raises:
          NodeFailed: the node failed, and does more than report.
        """
        self._observer.started(node_id)
        start = time.monotonic()
        state: State = "failed"
        execution_id, problem = None, ""
        try:
            launched = launch_node(ir, node_id, run_id)
            state, execution_id = launched.state, launched.execution_id
            if state == "failed":
                # TFX records inputs that cannot be resolved and goes on; the nodes that follow would lack their inputs.
                raise RuntimeError(launched.problem)
        except Exception as error:
            failure = node_failure(node_id, error)
            problem = failure.reason
            if node_id not in ONLY_REPORT:
                self.failure = failure
                raise failure from error
            _logger.exception("%s failed; as it only reports, the run goes on.", node_id)
        finally:
            self._finish(NodeRun(node_id, state, time.monotonic() - start, execution_id, problem))

    def _finish(self, node: NodeRun) -> None:
        self.finished.append(node)
        self._observer.finished(node)
