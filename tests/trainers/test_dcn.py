"""The deep & cross network equals plain NumPy, its deep rival has as many weights, and every objective trains."""

import numpy as np
import pytest
import tensorflow as tf

from tests.trainers.planted_splits import planted_splits
from trainers.baselines import BiasModel, LikeBiases, fit_like_biases
from trainers.dcn import SPECS, Crosses, DCNModel, LikeModel, cross_effects, cross_kernel
from trainers.hyperparameters import DCNHyperparameters, Task
from trainers.layers.cross_network import CrossNetwork, matched_width
from trainers.likes import only_decided
from trainers.loop import training
from trainers.loop.evaluation import LogLoss


@pytest.fixture(scope="module")
def splits():
    return planted_splits(users=40, movies=30, ratings=600, seed=0)


EXPERTS = {"structure": "parallel", "second_structure": "stacked", "factor_dim": 4, "factor_l2": 0.01}


def batch(splits):
    return {name: tf.constant(values) for name, values in splits.train.items()}


def settings(**changes):
    return DCNHyperparameters(**{"embedding_dim": 4, "hidden_units": [7, 5], "seed": 1} | changes)


def dense(x, layer):
    kernel, bias = (weights.numpy() for weights in layer.trainable_weights)
    return x @ kernel + bias


