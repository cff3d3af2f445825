"""Layers that turn transformed features into vectors; all models are made of them."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from trainers.datasets import Splits
from trainers.hyperparameters import RetrievalHyperparameters
from trainers.layers.gradients import lookup
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

Tensors = dict[str, tf.Tensor]


class FeatureEncoder(tf.keras.layers.Layer):
    """Sums one vector for each feature of some roles: a linear layer over their sparse one-hot encodings.

    Call arguments:
      features: transformed features, [batch_size, ...] by name.

    Returns:
      float32 [batch_size, dim].
    """

    def __init__(self, splits: Splits, roles: tuple[Role, ...], dim: int, l2: float, without: tuple[str, ...] = ()):
        """Args: splits gives vocabulary sizes; what is made of features named in `without` is left out."""
        super().__init__()
        read = [column for column in columns(*roles, among=splits.train) if column.feature.name not in without]
        self._columns = [column for column in read if column.kind in INDICES]
        self._tables = {
            column.name: embedding(
                splits.index_count(column),
                dim,
                l2,
                vocabulary=column.feature.name if column.kind in VOCABULARY_INDICES else None,
            )
            for column in self._columns
        }
        self._numbers = [column.name for column in read if column.kind is Kind.NORMALIZED]
        self._dense = tf.keras.layers.Dense(dim, use_bias=False) if self._numbers else None

    def call(self, features: Tensors) -> tf.Tensor:
        vectors = [self._encode(column, features) for column in self._columns]
        if self._dense is not None:
            vectors.append(self._dense(tf.stack([features[name] for name in self._numbers], axis=1)))
        # Not tf.add_n, which begins with a vector that nothing else reads any more: which one that is, and the sum's
        # last bits with it, would depend on how far the penalties have come by then.
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
            # Looking up every index gives the table itself, as [width + 2, dim].
            weights = table(tf.range(values.shape[1]))
            return tf.math.divide_no_nan(hot @ weights, tf.sqrt(tf.reduce_sum(hot, axis=1, keepdims=True)))
        return table(values)


class Table(tf.keras.layers.Embedding):
    """An embedding table that knows which feature's vocabulary its rows belong to; the arguments are Keras's."""

    def __init__(self, size: int, dim: int, vocabulary: str | None, **arguments: Any):
        super().__init__(size, dim, **arguments)
        self._vocabulary = vocabulary

    def build(self, input_shape: tf.TensorShape | None = None) -> None:
        super().build(input_shape)
        with_vocabulary(self.embeddings, self._vocabulary)

    def call(self, indices: tf.Tensor) -> tf.Tensor:
        return lookup(self.embeddings, indices)


def embedding(
    size: int,
    dim: int,
    l2: float,
    initial: float = 0.05,
    values: np.ndarray | None = None,
    vocabulary: str | None = None,
) -> Table:
    """An embedding table whose L2 penalty falls on the rows of a batch, weighted by how often they occur in it.

    Args:
      size: number of rows.
      dim: width of a row.
      l2: the penalty.
      initial: standard deviation of the first values.
      values: the first values themselves, [size, dim]; None for random ones.
      vocabulary: the feature of whose vocabulary there is a row for each index; None for no vocabulary.
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
    """L2 penalty on whole embedding tables, the same for rare and for frequent values.

    Args:
      layers: whose tables.
      table_l2: in ratings, over whose number the sum of squares is divided.
      splits: what is trained on.
    """
    tables = [weight for layer in layers for weight in layer.trainable_weights if len(weight.shape) == 2]
    squares = tf.add_n([tf.reduce_sum(tf.square(table)) for table in tables])
    return table_l2 / len(splits.train[transformed_name(LABEL)]) * squares


