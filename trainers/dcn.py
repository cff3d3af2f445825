"""Deep & cross network, version 2: explicit feature crosses, whose weights show which features matter together.

Wang et al. 2021, https://doi.org/10.1145/3442381.3450078. The input is one embedding for each feature, side by side, so
that each block of a cross layer's weights belongs to a pair of features.
"""

import numpy as np
import tensorflow as tf
import tensorflow_recommenders as tfrs
from tfx.components.trainer.fn_args_utils import FnArgs
from tfx.components.tuner.component import TunerFnResult

from trainers.datasets import Splits, batches
from trainers.export.like_head import LikeHead
from trainers.export.signatures import RatingHead, Raw
from trainers.hyperparameters import DCNHyperparameters, Task
from trainers.layers.cross_network import CrossNetwork
from trainers.layers.towers import Tensors
from trainers.likes import is_liked, only_decided
from trainers.loop import training, tuning
from trainers.loop.evaluation import LogLoss, RootMeanSquaredError
from transform.features import LABEL, transformed_name

# Rows from which the scale of embeddings is taken.
_SCALE_ROWS = 16_384


class DCNModel(CrossNetwork):
    """Predicts stars."""

    def __init__(self, splits: Splits, hparams: DCNHyperparameters):
        super().__init__(splits, hparams, start=float(splits.train[transformed_name(LABEL)].mean()))
        # Keras takes no mean over a batch that may be one replica's: of one axis it is the loss's own.
        self.task = tfrs.tasks.Ranking(loss=tf.keras.losses.MeanSquaredError(reduction="none"))

    def ratings(self, features: Tensors, training: bool = False) -> tf.Tensor:
        """Predicted ratings, 1 to 5: float32 [batch_size]."""
        return tf.clip_by_value(self.forward(features, training), 1.0, 5.0)

    def compute_loss(self, inputs: Tensors, training: bool = False) -> tf.Tensor:
        """Mean squared error, in stars squared."""
        return self.task(labels=inputs[transformed_name(LABEL)], predictions=self.forward(inputs, training))


class LikeModel(CrossNetwork):
    """Predicts whether a movie is liked; every train row should tell."""

    def __init__(self, splits: Splits, hparams: DCNHyperparameters):
        share = is_liked(splits.train[transformed_name(LABEL)]).mean()
        # Within 1 % and 99 %, so that a split of likes alone has finite log-odds.
        share = float(np.clip(share, 0.01, 0.99))
        super().__init__(splits, hparams, start=float(np.log(share / (1 - share))))
        self.task = tfrs.tasks.Ranking(loss=tf.keras.losses.BinaryCrossentropy(from_logits=True, reduction="none"))

    def like_logits(self, features: Tensors, training: bool = False) -> tf.Tensor:
        """Log-odds of a like: float32 [batch_size]."""
        return self.forward(features, training)

    def compute_loss(self, inputs: Tensors, training: bool = False) -> tf.Tensor:
        """Mean cross-entropy, in nats."""
        liked = tf.cast(is_liked(inputs[transformed_name(LABEL)]), tf.float32)
        # A column, since Keras takes the mean over the last axis before it weighs rows.
        logits = self.forward(inputs, training)
        return tf.reduce_mean(self.task(labels=liked[:, tf.newaxis], predictions=logits[:, tf.newaxis]))


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


SPECS: dict[Task, training.ModelSpec[DCNHyperparameters]] = {
    Task.RATING: training.ModelSpec("dcn", DCNHyperparameters, DCNModel, RootMeanSquaredError, (RatingHead, Crosses)),
    Task.LIKE: training.ModelSpec("dcn", DCNHyperparameters, LikeModel, LogLoss, (LikeHead, Crosses), only_decided),
}


def spec(hparams: DCNHyperparameters) -> training.ModelSpec[DCNHyperparameters]:
    """The network for the task that the hyper-parameters ask for."""
    (task,) = hparams.tasks
    return SPECS[task]


def _spec_of_section(fn_args: FnArgs) -> training.ModelSpec[DCNHyperparameters]:
    return spec(DCNHyperparameters.model_validate(fn_args.custom_config[training.HYPERPARAMETERS]))


def run_fn(fn_args: FnArgs) -> None:
    """Trains and exports the deep & cross network; called by the Trainer component."""
    training.run(fn_args, _spec_of_section(fn_args))


def tuner_fn(fn_args: FnArgs) -> TunerFnResult:
    """Looks for hyper-parameters of the deep & cross network; called by the Tuner component."""
    return tuning.tuner(fn_args, _spec_of_section(fn_args))
