"""Servers on this machine that answer wrongly, late, or not at all."""

import contextlib
import http.server
import json
import socket
import threading

import pytest


class Peers:
    """Starts servers that do with each connection what a function says.

    Attributes:
      stopped: set when the test is over; functions that wait should wait for it.
    """

    def __init__(self):
        self.stopped = threading.Event()
        self._listeners = []

    def start(self, handle, receive_buffer=None):
        """Starts a server that calls `handle` with each connection, in a thread of its own; returns its port."""
        listener = socket.socket()
        if receive_buffer:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        self._listeners.append(listener)
        threading.Thread(target=self._accept, args=(listener, handle), daemon=True).start()
        return listener.getsockname()[1]

    def _accept(self, listener, handle):
        with contextlib.suppress(OSError):
            while True:
                connection, _ = listener.accept()
                threading.Thread(target=self._serve, args=(connection, handle), daemon=True).start()

    def _serve(self, connection, handle):
        # The client may be gone before everything is sent.
        with connection, contextlib.suppress(OSError):
            handle(connection)

    def stop(self):
        self.stopped.set()
        for listener in self._listeners:
            listener.shutdown(socket.SHUT_RDWR)
            listener.close()


@pytest.fixture
def peers():
    peers = Peers()
    yield peers
    peers.stop()


@pytest.fixture
def http_server():
    """Starts HTTP servers that answer each request with what a function of path and body returns."""
    servers = []

    def start(answer):
        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                status, content, headers = answer(self.path, body)
                data = content if isinstance(content, bytes) else json.dumps(content).encode()
                self.send_response(status)
                for name, value in {"Content-Length": str(len(data)), **headers}.items():
                    self.send_header(name, value)
                # The client may be gone before everything is sent.
                with contextlib.suppress(OSError):
                    self.end_headers()
                    self.wfile.write(data)

            do_GET = do_POST

            def log_message(self, format, *args):
                pass

        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        servers.append(server)
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        return server.server_port

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture
def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
