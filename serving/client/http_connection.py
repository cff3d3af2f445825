"""An HTTP connection whose every wait counts against the deadline of the call that it serves.

Time-outs of urllib3, as those of requests, hold for each read: a server that sends a byte now and then is waited for
without end. Here the socket itself asks before each wait how much time is left.
"""

import queue
import socket
import threading
from contextvars import ContextVar
from typing import Any

from urllib3.connection import HTTPConnection

from serving.client.deadline import Deadline, DeadlineExceeded
from serving.client.errors import ServerUnreachableError

# The deadline of the call that this thread makes. A pool hands connections from thread to thread, so the deadline
# cannot be a property of a connection.
current_deadline: ContextVar[Deadline] = ContextVar("current_deadline")


class DeadlineConnection(HTTPConnection):
    """A connection for urllib3's pools; `current_deadline` has to be set in the thread that uses it."""

    def connect(self) -> None:
        """Connects to the first of the host's addresses that accepts.

        Raises:
          ServerUnreachableError: There is no such host, or none of its addresses accepts.
          DeadlineExceeded: The time is over.
        """
        deadline = current_deadline.get()
        host = self.host.strip("[]")
        where = f"[{host}]:{self.port}" if ":" in host else f"{host}:{self.port}"
        try:
            addresses = _look_up(host, self.port, deadline)
        except (OSError, UnicodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "not a valid name"
            raise ServerUnreachableError(
                f"The host name {host} of {where} is not found ({reason}). Check the host."
            ) from error
        failure = OSError("no address")
        for number, (family, address) in enumerate(addresses):
            try:
                # An address that swallows packets must leave time for the addresses after it.
                self.sock = _connect(family, address, deadline.left() / (len(addresses) - number))
                return
            except OSError as error:
                failure = error
        if isinstance(failure, TimeoutError):
            raise DeadlineExceeded from failure
        if isinstance(failure, ConnectionRefusedError):
            raise ServerUnreachableError(
                f"No server listens at {where} (REST): connection refused. Check that the model server "
                "runs, and its host and REST port."
            ) from failure
        raise ServerUnreachableError(
            f"There is no way to {where} (REST): {failure.strerror or failure}. Check host, port and network."
        ) from failure


class _Socket(socket.socket):
    """A socket whose reads and writes end with the current deadline."""

    def recv_into(self, *args: Any, **kwargs: Any) -> int:
        self.settimeout(current_deadline.get().left())
        try:
            return super().recv_into(*args, **kwargs)
        except TimeoutError as error:
            raise DeadlineExceeded from error

    def sendall(self, *args: Any, **kwargs: Any) -> None:
        # Python counts the time-out of sendall for all of the data together.
        self.settimeout(current_deadline.get().left())
        try:
            super().sendall(*args, **kwargs)
        except TimeoutError as error:
            raise DeadlineExceeded from error


def _connect(family: int, address: Any, seconds: float) -> _Socket:
    sock = _Socket(family, socket.SOCK_STREAM)
    try:
        # Requests are small and sent at once; without this, the second part of one waits for the answer to the first.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.settimeout(seconds)
        sock.connect(address)
    except BaseException:
        sock.close()
        raise
    return sock


def _look_up(host: str, port: int, deadline: Deadline) -> list[tuple[int, Any]]:
    """Returns the family and the address of each of a host's addresses.

    The system's look-up of names has no time-out, so a thread waits for it that nobody has to wait for.
    """
    answers: queue.SimpleQueue[list[Any] | Exception] = queue.SimpleQueue()

    def look_up() -> None:
        try:
            answers.put(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
        except Exception as error:
            answers.put(error)

    threading.Thread(target=look_up, name=f"look-up of {host}", daemon=True).start()
    try:
        answer = answers.get(timeout=deadline.left())
    except queue.Empty:
        raise DeadlineExceeded from None
    if isinstance(answer, Exception):
        raise answer
    return [(family, address) for family, _, _, _, address in answer]
