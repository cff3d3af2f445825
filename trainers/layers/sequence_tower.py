"""A query tower that reads what a person rated as a sequence, and knows when each of it was rated.

It follows HSTU (Zhai et al. 2024, https://arxiv.org/abs/2402.17152) without the products of queries and keys: how much
an event counts depends on how many ratings ago it was and how long before the moment of asking, and on nothing else.
So a whole sequence is encoded at once, and each of its events answers what came next: in training, a window of a
person's ratings gives the losses of all of them for the price of one pass.
"""

import numpy as np
import tensorflow as tf

from trainers.datasets import Arrays, Splits
from trainers.hyperparameters import RetrievalHyperparameters
from trainers.layers.gradients import lookup
from trainers.layers.towers import RATING_LEVELS, FeatureEncoder, Tensors, embedding, user_vectors
from transform.features import (
    HISTORY_MOVIES,
    HISTORY_RATINGS,
    HISTORY_TIMES,
    LABEL,
    MOVIE_ID,
    PLACE,
    TIMESTAMP,
    USER_ID,
    Kind,
    Role,
    columns,
    transformed_name,
)

IS_TARGET = "is_target"

_KNOTS, _STEP = 13, 1.5  # Knots of functions of a gap, and the distance between them, in logarithms of seconds.
# With curves that are 0 at first, SiLU would weigh every event by 0, and the mean of many events would be small.
_AT_FIRST, _GAIN = 0.1, 4.0

_LONGEST_GAP = 2**30  # Seconds, 34 years.

# Seconds after the latest rating for which it counts how long ago that was. What people rate hours or days later says
# nothing of the list that they had before them, and of years training knows nothing: they are like an unknown moment.
_SESSION = 3600

_SECONDS = transformed_name(TIMESTAMP, Kind.SECONDS)
_HISTORY = tuple(transformed_name(name) for name in (HISTORY_MOVIES, HISTORY_RATINGS, HISTORY_TIMES))


