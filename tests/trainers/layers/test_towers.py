"""The towers equal plain NumPy, and give all users without a known id the same vectors."""

import numpy as np
import pytest
import tensorflow as tf

from tests.trainers.planted_splits import planted_splits, with_history
from trainers.hyperparameters import (
    JointHyperparameters,
    JointRatingHyperparameters,
    RatingTowerHyperparameters,
    RetrievalHyperparameters,
)
from trainers.joint import MovielensModel
from trainers.layers.rating_tower import RatingTower
from trainers.layers.towers import HistoryEncoder, QueryTower, embedding, table_penalty

LENGTH = 4


@pytest.fixture(scope="module")
def splits():
    return with_history(planted_splits(users=30, movies=20, ratings=500, seed=0), LENGTH)


def batch(splits, **changes):
    return {name: tf.constant(values[:50]) for name, values in (splits.train | changes).items()}


def with_user(splits, user):
    return batch(splits, user_id_xf=np.full_like(splits.train["user_id_xf"], user))


def query_tower(splits, **settings):
    tf.keras.utils.set_random_seed(1)
    tower = QueryTower(splits, RetrievalHyperparameters(**{"embedding_dim": 8, "id_dropout": 0.5} | settings))
    table = tf.random.normal([splits.movie_size, 8])
    return lambda features, training=False: tower(features, table, training=training).numpy()


def test_users_without_an_id_and_with_an_unknown_id_are_alike(splits):
    tower = query_tower(splits)
    no_id, unknown_id = (tower(with_user(splits, user)) for user in (0, splits.size("user_id") - 1))
    np.testing.assert_array_equal(no_id, unknown_id)
    assert np.abs(tower(with_user(splits, 3)) - no_id).max() > 1e-3


def test_with_an_id_dropout_of_1_a_tower_ignores_ids(splits):
    tower = query_tower(splits, id_dropout=1.0)
    np.testing.assert_array_equal(tower(with_user(splits, 3)), tower(with_user(splits, 4)))


@pytest.mark.parametrize("recent", [0, 2, 5])
def test_a_history_is_encoded_as_its_mean_its_attended_means_and_its_latest_events(recent):
    rng = np.random.default_rng(0)
    table = rng.normal(size=(9, 3))
    # Histories are newest first; the last user has rated nothing.
    movies = np.array([[4, 2, 7, 1], [5, 5, 0, 0], [3, 0, 0, 0], [0, 0, 0, 0]])
    stars = np.where(movies > 0, rng.integers(1, 6, movies.shape), 0)
    features = {"history_movie_ids_xf": tf.constant(movies), "history_ratings_xf": tf.constant(stars, tf.float32)}
    encoder = HistoryEncoder(length=4, dim=3, recent=recent)
    vectors = tf.constant(table, tf.float32)
    encoder(features, vectors)
    weights = [rng.normal(size=weight.shape) for weight in encoder.weights]
    encoder.set_weights(weights)
    star_vectors, star_logits, place_vectors, place_logits, kernel, bias, heads, head_bias = weights
    movie_logits = np.tanh(table @ kernel + bias) @ heads + head_bias

    found = encoder(features, vectors).numpy()

    for row, (rated, given) in enumerate(zip(movies, stars, strict=True)):
        length = np.count_nonzero(rated)
        events = np.array([table[rated[i]] + star_vectors[given[i]] + place_vectors[i] for i in range(length)]).reshape(
            -1, 3
        )
        logits = [movie_logits[rated[i]] + star_logits[given[i]] + place_logits[i] for i in range(length)]
        odds = np.exp(logits).reshape(-1, 2)
        attended = [(odds[:, [head]] * events).sum(axis=0) / max(odds[:, head].sum(), 1e-9) for head in (0, 1)]
        latest = np.zeros([recent, 3])
        latest[: min(length, recent)] = events[:recent]
        mean = events.sum(axis=0) / max(length, 1)
        np.testing.assert_allclose(found[row], np.concatenate([mean, *attended, latest.ravel()]), rtol=1e-4, atol=1e-5)


