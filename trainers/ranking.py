"""The ranker predicts how many stars a person gives a movie."""

import tensorflow as tf
import tensorflow_recommenders as tfrs
from tfx.components.trainer.fn_args_utils import FnArgs
from tfx.components.tuner.component import TunerFnResult

from trainers.datasets import Splits
from trainers.export.signatures import RatingHead
from trainers.hyperparameters import RankingHyperparameters
from trainers.layers.rating_tower import RatingTower
from trainers.layers.towers import Tensors
from trainers.loop import training, tuning
from trainers.loop.evaluation import RootMeanSquaredError


class RankingModel(tfrs.Model):
    """Predicts ratings with the rating tower alone."""

    def __init__(self, splits: Splits, hparams: RankingHyperparameters):
        super().__init__()
        self._tower = RatingTower(splits, hparams)

    def ratings(self, features: Tensors) -> tf.Tensor:
        """Predicted ratings, 1 to 5: float32 [batch_size]."""
        return self._tower.ratings(features)

    def compute_loss(self, inputs: Tensors, training: bool = False) -> tf.Tensor:
        """Sum of the experts' mean squared errors, in stars squared."""
        return self._tower.loss(inputs, training=training)


SPEC = training.ModelSpec("ranking", RankingHyperparameters, RankingModel, RootMeanSquaredError, (RatingHead,))


def spec(hparams: RankingHyperparameters) -> training.ModelSpec[RankingHyperparameters]:
    """`SPEC`, whatever the hyper-parameters."""
    del hparams
    return SPEC


def run_fn(fn_args: FnArgs) -> None:
    """Trains and exports the ranker; called by the Trainer component."""
    training.run(fn_args, SPEC)


def tuner_fn(fn_args: FnArgs) -> TunerFnResult:
    """Looks for hyper-parameters of the ranker; called by the Tuner component."""
    return tuning.tuner(fn_args, SPEC)
