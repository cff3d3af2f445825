"""Layers that encode transformed features as vectors; all models are built from them."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from trainers.datasets import Splits
from trainers.hyperparameters import RetrievalHyperparameters
from trainers.layers.gradients import lookup
from trainers.layers.products import batch_product
from trainers.layers.weights import with_vocabulary
from transform.features import (
    HISTORY_MOVIES,
    HISTORY_RATINGS,
    INDICES,
    LABEL,
    MOVIE_ID,
    USER_ID,
    VOCABULARY_INDICES,
    Column,
    Kind,
    Role,
    columns,
    transformed_name,
)

RATING_LEVELS = 6  # no rating, and one to five stars

# Among features, what a query tower has read of histories.
HISTORY_READ = "history_read"

Tensors = dict[str, tf.Tensor]


class FeatureEncoder(tf.keras.layers.Layer):
    """Sums one vector for each feature of the given roles, like a linear layer over their one-hot encodings.

    Call arguments:
      features: transformed features, [batch_size, ...] by name.

    Returns:
      float32 [batch_size, dim].
    """

    def __init__(self, splits: Splits, roles: tuple[Role, ...], dim: int, l2: float, without: tuple[str, ...] = ()):
        """Makes the embedding tables.

        Args:
          splits: the splits to train on, which have the features and the sizes of their vocabularies.
          roles: roles of the features to encode.
          dim: width of the vectors.
          l2: L2 penalty on the embeddings, see `embedding`.
          without: raw names of the features to leave out.
        """
        super().__init__()
        encoded = [column for column in columns(*roles, among=splits.train) if column.feature.name not in without]
        self._columns = [column for column in encoded if column.kind in INDICES]
        self._tables = {
            column.name: embedding(
                splits.index_count(column),
                dim,
                l2,
                vocabulary=column.feature.name if column.kind in VOCABULARY_INDICES else None,
            )
            for column in self._columns
        }
        self._numbers = [column.name for column in encoded if column.kind is Kind.NORMALIZED]
        self._dense = tf.keras.layers.Dense(dim, use_bias=False) if self._numbers else None

    def call(self, features: Tensors) -> tf.Tensor:
        vectors = [self._encode(column, features) for column in self._columns]
        if self._dense is not None:
            vectors.append(self._dense(tf.stack([features[name] for name in self._numbers], axis=1)))
        # tf.add_n would begin with an input that nothing else still reads. Which one that is depends on how far the
        # L2 penalties, which read the same vectors, have been computed, and so the sum would differ in its last bits
        # from run to run.
        return tf.reduce_sum(tf.stack(vectors), axis=0)

    def _encode(self, column: Column, features: Tensors) -> tf.Tensor:
        values, table = features[column.name], self._tables[column.name]
        if column.kind is Kind.TOKENS:
            present = tf.cast(values > 0, tf.float32)[..., tf.newaxis]
            return tf.math.divide_no_nan(
                tf.reduce_sum(table(values) * present, axis=1), tf.sqrt(tf.reduce_sum(present, axis=1))
            )
        if column.kind is Kind.MULTI_HOT:
            hot = tf.cast(values, tf.float32)
            # Looking up every index returns the whole table, [width + 2, dim].
            weights = table(tf.range(values.shape[1]))
            return tf.math.divide_no_nan(hot @ weights, tf.sqrt(tf.reduce_sum(hot, axis=1, keepdims=True)))
        return table(known_or_missing(values, table) if column.kind is Kind.CATEGORY else values)


class Table(tf.keras.layers.Embedding):
    """An embedding table whose weight is marked with the feature whose vocabulary its rows belong to."""

    def __init__(self, size: int, dim: int, vocabulary: str | None, **arguments: Any):
        """Makes a table.

        Args:
          size: number of rows.
          dim: width of a row.
          vocabulary: raw name of the feature; None if the rows belong to no vocabulary.
          **arguments: other arguments of Keras's Embedding.
        """
        super().__init__(size, dim, **arguments)
        self._vocabulary = vocabulary

    def build(self, input_shape: tf.TensorShape | None = None) -> None:
        super().build(input_shape)
        with_vocabulary(self.embeddings, self._vocabulary)

    def call(self, indices: tf.Tensor) -> tf.Tensor:
        return lookup(self.embeddings, indices)


def known_or_missing(indices: tf.Tensor, table: Table) -> tf.Tensor:
    """Replaces the last index, which stands for words that are not in the vocabulary, by 0, which stands for missing.

    No train row has a word that is not in the vocabulary of train rows, so that the last row of a table learns nothing.

    Args:
      indices: int32, indices of a feature of the kind CATEGORY.
      table: the table of the feature's vocabulary.
    """
    return tf.where(indices < table.input_dim - 1, indices, 0)


def user_vectors(table: Table, users: tf.Tensor, id_dropout: float) -> tf.Tensor:
    """The vectors of users, float32 [batch_size, dim]; 0 for those not seen in training, and for all if ids are unused.

    Args:
      table: the table of users.
      users: int32 [batch_size], user indices.
      id_dropout: share of train rows in which the id is hidden.
    """
    known = (users > 0) & (users < table.input_dim - 1)
    if id_dropout == 1:
        known = tf.zeros_like(known)
    return table(users) * tf.cast(known, tf.float32)[:, tf.newaxis]


def embedding(
    size: int,
    dim: int,
    l2: float,
    initial: float = 0.05,
    values: np.ndarray | None = None,
    vocabulary: str | None = None,
) -> Table:
    """Makes an embedding table with an L2 penalty on the rows that a batch looks up.

    Each row is penalised as often as it occurs in the batch.

    Args:
      size: number of rows.
      dim: width of a row.
      l2: the L2 penalty.
      initial: standard deviation of the random initial values.
      values: initial values, [size, dim]; None for random ones.
      vocabulary: raw name of the feature for each of whose vocabulary indices the table has a row; None for no
        vocabulary.
    """
    if values is None:
        initializer = tf.keras.initializers.RandomNormal(stddev=initial)
    else:
        initializer = tf.keras.initializers.Constant(values)
    return Table(
        size,
        dim,
        vocabulary,
        embeddings_initializer=initializer,
        activity_regularizer=tf.keras.regularizers.L2(l2) if l2 else None,
    )


def table_penalty(layers: Sequence[tf.keras.layers.Layer], table_l2: float, splits: Splits) -> tf.Tensor:
    """Computes an L2 penalty on whole embedding tables, the same for rare and for frequent values: float32 [].

    Args:
      layers: the layers whose tables are penalised.
      table_l2: the penalty, in ratings: it is divided by the number of train ratings and multiplies the sum of squares.
      splits: the splits that the model is trained on.
    """
    tables = [weight for layer in layers for weight in layer.trainable_weights if len(weight.shape) == 2]
    squares = tf.add_n([tf.reduce_sum(tf.square(table)) for table in tables])
    return table_l2 / len(splits.train[transformed_name(LABEL)]) * squares


class HistoryEncoder(tf.keras.layers.Layer):
    """Pools the events of a history, that is, the movies that a user rated before.

    Each event has a vector and, for each attention head, a logit. Both are sums of three parts: one for the event's
    movie, one for its rating and one for its position in the history. Since the movie's part depends on nothing else,
    it is computed once per movie, not once per event. The output concatenates the mean of the events, one
    attention-weighted mean for each head, and the vectors of the latest `recent` events.

    Call arguments:
      features: transformed features with the history, newest event first.
      table: float32 [movie indices, dim], one vector for each movie.
      movie_logits: float32 [movie indices, heads], from `movie_logits(table)`; computed here if None.
      training: whether gradients are needed.

    Returns:
      float32 [batch_size, (1 + heads + recent) * dim].
    """

    def __init__(self, length: int, dim: int, recent: int, heads: int = 2):
        """Makes the parts for ratings and positions.

        Args:
          length: number of events in a padded history.
          dim: width of the vectors.
          recent: number of latest events whose vectors are part of the output.
          heads: number of attention heads.
        """
        super().__init__()
        self._recent = recent
        self._ratings, self._rating_logits = (embedding(RATING_LEVELS, width, 0.0) for width in (dim, heads))
        self._places, self._place_logits = (embedding(length, width, 0.0) for width in (dim, heads))
        self._movie_logits = tf.keras.Sequential(
            [tf.keras.layers.Dense(dim, activation="tanh"), tf.keras.layers.Dense(heads)]
        )

    def movie_logits(self, table: tf.Tensor) -> tf.Tensor:
        """Computes the movies' part of the attention logits, which depends on nothing else: [movie indices, heads]."""
        return self._movie_logits(table)

    def call(
        self, features: Tensors, table: tf.Tensor, movie_logits: tf.Tensor | None = None, training: bool = False
    ) -> tf.Tensor:
        movies, ratings = features[transformed_name(HISTORY_MOVIES)], features[transformed_name(HISTORY_RATINGS)]
        if movie_logits is None:
            movie_logits = self.movie_logits(table)
        length = movies.shape[1]
        present = tf.cast(movies > 0, tf.float32)
        # One-hot rows instead of lookups: the tables have few rows, which many events share, and there the gradient of
        # a matrix product is much faster than that of a lookup.
        levels = tf.one_hot(tf.cast(tf.round(ratings), tf.int32), RATING_LEVELS)
        level_vectors, level_logits = (layer(tf.range(RATING_LEVELS)) for layer in (self._ratings, self._rating_logits))
        place_vectors, place_logits = (layer(tf.range(length)) for layer in (self._places, self._place_logits))

        logits = lookup(movie_logits, movies) + tf.tensordot(levels, level_logits, 1) + place_logits
        logits += ((present - 1.0) * 1e9)[..., tf.newaxis]
        # A softmax over the events, which is 0 everywhere if there is none.
        shares = tf.exp(logits - tf.reduce_max(logits, axis=1, keepdims=True)) * present[..., tf.newaxis]
        attention = tf.math.divide_no_nan(shares, tf.reduce_sum(shares, axis=1, keepdims=True))
        mean = tf.math.divide_no_nan(present, tf.reduce_sum(present, axis=1, keepdims=True))
        weights = tf.concat([mean[:, tf.newaxis], tf.transpose(attention, [0, 2, 1])], axis=1)

        # Movies, ratings and positions are pooled separately, so that only the movies' vectors take up memory for every
        # event, [batch_size, length, dim].
        pooled = batch_product(weights, lookup(table, movies), training=training)
        pooled += tf.tensordot(batch_product(weights, levels, training=training), level_vectors, 1)
        pooled += tf.tensordot(weights, place_vectors, 1)
        recent = min(self._recent, length)
        # The latest movies are looked up again, because the gradient of a slice of the first lookup would be padded
        # with zeros to the whole length.
        latest = (
            lookup(table, movies[:, :recent])
            + tf.tensordot(levels[:, :recent], level_vectors, 1)
            + place_vectors[:recent]
        )
        latest *= present[:, :recent, tf.newaxis]
        latest = tf.pad(latest, [[0, 0], [0, self._recent - recent], [0, 0]])
        return tf.concat([_flatten(pooled), _flatten(latest)], axis=1)


