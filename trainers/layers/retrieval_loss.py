"""Retrieval losses: the softmax cross-entropy of the rated movie against other movies.

The exact softmax compares the rated movie with the whole catalogue and needs no sampling. For a catalogue too large for
that, the in-batch softmax compares it with the movies of the batch's other rows. These are drawn by popularity, not
uniformly, so every logit is corrected for it (Yi et al. 2019, https://doi.org/10.1145/3298689.3346996).
"""

import numpy as np
import tensorflow as tf
import tensorflow_recommenders as tfrs

from trainers.hyperparameters import RetrievalHyperparameters
from trainers.layers.towers import Tensors
from trainers.likes import is_liked
from transform.features import LABEL, transformed_name


class InBatchSoftmax:
    """Cross-entropies over the movies of a batch.

    The loss subtracts log Q from the logit of each movie, where Q is the probability that a row of the batch has this
    movie. With this correction, the loss estimates that of the softmax over the whole catalogue.

    The logits include the movies' biases, as they do in serving. The biases are initialised with log Q: the correction
    then cancels them out in the loss, and the softmax over the catalogue predicts popularity. Without the correction,
    the biases would have to unlearn popularity, since popular movies are also frequent negatives.

    Other rows with the same movie (accidental hits) are not negatives. As a consequence, movies that occur many times
    in a batch are predicted slightly too likely where they are likely. With `hard_negatives`, only the negatives with
    the highest corrected logits count, and the loss is no longer an estimate of the exact softmax's.
    """

    def __init__(self, hparams: RetrievalHyperparameters, log_popularity: np.ndarray):
        """Makes the loss.

        Args:
          hparams: temperature and hard negatives.
          log_popularity: float32 [movie indices], log Q, the logarithm of each movie's share of the train rows.
        """
        self._temperature = hparams.temperature
        # The task replaces probabilities below 1e-6 by 1e-6. Dividing all of them by the largest keeps them well above
        # that, and a constant factor does not change a softmax.
        self._sampling_probabilities = tf.constant(np.exp(log_popularity - log_popularity.max()), tf.float32)
        task = tfrs.tasks.Retrieval(
            # By default the task would sum the losses; it returns one for each row here, as some rows may not count.
            loss=tf.keras.losses.CategoricalCrossentropy(from_logits=True, reduction=tf.keras.losses.Reduction.NONE),
            temperature=hparams.temperature,
            num_hard_negatives=hparams.hard_negatives,
            remove_accidental_hits=True,
        )
        # The task takes the length of a shape by `len`, which only autograph makes sense of in a graph.
        self._task = tf.function(task, autograph=True)

    def losses(self, queries: tf.Tensor, candidates: tf.Tensor, biases: tf.Tensor, movies: tf.Tensor) -> tf.Tensor:
        """Computes the cross-entropy of each row's movie, in nats: float32 [batch_size].

        Args:
          queries: float32 [batch_size, dim].
          candidates: float32 [batch_size, dim], the vector of each row's movie.
          biases: float32 [batch_size], the bias of each row's movie.
          movies: int32 [batch_size], the index of each row's movie.
        """
        # The task computes dot products only, so the bias is one more dimension. The query's value in it is the
        # temperature, by which the task divides the logits, so that the bias itself stays undivided.
        bias_factor = tf.fill([tf.shape(queries)[0], 1], self._temperature)
        return self._task(
            tf.concat([queries, bias_factor], axis=1),
            tf.concat([candidates, biases[:, tf.newaxis]], axis=1),
            candidate_sampling_probability=tf.gather(self._sampling_probabilities, movies),
            candidate_ids=movies,
            compute_metrics=False,
            compute_batch_metrics=False,
        )


def mean_over_positives(losses: tf.Tensor, features: Tensors, positives: str, can_be_found: tf.Tensor) -> tf.Tensor:
    """Averages the losses of the rows that count as positives: float32 []; 0 if there are none.

    Args:
      losses: float32 [batch_size].
      features: transformed features with the ratings.
      positives: `watched` to count all rows, `liked` to count those of 4 and 5 stars.
      can_be_found: bool [batch_size], whether the row's movie is a candidate; others do not count.
    """
    counts = can_be_found if positives == "watched" else can_be_found & is_liked(features[transformed_name(LABEL)])
    weights = tf.cast(counts, tf.float32)
    return tf.math.divide_no_nan(tf.reduce_sum(weights * losses), tf.reduce_sum(weights))
