"""The ways in which ratings are divided, and what is measured on each."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from benchmarks.dataset import Dataset
from benchmarks.reported import LEAVE_LAST_OUT, NOTEBOOKS, RANDOM_90
from components.ingestion.splits import Fractions, SplitConfig, Strategy

# In the copy of the files that was measured, some times of later users' ratings are imputed; those of the first users
# are exact. Figures that depend on order are therefore also reported for the first users alone.
EARLY_USERS = "users 1 to 2999"


@dataclass(frozen=True)
class Protocol:
    """A way to divide the ratings.

    Attributes:
      title: what it is called.
      split: all but the seed.
      methods: keys of `benchmarks.methods.METHODS`, in the order of the table.
      reported: results of others, by title.
    """

    title: str
    split: SplitConfig
    methods: tuple[str, ...]
    reported: Mapping[str, Mapping[str, float]] = field(default_factory=dict, compare=False)

    @property
    def is_drawn(self) -> bool:
        """Whether the split depends on a seed; else seeds are of the models alone."""
        return self.split.strategy is Strategy.RANDOM

    def seeded(self, seed: int) -> SplitConfig:
        """The split, drawn with a seed."""
        return self.split.model_copy(update={"seed": seed}) if self.is_drawn else self.split

    def subsets(self, users: np.ndarray, data: Dataset) -> dict[str, np.ndarray]:
        """Test ratings that are reported apart.

        Args:
          users: int64 [ratings], whose they are, as the files have them.
          data: the splits.

        Returns:
          bool [ratings] by title.
        """
        if self.is_drawn:
            return {}
        subsets = {EARLY_USERS: users < 3000}
        if self.split.strategy.cuts_time:
            known = np.isin(users, data.user_ids[data.train.users])
            subsets |= {"users with train ratings": known, "cold users": ~known}
        return {title: kept for title, kept in subsets.items() if kept.any()}


PROTOCOLS = {
    "random-75": Protocol(
        "random 75/25 (2 of the 75 % held out)",
        SplitConfig(),
        (
            *("popularity", "ease", "ials", "bias", "mf"),
            *("notebook-two-tower", "notebook-ranking", "notebook-ranking-tuned", "notebook-joint"),
            *("retrieval", "ranking", "dcn", "dnn", "joint", "joint-apart"),
        ),
        NOTEBOOKS,
    ),
    "random-90": Protocol(
        "random 90/10 (2 of the 90 % held out)",
        SplitConfig(fractions=Fractions(train=0.88, eval=0.02, test=0.1)),
        ("bias", "mf", "ranking"),
        RANDOM_90,
    ),
    "leave-last-out": Protocol(
        "leave-last-out (each user's last rating; the one before it is eval)",
        SplitConfig(strategy=Strategy.LEAVE_LAST_OUT),
        ("popularity", "ease", "ials", "retrieval"),
        LEAVE_LAST_OUT,
    ),
    "temporal": Protocol(
        "temporal 75/25 (cuts in time; 2 of the 75 % held out)",
        SplitConfig(strategy=Strategy.TEMPORAL),
        (
            *("popularity", "popularity-hindsight", "groups", "groups-hindsight", "ease", "ials", "bias"),
            *("retrieval", "ranking"),
        ),
    ),
    "temporal-rolling": Protocol(
        "temporal 75/25, given what was rated before each test rating, with models of the cut",
        SplitConfig(strategy=Strategy.TEMPORAL_ROLLING),
        ("popularity", "retrieval", "ranking"),
    ),
}
