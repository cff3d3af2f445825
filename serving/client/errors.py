"""What can go wrong when a model server is asked, whatever the protocol."""


class ServingClientError(Exception):
    """A call to a model server that failed; the message says where and why."""


class ServerUnreachableError(ServingClientError):
    """No server is there: its host name is not found, or nothing accepts connections at the address."""


class ServerUnavailableError(ServingClientError):
    """Something is there but gives no answer now: it says so, breaks the connection off, or does not answer in time.

    Attributes:
      retry_after: Seconds after which the server wants to be asked again; 0 if it does not say.
    """

    def __init__(self, message: str, retry_after: float = 0.0) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class ModelNotFoundError(ServingClientError):
    """The server has no such model or version."""


def closed_error(address: str) -> ServingClientError:
    """Returns the error for a call after `close`."""
    return ServingClientError(f"The client of {address} is closed; make a new one to ask again.")
