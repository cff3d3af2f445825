"""What a run tells about its nodes, free of TFX."""

from dataclasses import dataclass
from typing import Literal, Protocol

State = Literal["complete", "cached", "resolved", "skipped", "failed"]


@dataclass(frozen=True)
class NodeRun:
    """What became of a node.

    Attributes:
      id: the node.
      state: complete if it ran, cached if an earlier result was used, resolved for resolvers and importers, skipped if
        it had nothing to do, failed.
      seconds: how long it took.
      execution_id: its execution in the metadata store, if there is one.
    """

    id: str
    state: State
    seconds: float
    execution_id: int | None = None


class Observer(Protocol):
    """Is told how a run proceeds."""

    def started(self, node_id: str) -> None:
        """A node starts."""

    def finished(self, node: NodeRun) -> None:
        """A node has ended, well or not."""
