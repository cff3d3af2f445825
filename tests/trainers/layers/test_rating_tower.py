"""Ratings by the parts of people and movies are those of pairs, and new people get the bias of their history."""

import itertools

import numpy as np
import pytest
import tensorflow as tf

from tests.trainers.planted_splits import planted_splits, with_history
from trainers.baselines import BIAS_PENALTY, BiasModel
from trainers.hyperparameters import RatingTowerHyperparameters
from trainers.layers.cross_network import CrossNetwork, FirstProducts
from trainers.layers.rating_tower import Match, RatingTower
from trainers.layers.towers import Catalogue
from trainers.layers.weights import named_weights
from transform.features import Role

PEOPLE = 25


@pytest.fixture(scope="module")
def splits():
    return with_history(planted_splits(users=30, movies=20, ratings=500, seed=0))


def people(splits, **changes):
    rows = {name: tf.constant(values[:PEOPLE]) for name, values in splits.train.items()}
    return rows | {name: tf.constant(np.array(values)) for name, values in changes.items()}


def settings(**changes):
    small = {"embedding_dim": 4, "hidden_units": [8], "factor_dim": 4, "attention_dim": 3, "dropout": 0.2}
    return RatingTowerHyperparameters(**small | changes)


def scrambled(layer, seed):
    """Gives every weight a random value, such that each changes the result."""
    rng = np.random.default_rng(seed)
    for weight in layer.trainable_weights:
        weight.assign(weight + rng.normal(0, 0.3, weight.shape))


@pytest.mark.parametrize(
    ("structure", "projection_dim", "matched", "towers"),
    [
        *itertools.product(("stacked", "parallel", "deep"), (None, 3), (None, "affinity", "state"), (1,)),
        ("stacked", None, "state", 3),
    ],
)
def test_frozen_movies_are_rated_like_pairs(splits, structure, projection_dim, matched, towers):
    rng = np.random.default_rng(1)
    tf.keras.utils.set_random_seed(1)
    tower = RatingTower(splits, settings(structure=structure, projection_dim=projection_dim, towers=towers))
    catalogue, rows = Catalogue(splits), people(splits)
    # Index 0 and the last one are no movies, but a list that is too short for its width ends with them.
    movies = rng.integers(0, splits.movie_size, (PEOPLE, 6)).astype(np.int32)
    affinity = tf.constant(rng.normal(size=movies.shape), tf.float32)
    state = tf.constant(rng.normal(size=(PEOPLE, 5)), tf.float32) if matched == "state" else None

    def match(some):
        return Match(affinity[:, some], state) if matched else None

    tower.ratings(rows, match(slice(0, 1)))
    scrambled(tower, seed=2)

    found = tower.ratings_of_frozen(
        rows, tower.frozen(catalogue.features), tf.constant(movies), match(slice(None))
    ).numpy()

    for place in range(movies.shape[1]):
        of_movies = {name: tf.gather(values, movies[:, place]) for name, values in catalogue.features.items()}
        pairs = tower.ratings(rows | of_movies, match(slice(place, place + 1)))
        np.testing.assert_allclose(found[:, place], pairs, rtol=1e-5)
    # Neither bound of the scale decides most of the ratings.
    assert ((found > 1) & (found < 5)).mean() > 0.5
    assert found.std() > 0.1


def test_several_towers_predict_the_mean_of_towers_that_are_alone(splits):
    tf.keras.utils.set_random_seed(1)
    rows, match = people(splits), Match(tf.random.normal([PEOPLE, 1]), tf.random.normal([PEOPLE, 5]))
    towers, alone = (RatingTower(splits, settings(towers=number, table_l2=5.0, l2=0.1)) for number in (3, 1))
    for each in (towers, alone):
        each.ratings(rows, match)
    # Biases start as those of the trivial model, of all towers alike; what starts at random differs.
    scrambled(towers, seed=1)
    for tower in (towers, *towers._others):
        tower._output.kernel.assign(20 * tower._output.kernel)
    ratings, losses, penalties = [], [], []
    # The first tower's weights have the names of a tower that is alone, by which a warm start finds them.
    weights = [named_weights(tower) for tower in (towers, *towers._others)]
    for of_tower in weights:
        for name, weight in named_weights(alone).items():
            weight.assign(of_tower[name])
        ratings.append(np.mean(alone._experts_of_pairs(rows, match, training=False), axis=0)[:, 0])
        losses.append(float(alone.loss(rows, match)))
        penalties.append(sum(map(float, alone.losses)))

    found = towers.ratings(rows, match).numpy()

    # The mean is cut to the scale, not what it is of.
    assert ((np.min(ratings, axis=0) < 1) | (np.max(ratings, axis=0) > 5)).any()
    mean = np.mean(ratings, axis=0)
    assert np.any(mean > 5) or np.any(mean < 1)
    np.testing.assert_allclose(found, np.clip(mean, 1, 5), rtol=1e-5)
    assert np.std(ratings, axis=0).min() > 1e-3
    assert float(towers.loss(rows, match)) == pytest.approx(sum(losses), rel=1e-5)
    assert sum(map(float, towers.losses)) == pytest.approx(sum(penalties), rel=1e-5)


