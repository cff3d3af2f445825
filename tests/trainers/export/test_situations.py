"""Asked later and by new people: features are those of changed raw rows, and exported models measure each situation."""

import calendar
import time
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_transform as tft

from tests.trainers.specs import spec_of
from tests.transform import transform_graph
from trainers import baselines
from trainers.datasets import Splits, with_int32_indices
from trainers.export import signatures
from trainers.export.situations import SITUATIONS, in_every_situation, in_situation
from transform.features import Kind, columns

pytestmark = pytest.mark.component

DAY = 86_400
LATER = {"after_30_days": 30 * DAY, "after_1_year": 365 * DAY, "after_25_years": 25 * 365 * DAY}
HISTORY = ("history_movie_ids", "history_ratings", "history_timestamps")
LACKING = {
    "new_with_history": ("user_id",),
    "new_with_history_alone": ("user_id", "gender", "age", "occupation", "zip_code"),
    "new_without_history": ("user_id", *HISTORY),
}
MOVIES, LENGTH = 40, 4
FIRST_SECOND = calendar.timegm(time.strptime("2000-04-01", "%Y-%m-%d"))


def movie(number):
    row = {"movie_id": [number], "title": [f"Film {number} (1990)"], "release_year": [1940 + number]}
    return row | {"genres": [("Drama", "War")[number % 2]], "director": [f"D{number % 5}"], "star": [f"S{number % 7}"]}


def ratings(seed, rows=150):
    rng = np.random.default_rng(seed)
    made = []
    for _ in range(rows):
        seen = rng.permutation(np.arange(1, MOVIES + 1))[: rng.integers(1, 15)]
        person: dict[str, Any] = {
            "user_id": [int(rng.integers(1, 20))],
            "gender": [rng.choice(["M", "F"])],
            "age": [int(rng.choice([1, 18, 25, 35, 56]))],
            "occupation": [int(rng.integers(21))],
            "zip_code": [f"{rng.integers(10_000, 60_000)}"],
            "timestamp": [int(FIRST_SECOND + rng.integers(3 * 365 * DAY))],
            "rating": [float(rng.integers(1, 6))],
            "seen_movie_ids": seen[1:].tolist(),
            "history_movie_ids": seen[1:].tolist(),
            "history_ratings": rng.integers(1, 6, len(seen) - 1).astype(float).tolist(),
        }
        made.append(movie(int(seen[0])) | person)
    return made


@pytest.fixture(scope="module")
def output(tmp_path_factory):
    rows = [*ratings(seed=0), *(movie(number) for number in range(1, MOVIES + 1))]
    return tft.TFTransformOutput(str(transform_graph.analyze(rows, tmp_path_factory.mktemp("graph"), LENGTH)))


@pytest.fixture(scope="module")
def rows():
    """Test rows; one of them has no timestamp, and one nothing but a movie."""
    made = ratings(seed=1)
    del made[0]["timestamp"]
    return [*made, movie(3) | {"rating": [4.0]}]


def serialized(rows):
    return tf.constant([transform_graph.serialize(row) for row in rows])


def transformed(output, rows):
    raw = tf.io.parse_example(serialized(rows), output.raw_feature_spec())
    return with_int32_indices(output.transform_features_layer()(raw))


def changed(situation, rows):
    """Raw rows as they would be in the situation, changed by hand."""
    if situation in LATER:
        return [row | {"timestamp": [second + LATER[situation] for second in row.get("timestamp", [])]} for row in rows]
    return [{name: values for name, values in row.items() if name not in LACKING[situation]} for row in rows]


def test_all_situations_are_tested():
    assert set(SITUATIONS) == LATER.keys() | LACKING.keys()


@pytest.mark.parametrize("situation", SITUATIONS)
def test_features_are_those_of_raw_rows_that_were_changed_by_hand(output, rows, situation):
    raw = tf.io.parse_example(serialized(rows), output.raw_feature_spec())
    features = transformed(output, rows)
    found = in_situation(situation, features, raw, output.transform_features_layer())
    expected = transformed(output, changed(situation, rows))
    assert found.keys() == features.keys()
    for name, values in found.items():
        assert values.dtype == features[name].dtype
        # The standardised age of somebody whose age is missing is 0, which is the mean.
        np.testing.assert_array_equal(values, expected[name], err_msg=name)


