"""Connections to a model server over gRPC or REST, with the same methods and the same exceptions."""

import json
from collections.abc import Mapping
from typing import Any, Protocol

import grpc
import numpy as np
import requests
from requests.adapters import HTTPAdapter
from urllib3.util import Retry

DEFAULT_ATTEMPTS = 4

_BACKOFF_SECONDS = 0.1
_MAX_BACKOFF_SECONDS = 2.0


class ServingClientError(Exception):
    """A call to a model server that failed; the message says where and why."""


class ServerUnreachableError(ServingClientError):
    """No server answers at that address."""


class ModelNotFoundError(ServingClientError):
    """The server has no such model or version."""


class Transport(Protocol):
    """A connection to a model server."""

    def predict(self, model: str, inputs: Mapping[str, np.ndarray], signature_name: str = "") -> dict[str, np.ndarray]:
        """Calls a signature of a model; takes and returns arrays by name, with text as bytes objects."""
        ...

    def states(self, model: str) -> dict[int, str]:
        """Returns the state of every version of a model, for example {3: "AVAILABLE"}."""
        ...

    def close(self) -> None:
        """Closes the connection."""
        ...


class RestTransport:
    """Connection over TensorFlow Serving's REST API; needs no TensorFlow.

    Args:
      host: Host of the server.
      port: REST port of the server.
      deadline_seconds: Seconds within which the server must answer, in each attempt.
      attempts: Maximum number of attempts when the server cannot be reached or is unavailable.
    """

    def __init__(self, host: str, port: int, deadline_seconds: float, attempts: int = DEFAULT_ATTEMPTS) -> None:
        self._address = f"{host}:{port}"
        self._deadline_seconds = deadline_seconds
        self._session = requests.Session()
        # Ignores the environment's proxy settings: a web proxy would not reach this machine's own ports.
        self._session.trust_env = False
        retry = Retry(
            total=attempts - 1,
            # No retry after a timeout, because the next answer would be late too; False (unlike 0) re-raises the
            # timeout itself, so that `_call` can report it as one.
            read=False,
            backoff_factor=_BACKOFF_SECONDS,
            backoff_max=_MAX_BACKOFF_SECONDS,
            status_forcelist=(503,),
            allowed_methods=None,
            raise_on_status=False,
        )
        self._session.mount("http://", HTTPAdapter(max_retries=retry))

    def predict(self, model: str, inputs: Mapping[str, np.ndarray], signature_name: str = "") -> dict[str, np.ndarray]:
        """See `Transport.predict`."""
        body: dict[str, Any] = {"inputs": {name: _to_json_values(array) for name, array in inputs.items()}}
        if signature_name:
            body["signature_name"] = signature_name
        answer = self._call("POST", f"{model}:predict", json.dumps(body))["outputs"]
        outputs = answer if isinstance(answer, dict) else {"output": answer}
        return {name: _from_json_values(values) for name, values in outputs.items()}

    def states(self, model: str) -> dict[int, str]:
        """See `Transport.states`."""
        statuses = self._call("GET", model)["model_version_status"]
        return {int(status["version"]): status["state"] for status in statuses}

    def close(self) -> None:
        """See `Transport.close`."""
        self._session.close()

    def _call(self, method: str, path: str, body: str | None = None) -> dict[str, Any]:
        url = f"http://{self._address}/v1/models/{path}"
        try:
            response = self._session.request(method, url, data=body, timeout=self._deadline_seconds)
        except requests.Timeout as error:
            raise ServingClientError(
                f"The server at {self._address} should answer within {self._deadline_seconds:g} s; it did not."
            ) from error
        except requests.RequestException as error:
            raise ServerUnreachableError(f"No model server answers at {self._address} (REST).") from error
        try:
            answer = response.json()
        except requests.JSONDecodeError as error:
            raise ServingClientError(
                f"The server at {self._address} should answer in JSON; received status {response.status_code} and "
                f"{response.text[:80]!r}. Is {self._address} a model server's REST port?"
            ) from error
        if response.ok:
            return answer
        kind = ModelNotFoundError if response.status_code == 404 else ServingClientError
        raise kind(f"The server at {self._address} refused: {answer.get('error', answer)}")


