"""What the retriever and the joint model have in common: scores of all movies, and the loss of retrieval."""

from dataclasses import dataclass

import tensorflow as tf
import tensorflow_recommenders as tfrs

from trainers import baselines
from trainers.datasets import Splits
from trainers.hyperparameters import RetrievalHyperparameters
from trainers.layers.gradients import softmax_cross_entropies
from trainers.layers.retrieval_loss import InBatchSoftmax, mean_over_positives
from trainers.layers.towers import Catalogue, Tensors
from trainers.layers.weights import with_vocabulary
from trainers.likes import is_liked
from transform.features import LABEL, MOVIE_ID, transformed_name


@dataclass(frozen=True)
class Encoded:
    """What the towers make of a batch.

    Attributes:
      queries: float32 [batch_size, dim].
      candidates: float32 [movies, dim], of the whole catalogue or of the batch's movies.
      places: int32 [batch_size], row of each row's movie among the candidates.
    """

    queries: tf.Tensor
    candidates: tf.Tensor
    places: tf.Tensor

    def own_candidates(self) -> tf.Tensor:
        """The vector of each row's movie: float32 [batch_size, dim]."""
        return tf.gather(self.candidates, self.places)


class TwoTowerModel(tfrs.Model):
    """Scores movies by the product of a query's and a candidate's vector, and a bias for each movie."""

    def __init__(self, splits: Splits, hparams: RetrievalHyperparameters):
        """Makes the catalogue and the movies' biases.

        Raises:
          ValueError: nothing is to be retrieved in the train split.
        """
        super().__init__()
        if hparams.positives == "liked" and not is_liked(splits.train[transformed_name(LABEL)]).any():
            raise ValueError("The split 'train' should have ratings of 4 stars or more; received none.")
        self.catalogue = Catalogue(splits)
        self._temperature, self._positives = hparams.temperature, hparams.positives
        log_popularity = baselines.log_popularity(splits)
        self._movie_bias = with_vocabulary(tf.Variable(log_popularity, name="movie_bias"), MOVIE_ID)
        self._in_batch = InBatchSoftmax(hparams, log_popularity) if hparams.loss == "in_batch" else None

    def vectors(self, features: Tensors, movies: Tensors, training: bool = False) -> tuple[tf.Tensor, tf.Tensor]:
        """Queries [batch_size, dim] and candidates [movies, dim]; for subclasses to define.

        Args:
          features: transformed features, whose histories name rows of `movies`.
          movies: the movies' transformed features, [movies, ...] by name; row 0 is padding.
          training: whether units and ids are dropped.
        """
        raise NotImplementedError

    def scores(self, features: Tensors, training: bool = False) -> tf.Tensor:
        """Scores of all movies: float32 [batch_size, movie indices], -inf for what is no movie."""
        queries, candidates = self.vectors(features, self.catalogue.features, training)
        products = tf.matmul(queries / self._temperature, candidates, transpose_b=True)
        return products + self.catalogue.mask(self._movie_bias)

    def encode(self, inputs: Tensors, training: bool) -> Encoded:
        """Runs the towers on a batch, for as many movies as the loss compares."""
        movies = self.catalogue.features
        if self._in_batch is not None:
            inputs, movies = self.catalogue.of_batch(inputs)
        return Encoded(*self.vectors(inputs, movies, training), inputs[transformed_name(MOVIE_ID)])

    def retrieval_loss(self, inputs: Tensors, encoded: Encoded) -> tf.Tensor:
        """Mean cross-entropy of the rated movies that count as positives, in nats."""
        movies = inputs[transformed_name(MOVIE_ID)]
        if self._in_batch is None:
            biases = self.catalogue.mask(self._movie_bias)
            losses = softmax_cross_entropies(encoded.queries / self._temperature, encoded.candidates, biases, movies)
        else:
            biases = tf.gather(self._movie_bias, movies)
            losses = self._in_batch.losses(encoded.queries, encoded.own_candidates(), biases, movies)
        return mean_over_positives(losses, inputs, self._positives)