@pytest.mark.parametrize("situation", LACKING)
def test_new_people_lack_what_nobody_knows_of_them_and_keep_the_rest(output, rows, situation):
    rows = with_times(rows)
    raw = tf.io.parse_example(serialized(rows), output.raw_feature_spec())
    features = transformed(output, rows)
    found = in_situation(situation, features, raw, output.transform_features_layer())
    lacking = {column.name for column in columns() if column.feature.name in LACKING[situation]}
    assert len(lacking) == {"new_with_history": 1, "new_with_history_alone": 6, "new_without_history": 4}[situation]
    for name, values in found.items():
        if name in lacking:
            assert not np.any(values)
            assert np.any(features[name])
        else:
            np.testing.assert_array_equal(values, features[name])


@pytest.mark.parametrize("situation", LATER)
def test_moments_move_by_the_calendar(output, situation):
    # A Saturday, at half past ten in the evening, in the middle of the data.
    row = {"timestamp": [calendar.timegm(time.strptime("2001-09-29T22:30:00", "%Y-%m-%dT%H:%M:%S"))]}
    raw = tf.io.parse_example(serialized([row]), output.raw_feature_spec())
    features = transformed(output, [row])
    found = in_situation(situation, features, raw, output.transform_features_layer())
    assert (features["timestamp_hour_xf"].numpy(), features["timestamp_weekday_xf"].numpy()) == ([23], [6])
    assert found["timestamp_hour_xf"].numpy() == [23]
    days = LATER[situation] // DAY
    assert found["timestamp_weekday_xf"].numpy() == [(6 - 1 + days) % 7 + 1]
    seconds = np.array([moment["timestamp"][0] for moment in ratings(seed=0)])
    score = (row["timestamp"][0] + LATER[situation] - seconds.mean()) / seconds.std()
    np.testing.assert_allclose(found["timestamp_normalized_xf"], [min(score, 1.0)], atol=1e-5)


def test_z_scores_are_bounded_on_both_sides(output):
    layer_rows = [{"timestamp": [1], "release_year": [1880]}, {"timestamp": [4 * 10**9], "release_year": [2100]}]
    found = transformed(output, layer_rows)
    np.testing.assert_array_equal(found["timestamp_normalized_xf"], [-1, 1])
    np.testing.assert_array_equal(found["release_year_normalized_xf"], [-3, 3])
    bounds = {column.name: column.feature.bound for column in columns() if column.kind is Kind.NORMALIZED}
    assert bounds == {"timestamp_normalized_xf": 1, "age_normalized_xf": 3, "release_year_normalized_xf": 3}


def test_25_years_later_everybody_asks_at_the_bound(output, rows):
    raw = tf.io.parse_example(serialized(rows), output.raw_feature_spec())
    features = transformed(output, rows)
    found = in_situation("after_25_years", features, raw, output.transform_features_layer())
    has_moment = np.array(["timestamp" in row for row in rows])
    np.testing.assert_array_equal(found["timestamp_normalized_xf"], np.where(has_moment, 1, 0))
    assert len(np.unique(features["timestamp_normalized_xf"])) > 50


@pytest.mark.parametrize(
    ("alike_after", "judged"),
    [
        (None, [*LATER, *LACKING]),
        (0, ["after_30_days", *LACKING]),
        (30 * DAY - 1, ["after_30_days", *LACKING]),
        (30 * DAY, ["after_30_days", "after_1_year", *LACKING]),
        (365 * DAY, [*LATER, *LACKING]),
    ],
)
def test_what_is_alike_to_a_model_is_judged_once(output, rows, alike_after, judged):
    raw, layer = tf.io.parse_example(serialized(rows), output.raw_feature_spec()), output.transform_features_layer()
    features, calls = transformed(output, rows), []

    def judge(there):
        calls.append(there)
        return {"call": tf.constant(len(calls))}

    found = in_every_situation(judge, features, raw, layer, alike_after)

    assert list(found) == [f"call_{situation}" for situation in SITUATIONS]
    by_call = {int(found[f"call_{situation}"]): situation for situation in reversed(SITUATIONS)}
    assert [by_call[call] for call in sorted(by_call)] == judged
    for call, situation in by_call.items():
        for name, values in in_situation(situation, features, raw, layer).items():
            np.testing.assert_array_equal(calls[call - 1][name], values)


SMALL = {"embedding_dim": 4, "hidden_units": [8]}
RATING = SMALL | {"factor_dim": 4, "attention_dim": 4}


@pytest.fixture(scope="module")
def splits(output):
    as_arrays = {
        name: {key: values.numpy() for key, values in transformed(output, of_split).items()}
        for name, of_split in {
            "train": ratings(seed=0),
            "eval": ratings(seed=2, rows=20),
            "movies": [movie(number) for number in range(1, MOVIES + 1)],
        }.items()
    }
    return Splits(**as_arrays, transform=output)


