"""The reported metrics against a loop over every movie, and against the metrics that the models export."""

import numpy as np
import pytest

from benchmarks.dataset import Ratings
from benchmarks.metrics import rating_metrics, target_ranks, top_k_metrics
from components.ingestion.histories import Ragged

USERS, MOVIES = 7, 150


@pytest.fixture
def case() -> tuple[np.ndarray, Ratings]:
    """Coarse scores with many ties, ratings to find and, for each of them, other movies that were seen, or none."""
    rng = np.random.default_rng(0)
    scores = rng.integers(0, 40, (USERS, MOVIES)).astype(np.float32)
    users, movies = np.divmod(rng.permutation(USERS * MOVIES)[:60], MOVIES)
    seen = [rng.permutation(np.delete(np.arange(MOVIES), movie))[: rng.integers(0, 60)] for movie in movies]
    return scores, Ratings(users, movies, np.ones(60), ragged(seen))


def ragged(lists: list) -> Ragged:
    return Ragged(np.cumsum([0, *map(len, lists)]), np.concatenate(lists).astype(np.int64))


def brute_force_rank(scores: np.ndarray, target: int, left_out: set[int]) -> int:
    others = [movie for movie in range(len(scores)) if movie != target and movie not in left_out]
    return 1 + sum(scores[movie] >= scores[target] for movie in others)


def test_top_k_metrics_equal_a_count_movie_by_movie(case):
    scores, ratings = case
    left_out = np.split(ratings.seen.values, ratings.seen.offsets[1:-1])
    pairs = list(zip(ratings.users, ratings.movies, strict=True))
    unfiltered = [brute_force_rank(scores[u], m, set()) for u, m in pairs]
    filtered = [brute_force_rank(scores[u], m, set(seen)) for (u, m), seen in zip(pairs, left_out, strict=True)]

    metrics = top_k_metrics(scores, ratings)

    for suffix, ranks in (("", unfiltered), ("_filtered", filtered)):
        for k in (1, 5, 10, 50, 100):
            assert metrics[f"recall_at_{k}{suffix}"] == pytest.approx(sum(rank <= k for rank in ranks) / len(ranks))
        gains = [1 / np.log2(rank + 1) for rank in ranks if rank <= 10]
        assert metrics[f"ndcg_at_10{suffix}"] == pytest.approx(sum(gains) / len(ranks))
    assert metrics["recall_at_10_filtered"] > metrics["recall_at_10"] > 0


def test_chunks_do_not_change_the_ranks(case):
    scores, ratings = case
    for seen in (None, ratings.seen):
        whole = target_ranks(scores, ratings.users, ratings.movies, seen)
        np.testing.assert_array_equal(whole, target_ranks(scores, ratings.users, ratings.movies, seen, chunk=7))


def test_equal_scores_rank_last():
    assert target_ranks(np.zeros((2, 9)), np.array([0, 1]), np.array([3, 5])).tolist() == [9, 9]


def test_scores_that_are_not_numbers_never_count_as_hits():
    assert target_ranks(np.full((1, 9), np.nan), np.array([0]), np.array([3])).tolist() == [9]


def test_scores_are_left_as_they_were(case):
    scores, ratings = case
    before = scores.copy()
    top_k_metrics(scores, ratings)
    np.testing.assert_array_equal(scores, before)


def test_rating_metrics_by_hand():
    metrics = rating_metrics(np.array([3.0, 7.0, 1.5]), np.array([4.0, 5.0, 1.0]))
    assert metrics["rmse"] == pytest.approx(np.sqrt((1 + 0 + 0.25) / 3))
    assert metrics["mae"] == pytest.approx(0.5)


def test_the_exported_metrics_agree(case):
    import tensorflow as tf

    from trainers.export.metrics import retrieval_metrics

    scores, ratings = case
    row = np.repeat(np.arange(len(ratings)), np.diff(ratings.seen.offsets))
    exported = retrieval_metrics(
        tf.constant(scores[ratings.users]),
        tf.constant(ratings.movies, tf.int64),
        tf.constant(np.stack([row, ratings.seen.values], axis=1), tf.int64),
    )

    expected = top_k_metrics(scores, ratings)

    assert expected.keys() <= exported.keys()
    for name, value in expected.items():
        assert float(tf.reduce_mean(exported[name])) == pytest.approx(value, abs=1e-6), name
