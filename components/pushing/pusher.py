"""TFX's Pusher, which refuses models that were withdrawn, and whose versions appear whole.

TFX's own Pusher copies a model file by file to where it is served. Killed half-way, it leaves a folder that looks like
a version, and nothing that tells it from one that somebody put there.
"""

from typing import Any

from tfx import types
from tfx import v1 as tfx
from tfx.components.pusher import executor
from tfx.dsl.components.base.base_driver import BaseDriver
from tfx.dsl.components.base.executor_spec import ExecutorClassSpec
from tfx.orchestration.portable import data_types
from tfx.proto import pusher_pb2
from tfx.proto.orchestration import driver_output_pb2
from tfx.types import artifact_utils, standard_component_specs
from tfx.utils import proto_utils

from components.pushing.pushed_models import REFUSED, refusal
from components.pushing.versions import VERSION_FILE, add, next_version
from components.storage.paths import copy_folder, stored_path, write_whole


class RefusalDriver(BaseDriver):
    """Asks the metadata store, before the cache is looked into, whether a model may be pushed."""

    def run(self, execution_info: data_types.ExecutionInfo) -> driver_output_pb2.DriverOutput:
        """Returns the reason for a refusal as a parameter of the execution, and thus as part of its cache key.

        A push from the time before a refusal is therefore not taken from the cache.
        """
        output = driver_output_pb2.DriverOutput()
        (model,) = execution_info.input_dict[standard_component_specs.MODEL_KEY]
        with self._metadata_handle as connection:
            reason = refusal(connection.store, model.id)
        if reason:
            output.exec_properties[REFUSED].string_value = reason
        return output


class Executor(executor.Executor):
    """Has a version appear whole, see `components.pushing.versions`."""

    def Do(
        self,
        input_dict: dict[str, list[types.Artifact]],
        output_dict: dict[str, list[types.Artifact]],
        exec_properties: dict[str, Any],
    ) -> None:
        """Pushes a blessed model that is not refused.

        The artifact `pushed_model` has TFX's custom properties and, for a blessed model that was refused, `refused`
        with the reason. It holds a copy of the model, from which the version can be put back.

        Raises:
          OSError: the model could not be copied.
        """
        assert self._context is not None, "TFX's launcher gives executors a context."
        record = self._context.executor_output_uri
        pushed = artifact_utils.get_single_instance(output_dict[standard_component_specs.PUSHED_MODEL_KEY])
        if not self.CheckBlessing(input_dict):
            self._MarkNotPushed(pushed)
            return
        if reason := exec_properties.get(REFUSED):
            self._MarkNotPushed(pushed)
            pushed.set_string_custom_property(REFUSED, reason)
            return
        destination = pusher_pb2.PushDestination()
        proto_utils.json_to_proto(exec_properties[standard_component_specs.PUSH_DESTINATION_KEY], destination)
        version = next_version(stored_path(destination.filesystem.base_directory))
        # Written first, so that whatever happens from here on, it is known whose version this is.
        write_whole(stored_path(record).with_name(VERSION_FILE), f"{version.parent.name}/{version.name}")
        model = stored_path(self.GetModelPath(input_dict))
        copy_folder(model, stored_path(pushed.uri))
        add(model, version)
        self._MarkPushed(pushed, pushed_destination=str(version), pushed_version=version.name)


class Pusher(tfx.components.Pusher):
    """Pushes a blessed model to a folder or a URI, as the version of the current second."""

    EXECUTOR_SPEC = ExecutorClassSpec(Executor)
    DRIVER_CLASS = RefusalDriver
