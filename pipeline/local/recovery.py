"""Clears away what a run that was killed, or failed, left half-made: nothing of it is ever used or served."""

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
    """Connection to the SQLite metadata store at a path, which is made where there is none."""
    config = metadata_store_pb2.ConnectionConfig()
    config.sqlite.filename_uri = str(path)
    config.sqlite.connection_mode = metadata_store_pb2.SqliteMetadataSourceConfig.READWRITE_OPENCREATE
    return config


def recover(output: OutputFolder) -> int:
    """Removes the files of executions that did not end well, and marks those still open as failed.

    To be called by the only run on the folder, before or after the pipeline runs. Files go first: on a full disk the
    metadata store may need the room.

    Returns:
      The number of executions that were still open.
    """
    if not output.metadata.exists():
        return 0
    store = mlmd.MetadataStore(metadata_config(output.metadata))
    executions = store.get_executions()
    unfinished = [execution for execution in executions if execution.last_known_state in _UNFINISHED]
    broken = {execution.id for execution in executions if execution.last_known_state == _FAILED}
    broken.update(execution.id for execution in unfinished)
    _remove_artifacts(output.artifacts, broken)
    _remove_unpublished_models(output.serving, store, broken)
    for execution in unfinished:
        execution.last_known_state = _FAILED
    if unfinished:
        store.put_executions(unfinished)
        _logger.warning("Executions left open by an earlier run: %s.", [execution.id for execution in unfinished])
    return len(unfinished)


def _remove_artifacts(root: Path, execution_ids: set[int]) -> None:
    """Removes COMPONENT/OUTPUT/EXECUTION and COMPONENT/.system/executor_execution/EXECUTION."""
    names = {str(execution_id) for execution_id in execution_ids}
    for folder in (*root.glob("*/*/*"), *root.glob("*/.system/executor_execution/*")):
        if folder.name in names:
            _logger.info("Removing %s, left by an execution that did not finish.", folder)
            shutil.rmtree(folder, ignore_errors=True)
    for folder in root.glob("*/.system/stateful_working_dir/*"):
        shutil.rmtree(folder, ignore_errors=True)


def _remove_unpublished_models(serving: Path, store: mlmd.MetadataStore, execution_ids: set[int]) -> None:
    """Removes the versions that a Pusher which did not end well may have copied, whole or in part.

    A push whose version is gone from the serving folder loses its archived copy too, so that the Pusher runs again.
    """
    pushed: set[tuple[str, ...]] = set()
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
        # Pushers name versions by the second.
        in_doubt = version.name.isdigit() and int(version.name) >= min(starts, default=sys.maxsize)
        if in_doubt and version.parts[-2:] not in pushed:
            _logger.warning("Removing %s, which was not pushed to the end.", version)
            shutil.rmtree(version, ignore_errors=True)
