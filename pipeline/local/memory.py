"""Measures the peak memory of this process and its descendants together."""

import threading
from pathlib import Path
from types import TracebackType
from typing import Self

_INTERVAL_SECONDS = 0.5


class PeakMemory:
    """A context manager that samples the resident memory of this process and all its descendants.

    A page that several processes share counts once for each of them, so the figure can be too large.
    """

    def __init__(self) -> None:
        self._peak_kb = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._sample_until_stopped, name="peak-memory", daemon=True)

    @property
    def megabytes(self) -> int:
        """The peak so far, in MB of 1024 kB."""
        # The kernel's own peak of this process alone: sampling can miss a short peak.
        process_peak_kb = _status_field_kb(Path("/proc/self/status"), "VmHWM")
        return max(self._peak_kb, process_peak_kb) // 1024

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()

    def _sample_until_stopped(self) -> None:
        while True:
            self._peak_kb = max(self._peak_kb, _process_tree_kb(Path("/proc/self")))
            if self._stop.wait(_INTERVAL_SECONDS):
                return


def _process_tree_kb(process: Path) -> int:
    """Returns the resident memory, in kB, of a process (its folder in /proc) and all its descendants."""
    total = _status_field_kb(process / "status", "VmRSS")
    try:
        tasks = list((process / "task").iterdir())
    except OSError:
        return total
    for task in tasks:
        try:
            children = (task / "children").read_text().split()
        except OSError:
            continue
        total += sum(_process_tree_kb(Path("/proc") / child) for child in children)
    return total


def _status_field_kb(status: Path, field: str) -> int:
    """Returns a field, in kB, of a process's status file; 0 if the process has ended meanwhile."""
    try:
        lines = status.read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith(f"{field}:")), 0)
