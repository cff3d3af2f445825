"""Arrays go through JSON unchanged, and REST gives the same numbers as gRPC."""

import json

import numpy as np
import pytest

from serving.client import RecommenderClient
from serving.client.json_arrays import from_json_values, to_json_values
from serving.client.rest_transport import RestTransport


@pytest.mark.parametrize(
    "array",
    [
        np.array([[1, 2**63 - 1], [-(2**63), 0]]),
        np.array([[0.1, 2.0, float("inf")]]),
        np.array([True, False]),
        np.array(2.5),
        np.array(7),
        np.array([[b"plain", "é 日本".encode()], [b"", b"\xff\x00"]], object),
        np.array([b"zero\0"], object),
        np.array(b"alone", object),
    ],
)
def test_arrays_go_there_and_back(array):
    back = from_json_values(json.loads(json.dumps(to_json_values(array))))
    assert back.dtype == array.dtype
    assert back.shape == array.shape
    assert back.tolist() == array.tolist()


@pytest.mark.parametrize("shape", [(0,), (1, 0), (2, 0, 3)])
@pytest.mark.parametrize("dtype", [np.int64, np.float32, object])
def test_empty_arrays_keep_their_shape_as_far_as_json_shows_it(shape, dtype):
    values = to_json_values(np.zeros(shape, dtype))
    assert from_json_values(values).shape == np.array(values).shape


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (["é", {"b64": "/wA="}], ["é".encode(), b"\xff\x00"]),
        (["zero\0"], [b"zero\0"]),
        (["12", "1.5"], [b"12", b"1.5"]),
        ([1, 2.5], [1.0, 2.5]),
    ],
)
def test_values_of_an_answer(values, expected):
    assert from_json_values(values).tolist() == expected


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([[1, 2], [3]], "same length at level 1"),
        ([[1], 2], "same length at level 1"),
        ([1, [2]], "received int, list"),
        ([1, "2"], "received int, str"),
        ([1, True], "received bool, int"),
        ([1, None], "received NoneType, int"),
        ([2**64], "64 bits"),
        ([{"c64": ""}], r"keys \['c64'\]"),
        ([{"b64": "?"}], "base64|padding"),
        ([{"b64": 5}], "b64"),
        (["\ud800"], "surrogates"),
    ],
)
def test_other_values_are_refused(values, message):
    with pytest.raises(ValueError, match=message):
        from_json_values(values)


@pytest.mark.parametrize(
    ("outputs", "expected"),
    [
        ([[1, 2]], {"output": [[1, 2]]}),
        ({"b64": "/w=="}, {"output": b"\xff"}),
        ({"a": [1.5], "b": ["x"]}, {"a": [1.5], "b": [b"x"]}),
    ],
)
def test_an_only_output_comes_without_a_name(http_server, outputs, expected):
    transport = RestTransport("127.0.0.1", http_server(lambda *_: (200, {"outputs": outputs}, {})), 5.0)
    answer = transport.predict("model", {"text": np.array([b"\xff"], object)})
    transport.close()
    assert {name: array.tolist() for name, array in answer.items()} == expected


@pytest.mark.serving
def test_rest_and_grpc_give_the_same_numbers(server):
    """Ratings of the toy model are whole numbers for user 100, and decimals without a short float32 for others."""
    answers = []
    for client in (RecommenderClient(port=server.rest_port, transport="rest"), RecommenderClient(port=server.port)):
        with client:
            answers.append(
                [client.recommend(100, k=4)]
                + [client.recommend(user, history=[6, 2], ratings=[3.3, 4.7], k=4) for user in range(1, 30)]
            )
    assert answers[0] == answers[1]
    for movie in answers[0][0]:
        assert movie.predicted_rating == 1.0
        assert isinstance(movie.predicted_rating, float)
        assert movie.title == f"Movie é {movie.movie_id}"


def test_whole_numbers_among_the_ratings_are_floats(http_server):
    outputs = {
        "movie_id": [[5, 6]],
        "title": [["Amélie", {"b64": "w6k="}]],
        "predicted_rating": [[4, 3]],
        "retrieval_score": [[1, 0.1]],
    }
    with RecommenderClient(port=http_server(lambda *_: (200, {"outputs": outputs}, {})), transport="rest") as client:
        movies = client.recommend(k=2)
    assert [(movie.title, movie.predicted_rating) for movie in movies] == [("Amélie", 4.0), ("é", 3.0)]
    assert all(type(movie.predicted_rating) is type(movie.retrieval_score) is float for movie in movies)
    assert movies[1].retrieval_score == float(np.float32(0.1))
