"""Batches and seen movies."""

import numpy as np
import pytest

from trainers.datasets import SeenMovies, batches, replica_batches

ARRAYS = {"x": np.arange(5)}


def test_every_row_comes_once_in_an_epoch_and_in_another_order_in_the_next():
    arrays = {"x": np.arange(1000), "y": np.arange(1000) * 2.0}
    dataset = batches(arrays, 64, shuffle_seed=1)
    epochs = [list(dataset.as_numpy_iterator()) for _ in range(2)]
    orders = [np.concatenate([batch["x"] for batch in epoch]) for epoch in epochs]
    for epoch, order in zip(epochs, orders, strict=True):
        np.testing.assert_array_equal(np.sort(order), np.arange(1000))
        np.testing.assert_array_equal(np.concatenate([batch["y"] for batch in epoch]), order * 2.0)
    assert (orders[0] != orders[1]).any()


def test_seen_movies_are_those_of_the_user():
    rng = np.random.default_rng(0)
    users, movies = rng.integers(1, 9, 200), rng.integers(1, 50, 200)
    seen = SeenMovies.of({"user_id_xf": users, "movie_id_xf": movies}, user_size=10)
    asked = np.array([3, 9, 3, 5])  # 9 has rated nothing
    pairs = seen.pairs(asked)
    for row, user in enumerate(asked):
        assert sorted(pairs[pairs[:, 0] == row, 1]) == sorted(movies[users == user])


@pytest.mark.parametrize(
    "dataset", [batches(ARRAYS, 2), batches(ARRAYS, 2, 0), replica_batches(ARRAYS, 2, 0, range(2), 2)]
)
def test_no_dataset_waits_for_a_thread_that_tunes_it(dataset):
    assert dataset.options().autotune.enabled is False
