"""Rows of results, and the Markdown tables that show them."""

import os
import platform
from collections.abc import Iterable
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from rich import box
from rich.table import Table

from benchmarks.metrics import CUTOFFS

_TOP_K_TITLES = {f"recall_at_{k}": f"recall@{k}" for k in CUTOFFS} | {"ndcg_at_10": "NDCG@10"}
RETRIEVAL_COLUMNS = _TOP_K_TITLES | {f"{key}_filtered": f"{title} filtered" for key, title in _TOP_K_TITLES.items()}
RATING_COLUMNS = {"rmse": "RMSE", "mae": "MAE"}
LIKE_COLUMNS = {"auc": "AUC", "log_loss": "log-loss"}


@dataclass(frozen=True)
class Run:
    """One measurement.

    Attributes:
      metrics: value by name.
      details: further facts about the run, such as seed, seconds and chosen settings.
      subsets: metrics on subsets of the test ratings, by title of the subset.
    """

    metrics: dict[str, float]
    details: dict[str, Any] = field(default_factory=dict)
    subsets: dict[str, dict[str, float]] = field(default_factory=dict)


@dataclass(frozen=True)
class Row:
    """A line of the table.

    Attributes:
      title: name of the method.
      source: `measured` by a benchmark, or `reported` by others.
      runs: one run per seed.
    """

    title: str
    source: str
    runs: list[Run]

    def mean(self, metric: str) -> float | None:
        """Mean over the runs; None if any run lacks the metric."""
        values = self._values(metric)
        return float(np.mean(values)) if values else None

    def deviation(self, metric: str) -> float | None:
        """Sample standard deviation over the runs; None with fewer than two runs, or if any lacks the metric."""
        values = self._values(metric)
        return float(np.std(values, ddof=1)) if len(values) > 1 else None

    def _values(self, metric: str) -> list[float]:
        values = [run.metrics[metric] for run in self.runs if metric in run.metrics]
        return values if len(values) == len(self.runs) else []

    def cell(self, metric: str) -> str:
        """Text of a table cell: the mean, followed by the deviation if there is one."""
        mean, deviation = self.mean(metric), self.deviation(metric)
        if mean is None:
            return "-"
        return f"{mean:.4f}" if deviation is None else f"{mean:.4f} ± {deviation:.4f}"

    def as_dict(self) -> dict[str, Any]:
        """The row as a dictionary that can be written as JSON."""
        metrics = [key for key in RETRIEVAL_COLUMNS | RATING_COLUMNS | LIKE_COLUMNS if self.mean(key) is not None]
        return {
            "title": self.title,
            "source": self.source,
            "mean": {key: self.mean(key) for key in metrics},
            "deviation": {key: self.deviation(key) for key in metrics},
            "runs": [{**run.details, "metrics": run.metrics, "subsets": run.subsets} for run in self.runs],
        }

    def for_subset(self, subset: str) -> "Row":
        """The row for a subset of the test ratings; runs that have no metrics for it are empty."""
        return Row(self.title, self.source, [Run(run.subsets.get(subset, {})) for run in self.runs])


def table(title: str, columns: dict[str, str], rows: Iterable[Row]) -> Table:
    """A Markdown table of the rows that have any of the columns.

    Args:
      title: heading of the first column; says what the other columns measure.
      columns: column heading by metric.
      rows: the rows, in order.
    """
    result = Table(box=box.MARKDOWN)
    result.add_column(title, no_wrap=True)
    for heading in columns.values():
        result.add_column(heading, justify="right", no_wrap=True)
    for row in rows:
        if any(row.mean(key) is not None for key in columns):
            result.add_row(row.title, *(row.cell(key) for key in columns))
    return result


def machine() -> dict[str, Any]:
    """The machine and the package versions that the results depend on."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return {
        "cpu": names[0] if names else platform.machine(),
        "cores": os.cpu_count(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30),
        "python": platform.python_version(),
        **{package: version(package) for package in ("numpy", "scipy", "tensorflow")},
    }
