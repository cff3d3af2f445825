"""The base class of the retriever and the joint model, with the scores of all movies and the retrieval loss."""

from dataclasses import dataclass
from typing import NamedTuple

import tensorflow as tf
import tensorflow_recommenders as tfrs

from trainers import baselines
from trainers.datasets import Arrays, Splits
from trainers.hyperparameters import RetrievalHyperparameters
from trainers.layers.gradients import softmax_cross_entropies
from trainers.layers.person_dropout import PersonDropout
from trainers.layers.retrieval_loss import InBatchSoftmax, mean_over_positives
from trainers.layers.sequence_tower import IS_TARGET, SequenceQueryTower, rows_of, windows
from trainers.layers.towers import Catalogue, QueryTower, Tensors
from trainers.layers.weights import with_vocabulary
from trainers.likes import is_liked
from transform.features import LABEL, MOVIE_ID, transformed_name


class MovieVectors(NamedTuple):
    """What the towers know of each movie; it depends on no query, so that an exported model has it as constants.

    Attributes:
      table: float32 [movies, dim], the vectors of which histories are made.
      history_logits: float32 [movies, heads], how much attention a movie of a history gets.
      candidates: float32 [movies, dim], the vectors that queries are compared with.
    """

    table: tf.Tensor
    history_logits: tf.Tensor
    candidates: tf.Tensor


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
    """Scores a movie by the dot product of the query's and the movie's vector, plus a bias of the movie.

    Attributes:
      query_model: the query tower, which subclasses set.
    """

    query_model: QueryTower | SequenceQueryTower

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
        self._any_candidate = int(splits.movies[transformed_name(MOVIE_ID)][0])
        self.person_dropout = PersonDropout(hparams)
        self._temperature, self._positives = hparams.temperature, hparams.positives
        log_popularity = baselines.log_popularity(splits)
        self._movie_bias = with_vocabulary(tf.Variable(log_popularity, name="movie_bias"), MOVIE_ID)
        self._in_batch = InBatchSoftmax(hparams, log_popularity) if hparams.loss == "in_batch" else None
        self.frozen: MovieVectors | None = None

    def freeze(self) -> None:
        """Encodes the catalogue once and for all; call it when the model's training has ended."""
        self.frozen = MovieVectors(*(tf.Variable(values, trainable=False) for values in self.movie_vectors()))

    def encode_movies(self, movies: Tensors) -> tuple[tf.Tensor, tf.Tensor]:
        """Computes `table` and `candidates` of `MovieVectors`; subclasses define it.

        Args:
          movies: the movies' transformed features, [movies, ...] by name; row 0 is padding.
        """
        raise NotImplementedError

    def movie_vectors(self, movies: Tensors | None = None) -> MovieVectors:
        """Encodes movies, by default the whole catalogue.

        Args:
          movies: as for `encode_movies`.
        """
        if movies is None and self.frozen is not None:
            return self.frozen
        table, candidates = self.encode_movies(self.catalogue.features if movies is None else movies)
        return MovieVectors(table, self.query_model.history_logits(table), candidates)

    def queries(self, features: Tensors, movies: MovieVectors, training: bool = False) -> tf.Tensor:
        """Computes the vector of each query: float32 [batch_size, dim].

        Args:
          features: transformed features of a batch; the movies of its histories are row numbers in `movies`.
          movies: the encoded movies.
          training: whether to drop hidden units.
        """
        return self.query_model(features, movies.table, movies.history_logits, training=training)

    def scores_of(self, queries: tf.Tensor, movies: MovieVectors) -> tf.Tensor:
        """Scores all movies for each query: float32 [batch_size, movie indices]; -inf for what is no movie."""
        products = tf.matmul(queries / self._temperature, movies.candidates, transpose_b=True)
        return products + self.catalogue.mask(self._movie_bias)

    def scores(self, features: Tensors) -> tf.Tensor:
        """Scores all movies: float32 [batch_size, movie indices]; -inf for padding and unknown movies."""
        movies = self.movie_vectors()
        return self.scores_of(self.queries(features, movies), movies)

    def encode(self, inputs: Tensors, training: bool) -> Encoded:
        """Runs the towers on a batch. Candidates are the batch's movies for an in-batch loss, else the catalogue."""
        features = None
        if self._in_batch is not None:
            inputs, features = self.catalogue.of_batch(inputs)
        movies = self.movie_vectors(features)
        return Encoded(self.queries(inputs, movies, training), movies.candidates, inputs[transformed_name(MOVIE_ID)])

    def windows_of(self, train: Arrays, size: int) -> Arrays:
        """Windows of train rows, as `sequence_tower.windows` makes them."""
        made = windows(train, size)
        self._rows_in_window = float(made[IS_TARGET].sum(axis=1).mean())
        return made

    def loss_of_windows(self, inputs: Tensors, training: bool) -> tf.Tensor:
        """Computes the retrieval loss of the rows of windows, for a query tower that reads sequences: float32 [].

        It is their sum by the number of windows and the average number of rows in one. A mean over the rows would
        weigh them differently where a batch is divided, as every part counts by its share of the windows.

        Args:
          inputs: a batch of what `windows_of` makes.
          training: whether to hide parts of what is known of a person.
        """
        rows = rows_of(inputs)
        hidden = self.person_dropout.hidden(tf.size(rows[transformed_name(MOVIE_ID)])) if training else {}
        known = self.person_dropout.without(rows, hidden)
        renumbered, features = inputs, None
        if self._in_batch is not None:
            renumbered, features = self.catalogue.of_batch(inputs)
        movies = self.movie_vectors(features)
        queries = self.query_model.of_windows(renumbered, known, hidden.get("history"), movies.table, training)
        places = tf.where(tf.reshape(inputs[IS_TARGET], [-1]))[:, 0]
        own = tf.reshape(renumbered[transformed_name(MOVIE_ID)], [-1])
        encoded = Encoded(tf.gather(queries, places), movies.candidates, tf.gather(own, places))
        mean = self.retrieval_loss({name: tf.gather(values, places) for name, values in rows.items()}, encoded)
        average = tf.cast(tf.shape(inputs[IS_TARGET])[0], tf.float32) * self._rows_in_window
        return mean * tf.cast(tf.size(places), tf.float32) / average

    def retrieval_loss(self, inputs: Tensors, encoded: Encoded) -> tf.Tensor:
        """Computes the mean cross-entropy of the rated movies that count as positives, in nats: float32 [].

        Args:
          inputs: transformed features of a batch.
          encoded: the result of `encode` for this batch.
        """
        movies = inputs[transformed_name(MOVIE_ID)]
        # A movie that the catalogue lost is in histories still, but is no candidate, and so not to be found.
        can_be_found = tf.gather(self.catalogue.candidates, movies)
        if self._in_batch is None:
            biases = self.catalogue.mask(self._movie_bias)
            # Any candidate stands for a movie that is none, whose loss would be infinite, and does not count.
            targets = tf.where(can_be_found, movies, self._any_candidate)
            losses = softmax_cross_entropies(encoded.queries / self._temperature, encoded.candidates, biases, targets)
        else:
            biases = tf.gather(self._movie_bias, movies)
            losses = self._in_batch.losses(encoded.queries, encoded.own_candidates(), biases, movies)
        return mean_over_positives(losses, inputs, self._positives, can_be_found)
