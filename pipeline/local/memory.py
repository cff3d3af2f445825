"""The most memory that this process and its children held together."""

import threading
from pathlib import Path
from types import TracebackType
from typing import Self

_INTERVAL_SECONDS = 0.5


class PeakMemory:
    """Watches the resident memory of this process and of all its descendants while in use.

    Pages that processes share are counted in each, so the figure errs on the large side.
    """

    def __init__(self) -> None:
        self._peak_kb = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="peak-memory", daemon=True)

    @property
    def megabytes(self) -> int:
        """The peak so far, in MB of 1024 kB."""
        own = _status_kb(Path("/proc/self/status"), "VmHWM")
        return max(self._peak_kb, own) // 1024

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while True:
            self._peak_kb = max(self._peak_kb, _tree_kb(Path("/proc/self")))
            if self._stop.wait(_INTERVAL_SECONDS):
                return


def _tree_kb(process: Path) -> int:
    total = _status_kb(process / "status", "VmRSS")
    try:
        tasks = list((process / "task").iterdir())
    except OSError:
        return total
    for task in tasks:
        try:
            children = (task / "children").read_text().split()
        except OSError:
            continue
        total += sum(_tree_kb(Path("/proc") / child) for child in children)
    return total


def _status_kb(status: Path, field: str) -> int:
    """A field of a process's status in kB; 0 when the process ended meanwhile."""
    try:
        lines = status.read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith(f"{field}:")), 0)
