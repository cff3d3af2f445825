"""Retrieval and rating in one model, which combines the retriever's two towers with the ranker's rating tower.

The rating tower may also read the dot product of the retrieval towers' vectors, and the query's vector. Both losses are
means over the batch, that of ratings the sum of all experts'; their weights are hyper-parameters or learnt.
"""

import tensorflow as tf
from tfx.components.trainer.fn_args_utils import FnArgs
from tfx.components.tuner.component import TunerFnResult

from trainers.datasets import Splits
from trainers.export.signatures import RatingHead, RetrievalHead
from trainers.hyperparameters import JointHyperparameters
from trainers.layers.loss_weighting import UncertaintyWeighting
from trainers.layers.person_dropout import PersonDropout
from trainers.layers.rating_tower import Match, RatingTower
from trainers.layers.sequence_tower import SequenceQueryTower
from trainers.layers.towers import FeatureEncoder, QueryTower, Tensors
from trainers.layers.two_tower import Encoded, TwoTowerModel
from trainers.loop import training, tuning
from trainers.loop.evaluation import FilteredRecall
from transform.features import MOVIE_ID, Role, transformed_name


class QueryModel(QueryTower):
    """Encodes what a person may watch now, from who they are, what time it is and what they rated before."""


class SequenceQueryModel(SequenceQueryTower):
    """The same, from the ratings one after another."""


class MovieModel(FeatureEncoder):
    """Encodes a movie's features: id, title, release year, genres, director and star."""

    def __init__(self, splits: Splits, hparams: JointHyperparameters):
        super().__init__(splits, (Role.MOVIE,), hparams.embedding_dim, hparams.l2)


class CandidateModel(tf.keras.layers.Layer):
    """Projects the movie model's vectors to the candidate vectors that queries are compared with.

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
    """Predicts how a person rates, from their biases and factors and from the ratings in their history."""


class MovielensModel(TwoTowerModel):
    """Model for both tasks.

    With `shared`, the rating tower also reads how well person and movie match: the dot product of the query vector and
    the candidate vector. With `shared_state`, it reads the query vector, too.
    """

    reads_whole_rows = True

    def __init__(self, splits: Splits, hparams: JointHyperparameters):
        super().__init__(splits, hparams)
        self._hparams = hparams
        is_sequence = hparams.query == "sequence"
        self.query_model = SequenceQueryModel(splits, hparams) if is_sequence else QueryModel(splits, hparams)
        self.movie_model = MovieModel(splits, hparams)
        self.candidate_model = CandidateModel(hparams)
        self.user_model = UserModel(splits, hparams.rating)
        self._rating_dropout = PersonDropout(hparams.rating)
        self.weighting = UncertaintyWeighting() if hparams.weighting == "uncertainty" else None

    def encode_movies(self, movies: Tensors) -> tuple[tf.Tensor, tf.Tensor]:
        table = self.movie_model(movies)
        return table, self.candidate_model(table)

    def ratings(self, features: Tensors) -> tf.Tensor:
        """Predicted ratings, 1 to 5: float32 [batch_size]."""
        if not self._hparams.shared:
            return self.user_model.ratings(features)
        movies = self.movie_vectors()
        encoded = Encoded(self.queries(features, movies), movies.candidates, features[transformed_name(MOVIE_ID)])
        return self.user_model.ratings(features, self._match(encoded))

    def freeze(self) -> None:
        super().freeze()
        self._frozen_parts = self.user_model.frozen(self.catalogue.features)

    def ratings_of(self, features: Tensors, movies: tf.Tensor, queries: tf.Tensor) -> tf.Tensor:
        """Predicted ratings of each person for their movies; call `freeze` first.

        Args:
          features: transformed features of people, [batch_size, ...] by name.
          movies: int32 [batch_size, movies], movie indices.
          queries: float32 [batch_size, dim], from `queries`.

        Returns:
          float32 [batch_size, movies], 1 to 5.
        """
        match = None
        if self._hparams.shared:
            affinity = tf.linalg.matvec(tf.gather(self.movie_vectors().candidates, movies), queries)
            match = Match(affinity, queries if self._hparams.shared_state else None)
        return self.user_model.ratings_of_frozen(features, self._frozen_parts, movies, match)

    def _match(self, encoded: Encoded) -> Match:
        """What the rating tower reads of the towers: how well each row's query and movie match, and the query.

        Gradients stop at the dot product, so that the rating loss does not train the towers by it. Those of the query's
        vector go on, in the share that is configured.
        """
        affinity = tf.stop_gradient(tf.reduce_sum(encoded.queries * encoded.own_candidates(), axis=1, keepdims=True))
        if not self._hparams.shared_state:
            return Match(affinity)
        # Each of the rating towers has a loss of its own.
        share = self._hparams.state_gradient / self._hparams.rating.towers
        state = share * encoded.queries + (1.0 - share) * tf.stop_gradient(encoded.queries)
        return Match(affinity, state)

    def compute_loss(self, inputs: Tensors, training: bool = False) -> tf.Tensor:
        """Weighted sum of the mean cross-entropy (nats) and the experts' mean squared errors (stars squared)."""
        count = tf.size(inputs[transformed_name(MOVIE_ID)])
        hidden = self._rating_dropout.hidden(count) if training else {}
        # A query's vector would tell the rating tower what is hidden from it.
        batch = self.encode_batch(inputs, training, hidden if self._hparams.shared_state else None)
        retrieval = batch.weight_of_positives * self.retrieval_loss(batch.rows, batch.encoded)
        match = self._match(batch.encoded) if self._hparams.shared else None
        hidden = {part: tf.gather(rows, batch.places) for part, rows in hidden.items()}
        rows = self._rating_dropout.without(batch.rows, hidden)
        rating = batch.weight * self.user_model.loss(rows, match, training)
        if self.weighting is not None:
            return self.weighting(retrieval, rating)
        return self._hparams.retrieval_weight * retrieval + self._hparams.rating_weight * rating


SPEC = training.ModelSpec("joint", JointHyperparameters, MovielensModel, FilteredRecall, (RetrievalHead, RatingHead))


def spec(hparams: JointHyperparameters) -> training.ModelSpec[JointHyperparameters]:
    """`SPEC`, whatever the hyper-parameters."""
    del hparams
    return SPEC


def run_fn(fn_args: FnArgs) -> None:
    """Trains and exports the joint model; called by the Trainer component."""
    training.run(fn_args, SPEC)


def tuner_fn(fn_args: FnArgs) -> TunerFnResult:
    """Looks for hyper-parameters of the joint model; called by the Tuner component."""
    return tuning.tuner(fn_args, SPEC)
