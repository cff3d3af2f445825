"""Bias baselines solve their ridge problem, and popularity counts the ratings of each movie, also in each group."""

from types import SimpleNamespace
from typing import cast

import numpy as np
import pandas as pd
import pytest

from tests.trainers.planted_splits import planted_splits, with_history
from trainers.baselines import fit_biases, popularity, popularity_by_group
from trainers.datasets import Splits


def test_biases_solve_the_ridge_problem():
    rng = np.random.default_rng(0)
    users, movies = rng.integers(0, 12, 400), rng.integers(0, 9, 400)
    ratings = rng.integers(1, 6, 400).astype(np.float32)
    fitted = fit_biases(users, movies, ratings, user_size=12, movie_size=9, penalty=3.0, sweeps=200)
    design = np.hstack([np.eye(12)[users], np.eye(9)[movies]])
    exact = np.linalg.solve(design.T @ design + 3.0 * np.eye(21), design.T @ (ratings - ratings.mean()))
    np.testing.assert_allclose(np.concatenate([fitted.users, fitted.movies]), exact, atol=1e-5)


def test_unseen_users_and_movies_have_no_bias():
    fitted = fit_biases(np.array([1, 1]), np.array([2, 1]), np.array([5.0, 3.0]), user_size=4, movie_size=4)
    assert fitted.predict(np.array([3]), np.array([3])) == fitted.mean


def test_popularity_is_the_frequency_in_the_catalogue():
    movies = {"movie_id_xf": np.array([2, 1]), "movie_id_frequency_xf": np.array([7.0, 3.0], np.float32)}
    splits = cast(Splits, SimpleNamespace(movies=movies, movie_size=4))
    np.testing.assert_array_equal(popularity(splits), [0, 3, 7, 0])


@pytest.mark.parametrize("seed", range(3))
def test_popularity_by_group_is_the_share_of_a_groups_ratings_shrunk_towards_that_of_all(seed):
    splits = with_history(planted_splits(users=90, movies=60, ratings=1800, seed=seed))
    # People may leave out their gender or their age, and one group has no ratings at all.
    rng = np.random.default_rng(seed)
    missing = {name: rng.random(len(splits.train[name])) < 0.1 for name in ("gender_xf", "age_xf")}
    for name, rows in missing.items():
        splits.train[name][rows] = 0
    nobody = (splits.train["gender_xf"] == 1) & (splits.train["age_xf"] == 3)
    splits.train["age_xf"][nobody] = 4
    found = popularity_by_group(splits)

    train = pd.DataFrame({name: splits.train[f"{name}_xf"] for name in ("gender", "age", "movie_id")})
    everybody = train["movie_id"].value_counts(normalize=True)
    prior = 2000.0
    # Two genders, seven ages; both may be missing, and a gender may be an unknown word.
    assert found.shape == (4, 8, splits.movie_size)
    for gender in range(4):
        for age in range(8):
            group = train[(train["gender"] == gender) & (train["age"] == age)]
            counts = group["movie_id"].value_counts()
            both = counts.add(prior * everybody, fill_value=0) / (len(group) + prior)
            expected = both.reindex(range(splits.movie_size), fill_value=0)
            np.testing.assert_allclose(found[gender, age], expected, rtol=1e-5, atol=1e-9)
            assert found[gender, age].sum() == pytest.approx(1, rel=1e-5)
    np.testing.assert_allclose(found[1, 3], popularity(splits) / len(train), rtol=1e-5)
    assert np.abs(found[1, 4] - found[1, 3]).max() > 1e-3
