"""The history that came before each rating: what its user had rated until then. Pure NumPy, no row by row Python."""

from dataclasses import dataclass

import numpy as np

from components.ingestion.splits import TEST, TRAIN, Strategy


@dataclass(frozen=True)
class Ragged:
    """Lists of different lengths, end to end.

    Attributes:
      offsets: int64 [lists + 1]; list i is `values[offsets[i]:offsets[i + 1]]`.
      values: [total].
    """

    offsets: np.ndarray
    values: np.ndarray

    @classmethod
    def of_slices(cls, starts: np.ndarray, lengths: np.ndarray, source: np.ndarray) -> "Ragged":
        """The lists `source[starts[i]:starts[i] + lengths[i]]`."""
        offsets = np.concatenate([[0], np.cumsum(lengths)])
        positions = np.repeat(starts - offsets[:-1], lengths) + np.arange(offsets[-1])
        return cls(offsets, source[positions])


def is_known(codes: np.ndarray, code: int, strategy: Strategy) -> np.ndarray:
    """Which ratings a row may know of its user, as history where they are earlier and as seen movies.

    These are the train ratings. With `leave_last_out`, a test row also knows its user's eval rating, as in the
    literature (He et al. 2017, https://doi.org/10.1145/3038912.3052569): that rating is the one right before it. With
    `temporal_rolling`, eval and test rows know every rating of their user from before them, as a served model that was
    trained at the cut is told them.

    Args:
      codes: int8 [ratings], splits of the ratings.
      code: the row's own split.
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
    """Ratings by user and time, and where each user's known ratings stand among them.

    Attributes:
      order: int64 [ratings], rows of the file sorted by user, timestamp and row.
      known: int64 [known ratings], the rows among `order` that are known, in the same order.
      before: int64 [ratings + 1], number of known ratings before each place in `order`.
      user_start: int64 [ratings], where in `order` the user of each place begins.
      user_end: int64 [ratings], where that user ends.
    """

    order: np.ndarray
    known: np.ndarray
    before: np.ndarray
    user_start: np.ndarray
    user_end: np.ndarray

    @classmethod
    def of(cls, user_id: np.ndarray, timestamp: np.ndarray, known: np.ndarray) -> "Timeline":
        """Sorts ratings, given in file order; `known`, bool [ratings], says which may be in histories."""
        order = np.lexsort((timestamp, user_id))
        users, known = user_id[order], known[order]
        return cls(
            order=order,
            known=order[known],
            before=np.concatenate([[0], np.cumsum(known)]),
            user_start=np.searchsorted(users, users, side="left"),
            user_end=np.searchsorted(users, users, side="right"),
        )

    def histories(self, length: int, places: np.ndarray) -> Ragged:
        """For some places in `order`: rows of the user's latest known ratings strictly before each, oldest first.

        Args:
          length: the most rows kept, the latest ones.
          places: int64 [places], indices into `order`.
        """
        end = self.before[places]
        count = np.minimum(end - self.before[self.user_start[places]], length)
        return Ragged.of_slices(end - count, count, self.known)

    def seen(self, places: np.ndarray, strategy: Strategy) -> Ragged:
        """For some places in `order`: rows of all the user's known ratings, oldest first.

        With `temporal_rolling`, where later ratings of the user are not known yet, of those before each place.
        """
        start = self.before[self.user_start[places]]
        end = self.before[places if strategy is Strategy.TEMPORAL_ROLLING else self.user_end[places]]
        return Ragged.of_slices(start, end - start, self.known)
