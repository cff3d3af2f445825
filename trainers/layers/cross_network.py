"""Cross layers and deep layers over the concatenation of one embedding for each feature.

Each block of a cross layer's weights belongs to a pair of features (Wang et al. 2021,
https://doi.org/10.1145/3442381.3450078).
"""

from typing import NamedTuple

import numpy as np
import tensorflow as tf
import tensorflow_recommenders as tfrs

from trainers.datasets import Splits
from trainers.hyperparameters import NetworkHyperparameters
from trainers.layers.towers import MLP, FeatureEncoder, Tensors, table_penalty
from transform.features import Kind, Role, columns

_CROSSED_KINDS = (Kind.CATEGORY, Kind.BUCKETS, Kind.MULTI_HOT)


class FirstProducts(NamedTuple):
    """The products of x_0 and the first weights, or the part of them that comes from some of the features.

    They are apart by what is done with them next, so that no table of movies has to be cut into pieces for each person.
    What the network does not have is without columns.

    Attributes:
      users: float32 [..., users' features * dim], the columns of W x_0 + b + 1 of the first cross layer that the
        users' embeddings are multiplied with.
      movies: float32 [..., movies' features * dim], likewise for the movies' embeddings.
      deep: float32 [..., width], the first deep layer of a parallel network before its activation.
    """

    users: tf.Tensor
    movies: tf.Tensor
    deep: tf.Tensor


