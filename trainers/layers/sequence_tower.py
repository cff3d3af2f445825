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
from trainers.layers.towers import HISTORY_READ, RATING_LEVELS, FeatureEncoder, Tensors, embedding, user_vectors
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

_SECONDS = transformed_name(TIMESTAMP, Kind.SECONDS)
_HISTORY = tuple(transformed_name(name) for name in (HISTORY_MOVIES, HISTORY_RATINGS, HISTORY_TIMES))


def windows(train: Arrays, size: int, whole_rows: bool = False) -> Arrays:
    """Cuts the train rows of each person into windows of consecutive ratings.

    Args:
      train: transformed features of the train split, [rows, ...] by name.
      size: largest number of rows in a window.
      whole_rows: whether windows hold all features of their rows, also those that this tower does not read.

    Returns:
      Features by name: those of the person, of the moment, the movie and the rating of each row, [windows, size, ...],
      padded with 0; the history of the first row, [windows, history_length], or of each row,
      [windows, size, history_length]; and `is_target`, bool [windows, size], which places hold a row. Every row is in
      one window. Where the person has rated something between two rows that is none of them, as in a span before those
      that models are trained on, the second begins a window.
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
    window: Arrays = {name: train[name][rows] for name in (train if whole_rows else of_rows)}
    for values in window.values():
        values[~is_target] = 0
    histories = {} if whole_rows else {name: train[name][rows[:, 0]] for name in _HISTORY}
    return window | histories | {IS_TARGET: is_target}


def without_times(windows_: Tensors, hidden: tf.Tensor) -> Tensors:
    """Hides when the ratings of some windows were, as of people who tell what they rated but not when.

    Args:
      windows_: features of a batch of windows.
      hidden: bool [windows].
    """
    times = {name: windows_[name] for name in (_HISTORY[2], _SECONDS)}
    return windows_ | {
        name: tf.where(tf.reshape(hidden, [-1, *[1] * (len(values.shape) - 1)]), 0, values)
        for name, values in times.items()
    }


def rows_of(windows_: Tensors) -> Tensors:
    """The rows of a batch of windows, padding included: their features, [windows * size, ...] by name."""
    not_of_rows = (IS_TARGET, *(name for name in _HISTORY if len(windows_[name].shape) == 2))
    rows = {name: values for name, values in windows_.items() if name not in not_of_rows}
    return {name: tf.reshape(values, [-1, *values.shape[2:]]) for name, values in rows.items()}


class SequenceEncoder(tf.keras.layers.Layer):
    """Encodes sequences of events; the vector of an event tells of it and of all before it.

    A call encodes all events. Where only the vector of the last one is wanted, `read` says what all others tell it,
    which does not depend on the moment of asking, and `last` answers.

    Call arguments:
      events: float32 [batch_size, length, dim], oldest first; events may be missing in front, and behind.
      present: bool [batch_size, length].
      times: int32 [batch_size, length], when each event was, as Kind.SECONDS; 0 where not known.
      asked: int32 [batch_size, length], the moment for which each event's vector is wanted; 0 where not known.

    Returns:
      float32 [batch_size, length, dim]; 0 for a missing event.
    """

    def __init__(self, length: int, hparams: RetrievalHyperparameters):
        super().__init__()
        self._heads, self._blocks = hparams.attention_heads, hparams.blocks
        dim = hparams.embedding_dim
        self._norms = [tf.keras.layers.LayerNormalization(epsilon=1e-6) for _ in range(2 * hparams.blocks)]
        self._into = [tf.keras.layers.Dense(2 * dim, activation="silu") for _ in range(hparams.blocks)]
        # Smaller than usual, so that a block at first changes little of what it adds to.
        small = [tf.keras.initializers.RandomNormal(stddev=0.5 * dim**-0.5) for _ in range(hparams.blocks)]
        self._out = [tf.keras.layers.Dense(dim, kernel_initializer=each) for each in small]
        self._dropout = tf.keras.layers.Dropout(hparams.dropout)
        curves = [hparams.blocks, hparams.attention_heads]
        self._by_distance = self.add_weight("by_distance", [length, *curves], initializer="zeros")
        self._by_gap = self.add_weight("by_gap", [_KNOTS, *curves], initializer="zeros")

    def call(
        self, events: tf.Tensor, present: tf.Tensor, times: tf.Tensor, asked: tf.Tensor, training: bool = False
    ) -> tf.Tensor:
        there = tf.cast(present, tf.float32)[..., tf.newaxis]
        weights = self._weights(present, times, asked)
        x = self._dropout(events * there, training=training)
        for block in range(self._blocks):
            gates, values = self._gates_and_values(block, x)
            x = self._mixed(block, x, gates, values, weights[block], training)
        return x * there

    def read(self, events: tf.Tensor, present: tf.Tensor, times: tf.Tensor, asked: tf.Tensor) -> tf.Tensor:
        """What all events but the last tell the last one: float32 [batch_size, length - 1, blocks * dim].

        Arguments are as for a call; of the last event, nothing counts.
        """
        x, present, times, asked = (each[:, :-1] for each in (events, present, times, asked))
        x *= tf.cast(present, tf.float32)[..., tf.newaxis]
        weights, told = self._weights(present, times, asked), []
        for block in range(self._blocks):
            gates, values = self._gates_and_values(block, x)
            told.append(values)
            if block < self._blocks - 1:
                x = self._mixed(block, x, gates, values, weights[block])
        return tf.concat(told, axis=2)

    def last(
        self, read: tf.Tensor, last: tf.Tensor, present: tf.Tensor, times: tf.Tensor, asked: tf.Tensor
    ) -> tf.Tensor:
        """The vector of the last event: float32 [batch_size, dim].

        Args:
          read: as from `read`.
          last: float32 [batch_size, 1, dim], the last event.
          present: as for a call.
          times: as for a call.
          asked: int32 [batch_size, 1], the moment for which the vector is wanted.
        """
        there = tf.cast(present, tf.float32)[:, -1:, tf.newaxis]
        x, weights = last * there, self._weights(present, times, asked)
        for block, told in enumerate(tf.split(read, self._blocks, axis=2)):
            gates, values = self._gates_and_values(block, x)
            x = self._mixed(block, x, gates, tf.concat([told, values], axis=1), weights[block])
        return tf.squeeze(x * there, 1)

    def _gates_and_values(self, block: int, x: tf.Tensor) -> list[tf.Tensor]:
        """What events let through, and what they tell others, in a block: float32 [batch_size, events, dim] each."""
        return tf.split(self._into[block](self._norms[2 * block](x)), 2, axis=-1)

    def _mixed(
        self, block: int, x: tf.Tensor, gates: tf.Tensor, values: tf.Tensor, weights: tf.Tensor, training: bool = False
    ) -> tf.Tensor:
        """The output of a block for some events, whose input is x: float32 [batch_size, events, dim].

        Args:
          block: its number.
          x: float32 [batch_size, events, dim].
          gates: of the same events.
          values: float32 [batch_size, length, dim], of all events.
          weights: float32 [batch_size, heads, events, length], how much each of all events counts.
          training: whether to drop hidden units.
        """
        heads = tf.transpose(_split(values, self._heads), [0, 2, 1, 3])
        mixed = tf.transpose(tf.matmul(weights, heads), [0, 2, 1, 3])
        mixed = self._norms[2 * block + 1](tf.reshape(mixed, tf.shape(x))) * gates
        return x + self._out[block](self._dropout(mixed, training=training))

    def _weights(self, present: tf.Tensor, times: tf.Tensor, asked: tf.Tensor) -> list[tf.Tensor]:
        """How much events count for the last ones, by block: float32 [batch_size, heads, last ones, length].

        Args:
          present: bool [batch_size, length].
          times: int32 [batch_size, length].
          asked: int32 [batch_size, last ones], the moments for which the last events' vectors are wanted.
        """
        length, rows = present.shape[1], asked.shape[1]
        places = np.arange(length)
        distances = places[length - rows :, np.newaxis] - places
        curves = self._blocks * self._heads
        by_distance = tf.gather(
            tf.transpose(tf.reshape(self._by_distance, [-1, curves])), np.maximum(distances, 0), axis=1
        )
        # The knots are the second axis, so that the long axes are the last ones, along which TensorFlow is fastest.
        gaps = tf.reshape(gap_basis(asked[:, :, tf.newaxis], times[:, tf.newaxis], axis=1), [-1, _KNOTS, rows * length])
        by_gap = tf.matmul(tf.reshape(self._by_gap, [_KNOTS, curves]), gaps, transpose_a=True)
        weights = tf.nn.silu(tf.reshape(by_gap, [-1, curves, rows, length]) + (by_distance + _AT_FIRST))
        # Of what is not after them, each event has the same part.
        there = tf.cast(present, tf.float32)
        counts = tf.maximum(tf.cumsum(there, axis=1), 1.0)[:, length - rows :, tf.newaxis]
        share = _GAIN * tf.constant((distances >= 0).astype(np.float32)) * there[:, tf.newaxis] / counts
        # One gradient of all blocks is put together faster than a sum of one for each.
        return tf.split(weights * share[:, tf.newaxis], self._blocks, axis=1)


def _in_session(moments: tf.Tensor, last: tf.Tensor, session: int) -> tf.Tensor:
    """Moments of asking; 0, for not known, where the last event was longer before than a session lasts, in seconds.

    What people rate later says little of the list that they had before them, and of years training knows nothing.
    """
    # In 64 bits, since a difference of two times may be longer than either.
    gap = tf.cast(moments, tf.int64) - tf.cast(last, tf.int64)
    return tf.where(gap > session, 0, moments)


def _asked(moments: tf.Tensor, times: tf.Tensor) -> tf.Tensor:
    """The moments from which gaps are counted: where one is not known, that of the event itself."""
    return tf.where(tf.equal(moments, 0), times, moments)


def gap_basis(later: tf.Tensor, earlier: tf.Tensor, axis: int = -1) -> tf.Tensor:
    """Values of the functions that a piecewise linear function of the logarithm of a gap is the sum of.

    Args:
      later: int32, moments as Kind.SECONDS, of any shape; 0 where not known.
      earlier: likewise, of a shape that fits.
      axis: which axis of the result the knots are.

    Returns:
      float32 [..., knots]; 0 where one of the moments is not known.
    """
    # In 64 bits, since a difference of two times may be longer than either.
    gap = tf.cast(later, tf.int64) - tf.cast(earlier, tf.int64)
    seconds = tf.cast(tf.clip_by_value(gap, 1, _LONGEST_GAP), tf.float32)
    place = tf.minimum(tf.math.log(seconds) / _STEP, _KNOTS - 1.0)
    is_known = tf.not_equal(later, 0) & tf.not_equal(earlier, 0)
    # Where it is not known, the place is far from all knots.
    place = tf.expand_dims(tf.where(is_known, place, -2.0), axis)
    knots = [1] * len(place.shape)
    knots[axis] = _KNOTS
    return tf.nn.relu(1.0 - tf.abs(place - tf.reshape(tf.range(_KNOTS, dtype=tf.float32), knots)))


def _oldest_first(features: Tensors) -> list[tf.Tensor]:
    """The history's movies, ratings and times, oldest first; 0 where there is no event. Each [batch_size, length]."""
    movies, stars, times = (tf.reverse(features[name], axis=[1]) for name in _HISTORY)
    return [movies, stars, tf.where(movies > 0, times, 0)]


