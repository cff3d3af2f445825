"""The simple models against slow, obvious solutions of the same problem."""

import numpy as np
import pytest
from scipy import sparse

from benchmarks import baselines
from benchmarks.dataset import Ratings

USERS, MOVIES = 12, 8


@pytest.fixture
def train() -> Ratings:
    """Ratings of a taste of rank one; user 11 and movie 7 have none."""
    rng = np.random.default_rng(0)
    pairs = rng.permutation((USERS - 1) * (MOVIES - 1))[:55]
    users, movies = np.divmod(pairs, MOVIES - 1)
    taste = np.outer(rng.normal(size=USERS), rng.normal(size=MOVIES))
    return Ratings(users, movies, np.clip(np.round(3 + taste[users, movies]), 1, 5))


def test_popularity_counts_ratings():
    train = Ratings(np.array([0, 1, 2, 0]), np.array([2, 2, 2, 0]), np.array([1.0, 1.0, 1.0, 5.0]))
    assert baselines.popularity(train, 4).tolist() == [1, 0, 3, 0]


def test_popularity_in_a_group_is_drawn_to_everybodys():
    users, movies = np.array([0, 0, 0, 1, 2]), np.array([0, 0, 1, 1, 2])
    shares = baselines.group_popularity(Ratings(users, movies, np.ones(5)), np.array([0, 0, 1, 2]), 3, prior=5.0)
    # Everybody's: two, two and one of five.
    np.testing.assert_allclose(shares[0], np.array([2 + 2, 2 + 2, 0 + 1]) / 9, rtol=1e-6)
    np.testing.assert_array_equal(shares[0], shares[1])
    np.testing.assert_allclose(shares[2], np.array([0 + 2, 0 + 2, 1 + 1]) / 6, rtol=1e-6)
    np.testing.assert_allclose(shares[3], np.array([2, 2, 1]) / 5, rtol=1e-6)


def test_ease_is_the_best_linear_model_without_self_similarity(train):
    dense = np.zeros((USERS, MOVIES))
    dense[train.users, train.movies] = 1
    penalty = 3.0
    # Without a weight for itself, every movie is a ridge regression on the others.
    weights = np.zeros((MOVIES, MOVIES))
    for movie in range(MOVIES):
        others = np.arange(MOVIES) != movie
        x = dense[:, others]
        weights[others, movie] = np.linalg.solve(x.T @ x + penalty * np.eye(MOVIES - 1), x.T @ dense[:, movie])

    np.testing.assert_allclose(baselines.ease(sparse.csr_array(dense), penalty), weights, atol=1e-5)


def test_biases_are_the_ridge_solution(train):
    penalty = 2.0
    design = np.zeros((len(train), USERS + MOVIES))
    design[np.arange(len(train)), train.users] = 1
    design[np.arange(len(train)), USERS + train.movies] = 1
    # Ridge regression is least squares with one more row per weight.
    expected, *_ = np.linalg.lstsq(
        np.vstack([design, np.sqrt(penalty) * np.eye(USERS + MOVIES)]),
        np.concatenate([train.stars - train.stars.mean(), np.zeros(USERS + MOVIES)]),
    )

    model = baselines.fit_biases(train, USERS, MOVIES, penalty)

    np.testing.assert_allclose(model.users[:, 0], expected[:USERS], atol=1e-7)
    np.testing.assert_allclose(model.movies[:, 0], expected[USERS:], atol=1e-7)
    assert model.predict(np.array([11]), np.array([7])) == pytest.approx(train.stars.mean())


def test_the_pipelines_biases_agree(train):
    from trainers.baselines import fit_biases

    ours = baselines.fit_biases(train, USERS, MOVIES, penalty=5.0)

    theirs = fit_biases(train.users, train.movies, train.stars, USERS, MOVIES, penalty=5.0, sweeps=100)

    np.testing.assert_allclose(theirs.users, ours.users[:, 0], atol=1e-5)
    np.testing.assert_allclose(theirs.movies, ours.movies[:, 0], atol=1e-5)


def penalised_loss(model: baselines.FactorModel, train: Ratings, penalty: float) -> float:
    errors = model.predict(train.users, train.movies) - train.stars
    return float(np.sum(errors**2) + penalty * (np.sum(model.users**2) + np.sum(model.movies**2)))


def test_factors_end_where_no_weight_can_be_improved(train):
    penalty = 0.5
    model = baselines.fit_factors(train, USERS, MOVIES, rank=2, penalty=penalty, seed=0, sweeps=2000)
    loss = penalised_loss(model, train, penalty)

    for side in (model.users, model.movies):
        for index in np.ndindex(side.shape):
            kept = side[index]
            for step in (-1e-2, 1e-2):
                side[index] = kept + step
                assert penalised_loss(model, train, penalty) > loss - 1e-6, index
            side[index] = kept


def test_ials_of_full_rank_is_the_one_optimum(train):
    # With as many factors as movies the problem is convex in the scores: any start leads to the same ones.
    weight, penalty = 4.0, 0.5
    seen = sparse.csr_array((np.ones(len(train)), (train.users, train.movies)), shape=(USERS, MOVIES))
    liked = seen.toarray()
    weights = np.where(liked > 0, weight, 1.0)
    movies = np.random.default_rng(1).normal(size=(MOVIES, MOVIES))
    for _ in range(2000):
        users = weighted_ridge(liked, weights, movies, penalty)
        movies = weighted_ridge(liked.T, weights.T, users, penalty)

    scores = baselines.ials(seen, rank=MOVIES, weight=weight, penalty=penalty, seed=0, sweeps=2000)

    assert scores.dtype == np.float32
    np.testing.assert_allclose(scores, users @ movies.T, atol=1e-3)


def weighted_ridge(targets: np.ndarray, weights: np.ndarray, factors: np.ndarray, penalty: float) -> np.ndarray:
    ridge = penalty * np.eye(factors.shape[1])
    return np.stack(
        [
            np.linalg.solve((factors.T * w) @ factors + ridge, (factors.T * w) @ t)
            for t, w in zip(targets, weights, strict=True)
        ]
    )


def test_factors_explain_what_biases_cannot(train):
    biases = baselines.fit_biases(train, USERS, MOVIES, penalty=0.1)
    factors = baselines.fit_factors(train, USERS, MOVIES, rank=1, penalty=0.1, seed=0)
    errors = [np.abs(model.predict(train.users, train.movies) - train.stars).mean() for model in (biases, factors)]
    assert errors[1] < 0.8 * errors[0]


def test_factors_of_the_unrated_are_zero(train):
    model = baselines.fit_factors(train, USERS, MOVIES, rank=2, penalty=1.0, seed=0)
    assert not model.users[11].any()
    assert not model.movies[7].any()
