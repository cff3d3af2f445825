"""Deep & cross network, version 2: explicit feature crosses, whose weights show which features matter together.

Wang et al. 2021, https://doi.org/10.1145/3442381.3450078. The input is one embedding for each feature, side by side, so
that each block of a cross layer's weights belongs to a pair of features.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_recommenders as tfrs
from tfx.components.trainer.fn_args_utils import FnArgs
from tfx.components.tuner.component import TunerFnResult

from trainers import like, training, tuning
from trainers.datasets import Splits, batches
from trainers.evaluation import RootMeanSquaredError
from trainers.hyperparameters import DCNHyperparameters
from trainers.signatures import RatingHead, Raw
from trainers.towers import MLP, FeatureEncoder, Tensors
from transform.features import LABEL, Kind, Role, columns, transformed_name

_CROSSED_KINDS = (Kind.CATEGORY, Kind.BUCKETS, Kind.MULTI_HOT)

# Rows from which the scale of embeddings is taken.
_SCALE_ROWS = 16_384


class CrossNetwork(tfrs.Model):
    """Cross layers, and deep layers after or beside them; or deep layers alone.

    A cross layer computes x_0 ⊙ (W x + b) + x of its input x and of the embeddings x_0; W has full rank, or is the
    product of two narrow matrices.

    Attributes:
      features: names of the crossed features, in the order of their blocks.
      cross: the cross layers; none where the structure is `deep`.
    """

    def __init__(self, splits: Splits, hparams: DCNHyperparameters, start: float):
        """Args: start is the output to begin with."""
        super().__init__()
        dim, l2 = hparams.embedding_dim, hparams.l2
        known = columns(Role.USER, Role.MOVIE, among=splits.train)
        self.features = [column.feature.name for column in known if column.kind in _CROSSED_KINDS]
        names = {column.feature.name for column in known}
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
        self._deep = MLP(hparams.hidden_units, hparams.dropout)
        if hparams.table_l2:
            share = hparams.table_l2 / len(splits.train[transformed_name(LABEL)])
            self.add_loss(lambda: share * tf.add_n([tf.reduce_sum(tf.square(table)) for table in self._tables()]))
        self._is_parallel = hparams.structure == "parallel"
        self._output = tf.keras.layers.Dense(1, bias_initializer=tf.keras.initializers.Constant(start))

    def _tables(self) -> list[tf.Variable]:
        return [weight for encoder in self._encoders for weight in encoder.trainable_weights]

    def embeddings(self, features: Tensors) -> tf.Tensor:
        """The crossed features' vectors, side by side: float32 [batch_size, len(self.features) * dim]."""
        return tf.concat([encoder(features) for encoder in self._encoders], axis=1)

    def forward(self, features: Tensors, training: bool = False) -> tf.Tensor:
        """What the last layer gives: float32 [batch_size]."""
        x0 = self.embeddings(features)
        return self.behind_first_cross(x0, self.cross[0](x0, x0) if self.cross else x0, training)

    def behind_first_cross(self, x0: tf.Tensor, x: tf.Tensor, training: bool = False) -> tf.Tensor:
        """All but the first cross layer: float32 [batch_size].

        Args:
          x0: the embeddings, side by side.
          x: what the first cross layer makes of them; x0 where there is none.
          training: whether units are dropped.
        """
        for layer in self.cross[1:]:
            x = layer(x0, x)
        for layer in self._dense:
            x = layer(x, training=training)
        deep = self._deep(x0 if self._is_parallel else x, training=training)
        return tf.squeeze(self._output(tf.concat([x, deep], axis=1) if self._is_parallel else deep), 1)


def matched_width(inputs: int, hparams: DCNHyperparameters) -> int:
    """The width of dense layers that, in place of as many cross layers, leave the number of weights as it is.

    Args:
      inputs: width of the embeddings side by side.
      hparams: of the network with cross layers, stacked; in parallel it has `inputs` weights more, in its last layer.

    Returns:
      The width that comes closest, biases and the first deep layer behind counted.
    """
    layers, rank, behind = hparams.cross_layers, hparams.projection_dim, hparams.hidden_units[0]
    cross = inputs * inputs if rank is None else 2 * inputs * rank
    wanted = layers * (cross + inputs) + inputs * behind
    widths = np.arange(1, layers * inputs + behind + 1)
    weights = (inputs + 1) * widths + (layers - 1) * (widths + 1) * widths + widths * behind
    return int(widths[np.argmin(np.abs(weights - wanted))])


class DCNModel(CrossNetwork):
    """Predicts stars."""

    def __init__(self, splits: Splits, hparams: DCNHyperparameters):
        super().__init__(splits, hparams, start=float(splits.train[transformed_name(LABEL)].mean()))
        self.task = tfrs.tasks.Ranking(loss=tf.keras.losses.MeanSquaredError())

    def ratings(self, features: Tensors, training: bool = False) -> tf.Tensor:
        """Predicted ratings, 1 to 5: float32 [batch_size]."""
        return tf.clip_by_value(self.forward(features, training), 1.0, 5.0)

    def compute_loss(self, inputs: Tensors, training: bool = False) -> tf.Tensor:
        """Mean squared error, in stars squared."""
        return self.task(labels=inputs[transformed_name(LABEL)], predictions=self.forward(inputs, training))


