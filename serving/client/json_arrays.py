"""Arrays as JSON values of TensorFlow Serving's REST API, and back.

Source: https://www.tensorflow.org/tfx/serving/api_rest
"""

import base64
from collections.abc import Sequence
from typing import Any

import numpy as np


def to_json_values(array: np.ndarray) -> Any:
    """Returns nested lists; bytes objects become base64, since JSON holds no bytes and they need not be text."""
    if array.dtype.kind in "SO":
        flat = [{"b64": base64.b64encode(value).decode("ascii")} for value in array.ravel().tolist()]
        return _objects(flat, array.shape).tolist()
    return array.tolist()


def from_json_values(values: Any) -> np.ndarray:
    """Returns the array in nested lists: of booleans, int64 if all numbers are whole, float64, or bytes objects.

    JSON does not say whether 4 is an integer or a float; who asks for a tensor knows.

    Raises:
      ValueError: The lists are not rectangular, or hold something else than one kind of value.
    """
    shape: list[int] = []
    flat = [values]
    while flat and isinstance(flat[0], list):
        length = len(flat[0])
        if any(not isinstance(item, list) or len(item) != length for item in flat):
            raise ValueError(f"lists should have the same length at level {len(shape)}")
        shape.append(length)
        flat = [value for item in flat for value in item]
    kinds = {type(value) for value in flat}
    try:
        if kinds == {int}:
            return np.array(flat, np.int64).reshape(shape)
        if kinds <= {int, float}:
            return np.array(flat, np.float64).reshape(shape)
    except OverflowError as error:
        raise ValueError("numbers should fit into 64 bits") from error
    if kinds == {bool}:
        return np.array(flat, bool).reshape(shape)
    if kinds <= {str, dict}:
        return _objects([_to_bytes(value) for value in flat], shape)
    raise ValueError(f"values should be of one kind; received {', '.join(sorted(kind.__name__ for kind in kinds))}")


def _to_bytes(value: str | dict[str, Any]) -> bytes:
    if isinstance(value, str):
        # JSON can escape half a surrogate pair, which no UTF-8 text holds; the error is a ValueError too.
        return value.encode()
    if set(value) == {"b64"} and isinstance(value["b64"], str):
        return base64.b64decode(value["b64"], validate=True)
    raise ValueError(f"an object should hold base64 under the key b64; it has the keys {sorted(value)}")


def _objects(flat: list[Any], shape: Sequence[int]) -> np.ndarray:
    # NumPy would make an array of fixed-width text from a list of bytes objects, and cut the zero bytes at their ends.
    array = np.empty(len(flat), object)
    array[:] = flat
    return array.reshape(shape)
