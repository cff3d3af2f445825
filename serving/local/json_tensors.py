"""Converts JSON requests of TensorFlow Serving's REST API to arrays, and arrays to its JSON answers.

Source: https://www.tensorflow.org/tfx/serving/api_rest
"""

import base64
import binascii
import json
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf import meta_graph_pb2

from serving.local.errors import invalid_argument, unimplemented

Format = Literal["row", "columnar"]

_BYTES_SUFFIX = "_bytes"


def parse_body(body: bytes) -> dict[str, Any]:
    """Returns the JSON object in a request's body; accepts NaN and Infinity as TensorFlow Serving does.

    Raises:
      ServingError: INVALID_ARGUMENT when the body is not a JSON object, or `signature_name` is not a string.
    """
    if not body:
        raise invalid_argument("JSON Parse error: The document is empty")
    try:
        document = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise invalid_argument(f"JSON Parse error: {error}") from error
    if not isinstance(document, dict):
        raise invalid_argument(f"JSON Value: {_show(document)} Is not object")
    if not isinstance(document.get("signature_name", ""), str):
        raise invalid_argument(
            f"JSON Value: {_show(document)} not formatted correctly. 'signature_name' key must be a string value."
        )
    return document


def read_inputs(
    document: Mapping[str, Any], infos: Mapping[str, meta_graph_pb2.TensorInfo]
) -> tuple[dict[str, np.ndarray], Format]:
    """Returns the inputs of a `:predict` request.

    Args:
      document: The request, with either `instances` (rows) or `inputs` (columns).
      infos: Inputs of the signature, by name.

    Returns:
      Arrays by input name, and the format for the answer: "row" for `instances`, "columnar" for `inputs`.

    Raises:
      ServingError: INVALID_ARGUMENT when a value does not fit the signature; UNIMPLEMENTED when the signature has an
        input type that this server cannot read from JSON.
    """
    infos = dict(sorted(infos.items()))
    if "instances" in document and "inputs" in document:
        raise invalid_argument(
            f"JSON Value: {_show(document)} Not formatted correctly expecting only one of 'inputs' or 'instances' "
            "keys to exist"
        )
    if "instances" in document:
        return _read_rows(document["instances"], infos), "row"
    if "inputs" in document:
        return _read_columns(document["inputs"], infos), "columnar"
    raise invalid_argument("Missing 'inputs' or 'instances' key")


def write_outputs(outputs: Mapping[str, np.ndarray], answer_format: Format) -> dict[str, Any]:
    """Returns the answer to a `:predict` request; if there is a single output, its name is left out.

    Raises:
      ServingError: INVALID_ARGUMENT when the format is "row" and the outputs have no common first dimension, or when
        text is not UTF-8.
    """
    columns = {name: _to_json(name, array) for name, array in outputs.items()}
    single = next(iter(columns)) if len(columns) == 1 else None
    if answer_format == "columnar":
        return {"outputs": columns if single is None else columns[single]}
    sizes = {name: array.shape[:1] for name, array in outputs.items()}
    if () in sizes.values() or len(set(sizes.values())) > 1:
        raise invalid_argument(f"Outputs should have the same first dimension for row format; received {sizes}.")
    if single is not None:
        return {"predictions": columns[single]}
    return {"predictions": [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]}


def _read_rows(instances: Any, infos: Mapping[str, meta_graph_pb2.TensorInfo]) -> dict[str, np.ndarray]:
    if not isinstance(instances, list):
        raise invalid_argument(f"JSON Value: {_show(instances)} Expecting 'instances' to be an list/array")
    if not instances:
        raise invalid_argument("No values in 'instances' array")
    if not _is_json_object(instances[0]):
        if len(infos) > 1:
            raise invalid_argument(
                "instances is a plain list, but expecting list of objects as multiple input tensors required as per "
                f"tensorinfo_map: {','.join(infos)}"
            )
        name = next(iter(infos))
        return {name: _to_array(instances, name, infos[name])}
    for index, instance in enumerate(instances):
        if not _is_json_object(instance):
            raise invalid_argument(f"Expecting object but got list at item {index} of input list")
        if set(instance) != set(infos):
            raise invalid_argument(
                f"Failed to process element: {index} of 'instances' list. JSON object: {_show(instance)} keys must "
                f"be equal to: {','.join(infos)}"
            )
    return {name: _to_array([row[name] for row in instances], name, info) for name, info in infos.items()}


