"""The rating tower of the ranker and of the joint model: two experts, whose mean is the predicted rating.

One expert is a factor model: a mean, a user and a movie bias, and the dot product of user and movie factors (Koren et
al. 2009, https://doi.org/10.1109/MC.2009.263). The other crosses features (Wang et al. 2021,
https://doi.org/10.1145/3442381.3450078) and reads the rated history with attention, whose query is the movie to rate
(Zhou et al. 2018, https://arxiv.org/abs/1706.06978). Each expert has its own loss, so that their errors differ and
partly cancel out in the mean.
"""

import numpy as np
import tensorflow as tf

from trainers.baselines import BiasModel
from trainers.datasets import Splits
from trainers.hyperparameters import RatingTowerHyperparameters
from trainers.layers.cross_network import CrossNetwork
from trainers.layers.towers import MLP, FeatureEncoder, Table, Tensors, embedding, table_penalty
from transform.features import (
    HISTORY_MOVIES,
    HISTORY_RATINGS,
    LABEL,
    MOVIE_ID,
    USER_ID,
    Role,
    transformed_name,
)

_HISTORY_UNITS = [32]


class FactorModel(tf.keras.layers.Layer):
    """Predicts ratings from biases and factors.

    A user's factors are the sum of one vector for their id and one for each of their other features, and likewise for a
    movie. The factors of users and movies with few ratings are therefore close to those of similar ones. The biases
    are initialised with the ridge solution.

    Call arguments:
      features: transformed features of the roles user and movie.

    Returns:
      float32 [batch_size].
    """

    def __init__(self, splits: Splits, hparams: RatingTowerHyperparameters, biases: BiasModel):
        super().__init__()
        self._mean = tf.constant(biases.mean, tf.float32)
        self._user_bias = _bias_table(biases.users, hparams.bias_l2, USER_ID)
        self._movie_bias = _bias_table(biases.movies, hparams.bias_l2, MOVIE_ID)
        self._user = FeatureEncoder(splits, (Role.USER,), hparams.factor_dim, hparams.factor_l2)
        # Titles are left out, since each of their thousands of words would have its own factors.
        self._movie = FeatureEncoder(splits, (Role.MOVIE,), hparams.factor_dim, hparams.factor_l2, without=("title",))

    def call(self, features: Tensors) -> tf.Tensor:
        users, movies = features[transformed_name(USER_ID)], features[transformed_name(MOVIE_ID)]
        biases = tf.squeeze(self._user_bias(users) + self._movie_bias(movies), 1)
        return self._mean + biases + tf.reduce_sum(self._user(features) * self._movie(features), axis=1)


def _bias_table(values: np.ndarray, l2: float, vocabulary: str) -> Table:
    return embedding(len(values), 1, l2, values=values[:, None], vocabulary=vocabulary)


class TargetAttention(tf.keras.layers.Layer):
    """Summarises how the person rated the history movies that are similar to the movie to rate.

    The movie to rate attends to the movies of the history. What counts of a rating is its deviation from the mean of
    the movie that it is for.

    Call arguments:
      features: transformed features with the movie id and the history.

    Returns:
      float32 [batch_size, dim + 1]: the sum of the history movies' value vectors, weighted by attention and deviation,
      and the sum of the deviations, weighted by attention.
    """

    def __init__(self, splits: Splits, dim: int, movie_means: tf.Tensor):
        """Makes the tables of target, key and value vectors.

        Args:
          splits: the splits to train on, which have the number of movies.
          dim: width of the vectors.
          movie_means: float32 [movie indices], each movie's mean rating, shrunk towards the mean of all ratings.
        """
        super().__init__()
        self._targets, self._keys, self._values = (
            embedding(splits.movie_size, dim, 0.0, vocabulary=MOVIE_ID) for _ in range(3)
        )
        self._movie_means = movie_means
        self._scale = self.add_weight("scale", shape=[], initializer="ones")

    def call(self, features: Tensors) -> tf.Tensor:
        movies = features[transformed_name(HISTORY_MOVIES)]
        ratings = features[transformed_name(HISTORY_RATINGS)]
        # A movie may be in the history without a rating, which is 0 then; it gets no attention here.
        present = tf.cast(ratings > 0, tf.float32)
        deviations = (ratings - tf.gather(self._movie_means, movies)) * present
        target = self._targets(features[transformed_name(MOVIE_ID)])
        logits = self._scale * tf.einsum("bd,bld->bl", target, self._keys(movies))
        # The 1.0 in the denominator is e^0, for a key with logit 0 and no value, so that attention can fall on nothing.
        weights = tf.exp(tf.minimum(logits, 20.0)) * present
        weights /= 1.0 + tf.reduce_sum(weights, axis=1, keepdims=True)
        weighted = weights * deviations
        vector = tf.einsum("bl,bld->bd", weighted, self._values(movies))
        return tf.concat([vector, tf.reduce_sum(weighted, axis=1, keepdims=True)], axis=1)


class RatingTower(tf.keras.layers.Layer):
    """Predicts ratings with both experts."""

    def __init__(self, splits: Splits, hparams: RatingTowerHyperparameters):
        super().__init__()
        biases = BiasModel.of(splits)
        self._factors = FactorModel(splits, hparams, biases)
        self._network = CrossNetwork(splits, hparams, start=biases.mean)
        movie_means = tf.Variable(biases.mean + biases.movies, trainable=False, name="movie_means")
        self._history = TargetAttention(splits, hparams.attention_dim, movie_means)
        self._mlp = MLP(_HISTORY_UNITS, hparams.dropout)
        self._output = tf.keras.layers.Dense(1)
        if hparams.attention_l2:
            self.add_loss(lambda: table_penalty([self._history], hparams.attention_l2, splits))

    def ratings(self, features: Tensors, affinity: tf.Tensor | None = None) -> tf.Tensor:
        """Predicted ratings, 1 to 5: float32 [batch_size].

        Args:
          features: transformed features.
          affinity: float32 [batch_size], an extra input that tells how well person and movie match; None for none. Pass
            it always or never, since it decides the shape of a kernel.
        """
        return tf.clip_by_value(tf.add_n(self._experts(features, affinity, training=False)) / 2, 1.0, 5.0)

    def loss(self, features: Tensors, affinity: tf.Tensor | None = None, training: bool = False) -> tf.Tensor:
        """Sum of the experts' mean squared errors, in stars squared.

        Args:
          features: transformed features with the ratings.
          affinity: as for `ratings`.
          training: whether to apply dropout.
        """
        stars = features[transformed_name(LABEL)]
        experts = self._experts(features, affinity, training)
        return tf.add_n([tf.reduce_mean(tf.square(predicted - stars)) for predicted in experts])

    def _experts(self, features: Tensors, affinity: tf.Tensor | None, training: bool) -> list[tf.Tensor]:
        is_rated = tf.cast(features[transformed_name(HISTORY_RATINGS)] > 0, tf.float32)
        history = [self._history(features), tf.reduce_mean(is_rated, axis=1, keepdims=True)]
        if affinity is not None:
            history.append(affinity[:, tf.newaxis])
        from_history = self._output(self._mlp(tf.concat(history, axis=1), training=training))
        from_network = self._network.forward(features, training) + tf.squeeze(from_history, 1)
        return [self._factors(features), from_network]
