"""Measures how good a model is after so many seconds of training, by the project's loop and by the notebooks'."""

import math
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import tensorflow as tf

from benchmarks.loops import NOTEBOOK_LOOPS, OURS, Material, Task, build, draw_rows, fit
from benchmarks.metrics import top_k_metrics
from benchmarks.notebooks import BATCH_SIZE, NotebookModel, prepare_notebook
from trainers.hyperparameters import Hyperparameters
from trainers.loop.evaluation import FilteredRecall


@dataclass(frozen=True)
class Look:
    """How good a model was at some moment of its training.

    Attributes:
      examples: train rows until then.
      seconds: of training, tracing included, without those of measuring.
      recall: filtered recall@10 on the eval split.
    """

    examples: int
    seconds: float
    recall: float


def seconds_to(looks: list[Look], level: float) -> float | None:
    """Seconds of training until the level was first seen; None if it never was."""
    return next((look.seconds for look in looks if look.recall >= level), None)


def watch(
    task: Task,
    material: Material,
    hparams: Hyperparameters,
    levels: list[float],
    part: float,
    max_seconds: float,
    batch_size: int = BATCH_SIZE,
) -> tuple[dict[str, list[Look]], float]:
    """Looks by loop, and the notebooks' best, rounded down to three places: another run may find a movie less.

    The notebooks' loops train for all their epochs. The project's looks at the eval split after an epoch and not
    before; it is therefore given a part of the train rows for an epoch, the same again and again, and thus less to
    learn from than it would have. It ends when it has reached all levels.

    Args:
      task: the models.
      material: the split.
      hparams: of the project's model.
      levels: what is to be reached beside the notebooks' best.
      part: share of the train rows between two looks.
      max_seconds: no loop trains for longer, but for what it does until its next look.
      batch_size: of the notebooks' loops.
    """
    looks = {
        name: _watch_theirs(task, material, hparams.seed, part, _Watch(max_seconds), batch_size, kind)
        for name, kind in NOTEBOOK_LOOPS.items()
    }
    best = math.floor(max(look.recall for each in looks.values() for look in each) * 1000) / 1000
    watch = _Watch(max_seconds, max(best, *levels))
    return {OURS: _watch_ours(task, material, hparams, part, watch), **looks}, best


class _Watch:
    """A clock that stands still while a model is measured."""

    def __init__(self, max_seconds: float, level: float = math.inf):
        self.looks: list[Look] = []
        self._max_seconds, self._level = max_seconds, level
        self._seconds, self._started = 0.0, math.inf

    def look(self, examples: int, measure: Callable[[], float]) -> bool:
        """Whether to go on; the first look starts the clock."""
        self._seconds += max(0.0, time.monotonic() - self._started)
        self.looks.append(Look(examples, self._seconds, measure()))
        self._started = time.monotonic()
        return self.looks[-1].recall < self._level and self._seconds < self._max_seconds


class _Stopped(Exception):
    """Ends the project's loop, which has no other way to."""


class _OurLooks:
    """Implements `trainers.loop.training.Objective`."""

    name, sign = FilteredRecall.name, FilteredRecall.sign

    def __init__(self, watch: _Watch, measure: FilteredRecall, rows: int):
        self._watch, self._measure, self._rows = watch, measure, rows
        self._epochs = 0

    def __call__(self, model: tf.keras.Model) -> float:
        self._epochs += 1
        if not self._watch.look(self._epochs * self._rows, lambda: self._measure(model)):
            raise _Stopped
        return self._watch.looks[-1].recall


def _watch_ours(task: Task, material: Material, hparams: Hyperparameters, part: float, watch: _Watch) -> list[Look]:
    splits, count = material.splits, len(material.data.train)
    rows = draw_rows(count, max(1, round(part * count)), hparams.seed)
    model, measure = build(task, splits, hparams), FilteredRecall(splits)
    # A model starts from the movies' popularity, so it may reach the target before any training.
    if watch.look(0, lambda: measure(model)):
        changed = hparams.model_copy(update={"epochs": math.ceil(hparams.epochs / part)})
        with suppress(_Stopped):
            fit(model, splits, rows, _OurLooks(watch, measure, len(rows)), changed)
    return watch.looks


class _TheirLooks(tf.keras.callbacks.Callback):
    """Looks after some batches, and after every epoch."""

    def __init__(self, look: Callable[[NotebookModel, int], bool], every: int, rows: int, batch_size: int):
        super().__init__()
        self._look, self._every, self._rows, self._batch_size = look, every, rows, batch_size
        self._epoch = 0

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        self._look(self.model, 0)

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        seen = (batch + 1) * self._batch_size
        if (batch + 1) % self._every == 0 and seen < self._rows:
            self.model.stop_training = not self._look(self.model, self._epoch * self._rows + seen)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self._epoch = epoch + 1
        if not self.model.stop_training:
            self.model.stop_training = not self._look(self.model, self._epoch * self._rows)


def _watch_theirs(
    task: Task, material: Material, seed: int, part: float, watch: _Watch, batch_size: int, kind: dict[str, bool]
) -> list[Look]:
    data = material.data

    def look(model: NotebookModel, examples: int) -> bool:
        scores = model.scores(data.n_users, data.n_movies)
        return watch.look(examples, lambda: top_k_metrics(scores, data.eval)["recall_at_10_filtered"])

    model, batches = prepare_notebook(task.notebook, data.train, data.n_users, data.n_movies, seed, batch_size, **kind)
    every = max(1, round(part * len(data.train) / batch_size))
    model.fit(
        batches,
        epochs=task.notebook.epochs,
        callbacks=[_TheirLooks(look, every, len(data.train), batch_size)],
        verbose=0,
    )
    return watch.looks
