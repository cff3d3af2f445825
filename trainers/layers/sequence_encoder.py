"""Encodes sequences of events, and knows when each of them was.

It follows HSTU (Zhai et al. 2024, https://arxiv.org/abs/2402.17152) without the products of queries and keys: how much
an event counts depends on how many events ago it was and how long before the moment of asking, and on nothing else.
So a whole sequence is encoded at once, and each of its events answers what came next.
"""

import numpy as np
import tensorflow as tf

from trainers.hyperparameters import RetrievalHyperparameters

# Functions of a gap are piecewise linear between knots, see `gap_basis`: their number, and the distance between two, in
# logarithms of seconds. All gaps beyond the last knot, e^18 seconds or two years, are alike.
KNOTS, _STEP = 13, 1.5

# With curves that are 0 at first, SiLU would weigh every event by 0, and the mean of many events would be small.
_AT_FIRST, _GAIN = 0.1, 4.0


class SequenceEncoder(tf.keras.layers.Layer):
    """Encodes sequences of events; the vector of an event tells of it and of all before it.

    A call encodes all events. Where only the vector of the last one is wanted, `read` says what all others tell it,
    which does not depend on the moment of asking, and `last` answers.

    Call arguments:
      events: float32 [batch_size, length, dim], oldest first; events may be missing in front, and behind.
      present: bool [batch_size, length].
      times: int32 [batch_size, length], when each event was, as Kind.SECONDS; 0 where not known.
      asked: int32 [batch_size, length], the moment for which each event's vector is wanted; 0 where not known.
      first: int32 [batch_size, length], the place of the first event that each event may know of; None for the first of
        all.

    Returns:
      float32 [batch_size, length, dim]; 0 for a missing event.
    """

    def __init__(self, length: int, hparams: RetrievalHyperparameters):
        super().__init__()
        self._heads, self._blocks = hparams.attention_heads, hparams.blocks
        self._length, self._dim = length, hparams.embedding_dim
        dim = self._dim
        self._norms = [tf.keras.layers.LayerNormalization(epsilon=1e-6) for _ in range(2 * hparams.blocks)]
        self._into = [tf.keras.layers.Dense(2 * dim, activation="silu") for _ in range(hparams.blocks)]
        # Smaller than usual, so that a block at first changes little of what it adds to.
        small = [tf.keras.initializers.RandomNormal(stddev=0.5 * dim**-0.5) for _ in range(hparams.blocks)]
        self._out = [tf.keras.layers.Dense(dim, kernel_initializer=each) for each in small]
        self._dropout = tf.keras.layers.Dropout(hparams.dropout)
        curves = [hparams.blocks, hparams.attention_heads]
        self._by_distance = self.add_weight("by_distance", [length, *curves], initializer="zeros")
        self._by_gap = self.add_weight("by_gap", [KNOTS, *curves], initializer="zeros")

    def call(
        self,
        events: tf.Tensor,
        present: tf.Tensor,
        times: tf.Tensor,
        asked: tf.Tensor,
        first: tf.Tensor | None = None,
        training: bool = False,
    ) -> tf.Tensor:
        there = tf.cast(present, tf.float32)[..., tf.newaxis]
        weights = self._weights(present, times, asked, first)
        x = self._dropout(events * there, training=training)
        for block in range(self._blocks):
            gates, values = self._gates_and_values(block, x)
            x = self._mixed(block, x, gates, values, weights[block], training)
        return x * there

    @property
    def read_shape(self) -> tuple[int, int]:
        """The shape of what `read` returns for one sequence."""
        return self._length - 1, self._blocks * self._dim

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

    def _weights(
        self, present: tf.Tensor, times: tf.Tensor, asked: tf.Tensor, first: tf.Tensor | None = None
    ) -> list[tf.Tensor]:
        """How much events count for the last ones, by block: float32 [batch_size, heads, last ones, length].

        Args:
          present: bool [batch_size, length].
          times: int32 [batch_size, length].
          asked: int32 [batch_size, last ones], the moments for which the last events' vectors are wanted.
          first: int32 [batch_size, last ones], the place of the first event that counts; None for the first of all.
        """
        length, rows = present.shape[1], asked.shape[1]
        places = np.arange(length)
        distances = places[length - rows :, np.newaxis] - places
        curves = self._blocks * self._heads
        by_distance = tf.gather(
            tf.transpose(tf.reshape(self._by_distance, [-1, curves])), np.maximum(distances, 0), axis=1
        )
        # The knots are the second axis, so that the long axes are the last ones, along which TensorFlow is fastest.
        gaps = tf.reshape(gap_basis(asked[:, :, tf.newaxis], times[:, tf.newaxis], axis=1), [-1, KNOTS, rows * length])
        by_gap = tf.matmul(tf.reshape(self._by_gap, [KNOTS, curves]), gaps, transpose_a=True)
        weights = tf.nn.silu(tf.reshape(by_gap, [-1, curves, rows, length]) + (by_distance + _AT_FIRST))
        # Of what they may know of, each event has the same part.
        counted = tf.constant((distances >= 0).astype(np.float32)) * tf.cast(present, tf.float32)[:, tf.newaxis]
        if first is not None:
            counted *= tf.cast(tf.constant(places, tf.int32) >= first[:, :, tf.newaxis], tf.float32)
        share = _GAIN * counted / tf.maximum(tf.reduce_sum(counted, axis=2, keepdims=True), 1.0)
        # One gradient of all blocks is put together faster than a sum of one for each.
        return tf.split(weights * share[:, tf.newaxis], self._blocks, axis=1)


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
    seconds = tf.cast(tf.maximum(gap, 1), tf.float32)
    place = tf.minimum(tf.math.log(seconds) / _STEP, KNOTS - 1.0)
    is_known = tf.not_equal(later, 0) & tf.not_equal(earlier, 0)
    # Where it is not known, the place is far from all knots.
    place = tf.expand_dims(tf.where(is_known, place, -2.0), axis)
    knots = [1] * len(place.shape)
    knots[axis] = KNOTS
    return tf.nn.relu(1.0 - tf.abs(place - tf.reshape(tf.range(KNOTS, dtype=tf.float32), knots)))


def _split(x: tf.Tensor, heads: int) -> tf.Tensor:
    return tf.reshape(x, [-1, x.shape[1], heads, x.shape[2] // heads])
