"""Arguments are taken as they are meant or refused, and never rounded, cut or misread."""

from collections import deque
from datetime import datetime

import numpy as np
import pytest

from serving.client import RecommenderClient, wait_until_available

NAN, INFINITY = float("nan"), float("inf")


class Recorder:
    """Keeps the inputs of the last request."""

    address = "127.0.0.1:8501"

    def predict(self, model, inputs, signature_name=""):
        self.inputs = inputs
        return {
            "movie_id": np.array([[5]]),
            "title": np.array([[b"Heat"]], object),
            "predicted_rating": np.array([[4.0]]),
            "retrieval_score": np.array([[1.0]]),
        }

    def states(self, model, at_most_seconds=None):
        return {3: "AVAILABLE"}

    def close(self):
        pass


@pytest.fixture
def client():
    client = RecommenderClient(transport="rest")
    client._transport = Recorder()
    return client


@pytest.mark.parametrize(
    "history",
    [
        [1, 2, 3],
        (1, 2, 3),
        range(1, 4),
        deque([1, 2, 3]),
        np.array([1, 2, 3]),
        np.array([1, 2, 3], np.uint8),
        [np.int32(1), 2, np.int64(3)],
    ],
)
@pytest.mark.parametrize(
    "ratings",
    [
        [5, 3.5, 0],
        (5.0, 3.5, 0),
        np.array([5, 3.5, 0]),
        np.array([5, 3.5, 0], np.float32),
        [np.float32(5), np.float64(3.5), np.int64(0)],
    ],
)
def test_sequences_of_numbers_of_any_kind_are_taken(client, history, ratings):
    client.recommend(np.int64(7), history, ratings, np.int32(1))
    inputs = client._transport.inputs
    assert inputs["user_id"].tolist() == [7]
    assert inputs["history_movie_ids"].tolist() == [[1, 2, 3]]
    assert inputs["history_ratings"].tolist() == [[5.0, 3.5, 0.0]]
    assert [inputs[name].dtype for name in ("user_id", "history_movie_ids", "history_ratings")] == [
        np.int64,
        np.int64,
        np.float32,
    ]


@pytest.mark.parametrize("ratings", [np.array([5, 4, 1]), np.array([5, 4, 1], np.uint8)])
def test_arrays_of_whole_numbers_are_ratings(client, ratings):
    client.recommend(history=[1, 2, 3], ratings=ratings, k=1)
    assert client._transport.inputs["history_ratings"].tolist() == [[5.0, 4.0, 1.0]]


def test_empty_arrays_are_empty(client):
    client.recommend(7, np.array([]), np.array([]), k=1)
    assert client._transport.inputs["history_movie_ids"].shape == (1, 0)
    client.recommend(7, [3], np.array([]), k=1)
    assert client._transport.inputs["history_ratings"].shape == (1, 0)
    client.recommend(7, [3], timestamps=np.array([]), exclude=np.array([]), k=1)
    assert client._transport.inputs["history_timestamps"].shape == (1, 0)
    assert client._transport.inputs["exclude_movie_ids"].shape == (1, 0)


def test_numpys_numbers_and_text_are_taken_for_all_that_is_known_of_a_person(client):
    client.recommend(
        np.uint16(7),
        np.array([1, 2]),
        timestamps=np.array([978300760, 0], np.uint32),
        now=np.int32(1046454540),
        gender=np.str_("M"),
        age=np.uint8(25),
        occupation=np.int8(20),
        zip_code=np.str_("02139"),
        exclude=np.array([3], np.int16),
        k=np.int16(2),
    )
    inputs = client._transport.inputs
    assert {array.dtype for array in inputs.values()} == {np.dtype(np.int64), np.dtype(np.float32), np.dtype(object)}
    assert {name: array.tolist() for name, array in inputs.items()} == {
        "user_id": [7],
        "history_movie_ids": [[1, 2]],
        "history_ratings": [[]],
        "history_timestamps": [[978300760, 0]],
        "now": [1046454540],
        "gender": [b"M"],
        "age": [25],
        "occupation": [20],
        "zip_code": [b"02139"],
        "exclude_movie_ids": [[3]],
        "k": [2],
    }


