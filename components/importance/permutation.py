"""Permutation importance: what a model loses when the values of a feature are shuffled among rows.

Breiman 2001, "Random forests", https://doi.org/10.1023/A:1010933404324. It needs nothing of a model but its
predictions, so it tells whether what is read off a model's weights is what the model does.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

Arrays = Mapping[str, np.ndarray]
RowLosses = Callable[[Arrays], np.ndarray]

FEWEST_ROWS = 2  # A single row cannot be shuffled.

# Shuffled copies of the rows are measured together, up to this many rows at a time: a model takes hardly longer for
# thousands of rows than for hundreds.
_STACKED_ROWS = 8192


@dataclass(frozen=True)
class Importance:
    """What shuffling costs.

    Attributes:
      loss: the model's mean loss on the rows as they are.
      features: by feature, by how much the loss grows when the feature is shuffled.
      pairs: by pair of features, how much less the loss grows when both are shuffled in the same order than the sum of
        what it grows by when each is shuffled alone. With a squared error and independent features, a model that adds
        a function of one feature to a function of the other has 0 here; a model that multiplies them loses the product
        twice when they are shuffled one by one, and once when they are shuffled together.
    """

    loss: float
    features: dict[str, float]
    pairs: dict[tuple[str, str], float]


def permutation_importance(
    rows: Arrays,
    columns: Mapping[str, Sequence[str]],
    losses: RowLosses,
    pairs: Iterable[tuple[str, str]] = (),
    repeats: int = 1,
    seed: int = 0,
) -> Importance:
    """Measures by how much the loss grows when features are shuffled.

    Args:
      rows: [rows, ...] by column, with everything that `losses` reads, the label included.
      columns: by feature, the columns that are made of it; they are shuffled together.
      losses: gives the loss of each row, [rows], for any number of rows with the columns of `rows`; smaller is better.
        The growth of a mean squared error adds up over independent parts of a model, that of its root does not.
      pairs: pairs of features to shuffle together.
      repeats: number of random orders; the growth is the mean over them.
      seed: seed of the orders, each of which all features share.

    Raises:
      ValueError: there are fewer than two rows, or no repeats.
    """
    count = len(next(iter(rows.values())))
    if count < FEWEST_ROWS or repeats < 1:
        raise ValueError(f"rows should be >= {FEWEST_ROWS}, repeats >= 1; received {count}, {repeats}.")
    pairs = list(pairs)
    rng = np.random.default_rng(seed)
    before = float(np.mean(losses(rows)))
    shuffled_together: list[tuple[str, ...]] = [*((feature,) for feature in columns), *pairs]
    growth = dict.fromkeys(shuffled_together, 0.0)
    for _ in range(repeats):
        order = rng.permutation(count)
        for features, loss in _shuffled_losses(rows, order, columns, shuffled_together, losses):
            growth[features] += (loss - before) / repeats
    return Importance(
        loss=before,
        features={feature: growth[feature,] for feature in columns},
        pairs={(one, other): growth[one,] + growth[other,] - growth[one, other] for one, other in pairs},
    )


def _shuffled_losses(
    rows: Arrays,
    order: np.ndarray,
    columns: Mapping[str, Sequence[str]],
    shuffled_together: Sequence[tuple[str, ...]],
    losses: RowLosses,
) -> Iterator[tuple[tuple[str, ...], float]]:
    """Pairs of features that are shuffled together and the mean loss of the rows with these features in `order`."""
    shuffled_rows = {name: rows[name][order] for names in columns.values() for name in names}
    copies = max(1, _STACKED_ROWS // len(order))
    for start in range(0, len(shuffled_together), copies):
        group = shuffled_together[start : start + copies]
        moved = [{name for feature in features for name in columns[feature]} for features in group]
        stacked = {
            name: np.concatenate([shuffled_rows[name] if name in names else values for names in moved])
            for name, values in rows.items()
        }
        means = losses(stacked).reshape(len(group), len(order)).mean(axis=1)
        yield from zip(group, means.tolist(), strict=True)
