"""Shows the progress of a run: a line for every node, and what the trainers log about their epochs."""

import logging
from collections.abc import Callable
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.markup import escape
from rich.progress import Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn

from pipeline.nodes import NodeRun

TRAINERS_LOGGER = "trainers"


class RunProgress:
    """Prints `[5/24] Transform … 41 s` when a node ends; on a terminal, also shows the running node with a clock.

    While it is used as a context manager, it also shows what the trainers log. Implements `pipeline.nodes.Observer`.
    """

    def __init__(self, console: Console, total: int):
        """Creates the display.

        Args:
          console: where to print.
          total: the number of nodes of the pipeline.
        """
        self._console = console
        self._total = total
        self._count = 0
        self._node_id = ""
        self._has_notes = False
        self._clock: Progress | None = None
        self._task = TaskID(0)
        self._handler = _NoteHandler(self.note)

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            # rich must not capture standard output and error: what libraries print there belongs in the log file.
            self._clock = Progress(
                SpinnerColumn(),
                TextColumn("{task.description}"),
                TimeElapsedColumn(),
                console=self._console,
                transient=True,
                redirect_stdout=False,
                redirect_stderr=False,
            )
            self._task = self._clock.add_task("", visible=False)
            self._clock.start()
        logging.getLogger(TRAINERS_LOGGER).addHandler(self._handler)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        logging.getLogger(TRAINERS_LOGGER).removeHandler(self._handler)
        if self._clock:
            self._clock.stop()

    def started(self, node_id: str) -> None:
        """Notes that a node has started, and shows it on a terminal."""
        self._count += 1
        self._node_id, self._has_notes = node_id, False
        if self._clock:
            self._clock.reset(self._task, description=self._label(), visible=True)

    def note(self, text: str) -> None:
        """Prints a line about the running node; without a clock that shows the node, its label is printed first."""
        if not self._has_notes and not self._clock:
            self._console.print(self._label())
        self._has_notes = True
        self._console.print(f"        [dim]{escape(text)}[/dim]", soft_wrap=True)

    def finished(self, node: NodeRun) -> None:
        """Prints the line of a node that has ended."""
        if self._clock:
            self._clock.update(self._task, visible=False)
        style = {"complete": "green", "failed": "bold red"}.get(node.state, "dim")
        outcome = f"{duration(node.seconds)}" if node.state == "complete" else node.state
        if node.state == "failed":
            outcome += f" after {duration(node.seconds)}"
        self._console.print(f"{self._label()} … [{style}]{outcome}[/{style}]", soft_wrap=True)

    def _label(self) -> str:
        width = len(str(self._total))
        return escape(f"[{self._count:>{width}}/{self._total}] {self._node_id}")


class _NoteHandler(logging.Handler):
    """Passes the messages of log records to a function."""

    def __init__(self, note: Callable[[str], None]):
        super().__init__(logging.INFO)
        self._note = note

    def emit(self, record: logging.LogRecord) -> None:
        self._note(record.getMessage())


def duration(seconds: float) -> str:
    """Formats a duration for display: `0.4 s`, `41 s`, `3 min 5 s`."""
    if seconds < 0.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
