"""Connection over TensorFlow Serving's gRPC API; imports TensorFlow, because the gRPC stubs need it."""

from collections.abc import Mapping
from typing import Any

import grpc
import numpy as np
import tensorflow as tf
from tensorflow_serving.apis import (
    get_model_status_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
)

from serving.client import arguments
from serving.client.deadline import Deadline, DeadlineExceeded, ask_until_answered
from serving.client.errors import (
    ModelNotFoundError,
    ServerUnavailableError,
    ServerUnreachableError,
    ServingClientError,
    closed_error,
)
from serving.client.transport import DEFAULT_ATTEMPTS

_CHANNEL_OPTIONS = [
    ("grpc.enable_http_proxy", 0),
    ("grpc.max_receive_message_length", -1),
    # A channel that could not connect fails at once until its own pause is over, which grows to two minutes; attempts
    # and `wait_until_available` have pauses of their own, after which the channel should really try.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 500),
]

# gRPC's words for a connection that the other side has closed.
_CONNECTION_ENDS = ("Socket closed", "Connection reset by peer", "Broken pipe", "End of TCP stream")


class GrpcTransport:
    """See `Transport`.

    Args:
      host: Host of the server.
      port: gRPC port of the server.
      deadline_seconds: Seconds within which an answer must be there, all attempts and pauses between them together.
      attempts: Maximum number of attempts when the server cannot be reached or is unavailable.
    """

    def __init__(self, host: str, port: int, deadline_seconds: float, attempts: int = DEFAULT_ATTEMPTS) -> None:
        self.address = arguments.address(host, port)
        self._deadline_seconds = arguments.seconds("deadline_seconds", deadline_seconds)
        self._attempts = arguments.attempts(attempts)
        self._channel = grpc.insecure_channel(self.address, options=_CHANNEL_OPTIONS)
        self._predictions = prediction_service_pb2_grpc.PredictionServiceStub(self._channel)
        self._models = model_service_pb2_grpc.ModelServiceStub(self._channel)
        self._closed = False

    def predict(self, model: str, inputs: Mapping[str, np.ndarray], signature_name: str = "") -> dict[str, np.ndarray]:
        """See `Transport.predict`."""
        deadline = Deadline(self._deadline_seconds)
        request = predict_pb2.PredictRequest(
            model_spec={"name": arguments.model_name(model), "signature_name": signature_name},
            inputs={name: tf.make_tensor_proto(array) for name, array in inputs.items()},
        )
        response = self._call(self._predictions.Predict, request, deadline)
        try:
            return {name: tf.make_ndarray(proto) for name, proto in response.outputs.items()}
        except (TypeError, ValueError) as error:
            raise ServingClientError(
                f"The server at {self.address} answers with outputs that are no tensors: {error}"
            ) from error

    def states(self, model: str, at_most_seconds: float | None = None) -> dict[int, str]:
        """See `Transport.states`."""
        deadline = Deadline(min(self._deadline_seconds, at_most_seconds or self._deadline_seconds))
        request = get_model_status_pb2.GetModelStatusRequest(model_spec={"name": arguments.model_name(model)})
        response = self._call(self._models.GetModelStatus, request, deadline)
        names = {number: name for name, number in get_model_status_pb2.ModelVersionStatus.State.items()}
        return {status.version: names.get(status.state, str(status.state)) for status in response.model_version_status}

    def close(self) -> None:
        """See `Transport.close`."""
        self._closed = True
        self._channel.close()

    def _call(self, method: Any, request: Any, deadline: Deadline) -> Any:
        return ask_until_answered(lambda: self._ask(method, request, deadline), self.address, deadline, self._attempts)

    def _ask(self, method: Any, request: Any, deadline: Deadline) -> Any:
        try:
            # gRPC's time-out holds for everything: looking the name up, connecting, sending and receiving.
            return method(request, timeout=deadline.left())
        except grpc.RpcError as error:
            if self._closed:
                raise closed_error(self.address) from error
            raise self._explain(error.code(), error.details() or "", deadline) from error
        except ValueError as error:
            if self._closed:
                raise closed_error(self.address) from error
            raise

    def _explain(self, code: grpc.StatusCode, details: str, deadline: Deadline) -> Exception:
        if code == grpc.StatusCode.UNAVAILABLE:
            return self._explain_unavailable(details)
        if code == grpc.StatusCode.DEADLINE_EXCEEDED:
            # A server may have a shorter time limit of its own, and say so; the other words are gRPC's.
            if deadline.is_over() or details == "Deadline Exceeded":
                return DeadlineExceeded()
            return self._refused(ServingClientError, code, details)
        if code == grpc.StatusCode.UNIMPLEMENTED:
            return ServingClientError(
                f"The server at {self.address} does not answer as a model server does: {details}. Is {self.address} a "
                "model server's gRPC port?"
            )
        kind = ModelNotFoundError if code == grpc.StatusCode.NOT_FOUND else ServingClientError
        return self._refused(kind, code, details)

    def _refused(self, kind: type[ServingClientError], code: grpc.StatusCode, details: str) -> ServingClientError:
        return kind(f"The server at {self.address} refused ({code.name}): {details}")

    def _explain_unavailable(self, details: str) -> ServingClientError:
        """Tells apart what gRPC calls UNAVAILABLE, a server's own word and whatever keeps a call from the server.

        Only the text says which it is. With words that are not known here, the whole text is in the message.
        """
        if details.startswith(("errors resolving", "DNS resolution failed")):
            return ServerUnreachableError(f"The host name of {self.address} is not found ({details}). Check the host.")
        if "Failed parsing HTTP/2" in details or "http1.x server" in details:
            return ServingClientError(
                f"What answers at {self.address} does not speak gRPC. Is {self.address} a model server's gRPC port, or "
                "its REST port?"
            )
        if details.startswith("failed to connect to all addresses"):
            if "Connection refused" in details:
                return ServerUnreachableError(
                    f"No server listens at {self.address} (gRPC): connection refused. Check that the model server "
                    "runs, and its host and gRPC port."
                )
            if any(end in details for end in _CONNECTION_ENDS):
                return ServerUnavailableError(
                    f"What listens at {self.address} breaks gRPC's connections off. Check that the model server still "
                    f"runs, and that {self.address} is its gRPC port, not REST and without TLS."
                )
            return ServerUnreachableError(
                f"There is no way to {self.address} (gRPC): {details}. Check host, port and network."
            )
        if details.startswith("Stream removed") or details in _CONNECTION_ENDS:
            return ServerUnavailableError(
                f"The server at {self.address} broke the connection off before its answer was complete ({details}). "
                "Check that it still runs."
            )
        return ServerUnavailableError(f"The server at {self.address} says that it is unavailable: {details}")
