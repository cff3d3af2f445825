"""The local model server: serves the models of a folder over gRPC and REST, as TensorFlow Serving does."""

import errno
import logging
import os
import signal
import socket
import threading
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType, TracebackType
from typing import TYPE_CHECKING

from serving.local.child import ServerFailed, running_server
from serving.local.grpc_server import GrpcServer
from serving.local.limits import Limits
from serving.local.model_store import ModelStore
from serving.local.process import share_memory_among_threads, spare_libraries_from_garbage_collection

if TYPE_CHECKING:
    import grpc

    from serving.local.loaded_model import LoadedModel
    from serving.local.rest_server import RestServer

__all__ = ["ModelServer", "PortUnavailableError", "ServerConfig", "ServerFailed", "running_server"]

DEFAULT_HOST = "127.0.0.1"
DEFAULT_PORT = 8500
DEFAULT_REST_PORT = 8501

_WORKERS = 8
_GRACE_SECONDS = 5.0

logger = logging.getLogger(__name__)


class PortUnavailableError(Exception):
    """The server cannot listen on the configured host and port."""


@dataclass(frozen=True)
class ServerConfig:
    """Which models to serve, and on which host and ports.

    Attributes:
      models: Folder of NAME/VERSION/saved_model.pb.
      host: Address to listen on; by default only this machine can connect.
      port: Port for gRPC; 0 for a free one.
      rest_port: Port for REST; 0 for a free one.
      poll_seconds: Seconds between two checks for new versions.
      settle_seconds: Seconds without a change of a version's files after which the version is loaded.
      limits: What clients may ask for.
    """

    models: Path
    host: str = DEFAULT_HOST
    port: int = DEFAULT_PORT
    rest_port: int = DEFAULT_REST_PORT
    poll_seconds: float = 2.0
    settle_seconds: float = 1.0
    limits: Limits = field(default_factory=Limits)


class ModelServer:
    """Serves the newest complete version of every model in a folder; a context manager.

    `start` imports TensorFlow and loads the models; the server answers requests afterwards.

    Args:
      config: Which models to serve, and on which host and ports.

    Attributes:
      port: Port for gRPC; if the configuration has 0, the actual port is known once the ports are claimed.
      rest_port: Port for REST; likewise.
    """

    def __init__(self, config: ServerConfig) -> None:
        self.config = config
        self.port = config.port
        self.rest_port = config.rest_port
        self._store: ModelStore[LoadedModel] | None = None
        self._grpc: GrpcServer | None = None
        self._rest_socket: socket.socket | None = None
        self._rest: RestServer | None = None
        self._stopped = threading.Event()

    @property
    def store(self) -> "ModelStore[LoadedModel]":
        """The models; available once the server has started."""
        if self._store is None:
            raise RuntimeError("The server should be started before its models are asked for.")
        return self._store

    def claim_ports(self) -> None:
        """Claims the ports. `start` does this too; a caller can do it first, to fail before slower work.

        Raises:
          PortUnavailableError: A port is in use or may not be used, or the host is not an address of this machine.
        """
        if self._rest_socket is not None:
            return
        share_memory_among_threads()
        self._rest_socket = _listen(self.config.host, self.config.rest_port)
        self.rest_port = self._rest_socket.getsockname()[1]
        # gRPC writes only to its own log why it cannot bind a port; this attempt gives the reason to the caller.
        _listen(self.config.host, self.config.port).close()
        address = f"{self.config.host}:{self.config.port}"
        try:
            self._grpc = GrpcServer(address, _WORKERS, self.config.limits)
        except RuntimeError as error:
            raise PortUnavailableError(f"Cannot listen on {address}: {error}") from error
        self.port = self._grpc.port

    def start(self) -> None:
        """Claims the ports, loads the models, and starts to answer requests.

        Raises:
          PortUnavailableError: See `claim_ports`.
        """
        try:
            self._start()
        except BaseException:
            self.stop()
            raise

    def _start(self) -> None:
        self.claim_ports()
        assert self._grpc is not None
        assert self._rest_socket is not None
        logger.info("Loading TensorFlow and the models in %s", self.config.models)
        from tensorflow_serving.apis import model_service_pb2_grpc, prediction_service_pb2_grpc

        from serving.local.grpc_service import ModelService, PredictionService
        from serving.local.loaded_model import load_model
        from serving.local.rest_server import RestServer
        from serving.local.rest_service import RestApplication

        spare_libraries_from_garbage_collection()
        self._store = ModelStore(
            self.config.models,
            load_model,
            poll_seconds=self.config.poll_seconds,
            settle_seconds=self.config.settle_seconds,
        )
        self._store.start()
        predictions, models = PredictionService(self._store, self.config.limits), ModelService(self._store)

        def add_services(server: "grpc.Server") -> None:
            prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(predictions, server)
            model_service_pb2_grpc.add_ModelServiceServicer_to_server(models, server)

        application = RestApplication(self._store, self.config.limits)
        self._rest = RestServer(self._rest_socket, application, _WORKERS, self.config.limits)
        self._grpc.start(add_services)
        self._rest.start()

    def stop(self) -> None:
        """Closes the ports; running requests get a few seconds to finish."""
        # Both at the same time, because a parent process waits only some seconds for all.
        calls_ended = None if self._grpc is None else self._grpc.stop(_GRACE_SECONDS)
        self._grpc = None
        if self._rest is not None:
            self._rest.stop(_GRACE_SECONDS)
            self._rest = None
        if self._rest_socket is not None:
            self._rest_socket.close()
        if calls_ended is not None:
            calls_ended.wait()
        if self._store is not None:
            self._store.stop()
        self._stopped.set()

    def stop_on_signals(self) -> None:
        """Makes SIGTERM and SIGINT end `wait`; only the main thread may call this."""

        def handle(number: int, _: FrameType | None) -> None:
            logger.info("%s received, shutting down", signal.Signals(number).name)
            self._stopped.set()

        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, handle)

    def wait(self) -> None:
        """Blocks until `stop` is called or a signal arrives (see `stop_on_signals`)."""
        self._stopped.wait()

    def __enter__(self) -> "ModelServer":
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def _listen(host: str, port: int) -> socket.socket:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, protocol)
    except OSError as error:
        raise PortUnavailableError(f"Host {host} should be an address of this machine: {error.strerror}.") from error
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(128)
    except OSError as error:
        listener.close()
        reason = "the port is in use" if error.errno == errno.EADDRINUSE else os.strerror(error.errno or 0)
        raise PortUnavailableError(f"Cannot listen on {host}:{port}: {reason}.") from error
    return listener
