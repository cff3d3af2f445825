"""The exception of the model server: a gRPC status code and a message."""

import grpc

# Names and values in messages come from requests, and can be as long as these. A gRPC status has no room for more than
# some kilobytes.
_LONGEST_MESSAGE = 1000


class ServingError(Exception):
    """The server cannot answer a request.

    Attributes:
      code: The gRPC status code that TensorFlow Serving would answer with.
      message: What was wrong, in one sentence; cut after 1,000 characters.
    """

    def __init__(self, code: grpc.StatusCode, message: str) -> None:
        if len(message) > _LONGEST_MESSAGE:
            message = f"{message[:_LONGEST_MESSAGE]}..."
        super().__init__(message)
        self.code = code
        self.message = message


def invalid_argument(message: str) -> ServingError:
    """Returns an INVALID_ARGUMENT error."""
    return ServingError(grpc.StatusCode.INVALID_ARGUMENT, message)


def not_found(message: str) -> ServingError:
    """Returns a NOT_FOUND error."""
    return ServingError(grpc.StatusCode.NOT_FOUND, message)


def unimplemented(message: str) -> ServingError:
    """Returns an UNIMPLEMENTED error."""
    return ServingError(grpc.StatusCode.UNIMPLEMENTED, message)
