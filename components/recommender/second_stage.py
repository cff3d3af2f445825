"""The second stage: orders the retrieved movies by how likely the person is to watch them and to like them.

The value of a movie is a weighted sum of what both models say of it, and of what is known of the movie:

* the retrieval score, which is a log-probability of watching it, up to a constant;
* the predicted rating and its square, in stars from the middle of the scale;
* the logarithm of how many ratings the movie has, and its bias, the stars that it gets more than others.

The weights are those of a conditional logit model (McFadden 1974): the softmax of the values over a person's candidates
is the probability that the movie of the row is the one that they watched. Rows of less than 4 stars count less, so that
the list has what people like. How much less, is chosen on rows that were not fitted: as little as the recall of watched
movies allows, which may not fall below that of the retriever's own order by more than a tolerance.
"""

import logging
from dataclasses import dataclass

import numpy as np
from scipy import optimize

from trainers.likes import is_liked

_logger = logging.getLogger(__name__)

FEATURES = ("retrieval_score", "rating", "squared_rating", "log_popularity", "movie_bias")
MIDDLE = 3.0  # Stars.

# By retrieval score alone.
RETRIEVAL_ORDER = np.array([1.0, 0.0, 0.0, 0.0, 0.0])
# By predicted rating alone.
RATING_ORDER = np.array([0.0, 1.0, 0.0, 0.0, 0.0])

# How much a row that is not liked counts, from as much as one that is.
_SHARES_OF_OTHERS = (1.0, 0.5, 0.25, 0.125, 0.0)
# Strength of the pull towards the retriever's own order, in rows.
_PRIOR = 10.0
_FOLDS = 2
_PLACES = 10


@dataclass(frozen=True)
class Candidates:
    """The candidates of some rows, in the retriever's order.

    Attributes:
      features: float [rows, candidates, features], in the order of `FEATURES`; -inf as score where there is no movie.
      target: int [rows], the place of the row's movie among the candidates, where there is a movie; or -1.
      stars: float [rows], the row's rating.
      users: int [rows], whose rows they are.
    """

    features: np.ndarray
    target: np.ndarray
    stars: np.ndarray
    users: np.ndarray

    def of(self, chosen: np.ndarray) -> "Candidates":
        """Some of the rows: bool [rows]."""
        return Candidates(self.features[chosen], self.target[chosen], self.stars[chosen], self.users[chosen])


@dataclass(frozen=True)
class Quality:
    """Quality of an order of candidates.

    Attributes:
      hits: bool [rows], whether the row's movie is among the first ten.
      liked_ndcg: NDCG@10 of the movies rated 4 or 5.
    """

    hits: np.ndarray
    liked_ndcg: float

    def loses(self, other: "Quality", errors: float) -> float:
        """Recall@10 that is lost against another order: what was counted, and some standard errors more or less."""
        lost = other.hits.astype(float) - self.hits
        return float(lost.mean() + errors * lost.std() / np.sqrt(len(lost)))


def fit(rows: Candidates, tolerance: float, people: str = "all") -> np.ndarray:
    """Finds the weights of the second stage: float64 [features].

    Args:
      rows: rows that are not test rows, and that neither model should have been trained on.
      tolerance: recall@10 that may be lost against the retriever's own order.
      people: whose rows they are, in a word, for the log.

    Returns:
      The weights; those of the retriever's own order if no others have a larger NDCG@10 of liked movies, or all lose
      too much recall@10.
    """
    own = quality(values(rows, RETRIEVAL_ORDER), rows)
    reached = {share: quality(_held_out_values(rows, share), rows) for share in _SHARES_OF_OTHERS}
    allowed = [share for share in _SHARES_OF_OTHERS if reached[share].loses(own, errors=1) <= tolerance]
    # Few rows cannot tell that an order loses so little. The one fitted to all rows alike is allowed then, unless
    # it is known to lose more.
    if 1 not in allowed and reached[1].loses(own, errors=-1) <= tolerance:
        allowed.append(1)
    if not allowed:
        _logger.info("Second stage for %s people: any other order than the retriever's own loses too much.", people)
        return RETRIEVAL_ORDER
    best = max(allowed, key=lambda share: reached[share].liked_ndcg)
    better = reached[best].liked_ndcg > own.liked_ndcg
    weights = _fit_share(rows, best) if better else RETRIEVAL_ORDER
    _logger.info(
        "Second stage for %s people, by %d eval rows: recall@10 %.4f for %.4f in the retriever's order, NDCG@10 of "
        "liked movies %.4f for %.4f; rows of fewer than 4 stars count %s; weights %s",
        *(people, len(rows.users)),
        *(reached[best].hits.mean(), own.hits.mean(), reached[best].liked_ndcg, own.liked_ndcg),
        *(
            best if better else "nothing: the retriever's order stays",
            dict(zip(FEATURES, weights.round(3).tolist(), strict=True)),
        ),
    )
    return weights