class CrossNetwork(tfrs.Model):
    """Cross layers with deep layers after them or beside them, or dense layers in place of the cross layers.

    From its input x and the embeddings x_0, a cross layer computes x_0 ⊙ (W x + b) + x. W has full rank, or is the
    product of two narrow matrices.

    Attributes:
      features: names of the crossed features, in the order of their blocks.
      cross: the cross layers; empty if the structure is `deep`.
    """

    def __init__(self, splits: Splits, hparams: NetworkHyperparameters, start: float):
        """Makes the embeddings and the layers.

        Args:
          splits: the splits to train on, which have the features and the sizes of their vocabularies.
          hparams: hyper-parameters of the network.
          start: initial bias of the output.
        """
        super().__init__()
        dim, l2 = hparams.embedding_dim, hparams.l2
        user_and_movie_columns = columns(Role.USER, Role.MOVIE, among=splits.train)
        crossed = [column.feature for column in user_and_movie_columns if column.kind in _CROSSED_KINDS]
        self.features = [feature.name for feature in crossed]
        names = {column.feature.name for column in user_and_movie_columns}
        self._encoders = [
            FeatureEncoder(splits, (Role.USER, Role.MOVIE), dim, l2, without=tuple(names - {name}))
            for name in self.features
        ]
        self._roles = tuple(feature.role for feature in crossed)
        penalty = tf.keras.regularizers.L2(hparams.cross_l2)
        self.cross: list[tf.keras.layers.Layer] = []
        self._dense: list[tf.keras.layers.Layer] = []
        if hparams.structure == "deep":
            width = matched_width(len(self.features) * dim, hparams)
            for _ in range(hparams.cross_layers):
                self._dense.append(tf.keras.layers.Dense(width, activation="relu", kernel_regularizer=penalty))
                self._dense.append(tf.keras.layers.Dropout(hparams.dropout))
        else:
            self.cross = [
                tfrs.layers.feature_interaction.Cross(
                    projection_dim=hparams.projection_dim,
                    kernel_initializer="glorot_uniform",
                    kernel_regularizer=penalty,
                )
                for _ in range(hparams.cross_layers)
            ]
        self._deep = MLP(hparams.hidden_units, hparams.dropout, hparams.max_norm)
        if hparams.table_l2:
            self.add_loss(lambda: table_penalty(self._encoders, hparams.table_l2, splits))
        self._is_parallel = hparams.structure == "parallel"
        self._output = tf.keras.layers.Dense(1, bias_initializer=tf.keras.initializers.Constant(start))

    def embeddings(self, features: Tensors, role: Role | None = None) -> tf.Tensor:
        """Concatenates the crossed features' embeddings: float32 [batch_size, crossed features * dim].

        Args:
          features: transformed features.
          role: limits the result to the features of the users, which come first, or of the movies; None for both.
        """
        encoders = zip(self._encoders, self._roles, strict=True)
        return tf.concat([encoder(features) for encoder, of in encoders if role in (None, of)], axis=1)

    def forward(self, features: Tensors, training: bool = False) -> tf.Tensor:
        """Computes the output: float32 [batch_size]."""
        return self.behind_embeddings(self.embeddings(features), training)

    def behind_embeddings(self, x0: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Computes the output, float32 [batch_size], from the concatenated embeddings of all crossed features."""
        return self.behind_first_cross(x0, self.cross[0](x0, x0) if self.cross else x0, training)

    def first_products(self, embeddings: tf.Tensor, role: Role) -> FirstProducts:
        """The part of the products with the first weights that comes from the users' or from the movies' features.

        The first weights are what x_0 is multiplied with: W of the first cross layer, and beside it those of the first
        deep layer, if the network is parallel. The sum of both parts is W x_0 + b + 1 for the cross layer, whose output
        x_0 ⊙ (W x_0 + b) + x_0 is x_0 times that, and the layer before its activation for the deep one. A person is
        compared with many movies, and a movie with many people, so that the parts are used many times.

        Args:
          embeddings: float32 [..., features of the role * dim], from `embeddings`.
          role: whose embeddings these are.
        """
        size = embeddings.shape[-1]
        parts = []
        for added, (*factors, kernel, bias) in self._first_weights():
            first = factors[0] if factors else kernel
            rows = first[:size] if role is Role.USER else first[-size:]
            products = tf.tensordot(embeddings, rows, 1)
            products = tf.tensordot(products, kernel, 1) if factors else products
            parts.append(products + (bias + added) if role is Role.USER else products)
        none = embeddings[..., :0]
        deep = parts.pop() if self._is_parallel else none
        if not parts:
            return FirstProducts(none, none, deep)
        users = size if role is Role.USER else parts[0].shape[-1] - size
        return FirstProducts(parts[0][..., :users], parts[0][..., users:], deep)

    def _first_weights(self) -> list[tuple[float, list[tf.Variable]]]:
        """Of each layer that reads x_0: what is added to the bias, one kernel or two narrow ones, and the bias."""
        layers = [(1.0, self.cross[0].weights)] if self.cross else []
        return [*layers, (0.0, self._deep.first.weights)] if self._is_parallel else layers

    def behind_first_products(
        self, people: tf.Tensor, movies: tf.Tensor, of_people: FirstProducts, of_movies: FirstProducts
    ) -> tf.Tensor:
        """Computes the output for people and their movies: float32 [batch_size * movies].

        Args:
          people: float32 [batch_size, users' features * dim], from `embeddings`.
          movies: float32 [batch_size, movies, movies' features * dim], likewise.
          of_people: [batch_size, ...], from `first_products`.
          of_movies: [batch_size, movies, ...], likewise.
        """
        x = x0 = self.pairs(people, movies)
        products = FirstProducts(*(one[:, tf.newaxis] + many for one, many in zip(of_people, of_movies, strict=True)))
        if self.cross:
            # Halves, so that a person's embeddings are not repeated for each of their movies.
            x = _rows(tf.concat([people[:, tf.newaxis] * products.users, movies * products.movies], axis=2))
        deep_products = _rows(products.deep) if self._is_parallel else None
        return self.behind_first_cross(x0, x, deep_products=deep_products)

    @staticmethod
    def pairs(people: tf.Tensor, movies: tf.Tensor) -> tf.Tensor:
        """Joins the embeddings of people with those of their movies: float32 [batch_size * movies, features * dim].

        Args:
          people: float32 [batch_size, users' features * dim].
          movies: float32 [batch_size, movies, movies' features * dim].
        """
        shape = tf.concat([tf.shape(movies)[:2], [people.shape[1]]], axis=0)
        return _rows(tf.concat([tf.broadcast_to(people[:, tf.newaxis], shape), movies], axis=2))

    def behind_first_cross(
        self, x0: tf.Tensor, x: tf.Tensor, training: bool = False, deep_products: tf.Tensor | None = None
    ) -> tf.Tensor:
        """Computes the output from that of the first cross layer: float32 [batch_size].

        Args:
          x0: the concatenated embeddings, float32 [batch_size, len(self.features) * dim].
          x: output of the first cross layer, of the same shape; x0 if there are no cross layers.
          training: whether to apply dropout.
          deep_products: float32 [batch_size, width], the first deep layer of a parallel network before its activation,
            if it is known.
        """
        for layer in self.cross[1:]:
            x = layer(x0, x)
        for layer in self._dense:
            x = layer(x, training=training)
        if deep_products is None:
            deep = self._deep(x0 if self._is_parallel else x, training=training)
        else:
            deep = self._deep.behind_first(deep_products)
        return tf.squeeze(self._output(tf.concat([x, deep], axis=1) if self._is_parallel else deep), 1)


def _rows(values: tf.Tensor) -> tf.Tensor:
    """Makes one list of the movies of all people, [batch_size * movies, width] of [batch_size, movies, width]."""
    return tf.reshape(values, [-1, values.shape[2]])


def matched_width(inputs: int, hparams: NetworkHyperparameters) -> int:
    """Finds the width at which dense layers have about as many weights as the cross layers that they replace.

    Args:
      inputs: width of the concatenated embeddings.
      hparams: hyper-parameters of the network with stacked cross layers; a parallel network has `inputs` weights more,
        in its last layer.

    Returns:
      The width with the closest number of weights, counting biases and the kernel of the first deep layer, whose size
      depends on the width too.
    """
    layers, rank, deep_width = hparams.cross_layers, hparams.projection_dim, hparams.hidden_units[0]
    cross_kernel = inputs * inputs if rank is None else 2 * inputs * rank
    wanted = layers * (cross_kernel + inputs) + inputs * deep_width
    widths = np.arange(1, layers * inputs + deep_width + 1)
    weights = (inputs + 1) * widths + (layers - 1) * (widths + 1) * widths + widths * deep_width
    return int(widths[np.argmin(np.abs(weights - wanted))])
