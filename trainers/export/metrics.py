"""Top-k metrics over a whole catalogue, computed from scores in TensorFlow.

The rank of a target is the number of movies that score at least as high, so ties count against the model.
"""

import tensorflow as tf

KS = (1, 5, 10, 50, 100)


def target_ranks(scores: tf.Tensor, targets: tf.Tensor) -> tf.Tensor:
    """Ranks of the target movies.

    Args:
      scores: float32 [batch_size, movies]; -inf for movies that are not candidates.
      targets: int64 [batch_size], the column of each row's target in `scores`.

    Returns:
      int64 [batch_size], from 1. A target that is not a candidate itself ranks behind all others.
    """
    target_scores = tf.gather(scores, targets, batch_dims=1)[:, tf.newaxis]
    # This subtracts the movies below the target instead of counting those above it. Comparisons with NaN are false, so
    # NaN scores count against the model as well.
    movies = tf.shape(scores, out_type=tf.int64)[1]
    return movies - tf.math.count_nonzero(scores < target_scores, axis=1)


def seen_ahead(seen: tf.Tensor, seen_scores: tf.Tensor, targets: tf.Tensor, target_scores: tf.Tensor) -> tf.Tensor:
    """Counts the seen movies, other than the target, that score at least as high as the target.

    A rank minus this number is the filtered rank.

    Args:
      seen: int64 [seen_pairs, 2], each a row and a movie that its user has seen; no pair occurs twice.
      seen_scores: float32 [seen_pairs]; -inf for movies that are not candidates, which are not counted.
      targets: int64 [batch_size], the target movie of each row.
      target_scores: float32 [batch_size], the score of each target.

    Returns:
      int64 [batch_size].
    """
    rows, movies = seen[:, 0], seen[:, 1]
    ahead = ~(seen_scores < tf.gather(target_scores, rows)) & (movies != tf.gather(targets, rows))
    ahead &= seen_scores != float("-inf")
    return tf.math.unsorted_segment_sum(tf.cast(ahead, tf.int64), rows, tf.shape(targets)[0])


def filtered_ranks(scores: tf.Tensor, targets: tf.Tensor, seen: tf.Tensor) -> tf.Tensor:
    """Ranks of the target movies among the movies that the user has not seen: int64 [batch_size], from 1.

    Args:
      scores: float32 [batch_size, movies]; -inf for movies that are not candidates.
      targets: int64 [batch_size], the column of each row's target in `scores`.
      seen: int64 [seen_pairs, 2], each a row and a column of `scores`; no pair occurs twice.
    """
    return target_ranks(scores, targets) - _seen_ahead_by_scores(scores, targets, seen)


def _seen_ahead_by_scores(scores: tf.Tensor, targets: tf.Tensor, seen: tf.Tensor) -> tf.Tensor:
    target_scores = tf.gather(scores, targets, batch_dims=1)
    return seen_ahead(seen, tf.gather_nd(scores, seen), targets, target_scores)


def recall(ranks: tf.Tensor, k: int) -> tf.Tensor:
    """Recall@k of one relevant movie, 1 where the target is among the first k, else 0: float32 [batch_size]."""
    return tf.cast(ranks <= k, tf.float32)


def ndcg(ranks: tf.Tensor, k: int) -> tf.Tensor:
    """Normalised discounted cumulative gain at k (NDCG@k) of one relevant movie: float32 [batch_size]."""
    discount = tf.math.log(2.0) / tf.math.log(1.0 + tf.cast(ranks, tf.float32))
    return tf.where(ranks <= k, discount, 0.0)


def rank_metrics(ranks: tf.Tensor, filtered: tf.Tensor) -> dict[str, tf.Tensor]:
    """Computes the metrics of each row from its ranks.

    Args:
      ranks: int64 [batch_size], from 1.
      filtered: int64 [batch_size], the ranks among the movies that the user has not seen.

    Returns:
      float32 [batch_size] by name: `recall_at_{1,5,10,50,100}` and `ndcg_at_10`, each also with the suffix `_filtered`.
    """
    values: dict[str, tf.Tensor] = {}
    for suffix, places in (("", ranks), ("_filtered", filtered)):
        values |= {f"recall_at_{k}{suffix}": recall(places, k) for k in KS}
        values[f"ndcg_at_10{suffix}"] = ndcg(places, 10)
    return values


def retrieval_metrics(scores: tf.Tensor, targets: tf.Tensor, seen: tf.Tensor) -> dict[str, tf.Tensor]:
    """Computes the metrics of each row from the scores of a whole catalogue.

    Args:
      scores: float32 [batch_size, movies]; -inf for movies that are not candidates.
      targets: int64 [batch_size], the column of each row's target in `scores`.
      seen: int64 [seen_pairs, 2], each a row and a column of `scores`; no pair occurs twice.

    Returns:
      The metrics of `rank_metrics`.
    """
    ranks = target_ranks(scores, targets)
    return rank_metrics(ranks, ranks - _seen_ahead_by_scores(scores, targets, seen))


def popularity_metrics(popularity: tf.Tensor, targets: tf.Tensor, seen: tf.Tensor) -> dict[str, tf.Tensor]:
    """Computes the metrics of `retrieval_metrics` for a model that gives every user the same scores.

    Args:
      popularity: float32 [movies], the scores; -inf for movies that are not candidates.
      targets: int64 [batch_size], the target movie of each row.
      seen: int64 [seen_pairs, 2], each a row and a movie; no pair occurs twice.

    Returns:
      The metrics of `rank_metrics`.
    """
    ordered = tf.sort(popularity)
    scores = tf.gather(popularity, targets)
    ranks = tf.shape(popularity, out_type=tf.int64)[0] - tf.searchsorted(ordered, scores, out_type=tf.int64)
    ahead = seen_ahead(seen, tf.gather(popularity, seen[:, 1]), targets, scores)
    return rank_metrics(ranks, ranks - ahead)