class LikeModel(CrossNetwork):
    """Predicts whether a movie is liked; every train row should tell."""

    def __init__(self, splits: Splits, hparams: DCNHyperparameters):
        share = like.is_liked(splits.train[transformed_name(LABEL)]).mean()
        # Within 1 % and 99 %, so that a split of likes alone has finite log-odds.
        share = float(np.clip(share, 0.01, 0.99))
        super().__init__(splits, hparams, start=float(np.log(share / (1 - share))))
        self.task = tfrs.tasks.Ranking(loss=tf.keras.losses.BinaryCrossentropy(from_logits=True))

    def like_logits(self, features: Tensors, training: bool = False) -> tf.Tensor:
        """Log-odds of a like: float32 [batch_size]."""
        return self.forward(features, training)

    def compute_loss(self, inputs: Tensors, training: bool = False) -> tf.Tensor:
        """Mean cross-entropy, in nats."""
        liked = tf.cast(like.is_liked(inputs[transformed_name(LABEL)]), tf.float32)
        # A column, since Keras takes the mean over the last axis before it weighs rows.
        logits = self.forward(inputs, training)
        return self.task(labels=liked[:, tf.newaxis], predictions=logits[:, tf.newaxis])


class Crosses(tf.Module):
    """No predictions, but what tells how strongly features are crossed; the last of the exported heads.

    Attributes:
      features: string [features], names in the order of their blocks.
      cross_kernel: float32 [features * dim, features * dim], the first cross layer's weights, input by output; None
        without cross layers.
      embedding_scales: float32 [features * dim], standard deviation of the embeddings' entries over train rows.
      cross_effects: float32 [features, features], from `cross_effects`; None without cross layers.
    """

    def __init__(self, model: CrossNetwork, splits: Splits):
        super().__init__()
        self.features = tf.Variable(list(model.features), trainable=False)
        sample = next(iter(batches(splits.train, _SCALE_ROWS, shuffle_seed=0)))
        scales = tf.math.reduce_std(model.embeddings(sample), axis=0)
        self.embedding_scales = tf.Variable(scales, trainable=False)
        self.cross_kernel = tf.Variable(cross_kernel(model), trainable=False) if model.cross else None
        self.cross_effects = tf.Variable(cross_effects(model, sample), trainable=False) if model.cross else None

    def serve(self, features: Tensors) -> Tensors:
        del features
        return {}

    def evaluate(self, features: Tensors, raw: Raw) -> Tensors:
        del features, raw
        return {}


def cross_effects(model: CrossNetwork, features: Tensors) -> tf.Tensor:
    """How much the first cross layer's products of each pair of features move the output.

    A block of the layer's weights adds the vector x_i ⊙ (W_ij x_j) to what x_i is passed on as. With embeddings less
    their means, so that nothing is left in it that either feature does alone, times the derivative of the output by
    that vector, and with the block of the opposite direction, this is what the pair adds to the output of a row, to
    first order; its standard deviation over rows is the effect. It is a norm of the two blocks in which every weight
    counts by what the embeddings and the layers behind make of it: none of the scales that a network may shift from one
    layer to another is left in it.

    Args:
      model: a network with cross layers.
      features: transformed features of some rows.

    Returns:
      float32 [features, features], symmetric, in the unit of the output.
    """
    x0 = model.embeddings(features)
    count, kernel = len(model.features), cross_kernel(model)
    with tf.GradientTape() as tape:
        crossed = model.cross[0](x0, x0)
        tape.watch(crossed)
        output = model.behind_first_cross(x0, crossed)
    centred = x0 - tf.reduce_mean(x0, axis=0)
    moved = centred * tape.gradient(output, crossed)
    added = []
    for vector, block in zip(tf.split(centred, count, axis=1), tf.split(kernel, count, axis=0), strict=True):
        products = tf.reshape(moved * (vector @ block), [-1, count, vector.shape[1]])
        added.append(tf.reduce_sum(products, axis=2))
    of_rows = tf.stack(added, axis=1)
    both = of_rows + tf.transpose(of_rows, [0, 2, 1])
    alone = tf.linalg.diag_part(of_rows)
    return tf.linalg.set_diag(tf.math.reduce_std(both, axis=0), tf.math.reduce_std(alone, axis=0))


def cross_kernel(model: CrossNetwork) -> tf.Tensor:
    """The first cross layer's weights, input by output; of low rank, multiplied out."""
    matrices = [weight for weight in model.cross[0].trainable_weights if len(weight.shape) == 2]
    return tf.convert_to_tensor(matrices[0]) if len(matrices) == 1 else tf.matmul(*matrices)


# By objective.
SPECS: dict[str, training.ModelSpec[DCNHyperparameters]] = {
    "rating": training.ModelSpec("dcn", DCNHyperparameters, DCNModel, RootMeanSquaredError, (RatingHead, Crosses)),
    "like": training.ModelSpec(
        "dcn", DCNHyperparameters, LikeModel, like.LogLoss, (like.LikeHead, Crosses), like.only_decided
    ),
}


def spec(section: Mapping[str, Any]) -> training.ModelSpec[DCNHyperparameters]:
    """The network that a section of the configuration asks for."""
    return SPECS[DCNHyperparameters.model_validate(section).objective]


def run_fn(fn_args: FnArgs) -> None:
    """Trains and exports the deep & cross network; called by the Trainer component."""
    training.run(fn_args, spec(fn_args.custom_config[training.HYPERPARAMETERS]))


def tuner_fn(fn_args: FnArgs) -> TunerFnResult:
    """Looks for hyper-parameters of the deep & cross network; called by the Tuner component."""
    return tuning.tuner(fn_args, spec(fn_args.custom_config[training.HYPERPARAMETERS]))