def _held_out_values(rows: Candidates, share: float) -> np.ndarray:
    """The values of each row, with weights that were fitted to the other half of the users."""
    folds = _folds(rows.users)
    of_rows = np.empty(rows.features.shape[:2])
    for fold in range(_FOLDS):
        weights = _fit_share(rows.of(folds != fold), share)
        of_rows[folds == fold] = values(rows.of(folds == fold), weights)
    return of_rows


def values(rows: Candidates, weights: np.ndarray) -> np.ndarray:
    """The value of each candidate: float64 [rows, candidates]; -inf where there is no movie."""
    return np.where(_is_movie(rows), np.nan_to_num(rows.features, neginf=0.0) @ weights, -np.inf)


def quality(of_values: np.ndarray, rows: Candidates) -> Quality:
    """Measures the order of falling values.

    Args:
      of_values: float [rows, candidates], from `values`.
      rows: the rows.
    """
    own = np.take_along_axis(of_values, np.maximum(rows.target, 0)[:, np.newaxis], axis=1)
    places = np.arange(of_values.shape[1])
    # Of candidates with equal values, the one that the retriever puts first comes first.
    ahead = (of_values > own) | ((of_values == own) & (places < rows.target[:, np.newaxis]))
    ranks = np.where(rows.target >= 0, ahead.sum(axis=1) + 1, np.inf)
    gains = np.where(ranks <= _PLACES, np.log(2) / np.log(1 + ranks), 0.0)
    liked = is_liked(rows.stars)
    return Quality(ranks <= _PLACES, float(gains[liked].mean()) if liked.any() else 0.0)


def _folds(users: np.ndarray) -> np.ndarray:
    """Divides rows into folds, such that all rows of a user are in one."""
    _, numbers = np.unique(users, return_inverse=True)
    return numbers % _FOLDS


def _is_movie(rows: Candidates) -> np.ndarray:
    return np.isfinite(rows.features[..., 0])


def _fit_share(rows: Candidates, share: float) -> np.ndarray:
    """Fits the weights, where rows of fewer than 4 stars count `share`."""
    found = rows.of(rows.target >= 0)
    counts = np.where(is_liked(found.stars), 1.0, share)
    is_movie, features = _is_movie(found), np.nan_to_num(found.features, neginf=0.0)
    own = np.take_along_axis(features, found.target[:, np.newaxis, np.newaxis], axis=1)[:, 0]

    def loss_and_gradient(weights: np.ndarray) -> tuple[float, np.ndarray]:
        logits = np.where(is_movie, features @ weights, -np.inf)
        logits -= logits.max(axis=1, keepdims=True)
        chances = np.exp(logits)
        totals = chances.sum(axis=1, keepdims=True)
        chances /= totals
        losses = np.log(totals[:, 0]) - np.take_along_axis(logits, found.target[:, np.newaxis], axis=1)[:, 0]
        gradients = np.einsum("rc,rcf->rf", chances, features) - own
        away = weights - RETRIEVAL_ORDER
        return counts @ losses + _PRIOR / 2 * away @ away, counts @ gradients + _PRIOR * away

    if not len(found.users):
        return RETRIEVAL_ORDER
    return optimize.minimize(loss_and_gradient, RETRIEVAL_ORDER, jac=True, method="BFGS").x
