"""Retrieval and rating in one model: the retriever's towers and the ranker's, which is told what they make of a pair.

Both losses are means over the batch, so that neither drowns the other; their weights are hyper-parameters.
"""

import tensorflow as tf
import tensorflow_recommenders as tfrs
from tfx.components.trainer.fn_args_utils import FnArgs
from tfx.components.tuner.component import TunerFnResult

from trainers import baselines, training, tuning
from trainers.datasets import Splits
from trainers.evaluation import FilteredRecall
from trainers.hyperparameters import JointHyperparameters
from trainers.rating_tower import RatingTower
from trainers.signatures import RatingHead, RetrievalHead
from trainers.towers import Catalogue, FeatureEncoder, QueryTower, Tensors
from transform.features import MOVIE_ID, Role, transformed_name


class QueryModel(QueryTower):
    """What a person may watch now: who they are, when it is, and what they rated before."""


class MovieModel(FeatureEncoder):
    """What a movie is: id, title, release year, genres, director and star."""

    def __init__(self, splits: Splits, hparams: JointHyperparameters):
        super().__init__(splits, (Role.MOVIE,), hparams.embedding_dim, hparams.l2)


class CandidateModel(tf.keras.layers.Layer):
    """The movies' vectors, as the query model is compared with them.

    Call arguments:
      movies: float32 [movies, dim], from the movie model.

    Returns:
      float32 [movies, dim].
    """

    def __init__(self, hparams: JointHyperparameters):
        super().__init__()
        self._projection = tf.keras.layers.Dense(hparams.embedding_dim, kernel_initializer="identity", use_bias=False)

    def call(self, movies: tf.Tensor) -> tf.Tensor:
        return self._projection(movies)


class UserModel(RatingTower):
    """How a person rates: their biases and factors, and what they gave the movies of their history."""


class MovielensModel(tfrs.Model):
    """Both tasks. The rating tower is told how well the query model finds that person and movie go together."""

    def __init__(self, splits: Splits, hparams: JointHyperparameters):
        super().__init__()
        self.catalogue = Catalogue(splits)
        self._hparams = hparams
        self.query_model = QueryModel(splits, hparams)
        self.movie_model = MovieModel(splits, hparams)
        self.candidate_model = CandidateModel(hparams)
        self.user_model = UserModel(splits, hparams.rating)
        self._movie_bias = tf.Variable(baselines.log_popularity(splits), name="movie_bias")

    def scores(self, features: Tensors, training: bool = False) -> tf.Tensor:
        """Scores of all movies: float32 [batch_size, movie indices], -inf for what is no movie."""
        return self._scores(*self._vectors(features, training))

    def ratings(self, features: Tensors) -> tf.Tensor:
        """Predicted ratings, 1 to 5: float32 [batch_size]."""
        if not self._hparams.shared:
            return self.user_model.ratings(features)
        return self.user_model.ratings(features, _affinity(features, *self._vectors(features, training=False)))

    def _vectors(self, features: Tensors, training: bool) -> tuple[tf.Tensor, tf.Tensor]:
        movies = self.movie_model(self.catalogue.features)
        return self.query_model(features, movies, training=training), self.candidate_model(movies)

    def _scores(self, queries: tf.Tensor, candidates: tf.Tensor) -> tf.Tensor:
        logits = tf.matmul(queries / self._hparams.temperature, candidates, transpose_b=True)
        return logits + self.catalogue.mask(self._movie_bias)

    def compute_loss(self, inputs: Tensors, training: bool = False) -> tf.Tensor:
        """Weighted sum of the mean cross-entropy (nats) and the mean squared error (stars squared)."""
        queries, candidates = self._vectors(inputs, training)
        retrieval = tf.reduce_mean(
            tf.nn.sparse_softmax_cross_entropy_with_logits(
                labels=inputs[transformed_name(MOVIE_ID)], logits=self._scores(queries, candidates)
            )
        )
        affinity = _affinity(inputs, queries, candidates) if self._hparams.shared else None
        rating = self.user_model.loss(inputs, affinity, training)
        return self._hparams.retrieval_weight * retrieval + self._hparams.rating_weight * rating


def _affinity(features: Tensors, queries: tf.Tensor, candidates: tf.Tensor) -> tf.Tensor:
    """Product of a row's query and its movie: float32 [batch_size]. What is made of it does not change either."""
    movies = tf.gather(candidates, features[transformed_name(MOVIE_ID)])
    return tf.stop_gradient(tf.reduce_sum(queries * movies, axis=1))


SPEC = training.ModelSpec("joint", JointHyperparameters, MovielensModel, FilteredRecall, (RetrievalHead, RatingHead))


def run_fn(fn_args: FnArgs) -> None:
    """Trains and exports the joint model; called by the Trainer component."""
    training.run(fn_args, SPEC)


def tuner_fn(fn_args: FnArgs) -> TunerFnResult:
    """Looks for hyper-parameters of the joint model; called by the Tuner component."""
    return tuning.tuner(fn_args, SPEC)
