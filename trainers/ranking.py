"""The ranker predicts how many stars a person gives a movie."""

import tensorflow as tf
import tensorflow_recommenders as tfrs
from tfx.components.trainer.fn_args_utils import FnArgs
from tfx.components.tuner.component import TunerFnResult

from trainers.datasets import Splits
from trainers.export.signatures import RatingHead
from trainers.hyperparameters import RankingHyperparameters
from trainers.layers.person_dropout import PersonDropout
from trainers.layers.rating_tower import RatingTower
from trainers.layers.towers import Catalogue, Tensors
from trainers.loop import training, tuning
from trainers.loop.evaluation import RootMeanSquaredError


class RankingModel(tfrs.Model):
    """Predicts ratings with the rating tower alone.

    Attributes:
      alike_after: see `TwoTowerModel`; the tower reads no moment.
    """

    alike_after = 0

    def __init__(self, splits: Splits, hparams: RankingHyperparameters):
        super().__init__()
        self._person_dropout = PersonDropout(hparams)
        self._tower = RatingTower(splits, hparams)
        self._catalogue = Catalogue(splits)

    def freeze(self) -> None:
        """Encodes the catalogue once and for all; call it when the model's training has ended."""
        self._frozen_parts = self._tower.frozen(self._catalogue.features)

    def ratings_of(self, features: Tensors, movies: tf.Tensor, queries: tf.Tensor) -> tf.Tensor:
        """Predicted ratings of each person for their movies; call `freeze` first.

        Args:
          features: transformed features of people, [batch_size, ...] by name.
          movies: int32 [batch_size, movies], movie indices.
          queries: not used; the joint model reads them.

        Returns:
          float32 [batch_size, movies], 1 to 5.
        """
        del queries
        return self._tower.ratings_of_frozen(features, self._frozen_parts, movies)

    def ratings(self, features: Tensors) -> tf.Tensor:
        """Predicted ratings, 1 to 5: float32 [batch_size]."""
        return self._tower.ratings(features)

    def compute_loss(self, inputs: Tensors, training: bool = False) -> tf.Tensor:
        """Sum of the experts' mean squared errors, in stars squared."""
        return self._tower.loss(self._person_dropout(inputs, training), training=training)


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
