"""No client can take the server from the others: what is too large or too much is refused, and nobody else waits."""

import contextlib
import dataclasses
import json
import logging
import socket
import threading
import time

import grpc
import pytest
import requests

from serving.local.limits import Limits
from serving.local.server import ModelServer, ServerConfig

pytestmark = pytest.mark.serving

LIMITS = Limits(message_bytes=1 << 20, batch=4, values=64, calls=8, connections=20)
METHOD = "/tensorflow.serving.PredictionService/Predict"
PREDICT = "/v1/models/ranking:predict"


@pytest.fixture(scope="module")
def server(toy_models):
    with ModelServer(ServerConfig(toy_models, port=0, rest_port=0, limits=LIMITS)) as server:
        yield server


@pytest.fixture
def impatient_server(toy_models):
    limits = dataclasses.replace(LIMITS, idle_seconds=1)
    with ModelServer(ServerConfig(toy_models, port=0, rest_port=0, limits=limits)) as server:
        yield server


@pytest.fixture
def calls(server):
    from tests.serving.grpc_calls import GrpcCalls

    calls = GrpcCalls(server.port)
    yield calls
    calls.channel.close()


@contextlib.contextmanager
def connected(port, data=b""):
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.sendall(data)
        yield connection


def answer_to(port, data):
    """All that a server sends until it closes the connection."""
    received = b""
    with connected(port, data) as connection, contextlib.suppress(ConnectionResetError):
        while part := connection.recv(1 << 16):
            received += part
    return received


def request_head(*headers):
    return "\r\n".join([f"POST {PREDICT} HTTP/1.1", "Host: here", *headers, "", ""]).encode()


def error_in(response):
    head, _, body = response.partition(b"\r\n\r\n")
    assert b"Content-Type: application/json" in head
    return int(head.split()[1]), json.loads(body)["error"]


def ask(server):
    """Asks over REST as everybody does."""
    url = f"http://127.0.0.1:{server.rest_port}{PREDICT}"
    return requests.post(url, json={"signature_name": "evaluate", "instances": ["ab"]}, timeout=5)


def assert_others_are_answered(server):
    start = time.monotonic()
    assert ask(server).json() == {"predictions": [4]}
    assert time.monotonic() - start < 1


def test_a_body_that_says_it_is_too_long_is_refused_before_it_is_sent(server):
    status, error = error_in(answer_to(server.rest_port, request_head(f"Content-Length: {(1 << 20) + 1}")))
    assert status == 413
    assert str(1 << 20) in error


def test_a_body_in_chunks_is_cut_off_at_the_limit(server):
    # The length of the chunk is no reason to reserve memory: 256 TiB are said to follow.
    chunked = request_head("Transfer-Encoding: chunked")
    with connected(server.rest_port, chunked + b"ffffffffffff\r\nx"):
        assert_others_are_answered(server)
    with connected(server.rest_port, chunked + b"ffffffffffff\r\n") as connection, pytest.raises(ConnectionError):
        connection.sendall(bytes(20 << 20))


def test_a_body_at_the_limit_is_read(server):
    body = b'{"signature_name": "evaluate", "instances": ["ab"]}'
    body += b" " * ((1 << 20) - len(body))
    response = requests.post(f"http://127.0.0.1:{server.rest_port}{PREDICT}", data=body, timeout=5)
    assert response.json() == {"predictions": [4]}
    assert requests.post(response.url, data=body + b" ", timeout=5).status_code == 413


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (request_head("Transfer-Encoding: chunked") + b"zz\r\nx", 400),
        (request_head("Transfer-Encoding: chunked") + b"1\r\nxx\r\n", 400),
        (request_head("Transfer-Encoding: gzip"), 501),
        (request_head("Content-Length: -1"), 400),
        (request_head("Content-Length: many"), 400),
        (request_head(f"Content-Length: {'9' * 5000}"), 400),
        (request_head(f"Content-Length: {'0' * 5000}1"), 400),
        (b"POST http://[::1/v1/models/ranking:predict HTTP/1.1\r\nHost: here\r\n\r\n", 400),
        (request_head("No colon"), 400),
        (request_head(*["A: b"] * 20_000), 431),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400),
    ],
)
def test_what_is_not_http_gets_a_status_and_a_message(server, data, status):
    received, error = error_in(answer_to(server.rest_port, data))
    assert received == status
    assert error


@pytest.mark.parametrize(
    ("instances", "words"),
    [(["x"] * 5, ["at most 4 rows", "[5]"]), ([["x"] * 65], ["shape [-1]", "[1,65]"])],
)
def test_a_batch_that_is_too_large_is_refused_over_rest(server, instances, words):
    url = f"http://127.0.0.1:{server.rest_port}{PREDICT}"
    response = requests.post(url, json={"instances": instances}, timeout=5)
    assert response.status_code == 400
    for word in ["examples", *words]:
        assert word in response.json()["error"]