def _flatten(x: tf.Tensor) -> tf.Tensor:
    # The number of rows is explicit because tf.reshape cannot infer it from -1 if a row has no values (recent is 0).
    return tf.reshape(x, [tf.shape(x)[0], x.shape[1] * x.shape[2]])


class MLP(tf.keras.layers.Layer):
    """Hidden layers with ReLU and dropout, and optionally a bound on the weights' norms.

    Attributes:
      first: the first of the dense layers.

    Call arguments:
      x: float32 [batch_size, width], of any width.

    Returns:
      float32 [batch_size, units[-1]], or x if `units` is empty.
    """

    def __init__(self, units: list[int], dropout: float, max_norm: float | None = None):
        super().__init__()
        constraint = tf.keras.constraints.MaxNorm(max_norm) if max_norm else None
        self._layers = []
        for width in units:
            self._layers.append(tf.keras.layers.Dense(width, activation="relu", kernel_constraint=constraint))
            self._layers.append(tf.keras.layers.Dropout(dropout))

    @property
    def first(self) -> tf.keras.layers.Dense:
        return self._layers[0]

    def call(self, x: tf.Tensor, training: bool = False) -> tf.Tensor:
        for layer in self._layers:
            x = layer(x, training=training)
        return x

    def behind_first(self, products: tf.Tensor) -> tf.Tensor:
        """The output, given that of the first dense layer before its activation; without dropout."""
        x = tf.nn.relu(products)
        for layer in self._layers[1:]:
            x = layer(x)
        return x