class HistoryEncoder(tf.keras.layers.Layer):
    """Pools the vectors of the movies that a user rated before.

    An event is a vector, and a logit for each head of attention: the sums of those of its movie, of its rating and of
    its place in time. What is made of a movie is thus made once for each movie, not for each event. The output holds,
    side by side, the events' mean, an attention-weighted mean for each head, and the last few events as they are.

    Call arguments:
      features: transformed features with the history.
      table: float32 [movie indices, dim], a vector for each movie.

    Returns:
      float32 [batch_size, (1 + heads + recent) * dim].
    """

    def __init__(self, length: int, dim: int, recent: int, heads: int = 2):
        super().__init__()
        self._recent = recent
        self._ratings, self._rating_logits = (embedding(RATING_LEVELS, width, 0.0) for width in (dim, heads))
        self._places, self._place_logits = (embedding(length, width, 0.0) for width in (dim, heads))
        self._movie_logits = tf.keras.Sequential(
            [tf.keras.layers.Dense(dim, activation="tanh"), tf.keras.layers.Dense(heads)]
        )

    def call(self, features: Tensors, table: tf.Tensor) -> tf.Tensor:
        movies, ratings = features[transformed_name(HISTORY_MOVIES)], features[transformed_name(HISTORY_RATINGS)]
        length = movies.shape[1]
        present = tf.cast(movies > 0, tf.float32)
        # Of few rows, each of which many events have: the product's gradient is much faster than the lookup's.
        levels = tf.one_hot(tf.cast(tf.round(ratings), tf.int32), RATING_LEVELS)
        level_vectors, level_logits = (part(tf.range(RATING_LEVELS)) for part in (self._ratings, self._rating_logits))
        place_vectors, place_logits = (part(tf.range(length)) for part in (self._places, self._place_logits))

        logits = lookup(self._movie_logits(table), movies) + levels @ level_logits + place_logits
        attention = tf.nn.softmax(logits + ((present - 1.0) * 1e9)[..., tf.newaxis], axis=1)
        total = tf.reduce_sum(present, axis=1, keepdims=True)
        # Without a history every weight falls on padding: nothing should come of it.
        attention = tf.transpose(attention, [0, 2, 1]) * tf.minimum(total, 1.0)[..., tf.newaxis]
        weights = tf.concat([tf.math.divide_no_nan(present, total)[:, tf.newaxis], attention], axis=1)

        # Movies, ratings and places are pooled apart: of all events together, there is the movies' vectors alone.
        pooled = weights @ lookup(table, movies) + weights @ levels @ level_vectors
        pooled += tf.tensordot(weights, place_vectors, 1)
        last = min(self._recent, length)
        # Looked up once more: as a part of all, their gradient would be padded with zeros to the whole.
        latest = lookup(table, movies[:, :last]) + levels[:, :last] @ level_vectors + place_vectors[:last]
        latest *= present[:, :last, tf.newaxis]
        latest = tf.pad(latest, [[0, 0], [0, self._recent - last], [0, 0]])
        return tf.concat([_flatten(pooled), _flatten(latest)], axis=1)


def _flatten(x: tf.Tensor) -> tf.Tensor:
    # Not -1 for the rows: of nothing in each of them, there could be any number.
    return tf.reshape(x, [tf.shape(x)[0], x.shape[1] * x.shape[2]])


class MLP(tf.keras.layers.Layer):
    """Hidden layers with ReLU, dropout and bounded weights.

    Call arguments:
      x: float32 [batch_size, any].

    Returns:
      float32 [batch_size, units[-1]], or x when there are no units.
    """

    def __init__(self, units: list[int], dropout: float, max_norm: float | None = None):
        super().__init__()
        constraint = tf.keras.constraints.MaxNorm(max_norm) if max_norm else None
        self._layers = []
        for width in units:
            self._layers.append(tf.keras.layers.Dense(width, activation="relu", kernel_constraint=constraint))
            self._layers.append(tf.keras.layers.Dropout(dropout))

    def call(self, x: tf.Tensor, training: bool = False) -> tf.Tensor:
        for layer in self._layers:
            x = layer(x, training=training)
        return x


