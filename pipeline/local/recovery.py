"""Removes the half-written outputs of a run that was killed or failed, so that nothing ever uses or serves them."""

import logging
import shutil
import sys
from pathlib import Path

import ml_metadata as mlmd
from ml_metadata.proto import metadata_store_pb2

from pipeline.local.output import OutputFolder

_logger = logging.getLogger(__name__)

_UNFINISHED = (metadata_store_pb2.Execution.NEW, metadata_store_pb2.Execution.RUNNING)
_FAILED = metadata_store_pb2.Execution.FAILED
_PUSHER = "tfx.components.pusher.component.Pusher"
_SAVED_MODEL = "saved_model.pb"


def metadata_config(path: Path) -> metadata_store_pb2.ConnectionConfig:
    """Returns the connection to the SQLite metadata store at a path; connecting creates a missing store."""
    config = metadata_store_pb2.ConnectionConfig()
    config.sqlite.filename_uri = str(path)
    config.sqlite.connection_mode = metadata_store_pb2.SqliteMetadataSourceConfig.READWRITE_OPENCREATE
    return config


def recover(output: OutputFolder) -> int:
    """Removes the files of executions that failed or did not finish, and marks the unfinished ones as failed.

    Only the run that has locked the folder may call this, and only while no pipeline is running. Files are removed
    first: on a full disk, the metadata store may need the space to record the failures.

    Returns:
      The number of executions that had not finished.
    """
    if not output.metadata.exists():
        return 0
    store = mlmd.MetadataStore(metadata_config(output.metadata))
    executions = store.get_executions()
    unfinished = [execution for execution in executions if execution.last_known_state in _UNFINISHED]
    failed_ids = {execution.id for execution in executions if execution.last_known_state == _FAILED}
    failed_ids.update(execution.id for execution in unfinished)
    _remove_artifacts(output.artifacts, failed_ids)
    _remove_unpublished_models(output.serving, store, failed_ids)
    for execution in unfinished:
        execution.last_known_state = _FAILED
    if unfinished:
        store.put_executions(unfinished)
        _logger.warning("Executions left open by an earlier run: %s.", [execution.id for execution in unfinished])
    return len(unfinished)


def _remove_artifacts(root: Path, execution_ids: set[int]) -> None:
    """Removes the folders of the given executions, and every component's stateful working folder.

    These are COMPONENT/OUTPUT/EXECUTION, COMPONENT/.system/executor_execution/EXECUTION and
    COMPONENT/.system/stateful_working_dir/*.
    """
    names = {str(execution_id) for execution_id in execution_ids}
    for folder in (*root.glob("*/*/*"), *root.glob("*/.system/executor_execution/*")):
        if folder.name in names:
            _logger.info("Removing %s, left by an execution that did not finish.", folder)
            shutil.rmtree(folder, ignore_errors=True)
    for folder in root.glob("*/.system/stateful_working_dir/*"):
        shutil.rmtree(folder, ignore_errors=True)


def _remove_unpublished_models(serving: Path, store: mlmd.MetadataStore, execution_ids: set[int]) -> None:
    """Removes the model versions that a failed or unfinished Pusher may have copied, completely or in part.

    Where the version of an earlier, successful push is missing from the serving folder, the archived copy of that push
    is removed too, so that its Pusher runs again instead of coming from the cache.

    Args:
      serving: the folder of pushed models, as NAME/VERSION.
      store: the metadata store.
      execution_ids: the executions that failed or did not finish.
    """
    pushed: set[tuple[str, ...]] = set()  # (NAME, VERSION)
    for artifact in store.get_artifacts_by_type("PushedModel"):
        if not artifact.custom_properties["pushed"].int_value:
            continue
        version = Path(artifact.custom_properties["pushed_destination"].string_value)
        pushed.add(version.parts[-2:])
        if not (version / _SAVED_MODEL).is_file():
            shutil.rmtree(artifact.uri, ignore_errors=True)
    starts = [
        execution.create_time_since_epoch // 1000
        for execution in store.get_executions_by_type(_PUSHER)
        if execution.id in execution_ids
    ]
    for version in serving.glob("*/*"):
        # A Pusher names a version by the Unix time of the push in seconds, so that a version older than all of these
        # executions cannot be theirs.
        may_be_partial = version.name.isdigit() and int(version.name) >= min(starts, default=sys.maxsize)
        if may_be_partial and version.parts[-2:] not in pushed:
            _logger.warning("Removing %s, which was not pushed to the end.", version)
            shutil.rmtree(version, ignore_errors=True)
