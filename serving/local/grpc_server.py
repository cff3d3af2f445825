"""The gRPC server. Calls that have begun wait in threads of their own, and a few at a time are answered.

gRPC gives a thread to each call that begins, before its request has arrived. With as many threads as calls are allowed,
clients who begin calls and then send nothing do not stop the others.
"""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
from google.protobuf import message as protobuf

from serving.local.limits import Limits


class GrpcServer:
    """Listens on an address from the beginning, and answers from `start` to `stop`.

    Args:
      address: HOST:PORT; with port 0, a free one is taken.
      answers: Number of calls that are answered at the same time.
      limits: What clients may ask for.

    Attributes:
      port: The port that the server listens on.

    Raises:
      RuntimeError: The server cannot listen on the address.
    """

    def __init__(self, address: str, answers: int, limits: Limits) -> None:
        self._server = grpc.server(
            ThreadPoolExecutor(limits.calls, thread_name_prefix="grpc"),
            interceptors=[_Gate(answers)],
            maximum_concurrent_rpcs=limits.calls,
            options=[
                # Without SO_REUSEPORT a second server on the same port fails; with it, the two would share calls.
                ("grpc.so_reuseport", 0),
                ("grpc.max_receive_message_length", limits.message_bytes),
                ("grpc.max_send_message_length", -1),
                ("grpc.max_concurrent_streams", max(1, limits.calls // 4)),
                ("grpc.max_connection_idle_ms", 1000 * limits.idle_seconds),
            ],
        )
        self.port = self._server.add_insecure_port(address)

    def start(self, add_services: Callable[[grpc.Server], None]) -> None:
        """Starts to answer.

        Args:
          add_services: Registers servicers with the server; their methods receive the exception instead of a request
            that could not be read.
        """
        add_services(self._server)
        self._server.start()

    def stop(self, grace_seconds: float) -> threading.Event:
        """Takes no more calls, and gives running ones some seconds to finish; the event says that all have ended."""
        return self._server.stop(grace_seconds)


class _Gate(grpc.ServerInterceptor):
    """Lets a few calls at a time through to the servicers, and also those whose request could not be read.

    For the latter gRPC itself would log a traceback.
    """

    def __init__(self, answers: int) -> None:
        self._answers = threading.BoundedSemaphore(answers)

    def intercept_service(self, continuation: Callable[[Any], Any], handler_call_details: Any) -> Any:
        handler = continuation(handler_call_details)
        if handler is None:
            return None
        read, answer = handler.request_deserializer, handler.unary_unary

        def read_or_error(message: bytes) -> Any:
            try:
                return read(message)
            except protobuf.DecodeError as error:
                return error

        def answer_in_turn(request: Any, context: grpc.ServicerContext) -> Any:
            with self._answers:
                return answer(request, context)

        return handler._replace(request_deserializer=read_or_error, unary_unary=answer_in_turn)
