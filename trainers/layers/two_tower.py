"""The base class of the retriever and the joint model, with the scores of all movies and the retrieval loss."""

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
    """The towers' vectors for a batch.

    Attributes:
      queries: float32 [batch_size, dim].
      candidates: float32 [movies, dim], for the whole catalogue or for the batch's movies only.
      places: int32 [batch_size], index of each row's movie in `candidates`.
    """

    queries: tf.Tensor
    candidates: tf.Tensor
    places: tf.Tensor

    def own_candidates(self) -> tf.Tensor:
        """The candidate vector of each row's movie: float32 [batch_size, dim]."""
        return tf.gather(self.candidates, self.places)


class TwoTowerModel(tfrs.Model):
    """Scores a movie by the dot product of the query's and the movie's vector, plus a bias of the movie."""

    def __init__(self, splits: Splits, hparams: RetrievalHyperparameters):
        """Makes the catalogue and the movies' biases.

        Args:
          splits: the splits to train on.
          hparams: hyper-parameters of retrieval.

        Raises:
          ValueError: only liked movies are to be retrieved, and the train split has none.
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
        """Computes queries [batch_size, dim] and candidates [movies, dim]; subclasses define it.

        Args:
          features: transformed features of a batch; the movies of its histories are row numbers in `movies`.
          movies: the movies' transformed features, [movies, ...] by name; row 0 is padding.
          training: whether to drop hidden units and user ids.
        """
        raise NotImplementedError

    def scores(self, features: Tensors, training: bool = False) -> tf.Tensor:
        """Scores all movies: float32 [batch_size, movie indices]; -inf for padding and unknown movies."""
        queries, candidates = self.vectors(features, self.catalogue.features, training)
        products = tf.matmul(queries / self._temperature, candidates, transpose_b=True)
        return products + self.catalogue.mask(self._movie_bias)

    def encode(self, inputs: Tensors, training: bool) -> Encoded:
        """Runs the towers on a batch. Candidates are the batch's movies for an in-batch loss, else the catalogue."""
        movies = self.catalogue.features
        if self._in_batch is not None:
            inputs, movies = self.catalogue.of_batch(inputs)
        return Encoded(*self.vectors(inputs, movies, training), inputs[transformed_name(MOVIE_ID)])

    def retrieval_loss(self, inputs: Tensors, encoded: Encoded) -> tf.Tensor:
        """Computes the mean cross-entropy of the rated movies that count as positives, in nats: float32 [].

        Args:
          inputs: transformed features of a batch.
          encoded: the result of `encode` for this batch.
        """
        movies = inputs[transformed_name(MOVIE_ID)]
        if self._in_batch is None:
            biases = self.catalogue.mask(self._movie_bias)
            losses = softmax_cross_entropies(encoded.queries / self._temperature, encoded.candidates, biases, movies)
        else:
            biases = tf.gather(self._movie_bias, movies)
            losses = self._in_batch.losses(encoded.queries, encoded.own_candidates(), biases, movies)
        return mean_over_positives(losses, inputs, self._positives)
