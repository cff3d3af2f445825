"""How models count time; preprocessing and the recommender, which reads times of requests, do it alike."""

import tensorflow as tf

_YEAR_2000 = 946_684_800  # In seconds since 1970.
_LAST_SECOND = 2**31 - 1


def seconds(timestamps: tf.Tensor) -> tf.Tensor:
    """Seconds since 2000 of times in seconds since 1970, int64 of any shape; 0 for 0, which stands for missing."""
    shifted = tf.clip_by_value(timestamps - _YEAR_2000, -_LAST_SECOND, _LAST_SECOND)
    # The first second of 2000 would be taken for missing.
    shifted = tf.where(tf.equal(shifted, 0), tf.ones_like(shifted), shifted)
    return tf.where(tf.equal(timestamps, 0), tf.zeros_like(shifted), shifted)
