"""Measured results on disk, each written when it is there, so that a run that was killed goes on where it was."""

import hashlib
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.report import Run
from pipeline.source import fingerprint

_CODE = ("benchmarks", "components", "trainers", "transform")


class Results:
    """Runs by what they are of: its parts, the settings and the project's code."""

    def __init__(self, folder: Path):
        self._folder = folder
        self._code = fingerprint(*_CODE)

    def get(self, parts: dict[str, Any], measure: Callable[[], Run]) -> tuple[Run, bool]:
        """The run that is kept, else what `measure` gives; and whether it was kept.

        Args:
          parts: what it is of; JSON.
          measure: is called where it has not been measured.
        """
        key = hashlib.sha256(json.dumps([self._code, parts], sort_keys=True).encode()).hexdigest()[:16]
        path = self._folder / f"{key}.json"
        if path.exists():
            document = json.loads(path.read_text())
            return Run(**document["run"]), True
        started = time.monotonic()
        run = measure()
        run = Run(run.metrics, {**run.details, "seconds": round(time.monotonic() - started, 1)}, run.subsets)
        self._folder.mkdir(parents=True, exist_ok=True)
        # Written under another name first, so that a file that was cut short is never taken for a result.
        unfinished = path.with_suffix(".unfinished")
        unfinished.write_text(json.dumps({"of": parts, "run": vars(run)}, indent=2) + "\n")
        unfinished.rename(path)
        return run, False
