"""Launches one node of a compiled pipeline in this process, for orchestrators that give each node its own process.

It is the same `launch_node` as in a run of all nodes, so resolvers, cache and conditions mean the same. What differs is
that other nodes may run at the same time, and that no process knows the whole run: what became of the other nodes is
read from the metadata. So a node that had nothing to do is recorded, too, which TFX itself does not do.
"""

import logging
import time

import ml_metadata as mlmd
from ml_metadata.proto import metadata_store_pb2
from tfx.dsl.compiler import constants
from tfx.proto.orchestration import pipeline_pb2

from components.pushing.pushed_models import REFUSED
from pipeline.launcher import bound_to_run, find_node, launch_node, outcome, record_skip, set_problem
from pipeline.local.choices import read_made_of, read_outputs
from pipeline.local.compiled import Compiled
from pipeline.local.errors import RunError, node_failure
from pipeline.local.recovery import recover
from pipeline.local.report import read_refusals
from pipeline.nodes import NodeRun

_logger = logging.getLogger(__name__)

_PUSHED = "pushed"  # TFX's custom property of what a Pusher makes: 1, or 0 if it had nothing to push.
_OPEN = (metadata_store_pb2.Execution.NEW, metadata_store_pb2.Execution.RUNNING)


def run_node(compiled: Compiled, node_id: str, run_id: str) -> NodeRun:
    """Runs a node to its end, after whatever an earlier attempt has left of it was removed.

    A node that came to its end in this run is not run again. A pipeline that was compiled anew, and differs, makes
    another run of it, even under the same name.

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
    ir = bound_to_run(compiled.ir, compiled.name_of_run(run_id))
    with compiled.output.locked_for_node(node_id):
        compiled.output.check_metadata(alone=False)
        compiled.output.store.begin()
        recover(compiled.output, (ir.pipeline_info.id, node_id))
        before = read_run(compiled, run_id)
        if node_id in before and before[node_id].state != "failed":
            return before[node_id]
        undone = [each for each in compiled.nodes[node_id] if each not in before or before[each].state == "failed"]
        if undone:
            raise RunError(f"{node_id} waits for {', '.join(undone)}, which should be done in {run_id!r} first.")
        return _launch(compiled, ir, node_id)


def _launch(compiled: Compiled, ir: pipeline_pb2.Pipeline, node_id: str) -> NodeRun:
    start = time.monotonic()
    try:
        launched = launch_node(ir, node_id, None)
        if launched.state == "failed":
            # TFX records inputs that cannot be resolved, and goes on.
            raise RuntimeError(launched.problem)
        execution_id = launched.execution_id
        if launched.state == "skipped":
            execution_id = record_skip(ir, node_id)
    except Exception as error:
        failure = node_failure(node_id, error)
        try:
            recover(compiled.output, (ir.pipeline_info.id, node_id))
            _note_down(compiled, ir, node_id, failure.reason)
        except Exception:
            # Such as a full disk, of which the failure itself tells; the next try cleans up.
            _logger.exception("Cleaning up failed.")
        raise failure from error
    return NodeRun(node_id, launched.state, time.monotonic() - start, execution_id)


def read_run(compiled: Compiled, run_id: str) -> dict[str, NodeRun]:
    """What became of the nodes of a run that were run, by node, in the pipeline's order.

    Args:
      compiled: the pipeline.
      run_id: the name of the run.
    """
    if not compiled.output.store.exists:
        return {}
    store = compiled.output.store.open()
    ir = bound_to_run(compiled.ir, compiled.name_of_run(run_id))
    nodes = {node_id: _read_node(store, find_node(ir, node_id)) for node_id in compiled.nodes}
    return {node_id: node for node_id, node in nodes.items() if node is not None}


def why_nothing_came_of_it(compiled: Compiled, node: NodeRun, run_id: str) -> str:
    """Why a node of a run that did not fail has made nothing to go on with; "" if it has.

    Args:
      compiled: the pipeline.
      node: what became of the node.
      run_id: the name of the run.
    """
    store = compiled.output.store.open()
    properties = [each.properties for each in read_outputs(store, [node]).get(node.id, {}).values()]
    refused = [str(each[REFUSED]) for each in properties if REFUSED in each]
    if refused:
        return refused[0]
    if node.state != "skipped" and not any(each.get(_PUSHED) == 0 for each in properties):
        return ""
    nodes = read_run(compiled, run_id)
    upstream = [nodes[each] for each in compiled.nodes[node.id]]
    skipped = [each.id for each in upstream if each.state == "skipped"]
    if skipped:
        return f"{', '.join(skipped)} had nothing to do"
    outputs = read_outputs(store, nodes.values())
    evaluations = [outputs.get(each.id, {}).get("evaluation") for each in upstream]
    reasons = [reason for each in evaluations if each for reason in read_refusals(each.uri)]
    if reasons:
        return "; ".join(["the model was not blessed", *reasons])
    made_of = read_made_of(store, outputs, compiled.config.recommender.part_names)
    return made_of.why if made_of else "its condition does not hold"


def _note_down(compiled: Compiled, ir: pipeline_pb2.Pipeline, node_id: str, reason: str) -> None:
    """Records why a node failed, for those who look at the run later."""
    store = compiled.output.store.open()
    execution = _execution(store, find_node(ir, node_id))
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


def _read_node(store: mlmd.MetadataStore, node: pipeline_pb2.PipelineNode) -> NodeRun | None:
    execution = _execution(store, node)
    if execution is None:
        return None
    seconds = (execution.last_update_time_since_epoch - execution.create_time_since_epoch) / 1000
    if execution.last_known_state in _OPEN:
        return NodeRun(node.node_info.id, "failed", seconds, execution.id, "it has not come to its end")
    launched = outcome(execution, node.node_info.type.name)
    problem = launched.problem or ("its log says why" if launched.state == "failed" else "")
    return NodeRun(node.node_info.id, launched.state, seconds, execution.id, problem)