def _places(present: tf.Tensor) -> tf.Tensor:
    """How many events are before each: int32 [batch_size, length]."""
    return tf.maximum(tf.cumsum(tf.cast(present, tf.int32), axis=1) - 1, 0)


def _split(x: tf.Tensor, heads: int) -> tf.Tensor:
    return tf.reshape(x, [-1, x.shape[1], heads, x.shape[2] // heads])


class SequenceQueryTower(tf.keras.layers.Layer):
    """Encodes a user at a moment, like `towers.QueryTower`, from the sequence of what they rated.

    Call arguments:
      features: transformed features of the roles user, context and history; with `HISTORY_READ`, the history is not
        read again.
      table: float32 [movie indices, dim], one vector for each movie of the history.
      movie_logits: has no effect.
      training: likewise, as training is on windows.

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
        self._id_dropout, self._session = hparams.id_dropout, hparams.session
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

    def read(self, features: Tensors, table: tf.Tensor, movie_logits: tf.Tensor | None = None) -> tf.Tensor:
        """What is read of histories, which depends on nothing else: float32 [batch_size, length - 1, blocks * dim].

        Arguments are as for a call.
        """
        del movie_logits
        movies, stars, times = _oldest_first(features)
        present = movies > 0
        events = self._events(movies, stars, _places(present), table)
        # What is asked of an event is the moment of the one after it; of the last one, it is not read here.
        asked = tf.concat([_in_session(times[:, 1:], times[:, :-1], self._session), times[:, -1:]], axis=1)
        return self._encoder.read(events, present, times, _asked(asked, times))

    def call(
        self, features: Tensors, table: tf.Tensor, movie_logits: tf.Tensor | None = None, training: bool = False
    ) -> tf.Tensor:
        del training
        read = features.get(HISTORY_READ)
        if read is None:
            read = self.read(features, table, movie_logits)
        movies, stars, times = _oldest_first(features)
        now = _in_session(features[_SECONDS], times[:, -1], self._session)
        present = movies > 0
        last = self._events(movies[:, -1:], stars[:, -1:], _places(present)[:, -1:], table)
        asked = _asked(now, times[:, -1])
        state = self._encoder.last(read, last, present, times, asked[:, tf.newaxis])
        return self._answers(state, times[:, -1], now, features)

    def of_windows(
        self, inputs: Tensors, known: Tensors, without_history: tf.Tensor | None, table: tf.Tensor, training: bool
    ) -> tf.Tensor:
        """The query vectors of the rows of windows, without padding: float32 [rows, dim].

        Args:
          inputs: as from `windows`; its movies are row numbers in the table.
          known: as from `rows_of`, but without what is to be hidden of people and moments.
          without_history: bool [windows * size], whose history is hidden; None for nobody's.
          table: float32 [movies, dim].
          training: whether to drop hidden units.
        """
        history = {name: inputs[name] for name in _HISTORY}
        history = {name: each[:, 0] if len(each.shape) == 3 else each for name, each in history.items()}
        own = (inputs[transformed_name(MOVIE_ID)], inputs[transformed_name(LABEL)], inputs[_SECONDS])
        movies, stars, times = (
            tf.concat([past, rows[:, :-1]], axis=1) for past, rows in zip(_oldest_first(history), own, strict=True)
        )
        size, length = own[0].shape[1], self._history_length
        now = _in_session(tf.reshape(known[_SECONDS], [-1, size]), times[:, length - 1 :], self._session)
        past = _in_session(times[:, 1:length], times[:, : length - 1], self._session)
        present = movies > 0
        events = self._events(movies, stars, _places(present), table)
        asked = _asked(tf.concat([past, now], axis=1), times)
        states = self._encoder(events, present, times, asked, training=training)
        states = tf.reshape(states[:, length - 1 :], [-1, states.shape[-1]])
        last, now = tf.reshape(times[:, length - 1 :], [-1]), tf.reshape(now, [-1])
        if without_history is not None:
            states *= 1.0 - tf.cast(without_history, tf.float32)[:, tf.newaxis]
            last = tf.where(without_history, 0, last)
        # Padding would be penalised as if it were people of whom nothing is known.
        places = tf.where(tf.reshape(inputs[IS_TARGET], [-1]))[:, 0]
        states, last, now = (tf.gather(each, places) for each in (states, last, now))
        return self._answers(states, last, now, {name: tf.gather(values, places) for name, values in known.items()})

    def _events(self, movies: tf.Tensor, stars: tf.Tensor, places: tf.Tensor, table: tf.Tensor) -> tf.Tensor:
        """Vectors of what was rated, float32 [batch_size, events, dim]; each argument is [batch_size, events]."""
        levels = tf.one_hot(tf.cast(tf.round(stars), tf.int32), RATING_LEVELS)
        vectors = lookup(table, movies) + tf.tensordot(levels, self._ratings(tf.range(RATING_LEVELS)), 1)
        return self._scale * vectors + self._places(places)

    def _answers(self, states: tf.Tensor, last: tf.Tensor, now: tf.Tensor, features: Tensors) -> tf.Tensor:
        gaps = tf.matmul(gap_basis(now, last), self._gaps(tf.range(_KNOTS)))
        return self._of_parts(tf.concat([states, gaps, self._person(features), self._user(features)], axis=1))

    def _user(self, features: Tensors) -> tf.Tensor:
        return user_vectors(self._ids, features[transformed_name(USER_ID)], self._id_dropout)
