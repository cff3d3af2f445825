"""Trivial models, fitted on the train split alone, that every trained model is compared with."""

from dataclasses import dataclass
from typing import Self

import numpy as np

from trainers.datasets import Splits
from trainers.likes import is_liked
from transform.features import LABEL, MOVIE_ID, USER_ID, Kind, Role, columns, transformed_name

# In ratings. With ten times or a tenth as many, popularity by group finds hardly more or fewer of the eval ratings.
_GROUP_PRIOR = 2000.0

# In ratings: the bias of a user or a movie with this many is shrunk to half.
BIAS_PENALTY = 5.0


def popularity(splits: Splits) -> np.ndarray:
    """Number of train ratings of each movie, counted by the Transform component: float32 [movie indices]."""
    counts = np.zeros(splits.movie_size, np.float32)
    counts[splits.movies[transformed_name(MOVIE_ID)]] = splits.movies[transformed_name(MOVIE_ID, Kind.FREQUENCY)]
    return counts


def popularity_by_group(splits: Splits) -> np.ndarray:
    """Popularity of each movie among people of one gender and one age.

    The counts of a group are shrunk towards those of everybody, as if the group had `_GROUP_PRIOR` ratings more.

    Returns:
      float32 [gender indices, age indices, movie indices], each movie's share of the group's ratings.
    """
    names = [transformed_name(name) for name in ("gender", "age")]
    sizes = [splits.index_count(column) for column in columns(Role.USER) if column.name in names]
    gender, age = (splits.train[name] for name in names)
    counts = np.zeros((*sizes, splits.movie_size))
    np.add.at(counts, (gender, age, splits.train[transformed_name(MOVIE_ID)]), 1)
    everybody = popularity(splits) / len(gender)
    shares = (counts + _GROUP_PRIOR * everybody) / (counts.sum(axis=2, keepdims=True) + _GROUP_PRIOR)
    return shares.astype(np.float32)


def log_popularity(splits: Splits) -> np.ndarray:
    """Logarithm of each movie's share of the train ratings: float32 [movie indices].

    Each movie counts one rating more than it has, so that the logarithm is finite. Used as the initial bias of the
    logits, this makes the softmax start by predicting popularity, which is better than starting at chance.
    """
    counts = popularity(splits) + 1
    return np.log(counts / counts.sum()).astype(np.float32)


@dataclass(frozen=True)
class Biases:
    """Predicts mean + user bias + movie bias, for ratings or other targets of a user and a movie.

    Attributes:
      mean: the prediction for an unknown user and an unknown movie.
      users: float32 [user indices], 0 for users without ratings.
      movies: float32 [movie indices], 0 for movies without ratings.
    """

    mean: float
    users: np.ndarray
    movies: np.ndarray

    @classmethod
    def of(cls, splits: Splits) -> Self:
        """Fits the model to the train split; subclasses define it."""
        raise NotImplementedError

    def total(self, users: np.ndarray, movies: np.ndarray) -> np.ndarray:
        """Sums mean and biases for pairs of a user and a movie index: float32 [pairs]."""
        return self.mean + self.users[users] + self.movies[movies]


class BiasModel(Biases):
    """The trivial model of ratings: rating = mean + user bias + movie bias, in stars."""

    @classmethod
    def of(cls, splits: Splits) -> "BiasModel":
        """Fits the model to the train split."""
        train = splits.train
        return fit_biases(
            train[transformed_name(USER_ID)],
            train[transformed_name(MOVIE_ID)],
            train[transformed_name(LABEL)],
            user_size=splits.size(USER_ID),
            movie_size=splits.movie_size,
        )

    def predict(self, users: np.ndarray, movies: np.ndarray) -> np.ndarray:
        """Predicts the ratings of pairs of a user and a movie index, 1 to 5: float32 [pairs]."""
        return np.clip(self.total(users, movies), 1, 5)


def fit_biases(
    users: np.ndarray,
    movies: np.ndarray,
    ratings: np.ndarray,
    user_size: int,
    movie_size: int,
    penalty: float = BIAS_PENALTY,
    sweeps: int = 10,
) -> BiasModel:
    """Fits user and movie biases by alternating ridge regression.

    Args:
      users: int [ratings], user indices.
      movies: int [ratings], movie indices.
      ratings: float [ratings], stars.
      user_size: number of user indices.
      movie_size: number of movie indices.
      penalty: L2 penalty, in ratings: the bias of a user or movie with this many ratings is shrunk to half.
      sweeps: passes over movies and users; the biases no longer change after about five.

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
    """The trivial model of likes: log-odds of a like = mean + user bias + movie bias."""

    @classmethod
    def of(cls, splits: Splits) -> "LikeBiases":
        """Fits the model to the train split, whose rows must all be likes or dislikes (see `likes.only_decided`)."""
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
    """Fits user and movie biases by logistic regression with a ridge penalty, in alternating Newton steps.

    Args:
      users: int [ratings], user indices.
      movies: int [ratings], movie indices.
      liked: bool [ratings], whether the user likes the movie.
      user_size: number of user indices.
      movie_size: number of movie indices.
      penalty: the ridge penalty: penalty / 2 times the squared biases is added to the sum of the cross-entropies. It
        is the inverse of the variance that the biases are expected to have.
      sweeps: passes over movies and users; the log-loss no longer changes after about ten.

    Returns:
      The fitted model.
    """
    # Adding one like and one dislike keeps the log-odds finite.
    share = (liked.sum() + 1) / (len(liked) + 2)
    mean = float(np.log(share / (1 - share)))
    user_biases, movie_biases = np.zeros(user_size), np.zeros(movie_size)
    for _ in range(sweeps):
        for rows, biases in ((movies, movie_biases), (users, user_biases)):
            chances = 1 / (1 + np.exp(-(mean + user_biases[users] + movie_biases[movies])))
            gradient = np.bincount(rows, liked - chances, len(biases)) - penalty * biases
            curvature = np.bincount(rows, chances * (1 - chances), len(biases)) + penalty
            # Newton's steps may overshoot where a user's or movie's few ratings all agree, so clip them to 1.
            biases += np.clip(gradient / curvature, -1, 1)
    return LikeBiases(mean, user_biases.astype(np.float32), movie_biases.astype(np.float32))
