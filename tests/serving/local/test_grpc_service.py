"""Over a real gRPC connection, PredictionService and ModelService answer like TensorFlow Serving."""

from concurrent.futures import ThreadPoolExecutor

import grpc
import numpy as np
import pytest

pytestmark = pytest.mark.serving

INPUTS = {
    "user_id": np.array([7, 0], np.int64),
    "history_movie_ids": np.array([[6, 5], [0, 0]], np.int64),
    "history_ratings": np.array([[1, 2], [0, 0]], np.float32),
}


@pytest.fixture(scope="module")
def calls(server):
    from tests.serving.grpc_calls import GrpcCalls

    calls = GrpcCalls(server.port)
    yield calls
    calls.channel.close()


def status_and_details(call):
    """The status code and the message with which the server refuses a call."""
    with pytest.raises(grpc.RpcError) as caught:
        call()
    return caught.value.code(), caught.value.details()


def test_predict_returns_all_outputs_and_the_model_version(calls):
    import tensorflow as tf

    response = calls.predict("recommender", INPUTS)
    outputs = {name: tf.make_ndarray(proto) for name, proto in response.outputs.items()}
    np.testing.assert_array_equal(outputs["movie_id"], [[4, 3, 2, 1], [6, 5, 4, 3]])
    assert outputs["title"][0, 0].decode() == "Movie é 4"
    np.testing.assert_allclose(outputs["predicted_rating"][:, 0], [0.073, 0.0], rtol=1e-6)
    assert outputs["retrieval_score"].dtype == np.float32
    spec = response.model_spec
    assert (spec.name, spec.version.value, spec.signature_name) == ("recommender", 1, "serving_default")


def test_outputs_come_in_typed_fields_as_from_tensorflow_serving(calls):
    response = calls.predict("recommender", INPUTS)
    assert list(response.outputs["movie_id"].int64_val) == [4, 3, 2, 1, 6, 5, 4, 3]
    assert len(response.outputs["predicted_rating"].float_val) == 8
    assert response.outputs["title"].string_val[0] == "Movie é 4".encode()


def test_an_empty_history_may_have_no_columns(calls):
    inputs = {
        "user_id": np.array([7], np.int64),
        "history_movie_ids": np.zeros([1, 0], np.int64),
        "history_ratings": np.zeros([1, 0], np.float32),
    }
    assert list(calls.predict("recommender", inputs).outputs["movie_id"].int64_val) == [6, 5, 4, 3]


def test_predict_takes_a_signature_name_and_a_version(calls):
    response = calls.predict("ranking", {"examples": [b"abc"]}, signature_name="evaluate", version={"value": 7})
    assert list(response.outputs["length"].int_val) == [6]
    assert response.model_spec.signature_name == "evaluate"


def test_predict_returns_only_filtered_outputs(calls):
    response = calls.predict("ranking", {"examples": [b"drama", b"?"]}, output_filter=["index"])
    assert set(response.outputs) == {"index"}
    assert list(response.outputs["index"].int64_val) == [1, -1]


@pytest.mark.parametrize(
    ("model", "spec", "code", "message"),
    [
        ("nothing", {}, "NOT_FOUND", "Servable not found for request: Latest(nothing)"),
        ("ranking", {"version": {"value": 8}}, "NOT_FOUND", "Servable not found for request: Specific(ranking, 8)"),
        ("ranking", {"version_label": "stable"}, "INVALID_ARGUMENT", "Unrecognized servable version label: stable"),
        ("ranking", {"signature_name": "no"}, "FAILED_PRECONDITION", 'Serving signature key "no" not found.'),
        ("", {}, "INVALID_ARGUMENT", "ModelSpec has no name specified."),
    ],
)
def test_an_unknown_model_version_label_or_signature_is_refused(calls, model, spec, code, message):
    assert status_and_details(lambda: calls.predict(model, {"examples": [b"x"]}, **spec)) == (
        grpc.StatusCode[code],
        message,
    )


