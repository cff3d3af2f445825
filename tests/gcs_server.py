"""An emulator of Google Cloud Storage that TensorFlow can talk to: with TLS, at Google's own names.

A program of an environment of its own, which has gcp-storage-emulator; see tests/google_storage.py. The emulator is for
Google's client in Python. What TensorFlow needs beside that is here.
"""

import argparse
import json
import logging
import ssl
import threading
from functools import partial
from http.server import ThreadingHTTPServer
from typing import Any

from gcp_storage_emulator import server
from gcp_storage_emulator.handlers.buckets import create_bucket
from gcp_storage_emulator.storage import Storage

TOKEN = "a-token-of-the-tests"  # No secret.
TOKEN_PATHS = ("/token", "/oauth2/v4/token")  # For Google's library, and for TensorFlow.

# The emulator's storage is for one request at a time.
_ONE_AT_A_TIME = threading.Lock()

_read_raw_data = server._read_raw_data
_read_data = server._read_data


def read_raw_data(handler: Any) -> Any:
    """Reads a body in chunks also if a length is given, as RFC 9112 (6.3) has it: TensorFlow's uploads have both."""
    if handler.headers.get("Transfer-Encoding", "").lower() == "chunked":
        del handler.headers["Content-Length"]
    return _read_raw_data(handler)


def read_data(handler: Any, query: Any) -> Any:
    """Reads an object without content, as those that stand for folders have, as empty and not as missing."""
    data = _read_data(handler, query)
    return b"" if data is None and "media" in query.get("uploadType", ()) else data


class Request(server.Request):
    """A request whose answer names addresses with TLS."""

    def __init__(self, handler: Any, method: str):
        super().__init__(handler, method)
        for name in ("_base_url", "_full_url"):
            setattr(self, name, getattr(self, name).replace("http://", "https://", 1))


class Router(server.Router):
    """Answers one request after the other."""

    def handle(self, method: str) -> None:
        """Answers a request once the one before it is done."""
        with _ONE_AT_A_TIME:
            super().handle(method)


class Handler(server.RequestHandler):
    """Answers for the store, which has no anonymous callers, and gives out the token of a service account."""

    def parse_request(self) -> bool:
        """Refuses whoever has no token; the caller may then answer nothing more."""
        if not super().parse_request():
            return False
        if self.path in TOKEN_PATHS or self.headers.get("Authorization") == f"Bearer {TOKEN}":
            return True
        self.send_error(401)
        return False

    def do_GET(self) -> None:
        """Answers, for what kind of bucket it is, that its folders are only the beginnings of names."""
        if self.path.partition("?")[0].endswith("/storageLayout"):
            self.answer({"kind": "storage#storageLayout", "hierarchicalNamespace": {"enabled": False}})
        else:
            super().do_GET()

    def do_POST(self) -> None:
        """Answers, for the token, what Google's server of tokens does."""
        if self.path in TOKEN_PATHS:
            read_raw_data(self)
            self.answer({"access_token": TOKEN, "expires_in": 3600, "token_type": "Bearer"})
        else:
            super().do_POST()

    def answer(self, content: dict[str, Any]) -> None:
        """Answers with JSON."""
        encoded = json.dumps(content).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(encoded)))
        self.end_headers()
        self.wfile.write(encoded)


def main() -> None:
    """Serves an empty bucket until the process is ended."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--certificate", required=True, help="a file with the certificate and its key")
    parser.add_argument("--bucket", required=True)
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO)
    server._read_raw_data, server._read_data = read_raw_data, read_data
    server.Request, server.Router = Request, Router
    storage = Storage(use_memory_fs=True)
    create_bucket(arguments.bucket, storage)
    http = ThreadingHTTPServer(("127.0.0.1", 443), partial(Handler, storage))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(arguments.certificate)
    # Each connection shakes hands in its own thread; in the one that accepts, a slow one would keep the others.
    http.socket = context.wrap_socket(http.socket, server_side=True, do_handshake_on_connect=False)
    http.serve_forever()


if __name__ == "__main__":
    main()
