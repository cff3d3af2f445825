"""How ratings are divided into train, eval and test."""

import math
from enum import StrEnum
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, model_validator


class Strategy(StrEnum):
    """How a rating finds its split."""

    RANDOM = "random"
    TEMPORAL = "temporal"
    TEMPORAL_ROLLING = "temporal_rolling"
    LEAVE_LAST_OUT = "leave_last_out"

    @property
    def cuts_time(self) -> bool:
        """Whether all of eval is later than train, and all of test later than eval."""
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
        description="random: hash of user, movie and seed. temporal: cuts in global time. "
        "temporal_rolling: the same cuts, and eval and test rows know all that their user rated before them. "
        "leave_last_out: each user's last rating is test, the one before it eval, which the test row's history "
        "and seen movies hold.",
    )
    seed: int = Field(0, ge=0, description="Seed of the random split.")
    fractions: Fractions = Field(default_factory=Fractions, description="Shares of train, eval and test.")
