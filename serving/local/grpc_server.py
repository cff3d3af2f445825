"""The gRPC server: an event loop receives requests, and a few threads answer those that have arrived whole.

gRPC's other server, without an event loop, gives a thread to each call that begins; a few clients who begin calls and
then send nothing would stop it for everybody.
"""

import asyncio
import threading
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import grpc
from google.protobuf import message as protobuf

from serving.local.limits import Limits

Result = TypeVar("Result")


class GrpcServer:
    """Listens on an address from the beginning, and answers from `start` to `stop`.

    Args:
      address: HOST:PORT; with port 0, a free one is taken.
      threads: Number of calls that are answered at the same time.
      limits: What clients may ask for.

    Attributes:
      port: The port that the server listens on.

    Raises:
      RuntimeError: The server cannot listen on the address.
    """

    def __init__(self, address: str, threads: int, limits: Limits) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="grpc-loop", daemon=True)
        self._thread.start()
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="grpc")
        try:
            self._server, self.port = self._run(self._listen(address, limits))
        except BaseException:
            self._end_loop()
            raise

    def start(self, add_services: Callable[[grpc.aio.Server], None]) -> None:
        """Starts to answer.

        Args:
          add_services: Registers servicers with the server; their methods run in threads, and receive the exception
            instead of a request that could not be read.
        """
        add_services(self._server)
        self._run(self._server.start())

    def stop(self, grace_seconds: float) -> None:
        """Gives running calls some seconds to finish, and closes all connections."""
        self._run(self._server.stop(grace_seconds))
        self._end_loop()

    async def _listen(self, address: str, limits: Limits) -> tuple[grpc.aio.Server, int]:
        server = grpc.aio.server(
            self._pool,
            interceptors=[_UnreadableRequests()],
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
        return server, server.add_insecure_port(address)

    def _run(self, coroutine: Coroutine[Any, Any, Result]) -> Result:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()

    def _end_loop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        self._pool.shutdown(wait=False)


class _UnreadableRequests(grpc.aio.ServerInterceptor):
    """Lets servicers answer requests that could not be read, for which gRPC would log a traceback."""

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        handler = await continuation(handler_call_details)
        if handler is None:
            return None
        read = handler.request_deserializer

        def read_or_error(message: bytes) -> Any:
            try:
                return read(message)
            except protobuf.DecodeError as error:
                return error

        return handler._replace(request_deserializer=read_or_error)
