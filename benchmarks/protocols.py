"""Evaluation protocols: how the ratings are split, and which methods are measured on each split."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from benchmarks.dataset import Dataset
from benchmarks.reported import LEAVE_LAST_OUT, NOTEBOOKS, RANDOM_90
from components.ingestion.splits import Fractions, SplitConfig, Strategy

# In the copy of the files that the documented results are measured on, some timestamps of later users' ratings are
# approximate; those of the first users are exact. What depends on order, as all histories do, is also reported for
# these users alone.
EARLY_USERS = "users 1 to 2999"


@dataclass(frozen=True)
class Protocol:
    """A way to split the ratings, and the methods to measure on it.

    Attributes:
      title: name of the protocol in the output.
      split: the split; its seed is replaced in `split_with`.
      methods: keys of `benchmarks.methods.METHODS`, in the order of the table.
      reported: metrics that others reported, by title of the row.
    """

    title: str
    split: SplitConfig
    methods: tuple[str, ...]
    reported: Mapping[str, Mapping[str, float]] = field(default_factory=dict, compare=False)

    @property
    def is_random(self) -> bool:
        """Whether the split depends on the seed; otherwise the seed affects only the models."""
        return self.split.strategy is Strategy.RANDOM

    def split_with(self, seed: int) -> SplitConfig:
        """The split with a seed, if it is random; otherwise the split as it is."""
        return self.split.model_copy(update={"seed": seed}) if self.is_random else self.split

    def subsets(self, users: np.ndarray, data: Dataset) -> dict[str, np.ndarray]:
        """Subsets of the test ratings for which metrics are reported separately.

        Args:
          users: int64 [ratings], the user_id of each test rating.
          data: the splits.

        Returns:
          Whether each rating is in a subset: bool [ratings] by title of the subset; no subset is empty.
        """
        subsets = {EARLY_USERS: users < 3000}
        if self.split.strategy.cuts_time:
            known = np.isin(users, data.user_ids[data.train.users])
            subsets |= {"users with train ratings": known, "cold users": ~known}
        return {title: members for title, members in subsets.items() if members.any()}


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
        ("bias", "mf", "ranking", "joint"),
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
        "temporal 75/25 (histories draw on all ratings before each test rating; models are trained at the cut)",
        SplitConfig(strategy=Strategy.TEMPORAL_ROLLING),
        ("popularity", "retrieval", "ranking"),
    ),
}
