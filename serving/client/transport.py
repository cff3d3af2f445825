"""What the client needs of a connection to a model server, whichever protocol it speaks."""

from collections.abc import Mapping
from typing import Protocol

import numpy as np

DEFAULT_ATTEMPTS = 4


class Transport(Protocol):
    """A connection to a model server; several threads may use it at once."""

    @property
    def address(self) -> str:
        """Host and port of the server, for messages."""
        ...

    def predict(self, model: str, inputs: Mapping[str, np.ndarray], signature_name: str = "") -> dict[str, np.ndarray]:
        """Calls a signature of a model; takes and returns arrays by name, with text as bytes objects.

        Args:
          model: Name of the model.
          inputs: Arrays by input name.
          signature_name: Name of the signature; `serving_default` if empty.

        Raises:
          ServingClientError: There was no answer, or not one of a model server.
        """
        ...

    def states(self, model: str, at_most_seconds: float | None = None) -> dict[int, str]:
        """Returns the state of every version of a model, for example {3: "AVAILABLE"}.

        Args:
          model: Name of the model.
          at_most_seconds: If this is less than the connection's own deadline, the answer must come within it.

        Raises:
          ServingClientError: There was no answer, or not one of a model server.
        """
        ...

    def close(self) -> None:
        """Closes the connection; calls after that raise ServingClientError."""
        ...
