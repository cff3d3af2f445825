"""TensorFlow Serving's REST API as a WSGI application.

Source: https://www.tensorflow.org/tfx/serving/api_rest
"""

import json
import logging
import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import grpc
from google.protobuf import json_format
from tensorflow_serving.apis import get_model_metadata_pb2, get_model_status_pb2, model_pb2
from werkzeug.wrappers import Request, Response

from serving.local.errors import ServingError, invalid_argument, not_found, unimplemented
from serving.local.grpc_service import SIGNATURE_DEF, find_model, model_metadata, model_status
from serving.local.json_tensors import parse_body, read_inputs, write_outputs
from serving.local.limits import Limits
from serving.local.loaded_model import DEFAULT_SIGNATURE, LoadedModel
from serving.local.model_store import ModelStore

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

logger = logging.getLogger(__name__)

JSON_TYPE = "application/json"

_MODEL = r"/v1/models/(?P<name>[^/:]+)(?:/versions/(?P<version>[0-9]+)|/labels/(?P<label>[^/:]+))?"
_PREDICTION = re.compile(rf"{_MODEL}:(?P<method>classify|regress|predict)", re.IGNORECASE)
_METADATA = re.compile(rf"{_MODEL}/metadata", re.IGNORECASE)
_STATUS = re.compile(_MODEL, re.IGNORECASE)

_HTTP_STATUS = {
    grpc.StatusCode.CANCELLED: 499,
    grpc.StatusCode.INVALID_ARGUMENT: 400,
    grpc.StatusCode.DEADLINE_EXCEEDED: 504,
    grpc.StatusCode.NOT_FOUND: 404,
    grpc.StatusCode.ALREADY_EXISTS: 409,
    grpc.StatusCode.PERMISSION_DENIED: 403,
    grpc.StatusCode.RESOURCE_EXHAUSTED: 429,
    grpc.StatusCode.FAILED_PRECONDITION: 400,
    grpc.StatusCode.ABORTED: 409,
    grpc.StatusCode.OUT_OF_RANGE: 400,
    grpc.StatusCode.UNIMPLEMENTED: 501,
    grpc.StatusCode.UNAVAILABLE: 503,
    grpc.StatusCode.UNAUTHENTICATED: 401,
}


class RestApplication:
    """Answers `GET` for status and metadata and `POST` for predictions; every answer is a JSON object.

    Args:
      store: The models.
      limits: What a request may ask for.
    """

    def __init__(self, store: ModelStore[LoadedModel], limits: Limits) -> None:
        self._store = store
        self._limits = limits

    def __call__(self, environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        """Serves one request."""
        status = 200
        try:
            body = self._dispatch(Request(environ))
        except ServingError as error:
            status, body = _HTTP_STATUS.get(error.code, 500), _dump({"error": error.message})
        except Exception as error:  # the client still gets JSON; the log gets the traceback
            logger.exception("A request failed unexpectedly")
            status, body = 500, _dump({"error": f"{type(error).__name__}: {error}"})
        response = Response(body, status=status, content_type=JSON_TYPE)
        return response(environ, start_response)

    def _dispatch(self, request: Request) -> bytes:
        if request.method == "POST" and (match := _PREDICTION.fullmatch(request.path)):
            if match["method"].lower() != "predict":
                raise unimplemented(f"{match['method']} is not implemented by this server; use predict.")
            return self._predict(_model_spec(match), request.get_data())
        if request.method == "GET" and (match := _METADATA.fullmatch(request.path)):
            return _dump(self._metadata(_model_spec(match)))
        if request.method == "GET" and (match := _STATUS.fullmatch(request.path)):
            status = model_status(
                self._store, get_model_status_pb2.GetModelStatusRequest(model_spec=_model_spec(match))
            )
            return _dump(_to_json(status))
        if not request.path.lower().startswith("/v1/"):
            raise not_found(f"Unknown path: {request.path}; the API is under /v1/models/.")
        raise invalid_argument(f"Malformed request: {request.method} {request.path}")

    def _predict(self, spec: model_pb2.ModelSpec, body: bytes) -> bytes:
        document = parse_body(body)
        model = find_model(self._store, spec)
        name = document.get("signature_name") or DEFAULT_SIGNATURE
        if name not in model.functions:
            raise invalid_argument(f'Serving signature name: "{name}" not found in signature def')
        inputs, answer_format = read_inputs(document, model.signature(name), self._limits)
        return write_outputs(model.predict(inputs, name), answer_format)

    def _metadata(self, spec: model_pb2.ModelSpec) -> dict[str, Any]:
        request = get_model_metadata_pb2.GetModelMetadataRequest(model_spec=spec, metadata_field=[SIGNATURE_DEF])
        response = model_metadata(self._store, request)
        signatures = get_model_metadata_pb2.SignatureDefMap()
        response.metadata[SIGNATURE_DEF].Unpack(signatures)
        return {
            "model_spec": {
                "name": response.model_spec.name,
                "signature_name": "",
                "version": str(response.model_spec.version.value),
            },
            "metadata": {SIGNATURE_DEF: _to_json(signatures)},
        }


def _model_spec(match: re.Match[str]) -> model_pb2.ModelSpec:
    spec = model_pb2.ModelSpec(name=match["name"])
    if match["version"]:
        # The length first, because Python refuses to read numbers of thousands of digits.
        version = int(match["version"]) if len(match["version"]) < 20 else 2**63
        if version >= 2**63:
            raise invalid_argument(f"Failed to convert version: {match['version']} to numeric.")
        spec.version.value = version
    elif match["label"]:
        spec.version_label = match["label"]
    return spec


def _dump(answer: dict[str, Any]) -> bytes:
    return json.dumps(answer).encode()


def _to_json(message: Any) -> dict[str, Any]:
    return json_format.MessageToDict(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
