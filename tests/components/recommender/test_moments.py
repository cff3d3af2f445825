"""A recommender whose retriever reads in order answers every moment as the retriever does, also from stored vectors."""

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf

from components.recommender.stored_data import Users
from components.recommender.two_stage_model import Recommender
from tests.components.recommender.fake_models import LENGTH, MOVIES, FakeModel, ask, fake_transform
from tests.trainers.planted_splits import planted_splits, with_history
from trainers import retrieval
from trainers.datasets import elements_of
from trainers.export.signatures import RetrievalHead, export
from trainers.hyperparameters import RetrievalHyperparameters
from transform import moments

SESSION = 600
TEN_YEARS = 10 * 365 * 86_400
START = 978_300_000  # Seconds since 1970, at the end of the year 2000.
HISTORY = ("history_movie_ids", "history_ratings", "history_timestamps")
# By user: movies, ratings and times, oldest first. What user 9 rated last is a movie that the models do not know.
RATED = {
    7: ([40, 50], [2, 5], [START, START + 100]),
    8: ([10, 30, 20], [4, 1, 3], [START - 250_000, START, START + 2000]),
    9: ([20, 50], [5, 4], [START, START + 7]),
}
USERS = list(RATED)
LATEST = np.array([START + 100, START + 2000, START + 7 + 2 * SESSION])
IS_OF_HISTORY = np.array([True, True, False])  # Whose latest rating is of their history.
NOT_TOLD = np.zeros_like(LATEST)
ALIKE = {"not told": NOT_TOLD, "after the session": LATEST + SESSION + 1, "years later": LATEST + TEN_YEARS}
UNLIKE = {"soon": LATEST + 5, "at the session's end": LATEST + SESSION}
MOMENTS = ALIKE | UNLIKE


class QuickHead(RetrievalHead):
    """A head without metrics, which would take most of the time of an export."""

    def evaluate(self, features, raw):
        return {}

    main_metric = evaluate


def history(without_times=False):
    """What the users rated, as a request tells it."""
    told = {name: np.zeros([len(USERS), LENGTH], np.int64) for name in HISTORY}
    for row, rated in enumerate(RATED.values()):
        for values, of_user in zip(told.values(), rated, strict=True):
            values[row, : len(of_user)] = of_user
    if without_times:
        told["history_timestamps"][:] = 0
    return told


