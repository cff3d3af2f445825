"""Converts JSON requests of TensorFlow Serving's REST API to arrays, and arrays to its JSON answers.

Source: https://www.tensorflow.org/tfx/serving/api_rest
"""

import base64
import binascii
import json
import math
from collections.abc import Iterator, Mapping
from itertools import chain
from typing import Any, Literal

import numpy as np
import orjson
import tensorflow as tf
from tensorflow.core.protobuf import meta_graph_pb2

from serving.local.errors import invalid_argument, unimplemented
from serving.local.input_checks import check_inputs
from serving.local.limits import Limits

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
    document: Mapping[str, Any], signature: meta_graph_pb2.SignatureDef, limits: Limits
) -> tuple[dict[str, np.ndarray], Format]:
    """Returns the inputs of a `:predict` request.

    Args:
      document: The request, with either `instances` (rows) or `inputs` (columns).
      signature: The signature that is called.
      limits: What a request may ask for.

    Returns:
      Arrays by input name, and the format for the answer: "row" for `instances`, "columnar" for `inputs`.

    Raises:
      ServingError: INVALID_ARGUMENT when a value does not fit the signature; UNIMPLEMENTED when the signature has an
        input type that this server cannot read from JSON.
    """
    infos = dict(sorted(signature.inputs.items()))
    if "instances" in document and "inputs" in document:
        raise invalid_argument(
            f"JSON Value: {_show(document)} Not formatted correctly expecting only one of 'inputs' or 'instances' "
            "keys to exist"
        )
    answer_format: Format = "row"
    if "instances" in document:
        values = _rows(document["instances"], infos)
    elif "inputs" in document:
        values, answer_format = _columns(document["inputs"], infos), "columnar"
    else:
        raise invalid_argument("Missing 'inputs' or 'instances' key")
    # JSON has no types of its own, so the shape is all that can differ from the signature before values are read.
    specs = {name: tf.TensorSpec(_shape(value), tf.as_dtype(infos[name].dtype)) for name, value in values.items()}
    check_inputs(signature, specs, limits)
    return {name: _to_array(value, name, specs[name]) for name, value in values.items()}, answer_format


def write_outputs(outputs: Mapping[str, np.ndarray], answer_format: Format) -> bytes:
    """Returns the answer to a `:predict` request as JSON; if there is a single output, its name is left out.

    Raises:
      ServingError: INVALID_ARGUMENT when the format is "row" and the outputs have no common first dimension, or when
        text is not UTF-8.
    """
    columns = {name: _to_json(name, array) for name, array in outputs.items()}
    single = next(iter(columns)) if len(columns) == 1 else None
    if answer_format == "columnar":
        return _dump({"outputs": columns if single is None else columns[single]}, outputs)
    sizes = {name: array.shape[:1] for name, array in outputs.items()}
    if () in sizes.values() or len(set(sizes.values())) > 1:
        raise invalid_argument(f"Outputs should have the same first dimension for row format; received {sizes}.")
    if single is not None:
        return _dump({"predictions": columns[single]}, outputs)
    rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    return _dump({"predictions": rows}, outputs)


def _rows(instances: Any, infos: Mapping[str, meta_graph_pb2.TensorInfo]) -> dict[str, Any]:
    """Returns the values of each input, in lists with one item per row."""
    if not isinstance(instances, list):
        raise invalid_argument(f"JSON Value: {_show(instances)} Expecting 'instances' to be an list/array")
    if not instances:
        raise invalid_argument("No values in 'instances' array")
    if not _is_json_object(instances[0]):
        if len(infos) != 1:
            raise invalid_argument(
                "instances is a plain list, but expecting list of objects as multiple input tensors required as per "
                f"tensorinfo_map: {','.join(infos)}"
            )
        name = next(iter(infos))
        return {name: instances}
    for index, instance in enumerate(instances):
        if not _is_json_object(instance):
            raise invalid_argument(f"Expecting object but got list at item {index} of input list")
        if set(instance) != set(infos):
            raise invalid_argument(
                f"Failed to process element: {index} of 'instances' list. JSON object: {_show(instance)} keys must "
                f"be equal to: {','.join(infos)}"
            )
    return {name: [row[name] for row in instances] for name in infos}


