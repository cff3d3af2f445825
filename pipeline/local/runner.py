"""Runs a TFX pipeline on this machine, with Local- or BeamDagRunner, and tells an observer about every node."""

import contextlib
import json
import time
import types
from collections.abc import Iterator
from typing import Any, Literal

import apache_beam as beam
from absl import logging as absl_logging
from ml_metadata.proto import metadata_store_pb2
from tfx import v1 as tfx
from tfx.orchestration.beam import beam_dag_runner
from tfx.orchestration.portable import launcher
from tfx.utils import dependency_utils

from pipeline.local.errors import NodeFailed, node_failure
from pipeline.local.nodes import NodeRun, Observer, State

RunnerName = Literal["local", "beam"]

# DirectRunner, even told to run in memory, first tries to download and start Beam's Prism.
_ORCHESTRATOR_BEAM_ARGS = ["--runner=FnApiRunner", "--direct_running_mode=in_memory", "--direct_num_workers=1"]
_RESOLVER = "tfx.dsl.components.common.resolver.Resolver"
_IMPORTER = "tfx.dsl.components.common.importer.Importer"


def run_pipeline(pipeline: tfx.dsl.Pipeline, runner: RunnerName, observer: Observer) -> list[NodeRun]:
    """Runs the pipeline to its end, or to its first failure.

    Returns:
      What became of the nodes, in the order in which they ran.

    Raises:
      NodeFailed: a node failed; nodes after it did not run.
    """
    absl_logging.set_verbosity(absl_logging.INFO)
    with _suited_to_one_machine(), _watched(observer) as watch:
        try:
            if runner == "local":
                tfx.orchestration.LocalDagRunner().run(pipeline)
            else:
                beam_dag_runner.BeamDagRunner().run(pipeline)
        except Exception as error:
            # Beam hands on errors as text; the one met at the node itself says more.
            if watch.failure is None or watch.failure is error:
                raise
            raise watch.failure from error
        return watch.nodes


class _Watch:
    """Stands between the runner and TFX's launcher."""

    def __init__(self, observer: Observer):
        self.nodes: list[NodeRun] = []
        self.failure: NodeFailed | None = None
        self._observer = observer

    def launch(self, node_launcher: Any, launch: Any) -> Any:
        node = node_launcher._pipeline_node.node_info
        self._observer.started(node.id)
        start = time.monotonic()
        try:
            info = launch(node_launcher)
            state, execution_id, problem = self._outcome(node_launcher, info, node.type.name)
        except BaseException as error:
            self._finish(NodeRun(node.id, "failed", time.monotonic() - start))
            if not isinstance(error, Exception):
                raise
            self.failure = node_failure(node.id, error)
            raise self.failure from error
        self._finish(NodeRun(node.id, state, time.monotonic() - start, execution_id))
        if state == "failed":
            # TFX writes a failed input resolution down and goes on; what follows would run without its inputs.
            self.failure = node_failure(node.id, RuntimeError(problem))
            raise self.failure
        return info

    def _finish(self, node: NodeRun) -> None:
        self.nodes.append(node)
        self._observer.finished(node)

    @staticmethod
    def _outcome(node_launcher: Any, info: Any, node_type: str) -> tuple[State, int | None, str]:
        if info is None or not info.execution_id:
            return "skipped", None, ""
        with node_launcher._mlmd_connection as store:
            (execution,) = store.store.get_executions_by_id([info.execution_id])
        if execution.last_known_state == metadata_store_pb2.Execution.FAILED:
            result = json.loads(execution.custom_properties["__execution_result__"].string_value or "{}")
            return "failed", info.execution_id, result.get("resultMessage", "its inputs could not be resolved")
        if node_type in (_RESOLVER, _IMPORTER):
            return "resolved", info.execution_id, ""
        cached = execution.last_known_state == metadata_store_pb2.Execution.CACHED
        return ("cached" if cached else "complete"), info.execution_id, ""


@contextlib.contextmanager
def _watched(observer: Observer) -> Iterator[_Watch]:
    watch = _Watch(observer)
    original = launcher.Launcher.launch

    def launch(self: launcher.Launcher) -> Any:
        return watch.launch(self, original)

    with _replaced(launcher.Launcher, "launch", launch):
        yield watch


@contextlib.contextmanager
def _suited_to_one_machine() -> Iterator[None]:
    """Spares a run on one machine what TFX does for workers elsewhere, and gives BeamDagRunner its Beam options.

    TFX packs itself into an archive for every Beam component, some seconds each; BeamDagRunner takes no options.
    """

    def orchestrator() -> beam.Pipeline:
        return beam.Pipeline(argv=_ORCHESTRATOR_BEAM_ARGS)

    known = types.SimpleNamespace(
        Pipeline=orchestrator, Create=beam.Create, ParDo=beam.ParDo, pvalue=beam.pvalue, DoFn=beam.DoFn
    )
    with (
        _replaced(dependency_utils, "make_beam_dependency_flags", lambda flags: flags),
        _replaced(beam_dag_runner, "beam", known),
    ):
        yield


@contextlib.contextmanager
def _replaced(owner: Any, name: str, value: Any) -> Iterator[None]:
    original = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, original)
