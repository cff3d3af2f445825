"""What a run reports about its nodes. Imports neither TFX nor TensorFlow, so that commands stay quick to load."""

from dataclasses import dataclass
from typing import Literal, Protocol

State = Literal["complete", "cached", "resolved", "skipped", "failed"]

# The nodes that only report: no other node reads what they write, and nothing is pushed by it. If one of them fails,
# for whatever reason, the run goes on to its end, and says so there.
ONLY_REPORT = frozenset({"FeatureImportance"})


@dataclass(frozen=True)
class NodeRun:
    """What became of a node.

    Attributes:
      id: the node's id.
      state: `complete` if the node ran, `cached` if an earlier result was used, `resolved` for resolvers and importers,
        `skipped` if it had nothing to do, `failed` otherwise.
      seconds: how long it took.
      execution_id: its execution in the metadata store; None where there is none.
      problem: why it failed, in one or a few lines; empty unless the state is `failed`.
    """

    id: str
    state: State
    seconds: float
    execution_id: int | None = None
    problem: str = ""


class Observer(Protocol):
    """Follows a run: the runner calls it when a node starts and when it ends."""

    def started(self, node_id: str) -> None:
        """A node starts."""

    def finished(self, node: NodeRun) -> None:
        """A node has ended, well or not."""
