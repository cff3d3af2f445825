"""The project's training loop and the notebooks', each with its own model, taking turns on the same rows."""

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from benchmarks.dataset import Dataset, Ratings
from benchmarks.notebooks import BATCH_SIZE, JOINT, TWO_TOWER, Notebook, prepare_notebook
from trainers import joint, retrieval
from trainers.datasets import Splits
from trainers.hyperparameters import Hyperparameters
from trainers.loop import training

OURS, THEIRS, THEIRS_AWAKE, THEIRS_BARE = (
    "this pipeline",
    "notebooks",
    "notebooks, not waiting for tf.data",
    "notebooks, not waiting, without metrics",
)
# The arguments of `prepare_notebook` for each way to run the notebooks' loop.
NOTEBOOK_LOOPS = {
    THEIRS: {"with_metrics": True, "tuned": True},
    THEIRS_AWAKE: {"with_metrics": True, "tuned": False},
    THEIRS_BARE: {"with_metrics": False, "tuned": False},
}


@dataclass(frozen=True)
class Task:
    """A model of the project, and the notebooks' for the same purpose."""

    spec: training.ModelSpec
    notebook: Notebook


TASKS = {"retrieval": Task(retrieval.SPEC, TWO_TOWER), "joint": Task(joint.SPEC, JOINT)}


@dataclass(frozen=True)
class Material:
    """The same split twice.

    Attributes:
      splits: as a Trainer reads it, histories included.
      data: as the notebooks read it.
    """

    splits: Splits
    data: Dataset


def build(task: Task, splits: Splits, hparams: Hyperparameters) -> tf.keras.Model:
    """The project's model, as its Trainer makes it."""
    tf.keras.utils.set_random_seed(hparams.seed)
    return task.spec.build(splits, hparams)


def fit(
    model: tf.keras.Model, splits: Splits, rows: np.ndarray, objective: training.Objective, hparams: Hyperparameters
) -> None:
    """The project's loop over some train rows, for all epochs of `hparams`."""
    train = {name: values[rows] for name, values in splits.train.items()}
    with tempfile.TemporaryDirectory() as logs:
        patient = hparams.model_copy(update={"patience": hparams.epochs})
        training.fit(model, train, objective, patient, logs, OURS)


def draw_rows(count: int, wanted: int, seed: int) -> np.ndarray:
    """Different row numbers: int64 [min(count, wanted)]."""
    return np.random.default_rng(seed).permutation(count)[:wanted]


def throughput(
    task: Task, material: Material, hparams: Hyperparameters, examples: int, rounds: int, batch_size: int = BATCH_SIZE
) -> dict[str, list[float]]:
    """Examples a second, by loop and round.

    The loops take turns, so that what else the machine does meets all of them. A first turn of each, in which
    TensorFlow traces, does not count.

    Args:
      task: the models.
      material: the split.
      hparams: of the project's model.
      examples: train rows of a turn.
      rounds: turns of each loop.
      batch_size: of the notebooks' loops.
    """
    data = material.data
    rows = draw_rows(len(data.train), examples, hparams.seed)
    ratings = Ratings(data.train.users[rows], data.train.movies[rows], data.train.stars[rows])

    def notebook_turn(kind: dict[str, bool]) -> Callable[[], object]:
        model, batches = prepare_notebook(
            task.notebook, ratings, data.n_users, data.n_movies, hparams.seed, batch_size, **kind
        )
        return lambda: model.fit(batches, verbose=0)

    turns = _Turns({name: notebook_turn(kind) for name, kind in NOTEBOOK_LOOPS.items()})
    model = build(task, material.splits, hparams)
    fit(model, material.splits, rows, turns, hparams.model_copy(update={"epochs": rounds + 1}))
    return {name: [len(rows) / seconds for seconds in timed[1:]] for name, timed in turns.seconds.items()}


class _Turns:
    """An objective of the training loop that measures nothing: it lets the other loops run between two epochs."""

    name, sign = "turn", 1

    def __init__(self, others: dict[str, Callable[[], object]]):
        self.seconds: dict[str, list[float]] = {name: [] for name in (OURS, *others)}
        self._others = others
        self._started = time.monotonic()

    def __call__(self, model: tf.keras.Model) -> float:
        self.seconds[OURS].append(time.monotonic() - self._started)
        for name, turn in self._others.items():
            started = time.monotonic()
            turn()
            self.seconds[name].append(time.monotonic() - started)
        self._started = time.monotonic()
        return 0.0
