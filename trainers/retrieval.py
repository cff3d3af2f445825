"""The two-tower retriever: which of all movies will a person rate next?

A query tower reads who a person is, when it is and what they rated before, a candidate tower the movie's features; the
score is the dot product of their vectors. The catalogue is small enough for the exact softmax over all of it, which
needs no sampling and thus no correction of sampling bias (Yi et al. 2019, https://doi.org/10.1145/3298689.3346996).
"""

import tensorflow as tf
import tensorflow_recommenders as tfrs
from tfx.components.trainer.fn_args_utils import FnArgs
from tfx.components.tuner.component import TunerFnResult

from trainers import baselines, training, tuning
from trainers.datasets import Splits
from trainers.evaluation import FilteredRecall
from trainers.hyperparameters import RetrievalHyperparameters
from trainers.signatures import RetrievalHead
from trainers.towers import Catalogue, FeatureEncoder, QueryTower, Tensors
from transform.features import MOVIE_ID, Role, transformed_name


class RetrievalModel(tfrs.Model):
    """Two towers and the softmax over the catalogue."""

    def __init__(self, splits: Splits, hparams: RetrievalHyperparameters):
        super().__init__()
        self.catalogue = Catalogue(splits)
        self._temperature = hparams.temperature
        self.candidate_model = FeatureEncoder(splits, (Role.MOVIE,), hparams.embedding_dim, hparams.l2)
        self.query_model = QueryTower(splits, hparams)
        self._bias = tf.Variable(baselines.log_popularity(splits), name="movie_bias")

    def scores(self, features: Tensors, training: bool = False) -> tf.Tensor:
        """Scores of all movies: float32 [batch_size, movie indices], -inf for what is no movie."""
        table = self.candidate_model(self.catalogue.features)
        queries = self.query_model(features, table, training=training)
        logits = tf.matmul(queries / self._temperature, table, transpose_b=True)
        return logits + self.catalogue.mask(self._bias)

    def compute_loss(self, inputs: Tensors, training: bool = False) -> tf.Tensor:
        """Mean cross-entropy of the rated movie, in nats."""
        return tf.reduce_mean(
            tf.nn.sparse_softmax_cross_entropy_with_logits(
                labels=inputs[transformed_name(MOVIE_ID)], logits=self.scores(inputs, training=training)
            )
        )


SPEC = training.ModelSpec("retrieval", RetrievalHyperparameters, RetrievalModel, FilteredRecall, (RetrievalHead,))


def run_fn(fn_args: FnArgs) -> None:
    """Trains and exports the retriever; called by the Trainer component."""
    training.run(fn_args, SPEC)


def tuner_fn(fn_args: FnArgs) -> TunerFnResult:
    """Looks for hyper-parameters of the retriever; called by the Tuner component."""
    return tuning.tuner(fn_args, SPEC)