def test_towers_start_from_different_weights(splits):
    tf.keras.utils.set_random_seed(1)
    tower = RatingTower(splits, settings(towers=2))
    rows = people(splits)
    first, second = (each.person(rows) for each in (tower, tower._others[0]))
    np.testing.assert_array_equal(first.bias, second.bias)
    for part in ("factors", "embeddings", "keys"):
        assert np.abs(getattr(first, part) - getattr(second, part)).max() > 1e-4


def test_a_frozen_catalogue_stays_as_it_was_when_weights_change(splits):
    tf.keras.utils.set_random_seed(1)
    tower, catalogue = RatingTower(splits, settings()), Catalogue(splits)
    tower.ratings(people(splits))
    frozen = tower.frozen(catalogue.features)
    before = [part.numpy() for part in tf.nest.flatten(frozen)]
    scrambled(tower, seed=3)
    now = tower.frozen(catalogue.features)
    for part, values, changed in zip(*map(tf.nest.flatten, (frozen, before, now)), strict=True):
        np.testing.assert_array_equal(part, values)
        assert not values.size or np.abs(changed.numpy() - values).max() > 1e-3


@pytest.mark.parametrize("structure", ["stacked", "parallel", "deep"])
@pytest.mark.parametrize("projection_dim", [None, 3])
def test_the_parts_of_the_first_products_add_up_to_the_first_layers(splits, structure, projection_dim):
    tf.keras.utils.set_random_seed(4)
    hparams = settings(structure=structure, projection_dim=projection_dim)
    network, rows = CrossNetwork(splits, hparams, start=3.0), people(splits)
    network.forward(rows)
    scrambled(network, seed=4)
    x0 = network.embeddings(rows)
    halves = [network.embeddings(rows, role) for role in (Role.USER, Role.MOVIE)]
    parts = [network.first_products(*half) for half in zip(halves, (Role.USER, Role.MOVIE), strict=True)]
    products = FirstProducts(*(sum(both) for both in zip(*parts, strict=True)))
    if structure == "deep":
        assert products.users.shape[1] == products.movies.shape[1] == 0
    else:
        crossed = tf.concat([products.users, products.movies], axis=1)
        np.testing.assert_allclose(x0 * crossed, network.cross[0](x0, x0), rtol=1e-4, atol=1e-5)
    # The first deep layer of a parallel network reads the embeddings, too; its widths are those of `settings`.
    assert products.deep.shape[1] == (8 if structure == "parallel" else 0)
    of_movies = FirstProducts(*(part[:, tf.newaxis] for part in parts[1]))
    one_each = (halves[0], halves[1][:, tf.newaxis], parts[0], of_movies)
    np.testing.assert_allclose(network.behind_first_products(*one_each), network.forward(rows), rtol=1e-4)


@pytest.mark.parametrize("seed", range(3))
def test_the_bias_of_a_new_person_is_the_shrunk_mean_deviation_of_their_history(splits, seed):
    rng = np.random.default_rng(seed)
    biases = BiasModel.of(splits)
    movies = rng.integers(0, splits.movie_size, (PEOPLE, 4)).astype(np.int32)
    # Some movies are in the history without a rating, and the first person has rated nothing.
    stars = (rng.integers(0, 6, movies.shape) * (movies > 0)).astype(np.float32)
    stars[0] = 0
    expected = np.zeros(PEOPLE)
    for row in range(PEOPLE):
        rated = zip(movies[row], stars[row], strict=True)
        given = [star - biases.mean - biases.movies[movie] for movie, star in rated if star]
        expected[row] = sum(given) / (len(given) + BIAS_PENALTY)
    tower = RatingTower(splits, settings())
    history = {"history_movie_ids_xf": movies, "history_ratings_xf": stars}

    for unknown in (0, splits.size("user_id") - 1):
        person = tower.person(people(splits, **history, user_id_xf=np.full(PEOPLE, unknown, np.int32)))
        np.testing.assert_allclose(person.bias - biases.mean, expected, atol=1e-5)
        np.testing.assert_allclose(person.deviation, expected, atol=1e-5)

    known = np.arange(1, PEOPLE + 1, dtype=np.int32)
    person = tower.person(people(splits, **history, user_id_xf=known))
    np.testing.assert_allclose(person.bias - biases.mean, biases.users[known], atol=1e-5)
    np.testing.assert_allclose(person.deviation, expected, atol=1e-5)
    assert np.abs(biases.users[known] - expected).max() > 0.05
