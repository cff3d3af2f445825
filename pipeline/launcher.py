"""Launches single nodes of a compiled pipeline, as TFX's LocalDagRunner does it in its own loop.

A pipeline is compiled once to TFX's intermediate representation (IR), a protocol buffer that holds everything a node
needs: its inputs, its executor, and the connection to the metadata store. Any process that has the IR can launch any
node of it.

A process that launches a single node should be quick to start, so nothing here imports `tfx.v1`, which takes seconds.
"""

import json
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from ml_metadata.proto import metadata_store_pb2
from tfx.dsl.compiler import compiler, constants
from tfx.orchestration import metadata
from tfx.orchestration import pipeline as tfx_pipeline
from tfx.orchestration.local import runner_utils
from tfx.orchestration.portable import execution_publish_utils, launcher, runtime_parameter_utils
from tfx.orchestration.portable.mlmd import context_lib
from tfx.proto.orchestration import pipeline_pb2

from pipeline.metadata_server import filled_in
from pipeline.nodes import State

_RESOLVER = "tfx.dsl.components.common.resolver.Resolver"
_IMPORTER = "tfx.dsl.components.common.importer.Importer"

# The custom property under which TFX's launcher keeps the error of an execution whose inputs could not be resolved.
_EXECUTION_RESULT = "__execution_result__"
_MESSAGE = "resultMessage"

_CANCELED = metadata_store_pb2.Execution.CANCELED


@dataclass(frozen=True)
class Launched:
    """What came of launching a node.

    Attributes:
      state: as in `pipeline.nodes.NodeRun`.
      execution_id: its execution in the metadata store; None where TFX has recorded none, as of a node that it skipped.
      problem: why it failed, as it is on record, which may be the text of a traceback; empty otherwise.
    """

    state: State
    execution_id: int | None = None
    problem: str = ""


class _Launcher(launcher.Launcher):
    """TFX's launcher, but each try of a node is an execution of its own.

    TFX would go on with the execution of a try that failed in the same run. That is known to the cache by the inputs
    and settings of the first try, so what a later try made of others would be taken for it.
    """

    def _register_or_reuse_execution(
        self,
        metadata_handle: metadata.Metadata,
        contexts: list[metadata_store_pb2.Context],
        input_artifacts: Any = None,
        exec_properties: Any = None,
    ) -> metadata_store_pb2.Execution:
        return execution_publish_utils.register_execution(
            metadata_handle=metadata_handle,
            execution_type=self._pipeline_node.node_info.type,
            contexts=contexts,
            input_artifacts=input_artifacts,
            exec_properties=exec_properties,
        )


def compile_pipeline(pipeline: tfx_pipeline.Pipeline) -> pipeline_pb2.Pipeline:
    """Compiles a pipeline to TFX's intermediate representation; the id of the run is left open.

    Components should name user functions by import path. TFX's own runners would package a `module_file` here.

    The same pipeline compiles to the same bytes. TFX packs what it says about executors in an order that differs from
    process to process, so it is packed once more.
    """
    ir = compiler.Compiler().compile(pipeline)
    deployment = pipeline_pb2.IntermediateDeploymentConfig()
    ir.deployment_config.Unpack(deployment)
    ir.deployment_config.Pack(deployment, deterministic=True)
    return ir


def node_ids(ir: pipeline_pb2.Pipeline) -> list[str]:
    """The ids of all nodes, each after those that it depends on."""
    return [node.pipeline_node.node_info.id for node in ir.nodes]


def upstream_of_nodes(ir: pipeline_pb2.Pipeline) -> dict[str, list[str]]:
    """The ids of the nodes, each with those that it waits for, in order."""
    nodes = [node.pipeline_node for node in ir.nodes]
    return {node.node_info.id: list(node.upstream_nodes) for node in nodes}


def new_run_id() -> str:
    """An id for a new run: the time, to the microsecond."""
    return datetime.now().isoformat()


