"""One limit on the time of a whole call: all attempts, the pauses between them, and everything that each waits for."""

import time
from collections.abc import Callable
from typing import TypeVar

from serving.client.errors import ServerUnavailableError, ServerUnreachableError

_BACKOFF_SECONDS = 0.1
_MAX_BACKOFF_SECONDS = 2.0

_Answer = TypeVar("_Answer")


class DeadlineExceeded(Exception):
    """The time of a call is over.

    It is no OSError, unlike TimeoutError, so that it passes through libraries that wrap OSErrors in their own errors.
    """


class Deadline:
    """The moment at which a call must be over.

    Args:
      seconds: Seconds from now until then.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._end = time.monotonic() + seconds

    def left(self) -> float:
        """Returns the seconds that are left, more than 0.

        Raises:
          DeadlineExceeded: None are left.
        """
        left = self._end - time.monotonic()
        if left <= 0:
            raise DeadlineExceeded
        return left

    def is_over(self) -> bool:
        """Returns whether no time is left."""
        return time.monotonic() >= self._end


def ask_until_answered(ask: Callable[[], _Answer], address: str, deadline: Deadline, attempts: int) -> _Answer:
    """Asks until there is an answer, with pauses that double, within the deadline.

    Only a server that cannot be reached or gives no answer is asked again; predictions change nothing on a server, so
    asking twice does no harm.

    Args:
      ask: Asks once. It watches the deadline, and raises DeadlineExceeded.
      address: Address of the server, for messages.
      deadline: When the call must be over.
      attempts: Maximum number of attempts.

    Raises:
      ServingClientError: What the last attempt raised, or that the time is over.
    """
    backoff = _BACKOFF_SECONDS
    try:
        while True:
            attempts -= 1
            try:
                return ask()
            except (ServerUnreachableError, ServerUnavailableError) as error:
                retry_after = error.retry_after if isinstance(error, ServerUnavailableError) else 0.0
                left = deadline.left()
                if attempts and retry_after >= left:
                    raise ServerUnavailableError(
                        f"{error}; it wants to be asked again in {retry_after:g} s, but of the deadline of "
                        f"{deadline.seconds:g} s only {left:.2g} s are left.",
                        retry_after,
                    ) from error
                pause = max(retry_after, backoff)
                if not attempts or pause >= left:
                    raise
            time.sleep(pause)
            backoff = min(2 * backoff, _MAX_BACKOFF_SECONDS)
    except DeadlineExceeded as error:
        raise ServerUnavailableError(
            f"The server at {address} should answer within {deadline.seconds:g} s; it did not. Check host and port, or "
            "give it more time."
        ) from error
