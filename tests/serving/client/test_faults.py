"""Each way in which a server can be missing, be another one, or answer wrongly has a message with the address."""

import socket
import ssl
import struct
import subprocess
import threading
import time
from concurrent import futures

import grpc
import pytest

from serving.client import (
    ModelNotFoundError,
    RecommenderClient,
    ServerUnavailableError,
    ServerUnreachableError,
    ServingClientError,
)

OUTPUTS = {"movie_id": [[5]], "title": [["Heat"]], "predicted_rating": [[4.0]], "retrieval_score": [[1.0]]}
HTTP_OK = b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n"
RESET = struct.pack("ii", 1, 0)


def failure(port, transport, host="127.0.0.1", ask=RecommenderClient.recommend):
    """The error of a call, checked to be one line and to name the address."""
    with (
        RecommenderClient(host, port, transport=transport, attempts=2, deadline_seconds=5) as client,
        pytest.raises(ServingClientError) as raised,
    ):
        ask(client)
    message = str(raised.value)
    assert f"{host}:{port}" in message
    assert "\n" not in message
    return type(raised.value), message


def states(client):
    return client._transport.states("recommender")


@pytest.mark.parametrize("transport", ["rest", "grpc"])
@pytest.mark.parametrize("host", ["nosuchhost.invalid", "x" * 70 + ".invalid", "a..invalid"])
def test_a_host_that_does_not_exist(transport, host):
    kind, message = failure(8501, transport, host=host)
    assert kind is ServerUnreachableError
    assert "is not found" in message
    assert "Check the host" in message


@pytest.mark.parametrize(("transport", "port_name"), [("rest", "REST port"), ("grpc", "gRPC port")])
def test_a_port_where_nothing_listens(free_port, transport, port_name):
    kind, message = failure(free_port, transport)
    assert kind is ServerUnreachableError
    assert "No server listens" in message
    assert "connection refused" in message
    assert port_name in message


def test_an_ipv6_address_is_written_with_brackets(free_port):
    with (
        RecommenderClient("::1", free_port, transport="rest", attempts=1) as client,
        pytest.raises(ServerUnreachableError, match=rf"\[::1\]:{free_port}"),
    ):
        client.recommend()


