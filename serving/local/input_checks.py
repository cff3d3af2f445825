"""Compares the inputs of a request with a signature, before any of their values is converted."""

import math
from collections.abc import Iterable, Mapping
from itertools import islice

import tensorflow as tf
from tensorflow.core.protobuf import meta_graph_pb2

from serving.local.errors import invalid_argument
from serving.local.limits import Limits

_NAMES_SHOWN = 100


def check_inputs(signature: meta_graph_pb2.SignatureDef, inputs: Mapping[str, tf.TensorSpec], limits: Limits) -> None:
    """Checks names, types, shapes and sizes of the inputs of a request.

    Args:
      signature: The signature that is called.
      inputs: Types and shapes of the inputs by name; all shapes are known.
      limits: What a request may ask for.

    Raises:
      ServingError: INVALID_ARGUMENT; the message names the input, what was received and what was expected.
    """
    check_names(signature, inputs)
    for name, received in sorted(inputs.items()):
        _check_type_and_shape(name, received, signature.inputs[name])
        _check_size(name, received.shape.as_list(), limits)
    _check_rows(signature, inputs)


def check_names(signature: meta_graph_pb2.SignatureDef, inputs: Iterable[str]) -> None:
    """Checks that a request has exactly the inputs of a signature.

    Raises:
      ServingError: INVALID_ARGUMENT; the message names the inputs that are missing or too many.
    """
    given, expected = set(inputs), set(signature.inputs)
    if len(given) != len(expected):
        raise invalid_argument(
            f"input size does not match signature: {len(given)}!={len(expected)} len({names_text(given)}) != "
            f"len({names_text(expected)}). Sent extra: {names_text(given - expected)}. "
            f"Missing but required: {names_text(expected - given)}."
        )
    for name in sorted(given - expected):
        raise invalid_argument(
            f"input tensor alias not found in signature: {name}. Inputs expected to be in the set "
            f"{names_text(expected)}."
        )


def _check_type_and_shape(name: str, received: tf.TensorSpec, info: meta_graph_pb2.TensorInfo) -> None:
    wanted = tf.as_dtype(info.dtype)
    if received.dtype != wanted:
        raise invalid_argument(f"Expects arg[{name}] to be {wanted.name} but {received.dtype.name} is provided")
    shape = tf.TensorShape(info.tensor_shape)
    if not shape.is_compatible_with(received.shape):
        raise invalid_argument(
            f"Expects arg[{name}] to have shape {_shape_text(shape.as_list())} but shape "
            f"{_shape_text(received.shape.as_list())} is provided"
        )


def _check_size(name: str, shape: list[int], limits: Limits) -> None:
    if shape and shape[0] > limits.batch:
        raise invalid_argument(
            f"Expects arg[{name}] to have at most {limits.batch} rows but shape {_shape_text(shape)} is provided"
        )
    # An empty dimension makes the tensor empty, but the model's intermediate results can be as large as the others.
    size = math.prod(max(dimension, 1) for dimension in shape)
    if size > limits.values:
        raise invalid_argument(
            f"Expects arg[{name}] to have at most {limits.values} values but shape {_shape_text(shape)} is provided"
        )


def _check_rows(signature: meta_graph_pb2.SignatureDef, inputs: Mapping[str, tf.TensorSpec]) -> None:
    """Checks that inputs whose number of rows is not fixed have the same number, since they describe the same rows."""
    rows = {
        name: received.shape[0]
        for name, received in sorted(inputs.items())
        if signature.inputs[name].tensor_shape.dim and signature.inputs[name].tensor_shape.dim[0].size == -1
    }
    if len(set(rows.values())) > 1:
        counts = ", ".join(f"{name} has {count}" for name, count in rows.items())
        raise invalid_argument(f"Incompatible batch sizes: input tensors should have equally many rows; {counts}")


def names_text(names: Iterable[str]) -> str:
    """Writes a set of names as TensorFlow Serving does, but of a large set only a part."""
    shown = list(islice(names, _NAMES_SHOWN + 1))
    return "{" + ",".join(sorted(shown[:_NAMES_SHOWN])) + (",..." if len(shown) > _NAMES_SHOWN else "") + "}"


def _shape_text(sizes: Iterable[int | None]) -> str:
    return "[" + ",".join("-1" if size is None else str(size) for size in sizes) + "]"
