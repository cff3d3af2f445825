"""Bias baselines solve their ridge problem, and the popularity baseline counts the ratings of each movie."""

from types import SimpleNamespace
from typing import cast

import numpy as np

from trainers.baselines import fit_biases, popularity
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