@pytest.fixture(scope="module")
def tls_context(tmp_path_factory):
    folder = tmp_path_factory.mktemp("certificate")
    key, certificate = folder / "key.pem", folder / "certificate.pem"
    self_signed = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=localhost"]
    subprocess.run([*self_signed, "-keyout", key, "-out", certificate], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    return context


@pytest.mark.parametrize("transport", ["rest", "grpc"])
def test_a_server_with_tls(peers, tls_context, transport):
    _, message = failure(
        peers.start(lambda connection: tls_context.wrap_socket(connection, server_side=True)), transport
    )
    assert "TLS" in message
    assert "No server" not in message


def test_a_server_that_answers_with_a_tls_alert(peers):
    def alert(connection):
        connection.recv(65536)
        connection.sendall(b"\x15\x03\x01\x00\x02\x02\x46")

    kind, message = failure(peers.start(alert), "rest")
    assert kind is ServingClientError
    assert "does not speak HTTP" in message
    assert "TLS" in message


@pytest.mark.serving
def test_the_port_of_the_other_protocol(server):
    kind, message = failure(server.port, "rest")
    assert kind is ServingClientError
    assert "does not speak HTTP" in message
    assert "gRPC port" in message
    kind, message = failure(server.rest_port, "grpc")
    assert "gRPC" in message
    assert "REST" in message
    assert "No server" not in message


def test_an_http_server_at_the_grpc_port(http_server):
    kind, message = failure(http_server(lambda path, body: (404, b"", {})), "grpc")
    assert kind is ServingClientError
    assert "does not speak gRPC" in message
    assert "REST port" in message


@pytest.mark.parametrize(
    "answer",
    [
        (404, b"<html>Not Found</html>", {}),
        (404, {"detail": "Not Found"}, {}),
        (200, b"<html>Welcome</html>", {}),
        (200, b"", {}),
        (200, b"\xff\xfe", {}),
        (200, b"[" * 100_000, {}),
        (301, b"", {"Location": "https://elsewhere.invalid/"}),
        (200, [], {}),
        (200, {}, {}),
        (200, "text", {}),
        (200, {"outputs": None, "model_version_status": None}, {}),
        (200, {"outputs": [[1, 2], [3]], "model_version_status": [{}]}, {}),
        (200, {"outputs": {"movie_id": {"a": 1}}, "model_version_status": [{"version": "x", "state": "END"}]}, {}),
    ],
)
@pytest.mark.parametrize("ask", [RecommenderClient.recommend, states])
def test_another_http_server_at_the_rest_port(http_server, answer, ask):
    kind, message = failure(http_server(lambda path, body: answer), "rest", ask=ask)
    assert kind is ServingClientError
    assert "model server's REST port?" in message


@pytest.mark.parametrize(
    "outputs",
    [
        {},
        5,
        [[1.0]],
        {name: values for name, values in OUTPUTS.items() if name != "title"},
        {**OUTPUTS, "movie_id": [5]},
        {**OUTPUTS, "movie_id": [[5], [6]]},
        {**OUTPUTS, "movie_id": [[5, 6]]},
        {**OUTPUTS, "movie_id": [["5"]]},
        {**OUTPUTS, "movie_id": [[5.5]]},
        {**OUTPUTS, "title": [[7]]},
        {**OUTPUTS, "title": [[{"b64": "/w=="}]]},
        {**OUTPUTS, "predicted_rating": [["good"]]},
    ],
)
def test_a_model_that_is_no_recommender(http_server, outputs):
    kind, message = failure(http_server(lambda path, body: (200, {"outputs": outputs}, {})), "rest")
    assert kind is ServingClientError
    assert "should answer with movie_id, title, predicted_rating, retrieval_score" in message
    assert "Is recommender a recommender?" in message


@pytest.mark.serving
@pytest.mark.parametrize("transport", ["rest", "grpc"])
def test_a_model_that_does_not_exist(server, transport):
    port = server.rest_port if transport == "rest" else server.port
    with RecommenderClient(port=port, transport=transport, model="nothing") as client:
        with pytest.raises(ModelNotFoundError, match="nothing"):
            client.recommend()
        with pytest.raises(ModelNotFoundError, match="nothing"):
            client._transport.states("nothing")


@pytest.mark.parametrize("start", [b"", b"HTTP/1.1 200", HTTP_OK, HTTP_OK + b'{"outputs": '])
@pytest.mark.parametrize("reset", [False, True])
def test_a_connection_that_breaks_off_within_the_answer(peers, start, reset):
    def handle(connection):
        connection.recv(65536)
        connection.sendall(start)
        time.sleep(0.05)
        if reset:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)

    kind, message = failure(peers.start(handle), "rest")
    if start != b"HTTP/1.1 200" or reset:
        assert kind is ServerUnavailableError
        assert "broke the connection off" in message
    assert "No server" not in message


def test_a_grpc_connection_that_breaks_off_within_the_answer(peers):
    def handle(connection):
        # gRPC's greeting, so that the client sends its request.
        connection.sendall(b"\x00\x00\x00\x04\x00\x00\x00\x00\x00")
        time.sleep(0.2)
        connection.recv(65536)

    kind, message = failure(peers.start(handle), "grpc")
    assert kind is ServerUnavailableError
    assert "broke the connection off" in message


