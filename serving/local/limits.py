"""What one client may ask of the local server, so that no request can take the machine from the others."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """Limits of the local server. TensorFlow Serving has no such limits of its own, and leaves them to a proxy.

    Attributes:
      message_bytes: Largest body of a REST request, and largest gRPC message.
      batch: Largest number of rows in a request, which is the first dimension of its inputs.
      values: Largest number of values in one input. A tensor may be much larger than its message, because a message
        may give a single value for all cells of a shape.
      calls: Number of gRPC calls that may run or wait at the same time; further ones are refused. One connection may
        have a quarter of them.
      connections: Number of REST connections that may be open at the same time; further ones wait.
      idle_seconds: Seconds after which a connection without traffic is closed.
    """

    message_bytes: int = 4 << 20
    batch: int = 256
    values: int = 1 << 20
    calls: int = 256
    connections: int = 512
    idle_seconds: int = 60
