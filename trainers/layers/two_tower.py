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
from trainers.layers.sequence_tower import SequenceQueryTower
from trainers.layers.towers import HISTORY_READ, Catalogue, QueryTower, Tensors
from trainers.layers.weights import with_vocabulary
from trainers.layers.windows import EVENT, IS_TARGET, rows_of, windows, without_times
from trainers.likes import is_liked
from transform.features import HISTORY_MOVIES, LABEL, MOVIE_ID, transformed_name

_NEVER = -1e9  # As the logit of a movie, makes it impossible, and keeps all gradients finite.


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


@dataclass(frozen=True)
class Batch:
    """The train rows of a batch, and the towers' vectors for them.

    Attributes:
      rows: transformed features, [rows, ...] by name; only times of ratings may be hidden.
      places: int32 [rows], which of the batch's rows these are, padding counted.
      encoded: the vectors.
      weight: of the mean loss of these rows, float32 []. Windows differ in their number of rows, and every part of a
        batch counts by its share of the windows, so it is the rows' number by the average number of so many windows.
      weight_of_positives: likewise, of the mean loss of the rows that count as positives.
    """

    rows: Tensors
    places: tf.Tensor
    encoded: Encoded
    weight: tf.Tensor
    weight_of_positives: tf.Tensor


class TwoTowerModel(tfrs.Model):
    """Scores a movie by the dot product of the query's and the movie's vector, plus a bias of the movie.

    Attributes:
      query_model: the query tower, which subclasses set.
      alike_after: seconds after somebody's latest rating from which on all moments of asking are alike; None if they
        never are.
      reads_whole_rows: whether the model reads more features of train rows than the towers do.
    """

    query_model: QueryTower | SequenceQueryTower
    reads_whole_rows = False

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
        self._is_sequence = hparams.query == "sequence"
        self.alike_after = hparams.session if self._is_sequence else None
        self._times_dropout = hparams.times_dropout
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

    def read_histories(self, features: Tensors) -> Tensors:
        """Reads histories, once for several queries that differ in the moment or in who asks.

        Args:
          features: transformed features of the role history.

        Returns:
          `HISTORY_READ`, float32 [batch_size, ...], which goes with the features to `queries`. It is 0 where there is
          no history, or does not count there.
        """
        movies = self.movie_vectors()
        return {HISTORY_READ: self.query_model.read(features, movies.table, movies.history_logits)}

    def queries(self, features: Tensors, movies: MovieVectors, training: bool = False) -> tf.Tensor:
        """Computes the vector of each query: float32 [batch_size, dim].

        Args:
          features: transformed features of a batch; the movies of its histories are row numbers in `movies`. If it has
            `HISTORY_READ`, histories are not read again.
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
            inputs, features = self.catalogue.of_batch(inputs, transformed_name(HISTORY_MOVIES))
        movies = self.movie_vectors(features)
        return Encoded(self.queries(inputs, movies, training), movies.candidates, inputs[transformed_name(MOVIE_ID)])

    def training_elements(self, train: Arrays) -> Arrays:
        """What batches are made of: train rows or, for a query tower that reads sequences, windows of them."""
        if not self._is_sequence:
            return train
        made = windows(train, self.reads_whole_rows)
        liked = made[IS_TARGET] & is_liked(made[transformed_name(LABEL)])
        self._rows_in_window, self._liked_in_window = (
            float(each.sum(axis=1).mean()) for each in (made[IS_TARGET], liked)
        )
        return made

    def encode_batch(self, inputs: Tensors, training: bool, also_hidden: dict[str, tf.Tensor] | None = None) -> Batch:
        """Runs the towers on a batch of what `training_elements` makes.

        Args:
          inputs: the batch.
          training: whether to hide parts of what is known of a person, and to drop hidden units.
          also_hidden: what is hidden in any case, as from `PersonDropout.hidden`, of all rows, padding counted.
        """
        count = tf.size(inputs[transformed_name(MOVIE_ID)])
        hidden = self.person_dropout.hidden(count) if training else {}
        for part, rows in (also_hidden or {}).items():
            hidden[part] = hidden[part] | rows if part in hidden else rows
        if IS_TARGET in inputs:
            return self._encode_windows(inputs, hidden, training)
        encoded = self.encode(self.person_dropout.without(inputs, hidden), training)
        one = tf.constant(1.0)
        return Batch(inputs, tf.range(count), encoded, one, one)

    def _encode_windows(self, inputs: Tensors, hidden: dict[str, tf.Tensor], training: bool) -> Batch:
        if training and self._times_dropout:
            hidden_times = tf.random.uniform(tf.shape(inputs[IS_TARGET])[:1]) < self._times_dropout
            inputs = without_times(inputs, hidden_times)
        rows = rows_of(inputs)
        known = self.person_dropout.without(rows, hidden)
        renumbered, features = inputs, None
        if self._in_batch is not None:
            renumbered, features = self.catalogue.of_batch(inputs, EVENT[0])
        movies = self.movie_vectors(features)
        queries = self.query_model.of_windows(renumbered, known, hidden.get("history"), movies.table, training)
        places = tf.where(tf.reshape(inputs[IS_TARGET], [-1]))[:, 0]
        rows = {name: tf.gather(values, places) for name, values in rows.items()}
        own = tf.reshape(renumbered[transformed_name(MOVIE_ID)], [-1])
        encoded = Encoded(queries, movies.candidates, tf.gather(own, places))
        count = tf.cast(tf.shape(inputs[IS_TARGET])[0], tf.float32)
        weight = tf.cast(tf.size(places), tf.float32) / (count * self._rows_in_window)
        weight_of_positives = weight
        if self._positives == "liked":
            liked = tf.reduce_sum(tf.cast(is_liked(rows[transformed_name(LABEL)]), tf.float32))
            weight_of_positives = liked / (count * self._liked_in_window)
        return Batch(rows, places, encoded, weight, weight_of_positives)

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
            # What can not be found is no negative of other rows.
            biases = tf.where(can_be_found, tf.gather(self._movie_bias, movies), _NEVER)
            losses = self._in_batch.losses(encoded.queries, encoded.own_candidates(), biases, movies)
        return mean_over_positives(losses, inputs, self._positives, can_be_found)