def model_and_export(splits, folder, name, section):
    """A model with random weights, and what `evaluate` of its export returns for rows."""
    spec = spec_of(name, section)
    tf.keras.utils.set_random_seed(0)
    model = spec.build(splits, spec.hyperparameters(**section))
    model.compute_loss({key: tf.constant(values) for key, values in splits.train.items()})
    rng = np.random.default_rng(0)
    for weight in model.trainable_variables:
        weight.assign(weight + rng.normal(0, 0.3, weight.shape))
    signatures.export(model, splits, str(folder), spec.heads)
    evaluate = tf.saved_model.load(str(folder)).signatures["evaluate"]
    return model, lambda rows: {key: values.numpy() for key, values in evaluate(examples=serialized(rows)).items()}


def slow_recall(scores, features, rows, movie_ids):
    """Recall@10 of each row among the movies that its person has not seen, by sorting."""
    found = []
    for row, own in enumerate(features["movie_id_xf"].numpy()):
        seen = set(rows[row].get("seen_movie_ids", []))
        rivals = [n for n, movie_id in enumerate(movie_ids) if movie_id and movie_id not in seen and n != own]
        found.append(float(sum(scores[row][n] >= scores[row][own] for n in rivals) < 10))
    return found


def with_times(rows):
    """Rows with times of their ratings, the latest some seconds before the row or days before it."""
    made = []
    for number, row in enumerate(rows):
        length = len(row.get("history_movie_ids", []))
        if length and "timestamp" in row:
            latest = row["timestamp"][0] - (3, 20, 5 * DAY)[number % 3]
            row = row | {"history_timestamps": [latest - 60 * back for back in reversed(range(length))]}
        made.append(row)
    return made


@pytest.mark.parametrize("query", ["pooled", "sequence"])
def test_an_exported_model_measures_its_main_metrics_in_every_situation(splits, output, rows, tmp_path, query):
    rows = with_times(rows)
    section = SMALL | {"rating": RATING, "query": query, "shared_state": True}
    model, evaluate = model_and_export(splits, tmp_path, "joint", section)
    values = evaluate(rows)
    ids = [0, *(int(key) for key in output.vocabulary_by_name("movie_id_vocabulary")), 0]
    recalls, errors = {}, {}
    for situation in ("", *SITUATIONS):
        suffix = f"_{situation}" if situation else ""
        features = transformed(output, changed(situation, rows) if situation else rows)
        recalls[situation] = slow_recall(model.scores(features).numpy(), features, rows, ids)
        errors[situation] = (model.ratings(features).numpy() - features["rating_xf"].numpy()) ** 2
        np.testing.assert_array_equal(values[f"recall_at_10_filtered{suffix}"], recalls[situation])
        np.testing.assert_allclose(values[f"squared_error{suffix}"], errors[situation], rtol=1e-4, atol=1e-4)
    for situation in SITUATIONS:
        assert recalls[situation] != recalls[""]
        assert np.abs(errors[situation] - errors[""]).max() > 1e-3

    groups = transformed(output, rows)
    of_group = baselines.popularity_by_group(splits)[groups["gender_xf"].numpy(), groups["age_xf"].numpy()]
    expected = slow_recall(of_group, groups, rows, ids)
    np.testing.assert_array_equal(values["popularity_by_group_recall_at_10_filtered"], expected)


def test_an_exported_model_of_likes_measures_its_log_loss_in_every_situation(splits, output, rows, tmp_path):
    model, evaluate = model_and_export(splits, tmp_path, "dcn", SMALL | {"objective": "like"})
    values = evaluate(rows)
    losses = {}
    for situation in ("", *SITUATIONS):
        features = transformed(output, changed(situation, rows) if situation else rows)
        stars = features["rating_xf"].numpy()
        chance = 1 / (1 + np.exp(-model.like_logits(features).numpy().astype(float)))
        losses[situation] = -np.log(np.where(stars >= 4, chance, 1 - chance)) * (stars != 3)
        found = values[f"log_loss_{situation}" if situation else "log_loss"]
        np.testing.assert_allclose(found, losses[situation], rtol=1e-3, atol=1e-5)
    # The network reads neither moments nor histories.
    for situation in LATER:
        np.testing.assert_array_equal(losses[situation], losses[""])
    for situation in LACKING:
        assert np.abs(losses[situation] - losses[""]).max() > 1e-3
