"""Measures filtered recall@10 over training time, for the project's training loop and the notebooks' loops."""

import math
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import tensorflow as tf

from benchmarks.loops import NOTEBOOK_LOOP_OPTIONS, PIPELINE_LOOP, Task, TrainingData, build, draw_rows, fit
from benchmarks.metrics import top_k_metrics
from benchmarks.notebooks import BATCH_SIZE, NotebookModel, prepare_notebook
from trainers.hyperparameters import Hyperparameters
from trainers.loop.evaluation import FilteredRecall


@dataclass(frozen=True)
class RecallMeasurement:
    """Quality of a model at one moment of its training.

    Attributes:
      examples: number of train rows that the model has been trained on so far, repeated rows included.
      seconds: training time so far; includes TensorFlow's tracing, excludes the measurements of recall.
      recall: filtered recall@10 on the eval split.
    """

    examples: int
    seconds: float
    recall: float


def seconds_to_recall(measurements: list[RecallMeasurement], level: float) -> float | None:
    """Seconds of training until the recall was first measured to reach a level; None if it never was."""
    return next((each.seconds for each in measurements if each.recall >= level), None)


def record_recalls(
    task: Task,
    training_data: TrainingData,
    hparams: Hyperparameters,
    levels: list[float],
    interval: float,
    max_seconds: float,
    batch_size: int = BATCH_SIZE,
) -> tuple[dict[str, list[RecallMeasurement]], float]:
    """Trains with each loop and measures recall at regular intervals.

    The notebooks' loops train for all their epochs. The project's loop stops once it has reached all levels and the
    best recall of the notebooks' loops. It evaluates a model only at the end of an epoch, so for more frequent
    measurements one interval's train rows become its epoch: it trains on this fixed sample again and again, and thus
    has less data to learn from than in a normal training.

    Args:
      task: the models to train.
      training_data: the split.
      hparams: hyper-parameters of the project's model.
      levels: recalls that the project's loop should reach, besides the best of the notebooks' loops.
      interval: share of the train rows between two measurements.
      max_seconds: training time after which a loop stops at its next measurement.
      batch_size: batch size of the notebooks' loops.

    Returns:
      The measurements by loop, and the best recall of the notebooks' loops. The latter is rounded down to three decimal
      places, because another run of the same loop may find one movie fewer.
    """
    measurements = {
        name: _record_notebook_loop(
            task, training_data, hparams.seed, interval, _Recorder(max_seconds), batch_size, options
        )
        for name, options in NOTEBOOK_LOOP_OPTIONS.items()
    }
    best = math.floor(max(each.recall for in_loop in measurements.values() for each in in_loop) * 1000) / 1000
    recorder = _Recorder(max_seconds, max(best, *levels))
    return {
        PIPELINE_LOOP: _record_pipeline_loop(task, training_data, hparams, interval, recorder),
        **measurements,
    }, best


class _Recorder:
    """Records recall measurements with the training time; its clock stands still while recall is measured."""

    def __init__(self, max_seconds: float, level: float = math.inf):
        self.measurements: list[RecallMeasurement] = []
        self._max_seconds, self._level = max_seconds, level
        self._seconds, self._started = 0.0, math.inf

    def record(self, examples: int, measure_recall: Callable[[], float]) -> bool:
        """Adds a measurement, and returns whether training should go on; the first call starts the clock."""
        self._seconds += max(0.0, time.monotonic() - self._started)
        self.measurements.append(RecallMeasurement(examples, self._seconds, measure_recall()))
        self._started = time.monotonic()
        return self.measurements[-1].recall < self._level and self._seconds < self._max_seconds


class _StopTraining(Exception):
    """Ends the project's training loop early; the loop offers no other way to stop it from an objective."""


class _RecordingObjective:
    """Records the recall after each epoch; implements `trainers.loop.training.Objective`."""

    name, sign = FilteredRecall.name, FilteredRecall.sign

    def __init__(self, recorder: _Recorder, recall: FilteredRecall, rows_per_epoch: int):
        self._recorder, self._recall, self._rows_per_epoch = recorder, recall, rows_per_epoch
        self._epochs = 0

    def __call__(self, model: tf.keras.Model) -> float:
        self._epochs += 1
        if not self._recorder.record(self._epochs * self._rows_per_epoch, lambda: self._recall(model)):
            raise _StopTraining
        return self._recorder.measurements[-1].recall


def _record_pipeline_loop(
    task: Task, training_data: TrainingData, hparams: Hyperparameters, interval: float, recorder: _Recorder
) -> list[RecallMeasurement]:
    splits, users = training_data.splits, training_data.data.train.users
    rows = draw_rows(users, max(1, round(interval * len(users))), hparams.seed)
    model, recall = build(task, splits, hparams), FilteredRecall(splits)
    # Before training, the model ranks by the movies' popularity, which may already reach the level.
    if recorder.record(0, lambda: recall(model)):
        # An epoch is shorter here than the configured one, so it takes more of them for as many steps.
        short_epochs = hparams.model_copy(update={"epochs": math.ceil(hparams.epochs / interval)})
        with suppress(_StopTraining):
            fit(model, splits, rows, _RecordingObjective(recorder, recall, len(rows)), short_epochs)
    return recorder.measurements


class _RecordingCallback(tf.keras.callbacks.Callback):
    """Records the recall before training, after every `batches_per_interval` batches, and after every epoch."""

    def __init__(
        self, record: Callable[[NotebookModel, int], bool], batches_per_interval: int, rows: int, batch_size: int
    ):
        """Args: record takes the model and the examples so far, and returns whether training should go on."""
        super().__init__()
        self._record, self._batches_per_interval = record, batches_per_interval
        self._rows, self._batch_size = rows, batch_size
        self._epoch = 0

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        self._record(self.model, 0)

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        seen = (batch + 1) * self._batch_size
        # At the end of the epoch, `on_epoch_end` records.
        if (batch + 1) % self._batches_per_interval == 0 and seen < self._rows:
            self.model.stop_training = not self._record(self.model, self._epoch * self._rows + seen)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self._epoch = epoch + 1
        if not self.model.stop_training:
            self.model.stop_training = not self._record(self.model, self._epoch * self._rows)


def _record_notebook_loop(
    task: Task,
    training_data: TrainingData,
    seed: int,
    interval: float,
    recorder: _Recorder,
    batch_size: int,
    options: dict[str, bool],
) -> list[RecallMeasurement]:
    data = training_data.data

    def record(model: NotebookModel, examples: int) -> bool:
        scores = model.scores(data.n_users, data.n_movies)
        return recorder.record(examples, lambda: top_k_metrics(scores, data.eval)["recall_at_10_filtered"])

    model, batches = prepare_notebook(
        task.notebook, data.train, data.n_users, data.n_movies, seed, batch_size, **options
    )
    batches_per_interval = max(1, round(interval * len(data.train) / batch_size))
    model.fit(
        batches,
        epochs=task.notebook.epochs,
        callbacks=[_RecordingCallback(record, batches_per_interval, len(data.train), batch_size)],
        verbose=0,
    )
    return recorder.measurements