class GrpcTransport:
    """Connection over TensorFlow Serving's gRPC API; imports TensorFlow, because the gRPC stubs need it.

    Args:
      host: Host of the server.
      port: gRPC port of the server.
      deadline_seconds: Seconds within which the server must answer, all attempts and pauses between them together.
      attempts: Maximum number of attempts when the server cannot be reached or is unavailable.
    """

    def __init__(self, host: str, port: int, deadline_seconds: float, attempts: int = DEFAULT_ATTEMPTS) -> None:
        from tensorflow_serving.apis import model_service_pb2_grpc, prediction_service_pb2_grpc

        self._address = f"{host}:{port}"
        self._deadline_seconds = deadline_seconds
        options: list[tuple[str, Any]] = [("grpc.enable_http_proxy", 0), ("grpc.max_receive_message_length", -1)]
        if attempts > 1:
            retry = {
                "maxAttempts": attempts,
                "initialBackoff": f"{_BACKOFF_SECONDS}s",
                "maxBackoff": f"{_MAX_BACKOFF_SECONDS}s",
                "backoffMultiplier": 2,
                "retryableStatusCodes": ["UNAVAILABLE"],
            }
            config = {"methodConfig": [{"name": [{}], "retryPolicy": retry}]}
            options.append(("grpc.service_config", json.dumps(config)))
        self._channel = grpc.insecure_channel(self._address, options=options)
        self._predictions = prediction_service_pb2_grpc.PredictionServiceStub(self._channel)
        self._models = model_service_pb2_grpc.ModelServiceStub(self._channel)

    def predict(self, model: str, inputs: Mapping[str, np.ndarray], signature_name: str = "") -> dict[str, np.ndarray]:
        """See `Transport.predict`."""
        import tensorflow as tf
        from tensorflow_serving.apis import predict_pb2

        request = predict_pb2.PredictRequest(
            model_spec={"name": model, "signature_name": signature_name},
            inputs={name: tf.make_tensor_proto(array) for name, array in inputs.items()},
        )
        response = self._call(self._predictions.Predict, request)
        return {name: tf.make_ndarray(proto) for name, proto in response.outputs.items()}

    def states(self, model: str) -> dict[int, str]:
        """See `Transport.states`."""
        from tensorflow_serving.apis import get_model_status_pb2

        request = get_model_status_pb2.GetModelStatusRequest(model_spec={"name": model})
        response = self._call(self._models.GetModelStatus, request)
        state_name = get_model_status_pb2.ModelVersionStatus.State.Name
        return {status.version: state_name(status.state) for status in response.model_version_status}

    def close(self) -> None:
        """See `Transport.close`."""
        self._channel.close()

    def _call(self, method: Any, request: Any) -> Any:
        try:
            return method(request, timeout=self._deadline_seconds)
        except grpc.RpcError as error:
            code, details = error.code(), error.details()
            if code == grpc.StatusCode.UNAVAILABLE:
                raise ServerUnreachableError(f"No model server answers at {self._address} (gRPC).") from error
            if code == grpc.StatusCode.DEADLINE_EXCEEDED:
                raise ServingClientError(
                    f"The server at {self._address} should answer within {self._deadline_seconds:g} s; it did not."
                ) from error
            kind = ModelNotFoundError if code == grpc.StatusCode.NOT_FOUND else ServingClientError
            raise kind(f"The server at {self._address} refused ({code.name}): {details}") from error


def _to_json_values(array: np.ndarray) -> Any:
    if array.dtype.kind in "SO":
        return np.vectorize(bytes.decode, otypes=[object])(array).tolist()
    return array.tolist()


def _from_json_values(values: Any) -> np.ndarray:
    array = np.array(values)
    if array.dtype.kind == "U":
        return np.array([text.encode() for text in array.ravel().tolist()], dtype=object).reshape(array.shape)
    return array