def test_too_many_values_are_refused_over_rest(server):
    inputs = {"user_id": [1], "history_movie_ids": [[1] * 65], "history_ratings": [[1] * 65]}
    url = f"http://127.0.0.1:{server.rest_port}/v1/models/recommender:predict"
    response = requests.post(url, json={"inputs": inputs}, timeout=5)
    assert response.status_code == 400
    assert "arg[history_movie_ids] to have at most 64 values" in response.json()["error"]


@pytest.mark.parametrize("words", ["Detected at node ", "{{function_node ", " ", " [Op:"])
@pytest.mark.parametrize("end", [b"", b"\xff"])
def test_garbage_that_looks_like_an_error_message_is_refused_at_once(server, calls, words, end):
    garbage = b"?" + words.encode() * ((900 << 10) // len(words)) + end
    start = time.monotonic()
    with pytest.raises(grpc.RpcError) as caught:
        calls.predict("ranking", {"examples": [garbage]}, signature_name="parse")
    assert time.monotonic() - start < 1
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert "Could not parse example input" in caught.value.details()


def test_a_message_that_is_too_large_is_refused_over_grpc(calls):
    with pytest.raises(grpc.RpcError) as caught:
        calls.predict("ranking", {"examples": [b"x" * (1 << 20)]})
    assert caught.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert str(1 << 20) in caught.value.details()


def test_a_message_that_grows_when_it_is_unpacked_is_refused_over_grpc(calls):
    call = calls.channel.unary_unary(METHOD)
    with pytest.raises(grpc.RpcError) as caught:
        call(bytes(64 << 20), timeout=20, compression=grpc.Compression.Gzip)
    assert caught.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED


def test_grpc_calls_that_send_no_request_keep_nobody_waiting(server, calls, eventually):
    def predict():
        return list(calls.predict("ranking", {"examples": [b"ab"]}, signature_name="evaluate").outputs)

    end = threading.Event()

    def nothing():
        end.wait(60)
        yield b""

    with contextlib.ExitStack() as stack:
        stack.callback(end.set)
        methods = []
        for place in range(4):
            # The option keeps channels from sharing a connection, of which each may have two calls here.
            channel = grpc.insecure_channel(f"127.0.0.1:{server.port}", options=[("place", place)])
            methods += [stack.enter_context(channel).stream_unary(METHOD)] * 2
        # Calls that nobody holds are cancelled.
        waiting = [method.future(nothing(), timeout=60) for method in methods[:6]]
        time.sleep(0.3)
        assert predict() == ["length"]
        waiting += [method.future(nothing(), timeout=60) for method in methods[6:]]

        def as_many_wait_as_there_may_be():
            # A call that arrives while `predict` is being answered may find no place: it is made again.
            for place, call in enumerate(waiting):
                if call.done():
                    waiting[place] = methods[place].future(nothing(), timeout=60)
            return refused_with(predict) == grpc.StatusCode.RESOURCE_EXHAUSTED

        eventually(as_many_wait_as_there_may_be)
    eventually(lambda: refused_with(predict) is None)


def refused_with(call):
    try:
        call()
    except grpc.RpcError as error:
        return error.code()
    return None


def test_open_connections_take_no_threads(server):
    assert_others_are_answered(server)
    before = threading.active_count()
    with contextlib.ExitStack() as stack:
        for _ in range(10):
            stack.enter_context(connected(server.rest_port, request_head("Content-Length: 9")))
        assert_others_are_answered(server)
        assert threading.active_count() == before


def test_idle_connections_are_closed_and_make_room(impatient_server):
    with contextlib.ExitStack() as stack:
        idle = [stack.enter_context(connected(impatient_server.rest_port)) for _ in range(LIMITS.connections)]
        # There is no room for another connection until some of the idle ones are closed.
        assert ask(impatient_server).ok
        for connection in idle:
            assert connection.recv(1) == b""


def test_clients_that_hang_up_leave_no_traceback(server, caplog):
    body = b'{"instances": ["ab"]}'
    with caplog.at_level(logging.WARNING):
        for end in (len(body), len(body) // 2):
            for _ in range(10):
                data = request_head(f"Content-Length: {len(body)}") + body[:end]
                with connected(server.rest_port, data) as connection:
                    # Closing resets the connection instead of ending it in order.
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        assert_others_are_answered(server)
    assert [record for record in caplog.records if record.exc_info or record.levelno >= logging.ERROR] == []
