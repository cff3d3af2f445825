"""The reported metrics, in plain NumPy.

They share no code with `trainers.export.metrics`, so that each checks the other. A rank counts the movies that do not
score lower than the target: ties count against the model, and so do scores that are not numbers.
"""

import math

import numpy as np
from scipy import stats

from benchmarks.dataset import Ratings
from components.ingestion.histories import Ragged

KS = (1, 5, 10, 50, 100)
SQUARED_ERROR = "squared_error"

Values = dict[str, np.ndarray]


def target_ranks(
    scores: np.ndarray, users: np.ndarray, movies: np.ndarray, seen: Ragged | None = None, chunk: int = 2048
) -> np.ndarray:
    """Ranks of rated movies among all movies.

    Args:
      scores: float [n_users, n_movies].
      users: int64 [ratings], rows of `scores`.
      movies: int64 [ratings], columns of `scores`.
      seen: for each rating, columns that are left out, the rated movie not among them; None for none.
      chunk: ratings handled at a time.

    Returns:
      int64 [ratings], from 1.
    """
    ranks = np.empty(len(users), np.int64)
    for start in range(0, len(users), chunk):
        part = slice(start, start + chunk)
        # The index is an array, so this is a copy, and changing it leaves the scores as they are.
        rows = np.asarray(scores[users[part]], np.float32)
        targets = rows[np.arange(len(rows)), movies[part]][:, np.newaxis]
        if seen is not None:
            offsets = seen.offsets[start : start + len(rows) + 1]
            left_out = np.repeat(np.arange(len(rows)), np.diff(offsets)), seen.values[offsets[0] : offsets[-1]]
            rows[left_out] = -np.inf
        ranks[part] = scores.shape[1] - np.count_nonzero(rows < targets, axis=1)
    return ranks


def top_k_values(scores: np.ndarray, ratings: Ratings) -> Values:
    """Metrics of each rating, counted as one query with one relevant movie.

    Args:
      scores: float [n_users, n_movies].
      ratings: the ratings to find, and what the filtered metrics leave out of each.

    Returns:
      `recall_at_{1,5,10,50,100}` and `ndcg_at_10`, each also with `_filtered`: float [ratings].
    """
    values: Values = {}
    for suffix, seen in (("", None), ("_filtered", ratings.seen)):
        ranks = target_ranks(scores, ratings.users, ratings.movies, seen)
        values |= {f"recall_at_{k}{suffix}": (ranks <= k).astype(float) for k in KS}
        values[f"ndcg_at_10{suffix}"] = np.where(ranks <= 10, 1 / np.log2(1 + ranks), 0)
    return values


def top_k_metrics(scores: np.ndarray, ratings: Ratings) -> dict[str, float]:
    """Means of `top_k_values`."""
    return means(top_k_values(scores, ratings))


def rating_values(predicted: np.ndarray, stars: np.ndarray) -> Values:
    """Errors of predicted ratings, brought into the range of 1 to 5 stars first.

    Args:
      predicted: float [ratings].
      stars: float [ratings].

    Returns:
      `squared_error` and `absolute_error`: float [ratings], in stars.
    """
    errors = np.clip(predicted, 1.0, 5.0).astype(np.float64) - stars
    return {SQUARED_ERROR: errors**2, "absolute_error": np.abs(errors)}


def rating_metrics(predicted: np.ndarray, stars: np.ndarray) -> dict[str, float]:
    """Means of `rating_values`: `rmse` and `mae`, in stars."""
    return means(rating_values(predicted, stars))


def means(values: Values, kept: np.ndarray | slice = slice(None)) -> dict[str, float]:
    """Means over ratings.

    Args:
      values: of `top_k_values` and `rating_values`, one or both.
      kept: bool [ratings], which count; all by default.

    Returns:
      The same names; of errors `rmse`, the root of the mean square, and `mae`.
    """
    result = {name: float(np.mean(of_ratings[kept], dtype=np.float64)) for name, of_ratings in values.items()}
    if SQUARED_ERROR in result:
        result["rmse"] = math.sqrt(result.pop(SQUARED_ERROR))
        result["mae"] = result.pop("absolute_error")
    return result


def like_metrics(logits: np.ndarray, liked: np.ndarray) -> dict[str, float]:
    """How well log-odds tell likes from dislikes.

    Args:
      logits: float [ratings].
      liked: bool [ratings], of both kinds.

    Returns:
      `auc`, the share of pairs of a like and a dislike in which the like is given the larger odds, half of those in
      which both are given the same; and `log_loss`, the mean cross-entropy in nats.
    """
    logits = logits.astype(np.float64)
    likes, dislikes = np.count_nonzero(liked), np.count_nonzero(~liked)
    pairs_won = stats.rankdata(logits)[liked].sum() - likes * (likes + 1) / 2
    losses = np.logaddexp(0, np.where(liked, -logits, logits))
    return {"auc": float(pairs_won / (likes * dislikes)), "log_loss": float(losses.mean())}
