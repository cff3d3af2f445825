"""Which stars are a like: 4 and 5 stars say yes, 1 and 2 say no, 3 say neither.

The protocol by which deep & cross networks are compared on MovieLens 1M (Wang et al. 2021,
https://doi.org/10.1145/3442381.3450078): ratings of 3 are left out of training and of every metric.
"""

from dataclasses import replace
from typing import Any

from trainers.datasets import Arrays, Splits
from transform.features import LABEL, transformed_name

LIKED_FROM, DISLIKED_TO = 4, 2  # Stars.


def is_liked(ratings: Any) -> Any:
    """Whether ratings, in stars, tell that a movie is liked: bool, an array or a tensor as the ratings are."""
    return ratings >= LIKED_FROM


def is_decided(ratings: Any) -> Any:
    """Whether ratings, in stars, tell whether a movie is liked: bool, an array or a tensor as the ratings are."""
    return (ratings >= LIKED_FROM) | (ratings <= DISLIKED_TO)


def only_decided(splits: Splits) -> Splits:
    """The splits without the train and eval rows that tell neither.

    Raises:
      ValueError: nothing is left of one of them.
    """
    return replace(splits, train=_decided_rows(splits.train, "train"), eval=_decided_rows(splits.eval, "eval"))


def _decided_rows(arrays: Arrays, split: str) -> Arrays:
    kept = is_decided(arrays[transformed_name(LABEL)])
    if not kept.any():
        raise ValueError(f"The split {split!r} should have ratings other than 3; received {len(kept)} rows, all of 3.")
    return {name: values[kept] for name, values in arrays.items()}
