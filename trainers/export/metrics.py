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


def seen_ahead(seen: tf.Tensor, seen_scores: tf.Tensor, targets: tf.Tensor, target_scores: tf.Tensor) -> tf.Tensor:
    """Number of seen movies that a rank counts, the target excepted: taking it off filters the rank.

    Args:
      seen: int64 [seen_pairs, 2] of row and movie, no pair twice.
      seen_scores: float32 [seen_pairs]; -inf for what is no candidate, which counts nowhere.
      targets: int64 [batch_size], movies.
      target_scores: float32 [batch_size].

    Returns:
      int64 [batch_size].
    """
    rows, movies = seen[:, 0], seen[:, 1]
    ahead = ~(seen_scores < tf.gather(target_scores, rows)) & (movies != tf.gather(targets, rows))
    ahead &= seen_scores != float("-inf")
    return tf.math.unsorted_segment_sum(tf.cast(ahead, tf.int64), rows, tf.shape(targets)[0])


def filtered_ranks(scores: tf.Tensor, targets: tf.Tensor, seen: tf.Tensor) -> tf.Tensor:
    """Ranks of the target movies among those that a user has not seen; the arguments are `retrieval_metrics`'s."""
    return target_ranks(scores, targets) - _seen_ahead_by_scores(scores, targets, seen)


def _seen_ahead_by_scores(scores: tf.Tensor, targets: tf.Tensor, seen: tf.Tensor) -> tf.Tensor:
    target_scores = tf.gather(scores, targets, batch_dims=1)
    return seen_ahead(seen, tf.gather_nd(scores, seen), targets, target_scores)


def recall(ranks: tf.Tensor, k: int) -> tf.Tensor:
    """1 where the target is among the first k, else 0: float32 [batch_size]."""
    return tf.cast(ranks <= k, tf.float32)


def ndcg(ranks: tf.Tensor, k: int) -> tf.Tensor:
    """Normalised discounted cumulative gain of one relevant movie: float32 [batch_size]."""
    discount = tf.math.log(2.0) / tf.math.log(1.0 + tf.cast(ranks, tf.float32))
    return tf.where(ranks <= k, discount, 0.0)


def rank_metrics(ranks: tf.Tensor, filtered: tf.Tensor) -> dict[str, tf.Tensor]:
    """Per-row metrics.

    Args:
      ranks: int64 [batch_size], from 1.
      filtered: the same with seen movies taken out.

    Returns:
      float32 [batch_size] by name: `recall_at_{1,5,10,50,100}` and `ndcg_at_10`, each also with `_filtered`.
    """
    values: dict[str, tf.Tensor] = {}
    for suffix, places in (("", ranks), ("_filtered", filtered)):
        values |= {f"recall_at_{k}{suffix}": recall(places, k) for k in KS}
        values[f"ndcg_at_10{suffix}"] = ndcg(places, 10)
    return values


def retrieval_metrics(scores: tf.Tensor, targets: tf.Tensor, seen: tf.Tensor) -> dict[str, tf.Tensor]:
    """Per-row metrics of scores of a whole catalogue.

    Args:
      scores: float32 [batch_size, movies]; -inf for movies that are not candidates.
      targets: int64 [batch_size], columns of `scores`.
      seen: int64 [seen_pairs, 2] of row and column, no pair twice.

    Returns:
      As `rank_metrics`.
    """
    ranks = target_ranks(scores, targets)
    return rank_metrics(ranks, ranks - _seen_ahead_by_scores(scores, targets, seen))


def popularity_metrics(popularity: tf.Tensor, targets: tf.Tensor, seen: tf.Tensor) -> dict[str, tf.Tensor]:
    """The same for everybody's scores being those of `popularity`, float32 [movies]."""
    ordered = tf.sort(popularity)
    scores = tf.gather(popularity, targets)
    ranks = tf.shape(popularity, out_type=tf.int64)[0] - tf.searchsorted(ordered, scores, out_type=tf.int64)
    ahead = seen_ahead(seen, tf.gather(popularity, seen[:, 1]), targets, scores)
    return rank_metrics(ranks, ranks - ahead)
