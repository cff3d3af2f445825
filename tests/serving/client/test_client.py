"""The client checks its arguments, reports and retries failures of the server, and needs no TensorFlow for REST."""

import http.server
import socket
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from serving.client import (
    ModelNotFoundError,
    Recommendation,
    RecommenderClient,
    ServerUnreachableError,
    ServingClientError,
    wait_until_available,
)


class FakeTransport:
    """Answers with two movies and an empty third place, and keeps signature and inputs of the last request."""

    address = "127.0.0.1:8501"

    def __init__(self):
        self.inputs = self.signature_name = None

    def predict(self, model, inputs, signature_name=""):
        self.inputs, self.signature_name = inputs, signature_name
        return {
            "movie_id": np.array([[5, 9, 0]]),
            "title": np.array([["Amélie (2001)".encode(), b"Heat (1995)", b""]], dtype=object),
            "predicted_rating": np.array([[4.5, 4.0, 0.0]]),
            "retrieval_score": np.array([[0.5, 0.25, -1.0]]),
        }

    def close(self):
        pass


@pytest.fixture
def transport():
    return FakeTransport()


@pytest.fixture
def client(transport):
    client = RecommenderClient(transport="rest")
    client._transport = transport
    return client


def test_recommendations_are_best_first_without_empty_places(client):
    assert client.recommend(user_id=7, k=3) == [
        Recommendation(5, "Amélie (2001)", 4.5, 0.5),
        Recommendation(9, "Heat (1995)", 4.0, 0.25),
    ]
    assert [movie.movie_id for movie in client.recommend(user_id=7, k=1)] == [5]


def test_there_are_fewer_movies_than_asked_for_when_the_recommender_has_no_more(client):
    assert [movie.movie_id for movie in client.recommend(user_id=7, k=2**63 - 1)] == [5, 9]


def test_the_request_holds_all_that_is_given(client, transport):
    client.recommend(
        3,
        [1, 260],
        [5, 3.5],
        4,
        timestamps=[978300760, 0],
        now=1046454540,
        gender="F",
        age=25,
        occupation=20,
        zip_code="02139",
        exclude=[7],
    )
    asked = {name: (array.dtype, array.tolist()) for name, array in transport.inputs.items()}
    assert asked == {
        "user_id": (np.int64, [3]),
        "history_movie_ids": (np.int64, [[1, 260]]),
        "history_ratings": (np.float32, [[5.0, 3.5]]),
        "history_timestamps": (np.int64, [[978300760, 0]]),
        "now": (np.int64, [1046454540]),
        "gender": (object, [b"F"]),
        "age": (np.int64, [25]),
        "occupation": (np.int64, [20]),
        "zip_code": (object, [b"02139"]),
        "exclude_movie_ids": (np.int64, [[7]]),
        "k": (np.int64, [4]),
    }
    assert transport.signature_name == "recommend"


def test_what_is_not_given_has_a_neutral_value(client, transport):
    client.recommend(now=0)
    neutral = {name: array.tolist() for name, array in transport.inputs.items()}
    lists = ["history_movie_ids", "history_ratings", "history_timestamps", "exclude_movie_ids"]
    numbers = ["user_id", "now", "age", "occupation"]
    assert neutral == {
        **{key: [[]] for key in lists},
        **{key: [0] for key in numbers},
        **{key: [b""] for key in ["gender", "zip_code"]},
        "k": [10],
    }
    client.recommend(history=[1, 260])
    assert transport.inputs["history_ratings"].shape == transport.inputs["history_timestamps"].shape == (1, 0)


