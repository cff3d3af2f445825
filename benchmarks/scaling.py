"""Describes how cost grows with the number of rows: fixed cost, cost per row, and how much the latter varies."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Scaling:
    """A line fitted to the costs of several sizes.

    Attributes:
      fixed: seconds that every size takes.
      per_row: further seconds for each row.
      ratio: largest cost per row of any size, divided by the smallest; the fixed part is included.
      ratio_beyond_fixed: the same ratio without the fixed part.
    """

    fixed: float
    per_row: float
    ratio: float
    ratio_beyond_fixed: float


def fit_scaling(rows: Sequence[int], seconds: Sequence[float]) -> Scaling | None:
    """Fits seconds = fixed + per_row x rows; None with fewer than two different sizes.

    The fit minimises the squared relative errors, because the error of a measurement grows with its size; with absolute
    errors, the largest size alone would determine the line. The fixed part is at least 0.

    Args:
      rows: number of rows of each size.
      seconds: cost of each size.
    """
    if len(set(rows)) < 2:
        return None
    sizes, costs = np.array(rows, float), np.array(seconds, float)
    design = np.column_stack([np.ones_like(sizes), sizes]) / costs[:, None]
    (fixed, per_row), *_ = np.linalg.lstsq(design, np.ones_like(costs))
    if fixed < 0:
        fixed, per_row = 0.0, (sizes / costs).sum() / np.square(sizes / costs).sum()
    cost_per_row, beyond_fixed = costs / sizes, (costs - fixed) / sizes
    return Scaling(
        fixed=float(fixed),
        per_row=float(per_row),
        ratio=float(cost_per_row.max() / cost_per_row.min()),
        ratio_beyond_fixed=float(beyond_fixed.max() / beyond_fixed.min()) if beyond_fixed.min() > 0 else float("inf"),
    )
