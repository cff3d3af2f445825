"""The TFRS notebooks that the project grew out of, ported to splits whose train and test rows do not overlap.

Source: https://github.com/akthammomani/MAXELLA-APP-Movies-Tensorflow-Recommenders-TFRS, `Notebooks/TFRS-Modelling`.
Layers, losses, optimiser, batches and epochs are those of the notebooks; ids are indices instead of strings. The
notebooks compute top-k metrics in every training step. Where only the trained model counts, these are left out, because
they affect only the speed.
"""

from dataclasses import dataclass

import numpy as np
import tensorflow as tf
import tensorflow_recommenders as tfrs

from benchmarks.dataset import Ratings
from trainers.datasets import without_autotuning

BATCH_SIZE = 8192
CANDIDATE_BATCH_SIZE = 128
LEARNING_RATE = 0.1

Features = dict[str, tf.Tensor]


@dataclass(frozen=True)
class Notebook:
    """The settings in which the notebooks differ.

    Attributes:
      dim: width of the embeddings.
      hidden_units: hidden layers of the rating MLP.
      epochs: passes over train.
      rating_weight: weight of the mean squared error.
      retrieval_weight: weight of the in-batch softmax loss, which sums over the batch.
      regularised: whether each hidden layer has a weight norm of at most 3 and is followed by a dropout of 0.3. The
        notebooks never pass `training=True` to the MLP, so Keras does not apply the dropout; this port does the same.
    """

    dim: int
    hidden_units: tuple[int, ...]
    epochs: int
    rating_weight: float
    retrieval_weight: float
    regularised: bool = False


TWO_TOWER = Notebook(32, (), epochs=3, rating_weight=0, retrieval_weight=1)
RANKING = Notebook(32, (256, 64), epochs=3, rating_weight=1, retrieval_weight=0)
RANKING_TUNED = Notebook(64, (128, 128, 128, 64), epochs=32, rating_weight=1, retrieval_weight=0, regularised=True)
JOINT = Notebook(32, (256, 128), epochs=3, rating_weight=1, retrieval_weight=1)


def _rating_mlp(notebook: Notebook) -> tf.keras.Sequential:
    mlp = tf.keras.Sequential()
    for units in notebook.hidden_units:
        constraint = tf.keras.constraints.MaxNorm(3) if notebook.regularised else None
        mlp.add(tf.keras.layers.Dense(units, "relu", kernel_constraint=constraint))
        if notebook.regularised:
            mlp.add(tf.keras.layers.Dropout(0.3))
    mlp.add(tf.keras.layers.Dense(1))
    return mlp


