"""The two-tower retriever predicts which movie of the catalogue a person rates next.

The query tower reads who a person is, what time it is and what they rated before; the candidate tower reads a movie's
features. The score is the dot product of the two towers' vectors plus a bias of the movie. MovieLens's catalogue is
small enough for the exact softmax over all of it; `trainers.layers.retrieval_loss` has a loss for larger ones.
"""

import tensorflow as tf
from tfx.components.trainer.fn_args_utils import FnArgs
from tfx.components.tuner.component import TunerFnResult

from trainers.datasets import Splits
from trainers.export.signatures import RetrievalHead
from trainers.hyperparameters import RetrievalHyperparameters
from trainers.layers.sequence_tower import SequenceQueryTower
from trainers.layers.towers import FeatureEncoder, QueryTower, Tensors
from trainers.layers.two_tower import TwoTowerModel
from trainers.loop import training, tuning
from trainers.loop.evaluation import FilteredRecall
from transform.features import Role


class RetrievalModel(TwoTowerModel):
    """Two-tower model that is trained on the retrieval loss alone."""

    def __init__(self, splits: Splits, hparams: RetrievalHyperparameters):
        super().__init__(splits, hparams)
        self.candidate_model = FeatureEncoder(splits, (Role.MOVIE,), hparams.embedding_dim, hparams.l2)
        is_sequence = hparams.query == "sequence"
        self.query_model = SequenceQueryTower(splits, hparams) if is_sequence else QueryTower(splits, hparams)

    def encode_movies(self, movies: Tensors) -> tuple[tf.Tensor, tf.Tensor]:
        table = self.candidate_model(movies)
        return table, table

    def compute_loss(self, inputs: Tensors, training: bool = False) -> tf.Tensor:
        """Mean cross-entropy of the rated movies that count as positives, in nats; of windows, see `Batch`."""
        batch = self.encode_batch(inputs, training)
        return batch.weight_of_positives * self.retrieval_loss(batch.rows, batch.encoded)


SPEC = training.ModelSpec("retrieval", RetrievalHyperparameters, RetrievalModel, FilteredRecall, (RetrievalHead,))


def spec(hparams: RetrievalHyperparameters) -> training.ModelSpec[RetrievalHyperparameters]:
    """`SPEC`, whatever the hyper-parameters."""
    del hparams
    return SPEC


def run_fn(fn_args: FnArgs) -> None:
    """Trains and exports the retriever; called by the Trainer component."""
    training.run(fn_args, SPEC)


def tuner_fn(fn_args: FnArgs) -> TunerFnResult:
    """Looks for hyper-parameters of the retriever; called by the Tuner component."""
    return tuning.tuner(fn_args, SPEC)
