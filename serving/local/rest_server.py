"""The HTTP server of the REST API.

One thread reads all connections and hands complete requests to a few threads, so that clients who are slow, idle or
gone take no thread away. Requests that are not HTTP, or too large, are refused before they are read to their end.
"""

import json
import logging
import socket
import threading
from typing import TYPE_CHECKING, Any

from waitress import wasyncore
from waitress.channel import HTTPChannel
from waitress.parser import HTTPRequestParser, ParsingError
from waitress.server import TcpWSGIServer, create_server
from waitress.task import ErrorTask
from waitress.utilities import RequestEntityTooLarge

from serving.local.limits import Limits
from serving.local.rest_service import JSON_TYPE

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

_LARGEST_HEADER = 1 << 16  # Bytes of all header lines of a request.
_CLEANUP_SECONDS = 10  # Between two searches for idle connections.


class RestServer:
    """Answers HTTP requests on a listening socket, from `start` to `stop`.

    Args:
      listener: A socket that already listens; the server closes it.
      application: The WSGI application that answers the requests.
      threads: Number of requests that are answered at the same time.
      limits: What clients may ask for.
    """

    def __init__(self, listener: socket.socket, application: "WSGIApplication", threads: int, limits: Limits) -> None:
        self._connections: dict[int, Any] = {}
        self._server: TcpWSGIServer = create_server(
            application,
            map=self._connections,
            sockets=[listener],
            threads=threads,
            max_request_header_size=_LARGEST_HEADER,
            max_request_body_size=limits.message_bytes + 1,  # The library refuses bodies of this size as well.
            connection_limit=limits.connections,
            channel_timeout=limits.idle_seconds,
            cleanup_interval=min(_CLEANUP_SECONDS, limits.idle_seconds),
            # A client that hangs up is an everyday event, and not worth a traceback in the log.
            log_socket_errors=False,
            asyncore_use_poll=True,
            ident=None,
        )
        self._server.channel_class = _Channel
        # A queue of requests is an everyday event, too.
        logging.getLogger("waitress.queue").setLevel(logging.ERROR)
        self._thread = threading.Thread(target=self._server.run, name="rest", daemon=True)

    def start(self) -> None:
        """Starts to answer."""
        self._thread.start()

    def stop(self, grace_seconds: float) -> None:
        """Gives running requests some seconds to finish, and closes all connections."""
        self._server.task_dispatcher.shutdown(timeout=grace_seconds)
        if self._thread.is_alive():
            # The thread that reads the connections has to close them itself; it ends when none is left.
            self._server.trigger.pull_trigger(lambda: wasyncore.close_all(self._connections))
            self._thread.join()
        else:
            wasyncore.close_all(self._connections)


class _JsonErrorTask(ErrorTask):
    """Answers a request that is not HTTP or too large with JSON, as every other error."""

    def execute(self) -> None:
        error = self.request.error
        problem = error.body
        if error.code == RequestEntityTooLarge.code:
            problem = f"the body should have at most {self.channel.adj.max_request_body_size - 1} bytes"
        body = json.dumps({"error": f"{error.reason}: {problem}"}).encode()
        self.status = f"{error.code} {error.reason}"
        self.response_headers.append(("Content-Type", JSON_TYPE))
        self.set_close_on_finish()
        self.content_length = len(body)
        self.write(body)


class _Parser(HTTPRequestParser):
    """Refuses what the library cannot read, where it would close the connection without an answer."""

    def parse_header(self, header_plus: bytes) -> None:
        try:
            super().parse_header(header_plus)
        except ValueError as error:
            raise ParsingError(f"The address or the length of the body cannot be read: {error}") from error


class _Channel(HTTPChannel):
    parser_class = _Parser
    error_task_class = _JsonErrorTask
