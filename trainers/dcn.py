"""Deep & cross network, version 2: explicit feature crosses, whose weights show which features matter together.

See Wang et al. 2021, https://doi.org/10.1145/3442381.3450078. The input is the concatenation of one embedding for each
feature, so each block of a cross layer's weights belongs to a pair of features. A second network and a factor model may
learn beside the network. Each has its own loss, so that their errors differ and partly cancel out in the mean of all,
which is the prediction; the cross weights are those of the first network.
"""

import numpy as np
import tensorflow as tf
import tensorflow_recommenders as tfrs
from tfx.components.trainer.fn_args_utils import FnArgs
from tfx.components.tuner.component import TunerFnResult

from trainers.baselines import Biases, BiasModel, LikeBiases
from trainers.datasets import Splits, batches
from trainers.export.like_head import LikeHead
from trainers.export.signatures import RatingHead
from trainers.export.situations import Raw
from trainers.hyperparameters import DCNHyperparameters, Task
from trainers.layers.cross_network import CrossNetwork
from trainers.layers.factor_model import FactorModel
from trainers.layers.person_dropout import PersonDropout
from trainers.layers.towers import Tensors
from trainers.likes import is_liked, only_decided
from trainers.loop import training, tuning
from trainers.loop.evaluation import LogLoss, RootMeanSquaredError
from transform.features import LABEL, transformed_name

# Number of train rows from which `Crosses` computes the embeddings' scales and the cross effects.
_SCALE_ROWS = 16_384


class _Experts(CrossNetwork):
    """The network and, if they are configured, a second network and a factor model beside it.

    Attributes:
      alike_after: see `TwoTowerModel`; none of them reads the moment.
    """

    alike_after = 0

    def __init__(self, splits: Splits, hparams: DCNHyperparameters, start: float, biases: type[Biases]):
        """Makes all experts.

        Args:
          splits: the splits to train on.
          hparams: hyper-parameters of all.
          start: initial bias of a network's output.
          biases: the trivial model of what is predicted, with whose biases the factor model starts.
        """
        super().__init__(splits, hparams, start)
        self.person_dropout = PersonDropout(hparams)
        self.second: CrossNetwork | None = None
        if hparams.second_structure is not None:
            second = hparams.model_copy(update={"structure": hparams.second_structure})
            self.second = CrossNetwork(splits, second, start)
        self.factors = FactorModel(splits, hparams, biases.of(splits)) if hparams.factor_dim else None

    def experts(self, features: Tensors, training: bool = False) -> list[tf.Tensor]:
        """The output of each expert: float32 [batch_size]."""
        outputs = [self.forward(features, training)]
        if self.second is not None:
            outputs.append(self.second.forward(features, training))
        if self.factors is not None:
            outputs.append(self.factors(features))
        return outputs

    def predicted(self, features: Tensors) -> tf.Tensor:
        """The mean of the experts' outputs: float32 [batch_size]."""
        outputs = self.experts(features)
        return tf.add_n(outputs) / len(outputs)


class DCNModel(_Experts):
    """Deep & cross network that predicts stars."""

    def __init__(self, splits: Splits, hparams: DCNHyperparameters):
        super().__init__(splits, hparams, float(splits.train[transformed_name(LABEL)].mean()), BiasModel)
        # Under a distribution strategy Keras refuses to average over the batch. It need not: for 1-D inputs,
        # MeanSquaredError's own mean over the last axis is the mean over the batch.
        self.task = tfrs.tasks.Ranking(loss=tf.keras.losses.MeanSquaredError(reduction="none"))

    def ratings(self, features: Tensors) -> tf.Tensor:
        """Predicted ratings, 1 to 5: float32 [batch_size]."""
        return tf.clip_by_value(self.predicted(features), 1.0, 5.0)

    def compute_loss(self, inputs: Tensors, training: bool = False) -> tf.Tensor:
        """Sum of the experts' mean squared errors, in stars squared."""
        inputs = self.person_dropout(inputs, training)
        stars = inputs[transformed_name(LABEL)]
        return tf.add_n([self.task(labels=stars, predictions=each) for each in self.experts(inputs, training)])


