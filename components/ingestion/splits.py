"""How ratings are divided into train, eval and test."""

import math
from enum import StrEnum
from typing import Self

import numpy as np
import pandas as pd
from pydantic import BaseModel, ConfigDict, Field, model_validator

TRAIN, EVAL, TEST = 0, 1, 2
SPLITS = ("train", "eval", "test")


class Strategy(StrEnum):
    """How ratings are assigned to splits."""

    RANDOM = "random"
    TEMPORAL = "temporal"
    TEMPORAL_ROLLING = "temporal_rolling"
    LEAVE_LAST_OUT = "leave_last_out"

    @property
    def cuts_time(self) -> bool:
        """Whether all eval ratings are later than all train ratings, and all test ratings later than those."""
        return self in (Strategy.TEMPORAL, Strategy.TEMPORAL_ROLLING)


class Fractions(BaseModel):
    """Shares of the ratings; they add up to 1. Not used by `leave_last_out`."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    train: float = Field(0.73, gt=0, lt=1, description="Share of ratings that models are fitted on.")
    eval: float = Field(0.02, gt=0, lt=1, description="Share of ratings for early stopping and tuning.")
    test: float = Field(0.25, gt=0, lt=1, description="Share of ratings that only the Evaluator sees.")

    @model_validator(mode="after")
    def _sum_to_one(self) -> Self:
        total = self.train + self.eval + self.test
        if not math.isclose(total, 1, abs_tol=1e-6):
            raise ValueError(f"train + eval + test should be 1; received {total:g}")
        return self


class SplitConfig(BaseModel):
    """The split of the ratings."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    strategy: Strategy = Field(
        Strategy.RANDOM,
        description="random: by a hash of user, movie and seed. temporal: by cuts in time, the same for all users. "
        "temporal_rolling: the same cuts, but the history and seen movies of eval and test rows hold all earlier "
        "ratings of their user, not only train ratings. leave_last_out: each user's last rating is test and the one "
        "before it eval; the test row's history and seen movies hold that eval rating, too.",
    )
    seed: int = Field(0, ge=0, description="Seed of the random split.")
    fractions: Fractions = Field(default_factory=Fractions, description="Shares of train, eval and test.")


def assign_splits(user_id: np.ndarray, movie_id: np.ndarray, timestamp: np.ndarray, config: SplitConfig) -> np.ndarray:
    """Assigns every rating to a split.

    `random` depends on user, movie and seed alone: a rating stays in its split whatever else is in the data. `temporal`
    and `temporal_rolling` cut at quantiles of the timestamps; ties are in file order. `leave_last_out` makes a user's
    last rating test and the one before it eval; a user's only rating is train, and of two ratings the first is train
    and the last is test.

    Args:
      user_id: int64 [ratings], in file order.
      movie_id: int64 [ratings].
      timestamp: int64 [ratings], seconds.
      config: strategy, seed and fractions.

    Returns:
      int8 [ratings], each TRAIN, EVAL or TEST.
    """
    if config.strategy is Strategy.LEAVE_LAST_OUT:
        return _leave_last_out(user_id, timestamp)
    cuts = np.cumsum([config.fractions.train, config.fractions.eval])
    if config.strategy is Strategy.RANDOM:
        position = _uniform_hash(user_id, movie_id, config.seed)
    else:
        position = np.empty(len(user_id))
        position[np.argsort(timestamp, kind="stable")] = (np.arange(len(user_id)) + 0.5) / len(user_id)
    return np.searchsorted(cuts, position, side="right").astype(np.int8)


def with_splits(ratings: pd.DataFrame, split: SplitConfig) -> pd.DataFrame:
    """Adds the int8 column `split` to ratings in file order."""
    user_id, movie_id, timestamp = (ratings[name].to_numpy() for name in ("user_id", "movie_id", "timestamp"))
    return ratings.assign(split=assign_splits(user_id, movie_id, timestamp, split))


def _leave_last_out(user_id: np.ndarray, timestamp: np.ndarray) -> np.ndarray:
    order = np.lexsort((timestamp, user_id))
    users = user_id[order]
    last = np.append(users[1:] != users[:-1], True)
    first = np.append(True, users[1:] != users[:-1])
    second_last = np.append(last[1:], False) & ~last & ~first
    codes = np.full(len(user_id), TRAIN, np.int8)
    codes[order[second_last]] = EVAL
    codes[order[last & ~first]] = TEST
    return codes


def _uniform_hash(user_id: np.ndarray, movie_id: np.ndarray, seed: int) -> np.ndarray:
    """Hashes each pair of user and movie to a pseudo-random number in [0, 1): float64 [ratings]."""
    return (row_hash(np.array([seed % 2**64], np.uint64), user_id, movie_id) >> np.uint64(11)) * 2.0**-53


def row_hash(*columns: np.ndarray) -> np.ndarray:
    """Hashes the values of each row, whole numbers, in the order of the columns: uint64 [rows]."""
    hashed = np.zeros(1, np.uint64)
    for values in columns:
        hashed = _mix(hashed ^ values.astype(np.uint64))
    return hashed


def _mix(x: np.ndarray) -> np.ndarray:
    """Mixes the bits of uint64 numbers with SplitMix64's finaliser (Steele et al. 2014, https://doi.org/10.1145/2660193.2660195)."""
    x = x + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
