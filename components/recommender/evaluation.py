"""What the recommender's `evaluate` returns for each test row, and under which names.

The list is judged as a person sees it: final, without what they had seen. Beside it are the retriever's own order of
the same candidates, and popularity.
"""

import tensorflow as tf

from trainers.export import metrics
from trainers.likes import is_liked

Tensors = dict[str, tf.Tensor]

# Of each list: `PREFIX` + `METRIC`.
LIST_PREFIXES = ("", "retrieval_", "popularity_")
LIST_METRICS = ("recall_at_5", "recall_at_10", "ndcg_at_10")
GROUP_PREFIX = "popularity_by_group_"
# Compared lists: `METRIC_over_OTHER`.
COMPARED_METRICS, COMPARED_WITH = ("recall_at_10", "ndcg_at_10"), ("retrieval", "popularity")
# Weights of rows, 0 or 1: whether the rating is 4 or 5, and whether the movie is among the first ten.
IS_LIKED, IS_HIT = "is_liked", "is_hit"
# Predicted minus given rating, in stars; 0 where the movie is not among the first ten.
RATING_ERROR = "rating_error"


def place_in(lists: tf.Tensor, targets: tf.Tensor) -> tf.Tensor:
    """The place of each row's movie in its list, from 1: int64 [batch_size].

    A movie that is not in the list has the place after the last one of a list that is never long enough.

    Args:
      lists: int32 [batch_size, places], movie indices.
      targets: int64 [batch_size], movie indices.
    """
    is_target = tf.equal(tf.cast(lists, tf.int64), targets[:, tf.newaxis])
    return tf.where(
        tf.reduce_any(is_target, axis=1), tf.argmax(tf.cast(is_target, tf.int32), axis=1) + 1, tf.int64.max // 2
    )


def list_metrics(places: tf.Tensor, prefix: str = "") -> Tensors:
    """`LIST_METRICS` of each row, from the place of its movie, int64 [batch_size]: float32 [batch_size] by name."""
    return {
        f"{prefix}recall_at_5": metrics.recall(places, 5),
        f"{prefix}recall_at_10": metrics.recall(places, 10),
        f"{prefix}ndcg_at_10": metrics.ndcg(places, 10),
    }


def row_values(
    final: tf.Tensor,
    retrieved: tf.Tensor,
    ratings: tf.Tensor,
    popularity: Tensors,
    targets: tf.Tensor,
    stars: tf.Tensor,
) -> Tensors:
    """Judges lists.

    Args:
      final: int32 [batch_size, places], movie indices in the final order.
      retrieved: the same movies in the retriever's order.
      ratings: float32 [batch_size, places], the predicted ratings of `final`.
      popularity: `LIST_METRICS` of popularity, of the movies that were not seen: float32 [batch_size] by name.
      targets: int64 [batch_size], movie indices.
      stars: float32 [batch_size], the ratings that were given.

    Returns:
      float32 [batch_size] by name.
    """
    place = place_in(final, targets)
    values = list_metrics(place)
    values |= list_metrics(place_in(retrieved, targets), "retrieval_")
    values |= {f"popularity_{name}": popularity[name] for name in LIST_METRICS}
    for name in COMPARED_METRICS:
        for other in COMPARED_WITH:
            values[f"{name}_over_{other}"] = values[name] - values[f"{other}_{name}"]
    is_target = tf.equal(tf.cast(final, tf.int64), targets[:, tf.newaxis])
    predicted = tf.reduce_sum(tf.where(is_target, ratings, 0.0), axis=1)
    values[IS_LIKED] = tf.cast(is_liked(stars), tf.float32)
    values[IS_HIT] = values["recall_at_10"]
    values[RATING_ERROR] = tf.where(values[IS_HIT] > 0, predicted - stars, 0.0)
    return values
