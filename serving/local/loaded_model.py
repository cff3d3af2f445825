"""A SavedModel in memory, whose signatures can be called."""

import logging
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf import meta_graph_pb2, saved_model_pb2

from serving.local.errors import ServingError, invalid_argument
from serving.local.input_checks import names_text
from serving.local.versions import SAVED_MODEL

DEFAULT_SIGNATURE = "serving_default"

# What Python's call of a graph adds to the message of the operation that failed.
_CALL_DETAILS = re.compile(
    r"\AGraph execution error:\n\n|Detected at node.*?<stack traces unavailable>\n|\{\{function_node [^}]*\}\} ?"
    r"| ?\[Op:[^\]]*\]\Z",
    re.DOTALL,
)

# Characters of a message that are looked at. A message quotes values of the request, and the time of the search grows
# with the square of the length where a value repeats the words that are looked for.
_MESSAGE_CHARACTERS = 2000


@dataclass(frozen=True)
class LoadedModel:
    """One version of a model; several threads may call it at the same time.

    Attributes:
      name: Name of the model.
      version: Its version.
      signature_defs: Signatures by name, as the SavedModel declares them.
      functions: Callables by signature name, which take the inputs as keyword arguments.
      saved_model: Result of `tf.saved_model.load`; kept because it owns the variables and tables of `functions`.
    """

    name: str
    version: int
    signature_defs: Mapping[str, meta_graph_pb2.SignatureDef]
    functions: Mapping[str, Callable[..., Mapping[str, tf.Tensor]]]
    saved_model: Any = field(repr=False)

    def signature(self, signature_name: str = "") -> meta_graph_pb2.SignatureDef:
        """Returns the signature called `signature_name`, or the default one.

        Raises:
          ServingError: FAILED_PRECONDITION when there is no such signature.
        """
        name = signature_name or DEFAULT_SIGNATURE
        if name not in self.functions:
            raise ServingError(grpc.StatusCode.FAILED_PRECONDITION, f'Serving signature key "{name}" not found.')
        return self.signature_defs[name]

    def predict(
        self, inputs: Mapping[str, np.ndarray], signature_name: str = "", output_filter: Iterable[str] = ()
    ) -> dict[str, np.ndarray]:
        """Calls a signature.

        Args:
          inputs: Arrays by input name, which fit the signature (see `serving.local.input_checks`).
          signature_name: The signature; `serving_default` when empty.
          output_filter: Names of the outputs to return; all when empty.

        Returns:
          Arrays by output name.

        Raises:
          ServingError: There is no such signature, its outputs have other names, or an operation of the model rejects
            a value.
        """
        wanted = _wanted_outputs(self.signature(signature_name), output_filter)
        function = self.functions[signature_name or DEFAULT_SIGNATURE]
        with _operation_errors():
            outputs = function(**{name: tf.constant(value) for name, value in inputs.items()})
            return {name: outputs[name].numpy() for name in wanted}

    def warm_up(self) -> None:
        """Calls each signature once, with a row of zeros, because the first call of a graph takes much longer.

        A model may refuse such a row; its graph is ready afterwards all the same. Signatures with inputs of any number
        of dimensions, or of a type that NumPy does not have, are left out.
        """
        for name in self.functions:
            inputs = self.signature(name).inputs.items()
            with suppress(ServingError, TypeError, ValueError):
                self.predict({input_name: _row_of_zeros(info) for input_name, info in inputs}, name)


def load_model(name: str, version: int, path: Path) -> LoadedModel:
    """Loads a SavedModel, without Keras.

    Args:
      name: Name of the model.
      version: Its version.
      path: Directory that holds `saved_model.pb`.

    Raises:
      Exception: The files are damaged, or hold no graph tagged 'serve'; TensorFlow raises various types.
    """
    proto = saved_model_pb2.SavedModel.FromString((path / SAVED_MODEL).read_bytes())
    graphs = [graph for graph in proto.meta_graphs if tf.saved_model.SERVING in graph.meta_info_def.tags]
    if not graphs:
        raise ValueError(f"{path / SAVED_MODEL} should hold a graph tagged 'serve'; received none.")
    with _without_gradient_warnings():
        saved_model = tf.saved_model.load(str(path))
    model = LoadedModel(name, version, dict(graphs[0].signature_def), dict(saved_model.signatures), saved_model)
    model.warm_up()
    return model


@contextmanager
def _without_gradient_warnings() -> Iterator[None]:
    """Keeps out of the log that functions were saved without gradients, which nobody who serves a model needs."""

    def is_wanted(record: logging.LogRecord) -> bool:
        return "unsaved custom gradients" not in str(record.msg)

    logger = logging.getLogger("absl")
    logger.addFilter(is_wanted)
    try:
        yield
    finally:
        logger.removeFilter(is_wanted)


def _row_of_zeros(info: meta_graph_pb2.TensorInfo) -> np.ndarray:
    """Returns an input of one row for a signature; dimensions of unknown size have size 1, and text is empty."""
    dtype = tf.as_dtype(info.dtype)
    shape = [1 if size is None else size for size in tf.TensorShape(info.tensor_shape).as_list()]
    return np.full(shape, b"", object) if dtype == tf.string else np.zeros(shape, dtype.as_numpy_dtype)


@contextmanager
def _operation_errors() -> Iterator[None]:
    """Turns the errors of a graph's operations into a ServingError with the operation's status and message."""
    try:
        yield
    except tf.errors.OpError as error:
        raise ServingError(_status_code(error), _without_call_details(error.message)) from error
    except UnicodeDecodeError as error:
        # The message quotes a value of the request that is not UTF-8, so TensorFlow cannot make its own exception.
        message = error.object[:_MESSAGE_CHARACTERS].decode(errors="backslashreplace")
        raise invalid_argument(_without_call_details(message)) from error


def _without_call_details(message: str) -> str:
    return _CALL_DETAILS.sub("", message[:_MESSAGE_CHARACTERS])


def _wanted_outputs(signature: meta_graph_pb2.SignatureDef, output_filter: Iterable[str]) -> list[str]:
    wanted: list[str] = []
    for name in output_filter:
        if name not in signature.outputs:
            raise invalid_argument(
                f"output tensor alias not found in signature: {name} Outputs expected to be in the set "
                f"{names_text(signature.outputs)}."
            )
        if name in wanted:
            raise invalid_argument(f"duplicate output tensor alias: {name}")
        wanted.append(name)
    return wanted or sorted(signature.outputs)


def _status_code(error: tf.errors.OpError) -> grpc.StatusCode:
    for code in grpc.StatusCode:
        if code.value[0] == error.error_code:
            return code
    return grpc.StatusCode.UNKNOWN