class QueryTower(tf.keras.layers.Layer):
    """Encodes a user at a moment: who they are, what time it is and what they rated before.

    Users who are not in the train split have 0 in place of the user id's vector; if `id_dropout` is 1, everybody has.

    Call arguments:
      features: transformed features of the roles user, context and history; with `HISTORY_READ`, the history is not
        read again.
      table: float32 [movie indices, dim], one vector for each movie of the history.
      movie_logits: as for `HistoryEncoder`, from `history_logits(table)`; computed here if None.

    Returns:
      float32 [batch_size, dim].
    """

    def __init__(self, splits: Splits, hparams: RetrievalHyperparameters):
        super().__init__()
        dim = hparams.embedding_dim
        length = splits.train[transformed_name(HISTORY_MOVIES)].shape[1]
        self._person = FeatureEncoder(splits, (Role.USER, Role.CONTEXT), dim, hparams.l2, without=(USER_ID,))
        self._id_dropout = hparams.id_dropout
        self._ids = embedding(splits.size(USER_ID), dim, hparams.l2, initial=0.01, vocabulary=USER_ID)
        self._history = HistoryEncoder(length, dim, hparams.recent_movies)
        self._mlp = MLP(hparams.hidden_units, hparams.dropout)
        self._output = tf.keras.layers.Dense(dim)

    def history_logits(self, table: tf.Tensor) -> tf.Tensor:
        """Computes what histories need to know of every movie beside its vector: float32 [movie indices, heads]."""
        return self._history.movie_logits(table)

    def read(self, features: Tensors, table: tf.Tensor, movie_logits: tf.Tensor | None = None) -> tf.Tensor:
        """What is read of histories, which depends on nothing else: float32 [batch_size, width].

        Arguments are as for a call.
        """
        return self._history(features, table, movie_logits)

    def call(
        self, features: Tensors, table: tf.Tensor, movie_logits: tf.Tensor | None = None, training: bool = False
    ) -> tf.Tensor:
        history = features.get(HISTORY_READ)
        if history is None:
            history = self._history(features, table, movie_logits, training=training)
        parts = [self._person(features), history, self._user(features)]
        return self._output(self._mlp(tf.concat(parts, axis=1), training=training))

    def _user(self, features: Tensors) -> tf.Tensor:
        return user_vectors(self._ids, features[transformed_name(USER_ID)], self._id_dropout)


