"""How cost grows with the number of rows: a fixed part, a part for each row, and how even the cost of a row is."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Scaling:
    """A line through the costs of several sizes.

    Attributes:
      fixed: seconds that any size takes.
      per_row: seconds for each row beyond that.
      ratio: cost of a row, fixed part included, where it is largest over where it is smallest.
      ratio_beyond_fixed: the same without the fixed part.
    """

    fixed: float
    per_row: float
    ratio: float
    ratio_beyond_fixed: float


def fit_scaling(rows: Sequence[int], seconds: Sequence[float]) -> Scaling | None:
    """Fits seconds = fixed + per_row x rows; None with fewer than two different sizes.

    Least squares of the relative errors: the error of a measurement grows with it, and the largest size alone would
    otherwise decide. The fixed part is at least 0.

    Args:
      rows: the sizes.
      seconds: their costs.
    """
    if len(set(rows)) < 2:
        return None
    sizes, costs = np.array(rows, float), np.array(seconds, float)
    design = np.column_stack([np.ones_like(sizes), sizes]) / costs[:, None]
    (fixed, per_row), *_ = np.linalg.lstsq(design, np.ones_like(costs))
    if fixed < 0:
        fixed, per_row = 0.0, (sizes / costs).sum() / np.square(sizes / costs).sum()
    each, beyond = costs / sizes, (costs - fixed) / sizes
    return Scaling(
        fixed=float(fixed),
        per_row=float(per_row),
        ratio=float(each.max() / each.min()),
        ratio_beyond_fixed=float(beyond.max() / beyond.min()) if beyond.min() > 0 else float("inf"),
    )
