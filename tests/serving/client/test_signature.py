"""Both transports ask the signature `recommend`, and each argument arrives at the model."""

import time

import numpy as np
import pytest

from serving.client import RecommenderClient, ServingClientError
from serving.local.server import ModelServer, ServerConfig

pytestmark = pytest.mark.serving

transports = pytest.mark.parametrize("transport", ["rest", "grpc"])


def connect(server, transport, **options):
    port = server.rest_port if transport == "rest" else server.port
    return RecommenderClient(port=port, transport=transport, **options)


@pytest.fixture(scope="module")
def echo_server(tmp_path_factory):
    from tests.serving.toy_models import save_echo

    root = tmp_path_factory.mktemp("echo")
    save_echo(root / "recommender" / "1")
    with ModelServer(ServerConfig(root, port=0, rest_port=0, poll_seconds=0.1, settle_seconds=0.1)) as server:
        yield server


def asked(server, transport, *arguments, **options):
    """What the model received, as text by input name."""
    with connect(server, transport) as client:
        return dict(movie.title.split("=") for movie in client.recommend(*arguments, k=99, **options))


@transports
def test_all_arguments_arrive(echo_server, transport):
    received = asked(
        echo_server,
        transport,
        7,
        [1, 260, 2**40],
        np.array([5, 3.5, 0], np.float32),
        timestamps=[978300760, 0, 978300761],
        now=2**33 + 1,
        gender="F",
        age=25,
        occupation=20,
        zip_code="02139-é",
        exclude=[3, 2**62],
    )
    assert received == {
        "user_id": "7",
        "history_movie_ids": f"1,260,{2**40}",
        "history_ratings": "5.0,3.5,0.0",
        "history_timestamps": "978300760,0,978300761",
        "now": str(2**33 + 1),
        "gender": "F",
        "age": "25",
        "occupation": "20",
        "zip_code": "02139-é",
        "exclude_movie_ids": f"3,{2**62}",
        "k": "99",
    }


@transports
def test_neutral_values_arrive(echo_server, transport):
    received = asked(echo_server, transport, now=0)
    assert received == {
        **dict.fromkeys(("user_id", "now", "age", "occupation"), "0"),
        **dict.fromkeys(("history_movie_ids", "history_ratings", "history_timestamps", "exclude_movie_ids"), ""),
        **dict.fromkeys(("gender", "zip_code"), ""),
        "k": "99",
    }


@transports
def test_ratings_times_and_moment_are_independent(echo_server, transport):
    rated = asked(echo_server, transport, history=[1, 2], ratings=[0, 0])
    assert (rated["history_ratings"], rated["history_timestamps"]) == ("0.0,0.0", "")
    timed = asked(echo_server, transport, history=[1, 2], timestamps=[0, 5])
    assert (timed["history_ratings"], timed["history_timestamps"]) == ("", "0,5")
    for received in (rated, timed):
        assert time.time() - 600 < int(received["now"]) <= time.time()


@transports
def test_there_are_k_movies_or_as_many_as_the_recommender_ranks(server, transport):
    with connect(server, transport) as client:
        for k, expected in ((1, [6]), (3, [6, 5, 4]), (4, [6, 5, 4, 3]), (5, [6, 5, 4, 3]), (2**63 - 1, [6, 5, 4, 3])):
            assert [movie.movie_id for movie in client.recommend(7, k=k)] == expected


@transports
def test_neither_seen_nor_excluded_movies_are_recommended(server, transport):
    with connect(server, transport) as client:
        assert [movie.movie_id for movie in client.recommend(history=[6], exclude=[4, 99])] == [5, 3, 2, 1]
        assert [movie.movie_id for movie in client.recommend(history=[6, 1], exclude=[4, 3, 2])] == [5]
        assert client.recommend(exclude=range(1, 7)) == []


@transports
def test_a_model_without_the_signature_says_what_to_do(server, transport):
    with (
        connect(server, transport, model="ranking") as client,
        pytest.raises(
            ServingClientError,
            match=r'"recommend" not found.* ranking is no recommender, or one of an earlier .*; push a recommender of',
        ) as raised,
    ):
        client.recommend(7)
    assert ".." not in str(raised.value)
    assert f"127.0.0.1:{server.rest_port if transport == 'rest' else server.port}" in str(raised.value)


@transports
def test_the_default_signature_stays(server, transport):
    inputs = {
        "user_id": np.array([7]),
        "history_movie_ids": np.array([[6]]),
        "history_ratings": np.array([[5.0]], np.float32),
    }
    with connect(server, transport) as client:
        for options in ({}, {"signature_name": "serving_default"}):
            answer = client._transport.predict("recommender", inputs, **options)
            assert answer["movie_id"].tolist() == [[5, 4, 3, 2]]