@pytest.mark.parametrize(
    ("status", "expected", "words"),
    [
        (503, ServerUnavailableError, "says that it is unavailable: too much to do"),
        (429, ServingClientError, "refused (429): too much to do"),
        (413, ServingClientError, "refused (413): too much to do"),
        (400, ServingClientError, "refused (400): too much to do"),
        (404, ModelNotFoundError, "refused (404): too much to do"),
    ],
)
def test_what_a_rest_server_says_is_passed_on(http_server, status, expected, words):
    port = http_server(lambda path, body: (status, {"error": "too much to do"}, {"Retry-After": "1"}))
    kind, message = failure(port, "rest")
    assert kind is expected
    assert words in message


@pytest.mark.parametrize(
    ("code", "expected", "words"),
    [
        (grpc.StatusCode.UNAVAILABLE, ServerUnavailableError, "says that it is unavailable: too much to do"),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, ServingClientError, "refused (RESOURCE_EXHAUSTED): too much to do"),
        (grpc.StatusCode.DEADLINE_EXCEEDED, ServingClientError, "refused (DEADLINE_EXCEEDED): too much to do"),
        (grpc.StatusCode.NOT_FOUND, ModelNotFoundError, "refused (NOT_FOUND): too much to do"),
        (grpc.StatusCode.UNIMPLEMENTED, ServingClientError, "too much to do. Is 127.0.0.1"),
    ],
)
def test_what_a_grpc_server_says_is_passed_on(code, expected, words):
    asked = []

    class Refuse(grpc.GenericRpcHandler):
        def service(self, details):
            asked.append(details.method)
            return grpc.unary_unary_rpc_method_handler(lambda request, context: context.abort(code, "too much to do"))

    server = grpc.server(futures.ThreadPoolExecutor(2), handlers=(Refuse(),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        kind, message = failure(port, "grpc")
    finally:
        server.stop(None)
    assert kind is expected
    assert words in message
    assert len(asked) == (2 if code == grpc.StatusCode.UNAVAILABLE else 1)


@pytest.mark.parametrize("transport", ["rest", "grpc"])
def test_a_closed_client_says_so(free_port, transport):
    client = RecommenderClient(port=free_port, transport=transport, attempts=1)
    client.close()
    client.close()
    with client:
        for ask in (client.recommend, lambda: client.wait_until_available(5), lambda: states(client)):
            with pytest.raises(ServingClientError, match=rf"client of 127.0.0.1:{free_port} is closed"):
                ask()


@pytest.mark.parametrize("transport", ["rest", "grpc"])
def test_a_client_that_is_closed_during_a_call_says_so(peers, transport):
    """gRPC ends the call at once; REST ends it with the attempt, and makes no other."""
    asked = threading.Event()

    def handle(connection):
        connection.recv(65536)
        asked.set()
        time.sleep(0.1)

    client = RecommenderClient(port=peers.start(handle), transport=transport, deadline_seconds=5)
    with futures.ThreadPoolExecutor(1) as pool:
        call = pool.submit(client.recommend)
        assert asked.wait(5)
        client.close()
        with pytest.raises(ServingClientError, match="is closed"):
            call.result()


@pytest.mark.serving
def test_a_grpc_client_finds_a_server_that_starts_late(free_port):
    """A channel's own pause between attempts to connect would grow to two minutes."""
    from tensorflow_serving.apis import get_model_status_pb2

    answer = get_model_status_pb2.GetModelStatusResponse(model_version_status=[{"version": 3, "state": 30}])

    class Serve(grpc.GenericRpcHandler):
        def service(self, details):
            return grpc.unary_unary_rpc_method_handler(lambda request, context: answer.SerializeToString())

    server = grpc.server(futures.ThreadPoolExecutor(2), handlers=(Serve(),))
    with RecommenderClient(port=free_port) as client, futures.ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(client.wait_until_available, 30)
        time.sleep(4)
        server.add_insecure_port(f"127.0.0.1:{free_port}")
        server.start()
        start = time.monotonic()
        assert waiting.result() == 3
    server.stop(None)
    assert time.monotonic() - start < 2.5