def test_a_request_without_a_model_is_refused(calls):
    from tensorflow_serving.apis import predict_pb2

    code, message = status_and_details(lambda: calls.predict_raw(predict_pb2.PredictRequest()))
    assert (code, message) == (grpc.StatusCode.INVALID_ARGUMENT, "Missing ModelSpec")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"user_id": np.array([7, 0], np.int32)}, ["user_id", "int64", "int32"]),
        ({"user_id": np.array([[7, 0]], np.int64)}, ["user_id", "[-1]", "[1,2]"]),
        ({"user_id": None}, ["Missing but required: {user_id}"]),
        ({"age": np.array([1])}, ["Sent extra: {age}"]),
        ({"user_id": None, "user": np.array([7], np.int64)}, ["not found in signature: user"]),
        # The signature allows these shapes, but the model cannot combine 3 rows with 2.
        (
            {"history_movie_ids": np.zeros([3, 2], np.int64)},
            ["ncompatible", "history_movie_ids has 3", "user_id has 2"],
        ),
    ],
)
def test_inputs_that_do_not_match_the_signature_are_refused(calls, changes, words):
    inputs = {name: value for name, value in (INPUTS | changes).items() if value is not None}
    code, message = status_and_details(lambda: calls.predict("recommender", inputs))
    assert code == grpc.StatusCode.INVALID_ARGUMENT
    for word in words:
        assert word in message


@pytest.mark.parametrize(
    ("output_filter", "message"),
    [(["nope"], "output tensor alias not found in signature: nope"), (["index", "index"], "duplicate output tensor")],
)
def test_unknown_or_duplicate_outputs_are_refused(calls, output_filter, message):
    code, details = status_and_details(
        lambda: calls.predict("ranking", {"examples": [b"x"]}, output_filter=output_filter)
    )
    assert code == grpc.StatusCode.INVALID_ARGUMENT
    assert message in details


def test_a_tensor_with_more_values_than_its_shape_is_refused(calls):
    from tensorflow_serving.apis import predict_pb2

    request = predict_pb2.PredictRequest(model_spec={"name": "ranking"})
    request.inputs["examples"].dtype = 7
    request.inputs["examples"].tensor_shape.dim.add(size=3)
    request.inputs["examples"].string_val.extend([b"a", b"b", b"c", b"d"])
    code, message = status_and_details(lambda: calls.predict_raw(request))
    assert code == grpc.StatusCode.INVALID_ARGUMENT
    assert message.startswith("tensor parsing error: examples")


@pytest.mark.parametrize(
    ("name", "sizes", "limit"),
    [
        ("user_id", [65536], "at most 256 rows"),
        ("history_movie_ids", [2**40, 0], "at most 256 rows"),
        ("history_movie_ids", [2, 2**40], "at most 1048576 values"),
        ("history_movie_ids", [0, 2**40], "at most 1048576 values"),
    ],
)
def test_a_shape_larger_than_the_limits_is_refused_before_it_is_filled(calls, name, sizes, limit):
    import tensorflow as tf
    from tensorflow_serving.apis import predict_pb2

    request = predict_pb2.PredictRequest(
        model_spec={"name": "recommender"},
        inputs={other: tf.make_tensor_proto(value) for other, value in INPUTS.items()},
    )
    request.inputs[name].Clear()
    request.inputs[name].dtype = 9
    for size in sizes:
        request.inputs[name].tensor_shape.dim.add(size=size)
    request.inputs[name].int64_val.append(1)  # Stands for all values of the shape.
    code, message = status_and_details(lambda: calls.predict_raw(request))
    assert code == grpc.StatusCode.INVALID_ARGUMENT
    for word in (name, limit, ",".join(str(size) for size in sizes)):
        assert word in message


@pytest.mark.parametrize("sizes", [[-1], [-5]])
def test_a_shape_with_an_unknown_size_is_refused(calls, sizes):
    from tensorflow_serving.apis import predict_pb2

    request = predict_pb2.PredictRequest(model_spec={"name": "ranking"})
    request.inputs["examples"].dtype = 7
    for size in sizes:
        request.inputs["examples"].tensor_shape.dim.add(size=size)
    code, message = status_and_details(lambda: calls.predict_raw(request))
    assert code == grpc.StatusCode.INVALID_ARGUMENT
    assert message.startswith("tensor parsing error: examples")


