"""Measures the throughput of the project's training loop and of the notebooks' loops, on the same rows."""

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

PIPELINE_LOOP, NOTEBOOK_LOOP, NOTEBOOK_LOOP_NO_AUTOTUNING, NOTEBOOK_LOOP_NO_METRICS = (
    "this pipeline",
    "notebooks",
    "notebooks, not waiting for tf.data",
    "notebooks, not waiting, without metrics",
)
# The variants of the notebooks' loop, as arguments of `prepare_notebook`. Without autotuning, the loop does not wait
# for tf.data at the end of an epoch (see `trainers.datasets.without_autotuning`).
NOTEBOOK_LOOP_OPTIONS = {
    NOTEBOOK_LOOP: {"with_metrics": True, "autotuned": True},
    NOTEBOOK_LOOP_NO_AUTOTUNING: {"with_metrics": True, "autotuned": False},
    NOTEBOOK_LOOP_NO_METRICS: {"with_metrics": False, "autotuned": False},
}


@dataclass(frozen=True)
class Task:
    """A model of the project, and the notebooks' model for the same purpose.

    Attributes:
      spec: the project's model.
      notebook: the notebooks' model.
    """

    spec: training.ModelSpec
    notebook: Notebook


TASKS = {"retrieval": Task(retrieval.SPEC, TWO_TOWER), "joint": Task(joint.SPEC, JOINT)}


@dataclass(frozen=True)
class TrainingData:
    """The same split in two forms.

    Attributes:
      splits: transformed features, histories included, as a Trainer reads them.
      data: index arrays, as the notebooks' models read them.
    """

    splits: Splits
    data: Dataset


def build(task: Task, splits: Splits, hparams: Hyperparameters) -> tf.keras.Model:
    """Builds the project's model as its Trainer does."""
    tf.keras.utils.set_random_seed(hparams.seed)
    return task.spec.build(splits, hparams)


def fit(
    model: tf.keras.Model, splits: Splits, rows: np.ndarray, objective: training.Objective, hparams: Hyperparameters
) -> None:
    """Trains with the project's loop on some train rows, for all epochs of `hparams`.

    Args:
      model: a model of the project.
      splits: the split.
      rows: int64 [rows], numbers of the train rows to use.
      objective: called after each epoch.
      hparams: hyper-parameters of the model.
    """
    train = {name: values[rows] for name, values in splits.train.items()}
    with tempfile.TemporaryDirectory() as logs:
        no_early_stopping = hparams.model_copy(update={"patience": hparams.epochs})
        training.fit(model, train, objective, no_early_stopping, logs, PIPELINE_LOOP)


def draw_rows(users: np.ndarray, wanted: int, seed: int) -> np.ndarray:
    """Draws people, and takes all rows of each but the last one drawn, of whom there may be too many.

    A query tower that reads sequences is trained on what people rated one after another, so that rows of their own
    would not be what it is trained on.

    Args:
      users: int [rows], whose each row is.
      wanted: number of rows to take.
      seed: seed of the draw.

    Returns:
      int64 [min(rows, wanted)], row numbers.
    """
    drawn = np.random.default_rng(seed).permutation(int(users.max()) + 1)
    return np.argsort(drawn[users], kind="stable")[:wanted]


def throughput(
    task: Task,
    training_data: TrainingData,
    hparams: Hyperparameters,
    examples: int,
    rounds: int,
    batch_size: int = BATCH_SIZE,
) -> dict[str, list[float]]:
    """Measures how many examples per second each loop trains on.

    The loops take turns, so that other load on the machine affects all of them alike. The first turn of each loop, in
    which TensorFlow traces the training step, does not count.

    Args:
      task: the models to train.
      training_data: the split.
      hparams: hyper-parameters of the project's model.
      examples: number of train rows in a turn.
      rounds: number of measured turns of each loop.
      batch_size: batch size of the notebooks' loops.

    Returns:
      Examples per second by loop, one value per round.
    """
    data = training_data.data
    rows = draw_rows(data.train.users, examples, hparams.seed)
    ratings = Ratings(data.train.users[rows], data.train.movies[rows], data.train.stars[rows])

    def notebook_turn(options: dict[str, bool]) -> Callable[[], object]:
        model, batches = prepare_notebook(
            task.notebook, ratings, data.n_users, data.n_movies, hparams.seed, batch_size, **options
        )
        return lambda: model.fit(batches, verbose=0)

    turns = _TurnsBetweenEpochs({name: notebook_turn(options) for name, options in NOTEBOOK_LOOP_OPTIONS.items()})
    model = build(task, training_data.splits, hparams)
    fit(model, training_data.splits, rows, turns, hparams.model_copy(update={"epochs": rounds + 1}))
    return {name: [len(rows) / seconds for seconds in durations[1:]] for name, durations in turns.seconds.items()}


class _TurnsBetweenEpochs:
    """Runs and times the other loops after each epoch of the project's loop.

    It implements `trainers.loop.training.Objective`, because the project's loop calls its objective after each epoch;
    the value that it returns has no meaning.

    Attributes:
      seconds: duration of each turn, by loop.
    """

    name, sign = "turn", 1

    def __init__(self, other_loops: dict[str, Callable[[], object]]):
        self.seconds: dict[str, list[float]] = {name: [] for name in (PIPELINE_LOOP, *other_loops)}
        self._other_loops = other_loops
        self._started = time.monotonic()

    def __call__(self, model: tf.keras.Model) -> float:
        self.seconds[PIPELINE_LOOP].append(time.monotonic() - self._started)
        for name, turn in self._other_loops.items():
            started = time.monotonic()
            turn()
            self.seconds[name].append(time.monotonic() - started)
        self._started = time.monotonic()
        return 0.0
