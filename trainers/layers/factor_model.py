"""A factor model: a mean, a user and a movie bias, and the dot product of user and movie factors.

See Koren et al. 2009, https://doi.org/10.1109/MC.2009.263. A factor model and a network err in different places, so
that the mean of both is better than either.
"""

import numpy as np
import tensorflow as tf

from trainers.baselines import Biases
from trainers.datasets import Splits
from trainers.hyperparameters import FactorHyperparameters
from trainers.layers.towers import FeatureEncoder, Table, Tensors, embedding, known_or_missing
from transform.features import MOVIE_ID, USER_ID, Role, transformed_name


class FactorModel(tf.keras.layers.Layer):
    """Predicts stars, or the log-odds of a like, from biases and factors.

    A user's factors are the sum of one vector for their id and one for each of their other features, and likewise for a
    movie. The factors of users and movies with few ratings are therefore close to those of similar ones. The biases
    start as those of the trivial model. The prediction is the sum of the biases and the product of the factors.

    Call arguments:
      features: transformed features, [batch_size, ...] by name.

    Returns:
      float32 [batch_size].
    """

    def __init__(self, splits: Splits, hparams: FactorHyperparameters, biases: Biases):
        super().__init__()
        self._mean = tf.constant(biases.mean, tf.float32)
        self._user_bias = _bias_table(biases.users, hparams.bias_l2, USER_ID)
        self._movie_bias = _bias_table(biases.movies, hparams.bias_l2, MOVIE_ID)
        self._user = FeatureEncoder(splits, (Role.USER,), hparams.factor_dim, hparams.factor_l2)
        # Titles are left out, since each of their thousands of words would have its own factors.
        self._movie = FeatureEncoder(splits, (Role.MOVIE,), hparams.factor_dim, hparams.factor_l2, without=("title",))

    def person(self, features: Tensors, deviation: tf.Tensor | float = 0.0) -> tuple[tf.Tensor, tf.Tensor]:
        """Encodes people.

        Args:
          features: transformed features of the role user.
          deviation: float32 [batch_size], the bias of somebody whom training did not see.

        Returns:
          Mean and user bias, float32 [batch_size], and the user's factors, [batch_size, factor_dim].
        """
        users = known_or_missing(features[transformed_name(USER_ID)], self._user_bias)
        bias = tf.where(users > 0, tf.squeeze(self._user_bias(users), 1), deviation)
        return self._mean + bias, self._user(features)

    def movies(self, features: Tensors) -> tuple[tf.Tensor, tf.Tensor]:
        """The movies' biases, float32 [movies, 1], and factors, [movies, factor_dim]."""
        return self._movie_bias(features[transformed_name(MOVIE_ID)]), self._movie(features)

    def call(self, features: Tensors) -> tf.Tensor:
        of_person, user = self.person(features)
        of_movie, movie = self.movies(features)
        return of_person + tf.squeeze(of_movie, 1) + tf.reduce_sum(user * movie, axis=1)


def _bias_table(values: np.ndarray, l2: float, vocabulary: str) -> Table:
    return embedding(len(values), 1, l2, values=values[:, np.newaxis], vocabulary=vocabulary)
