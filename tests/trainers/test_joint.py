"""The joint model weights its two losses, trains both tasks under every setting, and is exported as a whole."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf
from pydantic import ValidationError

from tests.trainers.planted_splits import planted_splits, with_history
from tests.trainers.specs import no_dropout, spec_of
from trainers import joint
from trainers.datasets import elements_of
from trainers.export import signatures
from trainers.hyperparameters import JointHyperparameters, JointRatingHyperparameters
from trainers.layers.loss_weighting import UncertaintyWeighting
from trainers.loop import training
from transform.features import SEEN_MOVIES, TIMESTAMP, Role, columns

SMALL = {"embedding_dim": 4, "hidden_units": [8], "batch_size": 64, "epochs": 2}
RATING = JointRatingHyperparameters(embedding_dim=4, hidden_units=[8], factor_dim=4, attention_dim=4)
SEQUENCE = {"query": "sequence", "blocks": 2, "shared_state": True}
SETTINGS = [
    {},
    {"loss": "in_batch", "shared": False},
    {"loss": "in_batch", "hard_negatives": 10, "positives": "liked", "weighting": "uncertainty"},
    SEQUENCE,
    SEQUENCE | {"loss": "in_batch", "weighting": "uncertainty"},
]


@pytest.fixture(scope="module")
def splits():
    return with_history(planted_splits(users=40, movies=30, ratings=600, seed=0), length=4)


def batch(arrays):
    return {name: tf.constant(values) for name, values in arrays.items()}


def settings(**changes):
    return JointHyperparameters(**SMALL | {"rating": RATING} | changes)


class TestUncertainty:
    def test_loss_and_gradients_follow_the_formula(self):
        weighting = UncertaintyWeighting()
        weighting.classification_log_variance.assign(0.5)
        weighting.regression_log_variance.assign(-0.25)
        with tf.GradientTape() as tape:
            loss = weighting(tf.constant(6.0), tf.constant(1.5))
        assert float(loss) == pytest.approx(6 * np.exp(-0.5) + 0.25 + 0.75 * np.exp(0.25) - 0.125)
        gradients = tape.gradient(loss, [weighting.classification_log_variance, weighting.regression_log_variance])
        expected = [0.5 - 6 * np.exp(-0.5), 0.5 - 0.75 * np.exp(0.25)]
        np.testing.assert_allclose(gradients, expected, rtol=1e-6)

    def test_the_likelihood_is_largest_where_the_variances_match_the_losses(self):
        weighting = UncertaintyWeighting()
        weighting.classification_log_variance.assign(np.log(2 * 6.0))
        weighting.regression_log_variance.assign(np.log(1.5))
        with tf.GradientTape() as tape:
            loss = weighting(tf.constant(6.0), tf.constant(1.5))
        np.testing.assert_allclose(tape.gradient(loss, weighting.trainable_variables), [0, 0], atol=1e-6)

    def test_training_changes_both_learnt_weights(self, splits, tmp_path):
        model = trained(splits, tmp_path, weighting="uncertainty", learning_rate=0.02)
        # A retrieval loss of several nats calls for a variance above 1, and so for a weight below 1.
        assert model.weighting.classification_log_variance.numpy() > 0.1
        assert abs(model.weighting.regression_log_variance.numpy()) > 1e-3

    def test_weights_are_fixed_by_default(self, splits):
        model = joint.SPEC.build(splits, settings(retrieval_weight=0.25, rating_weight=3.0))
        rows = batch(splits.train)
        encoded = model.encode(rows, training=False)
        retrieval, rating = model.retrieval_loss(rows, encoded), model.user_model.loss(rows, model._match(encoded))
        assert float(model.compute_loss(rows)) == pytest.approx(0.25 * float(retrieval) + 3 * float(rating), rel=1e-5)
        assert not [weight for weight in model.trainable_variables if "log_variance" in weight.name]


@pytest.mark.parametrize("hidden", ["query", "rating"])
def test_each_tower_has_its_own_share_of_hidden_people(splits, hidden):
    nothing = no_dropout(JointRatingHyperparameters)
    most = nothing | {"history_dropout": 0.9}
    rating = RATING.model_copy(update=most if hidden == "rating" else nothing)
    of_query = no_dropout(JointHyperparameters) | (most if hidden == "query" else {})
    losses = {}
    for task in ("retrieval", "rating"):
        weights = {"retrieval_weight": float(task == "retrieval"), "rating_weight": float(task == "rating")}
        tf.keras.utils.set_random_seed(0)
        model = joint.SPEC.build(splits, settings(rating=rating, shared=False, **of_query, **weights))
        rows = batch(splits.train)
        losses[task] = [float(model.compute_loss(rows, training=training)) for training in (False, True)]
    same = "rating" if hidden == "query" else "retrieval"
    other = "retrieval" if hidden == "query" else "rating"
    assert losses[same][0] == pytest.approx(losses[same][1], rel=1e-6)
    assert losses[other][0] != pytest.approx(losses[other][1], rel=1e-5)


def trained(splits, tmp_path, **changes):
    hparams = settings(**changes)
    tf.keras.utils.set_random_seed(0)
    model = joint.SPEC.build(splits, hparams)
    training.fit(model, splits.train, joint.SPEC.objective(splits), hparams, str(tmp_path), "joint")
    return model


@pytest.mark.parametrize("changes", SETTINGS)
def test_every_setting_trains_both_tasks(splits, tmp_path, changes):
    rows = batch(splits.train)

    def losses(model):
        encoded = model.encode(rows, training=False)
        return [
            float(model.retrieval_loss(rows, encoded)),
            float(tf.reduce_mean(tf.square(model.ratings(rows) - rows["rating_xf"]))),
        ]

    tf.keras.utils.set_random_seed(0)
    before = losses(joint.SPEC.build(splits, settings(**changes)))
    after = losses(trained(splits, tmp_path, **changes))
    assert after[0] < before[0]
    assert after[1] < before[1]


def test_ratings_are_learnt_from_rows_that_are_not_liked(splits):
    disliked = splits.train["rating_xf"] < 4
    model = joint.SPEC.build(splits, settings(positives="liked"))
    rows = batch({name: values[disliked] for name, values in splits.train.items()})
    with tf.GradientTape(persistent=True) as tape:
        loss = model.compute_loss(rows)
    towers = tape.gradient(loss, model.query_model.trainable_variables)
    ratings = tape.gradient(loss, model.user_model.trainable_variables)
    assert all(each is None or not np.abs(tf.convert_to_tensor(each)).max() for each in towers)
    assert any(np.abs(tf.convert_to_tensor(each)).max() > 0 for each in ratings if each is not None)


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("retrieval", {"loss": "in_batch", "hard_negatives": 10, "positives": "liked"}),
        # What the last setting and the first have, too.
        pytest.param(
            "joint", {"loss": "in_batch", "hard_negatives": 10, "positives": "liked"}, marks=pytest.mark.nightly
        ),
        ("retrieval", {"query": "sequence", "blocks": 2}),
        pytest.param("joint", SEQUENCE, marks=pytest.mark.nightly),
        ("joint", SEQUENCE | {"rating": RATING.model_copy(update={"towers": 2})}),
    ],
)
def test_the_exported_model_answers_as_the_original_does(splits, tmp_path, name, changes):
    spec = spec_of(name, {})
    more = {"rating": RATING, "weighting": "uncertainty"} if name == "joint" else {}
    tf.keras.utils.set_random_seed(0)
    model = spec.build(splits, spec.hyperparameters(**SMALL | more | changes))
    rows = batch({key: values[:5] for key, values in splits.eval.items()})
    model.compute_loss(batch(elements_of(model, splits.train)))
    signatures.export(model, exportable(splits), str(tmp_path), spec.heads)
    loaded = tf.saved_model.load(str(tmp_path))
    unlabelled = {key: values for key, values in rows.items() if key not in ("rating_xf", "place_xf")}
    person = {column.name: rows[column.name] for column in columns(Role.USER, Role.CONTEXT, Role.HISTORY, among=rows)}
    scored = loaded.scores(person | loaded.read_histories(person))
    np.testing.assert_allclose(scored["scores"], model.scores(rows), rtol=1e-5)
    queries = loaded.queries(person)
    np.testing.assert_allclose(queries, scored["queries"], rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(loaded.scores_of(queries), model.scores(rows), rtol=1e-5)
    if name == "joint":
        np.testing.assert_allclose(loaded.ratings(unlabelled), model.ratings(rows), rtol=1e-5)
        # The same pairs, by movie index: each person and the movies of all five rows.
        movies = tf.tile(rows["movie_id_xf"][tf.newaxis], [5, 1])
        ratings = loaded.ratings_of(person, movies, scored["queries"])
        np.testing.assert_allclose(tf.linalg.diag_part(ratings), model.ratings(rows), rtol=1e-5)
    examples = tf.constant([serialized({key: values[n].numpy() for key, values in rows.items()}) for n in range(5)])
    served = loaded.signatures["serving_default"](examples=examples)
    np.testing.assert_allclose(served["score"][:, 0], tf.reduce_max(model.scores(rows), axis=1), rtol=1e-5)
    assert "recall_at_10_filtered" in loaded.signatures["evaluate"](examples=examples)
    # The gradients of lookups, of which training has a function each, are of no use to whoever loads the model.
    assert b"internal_grad_fn" not in (tmp_path / "saved_model.pb").read_bytes()


def exportable(splits):
    """The splits with a Transform graph that leaves rows unchanged, and with the movie ids 100, 101 and so on."""
    types = {name: tf.int64 if values.dtype == np.int32 else tf.float32 for name, values in splits.train.items()}

    def unchanged(raw):
        shapes = {name: [-1, *values.shape[1:]] for name, values in splits.train.items()}
        return {name: tf.reshape(tf.sparse.to_dense(raw[name]), shape) for name, shape in shapes.items()}

    lists = types | {SEEN_MOVIES: tf.int64, TIMESTAMP: tf.int64}
    transform = SimpleNamespace(
        vocabulary_size_by_name=splits.transform.vocabulary_size_by_name,
        vocabulary_by_name=lambda name: [str(100 + n).encode() for n in range(splits.movie_size - 2)],
        transform_features_layer=lambda: unchanged,
        raw_feature_spec=lambda: {name: tf.io.VarLenFeature(dtype) for name, dtype in lists.items()},
    )
    return replace(splits, transform=transform)


def serialized(row):
    example = tf.train.Example()
    for name, values in row.items():
        feature = example.features.feature[name]
        numbers = feature.float_list if values.dtype == np.float32 else feature.int64_list
        numbers.value.extend(values.ravel().tolist())
    return example.SerializeToString()


@pytest.mark.parametrize("share", [0.0, 0.5])
def test_the_rating_loss_trains_the_query_tower_by_the_state_alone_and_in_the_share_that_is_set(splits, share):
    model = joint.SPEC.build(splits, settings(retrieval_weight=0.0, state_gradient=share, **SEQUENCE))
    rows = batch(elements_of(model, splits.train))
    model.compute_loss(rows)
    with tf.GradientTape() as tape:
        loss = model.compute_loss(rows)
    gradients = tape.gradient(loss, model.query_model.trainable_variables)
    largest = max(np.abs(tf.convert_to_tensor(each)).max() for each in gradients if each is not None)
    assert (largest > 1e-8) == (share > 0)


def test_what_is_hidden_from_the_rating_tower_is_hidden_from_the_state(splits):
    rating = RATING.model_copy(update=no_dropout(JointRatingHyperparameters) | {"history_dropout": 0.999})
    of_query = SEQUENCE | no_dropout(JointHyperparameters)
    model = joint.SPEC.build(splits, settings(rating=rating, **of_query))
    rows = batch(elements_of(model, splits.train))
    model.compute_loss(rows)
    states, match = [], model._match

    def recorded(encoded):
        states.append(match(encoded).state.numpy())
        return match(encoded)

    model._match = recorded
    for is_training in (False, True):
        model.compute_loss(rows, training=is_training)
    known, hidden = states
    users = rows["user_id_xf"].numpy()[rows["is_target"].numpy()]
    # Without id and history, whoever has the same demographics has the same vector.
    names = ("gender_xf", "age_xf", "occupation_xf", "zip_code_xf")
    person = np.stack([rows[name].numpy()[rows["is_target"].numpy()] for name in names], axis=1)
    _, first, same = np.unique(person, axis=0, return_index=True, return_inverse=True)
    agrees = np.isclose(hidden, hidden[first[same.ravel()]], atol=1e-5).all(axis=1)
    assert len(first) < len(users)
    assert agrees.mean() > 0.98
    assert np.isclose(known, known[first[same.ravel()]], atol=1e-5).all(axis=1).mean() < 0.9


@pytest.mark.parametrize("settings_", [{"shared": False, "shared_state": True}, {"state_gradient": 0.5}])
def test_only_a_shared_state_can_be_trained(settings_):
    with pytest.raises(ValidationError, match="shared"):
        settings(**settings_)


@pytest.mark.parametrize("weights", [{"retrieval_weight": 2.0}, {"rating_weight": 0.0}])
def test_weights_cannot_be_both_fixed_and_learnt(weights):
    with pytest.raises(
        ValidationError, match="retrieval_weight and rating_weight should be 1 with weighting uncertain"
    ):
        settings(weighting="uncertainty", **weights)