def _read_columns(inputs: Any, infos: Mapping[str, meta_graph_pb2.TensorInfo]) -> dict[str, np.ndarray]:
    if not _is_json_object(inputs):
        if len(infos) > 1:
            raise invalid_argument(
                "inputs is a plain value/list, but expecting an object as multiple input tensors required as per "
                f"tensorinfo_map: {','.join(infos)}"
            )
        name = next(iter(infos))
        return {name: _to_array(inputs, name, infos[name])}
    for name in infos:
        if name not in inputs:
            raise invalid_argument(f"Missing named input: {name} in 'inputs' object.")
    # Inputs that the signature does not have are ignored, as in TensorFlow Serving.
    return {name: _to_array(inputs[name], name, info) for name, info in infos.items()}


def _to_array(value: Any, name: str, info: meta_graph_pb2.TensorInfo) -> np.ndarray:
    dtype = tf.as_dtype(info.dtype)
    shape: list[int] = []
    probe = value
    while isinstance(probe, list):
        shape.append(len(probe))
        probe = probe[0] if probe else None
    scalars: list[Any] = []
    _flatten(value, shape, 0, name, dtype, scalars)
    numpy_dtype = object if dtype == tf.string else dtype.as_numpy_dtype
    try:
        array = np.array(scalars, dtype=numpy_dtype)
    except OverflowError as error:
        raise invalid_argument(f"JSON values of input {name} do not fit into {dtype.name}: {error}") from error
    return array.reshape(shape)


def _flatten(value: Any, shape: list[int], level: int, name: str, dtype: tf.DType, scalars: list[Any]) -> None:
    if level == len(shape):
        scalars.append(_to_scalar(value, name, dtype))
        return
    if not isinstance(value, list) or len(value) != shape[level]:
        received = f"a list of {len(value)}" if isinstance(value, list) else _show(value)
        raise invalid_argument(
            f"Input {name} should be a rectangular list: at level {level} a list of {shape[level]}; "
            f"received {received}."
        )
    for item in value:
        _flatten(item, shape, level + 1, name, dtype, scalars)


def _to_scalar(value: Any, name: str, dtype: tf.DType) -> Any:
    if dtype == tf.string:
        if isinstance(value, str):
            return value.encode()
        if _is_base64(value):
            try:
                return base64.b64decode(value["b64"], validate=True)
            except (binascii.Error, ValueError) as error:
                raise invalid_argument(f"Unable to base64 decode input {name}: {error}") from error
    elif dtype == tf.bool:
        if isinstance(value, bool):
            return value
    elif not (dtype.is_integer or dtype.is_floating):
        raise unimplemented(f"Conversion of JSON Value: {_show(value)} to type: {dtype.name}")
    elif isinstance(value, int if dtype.is_integer else (int, float)) and not isinstance(value, bool):
        return value
    raise invalid_argument(
        f"JSON Value: {_show(value)} Type: {_type_name(value)} of input {name} is not of expected type: {dtype.name}"
    )


def _to_json(name: str, array: np.ndarray) -> Any:
    if array.dtype == object:
        encode = _base64 if name.endswith(_BYTES_SUFFIX) else _text
        flat = [encode(value) for value in array.ravel()]
        return np.array(flat, dtype=object).reshape(array.shape).tolist()
    if array.dtype == np.float32:
        # Converting through text gives the shortest decimal for each float32: 0.2 and not 0.20000000298023224.
        return array.astype(str).astype(np.float64).tolist()
    return array.tolist()


def _base64(value: bytes) -> dict[str, str]:
    return {"b64": base64.b64encode(value).decode("ascii")}


def _text(value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError as error:
        raise invalid_argument(f"Output {value!r} is not UTF-8; name the output ..._bytes to get base64.") from error


def _is_json_object(value: Any) -> bool:
    # TensorFlow Serving writes a base64 string as an object whose only key is "b64"; that is a value, not an object.
    return isinstance(value, dict) and not _is_base64(value)


def _is_base64(value: Any) -> bool:
    return isinstance(value, dict) and set(value) == {"b64"} and isinstance(value["b64"], str)


def _type_name(value: Any) -> str:
    if value is None:
        return "Null"
    if isinstance(value, bool):
        return str(value)
    names: dict[type, str] = {dict: "Object", list: "Array", str: "String"}
    return names.get(type(value), "Number")


def _show(value: Any, limit: int = 200) -> str:
    text = json.dumps(value)
    return text if len(text) <= limit else text[:limit] + "..."
