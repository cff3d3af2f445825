"""TensorFlow Serving's PredictionService and ModelService over gRPC."""

import functools
import logging
from collections.abc import Callable
from typing import Any

import grpc
from google.protobuf import message as protobuf
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
)

from serving.local.errors import ServingError, invalid_argument, unimplemented
from serving.local.input_checks import check_inputs, check_names
from serving.local.limits import Limits
from serving.local.loaded_model import DEFAULT_SIGNATURE, LoadedModel
from serving.local.model_store import ModelStore
from serving.local.tensor_protos import from_proto, spec_of, to_proto

logger = logging.getLogger(__name__)

SIGNATURE_DEF = "signature_def"


def find_model(store: ModelStore[LoadedModel], spec: model_pb2.ModelSpec) -> LoadedModel:
    """Returns the model that a request asks for.

    Raises:
      ServingError: NOT_FOUND when there is no such model or version; INVALID_ARGUMENT when the request names no model,
        or names a version label, which this server does not support.
    """
    return store.get(spec.name, _requested_version(spec))


def model_metadata(
    store: ModelStore[LoadedModel], request: get_model_metadata_pb2.GetModelMetadataRequest
) -> get_model_metadata_pb2.GetModelMetadataResponse:
    """Returns the signatures of a model.

    Raises:
      ServingError: There is no such model, or the request asks for metadata other than `signature_def`.
    """
    _require_model_spec(request)
    if not request.metadata_field:
        raise invalid_argument("GetModelMetadataRequest must specify at least one metadata_field")
    for field in request.metadata_field:
        if field != SIGNATURE_DEF:
            raise invalid_argument(f"Metadata field {field} is not supported")
    model = find_model(store, request.model_spec)
    signatures = get_model_metadata_pb2.SignatureDefMap(signature_def=dict(model.signature_defs))
    response = get_model_metadata_pb2.GetModelMetadataResponse()
    response.model_spec.CopyFrom(_model_spec(model))
    response.metadata[SIGNATURE_DEF].Pack(signatures)
    return response


def model_status(
    store: ModelStore[LoadedModel], request: get_model_status_pb2.GetModelStatusRequest
) -> get_model_status_pb2.GetModelStatusResponse:
    """Returns the state of one or all versions of a model.

    Raises:
      ServingError: There is no such model or version.
    """
    _require_model_spec(request)
    version_status = get_model_status_pb2.ModelVersionStatus
    response = get_model_status_pb2.GetModelStatusResponse()
    for status in store.status(request.model_spec.name, _requested_version(request.model_spec)):
        response.model_version_status.add(
            version=status.version,
            state=version_status.State.Value(status.state),
            status={"error_code": status.code.value[0], "error_message": status.message},
        )
    return response


class PredictionService(prediction_service_pb2_grpc.PredictionServiceServicer):
    """Answers Predict and GetModelMetadata; Classify, Regress and MultiInference are unimplemented.

    Those three need classification or regression signatures, which the models do not have.

    Args:
      store: The models.
      limits: What a request may ask for.
    """

    def __init__(self, store: ModelStore[LoadedModel], limits: Limits) -> None:
        self._store = store
        self._limits = limits

    def Predict(self, request: predict_pb2.PredictRequest, context: grpc.ServicerContext) -> protobuf.Message:
        return _answer(self._predict, request, context)

    def GetModelMetadata(self, request: Any, context: grpc.ServicerContext) -> protobuf.Message:
        return _answer(functools.partial(model_metadata, self._store), request, context)

    def Classify(self, request: Any, context: grpc.ServicerContext) -> protobuf.Message:
        return _answer(_unimplemented("Classify"), request, context)

    def Regress(self, request: Any, context: grpc.ServicerContext) -> protobuf.Message:
        return _answer(_unimplemented("Regress"), request, context)

    def MultiInference(self, request: Any, context: grpc.ServicerContext) -> protobuf.Message:
        return _answer(_unimplemented("MultiInference"), request, context)

    def _predict(self, request: predict_pb2.PredictRequest) -> predict_pb2.PredictResponse:
        _require_model_spec(request)
        model = find_model(self._store, request.model_spec)
        signature_name = request.model_spec.signature_name or DEFAULT_SIGNATURE
        # The names first, because a request can have hundreds of thousands of them.
        check_names(model.signature(signature_name), request.inputs)
        specs = {name: spec_of(name, proto) for name, proto in request.inputs.items()}
        check_inputs(model.signature(signature_name), specs, self._limits)
        inputs = {name: from_proto(name, proto) for name, proto in request.inputs.items()}
        outputs = model.predict(inputs, signature_name, request.output_filter)
        response = predict_pb2.PredictResponse(outputs={name: to_proto(array) for name, array in outputs.items()})
        response.model_spec.CopyFrom(_model_spec(model))
        response.model_spec.signature_name = signature_name
        return response


class ModelService(model_service_pb2_grpc.ModelServiceServicer):
    """Answers GetModelStatus; no call can change which models are served, because the server follows the folder."""

    def __init__(self, store: ModelStore[LoadedModel]) -> None:
        self._store = store

    def GetModelStatus(self, request: Any, context: grpc.ServicerContext) -> protobuf.Message:
        return _answer(functools.partial(model_status, self._store), request, context)

    def HandleReloadConfigRequest(self, request: Any, context: grpc.ServicerContext) -> protobuf.Message:
        return _answer(_unimplemented("HandleReloadConfigRequest"), request, context)


def _answer(
    handler: Callable[[Any], protobuf.Message], request: Any, context: grpc.ServicerContext
) -> protobuf.Message:
    try:
        if isinstance(request, protobuf.DecodeError):
            raise ServingError(grpc.StatusCode.INTERNAL, f"Failed to parse the request: {request}")
        return handler(request)
    except ServingError as error:
        code, message = error.code, error.message
    except Exception as error:  # the client still gets a status; the log gets the traceback
        logger.exception("A request failed unexpectedly")
        code, message = grpc.StatusCode.INTERNAL, f"{type(error).__name__}: {error}"
    context.abort(code, message)
    raise AssertionError("context.abort always raises")


def _unimplemented(method: str) -> Callable[[Any], protobuf.Message]:
    def handler(_: Any) -> protobuf.Message:
        raise unimplemented(f"{method} is not implemented by this server; its models have Predict signatures only.")

    return handler


def _require_model_spec(request: Any) -> None:
    if not request.HasField("model_spec"):
        raise invalid_argument("Missing ModelSpec")


def _requested_version(spec: model_pb2.ModelSpec) -> int | None:
    if spec.version_label:
        raise invalid_argument(f"Unrecognized servable version label: {spec.version_label}")
    return spec.version.value if spec.HasField("version") else None


def _model_spec(model: LoadedModel) -> model_pb2.ModelSpec:
    return model_pb2.ModelSpec(name=model.name, version={"value": model.version})