@pytest.mark.parametrize(("example", "shown"), [(b"?", "'?'"), (b"\xff\xff", r"'\xff\xff'")])
def test_garbage_instead_of_an_example_is_an_invalid_argument(calls, example, shown):
    code, message = status_and_details(
        lambda: calls.predict("ranking", {"examples": [example]}, signature_name="parse")
    )
    assert code == grpc.StatusCode.INVALID_ARGUMENT
    assert message.startswith(f"Could not parse example input, value: {shown}")


def test_bytes_that_are_no_request_are_refused_without_a_traceback(calls, caplog):
    call = calls.channel.unary_unary("/tensorflow.serving.PredictionService/Predict")
    code, message = status_and_details(lambda: call(b"\xff\xff", timeout=20))
    assert code == grpc.StatusCode.INTERNAL
    assert "PredictRequest" in message
    assert caplog.records == []


def test_a_method_that_is_no_text_is_unimplemented_and_others_are_answered(calls):
    other = grpc.insecure_channel(calls.channel._channel.target().decode(), options=[("place", 1)])
    with other, pytest.raises(grpc.RpcError):
        other.unary_unary(b"/\xff")(b"", timeout=5)
    assert list(calls.predict("ranking", {"examples": [b"ab"]}, signature_name="evaluate").outputs) == ["length"]


def test_long_names_in_a_request_leave_room_for_the_status(calls):
    names = {f"input{number}" * 100: [b"x"] for number in range(100)}
    code, message = status_and_details(lambda: calls.predict("ranking", names))
    assert code == grpc.StatusCode.INVALID_ARGUMENT
    assert message.startswith("input size does not match signature: 100!=1")


def test_a_loaded_model_has_been_called_once(calls):
    # The first call of a graph takes long, so the server makes it before clients can.
    response = calls.predict("ranking", {"examples": [b"x"]}, signature_name="calls")
    assert list(response.outputs["calls"].int_val) == [2]


def test_metadata_has_the_signatures(calls):
    from tensorflow_serving.apis import get_model_metadata_pb2

    response = calls.metadata("ranking")
    signatures = get_model_metadata_pb2.SignatureDefMap()
    assert response.metadata["signature_def"].Unpack(signatures)
    assert {"serving_default", "evaluate"} <= set(signatures.signature_def)
    assert set(signatures.signature_def["evaluate"].outputs) == {"length"}
    assert (response.model_spec.name, response.model_spec.version.value) == ("ranking", 7)


@pytest.mark.parametrize(
    ("fields", "message"),
    [((), "must specify at least one metadata_field"), (("weights",), "weights is not supported")],
)
def test_missing_or_unknown_metadata_fields_are_refused(calls, fields, message):
    code, details = status_and_details(lambda: calls.metadata("ranking", fields))
    assert code == grpc.StatusCode.INVALID_ARGUMENT
    assert message in details


def test_status_tells_the_state_of_each_version(calls):
    from tensorflow_serving.apis import get_model_status_pb2

    (status,) = calls.status("ranking").model_version_status
    assert status.version == 7
    assert status.state == get_model_status_pb2.ModelVersionStatus.AVAILABLE
    assert status.status.error_code == 0
    assert calls.status("ranking", version={"value": 7}).model_version_status[0] == status
    assert status_and_details(lambda: calls.status("ranking", version={"value": 8}))[0] == grpc.StatusCode.NOT_FOUND
    assert status_and_details(lambda: calls.status("nothing"))[0] == grpc.StatusCode.NOT_FOUND


@pytest.mark.parametrize("method", ["Classify", "Regress", "MultiInference", "HandleReloadConfigRequest"])
def test_unimplemented_methods_say_so(calls, method):
    code, message = status_and_details(calls.unimplemented()[method])
    assert code == grpc.StatusCode.UNIMPLEMENTED
    assert method in message


def test_concurrent_calls_get_their_own_answers(calls):
    def ask(user_id):
        inputs = {
            "user_id": np.array([user_id], np.int64),
            "history_movie_ids": np.zeros([1, 0], np.int64),
            "history_ratings": np.zeros([1, 0], np.float32),
        }
        return calls.predict("recommender", inputs).outputs["predicted_rating"].float_val[0]

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(ask, range(100)))
    np.testing.assert_allclose(answers, np.arange(100) / 100, rtol=1e-6)