def launch_node(ir: pipeline_pb2.Pipeline, node_id: str, run_id: str | None) -> Launched:
    """Runs a node to its end: resolves its inputs, looks into the cache, executes it and publishes its outputs.

    Args:
      ir: the compiled pipeline; it is not changed.
      node_id: one of `node_ids`.
      run_id: the run that the node belongs to; the nodes of one run share it. None if `ir` already names its run.

    Returns:
      The node's state. Inputs that cannot be resolved are a state, `failed`, since TFX records them and goes on.

    Raises:
      KeyError: the pipeline has no such node.
      Exception: whatever the node's driver or executor raises; the execution is recorded as failed.
    """
    bound = ir if run_id is None else bound_to_run(ir, run_id)
    node = find_node(bound, node_id)
    deployment = runner_utils.extract_local_deployment_config(bound)
    connection = metadata.Metadata(metadata_of(bound))
    info = _Launcher(
        pipeline_node=node,
        mlmd_connection=connection,
        pipeline_info=bound.pipeline_info,
        pipeline_runtime_spec=bound.runtime_spec,
        executor_spec=runner_utils.extract_executor_spec(deployment, node_id),
        custom_driver_spec=runner_utils.extract_custom_driver_spec(deployment, node_id),
    ).launch()
    if info is None or not info.execution_id:
        return Launched("skipped")
    with connection as handle:
        (execution,) = handle.store.get_executions_by_id([info.execution_id])
    launched = outcome(execution, node.node_info.type.name)
    if launched.state == "failed" and not launched.problem:
        return Launched("failed", execution.id, "its inputs could not be resolved")
    return launched


def bound_to_run(ir: pipeline_pb2.Pipeline, run_id: str) -> pipeline_pb2.Pipeline:
    """A copy of a compiled pipeline that names its run."""
    bound = pipeline_pb2.Pipeline()
    bound.CopyFrom(ir)
    runtime_parameter_utils.substitute_runtime_parameter(bound, {constants.PIPELINE_RUN_ID_PARAMETER_NAME: run_id})
    return bound


def metadata_of(ir: pipeline_pb2.Pipeline) -> metadata_store_pb2.ConnectionConfig:
    """The connection to the metadata store that a compiled pipeline names.

    Raises:
      ValueError: it names none, or leaves the server to an environment that names none.
    """
    config = runner_utils.extract_local_deployment_config(ir).metadata_connection_config
    kind = config.WhichOneof("connection_config")
    if kind is None:
        raise ValueError("a pipeline should name its metadata store")
    return filled_in(getattr(config, kind))


def find_node(ir: pipeline_pb2.Pipeline, node_id: str) -> pipeline_pb2.PipelineNode:
    """A node of a compiled pipeline.

    Raises:
      KeyError: the pipeline has no such node.
    """
    for node in ir.nodes:
        if node.pipeline_node.node_info.id == node_id:
            return node.pipeline_node
    raise KeyError(f"{node_id} should be one of the pipeline's nodes: {', '.join(node_ids(ir))}.")


def record_skip(ir: pipeline_pb2.Pipeline, node_id: str) -> int:
    """Records that a node had nothing to do, as an execution that was cancelled; returns its id.

    Args:
      ir: the compiled pipeline, which names its run.
      node_id: the node.
    """
    node = find_node(ir, node_id)
    with metadata.Metadata(metadata_of(ir)) as handle:
        execution = execution_publish_utils.register_execution(
            metadata_handle=handle,
            execution_type=node.node_info.type,
            contexts=context_lib.prepare_contexts(metadata_handle=handle, node_contexts=node.contexts),
            last_known_state=_CANCELED,
        )
    number: int = execution.id
    return number


def set_problem(execution: metadata_store_pb2.Execution, problem: str) -> None:
    """Notes down why an execution failed, as TFX does it for some failures, for `outcome` to find."""
    execution.custom_properties[_EXECUTION_RESULT].string_value = json.dumps({_MESSAGE: problem})


def outcome(execution: metadata_store_pb2.Execution, node_type: str) -> Launched:
    """What came of an execution that is over.

    Args:
      execution: as in the metadata store.
      node_type: the name of its type.
    """
    if execution.last_known_state == metadata_store_pb2.Execution.FAILED:
        result = json.loads(execution.custom_properties[_EXECUTION_RESULT].string_value or "{}")
        return Launched("failed", execution.id, result.get(_MESSAGE, ""))
    if execution.last_known_state == _CANCELED:
        return Launched("skipped", execution.id)
    if node_type in (_RESOLVER, _IMPORTER):
        return Launched("resolved", execution.id)
    cached = execution.last_known_state == metadata_store_pb2.Execution.CACHED
    return Launched("cached" if cached else "complete", execution.id)