def test_all_text_that_utf8_can_encode_is_taken(client):
    client.recommend(zip_code="W1A é日\0")
    assert client._transport.inputs["zip_code"].tolist() == ["W1A é日\0".encode()]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"user_id": 1.5}, r"user_id should be a whole number; received 1\.5"),
        ({"user_id": 7.0}, r"user_id should be a whole number; received 7\.0"),
        ({"user_id": np.float32(7)}, "user_id should be a whole number"),
        ({"user_id": True}, "user_id should be a whole number; received True"),
        ({"user_id": np.bool_(True)}, "user_id should be a whole number"),
        ({"user_id": "7"}, "user_id should be a whole number; received '7'"),
        ({"user_id": None}, "user_id should be a whole number; received None"),
        ({"user_id": 2**63}, "user_id should be .*below 2.*received 9223372036854775808"),
        ({"user_id": 10**5000}, "user_id should be a whole number of at most 64 bits; received a longer one"),
        ({"k": 10**5000}, "k should be a whole number of at most 64 bits; received a longer one"),
        ({"history": [1], "ratings": [5.00000001]}, r"received 5\.00000001"),
        ({"k": 1.0}, r"k should be a whole number; received 1\.0"),
        ({"k": True}, "k should be a whole number; received True"),
        ({"history": [1.7]}, r"movie id in history should be a whole number; received 1\.7"),
        ({"history": [1, True]}, "movie id in history should be a whole number; received True"),
        ({"history": [1, "2"]}, "movie id in history should be a whole number; received '2'"),
        ({"history": np.array([1.0, 2.0])}, "movie id in history should be a whole number"),
        ({"history": np.array([[1, 2]])}, r"history should be an array of one dimension; .* shape \(1, 2\)"),
        ({"history": np.array(5)}, r"history should be an array of one dimension; .* shape \(\)"),
        ({"history": "12"}, "history should be a list, tuple or array; received '12'"),
        ({"history": b"12"}, "history should be a list, tuple or array; received b'12'"),
        ({"history": 12}, "history should be a list, tuple or array; received 12"),
        ({"history": None}, "history should be a list, tuple or array; received None"),
        ({"history": {1, 2}}, "history should be a list, tuple or array"),
        ({"history": {1: 5.0}}, "history should be a list, tuple or array"),
        ({"history": [1], "ratings": "5"}, "ratings should be a list, tuple or array; received '5'"),
        ({"history": [1], "ratings": ["5"]}, "ratings should be a number; received '5'"),
        ({"history": [1], "ratings": [True]}, "ratings should be a number; received True"),
        ({"history": [1], "ratings": [None]}, "ratings should be a number; received None"),
        ({"history": [1], "ratings": np.array([[5.0]])}, "ratings should be an array of one dimension"),
        ({"history": [1], "ratings": np.array([NAN])}, "Ratings should be 1 to 5.*received nan"),
        ({"history": [1], "ratings": np.array([INFINITY], np.float32)}, "Ratings should be 1 to 5.*received inf"),
        ({"history": [1], "ratings": [10**400]}, "ratings should be a number that a float can hold"),
        ({"history": [1], "ratings": np.array([5.0, 4.0])}, "each of the 1 movies.*received 2"),
        ({"history": [1], "timestamps": np.array([5, 4])}, "each of the 1 movies.*received 2"),
        ({"history": [1], "timestamps": [5.0]}, r"timestamps should be a whole number; received 5\.0"),
        ({"history": [1], "timestamps": ["2003"]}, "timestamps should be a whole number; received '2003'"),
        ({"history": [1], "timestamps": "5"}, "timestamps should be a list, tuple or array; received '5'"),
        ({"history": [1], "timestamps": np.array([[5]])}, "timestamps should be an array of one dimension"),
        ({"history": [1], "timestamps": np.array(["2003-02-28"], "M8[s]")}, "timestamps should be a whole number"),
        ({"now": 1046454540.5}, r"now should be a whole number; received 1046454540\.5"),
        ({"now": np.int64(-5)}, "now should be seconds since 1970.*received -5"),
        ({"now": "2003-02-28"}, "now should be a whole number; received '2003-02-28'"),
        ({"now": datetime(2003, 2, 28)}, "now should be a whole number; received datetime"),
        ({"now": True}, "now should be a whole number; received True"),
        ({"gender": None}, 'gender should be "M", "F".*received None'),
        ({"gender": "m"}, "gender should be .*received 'm'"),
        ({"gender": b"M"}, "gender should be .*received b'M'"),
        ({"gender": np.array(["M", "F"])}, "gender should be "),
        ({"gender": "\udcff"}, "gender should be "),
        ({"age": 25.0}, r"age should be a whole number; received 25\.0"),
        ({"age": "25"}, "age should be a whole number; received '25'"),
        ({"age": None}, "age should be a whole number; received None"),
        ({"occupation": 1.5}, r"occupation should be a whole number; received 1\.5"),
        ({"occupation": "writer"}, "occupation should be a whole number; received 'writer'"),
        ({"zip_code": 2139}, "zip_code should be text.*received 2139"),
        ({"zip_code": b"02139"}, "zip_code should be text.*received b'02139'"),
        ({"zip_code": None}, "zip_code should be text.*received None"),
        ({"exclude": 3}, "exclude should be a list, tuple or array; received 3"),
        ({"exclude": "3"}, "exclude should be a list, tuple or array; received '3'"),
        ({"exclude": {3}}, "exclude should be a list, tuple or array"),
        ({"exclude": [3.0]}, r"movie id in exclude should be a whole number; received 3\.0"),
        ({"exclude": [-3]}, "movie id in exclude should be .*received -3"),
        ({"exclude": np.array([[3]])}, "exclude should be an array of one dimension"),
    ],
)
def test_other_arguments_of_recommend_are_refused(client, arguments, message):
    with pytest.raises(ValueError, match=message):
        client.recommend(**{"k": 1, **arguments})


