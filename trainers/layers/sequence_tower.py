"""A query tower that reads what a person rated as a sequence, and knows when each of it was rated.

It stands on the encoder of `sequence_encoder.py`, which follows HSTU. In training, a window of a person's ratings gives
the losses of all of them for the price of one pass.
"""

from collections.abc import Callable

import tensorflow as tf

from trainers.datasets import Splits
from trainers.hyperparameters import RetrievalHyperparameters
from trainers.layers.gradients import lookup
from trainers.layers.person_dropout import PersonDropout
from trainers.layers.sequence_encoder import KNOTS, SequenceEncoder, gap_basis
from trainers.layers.towers import HISTORY_READ, RATING_LEVELS, FeatureEncoder, Tensors, embedding, user_vectors
from trainers.layers.windows import EVENT, FIRST, HISTORY, IS_TARGET, SECONDS, window_length
from transform.features import USER_ID, Role, transformed_name

# Histories up to this length are encoded all at once: slices would cost a single answer some time.
_NEVER_SLICED = 50
# How many pairs of events are weighed at once in longer ones, outside training. The number of pairs grows with the
# square of a history's length, and so many, as of 128 people with 200 events each, take about half a gigabyte with four
# blocks and two heads.
_PAIRS_AT_ONCE = 2048 * _NEVER_SLICED**2


def _known_in_session(features: Tensors, now: tf.Tensor) -> Tensors:
    """The features of what is asked, without those of a moment that does not count, as from `_in_session`.

    Hour and date go with it: what they say depends on whether somebody clicks on or has come back. With them, what is
    asked long after would be answered as when people come back, and not as at an unknown moment.

    Args:
      features: transformed features, [rows, ...] by name.
      now: int32 [rows], the moments that count; 0 where none does.
    """
    return PersonDropout.without(features, {"moment": tf.equal(now, 0)})


def _in_session(moments: tf.Tensor, last: tf.Tensor, session: int) -> tf.Tensor:
    """Moments of asking; 0, for not known, where the last event was longer before than a session lasts, in seconds.

    Where there is no last event, or its time is not known, which is 0, no moment counts, either; nor does one that is
    as long before the last event, which only a wrong clock can say.

    What people rate later says little of the list that they had before them, and of years training knows nothing.
    """
    # In 64 bits, since a difference of two times may be longer than either.
    gap = tf.cast(moments, tf.int64) - tf.cast(last, tf.int64)
    return tf.where(tf.equal(last, 0) | (tf.abs(gap) > session), 0, moments)


def _asked(moments: tf.Tensor, times: tf.Tensor) -> tf.Tensor:
    """The moments from which gaps are counted: where one is not known, that of the event itself."""
    return tf.where(tf.equal(moments, 0), times, moments)


def _oldest_first(features: Tensors) -> list[tf.Tensor]:
    """The history's movies, ratings and times, oldest first; 0 where there is no event. Each [batch_size, length]."""
    movies, stars, times = (tf.reverse(features[name], axis=[1]) for name in HISTORY)
    return [movies, stars, tf.where(movies > 0, times, 0)]


