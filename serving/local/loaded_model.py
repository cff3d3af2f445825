"""A SavedModel in memory; calls of its signatures have TensorFlow Serving's checks and error messages."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf import meta_graph_pb2, saved_model_pb2

from serving.local.errors import ServingError, invalid_argument
from serving.local.versions import SAVED_MODEL

DEFAULT_SIGNATURE = "serving_default"


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
          inputs: Arrays by input name; exactly the inputs of the signature.
          signature_name: The signature; `serving_default` when empty.
          output_filter: Names of the outputs to return; all when empty.

        Returns:
          Arrays by output name.

        Raises:
          ServingError: There is no such signature, its inputs or outputs have other names, an input has a wrong type or
            shape, or an operation of the model rejects a value.
        """
        signature = self.signature(signature_name)
        _check_inputs(signature, inputs)
        wanted = _wanted_outputs(signature, output_filter)
        function = self.functions[signature_name or DEFAULT_SIGNATURE]
        try:
            outputs = function(**{name: tf.constant(value) for name, value in inputs.items()})
            return {name: outputs[name].numpy() for name in wanted}
        except tf.errors.OpError as error:
            raise ServingError(_status_code(error), error.message) from error


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
    saved_model = tf.saved_model.load(str(path))
    return LoadedModel(name, version, dict(graphs[0].signature_def), dict(saved_model.signatures), saved_model)


def _check_inputs(signature: meta_graph_pb2.SignatureDef, inputs: Mapping[str, np.ndarray]) -> None:
    given, expected = set(inputs), set(signature.inputs)
    if len(given) != len(expected):
        raise invalid_argument(
            f"input size does not match signature: {len(given)}!={len(expected)} len({_names(given)}) != "
            f"len({_names(expected)}). Sent extra: {_names(given - expected)}. "
            f"Missing but required: {_names(expected - given)}."
        )
    for name in sorted(given - expected):
        raise invalid_argument(
            f"input tensor alias not found in signature: {name}. Inputs expected to be in the set {_names(expected)}."
        )
    for name, value in sorted(inputs.items()):
        info = signature.inputs[name]
        wanted = tf.as_dtype(info.dtype)
        received = tf.as_dtype(value.dtype)
        if received != wanted:
            raise invalid_argument(f"Expects arg[{name}] to be {wanted.name} but {received.name} is provided")
        shape = tf.TensorShape(info.tensor_shape)
        if not shape.is_compatible_with(value.shape):
            raise invalid_argument(
                f"Expects arg[{name}] to have shape {_shape(shape.as_list())} but shape {_shape(value.shape)} "
                "is provided"
            )


def _wanted_outputs(signature: meta_graph_pb2.SignatureDef, output_filter: Iterable[str]) -> list[str]:
    wanted: list[str] = []
    for name in output_filter:
        if name not in signature.outputs:
            raise invalid_argument(
                f"output tensor alias not found in signature: {name} Outputs expected to be in the set "
                f"{_names(signature.outputs)}."
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


def _names(names: Iterable[str]) -> str:
    return "{" + ",".join(sorted(names)) + "}"


def _shape(sizes: Iterable[int | None]) -> str:
    return "[" + ",".join("-1" if size is None else str(size) for size in sizes) + "]"
