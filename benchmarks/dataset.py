"""MovieLens as index arrays, divided exactly as the pipeline divides it."""

import hashlib
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import sparse

from components.data.raw_files import MovieLens
from components.ingestion.histories import Ragged, Timeline, is_known
from components.ingestion.splits import EVAL, TEST, TRAIN, SplitConfig, assign_splits


@dataclass(frozen=True)
class Ratings:
    """Some ratings.

    Attributes:
      users: int64 [ratings], rows of users.dat.
      movies: int64 [ratings], rows of movies.dat.
      stars: float64 [ratings], 1 to 5.
      seen: for each rating, rows of movies.dat that filtered metrics leave out; None for ratings of train.
    """

    users: np.ndarray
    movies: np.ndarray
    stars: np.ndarray
    seen: Ragged | None = None

    def __len__(self) -> int:
        return len(self.users)


@dataclass(frozen=True)
class Dataset:
    """The three splits and the size of the whole catalogue.

    Attributes:
      train: what models are fitted on.
      eval: what settings are chosen on; no model is ever fitted on it.
      test: what is reported; used once, at the end.
      known: what is known of a user when any of their test ratings is predicted: train; with leave_last_out and
        temporal_rolling, eval too.
      user_ids: int64 [n_users], as the files have them.
      groups: int64 [n_users], from 0; people of the same gender and age bracket have the same.
      n_movies: movies of movies.dat, rated or not.
      split_hash: 12 hex digits that differ when any rating is in another split.
    """

    train: Ratings
    eval: Ratings
    test: Ratings
    known: Ratings
    user_ids: np.ndarray
    groups: np.ndarray
    n_movies: int
    split_hash: str

    @property
    def n_users(self) -> int:
        """Users of users.dat."""
        return len(self.user_ids)

    def matrix(self, ratings: Ratings) -> sparse.csr_array:
        """Who rated what: float64 [n_users, n_movies] of ones."""
        ones = np.ones(len(ratings))
        return sparse.csr_array((ones, (ratings.users, ratings.movies)), shape=(self.n_users, self.n_movies))


def divide(movielens: MovieLens, config: SplitConfig) -> Dataset:
    """Splits the ratings.

    Args:
      movielens: what the files hold.
      config: the strategy, seed and fractions.
    """
    frame = movielens.ratings
    user_id, timestamp = frame["user_id"].to_numpy(), frame["timestamp"].to_numpy()
    codes = assign_splits(user_id, frame["movie_id"].to_numpy(), timestamp, config)
    users = pd.Index(movielens.users["user_id"]).get_indexer(frame["user_id"]).astype(np.int64)
    movies = pd.Index(movielens.movies["movie_id"]).get_indexer(frame["movie_id"]).astype(np.int64)
    stars = frame["rating"].to_numpy(np.float64)

    def part(chosen: np.ndarray, seen: Ragged | None = None) -> Ratings:
        return Ratings(users[chosen], movies[chosen], stars[chosen], seen)

    def held_out(code: int) -> Ratings:
        timeline = Timeline.of(user_id, timestamp, is_known(codes, code, config.strategy))
        seen = timeline.seen(np.argsort(timeline.order)[codes == code], config.strategy)
        return part(codes == code, Ragged(seen.offsets, movies[seen.values]))

    return Dataset(
        train=part(codes == TRAIN),
        eval=held_out(EVAL),
        test=held_out(TEST),
        known=part(is_known(codes, TEST, config.strategy) & (codes != TEST)),
        user_ids=movielens.users["user_id"].to_numpy(np.int64),
        groups=movielens.users.groupby(["gender", "age"]).ngroup().to_numpy(np.int64),
        n_movies=len(movielens.movies),
        split_hash=hashlib.sha256(codes.tobytes()).hexdigest()[:12],
    )
