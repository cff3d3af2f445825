"""Converts stars to likes: 4 and 5 stars are a like, 1 and 2 a dislike, 3 is undecided.

This is the protocol by which deep & cross networks are compared on MovieLens 1M (Wang et al. 2021,
https://doi.org/10.1145/3442381.3450078): training and all metrics leave out ratings of 3.
"""

from dataclasses import replace
from typing import Any

from trainers.datasets import Arrays, Splits
from transform.features import LABEL, transformed_name

LIKED_FROM, DISLIKED_TO = 4, 2  # Stars.


def is_liked(ratings: Any) -> Any:
    """Whether ratings, in stars, are likes: bool, as an array or a tensor like the ratings."""
    return ratings >= LIKED_FROM


def is_decided(ratings: Any) -> Any:
    """Whether ratings, in stars, are likes or dislikes: bool, as an array or a tensor like the ratings."""
    return (ratings >= LIKED_FROM) | (ratings <= DISLIKED_TO)


def only_decided(splits: Splits) -> Splits:
    """Drops the undecided rows of the train and eval splits.

    Raises:
      ValueError: no row of one of these splits is decided.
    """
    return replace(splits, train=_decided_rows(splits.train, "train"), eval=_decided_rows(splits.eval, "eval"))


def _decided_rows(arrays: Arrays, split: str) -> Arrays:
    kept = is_decided(arrays[transformed_name(LABEL)])
    if not kept.any():
        raise ValueError(f"The split {split!r} should have ratings other than 3; received {len(kept)} rows, all of 3.")
    return {name: values[kept] for name, values in arrays.items()}
