"""Retrieval metrics equal those of plain counting; ties count against the target, and seen movies are taken out."""

import numpy as np
import pytest
import tensorflow as tf

from trainers.export import metrics

MOVIES = 40


def rank_by_counting(scores, target, seen=()):
    rivals = [movie for movie in range(len(scores)) if movie != target and movie not in seen]
    return 1 + sum(not scores[movie] < scores[target] for movie in rivals)


@pytest.fixture
def batch():
    rng = np.random.default_rng(0)
    # There are few distinct scores, so that many are tied.
    scores = rng.integers(0, 12, (64, MOVIES)).astype(np.float32)
    targets = rng.integers(0, MOVIES, 64)
    seen = [set(rng.choice(MOVIES, rng.integers(0, 15), replace=False)) for _ in range(64)]
    pairs = np.array([(row, movie) for row, movies in enumerate(seen) for movie in movies])
    return scores, targets, seen, pairs


def test_metrics_equal_those_of_counting(batch):
    scores, targets, seen, pairs = batch
    values = metrics.retrieval_metrics(tf.constant(scores), tf.constant(targets), tf.constant(pairs))
    for suffix, excluded in (("", [()] * 64), ("_filtered", seen)):
        rows = zip(scores, targets, excluded, strict=True)
        ranks = np.array([rank_by_counting(row, target, out) for row, target, out in rows])
        for k in metrics.KS:
            np.testing.assert_array_equal(values[f"recall_at_{k}{suffix}"], ranks <= k)
        np.testing.assert_allclose(
            values[f"ndcg_at_10{suffix}"], np.where(ranks <= 10, 1 / np.log2(ranks + 1), 0), rtol=1e-6
        )


def test_equal_scores_count_against_the_target():
    assert metrics.target_ranks(tf.zeros([1, 5]), tf.constant([2], tf.int64)).numpy() == [5]


def test_nan_scores_rank_last():
    assert metrics.target_ranks(tf.fill([1, 5], float("nan")), tf.constant([2], tf.int64)).numpy() == [5]


def test_a_seen_target_stays_a_candidate():
    scores = tf.constant([[3.0, 2.0, 1.0]])
    seen = tf.constant([[0, 0], [0, 1]], tf.int64)
    assert metrics.filtered_ranks(scores, tf.constant([1], tf.int64), seen).numpy() == [1]


def test_seen_movies_without_a_finite_score_do_not_change_the_rank():
    scores = tf.constant([[float("-inf"), float("-inf"), 3.0, 2.0]])
    seen = tf.constant([[0, 1], [0, 2]], tf.int64)
    assert metrics.filtered_ranks(scores, tf.constant([3], tf.int64), seen).numpy() == [1]
    # A target without a finite score ranks 4th of 4; only the seen movie with a finite score is taken off this rank.
    assert metrics.filtered_ranks(scores, tf.constant([0], tf.int64), seen).numpy() == [3]


def test_popularity_metrics_equal_those_of_the_same_scores_for_every_user(batch):
    scores, targets, _, pairs = batch
    counts = scores[0].copy()
    counts[[0, -1]] = -np.inf
    everybody = np.tile(counts, (len(scores), 1))
    expected = metrics.retrieval_metrics(tf.constant(everybody), tf.constant(targets), tf.constant(pairs))
    actual = metrics.popularity_metrics(tf.constant(counts), tf.constant(targets), tf.constant(pairs))
    assert actual.keys() == expected.keys()
    for name, values in expected.items():
        np.testing.assert_array_equal(actual[name], values)
