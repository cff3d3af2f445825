"""Trains the pipeline's models as its Trainer does, and measures them as its Evaluator does."""

import logging
import tempfile
import time
from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from benchmarks.metrics import Values, rating_values
from benchmarks.transformed import Transformed
from trainers.datasets import Splits, batches, predictor
from trainers.export import metrics
from trainers.hyperparameters import Hyperparameters
from trainers.loop import training
from transform.features import LABEL, MOVIE_ID, transformed_name

_BATCH = 1024


@dataclass(frozen=True)
class TrainedModel:
    """A model with the weights of its best epoch.

    Attributes:
      model: the model; has the methods `scores`, `ratings` or `like_logits`, depending on its tasks.
      value: its objective on the eval split.
      seconds: duration of the training.
    """

    model: tf.keras.Model
    value: float
    seconds: float


def train(spec: training.ModelSpec, hparams: Hyperparameters, splits: Splits) -> TrainedModel:
    """Trains a model.

    Args:
      spec: the model to train.
      hparams: its hyper-parameters.
      splits: all rows; this function leaves out those that the model cannot be trained on.
    """
    # Prints each epoch as it ends: a training takes minutes, and some take half an hour.
    logging.basicConfig()
    logging.getLogger("trainers").setLevel(logging.INFO)
    started = time.monotonic()
    # Frees the graphs of the model trained before, which would otherwise stay in memory.
    tf.keras.backend.clear_session()
    tf.keras.utils.set_random_seed(hparams.seed)
    rows = spec.rows(splits)
    model = spec.build(rows, hparams)
    with tempfile.TemporaryDirectory() as logs:
        value = training.fit(model, rows.train, spec.objective(rows), hparams, logs, spec.name)
    return TrainedModel(model, value, time.monotonic() - started)


def measure(model: tf.keras.Model, ready: Transformed) -> Values:
    """Metrics of each test row for the tasks that a model has, as in `benchmarks.metrics`: float [rows] by name."""
    values: Values = {}
    if hasattr(model, "scores"):
        values |= _top_k(model, ready)
    if hasattr(model, "ratings"):
        values |= rating_values(predictor(model.ratings)(ready.test), ready.test[transformed_name(LABEL)])
    return values


def _top_k(model: tf.keras.Model, ready: Transformed) -> Values:
    @tf.function(autograph=False, reduce_retracing=True)
    def batch_metrics(features: dict[str, tf.Tensor], seen: tf.Tensor) -> dict[str, tf.Tensor]:
        targets = tf.cast(features[transformed_name(MOVIE_ID)], tf.int64)
        return metrics.retrieval_metrics(model.scores(features), targets, seen)

    starts = range(0, len(ready.test_users), _BATCH)
    parts = [
        batch_metrics(batch, ready.seen_pairs(start, start + _BATCH))
        for start, batch in zip(starts, batches(ready.test, _BATCH), strict=True)
    ]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
