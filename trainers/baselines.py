"""Trivial models that every trained model is measured against, fitted on the train split alone."""

from dataclasses import dataclass

import numpy as np

from trainers.datasets import Splits
from trainers.likes import is_liked
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


class LikeBiases(Biases):
    """log-odds of a like = mean + user bias + movie bias: the trivial model."""

    @classmethod
    def of(cls, splits: Splits) -> "LikeBiases":
        """Fits it to the train split, of which all rows tell whether the movie is liked."""
        train = splits.train
        return fit_like_biases(
            train[transformed_name(USER_ID)],
            train[transformed_name(MOVIE_ID)],
            is_liked(train[transformed_name(LABEL)]),
            user_size=splits.size(USER_ID),
            movie_size=splits.movie_size,
        )


def fit_like_biases(
    users: np.ndarray,
    movies: np.ndarray,
    liked: np.ndarray,
    user_size: int,
    movie_size: int,
    penalty: float = 1.0,
    sweeps: int = 20,
) -> LikeBiases:
    """Fits user and movie biases by logistic regression with a ridge penalty, alternating Newton steps.

    Args:
      users: int [ratings], user indices.
      movies: int [ratings], movie indices.
      liked: bool [ratings].
      user_size: number of user indices.
      movie_size: number of movie indices.
      penalty: half of it times the squared bias is added to the sum of the cross-entropies: 1 over the variance that
        biases are expected to have.
      sweeps: alternations; the log-loss no longer changes after about ten.

    Returns:
      The fitted model.
    """
    # One like and one dislike more than there are: the log-odds stay finite.
    share = (liked.sum() + 1) / (len(liked) + 2)
    mean = float(np.log(share / (1 - share)))
    user_biases, movie_biases = np.zeros(user_size), np.zeros(movie_size)
    for _ in range(sweeps):
        for rows, biases in ((movies, movie_biases), (users, user_biases)):
            chances = 1 / (1 + np.exp(-(mean + user_biases[users] + movie_biases[movies])))
            gradient = np.bincount(rows, liked - chances, len(biases)) - penalty * biases
            curvature = np.bincount(rows, chances * (1 - chances), len(biases)) + penalty
            # Newton's steps may overshoot where few ratings say the same; a unit of log-odds is enough for one step.
            biases += np.clip(gradient / curvature, -1, 1)
    return LikeBiases(mean, user_biases.astype(np.float32), movie_biases.astype(np.float32))
