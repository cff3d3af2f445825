"""The deadline holds for a whole call, whatever the server does, or does not do, with its time."""

import json
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager

import numpy as np
import pytest

from serving.client import RecommenderClient, ServerUnavailableError, ServingClientError

ANSWER = {"outputs": {"movie_id": [[5]], "title": [["Heat"]], "predicted_rating": [[4.0]], "retrieval_score": [[1.0]]}}


def client_of(port, transport, **options):
    return RecommenderClient(port=port, transport=transport, **{"deadline_seconds": 0.5, **options})


@contextmanager
def refused_in_time(match=None, kind=ServingClientError):
    start = time.monotonic()
    with pytest.raises(kind, match=match):
        yield
    assert time.monotonic() - start < 1.5


def drip(connection, data, stopped):
    """Sends a byte every twentieth of a second, with one byte after another without end."""
    connection.recv(65536)
    for position in range(10_000):
        connection.sendall(data[position : position + 1] or b" ")
        if stopped.wait(0.05):
            return


@pytest.mark.parametrize("transport", ["rest", "grpc"])
@pytest.mark.parametrize(
    "start",
    [
        b"",
        b"HTTP/1.1 200 OK\r\nX-Header: long",
        b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n{",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2000\r\n{",
        # gRPC's greeting, and the first header of a long frame.
        b"\x00\x00\x00\x04\x00\x00\x00\x00\x00\x00\x3f\xff\x00\x00\x00\x00\x00\x01",
    ],
)
def test_a_server_that_sends_a_byte_now_and_then_is_not_waited_for(peers, transport, start):
    def handle(connection):
        connection.sendall(start)
        drip(connection, b"", peers.stopped)

    with client_of(peers.start(handle), transport) as client, refused_in_time():
        client.recommend()


@pytest.mark.parametrize("transport", ["rest", "grpc"])
def test_a_server_that_accepts_and_says_nothing_is_not_waited_for(peers, transport):
    port = peers.start(lambda connection: peers.stopped.wait())
    with (
        client_of(port, transport) as client,
        refused_in_time(rf"127.0.0.1:{port} should answer within 0.5 s; it did not", ServerUnavailableError),
    ):
        client.recommend()


def test_a_server_that_does_not_read_the_request_is_not_waited_for(peers):
    port = peers.start(lambda connection: peers.stopped.wait(), receive_buffer=4096)
    with client_of(port, "rest") as client, refused_in_time("within 0.5 s"):
        client._transport.predict("recommender", {"text": np.array([b"x" * 10_000_000], object)})


def test_a_server_that_does_not_accept_is_not_waited_for():
    with socket.socket() as full, ExitStack() as stack:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        for _ in range(4):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(full.getsockname())
        with client_of(full.getsockname()[1], "rest") as client, refused_in_time("within 0.5 s"):
            client.recommend()


def test_the_look_up_of_a_name_counts(monkeypatch):
    over = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **kwargs: over.wait(20))
    with client_of(8501, "rest", host="slow.invalid") as client, refused_in_time("within 0.5 s"):
        client.recommend()
    over.set()


def test_all_attempts_and_pauses_count_together(http_server):
    asked = []

    def answer(path, body):
        asked.append(path)
        time.sleep(0.1)
        return 503, {"error": "loading"}, {}

    with (
        client_of(http_server(answer), "rest", attempts=100) as client,
        refused_in_time("says that it is unavailable: loading"),
    ):
        client.recommend()
    assert 2 <= len(asked) <= 4


def test_a_server_that_refuses_connections_is_asked_again(free_port):
    def serve():
        time.sleep(0.25)
        with socket.create_server(("127.0.0.1", free_port)) as listener, listener.accept()[0] as connection:
            connection.recv(65536)
            content = json.dumps(ANSWER).encode()
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(content), content))

    threading.Thread(target=serve, daemon=True).start()
    with client_of(free_port, "rest", deadline_seconds=5) as client:
        assert client.recommend(k=1)[0].movie_id == 5


def test_waiting_for_a_model_ends_in_time_when_the_server_says_nothing(peers):
    port = peers.start(lambda connection: peers.stopped.wait())
    with client_of(port, "rest", deadline_seconds=30) as client, refused_in_time("should be available within 0.6 s"):
        client.wait_until_available(0.6)


@pytest.mark.parametrize("header", ["3600", "Fri, 01 Jan 2100 00:00:00 GMT"])
def test_a_server_that_wants_to_be_asked_much_later_is_not_waited_for(http_server, header):
    port = http_server(lambda path, body: (503, {"error": "loading"}, {"Retry-After": header}))
    with (
        client_of(port, "rest", deadline_seconds=10) as client,
        refused_in_time(r"unavailable: loading; it wants to be asked again in \d+ s.*deadline of 10 s"),
    ):
        client.recommend()


@pytest.mark.parametrize("header", ["1", "never", "9" * 5000, "Fri, 31 Dec 99999 23:59:59 GMT"])
def test_a_server_that_wants_to_be_asked_soon_is_asked_again(http_server, header):
    asked = []

    def answer(path, body):
        asked.append(time.monotonic())
        return (503, {"error": "loading"}, {"Retry-After": header}) if len(asked) == 1 else (200, ANSWER, {})

    with client_of(http_server(answer), "rest", deadline_seconds=10) as client:
        assert client.recommend(k=1)[0].movie_id == 5
    assert len(asked) == 2
    assert asked[1] - asked[0] >= (1.0 if header == "1" else 0.1)


def test_threads_share_a_client_and_each_has_its_own_deadline(http_server, caplog):
    """Users with odd ids get no answer in time, those with even ids get their own, again and again."""

    def answer(path, body):
        user = json.loads(body)["inputs"]["user_id"][0]
        if user % 2:
            time.sleep(1)
        return 200, {"outputs": {**ANSWER["outputs"], "movie_id": [[user + 1]]}}, {}

    with client_of(http_server(answer), "rest", deadline_seconds=0.7) as client:

        def ask(user):
            start = time.monotonic()
            try:
                got = client.recommend(user, k=1)[0].movie_id
            except ServerUnavailableError:
                got = None
            return got, time.monotonic() - start

        with ThreadPoolExecutor(8) as pool:
            results = list(pool.map(ask, range(48)))
    assert [got for got, _ in results] == [None if user % 2 else user + 1 for user in range(48)]
    assert max(seconds for _, seconds in results) < 1.5
    assert caplog.records == []
