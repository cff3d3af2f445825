"""Converts arrays to and from TensorProto, with the value fields that TensorFlow Serving uses."""

import math
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.core.framework import tensor_pb2

from serving.local.errors import invalid_argument

_VALUE_FIELDS: dict[tf.DType, str] = {
    tf.float32: "float_val",
    tf.float64: "double_val",
    tf.int8: "int_val",
    tf.int16: "int_val",
    tf.int32: "int_val",
    tf.uint8: "int_val",
    tf.uint32: "uint32_val",
    tf.uint64: "uint64_val",
    tf.int64: "int64_val",
    tf.bool: "bool_val",
    tf.string: "string_val",
}


_MOST_DIMENSIONS = 254  # Of any tensor in TensorFlow.


def to_proto(array: np.ndarray) -> tensor_pb2.TensorProto:
    """Returns `array` with one entry per value, so that clients may read `float_val` and similar fields directly."""
    dtype = tf.as_dtype(array.dtype)
    value_field = _VALUE_FIELDS.get(dtype)
    if value_field is None:
        return tf.make_tensor_proto(array)
    shape = tf.TensorShape(array.shape).as_proto()
    values: Any = array.ravel().tolist()
    return tensor_pb2.TensorProto(dtype=dtype.as_datatype_enum, tensor_shape=shape, **{value_field: values})


def spec_of(name: str, proto: tensor_pb2.TensorProto) -> tf.TensorSpec:
    """Returns the type and the shape that a proto states, without reading its values.

    Raises:
      ServingError: INVALID_ARGUMENT when the type does not exist, or the shape is not fully known.
    """
    if len(proto.tensor_shape.dim) > _MOST_DIMENSIONS:
        raise _parsing_error(name, f"the shape should have at most {_MOST_DIMENSIONS} dimensions")
    sizes = [dimension.size for dimension in proto.tensor_shape.dim]
    if proto.tensor_shape.unknown_rank or any(size < 0 for size in sizes):
        raise _parsing_error(name, f"the shape should have a size for each dimension; received {sizes}")
    try:
        return tf.TensorSpec(sizes, tf.as_dtype(proto.dtype))
    except (TypeError, ValueError) as error:
        raise _parsing_error(name, error) from error


def from_proto(name: str, proto: tensor_pb2.TensorProto) -> np.ndarray:
    """Returns the array in `proto`, whose size should have been checked before (see `spec_of`).

    Raises:
      ServingError: INVALID_ARGUMENT when the proto contradicts itself.
    """
    size = math.prod(dimension.size for dimension in proto.tensor_shape.dim)
    given = max(len(getattr(proto, field)) for field in _VALUE_FIELDS.values())
    if given > size:
        # Said here, because an array of all of them would be made first.
        raise _parsing_error(name, f"{given} values are given for a shape of {size}")
    try:
        return tf.make_ndarray(proto)
    except (TypeError, ValueError) as error:
        raise _parsing_error(name, error) from error


def _parsing_error(name: str, problem: object) -> Exception:
    return invalid_argument(f"tensor parsing error: {name}: {problem}")