def test_the_penalty_of_tables_is_their_sum_of_squares_per_train_row(splits):
    layers = [embedding(5, 2, 0.0), embedding(3, 2, 0.0, values=np.ones([3, 2], np.float32))]
    for layer in layers:
        layer(tf.constant([0]))
    expected = 7.0 / len(splits.train["rating_xf"]) * sum((layer.weights[0].numpy() ** 2).sum() for layer in layers)
    assert float(table_penalty(layers, 7.0, splits)) == pytest.approx(expected, rel=1e-5)


@pytest.fixture(scope="module")
def tower(splits):
    tf.keras.utils.set_random_seed(2)
    return RatingTower(splits, RatingTowerHyperparameters(embedding_dim=4, hidden_units=[8], dropout=0.0))


def test_the_factor_model_adds_mean_biases_and_product_of_factors(splits, tower):
    rows = batch(splits)
    predicted = tower._experts(tower.person(rows), tower._one_each(rows), None, training=False)[0].numpy()[:, 0]
    model = tower._factors
    users, movies = rows["user_id_xf"].numpy(), rows["movie_id_xf"].numpy()
    tables = {name: layer.weights[0].numpy() for name, layer in (model._user._tables | model._movie._tables).items()}
    user_factors = sum(tables[name][rows[name].numpy()] for name in model._user._tables)
    movie_factors = sum(tables[name][rows[name].numpy()] for name in model._movie._tables if name != "genres_xf")
    genres = rows["genres_xf"].numpy()
    movie_factors = movie_factors + genres @ tables["genres_xf"] / np.sqrt(genres.sum(axis=1, keepdims=True))
    biases = [
        layer.weights[0].numpy()[index, 0] for layer, index in ((model._user_bias, users), (model._movie_bias, movies))
    ]
    expected = splits.train["rating_xf"].mean() + sum(biases) + (user_factors * movie_factors).sum(axis=1)
    np.testing.assert_allclose(predicted, expected, rtol=1e-4)


def test_the_prediction_is_the_mean_of_the_experts_and_each_has_its_own_loss(splits, tower):
    rows = batch(splits)
    experts = tower._experts(tower.person(rows), tower._one_each(rows), None, training=False)
    one, other = (expert.numpy()[:, 0] for expert in experts)
    assert np.abs(one - other).max() > 0.01
    np.testing.assert_allclose(tower.ratings(rows), np.clip((one + other) / 2, 1, 5), rtol=1e-6)
    stars = rows["rating_xf"].numpy()
    expected = ((one - stars) ** 2).mean() + ((other - stars) ** 2).mean()
    assert float(tower.loss(rows)) == pytest.approx(expected, rel=1e-5)


def joint(splits, **settings):
    tf.keras.utils.set_random_seed(3)
    rating = JointRatingHyperparameters(embedding_dim=4, hidden_units=[8], dropout=0.0)
    return MovielensModel(splits, JointHyperparameters(embedding_dim=8, rating=rating, **settings))


@pytest.mark.parametrize("shared", [True, False])
def test_the_rating_task_reads_the_queries_but_does_not_change_them(splits, shared):
    model, rows = joint(splits, shared=shared, retrieval_weight=0.0), batch(splits)
    with tf.GradientTape() as tape:
        loss = model.compute_loss(rows, training=False)
    retrieval = model.query_model.trainable_variables + model.movie_model.trainable_variables
    gradients = tape.gradient(loss, retrieval)
    assert all(each is None or not np.abs(tf.convert_to_tensor(each)).max() for each in gradients)
    before = model.ratings(rows).numpy()
    for weight in model.query_model.trainable_variables:
        weight.assign(weight + 0.5)
    assert (np.abs(model.ratings(rows).numpy() - before).max() > 1e-4) == shared
