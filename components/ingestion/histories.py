"""The history of each rating: what its user had rated before. In NumPy, without a Python loop over rows."""

from dataclasses import dataclass

import numpy as np

from components.ingestion.splits import TEST, TRAIN, Strategy


@dataclass(frozen=True)
class Ragged:
    """Lists of different lengths, stored end to end in one array.

    Attributes:
      offsets: int64 [lists + 1]; list i is `values[offsets[i]:offsets[i + 1]]`.
      values: [total].
    """

    offsets: np.ndarray
    values: np.ndarray

    @classmethod
    def of_slices(cls, starts: np.ndarray, lengths: np.ndarray, source: np.ndarray) -> "Ragged":
        """Makes the lists `source[starts[i]:starts[i] + lengths[i]]`."""
        offsets = np.concatenate([[0], np.cumsum(lengths)])
        positions = np.repeat(starts - offsets[:-1], lengths) + np.arange(offsets[-1])
        return cls(offsets, source[positions])


def is_known(codes: np.ndarray, code: int, strategy: Strategy) -> np.ndarray:
    """Marks the ratings that a row's history and seen movies may hold, if they are its user's.

    These are the train ratings. With `leave_last_out`, they include the user's eval rating for a test row, as in the
    literature (He et al. 2017, https://doi.org/10.1145/3038912.3052569), since that rating comes right before it. With
    `temporal_rolling`, they are all ratings for eval and test rows, because requests also tell a served model what the
    user has rated since it was trained; `Timeline` leaves out the ratings that come after a row.

    Args:
      codes: int8 [ratings], the split of each rating: TRAIN, EVAL or TEST.
      code: the split of the row.
      strategy: how ratings were split.

    Returns:
      bool [ratings].
    """
    if strategy is Strategy.LEAVE_LAST_OUT and code == TEST:
        return codes != TEST
    if strategy is Strategy.TEMPORAL_ROLLING and code != TRAIN:
        return np.ones(len(codes), bool)
    return codes == TRAIN


@dataclass(frozen=True)
class Timeline:
    """Ratings sorted by user and time, with lookups of each user's known ratings (see `is_known`).

    Attributes:
      order: int64 [ratings], row numbers of the file, sorted by user, timestamp and row number.
      known: int64 [known ratings], the row numbers in `order` whose ratings are known, in the same order.
      before: int64 [ratings + 1], number of known ratings before each place in `order`.
      user_start: int64 [ratings], for each place in `order`, the first place of its user.
      user_end: int64 [ratings], for each place in `order`, the place after the last one of its user.
    """

    order: np.ndarray
    known: np.ndarray
    before: np.ndarray
    user_start: np.ndarray
    user_end: np.ndarray

    @classmethod
    def of(cls, user_id: np.ndarray, timestamp: np.ndarray, known: np.ndarray) -> "Timeline":
        """Sorts ratings that are given in file order; `known`, bool [ratings], is from `is_known`."""
        order = np.lexsort((timestamp, user_id))
        users, known = user_id[order], known[order]
        return cls(
            order=order,
            known=order[known],
            before=np.concatenate([[0], np.cumsum(known)]),
            user_start=np.searchsorted(users, users, side="left"),
            user_end=np.searchsorted(users, users, side="right"),
        )

    def known_before(self, places: np.ndarray) -> np.ndarray:
        """Returns how many of its user's known ratings come before each place in `order`: int64 [places]."""
        return self.before[places] - self.before[self.user_start[places]]

    def histories(self, length: int, places: np.ndarray) -> Ragged:
        """Returns, for each place, the rows of its user's latest known ratings strictly before it, oldest first.

        Args:
          length: largest number of rows in a history; the latest ones are kept.
          places: int64 [places], indices into `order`.
        """
        end = self.before[places]
        count = np.minimum(self.known_before(places), length)
        return Ragged.of_slices(end - count, count, self.known)

    def seen(self, places: np.ndarray, strategy: Strategy) -> Ragged:
        """Returns, for each place in `order`, the rows of all known ratings of its user, oldest first.

        With `temporal_rolling`, only of those before the place, because later ratings are not known yet at that time.
        """
        start = self.before[self.user_start[places]]
        end = self.before[places if strategy is Strategy.TEMPORAL_ROLLING else self.user_end[places]]
        return Ragged.of_slices(start, end - start, self.known)
