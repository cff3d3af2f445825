"""The HTTP server of the REST API, with one thread per connection."""

import logging
import socket
from typing import TYPE_CHECKING, Any

from werkzeug.serving import BaseWSGIServer, WSGIRequestHandler, make_server

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

logger = logging.getLogger(__name__)


class _Handler(WSGIRequestHandler):
    """Answers one connection, and logs through this project's logger."""

    def log(self, type: str, message: str, *args: Any) -> None:
        logger.debug("%s: %s", self.address_string(), message % args)


def make_rest_server(listener: socket.socket, application: "WSGIApplication") -> BaseWSGIServer:
    """Returns a server on a listening socket; it duplicates the socket, so the caller may close `listener` afterwards.

    Args:
      listener: A socket that already listens.
      application: The WSGI application that answers the requests.
    """
    host, port = listener.getsockname()[:2]
    return make_server(host, port, application, threaded=True, request_handler=_Handler, fd=listener.fileno())
