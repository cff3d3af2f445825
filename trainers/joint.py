"""Retrieval and rating in one model: the tasks share the movies' and the user's towers.

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
from trainers.ranking import FittedBiases, TargetAttention
from trainers.signatures import RatingHead, RetrievalHead
from trainers.towers import MLP, Catalogue, FeatureEncoder, QueryTower, Tensors
from transform.features import LABEL, MOVIE_ID, USER_ID, Kind, Role, transformed_name


class UserModel(FeatureEncoder):
    """Who a person is: id, gender, age bucket and normalised age, occupation, zip area."""

    def __init__(self, splits: Splits, hparams: JointHyperparameters):
        super().__init__(splits, (Role.USER,), hparams.embedding_dim, hparams.l2)


class QueryModel(QueryTower):
    """What a person may watch now: demographics, normalised time, and what they rated before."""

    def __init__(self, splits: Splits, hparams: JointHyperparameters):
        super().__init__(
            splits,
            hparams.embedding_dim,
            hparams.hidden_units,
            hparams.dropout,
            hparams.l2,
            roles=(Role.USER, Role.CONTEXT),
            without=(USER_ID, transformed_name("timestamp", Kind.HOUR), transformed_name("timestamp", Kind.WEEKDAY)),
        )


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


class MovielensModel(tfrs.Model):
    """Both tasks."""

    def __init__(self, splits: Splits, hparams: JointHyperparameters):
        super().__init__()
        self.catalogue = Catalogue(splits)
        self._hparams = hparams
        self.user_model = UserModel(splits, hparams)
        self.query_model = QueryModel(splits, hparams)
        self.movie_model = MovieModel(splits, hparams)
        self.candidate_model = CandidateModel(hparams)
        self._movie_bias = tf.Variable(baselines.log_popularity(splits), name="movie_bias")
        self._biases = FittedBiases(splits)
        self._history = TargetAttention(splits, hparams.embedding_dim, hparams.l2, self._biases.movie_means)
        self._rating = MLP(hparams.rating_hidden_units, hparams.dropout, hparams.max_norm)
        self._output = tf.keras.layers.Dense(1)
        self.rating_task = tfrs.tasks.Ranking(loss=tf.keras.losses.MeanSquaredError())

    def scores(self, features: Tensors, training: bool = False) -> tf.Tensor:
        """Scores of all movies: float32 [batch_size, movie indices], -inf for what is no movie."""
        movies = self.movie_model(self.catalogue.features)
        queries = self.query_model(features, movies, training=training)
        logits = tf.matmul(queries, self.candidate_model(movies), transpose_b=True) / self._hparams.temperature
        return self.catalogue.mask(logits + self._movie_bias)

    def ratings(self, features: Tensors, training: bool = False) -> tf.Tensor:
        """Predicted ratings, 1 to 5: float32 [batch_size]."""
        return tf.clip_by_value(self._raw_ratings(features, training), 1.0, 5.0)

    def _raw_ratings(self, features: Tensors, training: bool) -> tf.Tensor:
        user, movie = self.user_model(features), self.movie_model(features)
        joined = tf.concat([user, movie, user * movie, self._history(features)], axis=1)
        residual = self._output(self._rating(joined, training=training))
        return self._biases(features) + tf.reduce_sum(user * movie, axis=1) + tf.squeeze(residual, 1)

    def compute_loss(self, inputs: Tensors, training: bool = False) -> tf.Tensor:
        """Weighted sum of the mean cross-entropy (nats) and the mean squared error (stars squared)."""
        retrieval = tf.reduce_mean(
            tf.nn.sparse_softmax_cross_entropy_with_logits(
                labels=inputs[transformed_name(MOVIE_ID)], logits=self.scores(inputs, training=training)
            )
        )
        rating = self.rating_task(
            labels=inputs[transformed_name(LABEL)], predictions=self._raw_ratings(inputs, training)
        )
        return self._hparams.retrieval_weight * retrieval + self._hparams.rating_weight * rating


SPEC = training.ModelSpec("joint", JointHyperparameters, MovielensModel, FilteredRecall, (RetrievalHead, RatingHead))


def run_fn(fn_args: FnArgs) -> None:
    """Trains and exports the joint model; called by the Trainer component."""
    training.run(fn_args, SPEC)


def tuner_fn(fn_args: FnArgs) -> TunerFnResult:
    """Looks for hyper-parameters of the joint model; called by the Tuner component."""
    return tuning.tuner(fn_args, SPEC)
