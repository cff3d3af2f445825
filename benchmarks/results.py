"""Keeps measured results on disk, each written as soon as it is there, so that a killed benchmark can continue."""

import hashlib
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.report import Run
from pipeline.source import source_key
from trainers.registry import MODELS

_MODULES = ("benchmarks.quality", *(model.module for model in MODELS.values()))


class Results:
    """A cache of runs; the key of a run is a hash of what it depends on and of the project's code."""

    def __init__(self, folder: Path):
        self._folder = folder
        # Runs take hours, and hardly anything in `pipeline` has a part in them.
        self._source = source_key(*_MODULES, without=["pipeline"])

    def get(self, parts: dict[str, Any], measure: Callable[[], Run]) -> tuple[Run, bool]:
        """Returns the cached run, or measures and caches it.

        Args:
          parts: everything that the run depends on, besides the code; written as JSON.
          measure: measures the run; called only if the run is not cached.

        Returns:
          The run, and whether it was cached.
        """
        key = hashlib.sha256(json.dumps([self._source, parts], sort_keys=True).encode()).hexdigest()[:16]
        path = self._folder / f"{key}.json"
        if path.exists():
            document = json.loads(path.read_text())
            return Run(**document["run"]), True
        started = time.monotonic()
        run = measure()
        run = Run(run.metrics, {**run.details, "seconds": round(time.monotonic() - started, 1)}, run.subsets)
        self._folder.mkdir(parents=True, exist_ok=True)
        # Written under another name first, so that a file cut short by an interruption is never taken for a result.
        unfinished = path.with_suffix(".unfinished")
        unfinished.write_text(json.dumps({"of": parts, "run": vars(run)}, indent=2) + "\n")
        unfinished.rename(path)
        return run, False
