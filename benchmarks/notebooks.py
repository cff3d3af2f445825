"""The TFRS notebooks that the project grew out of, ported to a split without overlap.

Source: https://github.com/akthammomani/MAXELLA-APP-Movies-Tensorflow-Recommenders-TFRS, `Notebooks/TFRS-Modelling`.
Layers, losses, optimiser, batches and epochs are theirs; ids are indices instead of strings. The top-k metrics, which
the notebooks compute in every training step, are left out where only the result counts: they change the speed alone.
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
    """What the notebooks vary.

    Attributes:
      dim: width of the embeddings.
      hidden_units: hidden layers of the rating MLP.
      epochs: passes over train.
      rating_weight: weight of the mean squared error.
      retrieval_weight: weight of the in-batch softmax loss, which sums over the batch.
      regularised: dropout of 0.3 after every hidden layer, whose weights have a norm of at most 3. The notebooks never
        tell the MLP that it is training, so Keras leaves this dropout off; that is kept.
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
    """Two embeddings, their in-batch softmax and an MLP on both.

    Attributes:
      users: embedding of user indices.
      movies: embedding of movie indices.
    """

    def __init__(
        self, notebook: Notebook, n_users: int, n_movies: int, with_metrics: bool = False, tuned: bool = False
    ):
        """Args: with_metrics adds top-k metrics over all movies; tuned lets tf.data tune the dataset of movies."""
        super().__init__()
        self._notebook = notebook
        # One row more than there are ids, for unknown ones, as with the notebooks' StringLookup.
        self.users = tf.keras.layers.Embedding(n_users + 1, notebook.dim)
        self.movies = tf.keras.layers.Embedding(n_movies + 1, notebook.dim)
        # Only with a rating task: its layers would never be built otherwise, and Keras rejects models with such layers.
        self._rating_layers = [_rating_mlp(notebook)] if notebook.rating_weight else []
        self._rating_task = tfrs.tasks.Ranking(tf.keras.losses.MeanSquaredError())
        metrics = None
        if with_metrics:
            # Built in this order, so that the initial weights are those of the model without metrics.
            self.users.build(None)
            self.movies.build(None)
            candidates = tf.data.Dataset.range(n_movies).batch(CANDIDATE_BATCH_SIZE).map(self.movies)
            metrics = tfrs.metrics.FactorizedTopK(candidates if tuned else without_autotuning(candidates))
        self._retrieval_task = tfrs.tasks.Retrieval(metrics=metrics)

    def predict_ratings(self, users: tf.Tensor, movies: tf.Tensor) -> tf.Tensor:
        """Stars, float32 [pairs, 1]; only for models with a rating task."""
        (mlp,) = self._rating_layers
        return mlp(tf.concat([self.users(users), self.movies(movies)], axis=1))

    def compute_loss(self, inputs: Features, training: bool = False) -> tf.Tensor:
        """The weighted loss of a batch; see the base class."""
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
        """Retrieval scores of all pairs, float32 [n_users, n_movies]."""
        users, movies = self.users(tf.range(n_users)), self.movies(tf.range(n_movies))
        return tf.matmul(users, movies, transpose_b=True).numpy()

    def stars(self, ratings: Ratings, chunk: int = 65_536) -> np.ndarray:
        """Predictions for given ratings, float32 [ratings]."""
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
    tuned: bool = False,
) -> tuple[NotebookModel, tf.data.Dataset]:
    """A compiled model and the batches for its `fit`.

    The notebooks shuffle once and cache the batches: every epoch sees the same ones.

    Args:
      notebook: the architecture.
      train: the ratings to fit.
      n_users: number of users.
      n_movies: number of movies.
      seed: of initial weights and of the shuffle.
      batch_size: ratings in a step.
      with_metrics: whether every step computes the top-k metrics, as in the notebooks: slower, with the same result.
      tuned: whether tf.data's autotuning is on, as in the notebooks; it is slower, see
        `trainers.datasets.without_autotuning`.
    """
    tf.keras.utils.set_random_seed(seed)
    columns = {"user": train.users, "movie": train.movies, "stars": train.stars.astype(np.float32)}
    shuffle = np.random.default_rng(seed).permutation(len(train))
    rows = tf.data.Dataset.from_tensor_slices({name: column[shuffle] for name, column in columns.items()})
    model = NotebookModel(notebook, n_users, n_movies, with_metrics, tuned)
    model.compile(optimizer=tf.keras.optimizers.legacy.Adagrad(LEARNING_RATE))
    batches = rows.batch(batch_size).cache()
    return model, batches if tuned else without_autotuning(batches)


def train_notebook(
    notebook: Notebook, train: Ratings, n_users: int, n_movies: int, seed: int, batch_size: int = BATCH_SIZE
) -> NotebookModel:
    """Trains as the notebooks do, but for the metrics; see `prepare_notebook` for the arguments."""
    model, batches = prepare_notebook(notebook, train, n_users, n_movies, seed, batch_size)
    model.fit(batches, epochs=notebook.epochs, verbose=0)
    return model