def test_without_another_moment_now_is_the_clocks_time(client, transport):
    before = int(time.time())
    client.recommend(7)
    assert before <= transport.inputs["now"][0] <= time.time()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"user_id": -1}, "user_id .* received -1"),
        ({"k": 0}, r"k should be at least 1 and below 2\*\*63; received 0"),
        ({"k": 2**63}, r"k should be at least 1 and below 2\*\*63; received 9223372036854775808"),
        ({"history": [1, 0]}, "positive; received 0"),
        ({"history": [2**63]}, "positive; received 9223372036854775808"),
        ({"history": [1, 2], "ratings": [5]}, "ratings should be empty or .* each of the 2 movies.* received 1"),
        ({"ratings": [5]}, "each of the 0 movies.* received 1"),
        ({"history": [1, 2], "timestamps": [9]}, "timestamps should be empty or .* each of the 2 movies.* received 1"),
        ({"timestamps": [9]}, "timestamps should be .* each of the 0 movies.* received 1"),
        ({"history": [1], "timestamps": [-1]}, "Each of the timestamps should be seconds since 1970.* received -1"),
        ({"history": [1], "timestamps": [253402300800]}, "before the year 10000.* received 253402300800"),
        ({"now": -1}, "now should be seconds since 1970.* received -1"),
        ({"now": 1046454540000}, "now should be seconds since 1970, before the year 10000.* received 1046454540000"),
        ({"gender": "female"}, """gender should be "M", "F", or "" if not known; received 'female'"""),
        ({"age": -1}, "age should be 1 to 150 years, or 0 if not known; received -1"),
        ({"age": 1978}, "age should be 1 to 150 years, or 0 if not known; received 1978"),
        ({"occupation": -1}, "occupation should be a code of MovieLens, 0 to 20; received -1"),
        ({"occupation": 21}, "occupation should be a code of MovieLens, 0 to 20; received 21"),
        ({"zip_code": "\udcff"}, r"zip_code should be text that UTF-8 can encode; received '\\udcff'"),
        ({"exclude": [1, 0]}, "Each movie id in exclude should be .*positive; received 0"),
        ({"history": [1], "ratings": [7]}, "Ratings should be 1 to 5.* received 7"),
        ({"history": [1], "ratings": [float("nan")]}, "received nan"),
    ],
)
def test_invalid_arguments_are_refused(client, arguments, message):
    with pytest.raises(ValueError, match=message):
        client.recommend(**{"k": 1, **arguments})


def test_a_missing_server_is_reported_with_its_address(free_port):
    with (
        RecommenderClient(port=free_port, transport="rest", attempts=2) as client,
        pytest.raises(ServerUnreachableError, match=f"127.0.0.1:{free_port}"),
    ):
        client.recommend()


def test_a_failed_request_is_retried(monkeypatch):
    """The server answers 503 twice and then 200."""
    seen = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            seen.append(self.path)
            body = b'{"model_version_status": [{"version": "3", "state": "AVAILABLE"}]}'
            self.send_response(503 if len(seen) < 3 else 200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format, *args):
            pass

    # The client must ignore a proxy that the environment sets.
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        with RecommenderClient(port=server.server_port, transport="rest") as client:
            assert client.wait_until_available(10) == 3
        server.shutdown()
    assert seen == ["/v1/models/recommender"] * 3


def test_a_server_of_another_kind_is_reported():
    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, format, *args):
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        with (
            RecommenderClient(port=server.server_port, transport="rest") as client,
            pytest.raises(ServingClientError, match=r"should answer in JSON.*model server's REST port"),
        ):
            client.recommend()
        server.shutdown()


def test_a_server_that_does_not_answer_in_time_is_reported():
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        with (
            RecommenderClient(port=silent.getsockname()[1], transport="rest", deadline_seconds=0.2) as client,
            pytest.raises(ServingClientError, match=r"within 0.2 s"),
        ):
            client.recommend()


def test_waiting_for_a_model_continues_while_the_server_starts():
    answers = iter(
        [ServerUnreachableError("no server"), ModelNotFoundError("no model"), {4: "LOADING", 3: "AVAILABLE"}]
    )

    class Starting(FakeTransport):
        def states(self, model, at_most_seconds=None):
            answer = next(answers)
            if isinstance(answer, Exception):
                raise answer
            return answer

    assert wait_until_available(Starting(), "recommender", 10) == 3


def test_waiting_for_a_model_ends_with_an_error_after_the_time_limit():
    class Broken(FakeTransport):
        def states(self, model, at_most_seconds=None):
            return {4: "END"}

    with pytest.raises(ServingClientError, match=r"recommender should be available within 0 s.*END"):
        wait_until_available(Broken(), "recommender", 0)


def test_rest_needs_no_tensorflow(free_port):
    code = (
        "import sys; from pipeline.cli import app; from typer.testing import CliRunner\n"
        f"result = CliRunner().invoke(app, ['recommend', '--user', '1', '--rest', '--port', '{free_port}'])\n"
        "loaded = {'tensorflow', 'tfx', 'apache_beam'} & set(sys.modules)\n"
        "sys.exit(f'{result.output} {loaded}' if loaded or result.exit_code != 1 else 0)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
