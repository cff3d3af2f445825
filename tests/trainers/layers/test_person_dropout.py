"""Parts of a person are hidden as often as asked for, each as a whole, and models learn to do without them."""

from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from tests.trainers.planted_splits import planted_splits, with_history
from tests.trainers.specs import spec_of
from trainers.hyperparameters import RankingHyperparameters
from trainers.layers.person_dropout import PersonDropout
from trainers.layers.weights import named_weights, vocabulary_of
from trainers.loop import training
from transform.features import Kind, Role, columns

ROWS = 20_000
# Four standard deviations of a share of this many rows, at most.
MARGIN = 4 * 0.5 / np.sqrt(ROWS)
SHARES = {"id_dropout": 0.1, "demographics_dropout": 0.2, "moment_dropout": 0.3, "history_dropout": 0.4}
CLOCK = {"timestamp_normalized_xf", "timestamp_hour_xf", "timestamp_weekday_xf"}
PARTS = {
    "id": {"user_id_xf"},
    "demographics": {"gender_xf", "age_xf", "age_normalized_xf", "occupation_xf", "zip_code_xf"},
    "moment": {*CLOCK, "timestamp_seconds_xf"},
    "history": {"history_movie_ids_xf", "history_ratings_xf", "history_timestamps_xf"},
}


def dropout(**shares):
    nothing = dict.fromkeys(SHARES, 0.0)
    return PersonDropout(RankingHyperparameters(**nothing | shares))


def features(*roles):
    """Rows in which every feature has the value 1."""
    made = {}
    for column in columns(*roles):
        shape = (
            [ROWS, 3] if column.kind in (Kind.MOVIES, Kind.RATINGS, Kind.TIMES, Kind.TOKENS, Kind.MULTI_HOT) else [ROWS]
        )
        is_number = column.kind in (Kind.NORMALIZED, Kind.RATINGS, Kind.NUMBER, Kind.FREQUENCY)
        made[column.name] = tf.ones(shape, tf.float32 if is_number else tf.int32)
    return made


def hidden_rows(values):
    """Whether a feature is hidden in each row, given that it is so as a whole."""
    flat = values.numpy().reshape(ROWS, -1)
    assert ((flat == 0).all(axis=1) | (flat == 1).all(axis=1)).all()
    return flat[:, 0] == 0


def hidden_parts(made):
    """Whether each part is hidden in each row; all of its features are hidden in the same rows."""
    hidden = {}
    for part, names in PARTS.items():
        rows = [hidden_rows(made[name]) for name in names if name in made]
        assert all((each == rows[0]).all() for each in rows)
        if rows:
            hidden[part] = rows[0]
    return hidden


def test_the_four_parts_are_all_that_is_known_of_a_person():
    person = {column.name for column in columns(Role.USER, Role.CONTEXT, Role.HISTORY)}
    assert set().union(*PARTS.values()) == person


@pytest.mark.parametrize("seed", range(5))
def test_each_part_is_hidden_as_a_whole_in_its_share_of_rows(seed):
    tf.keras.utils.set_random_seed(seed)
    given = features()
    made = dropout(**SHARES)(given, training=True)
    hidden = hidden_parts(made)
    assert (hidden["id"] | ~(hidden["demographics"] | hidden["history"])).all()
    for part in ("demographics", "moment", "history"):
        assert hidden[part].mean() == pytest.approx(SHARES[f"{part}_dropout"], abs=MARGIN)
    assert hidden["id"].mean() == pytest.approx(1 - 0.9 * 0.8 * 0.6, abs=MARGIN)
    # Apart from the id, one part says nothing about another.
    assert (hidden["demographics"] & hidden["history"]).mean() == pytest.approx(0.2 * 0.4, abs=MARGIN)
    assert (hidden["moment"] & hidden["history"]).mean() == pytest.approx(0.3 * 0.4, abs=MARGIN)
    assert made.keys() == given.keys()
    for name, values in made.items():
        assert values.dtype == given[name].dtype
        if name not in set().union(*PARTS.values()):
            np.testing.assert_array_equal(values, given[name])


@pytest.mark.parametrize("part", PARTS)
def test_a_part_that_is_always_hidden_alone_hides_the_id_only_where_new_people_lack_it(part):
    # Training never hides everything, so almost everything is as near as one comes.
    hidden = hidden_parts(dropout(**{f"{part}_dropout": 0.999})(features(), training=True))
    assert hidden.pop(part).mean() > 0.99
    if part in ("demographics", "history"):
        assert hidden.pop("id").mean() > 0.99
    assert not any(rows.any() for rows in hidden.values())


