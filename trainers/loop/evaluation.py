"""Metrics on the eval split, by which training chooses the best epoch. Only the Evaluator reads the test split."""

import functools

import numpy as np
import tensorflow as tf

from trainers.datasets import Arrays, SeenMovies, Splits, batches, predictor
from trainers.export import metrics
from trainers.likes import is_liked
from transform.features import LABEL, MOVIE_ID, USER_ID, transformed_name

_BATCH = 1024

# Keeps what was made of the latest model for the next epochs: TensorFlow takes seconds to trace a function.
_of_latest_model = functools.lru_cache(maxsize=1)


class FilteredRecall:
    """Recall@10 over the whole catalogue without the user's train movies; for models with `scores(features)`."""

    name = "recall_at_10_filtered"
    sign = 1

    def __init__(self, splits: Splits):
        self._rows = _eval_rows(splits)
        self._seen = SeenMovies.of(splits.train, splits.size(USER_ID))
        self._hits = _of_latest_model(
            lambda model: tf.function(
                lambda features, seen: _hits(model, features, seen), autograph=False, reduce_retracing=True
            )
        )

    def __call__(self, model: tf.keras.Model) -> float:
        hits = self._hits(model)
        hits_by_batch = [
            hits(batch, self._seen.pairs(batch[transformed_name(USER_ID)].numpy()))
            for batch in batches(self._rows, _BATCH)
        ]
        return float(np.mean(np.concatenate(hits_by_batch)))


def _hits(model: tf.keras.Model, features: dict[str, tf.Tensor], seen: tf.Tensor) -> tf.Tensor:
    targets = tf.cast(features[transformed_name(MOVIE_ID)], tf.int64)
    return metrics.recall(metrics.filtered_ranks(model.scores(features), targets, seen), 10)


class RootMeanSquaredError:
    """Root mean squared error (RMSE) in stars; for models with `ratings(features)`."""

    name = "rmse"
    sign = -1

    def __init__(self, splits: Splits):
        self._rows = _eval_rows(splits)
        self._ratings = _of_latest_model(lambda model: predictor(model.ratings))

    def __call__(self, model: tf.keras.Model) -> float:
        predicted = self._ratings(model)(self._rows)
        return float(np.sqrt(np.mean(np.square(predicted - self._rows[transformed_name(LABEL)]))))


class LogLoss:
    """Mean cross-entropy on the eval split, in nats; for models with `like_logits(features)`.

    The Evaluator reports AUC and log-loss. Log-loss chooses the epoch because it is also the training loss, and because
    it also measures calibration.
    """

    name = "log_loss"
    sign = -1

    def __init__(self, splits: Splits):
        self._rows = _eval_rows(splits)
        self._logits = _of_latest_model(lambda model: predictor(model.like_logits))

    def __call__(self, model: tf.keras.Model) -> float:
        logits = self._logits(model)(self._rows)
        return float(np.mean(log_losses(logits, is_liked(self._rows[transformed_name(LABEL)]))))


def _eval_rows(splits: Splits) -> Arrays:
    """The rows of the eval split.

    Raises:
      ValueError: there are none, so that no metric has a value.
    """
    if not len(splits.eval[transformed_name(LABEL)]):
        raise ValueError("The split 'eval' should have at least one row to measure a model on; received none.")
    return splits.eval


def log_losses(logits: np.ndarray, liked: np.ndarray) -> np.ndarray:
    """Computes the cross-entropy of each row, in nats: float64 [rows].

    Args:
      logits: float [rows], predicted log-odds of a like.
      liked: bool [rows], labels.
    """
    logits = logits.astype(np.float64)
    return np.logaddexp(0, logits) - liked * logits
