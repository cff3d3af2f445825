"""The REST API answers over a real connection, in the formats that TensorFlow Serving documents."""

import base64
import json
import math
from concurrent.futures import ThreadPoolExecutor

import pytest
import requests

pytestmark = pytest.mark.serving


@pytest.fixture(scope="module")
def url(server):
    return f"http://127.0.0.1:{server.rest_port}"


def post(url, path, body):
    data = body if isinstance(body, (bytes, str)) else json.dumps(body)
    return requests.post(f"{url}/v1/models/{path}", data=data, timeout=20)


def b64(value):
    return {"b64": base64.b64encode(value).decode()}


def test_status_tells_the_state_of_each_version(url):
    response = requests.get(f"{url}/v1/models/ranking", timeout=20)
    assert response.headers["Content-Type"] == "application/json"
    ok = {"error_code": "OK", "error_message": ""}
    expected = {"model_version_status": [{"version": "7", "state": "AVAILABLE", "status": ok}]}
    assert response.json() == expected
    assert requests.get(f"{url}/v1/models/ranking/versions/7", timeout=20).json() == expected


@pytest.mark.parametrize("path", ["ranking", "ranking/versions/7"])
def test_metadata_has_the_signatures(url, path):
    answer = requests.get(f"{url}/v1/models/{path}/metadata", timeout=20).json()
    assert answer["model_spec"] == {"name": "ranking", "signature_name": "", "version": "7"}
    examples = answer["metadata"]["signature_def"]["signature_def"]["serving_default"]["inputs"]["examples"]
    assert examples["dtype"] == "DT_STRING"
    assert examples["tensor_shape"] == {"dim": [{"size": "-1", "name": ""}], "unknown_rank": False}


def test_rows_of_a_single_input_and_many_outputs(url):
    answer = post(url, "ranking:predict", {"instances": ["drama", b64(b"\xff\xef")]}).json()
    assert answer == {
        "predictions": [
            {"predicted_rating": 0.5, "index": 1, "echo_bytes": b64(b"drama")},
            {"predicted_rating": 0.2, "index": -1, "echo_bytes": b64(b"\xff\xef")},
        ]
    }


def test_columns_of_a_single_input_and_many_outputs(url):
    expected = {"outputs": {"predicted_rating": [0.5], "index": [1], "echo_bytes": [b64(b"drama")]}}
    assert post(url, "ranking:predict", {"inputs": ["drama"]}).json() == expected
    assert post(url, "ranking:predict", {"inputs": {"examples": ["drama"]}}).json() == expected


def test_a_single_output_has_no_name(url):
    body = {"signature_name": "evaluate", "instances": [{"examples": "ab"}, {"examples": "abc"}]}
    assert post(url, "ranking:predict", body).json() == {"predictions": [4, 6]}
    body = {"signature_name": "evaluate", "inputs": ["ab", "abc"]}
    assert post(url, "ranking/versions/7:predict", body).json() == {"outputs": [4, 6]}


def test_rows_and_columns_of_many_inputs_agree(url):
    rows = [
        {"user_id": 7, "history_movie_ids": [6, 5], "history_ratings": [1, 2.5]},
        {"user_id": 9, "history_movie_ids": [1, 2], "history_ratings": [0, 0]},
    ]
    columns = {name: [row[name] for row in rows] for name in rows[0]}
    by_row = post(url, "recommender:predict", {"instances": rows}).json()["predictions"]
    by_column = post(url, "recommender:predict", {"inputs": columns}).json()["outputs"]
    assert [row["movie_id"] for row in by_row] == by_column["movie_id"] == [[4, 3, 2, 1], [6, 5, 4, 3]]
    assert by_row[0]["title"][0] == by_column["title"][0][0] == "Movie é 4"
    assert by_row[0]["predicted_rating"] == by_column["predicted_rating"][0] == [0.0735] * 4


def test_nan_is_accepted_and_returned(url):
    body = '{"inputs": {"user_id": [1], "history_movie_ids": [[1]], "history_ratings": [[NaN]]}}'
    answer = post(url, "recommender:predict", body).json()["outputs"]
    assert math.isnan(answer["predicted_rating"][0][0])
    assert answer["retrieval_score"] == [[6, 5, 4, 3]]
    # Ratings of .1 have another nearest double than float32; the shortest decimal of the latter is written.
    body = '{"inputs": {"user_id": [1, 1], "history_movie_ids": [[1], [1]], "history_ratings": [[NaN], [100]]}}'
    assert post(url, "recommender:predict", body).json()["outputs"]["predicted_rating"][1] == [0.11] * 4


@pytest.mark.parametrize("document", [{"inputs": []}, {"inputs": 1}, {"instances": [1]}])
def test_a_signature_without_inputs_wants_an_object(url, document):
    response = post(url, "ranking:predict", document | {"signature_name": "single"})
    assert response.status_code == 400
    assert "expecting" in response.json()["error"]


def test_a_single_number_stays_one(url):
    answer = post(url, "ranking:predict", {"signature_name": "single", "inputs": {}}).json()
    assert answer == {"outputs": {"number": 0.2, "short": 0.5}}


def test_an_empty_history_is_accepted(url):
    body = {"inputs": {"user_id": [7], "history_movie_ids": [[]], "history_ratings": [[]]}}
    assert post(url, "recommender:predict", body).json()["outputs"]["movie_id"] == [[6, 5, 4, 3]]


