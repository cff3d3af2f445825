"""The binary objective: will a person like a movie? 4 and 5 stars say yes, 1 and 2 say no, 3 say neither.

The protocol by which deep & cross networks are compared on MovieLens 1M (Wang et al. 2021,
https://doi.org/10.1145/3442381.3450078): ratings of 3 are left out of training and of every metric.
"""

from dataclasses import replace
from typing import Any

import numpy as np
import tensorflow as tf

from trainers.baselines import Biases
from trainers.datasets import Arrays, Splits, predictions
from trainers.signatures import ExportedBiases, Raw
from trainers.towers import Tensors
from transform.features import LABEL, MOVIE_ID, USER_ID, transformed_name

LIKED_FROM, DISLIKED_TO = 4, 2  # Stars.

# What the signature `labels` calls them.
LIKED, WEIGHT = "is_liked", "is_decided"


def is_liked(ratings: Any) -> Any:
    """Whether ratings, in stars, tell that a movie is liked: bool, an array or a tensor as the ratings are."""
    return ratings >= LIKED_FROM


def is_decided(ratings: Any) -> Any:
    """Whether ratings, in stars, tell whether a movie is liked: bool, an array or a tensor as the ratings are."""
    return (ratings >= LIKED_FROM) | (ratings <= DISLIKED_TO)


def only_decided(splits: Splits) -> Splits:
    """The splits without the train and eval rows that tell neither.

    Raises:
      ValueError: nothing is left of one of them.
    """
    return replace(splits, train=_decided_rows(splits.train, "train"), eval=_decided_rows(splits.eval, "eval"))


def _decided_rows(arrays: Arrays, split: str) -> Arrays:
    kept = is_decided(arrays[transformed_name(LABEL)])
    if not kept.any():
        raise ValueError(f"The split {split!r} should have ratings other than 3; received {len(kept)} rows, all of 3.")
    return {name: values[kept] for name, values in arrays.items()}


class LogLoss:
    """Mean cross-entropy on the eval split, in nats; for models with `like_logits(features)`.

    Of the two metrics that are reported, it is the one that is trained for, and it sees calibration, too.
    """

    name = "log_loss"
    sign = -1

    def __init__(self, splits: Splits):
        self._rows = splits.eval

    def __call__(self, model: tf.keras.Model) -> float:
        predict = tf.function(lambda features: model.like_logits(features), reduce_retracing=True)
        logits = predictions(predict, self._rows)
        return log_loss(logits, is_liked(self._rows[transformed_name(LABEL)]))


def log_loss(logits: np.ndarray, liked: np.ndarray) -> float:
    """Mean cross-entropy, in nats, of log-odds [rows] and labels [rows]."""
    return float(np.mean(np.logaddexp(0, logits.astype(np.float64)) - liked * logits.astype(np.float64)))


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


class LikeHead(tf.Module):
    """Probabilities of a like, beside those of user and movie biases."""

    def __init__(self, model: tf.keras.Model, splits: Splits):
        super().__init__()
        self._logits = model.like_logits
        self.biases = ExportedBiases(LikeBiases.of(splits))

    def serve(self, features: Tensors) -> Tensors:
        return {"like_probability": tf.sigmoid(self._logits(features))}

    def evaluate(self, features: Tensors, raw: Raw) -> Tensors:
        del raw
        logits = self._logits(features)
        bias_logits = self.biases(features)
        liked = tf.cast(is_liked(features[transformed_name(LABEL)]), tf.float32)
        return {
            "like_probability": tf.sigmoid(logits),
            "bias_like_probability": tf.sigmoid(bias_logits),
            "log_loss_gain": tf.nn.sigmoid_cross_entropy_with_logits(liked, bias_logits)
            - tf.nn.sigmoid_cross_entropy_with_logits(liked, logits),
        }

    def labels(self, features: Tensors) -> Tensors:
        """The label of each row, and its weight among metrics, 0 where its rating tells neither."""
        rating = features[transformed_name(LABEL)]
        return {LIKED: tf.cast(is_liked(rating), tf.float32), WEIGHT: tf.cast(is_decided(rating), tf.float32)}
