"""The ranker: how many stars will a person give a movie?

The sum of a mean, a user and a movie bias, the product of user and movie factors (Koren et al. 2009,
https://doi.org/10.1109/MC.2009.263) and a deep tower that also reads the rated history, with attention from the
movie in question (Zhou et al. 2018, https://arxiv.org/abs/1706.06978).
"""

import tensorflow as tf
import tensorflow_recommenders as tfrs
from tfx.components.trainer.fn_args_utils import FnArgs
from tfx.components.tuner.component import TunerFnResult

from trainers import training, tuning
from trainers.baselines import BiasModel
from trainers.datasets import Splits
from trainers.evaluation import RootMeanSquaredError
from trainers.hyperparameters import RankingHyperparameters
from trainers.signatures import RatingHead
from trainers.towers import MLP, FeatureEncoder, Tensors, embedding
from transform.features import (
    HISTORY_MOVIES,
    HISTORY_RATINGS,
    LABEL,
    MOVIE_ID,
    USER_ID,
    Role,
    transformed_name,
)


class TargetAttention(tf.keras.layers.Layer):
    """Looks up, for a movie, how the person rated movies like it.

    Call arguments:
      features: transformed features with the movie and the history.

    Returns:
      float32 [batch_size, dim + 1]: the attended history, and the attended deviation of its ratings from the movies'
      own means.
    """

    def __init__(self, splits: Splits, dim: int, l2: float, movie_means: tf.Tensor):
        """Args: movie_means: float32 [movie indices], a movie's mean rating, shrunk."""
        super().__init__()
        self._targets = embedding(splits.movie_size, dim, l2)
        self._keys = embedding(splits.movie_size, dim, l2)
        self._values = embedding(splits.movie_size, dim, l2)
        self._movie_means = movie_means
        self._scale = self.add_weight("scale", shape=[], initializer="ones")

    def call(self, features: Tensors) -> tf.Tensor:
        movies = features[transformed_name(HISTORY_MOVIES)]
        ratings = features[transformed_name(HISTORY_RATINGS)]
        # A movie may be in the history without a rating: it tells nothing here.
        present = tf.cast(ratings > 0, tf.float32)
        deviations = (ratings - tf.gather(self._movie_means, movies)) * present
        target = self._targets(features[transformed_name(MOVIE_ID)])
        logits = self._scale * tf.einsum("bd,bld->bl", target, self._keys(movies))
        # One more place with weight e^0, so that attention may also fall on nothing.
        weights = tf.exp(tf.minimum(logits, 20.0)) * present
        weights /= 1.0 + tf.reduce_sum(weights, axis=1, keepdims=True)
        weighted = weights * deviations
        vector = tf.einsum("bl,bld->bd", weighted, self._values(movies))
        return tf.concat([vector, tf.reduce_sum(weighted, axis=1, keepdims=True)], axis=1)


class FittedBiases(tf.keras.layers.Layer):
    """Mean rating plus user and movie bias; starts from the ridge solution and is trained on.

    Call arguments:
      features: transformed features with user and movie.

    Returns:
      float32 [batch_size].
    """

    def __init__(self, splits: Splits):
        super().__init__()
        biases = BiasModel.of(splits)
        self.mean = tf.constant(biases.mean, tf.float32)
        self.users = tf.Variable(biases.users, name="user_biases")
        self.movies = tf.Variable(biases.movies, name="movie_biases")
        self.movie_means = tf.Variable(biases.mean + biases.movies, trainable=False, name="movie_means")

    def call(self, features: Tensors) -> tf.Tensor:
        users, movies = features[transformed_name(USER_ID)], features[transformed_name(MOVIE_ID)]
        return self.mean + tf.gather(self.users, users) + tf.gather(self.movies, movies)


class RankingModel(tfrs.Model):
    """Biases, factors and a deep tower."""

    def __init__(self, splits: Splits, hparams: RankingHyperparameters):
        super().__init__()
        dim, l2 = hparams.embedding_dim, hparams.l2
        roles = (Role.USER, Role.MOVIE)
        self._biases = FittedBiases(splits)
        self._user = FeatureEncoder(splits, (Role.USER,), dim, l2)
        self._movie = FeatureEncoder(splits, (Role.MOVIE,), dim, l2)
        self._linear = FeatureEncoder(splits, roles, 1, l2)
        self._history = TargetAttention(splits, dim, l2, self._biases.movie_means)
        self._deep = MLP(hparams.hidden_units, hparams.dropout, hparams.max_norm)
        self._output = tf.keras.layers.Dense(1)
        self.task = tfrs.tasks.Ranking(loss=tf.keras.losses.MeanSquaredError())

    def ratings(self, features: Tensors, training: bool = False) -> tf.Tensor:
        """Predicted ratings, 1 to 5: float32 [batch_size]."""
        return tf.clip_by_value(self._raw_ratings(features, training), 1.0, 5.0)

    def _raw_ratings(self, features: Tensors, training: bool) -> tf.Tensor:
        user, movie = self._user(features), self._movie(features)
        history = self._history(features)
        deep = self._deep(tf.concat([user, movie, user * movie, history], axis=1), training=training)
        residual = self._output(deep) + self._linear(features)
        return self._biases(features) + tf.reduce_sum(user * movie, axis=1) + tf.squeeze(residual, 1)

    def compute_loss(self, inputs: Tensors, training: bool = False) -> tf.Tensor:
        """Mean squared error, in stars squared."""
        predicted = self._raw_ratings(inputs, training)
        return self.task(labels=inputs[transformed_name(LABEL)], predictions=predicted)


SPEC = training.ModelSpec("ranking", RankingHyperparameters, RankingModel, RootMeanSquaredError, (RatingHead,))


def run_fn(fn_args: FnArgs) -> None:
    """Trains and exports the ranker; called by the Trainer component."""
    training.run(fn_args, SPEC)


def tuner_fn(fn_args: FnArgs) -> TunerFnResult:
    """Looks for hyper-parameters of the ranker; called by the Tuner component."""
    return tuning.tuner(fn_args, SPEC)
