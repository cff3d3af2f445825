"""The reported metrics, in plain NumPy.

They share no code with `trainers.export.metrics`, so that a test can check each against the other. The rank of a movie
is the number of movies that do not score lower, itself included; ties and NaN scores thus count against the model.
"""

import math

import numpy as np
from scipy import stats

from benchmarks.dataset import Ratings
from components.ingestion.histories import Ragged

CUTOFFS = (1, 5, 10, 50, 100)
SQUARED_ERROR = "squared_error"

Values = dict[str, np.ndarray]


def target_ranks(
    scores: np.ndarray, users: np.ndarray, movies: np.ndarray, seen: Ragged | None = None, chunk: int = 2048
) -> np.ndarray:
    """Ranks of the rated movies among all movies.

    Args:
      scores: float [n_users, n_movies].
      users: int64 [ratings], row of `scores` of each rating.
      movies: int64 [ratings], column of `scores` of each rating.
      seen: for each rating, columns of `scores` to leave out, never the rated movie; None to leave out none.
      chunk: number of ratings handled at a time.

    Returns:
      int64 [ratings], from 1.
    """
    ranks = np.empty(len(users), np.int64)
    for start in range(0, len(users), chunk):
        part = slice(start, start + chunk)
        # Indexing with an array copies, so the `-inf` written below do not change `scores`.
        rows = np.asarray(scores[users[part]], np.float32)
        targets = rows[np.arange(len(rows)), movies[part]][:, np.newaxis]
        if seen is not None:
            offsets = seen.offsets[start : start + len(rows) + 1]
            left_out = np.repeat(np.arange(len(rows)), np.diff(offsets)), seen.values[offsets[0] : offsets[-1]]
            rows[left_out] = -np.inf
        ranks[part] = scores.shape[1] - np.count_nonzero(rows < targets, axis=1)
    return ranks


def top_k_values(scores: np.ndarray, ratings: Ratings) -> Values:
    """Top-k metrics of each rating, taken as a query with one relevant movie, the rated one.

    Args:
      scores: float [n_users, n_movies].
      ratings: the ratings whose movies are ranked; their `seen` is what the filtered metrics leave out.

    Returns:
      `recall_at_{1,5,10,50,100}` and `ndcg_at_10`, each also with `_filtered`: float [ratings].
    """
    values: Values = {}
    for suffix, seen in (("", None), ("_filtered", ratings.seen)):
        ranks = target_ranks(scores, ratings.users, ratings.movies, seen)
        values |= {f"recall_at_{k}{suffix}": (ranks <= k).astype(float) for k in CUTOFFS}
        values[f"ndcg_at_10{suffix}"] = np.where(ranks <= 10, 1 / np.log2(1 + ranks), 0)
    return values


def top_k_metrics(scores: np.ndarray, ratings: Ratings) -> dict[str, float]:
    """Means of `top_k_values`."""
    return means(top_k_values(scores, ratings))


def rating_values(predicted: np.ndarray, stars: np.ndarray) -> Values:
    """Errors of predicted ratings, which are first clipped to 1 to 5 stars.

    Args:
      predicted: float [ratings].
      stars: float [ratings].

    Returns:
      `squared_error` (in stars squared) and `absolute_error` (in stars): float [ratings].
    """
    errors = np.clip(predicted, 1.0, 5.0).astype(np.float64) - stars
    return {SQUARED_ERROR: errors**2, "absolute_error": np.abs(errors)}


def rating_metrics(predicted: np.ndarray, stars: np.ndarray) -> dict[str, float]:
    """Means of `rating_values`: `rmse` and `mae`, in stars."""
    return means(rating_values(predicted, stars))


def means(values: Values, selected: np.ndarray | slice = slice(None)) -> dict[str, float]:
    """Means of metrics over ratings.

    Args:
      values: result of `top_k_values` or `rating_values`, or both merged.
      selected: bool [ratings], the ratings that count; all by default.

    Returns:
      Means by name of the metric; in place of the two errors `rmse`, the root of the mean squared error, and `mae`.
    """
    result = {name: float(np.mean(per_rating[selected], dtype=np.float64)) for name, per_rating in values.items()}
    if SQUARED_ERROR in result:
        result["rmse"] = math.sqrt(result.pop(SQUARED_ERROR))
        result["mae"] = result.pop("absolute_error")
    return result


def like_metrics(logits: np.ndarray, liked: np.ndarray) -> dict[str, float]:
    """How well predicted log-odds separate likes from dislikes.

    Args:
      logits: float [ratings], predicted log-odds of a like.
      liked: bool [ratings]; must contain likes and dislikes.

    Returns:
      `auc`, the share of all pairs of a like and a dislike in which the like has the larger log-odds, ties counted as
      half; and `log_loss`, the mean cross-entropy in nats.
    """
    logits = logits.astype(np.float64)
    likes, dislikes = np.count_nonzero(liked), np.count_nonzero(~liked)
    pairs_won = stats.rankdata(logits)[liked].sum() - likes * (likes + 1) / 2
    losses = np.logaddexp(0, np.where(liked, -logits, logits))
    return {"auc": float(pairs_won / (likes * dislikes)), "log_loss": float(losses.mean())}
