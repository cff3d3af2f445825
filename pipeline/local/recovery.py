"""Removes the half-written outputs of a run that was killed or failed, so that nothing ever uses or serves them."""

import logging
import shutil
from pathlib import Path

import ml_metadata as mlmd
from ml_metadata.proto import metadata_store_pb2

from components.pushing.versions import VERSION_FILE, take_out
from pipeline.local.output import OutputFolder

_logger = logging.getLogger(__name__)

_UNFINISHED = (metadata_store_pb2.Execution.NEW, metadata_store_pb2.Execution.RUNNING)
_FAILED = metadata_store_pb2.Execution.FAILED


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
    _remove_versions(output, failed_ids)
    _remove_artifacts(output.artifacts, failed_ids, "*" if node is None else node[1])
    for execution in unfinished:
        execution.last_known_state = _FAILED
    if unfinished:
        store.put_executions(unfinished)
        _logger.warning("Executions left open by an earlier run: %s.", [execution.id for execution in unfinished])
    return len(unfinished)


def _executions_of(store: mlmd.MetadataStore, pipeline: str, node: str) -> list[metadata_store_pb2.Execution]:
    context = store.get_context_by_type_and_name("node", f"{pipeline}.{node}")
    return list(store.get_executions_by_context(context.id)) if context else []


def _remove_versions(output: OutputFolder, execution_ids: set[int]) -> None:
    """Removes the versions that the given executions wrote to the serving folder, in part or to the end.

    Each wrote down which one this is, in a folder of its own, which is removed next. So another version with the same
    number, which somebody puts there later, is not touched.
    """
    for execution_id in execution_ids:
        for record in output.artifacts.glob(f"*/.system/executor_execution/{execution_id}/{VERSION_FILE}"):
            version = output.serving / record.read_text(encoding="utf-8")
            _logger.warning("Removing %s, whose push did not come to its end.", version)
            take_out(version)


def _remove_artifacts(root: Path, execution_ids: set[int], node: str) -> None:
    """Removes the folders of the given executions, and the stateful working folder of a component, or of all ("*").

    These are COMPONENT/OUTPUT/EXECUTION, COMPONENT/.system/executor_execution/EXECUTION and
    COMPONENT/.system/stateful_working_dir/*.
    """
    names = {str(execution_id) for execution_id in execution_ids}
    for folder in (*root.glob(f"{node}/*/*"), *root.glob(f"{node}/.system/executor_execution/*")):
        if folder.name in names:
            _logger.info("Removing %s, left by an execution that did not finish.", folder)
            shutil.rmtree(folder, ignore_errors=True)
    for folder in root.glob(f"{node}/.system/stateful_working_dir/*"):
        shutil.rmtree(folder, ignore_errors=True)
