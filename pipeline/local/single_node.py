"""Launches one node of a compiled pipeline in this process, for orchestrators that give each node its own process.

It is the same `launch_node` as in a run of all nodes, so resolvers, cache and conditions mean the same. What differs is
that other nodes may run at the same time, and that no process knows the whole run: what became of the other nodes is
read from the metadata.
"""

import time

import ml_metadata as mlmd
from ml_metadata.proto import metadata_store_pb2
from tfx.dsl.compiler import constants
from tfx.proto.orchestration import pipeline_pb2

from components.pushing.pushed_models import REFUSED
from pipeline.launcher import bound_to_run, find_node, launch_node, node_ids, outcome, set_problem
from pipeline.local.choices import read_outputs
from pipeline.local.compiled import Compiled
from pipeline.local.errors import RunError, node_failure
from pipeline.local.recovery import metadata_config, recover
from pipeline.local.report import read_refusals
from pipeline.nodes import NodeRun

_PUSHED = "pushed"  # TFX's custom property of what a Pusher makes: 1, or 0 if it had nothing to push.
_OPEN = (metadata_store_pb2.Execution.NEW, metadata_store_pb2.Execution.RUNNING)


def run_node(compiled: Compiled, node_id: str, run_id: str) -> NodeRun:
    """Runs a node to its end, after whatever an earlier attempt has left of it was removed.

    A node that came to its end in this run does nothing when it is run again.

    Args:
      compiled: the pipeline.
      node_id: one of its nodes.
      run_id: any name; the nodes of one run share it.

    Returns:
      What became of it.

    Raises:
      NodeFailed: it failed; nothing half-written is left.
      RunError: a whole run, or another process with this node, has locked the output folder; or a node that it waits
        for is not done.
    """
    node = compiled.ir.pipeline_info.id, node_id
    with compiled.output.locked_for_node(node_id):
        recover(compiled.output, node)
        _check_that_all_before_are_done(compiled, node_id, run_id)
        start = time.monotonic()
        try:
            launched = launch_node(compiled.ir, node_id, run_id)
            if launched.state == "failed":
                # TFX records inputs that cannot be resolved, and goes on.
                raise RuntimeError(launched.problem)
        except Exception as error:
            failure = node_failure(node_id, error)
            recover(compiled.output, node)
            _note_down(compiled, node_id, run_id, failure.reason)
            raise failure from error
    return NodeRun(node_id, launched.state, time.monotonic() - start, launched.execution_id)


def _check_that_all_before_are_done(compiled: Compiled, node_id: str, run_id: str) -> None:
    if not compiled.output.metadata.exists():
        nodes = [NodeRun(each, "skipped", 0.0) for each in node_ids(compiled.ir)]
    else:
        nodes = read_run(compiled, run_id)
    undone = {*not_run(compiled, nodes), *(node.id for node in nodes if node.state == "failed")}
    awaited = [each for each in find_node(compiled.ir, node_id).upstream_nodes if each in undone]
    if awaited:
        raise RunError(f"{node_id} waits for {', '.join(awaited)}, which should be done in {run_id!r} first.")


def read_run(compiled: Compiled, run_id: str) -> list[NodeRun]:
    """What became of the nodes of a run, in the pipeline's order; those that have no execution were skipped.

    Args:
      compiled: the pipeline.
      run_id: the name of the run.
    """
    store = _store(compiled)
    ir = bound_to_run(compiled.ir, run_id)
    return [_read_node(store, find_node(ir, node_id)) for node_id in node_ids(ir)]


def not_run(compiled: Compiled, nodes: list[NodeRun]) -> list[str]:
    """The nodes that did not run in a run though no condition kept them, or what they wait for, from it.

    Args:
      compiled: the pipeline.
      nodes: what became of all its nodes, in the pipeline's order.
    """
    missing: list[str] = []
    skipped = set[str]()
    for node in nodes:
        if node.state == "skipped":
            definition = find_node(compiled.ir, node.id)
            is_kept = definition.inputs.conditionals or skipped.intersection(definition.upstream_nodes)
            (skipped.add if is_kept else missing.append)(node.id)
    return missing


def why_nothing_came_of_it(compiled: Compiled, node: NodeRun, run_id: str) -> str:
    """Why a node of a run that did not fail has made nothing to go on with; "" if it has.

    Args:
      compiled: the pipeline.
      node: what became of the node.
      run_id: the name of the run.
    """
    store = _store(compiled)
    properties = [each.properties for each in read_outputs(store, [node]).get(node.id, {}).values()]
    refused = [str(each[REFUSED]) for each in properties if REFUSED in each]
    if refused:
        return refused[0]
    is_pushed = not any(each.get(_PUSHED) == 0 for each in properties)
    if node.state != "skipped" and is_pushed:
        return ""
    before = {each.id: each for each in read_run(compiled, run_id)}
    upstream = [before[each] for each in find_node(compiled.ir, node.id).upstream_nodes]
    lacking = [each.id for each in upstream if each.state in ("skipped", "failed")]
    if lacking:
        return f"{', '.join(lacking)} did not run in {run_id!r}, or made nothing"
    evaluated = read_outputs(store, upstream)
    reasons = [
        reason
        for each in evaluated.values()
        if "evaluation" in each
        for reason in read_refusals(each["evaluation"].uri)
    ]
    return "; ".join(["the model was not blessed", *reasons])


def _store(compiled: Compiled) -> mlmd.MetadataStore:
    return mlmd.MetadataStore(metadata_config(compiled.output.metadata))


def _note_down(compiled: Compiled, node_id: str, run_id: str, reason: str) -> None:
    """Records why a node failed, for those who look at the run later."""
    store = _store(compiled)
    execution = _execution(store, find_node(bound_to_run(compiled.ir, run_id), node_id))
    if execution is not None:
        set_problem(execution, reason)
        store.put_executions([execution])


def _execution(store: mlmd.MetadataStore, node: pipeline_pb2.PipelineNode) -> metadata_store_pb2.Execution | None:
    """The latest execution of a node in the run that it is bound to; None if there is none."""
    names = {spec.type.name: spec.name.field_value.string_value for spec in node.contexts.contexts}
    kinds = (constants.PIPELINE_RUN_CONTEXT_TYPE_NAME, constants.NODE_CONTEXT_TYPE_NAME)
    contexts = [store.get_context_by_type_and_name(kind, names[kind]) for kind in kinds]
    if None in contexts:
        return None
    of_run, of_node = (
        {execution.id: execution for execution in store.get_executions_by_context(context.id)} for context in contexts
    )
    common = of_run.keys() & of_node.keys()
    return of_run[max(common)] if common else None


def _read_node(store: mlmd.MetadataStore, node: pipeline_pb2.PipelineNode) -> NodeRun:
    execution = _execution(store, node)
    if execution is None:
        return NodeRun(node.node_info.id, "skipped", 0.0)
    seconds = (execution.last_update_time_since_epoch - execution.create_time_since_epoch) / 1000
    if execution.last_known_state in _OPEN:
        return NodeRun(node.node_info.id, "failed", seconds, execution.id, "it has not come to its end")
    launched = outcome(execution, node.node_info.type.name)
    problem = launched.problem or ("its log says why" if launched.state == "failed" else "")
    return NodeRun(node.node_info.id, launched.state, seconds, execution.id, problem)
