"""Cross layers and deep layers over the concatenation of one embedding for each feature.

Each block of a cross layer's weights belongs to a pair of features (Wang et al. 2021,
https://doi.org/10.1145/3442381.3450078).
"""

import numpy as np
import tensorflow as tf
import tensorflow_recommenders as tfrs

from trainers.datasets import Splits
from trainers.hyperparameters import NetworkHyperparameters
from trainers.layers.towers import MLP, FeatureEncoder, Tensors, table_penalty
from transform.features import Kind, Role, columns

_CROSSED_KINDS = (Kind.CATEGORY, Kind.BUCKETS, Kind.MULTI_HOT)


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
        self.features = [column.feature.name for column in user_and_movie_columns if column.kind in _CROSSED_KINDS]
        names = {column.feature.name for column in user_and_movie_columns}
        self._encoders = [
            FeatureEncoder(splits, (Role.USER, Role.MOVIE), dim, l2, without=tuple(names - {name}))
            for name in self.features
        ]
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

    def embeddings(self, features: Tensors) -> tf.Tensor:
        """Concatenates the crossed features' embeddings: float32 [batch_size, len(self.features) * dim]."""
        return tf.concat([encoder(features) for encoder in self._encoders], axis=1)

    def forward(self, features: Tensors, training: bool = False) -> tf.Tensor:
        """Computes the output: float32 [batch_size]."""
        x0 = self.embeddings(features)
        return self.behind_first_cross(x0, self.cross[0](x0, x0) if self.cross else x0, training)

    def behind_first_cross(self, x0: tf.Tensor, x: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Computes the output from that of the first cross layer: float32 [batch_size].

        Args:
          x0: the concatenated embeddings, float32 [batch_size, len(self.features) * dim].
          x: output of the first cross layer, of the same shape; x0 if there are no cross layers.
          training: whether to apply dropout.
        """
        for layer in self.cross[1:]:
            x = layer(x0, x)
        for layer in self._dense:
            x = layer(x, training=training)
        deep = self._deep(x0 if self._is_parallel else x, training=training)
        return tf.squeeze(self._output(tf.concat([x, deep], axis=1) if self._is_parallel else deep), 1)


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