@pytest.mark.parametrize(
    ("path", "body", "status", "words"),
    [
        ("nothing:predict", {"instances": ["x"]}, 404, ["Servable not found for request: Latest(nothing)"]),
        ("ranking/versions/8:predict", {"instances": ["x"]}, 404, ["Specific(ranking, 8)"]),
        ("ranking/versions/99999999999999999999:predict", {"instances": ["x"]}, 400, ["Failed to convert version"]),
        ("ranking/labels/best:predict", {"instances": ["x"]}, 400, ["Unrecognized servable version label: best"]),
        ("ranking:classify", {"examples": [{}]}, 501, ["classify"]),
        ("ranking:regress", {"examples": [{}]}, 501, ["regress"]),
        ("ranking:explain", {}, 400, ["Malformed request: POST /v1/models/ranking:explain"]),
        ("ranking:predict", b"", 400, ["JSON Parse error", "empty"]),
        ("ranking:predict", b"{", 400, ["JSON Parse error"]),
        ("ranking:predict", b"\xff", 400, ["JSON Parse error"]),
        ("ranking:predict", [], 400, ["Is not object"]),
        ("ranking:predict", {}, 400, ["Missing 'inputs' or 'instances' key"]),
        ("ranking:predict", {"instances": ["x"], "inputs": ["x"]}, 400, ["only one of"]),
        ("ranking:predict", {"instances": "x"}, 400, ["'instances' to be an list/array"]),
        ("ranking:predict", {"instances": []}, 400, ["No values in 'instances'"]),
        ("ranking:predict", {"instances": [1]}, 400, ["1", "Number", "string"]),
        ("ranking:predict", {"instances": [None]}, 400, ["Null", "string"]),
        ("ranking:predict", {"instances": [["x"]]}, 400, ["[-1]", "[1,1]"]),
        ("ranking:predict", {"instances": [{"b64": "%%"}]}, 400, ["base64"]),
        # Garbage that is no tf.Example, once as text and once as bytes that are not text.
        ("ranking:predict", {"signature_name": "parse", "instances": ["?"]}, 400, ["Could not parse example", "'?'"]),
        ("ranking:predict", {"signature_name": "parse", "instances": [{"b64": "//8="}]}, 400, [r"'\xff\xff'"]),
        ("ranking:predict", b'{"instances": ["\\ud800"]}', 400, ["examples", "not Unicode"]),
        ("ranking:predict", b'{"instances": ' + b"[" * 65 + b"]" * 65 + b"}", 400, ["examples", "[-1]"]),
        ("ranking:predict", b"[" * 900 + b"]" * 900, 400, ["Is not object"]),
        ("ranking:predict", b"[" * 9000, 400, ["JSON Parse error"]),
        ("ranking:predict", b'{"instances": [' + b"9" * 5000 + b"]}", 400, ["JSON Parse error"]),
        ("ranking/versions/" + "9" * 5000 + ":predict", {"instances": ["x"]}, 400, ["Failed to convert version"]),
        ("ranking/versions/\u0664:predict", {"instances": ["x"]}, 400, ["Malformed request"]),
        (
            "recommender:predict",
            {"inputs": {"user_id": [1], "history_movie_ids": [[1]], "history_ratings": [[1e39]]}},
            400,
            ["1e+39", "history_ratings", "float32"],
        ),
        (
            "recommender:predict",
            {"inputs": {"user_id": [1, -(2**70)], "history_movie_ids": [[], []], "history_ratings": [[], []]}},
            400,
            [str(-(2**70)), "user_id", "int64"],
        ),
        ("ranking:predict", {"instances": ["x"] * 2000}, 400, ["examples", "at most", "[2000]"]),
        ("ranking:predict", {"instances": [{"other": "x"}]}, 400, ["element: 0", "examples"]),
        ("ranking:predict", {"signature_name": 3, "instances": ["x"]}, 400, ["'signature_name'"]),
        ("ranking:predict", {"signature_name": "no", "instances": ["x"]}, 400, ['"no" not found in signature def']),
        ("recommender:predict", {"instances": [1]}, 400, ["list of objects", "user_id"]),
        ("recommender:predict", {"inputs": {"user_id": [1]}}, 400, ["Missing named input: history_movie_ids"]),
        (
            "recommender:predict",
            {"instances": [{"user_id": 1.5, "history_movie_ids": [], "history_ratings": []}]},
            400,
            ["1.5", "user_id", "int64"],
        ),
        (
            "recommender:predict",
            {"inputs": {"user_id": [2**63], "history_movie_ids": [[]], "history_ratings": [[]]}},
            400,
            ["user_id", "int64"],
        ),
        (
            "recommender:predict",
            {"inputs": {"user_id": [1, 2], "history_movie_ids": [[1, 2], [1]], "history_ratings": [[0, 0], [0]]}},
            400,
            ["history_movie_ids", "a list of 2", "a list of 1"],
        ),
        (
            "recommender:predict",
            {"inputs": {"user_id": [1, 2], "history_movie_ids": [[1]], "history_ratings": [[0]]}},
            400,
            ["history_movie_ids has 1", "user_id has 2"],
        ),
    ],
)
def test_invalid_requests_get_an_error_and_its_status(url, path, body, status, words):
    response = post(url, path, body)
    assert response.status_code == status
    answer = response.json()
    assert list(answer) == ["error"]
    for word in words:
        assert word in answer["error"]


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/v1/models/nothing", 404),
        ("/v1/models/nothing/metadata", 404),
        ("/v1/models/ranking/versions/8", 404),
        ("/v1/models/ranking:predict", 400),
        ("/v1/other", 400),
        ("/", 404),
    ],
)
def test_invalid_paths_get_an_error_and_its_status(url, path, status):
    response = requests.get(url + path, timeout=20)
    assert response.status_code == status
    assert list(response.json()) == ["error"]


def test_concurrent_calls_get_their_own_answers(url):
    def ask(length):
        body = {"signature_name": "evaluate", "instances": ["x" * length]}
        return post(url, "ranking:predict", body).json()["predictions"][0]

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(ask, range(50))) == [2 * length for length in range(50)]
