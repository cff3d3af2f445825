"""Connection over TensorFlow Serving's REST API; needs no TensorFlow."""

import json
from collections.abc import Mapping
from http.client import BadStatusLine, RemoteDisconnected
from typing import Any
from urllib.parse import quote

import numpy as np
from urllib3 import BaseHTTPResponse, HTTPConnectionPool, Retry
from urllib3.exceptions import ClosedPoolError, HTTPError, InvalidHeader, ProtocolError

from serving.client import arguments
from serving.client.deadline import Deadline, ask_until_answered
from serving.client.errors import ModelNotFoundError, ServerUnavailableError, ServingClientError, closed_error
from serving.client.http_connection import DeadlineConnection, current_deadline
from serving.client.json_arrays import from_json_values, to_json_values
from serving.client.transport import DEFAULT_ATTEMPTS

_SHOWN_CHARACTERS = 80

# Connections that are kept for the next calls. When more threads than these ask at once, urllib3 logs a warning.
_KEPT_CONNECTIONS = 100


class _Pool(HTTPConnectionPool):
    # Unlike requests, urllib3 ignores the environment's web proxy, which would not reach this machine's own ports.
    ConnectionCls = DeadlineConnection


class RestTransport:
    """See `Transport`.

    Args:
      host: Host of the server.
      port: REST port of the server.
      deadline_seconds: Seconds within which an answer must be there, all attempts and pauses between them together.
      attempts: Maximum number of attempts when the server cannot be reached or is unavailable.
    """

    def __init__(self, host: str, port: int, deadline_seconds: float, attempts: int = DEFAULT_ATTEMPTS) -> None:
        self.address = arguments.address(host, port)
        self._deadline_seconds = arguments.seconds("deadline_seconds", deadline_seconds)
        self._attempts = arguments.attempts(attempts)
        self._pool = _Pool(self.address.rpartition(":")[0], int(port), maxsize=_KEPT_CONNECTIONS)
        self._closed = False

    def predict(self, model: str, inputs: Mapping[str, np.ndarray], signature_name: str = "") -> dict[str, np.ndarray]:
        """See `Transport.predict`."""
        deadline = Deadline(self._deadline_seconds)
        body: dict[str, Any] = {"inputs": {name: to_json_values(array) for name, array in inputs.items()}}
        if signature_name:
            body["signature_name"] = signature_name
        answer = self._call("POST", f"{_path(model)}:predict", deadline, json.dumps(body).encode())
        if "outputs" not in answer:
            raise self._not_a_model_server(f"an object with the keys {sorted(answer)} and without outputs")
        outputs = answer["outputs"]
        try:
            # A signature's only output comes without its name, and may be a single value in base64.
            named = isinstance(outputs, dict) and set(outputs) != {"b64"}
            by_name = outputs if named else {"output": outputs}
            return {name: from_json_values(values) for name, values in by_name.items()}
        except ValueError as error:
            raise self._not_a_model_server(f"outputs that are no tensors ({error})") from error

    def states(self, model: str, at_most_seconds: float | None = None) -> dict[int, str]:
        """See `Transport.states`."""
        deadline = Deadline(min(self._deadline_seconds, at_most_seconds or self._deadline_seconds))
        answer = self._call("GET", _path(model), deadline)
        try:
            return {int(status["version"]): str(status["state"]) for status in answer["model_version_status"]}
        except (KeyError, TypeError, ValueError) as error:
            raise self._not_a_model_server(f"{_excerpt(json.dumps(answer))}, without the states of versions") from error

    def close(self) -> None:
        """See `Transport.close`."""
        self._closed = True
        self._pool.close()

    def _call(self, method: str, path: str, deadline: Deadline, body: bytes | None = None) -> dict[str, Any]:
        return ask_until_answered(
            lambda: self._read(self._ask(method, path, deadline, body)), self.address, deadline, self._attempts
        )

    def _ask(self, method: str, path: str, deadline: Deadline, body: bytes | None) -> BaseHTTPResponse:
        if self._closed:
            raise closed_error(self.address)
        current_deadline.set(deadline)
        headers = {"Accept": "application/json", "Content-Type": "application/json"}
        try:
            return self._pool.urlopen(method, path, body, headers, retries=False, redirect=False)
        except ClosedPoolError as error:
            raise closed_error(self.address) from error
        except HTTPError as error:
            cause = error.args[-1] if isinstance(error, ProtocolError) else None
            if isinstance(cause, BadStatusLine) and not isinstance(cause, RemoteDisconnected):
                raise ServingClientError(
                    f"What answers at {self.address} does not speak HTTP. Is {self.address} a model server's REST "
                    "port, or its gRPC port, or one with TLS?"
                ) from error
            raise ServerUnavailableError(
                f"The server at {self.address} broke the connection off before its answer was complete ({error}). "
                f"Check that it still runs, and that {self.address} is its REST port, not gRPC and without TLS."
            ) from error

    def _read(self, response: BaseHTTPResponse) -> dict[str, Any]:
        """Returns the JSON object in a response, unless it says that something is wrong."""
        try:
            answer = json.loads(response.data)
        except (ValueError, RecursionError):
            answer = None
        message = answer.get("error") if isinstance(answer, dict) else None
        if response.status == 503:
            reason = message or _excerpt(response.data.decode(errors="replace"))
            raise ServerUnavailableError(
                f"The server at {self.address} says that it is unavailable: {reason}", _retry_after(response)
            )
        if not isinstance(answer, dict):
            received = _excerpt(response.data.decode(errors="replace"))
            raise ServingClientError(
                f"The server at {self.address} should answer in JSON, with an object; received status "
                f"{response.status} and {received!r}. Is {self.address} a model server's REST port?"
            )
        if response.status == 200:
            return answer
        if not isinstance(message, str):
            raise self._not_a_model_server(f"status {response.status} and {_excerpt(json.dumps(answer))}")
        kind = ModelNotFoundError if response.status == 404 else ServingClientError
        raise kind(f"The server at {self.address} refused ({response.status}): {message}")

    def _not_a_model_server(self, received: str) -> ServingClientError:
        return ServingClientError(
            f"The server at {self.address} does not answer as a model server does: received {received}. "
            f"Is {self.address} a model server's REST port?"
        )


def _path(model: str) -> str:
    return f"/v1/models/{quote(arguments.model_name(model), safe='')}"


def _retry_after(response: BaseHTTPResponse) -> float:
    """Returns the seconds that the header Retry-After asks for, as a number or as a date; 0 without it."""
    try:
        return Retry().get_retry_after(response) or 0.0
    except (InvalidHeader, ValueError, OverflowError):
        # The last two for dates and numbers that Python cannot hold.
        return 0.0


def _excerpt(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]}…"
