"""Removes the half-written outputs of a run that was killed or failed, so that nothing ever uses or serves them."""

import logging

import ml_metadata as mlmd
from ml_metadata.proto import metadata_store_pb2

from components.pushing.versions import VERSION_FILE, take_out
from components.storage.paths import below, remove_folder
from pipeline.local.output import OutputFolder

_logger = logging.getLogger(__name__)

_UNFINISHED = (metadata_store_pb2.Execution.NEW, metadata_store_pb2.Execution.RUNNING)
_FAILED = metadata_store_pb2.Execution.FAILED

# Where TFX's launcher gives each execution of a node a folder for records of its own.
_RECORDS = (".system", "executor_execution")


def recover(output: OutputFolder, node: tuple[str, str] | None = None) -> int:
    """Removes the files of executions that failed or did not finish, and marks the unfinished ones as failed.

    Only the process that has locked the folder may call this, and only while no pipeline is running; or, for a node,
    the one that has locked the folder for this node, before it runs it. Files are removed first: on a full disk, the
    metadata store may need the space to record the failures.

    Args:
      output: the folder.
      node: the pipeline and the id of the only node to look at; None for all nodes of all pipelines.

    Returns:
      The number of executions that had not finished.
    """
    if not output.store.exists:
        return 0
    store = output.store.open()
    executions = store.get_executions() if node is None else _executions_of(store, *node)
    unfinished = [execution for execution in executions if execution.last_known_state in _UNFINISHED]
    failed_ids = {execution.id for execution in executions if execution.last_known_state == _FAILED}
    failed_ids.update(execution.id for execution in unfinished)
    if failed_ids:
        _remove_outputs(output, {str(number) for number in failed_ids}, "*" if node is None else node[1])
    # What a component keeps there is for its own tries only.
    for folder in below(output.artifacts, "*" if node is None else node[1], ".system", "stateful_working_dir", "*"):
        remove_folder(folder, ignore_errors=True)
    for execution in unfinished:
        execution.last_known_state = _FAILED
    if unfinished:
        store.put_executions(unfinished)
        _logger.warning("Executions left open by an earlier run: %s.", [execution.id for execution in unfinished])
    return len(unfinished)


def _executions_of(store: mlmd.MetadataStore, pipeline: str, node: str) -> list[metadata_store_pb2.Execution]:
    context = store.get_context_by_type_and_name("node", f"{pipeline}.{node}")
    return list(store.get_executions_by_context(context.id)) if context else []


def _remove_outputs(output: OutputFolder, executions: set[str], node: str) -> None:
    """Removes what executions have written, of a component or of all ("*"), in part or to the end.

    These are the folders COMPONENT/OUTPUT/EXECUTION, the version in the serving folder, and the folder of records,
    COMPONENT/.system/executor_execution/EXECUTION. A Pusher has written down there which version it adds, so another
    one with the same number, which somebody puts there later, is not touched. Therefore records go last.
    """
    records = [folder for folder in below(output.artifacts, node, *_RECORDS, "*") if folder.name in executions]
    for record in records:
        if (record / VERSION_FILE).exists():
            version = output.serving / (record / VERSION_FILE).read_text(encoding="utf-8")
            _logger.warning("Removing %s, whose push did not come to its end.", version)
            take_out(version)
    artifacts = [folder for folder in below(output.artifacts, node, "*", "*") if folder.name in executions]
    for folder in (*artifacts, *records):
        _logger.info("Removing %s, left by an execution that did not finish.", folder)
        remove_folder(folder, ignore_errors=True)
