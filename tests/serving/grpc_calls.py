"""Calls a server over gRPC with TensorFlow Serving's own stubs."""

import grpc
import tensorflow as tf
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    inference_pb2,
    model_management_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
    regression_pb2,
)


class GrpcCalls:
    def __init__(self, port):
        self.channel = grpc.insecure_channel(f"127.0.0.1:{port}")
        self.predictions = prediction_service_pb2_grpc.PredictionServiceStub(self.channel)
        self.models = model_service_pb2_grpc.ModelServiceStub(self.channel)

    def predict_raw(self, request):
        return self.predictions.Predict(request, timeout=20)

    def predict(self, model, inputs, output_filter=(), **spec):
        request = predict_pb2.PredictRequest(
            model_spec={"name": model, **spec},
            inputs={name: tf.make_tensor_proto(value) for name, value in inputs.items()},
            output_filter=output_filter,
        )
        return self.predict_raw(request)

    def metadata(self, model, fields=("signature_def",)):
        request = get_model_metadata_pb2.GetModelMetadataRequest(model_spec={"name": model}, metadata_field=fields)
        return self.predictions.GetModelMetadata(request, timeout=20)

    def status(self, model, **spec):
        request = get_model_status_pb2.GetModelStatusRequest(model_spec={"name": model, **spec})
        return self.models.GetModelStatus(request, timeout=20)

    def unimplemented(self):
        """A call for every method that this server does not implement, by the method's name."""
        return {
            "Classify": lambda: self.predictions.Classify(classification_pb2.ClassificationRequest()),
            "Regress": lambda: self.predictions.Regress(regression_pb2.RegressionRequest()),
            "MultiInference": lambda: self.predictions.MultiInference(inference_pb2.MultiInferenceRequest()),
            "HandleReloadConfigRequest": lambda: self.models.HandleReloadConfigRequest(
                model_management_pb2.ReloadConfigRequest()
            ),
        }