@pytest.mark.parametrize("transport", ["rest", "grpc"])
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"port": 0}, "port should be 1 to 65535; received 0"),
        ({"port": 65536}, "port should be 1 to 65535; received 65536"),
        ({"port": 85.5}, r"port should be a whole number; received 85\.5"),
        ({"port": "8500"}, "port should be a whole number; received '8500'"),
        ({"host": ""}, "host should be a host name .* received ''"),
        ({"host": "http://127.0.0.1"}, "host should be .* without scheme or port; received 'http://127.0.0.1'"),
        ({"host": "127.0.0.1:8500"}, "host should be .* without scheme or port"),
        ({"host": "some where"}, "host should be"),
        ({"host": None}, "host should be .* received None"),
        ({"deadline_seconds": 0}, "deadline_seconds should be more than 0 and at most 86400; received 0"),
        ({"deadline_seconds": -1}, "deadline_seconds should be more than 0.* received -1"),
        ({"deadline_seconds": NAN}, "deadline_seconds should be more than 0.* received nan"),
        ({"deadline_seconds": INFINITY}, "deadline_seconds should be more than 0.* received inf"),
        ({"deadline_seconds": "10"}, "deadline_seconds should be a number; received '10'"),
        ({"deadline_seconds": None}, "deadline_seconds should be a number; received None"),
        ({"attempts": 0}, "attempts should be at least 1; received 0"),
        ({"attempts": 1.5}, r"attempts should be a whole number; received 1\.5"),
        ({"model": ""}, "model should be the name of a model.* received ''"),
        ({"model": "recommender/versions/1"}, "model should be the name of a model.* without / and :"),
        ({"model": "recommender:predict"}, "model should be the name of a model"),
        ({"host": "."}, "host should be"),
        ({"model": "\ud800"}, "model should be the name of a model"),
        ({"model": ".."}, "model should be the name of a model"),
        ({"model": None}, "model should be the name of a model.* received None"),
    ],
)
def test_a_client_with_other_arguments_is_refused(transport, arguments, message):
    with pytest.raises(ValueError, match=message):
        RecommenderClient(**{"transport": transport, **arguments})


@pytest.mark.parametrize("transport", ["rset", "REST", "", None])
def test_another_transport_is_refused(transport):
    with pytest.raises(ValueError, match=rf'transport should be "grpc" or "rest"; received {transport!r}'):
        RecommenderClient(transport=transport)


@pytest.mark.parametrize("timeout", [-1, NAN, INFINITY, "5", None])
def test_another_time_to_wait_is_refused(client, timeout):
    with pytest.raises(ValueError, match="timeout_seconds should be"):
        client.wait_until_available(timeout)


@pytest.mark.parametrize("model", ["", "a/b", "a:b"])
def test_waiting_for_a_model_without_a_name_is_refused(model):
    with pytest.raises(ValueError, match="model should be the name of a model"):
        wait_until_available(Recorder(), model, 1)


def test_a_name_with_other_special_characters_reaches_the_server(http_server):
    paths = []

    def answer(path, body):
        paths.append(path)
        return 200, {"model_version_status": [{"version": "3", "state": "AVAILABLE"}]}, {}

    with RecommenderClient(port=http_server(answer), transport="rest", model="a b?é#%2F") as client:
        assert client.wait_until_available(5) == 3
    assert paths == ["/v1/models/a%20b%3F%C3%A9%23%252F"]