class LikeModel(_Experts):
    """Deep & cross network that predicts likes; every train row must be a like or a dislike."""

    def __init__(self, splits: Splits, hparams: DCNHyperparameters):
        share = is_liked(splits.train[transformed_name(LABEL)]).mean()
        # The share is kept within 1 % and 99 %, so that a split of likes alone has finite log-odds.
        share = float(np.clip(share, 0.01, 0.99))
        super().__init__(splits, hparams, float(np.log(share / (1 - share))), LikeBiases)
        self.task = tfrs.tasks.Ranking(loss=tf.keras.losses.BinaryCrossentropy(from_logits=True, reduction="none"))

    def like_logits(self, features: Tensors) -> tf.Tensor:
        """Log-odds of a like: float32 [batch_size]."""
        return self.predicted(features)

    def compute_loss(self, inputs: Tensors, training: bool = False) -> tf.Tensor:
        """Sum of the experts' mean cross-entropies, in nats."""
        inputs = self.person_dropout(inputs, training)
        liked = tf.cast(is_liked(inputs[transformed_name(LABEL)]), tf.float32)[:, tf.newaxis]
        # Keras averages over the last axis; with inputs of [batch_size, 1], that leaves one loss for each row.
        outputs = [each[:, tf.newaxis] for each in self.experts(inputs, training)]
        return tf.add_n([tf.reduce_mean(self.task(labels=liked, predictions=each)) for each in outputs])


class Crosses(tf.Module):
    """Exports how strongly features are crossed. It is the last of the heads and has no predictions of its own.

    Attributes:
      features: string [features], the names of the crossed features in the order of their blocks.
      cross_kernel: float32 [features * dim, features * dim], the first cross layer's weights, input by output; None
        without cross layers.
      embedding_scales: float32 [features * dim], standard deviation of each embedding dimension over train rows.
      cross_effects: float32 [features, features], what the function `cross_effects` measures, in the prediction; None
        without cross layers.
    """

    def __init__(self, model: _Experts, splits: Splits):
        super().__init__()
        self.features = tf.Variable(list(model.features), trainable=False)
        sample = next(iter(batches(splits.train, _SCALE_ROWS, shuffle_seed=0)))
        scales = tf.math.reduce_std(model.embeddings(sample), axis=0)
        self.embedding_scales = tf.Variable(scales, trainable=False)
        self.cross_kernel = tf.Variable(cross_kernel(model), trainable=False) if model.cross else None
        self.cross_effects: tf.Variable | None = None
        if model.cross:
            # The prediction is the mean of the experts, of which the network is one.
            of_prediction = cross_effects(model, sample) / len(model.experts(sample))
            self.cross_effects = tf.Variable(of_prediction, trainable=False)

    def serve(self, features: Tensors) -> Tensors:
        del features
        return {}

    def evaluate(self, features: Tensors, raw: Raw) -> Tensors:
        del features, raw
        return {}

    def main_metric(self, features: Tensors, raw: Raw) -> Tensors:
        del features, raw
        return {}


def cross_effects(model: CrossNetwork, features: Tensors) -> tf.Tensor:
    """Measures how much the first cross layer's product of each pair of features changes the output.

    For features i and j with embeddings x_i and x_j, the block W_ij of the layer's weights adds x_i ⊙ (W_ij x_j) to
    the layer's output for x_i. To first order, the pair's contribution to the output of a row is this vector times the
    derivative of the output with respect to it, plus the same for the block W_ji. The embeddings are centred first,
    which removes what either feature does alone. The effect is the standard deviation of the contribution over rows.

    The effect is a norm of the two blocks that weighs every weight by the embeddings that it multiplies and by its
    influence on the later layers. It therefore does not depend on how the network distributes scale among its layers.

    Args:
      model: a network with cross layers.
      features: transformed features of the rows to measure on.

    Returns:
      float32 [features, features], symmetric, in the unit of the network's output.
    """
    x0 = model.embeddings(features)
    count, kernel = len(model.features), cross_kernel(model)
    with tf.GradientTape() as tape:
        crossed = model.cross[0](x0, x0)
        tape.watch(crossed)
        output = model.behind_first_cross(x0, crossed)
    centred = x0 - tf.reduce_mean(x0, axis=0)
    weighted = centred * tape.gradient(output, crossed)
    contributions_by_input = []
    for vector, block in zip(tf.split(centred, count, axis=1), tf.split(kernel, count, axis=0), strict=True):
        products = tf.reshape(weighted * (vector @ block), [-1, count, vector.shape[1]])
        contributions_by_input.append(tf.reduce_sum(products, axis=2))
    contributions = tf.stack(contributions_by_input, axis=1)
    both_directions = contributions + tf.transpose(contributions, [0, 2, 1])
    # The diagonal is a feature's product with itself, which has one block only.
    with_itself = tf.linalg.diag_part(contributions)
    return tf.linalg.set_diag(tf.math.reduce_std(both_directions, axis=0), tf.math.reduce_std(with_itself, axis=0))


def cross_kernel(model: CrossNetwork) -> tf.Tensor:
    """The first cross layer's weights: float32 [features * dim, features * dim], input by output.

    Low-rank weights are stored as two matrices; this function returns their product.
    """
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