def _columns(inputs: Any, infos: Mapping[str, meta_graph_pb2.TensorInfo]) -> dict[str, Any]:
    """Returns the values of each input."""
    if not _is_json_object(inputs):
        if len(infos) != 1:
            raise invalid_argument(
                "inputs is a plain value/list, but expecting an object as multiple input tensors required as per "
                f"tensorinfo_map: {','.join(infos)}"
            )
        name = next(iter(infos))
        return {name: inputs}
    for name in infos:
        if name not in inputs:
            raise invalid_argument(f"Missing named input: {name} in 'inputs' object.")
    # Inputs that the signature does not have are ignored, as in TensorFlow Serving.
    return {name: inputs[name] for name in infos}


def _shape(value: Any) -> list[int]:
    """Returns the shape of nested lists, as their first items show it."""
    shape = []
    while isinstance(value, list):
        shape.append(len(value))
        value = value[0] if value else None
    return shape


def _to_array(value: Any, name: str, spec: tf.TensorSpec) -> np.ndarray:
    shape, dtype = spec.shape.as_list(), spec.dtype
    scalars = _flatten(value, shape, name)
    numbers = {int} if dtype.is_integer else {int, float} if dtype.is_floating else set()
    if not set(map(type, scalars)) <= numbers:
        scalars = [_to_scalar(scalar, name, dtype) for scalar in scalars]
    try:
        with np.errstate(over="raise"):
            array = np.array(scalars, dtype=object if dtype == tf.string else dtype.as_numpy_dtype)
    except (OverflowError, FloatingPointError) as error:
        # As numbers of Python, because a comparison with a float32 would overflow again.
        least, most = (float(dtype.min), float(dtype.max)) if dtype.is_floating else (dtype.min, dtype.max)
        wrong = next((x for x in scalars if not least <= x <= most and abs(x) != math.inf), None)
        raise invalid_argument(f"JSON Value: {_show(wrong)} of input {name} does not fit into {dtype.name}") from error
    return array.reshape(shape)


def _flatten(value: Any, shape: list[int], name: str) -> list[Any]:
    """Returns the items of nested lists of this shape in one list."""
    items = [value]
    for level, size in enumerate(shape):
        for item in _not_lists_of(items, size):
            received = f"a list of {len(item)}" if isinstance(item, list) else _show(item)
            raise invalid_argument(
                f"Input {name} should be a rectangular list: at level {level} a list of {size}; received {received}."
            )
        items = list(chain.from_iterable(items))
    return items


def _not_lists_of(items: list[Any], size: int) -> Iterator[Any]:
    # The common case is decided without a loop in Python.
    if set(map(type, items)) <= {list} and set(map(len, items)) <= {size}:
        return iter(())
    return (item for item in items if not isinstance(item, list) or len(item) != size)


def _to_scalar(value: Any, name: str, dtype: tf.DType) -> Any:
    if dtype == tf.string:
        if isinstance(value, str):
            try:
                return value.encode()
            except UnicodeEncodeError as error:
                raise invalid_argument(f"JSON Value: {_show(value)} of input {name} is not Unicode: {error}") from error
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
    """Returns what `_dump` can write: numbers stay an array, text becomes nested lists."""
    if array.dtype != object:
        return np.ascontiguousarray(array) if array.ndim else array[()]
    encode = _base64 if name.endswith(_BYTES_SUFFIX) else _text
    flat = np.empty(array.size, object)
    flat[:] = [encode(value) for value in array.ravel()]
    return flat.reshape(array.shape).tolist()


def _dump(document: Any, outputs: Mapping[str, np.ndarray]) -> bytes:
    """Writes JSON, each number with as few digits as its type needs: 0.2 and not 0.20000000298023224."""
    if all(np.isfinite(array).all() for array in outputs.values() if array.dtype.kind == "f"):
        return orjson.dumps(document, default=_plain_numbers, option=orjson.OPT_SERIALIZE_NUMPY)
    # JSON has no NaN and no infinity. TensorFlow Serving writes them all the same, which the fast library does not.
    return json.dumps(document, default=_plain_numbers).encode()


def _plain_numbers(value: np.ndarray | np.generic) -> Any:
    if value.dtype == np.float32:
        # The way through text gives the shortest decimal of each float32.
        return np.asarray(value).astype(str).astype(np.float64).tolist()
    return value.tolist()


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
    try:
        text = json.dumps(value)
    except RecursionError:
        text = f"{type(value).__name__} nested too deeply to be shown"
    return text if len(text) <= limit else text[:limit] + "..."