def features(now, without_times=False):
    """Transformed features of the users at moments; what was not told has the hour of the latest rating, as always."""
    movies, ratings, times = history(without_times).values()
    known = moments.seconds(tf.constant(times)).numpy()
    count = (movies > 0).sum(axis=1, keepdims=True)
    # From oldest first to newest first, with the padding behind the last one in both.
    places = np.where(np.arange(LENGTH) < count, count - 1 - np.arange(LENGTH), np.arange(LENGTH))
    movies, ratings, known = (np.take_along_axis(values, places, axis=1) for values in (movies, ratings, known))
    return {
        "user_id_xf": np.array([1, 2, 3], np.int32),
        "gender_xf": np.array([2, 1, 2], np.int32),
        "age_xf": np.array([3, 1, 6], np.int32),
        "timestamp_hour_xf": (np.where(now > 0, now, LATEST) // 3600 % 24 + 1).astype(np.int32),
        "timestamp_seconds_xf": moments.seconds(tf.constant(now)).numpy().astype(np.int32),
        "history_movie_ids_xf": (movies // 10).astype(np.int32),
        "history_ratings_xf": ratings.astype(np.float32),
        "history_timestamps_xf": known.astype(np.int32),
    }


@pytest.fixture(scope="module")
def splits():
    """Splits with the features above, of as many movies as the other models know."""
    planted = with_history(planted_splits(users=40, movies=len(MOVIES.ids) - 2, ratings=120, seed=0), LENGTH)
    train = {name: values for name, values in planted.train.items() if name not in ("occupation_xf", "zip_code_xf")}
    train["timestamp_hour_xf"] = np.ones_like(train["user_id_xf"])
    transform, vocabularies = fake_transform(), planted.transform
    output = SimpleNamespace(
        vocabulary_size_by_name=vocabularies.vocabulary_size_by_name,
        vocabulary_by_name=vocabularies.vocabulary_by_name,
        transform_features_layer=lambda: transform.layer,
        raw_feature_spec=lambda: transform.spec,
    )
    return dataclasses.replace(planted, train=train, transform=output)


@pytest.fixture(scope="module")
def model(splits):
    """A retriever with random weights, so large that all it reads makes a difference."""
    tf.keras.utils.set_random_seed(0)
    hparams = RetrievalHyperparameters(query="sequence", embedding_dim=8, blocks=1, session=SESSION)
    model = retrieval.SPEC.build(splits, hparams)
    model.compute_loss({name: tf.constant(values) for name, values in elements_of(model, splits.train).items()})
    rng = np.random.default_rng(0)
    for weight in model.trainable_variables:
        weight.assign(rng.normal(0, 0.5, weight.shape))
    return model


@pytest.fixture(scope="module")
def recommender(model, splits, tmp_path_factory):
    folder = str(tmp_path_factory.mktemp("retriever"))
    export(model, splits, folder, (QuickHead,))

    def below_nobody(values):
        return np.concatenate([np.zeros_like(values[:1]), values])

    movies = history()["history_movie_ids"]
    users = Users(
        ids=np.array([0, *USERS]),
        features={name: below_nobody(values) for name, values in features(NOT_TOLD).items()},
        latest=below_nobody(LATEST),
        seen_offsets=np.array([0, 0, *np.cumsum((movies > 0).sum(axis=1))]),
        seen_movies=(movies[movies > 0] // 10).astype(np.int32),
    )
    loaded = tf.saved_model.load(folder)
    return Recommender(loaded, FakeModel(), fake_transform(), MOVIES, users, candidates=MOVIES.count)


@pytest.fixture(scope="module")
def answer(recommender):
    """Asks with what users tell: movie ids by falling score, and their scores, both [users, candidates]."""

    def answer_of(users, now, **told):
        answers = ask(recommender, user_id=users, now=now, **told)
        return np.array(answers["movie_id"]), np.array(answers["retrieval_score"])

    return answer_of


@pytest.fixture(scope="module")
def expected(model):
    """What the retriever itself scores: as `answer`."""

    def expected_of(person):
        # In float64, since Python's lists are.
        scores = model.scores({name: tf.constant(values) for name, values in person.items()}).numpy().astype(float)
        for row, (movies, _, _) in enumerate(RATED.values()):
            scores[row, np.array(movies) // 10] = -np.inf
        order = np.argsort(-scores, axis=1)[:, : MOVIES.count]
        scores = np.take_along_axis(scores, order, axis=1)
        there = np.isfinite(scores)
        return np.where(there, MOVIES.ids[order], 0), np.where(there, scores, 0)

    return expected_of


def assert_alike(found, wanted):
    np.testing.assert_array_equal(found[0], wanted[0])
    np.testing.assert_allclose(found[1], wanted[1], rtol=1e-5, atol=1e-5)


def differs(found, other):
    """Whose scores differ: bool [users]."""
    return np.abs(found[1] - other[1]).max(axis=1) > 1e-3


@pytest.mark.parametrize("moment", MOMENTS)
def test_what_is_stored_answers_as_the_same_told_history_does_and_as_the_retriever_scores(answer, expected, moment):
    now = MOMENTS[moment]
    stored = answer(USERS, now)
    assert_alike(stored, answer(USERS, now, **history()))
    assert_alike(stored, expected(features(now)))


def test_no_moment_is_told_apart_from_another_unless_it_is_in_the_session(answer):
    not_told, *others = (answer(USERS, now) for now in ALIKE.values())
    for other in others:
        np.testing.assert_array_equal(other, not_told)
    for now in UNLIKE.values():
        np.testing.assert_array_equal(differs(answer(USERS, now), not_told), IS_OF_HISTORY)


def test_the_stored_vectors_answer_outside_of_the_session_alone(recommender, answer):
    def ask_all():
        return {moment: answer(USERS, now) for moment, now in MOMENTS.items()}

    stored, before = recommender.user_queries.numpy(), ask_all()
    recommender.user_queries.assign(stored + 1)
    changed = ask_all()
    recommender.user_queries.assign(stored)
    for moment in MOMENTS:
        np.testing.assert_array_equal(differs(changed[moment], before[moment]), moment in ALIKE)


@pytest.mark.parametrize("users", [USERS, [0, 0, 0]])
def test_a_told_history_without_a_moment_is_not_asked_in_the_second_of_its_latest_rating(answer, expected, users):
    own = history()["history_timestamps"].max(axis=1)
    not_told, in_session = (answer(users, now, **history()) for now in (NOT_TOLD, own))
    assert differs(not_told, in_session).all()
    for now in (own + SESSION + 1, own + TEN_YEARS):
        assert_alike(answer(users, now, **history()), not_told)
    if users == USERS:
        assert_alike(not_told, expected(features(NOT_TOLD)))
        assert_alike(in_session, expected(features(own)))


def test_who_tells_no_times_of_a_history_is_in_no_session(answer, expected):
    told = history(without_times=True)
    not_told = answer(USERS, NOT_TOLD, **told)
    assert_alike(not_told, expected(features(NOT_TOLD, without_times=True)))
    assert_alike(answer(USERS, LATEST + 5, **told), not_told)
    assert differs(not_told, answer(USERS, NOT_TOLD, **history())).all()


def test_somebody_unknown_is_answered_alike_at_all_moments(answer):
    not_told, *others = (answer([0, 0, 0], now) for now in MOMENTS.values())
    assert (not_told[0] > 0).all()
    for other in others:
        np.testing.assert_array_equal(other, not_told)


def test_a_clock_that_is_far_behind_tells_no_moment(answer):
    assert_alike(answer(USERS, LATEST - TEN_YEARS), answer(USERS, NOT_TOLD))