class NotebookModel(tfrs.models.Model):
    """Embeddings of users and movies, with an in-batch softmax loss and an MLP on both for ratings.

    Attributes:
      users: embedding of user indices.
      movies: embedding of movie indices.
    """

    def __init__(
        self, notebook: Notebook, n_users: int, n_movies: int, with_metrics: bool = False, autotuned: bool = False
    ):
        """Args: with_metrics adds top-k metrics over all movies; autotuned lets tf.data tune the dataset of movies."""
        super().__init__()
        self._notebook = notebook
        # One row more than there are ids, as in the notebooks, whose StringLookup has one index for unknown ids.
        self.users = tf.keras.layers.Embedding(n_users + 1, notebook.dim)
        self.movies = tf.keras.layers.Embedding(n_movies + 1, notebook.dim)
        # Only with a rating task: without one the MLP is never built, and Keras rejects models with unbuilt layers.
        self._rating_layers = [_rating_mlp(notebook)] if notebook.rating_weight else []
        self._rating_task = tfrs.tasks.Ranking(tf.keras.losses.MeanSquaredError())
        metrics = None
        if with_metrics:
            # Builds users before movies, as a model without metrics does, so that a seed gives the same initial
            # weights; the dataset below would otherwise build movies first.
            self.users.build(None)
            self.movies.build(None)
            candidates = tf.data.Dataset.range(n_movies).batch(CANDIDATE_BATCH_SIZE).map(self.movies)
            metrics = tfrs.metrics.FactorizedTopK(candidates if autotuned else without_autotuning(candidates))
        self._retrieval_task = tfrs.tasks.Retrieval(metrics=metrics)

    def predict_ratings(self, users: tf.Tensor, movies: tf.Tensor) -> tf.Tensor:
        """Predicted stars of pairs of user and movie, float32 [pairs, 1]; only for models with a rating task."""
        (mlp,) = self._rating_layers
        return mlp(tf.concat([self.users(users), self.movies(movies)], axis=1))

    def compute_loss(self, inputs: Features, training: bool = False) -> tf.Tensor:
        """Computes the weighted loss of a batch; see the base class."""
        loss = tf.constant(0.0)
        if self._notebook.rating_weight:
            predicted = self.predict_ratings(inputs["user"], inputs["movie"])
            loss += self._notebook.rating_weight * self._rating_task(labels=inputs["stars"], predictions=predicted)
        if self._notebook.retrieval_weight:
            loss += self._notebook.retrieval_weight * self._retrieval_task(
                self.users(inputs["user"]), self.movies(inputs["movie"])
            )
        return loss

    def scores(self, n_users: int, n_movies: int) -> np.ndarray:
        """Retrieval scores of all pairs of user and movie, float32 [n_users, n_movies]."""
        users, movies = self.users(tf.range(n_users)), self.movies(tf.range(n_movies))
        return tf.matmul(users, movies, transpose_b=True).numpy()

    def stars(self, ratings: Ratings, chunk: int = 65_536) -> np.ndarray:
        """Predicted stars for the users and movies of some ratings, float32 [ratings]."""
        parts = [
            self.predict_ratings(
                tf.constant(ratings.users[start : start + chunk]), tf.constant(ratings.movies[start : start + chunk])
            )
            for start in range(0, len(ratings), chunk)
        ]
        return tf.concat(parts, axis=0)[:, 0].numpy()


def prepare_notebook(
    notebook: Notebook,
    train: Ratings,
    n_users: int,
    n_movies: int,
    seed: int,
    batch_size: int = BATCH_SIZE,
    with_metrics: bool = False,
    autotuned: bool = False,
) -> tuple[NotebookModel, tf.data.Dataset]:
    """Returns a compiled model and the batches for its `fit`.

    As in the notebooks, the rows are shuffled once and the batches cached, so every epoch sees the same batches.

    Args:
      notebook: settings of the model.
      train: the ratings to fit.
      n_users: number of users.
      n_movies: number of movies.
      seed: seed of the initial weights and of the shuffle.
      batch_size: number of ratings in a step.
      with_metrics: whether every step computes the top-k metrics, as in the notebooks; slower, with the same weights.
      autotuned: whether tf.data's autotuning is on, as in the notebooks; slower, for the reason that
        `trainers.datasets.without_autotuning` gives.
    """
    tf.keras.utils.set_random_seed(seed)
    columns = {"user": train.users, "movie": train.movies, "stars": train.stars.astype(np.float32)}
    shuffle = np.random.default_rng(seed).permutation(len(train))
    rows = tf.data.Dataset.from_tensor_slices({name: column[shuffle] for name, column in columns.items()})
    model = NotebookModel(notebook, n_users, n_movies, with_metrics, autotuned)
    model.compile(optimizer=tf.keras.optimizers.legacy.Adagrad(LEARNING_RATE))
    batches = rows.batch(batch_size).cache()
    return model, batches if autotuned else without_autotuning(batches)


def train_notebook(
    notebook: Notebook, train: Ratings, n_users: int, n_movies: int, seed: int, batch_size: int = BATCH_SIZE
) -> NotebookModel:
    """Trains as the notebooks do, except that it computes no metrics; see `prepare_notebook` for the arguments."""
    model, batches = prepare_notebook(notebook, train, n_users, n_movies, seed, batch_size)
    model.fit(batches, epochs=notebook.epochs, verbose=0)
    return model
