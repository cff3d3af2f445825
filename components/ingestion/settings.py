"""The settings of MovieLensExampleGen, as its driver and its executor get them from TFX."""

import json
from typing import Any

from google.protobuf import json_format, struct_pb2
from tfx.proto import example_gen_pb2

SETTINGS = "settings"  # Also a custom property of the examples: all settings that the rows depend on, as JSON.


def pack_settings(settings: dict[str, Any]) -> example_gen_pb2.CustomConfig:
    """Packs settings into the one property that TFX hands on as it is."""
    packed = struct_pb2.Struct()
    # As text, because a Struct holds numbers in floating point, and a long seed would lose its last digits.
    packed.update({SETTINGS: json.dumps(settings)})
    custom_config = example_gen_pb2.CustomConfig()
    custom_config.custom_config.Pack(packed)
    return custom_config


def unpack_settings(custom_config: str) -> str:
    """Returns the settings as JSON.

    Args:
      custom_config: the execution property `custom_config`.
    """
    message = example_gen_pb2.CustomConfig()
    json_format.Parse(custom_config, message)
    packed = struct_pb2.Struct()
    message.custom_config.Unpack(packed)
    return packed[SETTINGS]
