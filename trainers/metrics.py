"""Top-k metrics over a whole catalogue, as TensorFlow functions of scores.

A rank counts the movies that score at least as high as the target, so ties count against the model.
"""

import tensorflow as tf

KS = (1, 5, 10, 50, 100)


def target_ranks(scores: tf.Tensor, targets: tf.Tensor) -> tf.Tensor:
    """Ranks of the target movies.

    Args:
      scores: float32 [batch_size, movies]; -inf for movies that are not candidates.
      targets: int64 [batch_size], columns of `scores`.

    Returns:
      int64 [batch_size], from 1. A target that is no candidate itself ranks behind all others.
    """
    target_scores = tf.gather(scores, targets, batch_dims=1)[:, tf.newaxis]
    # Counted from below, so that a score that is not a number counts against the model as well.
    movies = tf.shape(scores, out_type=tf.int64)[1]
    return movies - tf.math.count_nonzero(scores < target_scores, axis=1)


def without_seen(scores: tf.Tensor, seen: tf.Tensor, targets: tf.Tensor) -> tf.Tensor:
    """Scores with the movies that a user has seen taken out, the target excepted.

    Args:
      scores: float32 [batch_size, movies].
      seen: int64 [seen_pairs, 2] of row and column.
      targets: int64 [batch_size], columns of `scores`.

    Returns:
      float32 [batch_size, movies], -inf where seen.
    """
    rows = tf.range(tf.shape(targets, out_type=tf.int64)[0])
    cells = tf.stack([rows, targets], axis=1)
    target_scores = tf.gather_nd(scores, cells)
    lowest = tf.fill(tf.shape(seen)[:1], float("-inf"))
    return tf.tensor_scatter_nd_update(tf.tensor_scatter_nd_update(scores, seen, lowest), cells, target_scores)


def recall(ranks: tf.Tensor, k: int) -> tf.Tensor:
    """1 where the target is among the first k, else 0: float32 [batch_size]."""
    return tf.cast(ranks <= k, tf.float32)


def ndcg(ranks: tf.Tensor, k: int) -> tf.Tensor:
    """Normalised discounted cumulative gain of one relevant movie: float32 [batch_size]."""
    discount = tf.math.log(2.0) / tf.math.log(1.0 + tf.cast(ranks, tf.float32))
    return tf.where(ranks <= k, discount, 0.0)


def retrieval_metrics(scores: tf.Tensor, targets: tf.Tensor, seen: tf.Tensor) -> dict[str, tf.Tensor]:
    """Per-row metrics, unfiltered and with seen movies taken out.

    Args:
      scores: float32 [batch_size, movies]; -inf for movies that are not candidates.
      targets: int64 [batch_size], columns of `scores`.
      seen: int64 [seen_pairs, 2] of row and column.

    Returns:
      float32 [batch_size] by name: `recall_at_{1,5,10,50,100}` and `ndcg_at_10`, each also with `_filtered`.
    """
    values = {}
    for suffix, candidates in (("", scores), ("_filtered", without_seen(scores, seen, targets))):
        ranks = target_ranks(candidates, targets)
        for k in KS:
            values[f"recall_at_{k}{suffix}"] = recall(ranks, k)
        values[f"ndcg_at_10{suffix}"] = ndcg(ranks, 10)
    return values