def _in_slices(encode: Callable[..., tf.Tensor], histories: tuple[tf.Tensor, ...], shape: tuple[int, ...]) -> tf.Tensor:
    """Encodes histories, long ones some at once, so that memory for pairs of events does not grow with their number.

    Args:
      encode: called with slices of the histories' tensors.
      histories: [people, length, ...] each.
      shape: of what `encode` returns for one person.

    Returns:
      float32 [people, *shape].
    """
    people, length = tf.shape(histories[0])[0], histories[0].shape[1]
    if length <= _NEVER_SLICED:
        return encode(*histories)
    at_once = max(1, _PAIRS_AT_ONCE // length**2)

    def encode_some(number: tf.Tensor, parts: tf.TensorArray) -> tuple[tf.Tensor, tf.TensorArray]:
        start = number * at_once
        return number + 1, parts.write(number, encode(*(each[start : start + at_once] for each in histories)))

    # A slice without people stands for none, since slices have to be at least one to be put together.
    count = tf.maximum(1, (people + at_once - 1) // at_once)
    parts = tf.TensorArray(tf.float32, size=count, infer_shape=False, element_shape=[None, *shape])
    _, parts = tf.while_loop(lambda number, _: number < count, encode_some, (0, parts), parallel_iterations=1)
    return tf.ensure_shape(parts.concat(), [None, *shape])


def _places(present: tf.Tensor, first: tf.Tensor | None = None) -> tf.Tensor:
    """How many events are before each, from the place `first` on: int32 [batch_size, length]."""
    there = tf.cast(present, tf.int32)
    places = tf.cumsum(there, axis=1) - 1
    if first is not None:
        places -= tf.gather(tf.cumsum(there, axis=1, exclusive=True), first, batch_dims=1)
    return tf.maximum(places, 0)


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
        dim, length = hparams.embedding_dim, window_length(splits.train)
        self._person = FeatureEncoder(splits, (Role.USER, Role.CONTEXT), dim, hparams.l2, without=(USER_ID,))
        self._id_dropout, self._session = hparams.id_dropout, hparams.session
        self._ids = embedding(splits.size(USER_ID), dim, hparams.l2, initial=0.01, vocabulary=USER_ID)
        self._ratings = embedding(RATING_LEVELS, dim, 0.0)
        self._places = embedding(length, dim, 0.0, initial=0.02)
        self._dim, self._scale = dim, 0.25 * dim**0.5
        self._encoder = SequenceEncoder(length, hparams)
        self._gaps = embedding(KNOTS, dim, 0.0, initial=0.02)
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
        # At which moment the last event is asked makes no difference here: only `call` answers it.
        asked = self._asked_of(times, times[:, -1])
        return _in_slices(self._encoder.read, (events, present, times, asked), self._encoder.read_shape)

    def call(
        self, features: Tensors, table: tf.Tensor, movie_logits: tf.Tensor | None = None, training: bool = False
    ) -> tf.Tensor:
        del training
        movies, stars, times = _oldest_first(features)
        now = _in_session(features[SECONDS], times[:, -1], self._session)
        present = movies > 0
        read = features.get(HISTORY_READ)
        if read is None:
            # One pass over all events launches half as many operations as reading all but one, and then that one, which
            # counts for a single answer; it computes a little more, since the last block mixes all events.
            events = self._events(movies, stars, _places(present), table)
            state = _in_slices(
                lambda *some: self._encoder(*some, training=False)[:, -1],
                (events, present, times, self._asked_of(times, now)),
                (self._dim,),
            )
        else:
            last = self._events(movies[:, -1:], stars[:, -1:], _places(present)[:, -1:], table)
            asked = _asked(now, times[:, -1])
            state = self._encoder.last(read, last, present, times, asked[:, tf.newaxis])
        return self._answers(state, times[:, -1], now, _known_in_session(features, now))

    def of_windows(
        self, inputs: Tensors, known: Tensors, without_history: tf.Tensor | None, table: tf.Tensor, training: bool
    ) -> tf.Tensor:
        """The query vectors of the rows of windows, without padding: float32 [rows, dim].

        Args:
          inputs: as from `windows`; the movies of its events are row numbers in the table.
          known: as from `rows_of`, but without what is to be hidden of people and moments.
          without_history: bool [windows * length], whose history is hidden; None for nobody's.
          table: float32 [movies, dim].
          training: whether to drop hidden units.
        """
        movies, stars, times = (inputs[name] for name in EVENT)
        first, is_target = inputs[FIRST], inputs[IS_TARGET]
        present = movies > 0
        # Where no row is asked, the moment is that of the next event.
        following = tf.concat([times[:, 1:], times[:, -1:]], axis=1)
        now = tf.where(is_target, tf.reshape(known[SECONDS], tf.shape(times)), following)
        # Whose history is hidden is asked like people who have none.
        last = times
        if without_history is not None:
            last = tf.where(tf.reshape(without_history, tf.shape(times)), 0, times)
        now = _in_session(now, last, self._session)
        events = self._events(movies, stars, _places(present, first), table)
        states = self._encoder(events, present, times, _asked(now, times), first, training=training)
        states, last, now = (tf.reshape(each, [-1, *each.shape[2:]]) for each in (states, last, now))
        if without_history is not None:
            states *= 1.0 - tf.cast(without_history, tf.float32)[:, tf.newaxis]
        # Padding would be penalised as if it were people of whom nothing is known.
        places = tf.where(tf.reshape(is_target, [-1]))[:, 0]
        states, last, now = (tf.gather(each, places) for each in (states, last, now))
        known = {name: tf.gather(values, places) for name, values in known.items()}
        return self._answers(states, last, now, _known_in_session(known, now))

    def _asked_of(self, times: tf.Tensor, now: tf.Tensor) -> tf.Tensor:
        """The moments from which each event's gaps are counted: that of the event after it, and `now` for the last.

        Args:
          times: int32 [batch_size, length].
          now: int32 [batch_size], 0 where it is not known.

        Returns:
          int32 [batch_size, length].
        """
        following = _in_session(times[:, 1:], times[:, :-1], self._session)
        return _asked(tf.concat([following, now[:, tf.newaxis]], axis=1), times)

    def _events(self, movies: tf.Tensor, stars: tf.Tensor, places: tf.Tensor, table: tf.Tensor) -> tf.Tensor:
        """Vectors of what was rated, float32 [batch_size, events, dim]; each argument is [batch_size, events]."""
        levels = tf.one_hot(tf.cast(tf.round(stars), tf.int32), RATING_LEVELS)
        vectors = lookup(table, movies) + tf.tensordot(levels, self._ratings(tf.range(RATING_LEVELS)), 1)
        return self._scale * vectors + self._places(places)

    def _answers(self, states: tf.Tensor, last: tf.Tensor, now: tf.Tensor, features: Tensors) -> tf.Tensor:
        gaps = tf.matmul(gap_basis(now, last), self._gaps(tf.range(KNOTS)))
        return self._of_parts(tf.concat([states, gaps, self._person(features), self._user(features)], axis=1))

    def _user(self, features: Tensors) -> tf.Tensor:
        return user_vectors(self._ids, features[transformed_name(USER_ID)], self._id_dropout)
