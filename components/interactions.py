"""Who rated what, when: splits of ratings, and the history that came before each. Pure NumPy, no row by row Python."""

from dataclasses import dataclass

import numpy as np

from components.splits import SplitConfig, Strategy

TRAIN, EVAL, TEST = 0, 1, 2
SPLITS = ("train", "eval", "test")


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


def assign_splits(user_id: np.ndarray, movie_id: np.ndarray, timestamp: np.ndarray, config: SplitConfig) -> np.ndarray:
    """Gives every rating its split.

    `random` depends on user, movie and seed alone: a rating stays in its split whatever else is in the data. `temporal`
    and `temporal_rolling` cut at quantiles of time, ties in file order. `leave_last_out` makes a user's last rating
    test and the one before it eval; a user's only rating is train, and of two ratings the last is test.

    Args:
      user_id: int64 [ratings], in file order.
      movie_id: int64 [ratings].
      timestamp: int64 [ratings], seconds.
      config: strategy, seed and fractions.

    Returns:
      int8 [ratings] of TRAIN, EVAL and TEST.
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
    """Numbers in [0, 1) that look random, float64."""
    mixed = _mix(user_id.astype(np.uint64) ^ _mix(np.array([seed % 2**64], np.uint64)))
    return (_mix(mixed ^ movie_id.astype(np.uint64)) >> np.uint64(11)) * 2.0**-53


def _mix(x: np.ndarray) -> np.ndarray:
    """SplitMix64's finaliser (Steele et al. 2014, https://doi.org/10.1145/2660193.2660195)."""
    x = x + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


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
