"""Permutation importance: what a model loses when a feature's values are shuffled among rows.

Breiman 2001, "Random forests", https://doi.org/10.1023/A:1010933404324. It knows nothing of a model but its
predictions, so it tells whether what is read off a model's weights is what the model does.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

Arrays = Mapping[str, np.ndarray]
Loss = Callable[[Arrays], float]


@dataclass(frozen=True)
class Importance:
    """What shuffling costs.

    Attributes:
      loss: the model's loss on the rows as they are.
      features: by feature, how much larger the loss is when the feature is shuffled.
      pairs: by pair of features, how much less the loss grows when both are shuffled alike than when each is by itself,
        both added up. With a squared error and independent features, a model that adds up a part of one and a part of
        the other has 0 here; one that multiplies them loses the product twice one by one, and once together.
    """

    loss: float
    features: dict[str, float]
    pairs: dict[tuple[str, str], float]


def permutation_importance(
    rows: Arrays,
    columns: Mapping[str, Sequence[str]],
    loss: Loss,
    pairs: Iterable[tuple[str, str]] = (),
    repeats: int = 1,
    seed: int = 0,
) -> Importance:
    """Measures what the loss grows by when features are shuffled.

    Args:
      rows: [rows, ...] by column.
      columns: by feature, the columns that are made of it; they are shuffled together.
      loss: takes columns as `rows` has them; smaller is better. Growth of a squared error adds up over independent
        parts of a model, that of its root does not.
      pairs: pairs of features to shuffle together.
      repeats: orders to shuffle into; growth is the mean over them.
      seed: of the orders, each of which all features share.

    Raises:
      ValueError: fewer than two rows, or no repeats.
    """
    count = len(next(iter(rows.values())))
    if count < 2 or repeats < 1:
        raise ValueError(f"rows should be >= 2, repeats >= 1; received {count}, {repeats}.")
    pairs = list(pairs)
    rng = np.random.default_rng(seed)
    before = loss(rows)
    sets = [(feature,) for feature in columns] + pairs
    growth = dict.fromkeys(sets, 0.0)
    for _ in range(repeats):
        order = rng.permutation(count)
        for features in sets:
            shuffled = {name: rows[name][order] for feature in features for name in columns[feature]}
            growth[features] += (loss({**rows, **shuffled}) - before) / repeats
    return Importance(
        loss=before,
        features={feature: growth[feature,] for feature in columns},
        pairs={(one, other): growth[one,] + growth[other,] - growth[one, other] for one, other in pairs},
    )
