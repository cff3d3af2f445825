"""The ported notebooks learn, and keep the notebooks' peculiarities."""

import numpy as np
import pytest

from benchmarks.dataset import Ratings
from benchmarks.notebooks import (
    JOINT,
    RANKING,
    RANKING_TUNED,
    TWO_TOWER,
    Notebook,
    NotebookModel,
    prepare_notebook,
    train_notebook,
)

USERS, MOVIES = 30, 20


@pytest.fixture
def train() -> Ratings:
    """Two camps of users, two of movies: one's own are watched, and rated five."""
    users, movies = np.nonzero(np.add.outer(np.arange(USERS), np.arange(MOVIES)) % 2 == 0)
    others = np.nonzero(np.add.outer(np.arange(USERS), np.arange(MOVIES)) % 10 == 1)
    stars = np.concatenate([np.full(len(users), 5.0), np.full(len(others[0]), 1.0)])
    return Ratings(np.concatenate([users, others[0]]), np.concatenate([movies, others[1]]), stars)


def with_epochs(notebook: Notebook, epochs: int) -> Notebook:
    return Notebook(**{**vars(notebook), "epochs": epochs})


def test_the_two_tower_learns_who_watches_what(train):
    model = train_notebook(with_epochs(TWO_TOWER, 20), train, USERS, MOVIES, seed=0, batch_size=100)
    scores = model.scores(USERS, MOVIES)
    assert scores.shape == (USERS, MOVIES)
    own = np.add.outer(np.arange(USERS), np.arange(MOVIES)) % 2 == 0
    assert scores[own].mean() > scores[~own].mean() + 1


@pytest.mark.parametrize("notebook", [RANKING, RANKING_TUNED, JOINT], ids=["ranking", "tuned", "joint"])
def test_the_ratings_are_learnt(train, notebook):
    model = train_notebook(with_epochs(notebook, 60), train, USERS, MOVIES, seed=0, batch_size=100)
    predicted = model.stars(train)
    assert predicted.shape == (len(train),)
    assert predicted[train.stars == 5].mean() > predicted[train.stars == 1].mean() + 1


def test_the_retrieval_loss_is_a_sum_over_the_batch(train):
    def loss(repeats: int) -> float:
        batch = {
            "user": np.repeat(train.users[:1], repeats),
            "movie": np.repeat(train.movies[:1], repeats),
        }
        return float(NotebookModel(TWO_TOWER, USERS, MOVIES).compute_loss(batch))

    # With n copies of one pair the softmax is uniform, and each of the n rows loses log n.
    assert loss(4) == pytest.approx(4 * np.log(4), rel=1e-4)
    assert loss(16) == pytest.approx(16 * np.log(16), rel=1e-4)


def test_the_tuned_rankings_dropout_is_never_on(train):
    model = NotebookModel(RANKING_TUNED, USERS, MOVIES)
    batch = {
        "user": train.users,
        "movie": train.movies,
        "stars": train.stars.astype(np.float32),
    }
    losses = {float(model.compute_loss(batch, training=True)) for _ in range(3)}
    assert len(losses) == 1


def test_the_tuned_rankings_weights_are_brought_back_to_their_norm(train):
    model = train_notebook(with_epochs(RANKING_TUNED, 1), train, USERS, MOVIES, seed=0, batch_size=100)
    model.set_weights([10 * weights for weights in model.get_weights()])

    model.train_step({"user": train.users, "movie": train.movies, "stars": train.stars.astype(np.float32)})

    norms = {
        layer.kernel.shape: np.linalg.norm(layer.kernel.numpy(), axis=0).max()
        for layer in model.submodules
        if hasattr(layer, "kernel")
    }
    hidden = [norm for (_, units), norm in norms.items() if units > 1]
    assert max(hidden) <= 3 + 1e-4
    assert norms[64, 1] > 3


def test_a_seed_gives_one_result(train):
    first, second, other = (
        train_notebook(TWO_TOWER, train, USERS, MOVIES, seed=seed, batch_size=100).scores(USERS, MOVIES)
        for seed in (1, 1, 2)
    )
    np.testing.assert_allclose(first, second, atol=1e-6)
    assert np.abs(first - other).max() > 1e-3


def test_the_metrics_change_nothing_but_are_computed(train):
    movies = 120  # at least as many as the longest list of the metrics
    model, batches = prepare_notebook(TWO_TOWER, train, USERS, movies, seed=0, batch_size=100, with_metrics=True)
    history = model.fit(batches, epochs=TWO_TOWER.epochs, verbose=0).history
    bare = train_notebook(TWO_TOWER, train, USERS, movies, seed=0, batch_size=100)
    np.testing.assert_allclose(model.scores(USERS, movies), bare.scores(USERS, movies), atol=1e-5)
    assert 0 < history["factorized_top_k/top_10_categorical_accuracy"][-1] <= 1
