"""Types that report how the nodes of a run proceed; this module does not import TFX."""

from dataclasses import dataclass
from typing import Literal, Protocol

State = Literal["complete", "cached", "resolved", "skipped", "failed"]


@dataclass(frozen=True)
class NodeRun:
    """The outcome of a node.

    Attributes:
      id: the id of the node.
      state: complete if it ran, cached if an earlier result was used, resolved for resolvers and importers, skipped if
        it had nothing to do, failed if it failed.
      seconds: how long it took.
      execution_id: the id of its execution in the metadata store; None if there is no execution.
    """

    id: str
    state: State
    seconds: float
    execution_id: int | None = None


class Observer(Protocol):
    """Receives a call when a node of a run starts or ends."""

    def started(self, node_id: str) -> None:
        """Called when a node starts."""

    def finished(self, node: NodeRun) -> None:
        """Called when a node has ended, successfully or not."""
