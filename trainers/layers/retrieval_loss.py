"""Losses of retrieval: the cross-entropy of the movie that was rated, against others.

The exact softmax compares it with the whole catalogue, which needs no sampling. For a catalogue too large for that, the
in-batch softmax compares it with the movies of the batch's other rows. These are drawn by popularity, not evenly, for
which every logit is corrected (Yi et al. 2019, https://doi.org/10.1145/3298689.3346996).
"""

import numpy as np
import tensorflow as tf
import tensorflow_recommenders as tfrs

from trainers.hyperparameters import RetrievalHyperparameters
from trainers.layers.towers import Tensors
from trainers.likes import is_liked
from transform.features import LABEL, transformed_name


class InBatchSoftmax:
    """Cross-entropies over the movies of a batch, each logit less log Q, of the chance Q to be drawn into it.

    The movies' biases stay part of the logits, as they are where movies are served: with the correction, it is the
    softmax of logits with biases, over the whole catalogue, that is learnt. They start as log Q, so that at first the
    two cancel out, and the softmax over the catalogue predicts popularity. Without the correction biases would have to
    unlearn popularity, since what is popular is also often a negative.

    Other rows of the same movie (accidental hits) are no negatives. Movies that a batch holds many times come out a
    little likelier for it where they are likely. With `hard_negatives`, only those negatives count whose corrected
    logits are highest; the loss is then no estimate of the exact softmax any more.
    """

    def __init__(self, hparams: RetrievalHyperparameters, log_popularity: np.ndarray):
        """Args: log_popularity is log Q, the logarithm of each movie's share of the train rows: [movie indices]."""
        self._temperature = hparams.temperature
        # A constant factor changes no softmax. As shares of the most popular movie's, chances do not come near the 1e-6
        # below which the task takes them for 1e-6.
        self._chances = tf.constant(np.exp(log_popularity - log_popularity.max()), tf.float32)
        self._task = tfrs.tasks.Retrieval(
            # One loss for each row, since not every row may count; by default they would be summed.
            loss=tf.keras.losses.CategoricalCrossentropy(from_logits=True, reduction=tf.keras.losses.Reduction.NONE),
            temperature=hparams.temperature,
            num_hard_negatives=hparams.hard_negatives,
            remove_accidental_hits=True,
        )

    def losses(self, queries: tf.Tensor, candidates: tf.Tensor, biases: tf.Tensor, movies: tf.Tensor) -> tf.Tensor:
        """Cross-entropies in nats: float32 [batch_size].

        Args:
          queries: float32 [batch_size, dim].
          candidates: float32 [batch_size, dim], the vector of each row's movie.
          biases: float32 [batch_size], its bias.
          movies: int32 [batch_size], its index.
        """
        # The task knows products only: a bias is one more dimension, which the temperature leaves as it is.
        scale = tf.fill([tf.shape(queries)[0], 1], self._temperature)
        return self._task(
            tf.concat([queries, scale], axis=1),
            tf.concat([candidates, biases[:, tf.newaxis]], axis=1),
            candidate_sampling_probability=tf.gather(self._chances, movies),
            candidate_ids=movies,
            compute_metrics=False,
            compute_batch_metrics=False,
        )


def mean_over_positives(losses: tf.Tensor, features: Tensors, positives: str) -> tf.Tensor:
    """Mean loss of the rows that are positives; 0 where there are none.

    Args:
      losses: float32 [batch_size].
      features: transformed features with the ratings.
      positives: `watched` for all rows, `liked` for those of 4 and 5 stars.
    """
    if positives == "watched":
        return tf.reduce_mean(losses)
    weights = tf.cast(is_liked(features[transformed_name(LABEL)]), tf.float32)
    return tf.math.divide_no_nan(tf.reduce_sum(weights * losses), tf.reduce_sum(weights))