@pytest.mark.parametrize("structure", ["stacked", "parallel"])
@pytest.mark.parametrize("rank", [None, 3])
def test_outputs_follow_the_formula(splits, structure, rank):
    tf.keras.utils.set_random_seed(0)
    model = DCNModel(splits, settings(structure=structure, projection_dim=rank, cross_layers=3))
    rows = batch(splits)
    got = model.forward(rows, training=False).numpy()

    x0 = x = model.embeddings(rows).numpy()
    for layer in model.cross:
        *matrices, bias = sorted((w.numpy() for w in layer.trainable_weights), key=lambda w: (-w.ndim, w.shape[1:]))
        kernel = matrices[0] if rank is None else matrices[0] @ matrices[1]
        assert kernel.shape == (x.shape[1], x.shape[1])
        x = x0 * (x @ kernel + bias) + x
    deep = x if structure == "stacked" else x0
    for layer in model._deep._layers:
        deep = np.maximum(dense(deep, layer), 0) if layer.trainable_weights else deep
    joined = deep if structure == "stacked" else np.concatenate([x, deep], axis=1)
    np.testing.assert_allclose(got, dense(joined, model._output)[:, 0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("objective", SPECS)
def test_a_factor_model_learns_beside_the_network(splits, objective):
    rows = SPECS[objective].rows(splits)
    train, model = rows.train, SPECS[objective].build(rows, settings(objective=objective, factor_dim=3, dropout=0.5))
    features = {name: tf.constant(values) for name, values in train.items()}
    trivial = (BiasModel if objective is Task.RATING else LikeBiases).of(rows)
    users, movies = train["user_id_xf"], train["movie_id_xf"]
    user, movie = (encoder(features).numpy() for encoder in (model.factors._user, model.factors._movie))
    assert user.shape == movie.shape == (len(users), 3)
    by_factors = trivial.total(users, movies) + np.sum(user * movie, axis=1)
    network = model.forward(features).numpy()
    expected = (network + by_factors) / 2
    assert np.abs(network - by_factors).max() > 0.01
    np.testing.assert_allclose(model.predicted(features), expected, atol=1e-5)
    stars = train["rating_xf"]
    if objective is Task.RATING:
        np.testing.assert_allclose(model.ratings(features), np.clip(expected, 1, 5), atol=1e-5)
        losses = [np.mean((each - stars) ** 2) for each in (network, by_factors)]
    else:
        np.testing.assert_allclose(model.like_logits(features), expected, atol=1e-5)
        losses = [np.mean(np.logaddexp(0, each) - (stars >= 4) * each) for each in (network, by_factors)]
    assert float(model.compute_loss(features)) == pytest.approx(sum(losses), rel=1e-5)


def test_the_prediction_is_the_mean_of_all_experts(splits):
    model, rows = DCNModel(splits, settings(factor_dim=3, second_structure="stacked", table_l2=2.0)), batch(splits)
    second, factors = model.second, model.factors
    assert second is not None
    assert factors is not None
    outputs = np.stack([each.numpy() for each in (model.forward(rows), second.forward(rows), factors(rows))])
    assert np.abs(outputs[0] - outputs[1]).max() > 0.01
    np.testing.assert_allclose(model.predicted(rows), outputs.mean(axis=0), atol=1e-6)
    losses = np.mean((outputs - splits.train["rating_xf"]) ** 2, axis=1)
    assert float(model.compute_loss(rows)) == pytest.approx(losses.sum(), rel=1e-5)
    # The tables of both networks are penalised.
    for network in (model, second):
        before = float(tf.add_n(model.losses))
        for encoder in network._encoders:
            for table in encoder.trainable_weights:
                table.assign(3 * table)
        assert float(tf.add_n(model.losses)) > before


def test_exported_effects_are_those_on_the_prediction(splits):
    rows = batch(splits)
    for changes, experts in (({}, 1), ({"factor_dim": 3}, 2), ({"factor_dim": 3, "second_structure": "stacked"}, 3)):
        model = DCNModel(splits, settings(**changes))
        model.predicted(rows)
        exported = Crosses(model, splits).cross_effects
        assert exported is not None
        # The sample is all train rows, as there are fewer than it may have.
        np.testing.assert_allclose(exported.numpy(), cross_effects(model, rows) / experts, rtol=1e-3, atol=1e-7)


def test_without_other_experts_the_network_is_alone(splits):
    model = DCNModel(splits, settings())
    assert model.factors is None
    assert model.second is None
    np.testing.assert_array_equal(model.predicted(batch(splits)), model.forward(batch(splits)))


def test_somebody_whom_training_never_saw_has_no_bias(splits):
    factors = DCNModel(splits, settings(factor_dim=3)).factors
    assert factors is not None
    biases, movies = BiasModel.of(splits), splits.train["movie_id_xf"][:9]
    features = {name: values[:9] for name, values in splits.train.items()}
    for unknown in (0, splits.size("user_id") - 1):
        person, _ = factors.person(features | {"user_id_xf": np.full(9, unknown, np.int32)})
        np.testing.assert_allclose(person, np.full(9, biases.mean), rtol=1e-6)
    np.testing.assert_allclose(factors.movies(features)[0][:, 0], biases.movies[movies], atol=1e-6)


def count_weights(model):
    """Returns the number of weights outside the embeddings, and the number of all weights."""
    tables = sum(int(tf.size(weight)) for encoder in model._encoders for weight in encoder.trainable_weights)
    total = sum(int(tf.size(weight)) for weight in model.trainable_weights)
    return np.array([total - tables, total])


@pytest.mark.parametrize("structure", ["stacked", "parallel"])
@pytest.mark.parametrize(
    "changes",
    [
        {"hidden_units": [192, 192]},
        {"embedding_dim": 32, "cross_layers": 1},
        {"embedding_dim": 16, "cross_layers": 3, "hidden_units": [64]},
        {"embedding_dim": 32, "projection_dim": 24},
    ],
)
def test_deep_rival_has_as_many_weights(splits, structure, changes):
    counts = []
    for each in (structure, "deep"):
        model = DCNModel(splits, settings(structure=each, **changes))
        model.forward(batch(splits), training=False)
        counts.append(count_weights(model))
        assert bool(model.cross) == (each != "deep")
    assert counts[0][0] > 1000
    np.testing.assert_array_less(np.abs(counts[0] - counts[1]) / counts[0], 0.02)


def test_the_matched_width_of_one_layer_gives_as_many_weights():
    # A cross layer on 10 inputs has 10 x 10 + 10 weights, and 4 units after it have 10 x 4: 150 in all. So have 10
    # hidden units with 15 weights each: 10 + 1 from the inputs and the bias, and 4 to the units after them.
    assert matched_width(10, settings(cross_layers=1, hidden_units=[4])) == 10


class TestLike:
    def test_rows_of_three_stars_are_left_out(self, splits):
        kept = only_decided(splits)
        for before, after in ((splits.train, kept.train), (splits.eval, kept.eval)):
            chosen = before["rating_xf"] != 3
            assert 0 < chosen.sum() < len(chosen)
            for name, values in before.items():
                np.testing.assert_array_equal(after[name], values[chosen])

    def test_a_split_with_only_three_stars_is_an_error(self, splits):
        rows = splits.eval["rating_xf"] == 3
        undecided = {name: values[rows] for name, values in splits.eval.items()}
        without_decided = type(splits)(splits.train, undecided, splits.movies, splits.transform)
        with pytest.raises(ValueError, match="'eval' should have ratings other than 3"):
            only_decided(without_decided)

    def test_loss_and_metric_are_the_mean_cross_entropy(self, splits):
        kept = SPECS[Task.LIKE].rows(splits)
        model = LikeModel(kept, settings(objective="like"))
        rows = {name: tf.constant(values) for name, values in kept.eval.items()}
        probabilities = 1 / (1 + np.exp(-model.like_logits(rows).numpy().astype(np.float64)))
        liked = kept.eval["rating_xf"] >= 4
        expected = -np.mean(np.where(liked, np.log(probabilities), np.log(1 - probabilities)))
        assert float(model.compute_loss(rows)) == pytest.approx(expected, rel=1e-5)
        assert LogLoss(kept)(model) == pytest.approx(expected, rel=1e-5)

    def test_biases_minimise_the_penalised_loss(self):
        from scipy import optimize

        rng = np.random.default_rng(0)
        users, movies = rng.integers(0, 12, 400), rng.integers(0, 9, 400)
        liked = rng.random(400) < 0.2 + 0.6 * (users % 3 == 0)
        fitted = fit_like_biases(users, movies, liked, user_size=13, movie_size=9, penalty=2.0, sweeps=100)

        def objective(biases):
            logits = fitted.mean + biases[:13][users] + biases[13:][movies]
            return np.sum(np.logaddexp(0, logits) - liked * logits) + np.sum(biases**2)

        exact = optimize.minimize(objective, np.zeros(22), method="BFGS").x
        np.testing.assert_allclose(np.concatenate([fitted.users, fitted.movies]), exact, atol=1e-3)
        assert fitted.users[12] == 0


@pytest.mark.parametrize("objective", SPECS)
@pytest.mark.parametrize(
    "changes", [{"structure": "stacked"}, {"structure": "parallel"}, {"structure": "deep"}, EXPERTS]
)
def test_training_lowers_the_metric(splits, objective, changes, tmp_path):
    tf.keras.utils.set_random_seed(0)
    hparams = settings(objective=objective, **changes, epochs=8, batch_size=32, learning_rate=1e-2)
    spec = SPECS[objective]
    rows = spec.rows(splits)
    model: CrossNetwork = spec.build(rows, hparams)
    # The metric is computed on the train rows, which every working network can fit.
    metric = spec.objective(type(rows)(rows.train, rows.train, rows.movies, rows.transform))
    before = metric(model)
    after = training.fit(model, rows.train, metric, hparams, str(tmp_path), "dcn")
    assert after < 0.95 * before


@pytest.mark.parametrize("structure", ["stacked", "parallel"])
def test_effects_are_what_pairs_add_to_the_output(splits, structure):
    tf.keras.utils.set_random_seed(3)
    model = DCNModel(splits, settings(structure=structure, cross_layers=1))
    rows = batch(splits)
    whole = model.forward(rows).numpy()
    kernel, dim = cross_kernel(model).numpy(), 4
    x0 = model.embeddings(rows).numpy()
    centred = x0 - x0.mean(axis=0)
    effects = cross_effects(model, rows).numpy()

    def without(one, other):
        block = np.zeros_like(kernel)
        for i, j in ((one, other), (other, one)):
            cells = slice(i * dim, (i + 1) * dim), slice(j * dim, (j + 1) * dim)
            block[cells] = kernel[cells]
        # Centring removes only the pair's interaction, and keeps the parts that depend on either feature alone.
        return model.behind_first_cross(x0, model.cross[0](x0, x0) - centred * (centred @ block)).numpy()

    for one in range(len(model.features)):
        for other in range(one):
            assert effects[one, other] == effects[other, one]
            assert effects[one, other] == pytest.approx(np.std(whole - without(one, other)), rel=0.05)


@pytest.mark.parametrize("rank", [None, 3])
def test_rescaled_weights_have_the_same_effects(splits, rank):
    tf.keras.utils.set_random_seed(3)
    model = DCNModel(splits, settings(structure="parallel", projection_dim=rank))
    rows = batch(splits)
    predictions, before = model.forward(rows), cross_effects(model, rows)
    # If the embeddings are twice as large and W is half as large, x0 * (W x0 + b) + x0 is twice as large.
    for table in (table for encoder in model._encoders for table in encoder.trainable_weights):
        table.assign(2 * table)
    for layer in model.cross:
        for weight in layer.trainable_weights:
            if len(weight.shape) == 2:
                weight.assign(weight / (2 if rank is None else 2**0.5))
    for layer in (model._deep._layers[0], model._output):
        kernel = layer.trainable_weights[0]
        factors = np.ones((kernel.shape[0], 1), np.float32)
        factors[: model.embeddings(rows).shape[1]] = 0.5
        kernel.assign(kernel * factors)
    np.testing.assert_allclose(model.forward(rows), predictions, rtol=1e-4)
    np.testing.assert_allclose(cross_effects(model, rows), before, rtol=1e-3)
