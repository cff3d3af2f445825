"""Trivial models that every trained model is measured against, fitted on the train split alone."""

from dataclasses import dataclass

import numpy as np

from trainers.datasets import Splits
from transform.features import LABEL, MOVIE_ID, USER_ID, Kind, transformed_name


def popularity(splits: Splits) -> np.ndarray:
    """Number of train ratings of each movie, as Transform counted them: float32 [movie indices]."""
    counts = np.zeros(splits.movie_size, np.float32)
    counts[splits.movies[transformed_name(MOVIE_ID)]] = splits.movies[transformed_name(MOVIE_ID, Kind.FREQUENCY)]
    return counts


def log_popularity(splits: Splits) -> np.ndarray:
    """Logarithm of each movie's share of the train ratings, one rating added to each: float32 [movie indices].

    As a bias of logits it makes the softmax predict popularity, a better place to start from than chance.
    """
    counts = popularity(splits) + 1
    return np.log(counts / counts.sum()).astype(np.float32)


@dataclass(frozen=True)
class Biases:
    """mean + user bias + movie bias: of a rating, or of another thing that is predicted for a user and a movie.

    Attributes:
      mean: what is predicted without a user and a movie.
      users: float32 [user indices], 0 for users without ratings.
      movies: float32 [movie indices], 0 for movies without ratings.
    """

    mean: float
    users: np.ndarray
    movies: np.ndarray

    def total(self, users: np.ndarray, movies: np.ndarray) -> np.ndarray:
        """The sums for pairs: float32 [pairs]."""
        return self.mean + self.users[users] + self.movies[movies]


class BiasModel(Biases):
    """rating = mean + user bias + movie bias, in stars."""

    @classmethod
    def of(cls, splits: Splits) -> "BiasModel":
        """Fits it to the train split."""
        train = splits.train
        return fit_biases(
            train[transformed_name(USER_ID)],
            train[transformed_name(MOVIE_ID)],
            train[transformed_name(LABEL)],
            user_size=splits.size(USER_ID),
            movie_size=splits.movie_size,
        )

    def predict(self, users: np.ndarray, movies: np.ndarray) -> np.ndarray:
        """Predicted ratings of pairs, 1 to 5: float32 [pairs]."""
        return np.clip(self.total(users, movies), 1, 5)


def fit_biases(
    users: np.ndarray,
    movies: np.ndarray,
    ratings: np.ndarray,
    user_size: int,
    movie_size: int,
    penalty: float = 5.0,
    sweeps: int = 10,
) -> BiasModel:
    """Fits user and movie biases by alternating ridge regression.

    Args:
      users: int [ratings], user indices.
      movies: int [ratings], movie indices.
      ratings: float [ratings], stars.
      user_size: number of user indices.
      movie_size: number of movie indices.
      penalty: L2 penalty, in ratings: a bias seen that often is shrunk to half.
      sweeps: alternations; the biases no longer change after about five.

    Returns:
      The fitted model.
    """
    mean = float(ratings.mean(dtype=np.float64))
    residuals = ratings.astype(np.float64) - mean
    user_weights = np.bincount(users, minlength=user_size) + penalty
    movie_weights = np.bincount(movies, minlength=movie_size) + penalty
    user_biases = np.zeros(user_size)
    movie_biases = np.zeros(movie_size)
    for _ in range(sweeps):
        movie_biases = np.bincount(movies, residuals - user_biases[users], movie_size) / movie_weights
        user_biases = np.bincount(users, residuals - movie_biases[movies], user_size) / user_weights
    return BiasModel(mean, user_biases.astype(np.float32), movie_biases.astype(np.float32))