class QueryTower(tf.keras.layers.Layer):
    """A user at a moment: who they are, when it is, and what they rated before.

    In training, the ids of some rows are those of nobody, so that the tower also learns to do without; for people who
    were not there in training the vector of a user is 0.

    Call arguments:
      features: transformed features of the roles user, context and history.
      table: float32 [movie indices, dim], the movies' vectors.

    Returns:
      float32 [batch_size, dim].
    """

    def __init__(self, splits: Splits, hparams: RetrievalHyperparameters):
        super().__init__()
        dim = hparams.embedding_dim
        length = splits.train[transformed_name(HISTORY_MOVIES)].shape[1]
        self._person = FeatureEncoder(splits, (Role.USER, Role.CONTEXT), dim, hparams.l2, without=(USER_ID,))
        self._id_dropout, self._user_size = hparams.id_dropout, splits.size(USER_ID)
        self._ids = embedding(self._user_size, dim, hparams.l2, initial=0.01, vocabulary=USER_ID)
        self._history = HistoryEncoder(length, dim, hparams.recent_movies)
        self._mlp = MLP(hparams.hidden_units, hparams.dropout)
        self._output = tf.keras.layers.Dense(dim)

    def call(self, features: Tensors, table: tf.Tensor, training: bool = False) -> tf.Tensor:
        parts = [self._person(features), self._history(features, table), self._user(features, training)]
        return self._output(self._mlp(tf.concat(parts, axis=1), training=training))

    def _user(self, features: Tensors, training: bool) -> tf.Tensor:
        users = features[transformed_name(USER_ID)]
        known = (users > 0) & (users < self._user_size - 1)
        if training:
            known &= tf.random.uniform(tf.shape(users)) >= self._id_dropout
        elif self._id_dropout == 1:
            known = tf.zeros_like(known)
        return self._ids(users) * tf.cast(known, tf.float32)[:, tf.newaxis]


class Catalogue(tf.Module):
    """The transformed features of every movie, by movie index; rows of padding and unknown movies are empty.

    Attributes:
      features: [movie indices, ...] by name, not trained.
      candidates: bool [movie indices], which of them are movies.
    """

    def __init__(self, splits: Splits):
        super().__init__()
        index = splits.movies[transformed_name(MOVIE_ID)]
        self.features: Tensors = {}
        for name in (column.name for column in columns(Role.MOVIE, among=splits.movies)):
            values = splits.movies[name]
            table = tf.zeros((splits.movie_size, *values.shape[1:]), values.dtype).numpy()
            table[index] = values
            self.features[name] = tf.Variable(table, trainable=False, name=f"catalogue_{name}")
        is_movie = tf.zeros([splits.movie_size], tf.bool).numpy()
        is_movie[index] = True
        self.candidates = tf.Variable(is_movie, trainable=False, name="candidates")

    def of_batch(self, features: Tensors) -> tuple[Tensors, Tensors]:
        """A catalogue of the movies alone that a batch rates or has in its histories, each once.

        Args:
          features: transformed features of the batch, with the history.

        Returns:
          The same, in which movies are rows of the small catalogue, and its features, [movies, ...] by name; row 0 is
          padding in it, too.
        """
        rated, history = transformed_name(MOVIE_ID), transformed_name(HISTORY_MOVIES)
        movies, earlier = features[rated], features[history]
        indices, places = tf.unique(tf.concat([[0], movies, tf.reshape(earlier, [-1])], axis=0))
        _, movie_places, earlier_places = tf.split(places, [1, tf.size(movies), tf.size(earlier)])
        relabelled = {rated: movie_places, history: tf.reshape(earlier_places, [-1, earlier.shape[1]])}
        return features | relabelled, {name: tf.gather(table, indices) for name, table in self.features.items()}

    def mask(self, scores: tf.Tensor) -> tf.Tensor:
        """Scores [..., movie indices], or what is added to them, -inf for what is no movie."""
        return tf.where(self.candidates, scores, float("-inf"))