class Catalogue(tf.Module):
    """The transformed features of every movie, by movie index; those of padding and unknown movies are 0.

    A movie that people rated may have gone from the catalogue since. It is no candidate, but histories hold it.

    Attributes:
      features: [movie indices, ...] by name, not trained.
      candidates: bool [movie indices], whether an index belongs to a movie of the catalogue.
    """

    def __init__(self, splits: Splits):
        super().__init__()
        index = splits.movies[transformed_name(MOVIE_ID)]
        rated, rows = np.unique(splits.train[transformed_name(MOVIE_ID)], return_index=True)
        self.features: Tensors = {}
        for name in (column.name for column in columns(Role.MOVIE, among=splits.movies)):
            values = splits.movies[name]
            table = np.zeros((splits.movie_size, *values.shape[1:]), values.dtype)
            if name in splits.train:
                table[rated] = splits.train[name][rows]
            table[index] = values
            # What is no movie has no features.
            table[[0, -1]] = 0
            self.features[name] = tf.Variable(table, trainable=False, name=f"catalogue_{name}")
        is_movie = np.zeros(splits.movie_size, bool)
        is_movie[index] = True
        self.candidates = tf.Variable(is_movie, trainable=False, name="candidates")

    def of_batch(self, features: Tensors, history_name: str) -> tuple[Tensors, Tensors]:
        """Restricts the catalogue to the distinct movies that a batch rates or has in its histories.

        Args:
          features: transformed features of the batch, with the history.
          history_name: name of the feature that holds the histories' movies.

        Returns:
          The batch's features, in which the rated movies and the histories hold row numbers of the smaller catalogue;
          and the features of the smaller catalogue, [movies, ...] by name, whose row 0 is padding as well.
        """
        movie_name = transformed_name(MOVIE_ID)
        movies, history = features[movie_name], features[history_name]
        # The leading 0 makes padding the first of the distinct indices.
        indices, places = tf.unique(tf.concat([[0], tf.reshape(movies, [-1]), tf.reshape(history, [-1])], axis=0))
        _, movie_places, history_places = tf.split(places, [1, tf.size(movies), tf.size(history)])
        renumbered = {
            movie_name: tf.reshape(movie_places, tf.shape(movies)),
            history_name: tf.reshape(history_places, tf.shape(history)),
        }
        return features | renumbered, {name: tf.gather(table, indices) for name, table in self.features.items()}

    def mask(self, scores: tf.Tensor) -> tf.Tensor:
        """Replaces the scores (or biases) of padding and unknown movies by -inf: float32 [..., movie indices]."""
        return tf.where(self.candidates, scores, float("-inf"))
