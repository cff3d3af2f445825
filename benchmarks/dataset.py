"""MovieLens as index arrays, in the same splits as the pipeline makes."""

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
    """The ratings of a split, or some of them.

    Attributes:
      users: int64 [ratings], row of users.dat of each rating's user.
      movies: int64 [ratings], row of movies.dat of each rating's movie.
      stars: float64 [ratings], 1 to 5.
      seen: for each rating, rows of movies.dat that filtered metrics leave out; None for train ratings.
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
      train: ratings that models are fitted on.
      eval: ratings that settings are chosen on; no model is ever fitted on them.
      test: ratings that the reported metrics are computed on; used once, at the end.
      known: ratings that a model may know of a user when it predicts any of the user's test ratings: the train ratings;
        with leave_last_out and temporal_rolling, also the eval ratings.
      user_ids: int64 [n_users], the user_id in each row of users.dat.
      groups: int64 [n_users], group number of each user, from 0; a group is a gender and age bracket.
      n_movies: number of movies in movies.dat, rated or not.
      split_hash: 12 hex digits; they differ when any rating is in another split.
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
        """Number of users in users.dat."""
        return len(self.user_ids)

    def matrix(self, ratings: Ratings) -> sparse.csr_array:
        """The rated pairs of user and movie as a sparse matrix: float64 [n_users, n_movies], 1 where rated."""
        ones = np.ones(len(ratings))
        return sparse.csr_array((ones, (ratings.users, ratings.movies)), shape=(self.n_users, self.n_movies))


def split_ratings(movielens: MovieLens, config: SplitConfig) -> Dataset:
    """Splits the ratings.

    Args:
      movielens: contents of the raw files.
      config: strategy, seed and fractions of the split.
    """
    frame = movielens.ratings
    user_id, timestamp = frame["user_id"].to_numpy(), frame["timestamp"].to_numpy()
    codes = assign_splits(user_id, frame["movie_id"].to_numpy(), timestamp, config)
    users = pd.Index(movielens.users["user_id"]).get_indexer(frame["user_id"]).astype(np.int64)
    movies = pd.Index(movielens.movies["movie_id"]).get_indexer(frame["movie_id"]).astype(np.int64)
    stars = frame["rating"].to_numpy(np.float64)

    def select(chosen: np.ndarray, seen: Ragged | None = None) -> Ratings:
        return Ratings(users[chosen], movies[chosen], stars[chosen], seen)

    def held_out(code: int) -> Ratings:
        timeline = Timeline.of(user_id, timestamp, is_known(codes, code, config.strategy))
        seen = timeline.seen(np.argsort(timeline.order)[codes == code], config.strategy)
        return select(codes == code, Ragged(seen.offsets, movies[seen.values]))

    return Dataset(
        train=select(codes == TRAIN),
        eval=held_out(EVAL),
        test=held_out(TEST),
        known=select(is_known(codes, TEST, config.strategy) & (codes != TEST)),
        user_ids=movielens.users["user_id"].to_numpy(np.int64),
        groups=movielens.users.groupby(["gender", "age"]).ngroup().to_numpy(np.int64),
        n_movies=len(movielens.movies),
        split_hash=hashlib.sha256(codes.tobytes()).hexdigest()[:12],
    )