def windows(train: Arrays, size: int) -> Arrays:
    """Cuts the train rows of each person into windows of consecutive ratings.

    Args:
      train: transformed features of the train split, [rows, ...] by name.
      size: largest number of rows in a window.

    Returns:
      Features by name: those of the person, of the moment, the movie and the rating of each row, [windows, size, ...],
      padded with 0; the history of the first row, [windows, history_length]; and `is_target`, bool [windows, size],
      which places hold a row. Every row is in one window. Where the person has rated something between two rows that is
      none of them, as in a span before those that models are trained on, the second begins a window.
    """
    users, place = train[transformed_name(USER_ID)], train[transformed_name(PLACE)]
    order = np.lexsort((place, users))
    is_next = (np.diff(users[order]) == 0) & (np.diff(place[order]) == 1)
    starts = np.flatnonzero(~np.concatenate([[False], is_next]))
    counts = np.diff(starts, append=len(order))
    per_user = -(-counts // size)
    first = np.repeat(starts, per_user) + size * (
        np.arange(per_user.sum()) - np.repeat(np.cumsum(per_user) - per_user, per_user)
    )
    end = np.repeat(starts + counts, per_user)
    places = first[:, np.newaxis] + np.arange(size)
    is_target = places < end[:, np.newaxis]
    rows = order[np.where(is_target, places, first[:, np.newaxis])]
    of_rows = [column.name for column in columns(Role.USER, Role.CONTEXT, among=train)]
    of_rows += [transformed_name(MOVIE_ID), transformed_name(LABEL)]
    window: Arrays = {name: train[name][rows] for name in of_rows}
    for values in window.values():
        values[~is_target] = 0
    return window | {name: train[name][rows[:, 0]] for name in _HISTORY} | {IS_TARGET: is_target}


def rows_of(windows_: Tensors) -> Tensors:
    """The rows of a batch of windows, padding included: features without the history, [windows * size, ...] by name."""
    rows = {name: values for name, values in windows_.items() if name not in (*_HISTORY, IS_TARGET)}
    return {name: tf.reshape(values, [-1, *values.shape[2:]]) for name, values in rows.items()}


class SequenceEncoder(tf.keras.layers.Layer):
    """Encodes sequences of events; the vector of an event tells of it and of all before it.

    Call arguments:
      events: float32 [batch_size, length, dim], oldest first; events may be missing in front, and behind.
      present: bool [batch_size, length].
      times: int32 [batch_size, length], when each event was, as Kind.SECONDS; 0 where not known.
      asked: int32 [batch_size, length], the moment for which each event's vector is wanted; 0 where not known.
      last_only: whether only the last event's vector is wanted.

    Returns:
      float32 [batch_size, length or 1, dim]; 0 for a missing event.
    """

    def __init__(self, length: int, hparams: RetrievalHyperparameters):
        super().__init__()
        self._length, self._heads, self._blocks = length, hparams.attention_heads, hparams.blocks
        dim = hparams.embedding_dim
        self._norms = [tf.keras.layers.LayerNormalization(epsilon=1e-6) for _ in range(2 * hparams.blocks)]
        self._into = [tf.keras.layers.Dense(2 * dim, activation="silu") for _ in range(hparams.blocks)]
        # Smaller than usual, so that a block at first changes little of what it adds to.
        small = [tf.keras.initializers.RandomNormal(stddev=0.5 * dim**-0.5) for _ in range(hparams.blocks)]
        self._out = [tf.keras.layers.Dense(dim, kernel_initializer=each) for each in small]
        self._dropout = tf.keras.layers.Dropout(hparams.dropout)

    def build(self, input_shape: tf.TensorShape) -> None:
        del input_shape
        curves = [self._blocks, self._heads]
        self._by_distance = self.add_weight("by_distance", [self._length, *curves], initializer="zeros")
        self._by_gap = self.add_weight("by_gap", [_KNOTS, *curves], initializer="zeros")
        super().build([])

    def call(
        self,
        events: tf.Tensor,
        present: tf.Tensor,
        times: tf.Tensor,
        asked: tf.Tensor,
        last_only: bool = False,
        training: bool = False,
    ) -> tf.Tensor:
        there = tf.cast(present, tf.float32)[..., tf.newaxis]
        weights, share = self._weights(present, times, asked), self._share(present)
        x = self._dropout(events * there, training=training)
        for block in range(self._blocks):
            rows = slice(-1, None) if last_only and block == self._blocks - 1 else slice(None)
            within = tf.nn.silu(weights[:, block, :, rows] + _AT_FIRST) * share[:, tf.newaxis, rows]
            gates, values = tf.split(self._into[block](self._norms[2 * block](x)), 2, axis=-1)
            heads = tf.transpose(_split(values, self._heads), [0, 2, 1, 3])
            mixed = tf.transpose(tf.matmul(within, heads), [0, 2, 1, 3])
            mixed = tf.reshape(mixed, tf.concat([tf.shape(mixed)[:2], [x.shape[-1]]], axis=0))
            mixed = self._norms[2 * block + 1](mixed) * gates[:, rows]
            x = x[:, rows] + self._out[block](self._dropout(mixed, training=training))
        return x * (there[:, -1:] if last_only else there)

    def _weights(self, present: tf.Tensor, times: tf.Tensor, asked: tf.Tensor) -> tf.Tensor:
        """What distance and gap say for each pair of events: float32 [batch_size, blocks, heads, length, length]."""
        length = present.shape[1]
        places = np.arange(length)
        distances = np.maximum(places[:, np.newaxis] - places, 0)
        curves = tf.gather(self._by_distance, distances)  # [length, length, blocks, heads]
        curves += tf.tensordot(gap_basis(asked[:, :, tf.newaxis], times[:, tf.newaxis]), self._by_gap, 1)
        return tf.transpose(curves, [0, 3, 4, 1, 2])

    @staticmethod
    def _share(present: tf.Tensor) -> tf.Tensor:
        """The part of each event in the mean of what is not after another: float32 [batch_size, length, length]."""
        there = tf.cast(present, tf.float32)
        length = present.shape[1]
        earlier = tf.constant(np.tri(length, dtype=np.float32)) * there[:, tf.newaxis]
        return _GAIN * earlier / tf.maximum(tf.cumsum(there, axis=1), 1.0)[..., tf.newaxis]


def _in_session(moments: tf.Tensor, last: tf.Tensor) -> tf.Tensor:
    """Moments of asking; 0, for not known, where the last event was longer before than a session lasts."""
    # In 64 bits, since a difference of two times may be longer than either.
    gap = tf.cast(moments, tf.int64) - tf.cast(last, tf.int64)
    return tf.where(gap > _SESSION, 0, moments)


def _asked(moments: tf.Tensor, times: tf.Tensor) -> tf.Tensor:
    """The moments from which gaps are counted: where one is not known, that of the event itself."""
    return tf.where(tf.equal(moments, 0), times, moments)


def gap_basis(later: tf.Tensor, earlier: tf.Tensor) -> tf.Tensor:
    """Values of the functions that a piecewise linear function of the logarithm of a gap is the sum of.

    Args:
      later: int32, moments as Kind.SECONDS, of any shape; 0 where not known.
      earlier: likewise, of a shape that fits.

    Returns:
      float32 [..., knots]; 0 where one of the moments is not known.
    """
    # In 64 bits, since a difference of two times may be longer than either.
    gap = tf.cast(later, tf.int64) - tf.cast(earlier, tf.int64)
    seconds = tf.cast(tf.clip_by_value(gap, 1, _LONGEST_GAP), tf.float32)
    place = tf.minimum(tf.math.log(seconds) / _STEP, _KNOTS - 1.0)
    is_known = tf.not_equal(later, 0) & tf.not_equal(earlier, 0)
    # Where it is not known, the place is far from all knots.
    place = tf.where(is_known, place, -2.0)[..., tf.newaxis]
    return tf.nn.relu(1.0 - tf.abs(place - tf.range(_KNOTS, dtype=tf.float32)))


def _split(x: tf.Tensor, heads: int) -> tf.Tensor:
    return tf.reshape(x, [-1, x.shape[1], heads, x.shape[2] // heads])


class SequenceQueryTower(tf.keras.layers.Layer):
    """Encodes a user at a moment, like `towers.QueryTower`, from the sequence of what they rated.

    Call arguments:
      features: transformed features of the roles user, context and history.
      table: float32 [movie indices, dim], one vector for each movie of the history.

    Returns:
      float32 [batch_size, dim].
    """

    def __init__(self, splits: Splits, hparams: RetrievalHyperparameters):
        super().__init__()
        dim = hparams.embedding_dim
        self._history_length = splits.train[_HISTORY[0]].shape[1]
        # A window's events are the history of its first row, and its rows but the last.
        longest = self._history_length + hparams.window - 1
        self._person = FeatureEncoder(splits, (Role.USER, Role.CONTEXT), dim, hparams.l2, without=(USER_ID,))
        self._id_dropout = hparams.id_dropout
        self._ids = embedding(splits.size(USER_ID), dim, hparams.l2, initial=0.01, vocabulary=USER_ID)
        self._ratings = embedding(RATING_LEVELS, dim, 0.0)
        self._places = embedding(longest, dim, 0.0, initial=0.02)
        self._scale = 0.25 * dim**0.5
        self._encoder = SequenceEncoder(longest, hparams)
        self._gaps = embedding(_KNOTS, dim, 0.0, initial=0.02)
        # Not named as in QueryTower, which reads something else: no warm start may take the one for the other.
        self._of_parts = tf.keras.layers.Dense(dim)

    def history_logits(self, table: tf.Tensor) -> tf.Tensor:
        """Nothing: a sequence needs to know no more of a movie than its vector; float32 [movie indices, 0]."""
        return table[:, :0]

    def call(
        self, features: Tensors, table: tf.Tensor, movie_logits: tf.Tensor | None = None, training: bool = False
    ) -> tf.Tensor:
        del movie_logits
        movies, stars, times = (tf.reverse(features[name], axis=[1]) for name in _HISTORY)
        times = tf.where(movies > 0, times, 0)
        now = _in_session(features[_SECONDS], times[:, -1])
        asked = _asked(tf.concat([_in_session(times[:, 1:], times[:, :-1]), now[:, tf.newaxis]], axis=1), times)
        events, present = self._events(movies, stars, table)
        state = self._encoder(events, present, times, asked, last_only=True, training=training)[:, 0]
        return self._answers(state, times[:, -1], now, features)

    def of_windows(
        self, inputs: Tensors, known: Tensors, without_history: tf.Tensor | None, table: tf.Tensor, training: bool
    ) -> tf.Tensor:
        """The query vectors of the rows of windows: float32 [windows * size, dim].

        Args:
          inputs: as from `windows`; its movies are row numbers in the table.
          known: as from `rows_of`, but without what is to be hidden of people and moments.
          without_history: bool [windows * size], whose history is hidden; None for nobody's.
          table: float32 [movies, dim].
          training: whether to drop hidden units.
        """
        movies, stars, times = (tf.reverse(inputs[name], axis=[1]) for name in _HISTORY)
        own = (inputs[transformed_name(MOVIE_ID)], inputs[transformed_name(LABEL)], inputs[_SECONDS])
        movies, stars, times = (
            tf.concat([past, rows[:, :-1]], axis=1) for past, rows in zip((movies, stars, times), own, strict=True)
        )
        size, length = own[0].shape[1], self._history_length
        now = _in_session(tf.reshape(known[_SECONDS], [-1, size]), times[:, length - 1 :])
        past = _in_session(times[:, 1:length], times[:, : length - 1])
        asked = _asked(tf.concat([past, now], axis=1), times)
        events, present = self._events(movies, stars, table)
        states = self._encoder(events, present, times, asked, training=training)[:, length - 1 :]
        states = tf.reshape(states, [-1, states.shape[-1]])
        last = tf.reshape(times[:, length - 1 :], [-1])
        if without_history is not None:
            states *= 1.0 - tf.cast(without_history, tf.float32)[:, tf.newaxis]
            last = tf.where(without_history, 0, last)
        return self._answers(states, last, tf.reshape(now, [-1]), known)

    def _events(self, movies: tf.Tensor, stars: tf.Tensor, table: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        present = movies > 0
        levels = tf.one_hot(tf.cast(tf.round(stars), tf.int32), RATING_LEVELS)
        vectors = lookup(table, movies) + tf.tensordot(levels, self._ratings(tf.range(RATING_LEVELS)), 1)
        places = tf.maximum(tf.cumsum(tf.cast(present, tf.int32), axis=1) - 1, 0)
        return self._scale * vectors + self._places(places), present

    def _answers(self, states: tf.Tensor, last: tf.Tensor, now: tf.Tensor, features: Tensors) -> tf.Tensor:
        gaps = tf.matmul(gap_basis(now, last), self._gaps(tf.range(_KNOTS)))
        return self._of_parts(tf.concat([states, gaps, self._person(features), self._user(features)], axis=1))

    def _user(self, features: Tensors) -> tf.Tensor:
        return user_vectors(self._ids, features[transformed_name(USER_ID)], self._id_dropout)