@pytest.mark.parametrize("moment_dropout", [0.0, 0.4])
def test_the_clock_is_hidden_also_where_the_moment_is_not(moment_dropout):
    made = dropout(clock_dropout=0.3, moment_dropout=moment_dropout)(features(), training=True)
    moment = hidden_rows(made["timestamp_seconds_xf"])
    clock, *others = (hidden_rows(made[name]) for name in CLOCK)
    assert all((each == clock).all() for each in others)
    assert moment.mean() == pytest.approx(moment_dropout, abs=MARGIN)
    assert clock[moment].all()
    assert clock[~moment].mean() == pytest.approx(0.3, abs=2 * MARGIN)
    assert not any(hidden_rows(made[name]).any() for part in ("id", "demographics", "history") for name in PARTS[part])


def test_two_batches_hide_different_rows():
    layer, given = dropout(id_dropout=0.5), features()
    first, second = (hidden_rows(layer(given, training=True)["user_id_xf"]) for _ in range(2))
    assert (first != second).mean() == pytest.approx(0.5, abs=MARGIN)


def test_nothing_is_hidden_where_nothing_is_trained():
    given = features()
    made = dropout(**SHARES)(given, training=False)
    assert made.keys() == given.keys()
    assert not any(rows.any() for rows in hidden_parts(made).values())


@pytest.mark.parametrize("missing", [Role.CONTEXT, Role.HISTORY, Role.USER])
def test_data_may_lack_a_role(missing):
    tf.keras.utils.set_random_seed(0)
    given = features(*(role for role in Role if role not in (missing, Role.EVALUATION)))
    made = dropout(**SHARES)(given, training=True)
    assert made.keys() == given.keys()
    hidden = hidden_parts(made)
    lost = {Role.CONTEXT: {"moment"}, Role.HISTORY: {"history"}, Role.USER: {"id", "demographics"}}[missing]
    assert hidden.keys() == PARTS.keys() - lost
    for part, rows in hidden.items():
        if part != "id":
            assert rows.mean() == pytest.approx(SHARES[f"{part}_dropout"], abs=MARGIN)


TRAINING = {"embedding_dim": 4, "hidden_units": [8], "batch_size": 64, "epochs": 1, "learning_rate": 0.01}
HIDING = {"id_dropout": 0.3, "demographics_dropout": 0.3, "history_dropout": 0.1}
NAMES = ("retrieval", "ranking", "joint", "dcn")
USER_CATEGORIES = ("user_id", "gender", "occupation", "zip_code")


@pytest.fixture(scope="module")
def splits():
    return with_history(planted_splits(users=40, movies=30, ratings=600, seed=0))


@pytest.fixture(scope="module", params=NAMES)
def trained(request, splits, tmp_path_factory):
    """Name, the model, and its weights before training by name."""
    name = request.param
    narrow = {"factor_dim": 4, "attention_dim": 4}
    rating = {"embedding_dim": 4, "hidden_units": [8], **narrow}
    more: dict[str, dict[str, Any]] = {"joint": {"rating": rating}, "ranking": narrow}
    section = {**TRAINING, **HIDING, **more.get(name, {})}
    spec = spec_of(name, section)
    hparams = spec.hyperparameters(**section)
    tf.keras.utils.set_random_seed(0)
    model = spec.build(splits, hparams)
    model.compute_loss({key: tf.constant(values) for key, values in splits.train.items()}, training=False)
    before = {key: weight.numpy() for key, weight in named_weights(model).items()}
    training.fit(model, splits.train, spec.objective(splits), hparams, str(tmp_path_factory.mktemp(name)), name)
    return name, model, before


def answers(model, rows):
    functions = [getattr(model, name) for name in ("scores", "ratings") if hasattr(model, name)]
    return np.concatenate([function(rows).numpy().reshape(len(rows["user_id_xf"]), -1) for function in functions], 1)


@pytest.mark.parametrize("feature", USER_CATEGORIES)
def test_a_word_that_is_not_known_is_answered_like_a_missing_one(splits, trained, feature):
    _, model, _ = trained
    rows = {key: tf.constant(values[:60]) for key, values in splits.eval.items()}
    column = f"{feature}_xf"
    missing, unknown = (
        answers(model, rows | {column: tf.fill(rows[column].shape, index)}) for index in (0, splits.size(feature) - 1)
    )
    np.testing.assert_array_equal(missing, unknown)
    known = np.nan_to_num(answers(model, rows), neginf=0.0)
    assert np.abs(known - np.nan_to_num(missing, neginf=0.0)).max() > 1e-4


def test_what_is_missing_is_learnt(splits, trained):
    name, model, before = trained
    learnt = set()
    for path, weight in named_weights(model).items():
        feature = vocabulary_of(weight)
        if feature not in USER_CATEGORIES or "_ids" in path or "_user_bias" in path:
            # The query tower leaves the id out instead, and the factor model reads the bias off the history.
            continue
        moved = np.abs(weight.numpy() - before[path]).max(axis=1)
        assert moved[0] > 1e-4, path
        learnt.add(feature)
    assert learnt == set(USER_CATEGORIES) - ({"user_id"} if name == "retrieval" else set())
