"""Deep & cross network, version 2: explicit feature crosses, whose weights show which features matter together.

Wang et al. 2021, https://doi.org/10.1145/3442381.3450078. The input is one embedding for each feature, side by side, so
that each block of a cross layer's weights belongs to a pair of features.
"""

import tensorflow as tf
import tensorflow_recommenders as tfrs
from tfx.components.trainer.fn_args_utils import FnArgs
from tfx.components.tuner.component import TunerFnResult

from trainers import training, tuning
from trainers.datasets import Splits, batches
from trainers.evaluation import RootMeanSquaredError
from trainers.hyperparameters import DCNHyperparameters
from trainers.signatures import RatingHead
from trainers.towers import MLP, FeatureEncoder, Tensors
from transform.features import LABEL, Kind, Role, columns, transformed_name

_CROSSED_KINDS = (Kind.CATEGORY, Kind.BUCKETS, Kind.MULTI_HOT)

# Rows from which the scale of embeddings is taken.
_SCALE_ROWS = 16_384


class DCNModel(tfrs.Model):
    """Cross layers, and deep layers after or beside them.

    Attributes:
      features: names of the crossed features, in the order of their blocks.
      cross: the cross layers.
    """

    def __init__(self, splits: Splits, hparams: DCNHyperparameters):
        super().__init__()
        dim, l2 = hparams.embedding_dim, hparams.l2
        known = columns(Role.USER, Role.MOVIE, among=splits.train)
        self.features = [column.feature.name for column in known if column.kind in _CROSSED_KINDS]
        names = {column.feature.name for column in known}
        self._encoders = [
            FeatureEncoder(splits, (Role.USER, Role.MOVIE), dim, l2, without=tuple(names - {name}))
            for name in self.features
        ]
        self.cross = [
            tfrs.layers.feature_interaction.Cross(
                projection_dim=hparams.projection_dim,
                kernel_initializer="glorot_uniform",
                kernel_regularizer=tf.keras.regularizers.L2(l2),
            )
            for _ in range(hparams.cross_layers)
        ]
        self._deep = MLP(hparams.hidden_units, hparams.dropout)
        self._stacked = hparams.structure == "stacked"
        self._output = tf.keras.layers.Dense(
            1, bias_initializer=tf.keras.initializers.Constant(splits.train[transformed_name(LABEL)].mean())
        )
        self.task = tfrs.tasks.Ranking(loss=tf.keras.losses.MeanSquaredError())

    def embeddings(self, features: Tensors) -> tf.Tensor:
        """The crossed features' vectors, side by side: float32 [batch_size, len(self.features) * dim]."""
        return tf.concat([encoder(features) for encoder in self._encoders], axis=1)

    def ratings(self, features: Tensors, training: bool = False) -> tf.Tensor:
        """Predicted ratings, 1 to 5: float32 [batch_size]."""
        return tf.clip_by_value(self._raw_ratings(features, training), 1.0, 5.0)

    def _raw_ratings(self, features: Tensors, training: bool) -> tf.Tensor:
        x0 = self.embeddings(features)
        crossed = x0
        for layer in self.cross:
            crossed = layer(x0, crossed)
        deep = self._deep(crossed if self._stacked else x0, training=training)
        return tf.squeeze(self._output(deep if self._stacked else tf.concat([crossed, deep], axis=1)), 1)

    def compute_loss(self, inputs: Tensors, training: bool = False) -> tf.Tensor:
        """Mean squared error, in stars squared."""
        predicted = self._raw_ratings(inputs, training)
        return self.task(labels=inputs[transformed_name(LABEL)], predictions=predicted)


class CrossHead(RatingHead):
    """Ratings, and what tells how strongly features are crossed.

    Attributes:
      features: string [features], names in the order of their blocks.
      cross_kernel: float32 [features * dim, features * dim], the first cross layer's weights, input by output.
      embedding_scales: float32 [features], root mean square of each feature's embeddings over train rows.
    """

    def __init__(self, model: DCNModel, splits: Splits):
        super().__init__(model, splits)
        self.features = tf.Variable(list(model.features), trainable=False)
        self.cross_kernel = tf.Variable(_kernel(model.cross[0]), trainable=False)
        sample = next(iter(batches(splits.train, _SCALE_ROWS, shuffle_seed=0)))
        blocks = tf.split(model.embeddings(sample), len(model.features), axis=1)
        self.embedding_scales = tf.Variable(
            [tf.sqrt(tf.reduce_mean(tf.square(block))) for block in blocks], trainable=False
        )


def _kernel(layer: tfrs.layers.feature_interaction.Cross) -> tf.Tensor:
    matrices = [weight for weight in layer.trainable_weights if len(weight.shape) == 2]
    return matrices[0] if len(matrices) == 1 else tf.matmul(*matrices)


SPEC = training.ModelSpec("dcn", DCNHyperparameters, DCNModel, RootMeanSquaredError, (CrossHead,))


def run_fn(fn_args: FnArgs) -> None:
    """Trains and exports the deep & cross network; called by the Trainer component."""
    training.run(fn_args, SPEC)


def tuner_fn(fn_args: FnArgs) -> TunerFnResult:
    """Looks for hyper-parameters of the deep & cross network; called by the Tuner component."""
    return tuning.tuner(fn_args, SPEC)
