"""The two-stage graph retrieves, orders and leaves out seen movies, tested with models whose outputs are known."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from components.recommender.requests import Limits
from components.recommender.second_stage import RATING_ORDER
from components.recommender.two_stage_model import Recommender, save, smoke_test
from tests.components.recommender.fake_models import (
    IDS,
    MOVIES,
    NEUTRAL,
    USER_COUNT,
    USERS,
    EarlierModel,
    FakeModel,
    ask,
    fake_recommender,
    fake_transform,
)

INPUTS = ("user_id", "history_movie_ids", "history_ratings")


@pytest.fixture(scope="module")
def by_rating():
    recommender = fake_recommender()
    recommender.set_second_stage(RATING_ORDER)
    return recommender


@pytest.fixture(scope="module")
def by_retrieval():
    return fake_recommender()


def recommend(recommender, user_id, history=()):
    answer = recommender.serving_default(
        tf.constant([user_id], tf.int64),
        tf.constant([list(history)], tf.int64, shape=[1, len(history)]),
        tf.zeros([1, len(history)]),
    )
    return {name: value.numpy()[0].tolist() for name, value in answer.items()}


def test_unknown_user_gets_the_retrieved_movies_in_the_order_of_the_second_stage(by_rating, by_retrieval):
    assert recommend(by_rating, 0)["movie_id"] == [30, 40, 50]
    assert recommend(by_retrieval, 0)["movie_id"] == [50, 40, 30]


@pytest.mark.parametrize(
    ("weights", "expected"),
    # Of the movies 30, 40, 50: retrieval scores 3, 4, 5; stars 3.5, 3, 2.5, that is .5, 0, -.5 from the middle;
    # popularity 3, 2, 1; biases .5, .67, .83.
    [
        ([1.0, 1.9, 0, 0, 0], [50, 40, 30]),
        ([1.0, 2.1, 0, 0, 0], [30, 40, 50]),
        ([1.0, 0, -5, 0, 0], [40, 50, 30]),
        ([0.3, 0, 0, 1.0, 0], [40, 30, 50]),
        ([0, 0, 0, 0, 1.0], [50, 40, 30]),
    ],
)
def test_the_second_stage_weighs_scores_ratings_and_what_is_known_of_movies(weighed, weights, expected):
    weighed.set_second_stage(np.array(weights))
    assert recommend(weighed, 0)["movie_id"] == expected


def test_people_whom_training_never_saw_have_weights_of_their_own():
    # User 8 is stored like user 7, but all the test rows are theirs, so that the vocabulary does not have them.
    features = {name: np.concatenate([values, values[1:]]) for name, values in USERS.features.items()}
    features["user_id_xf"][2] = USER_COUNT - 1
    stored = {"latest": np.array([0, 70, 70]), "seen_offsets": np.array([0, 0, 2, 4])}
    users = dataclasses.replace(
        USERS, ids=np.array([0, 7, 8]), features=features, seen_movies=np.array([4, 5, 4, 5], np.int32), **stored
    )
    recommender = fake_recommender(users=users)
    recommender.set_second_stage(for_known=RATING_ORDER, for_new=-RATING_ORDER)
    # 40 and 50 are seen by both.
    assert recommend(recommender, 7)["movie_id"] == [10, 20, 30]
    assert recommend(recommender, 8)["movie_id"] == [30, 20, 10]
    assert recommend(recommender, 9)["movie_id"] == recommend(recommender, 0)["movie_id"] == [50, 40, 30]
    # A history of a known person's own does not make them somebody else.
    assert recommend(recommender, 7, history=[10])["movie_id"] == [20, 30, 0]


@pytest.fixture(scope="module")
def weighed():
    return fake_recommender()


def test_a_movie_that_left_the_catalogue_is_not_recommended_but_stays_in_histories():
    gone = dataclasses.replace(MOVIES, candidates=(IDS > 0) & (IDS != 50))
    models = FakeModel(), FakeModel()
    recommender = Recommender(*models, fake_transform(), gone, USERS, 3)
    # By retrieval the movie 50 would be first; after it, 40 is next to it.
    assert recommend(fake_recommender(), 0)["movie_id"] == [50, 40, 30]
    assert recommend(recommender, 0)["movie_id"] == [40, 30, 20]
    # After 20 the index before it is 100 higher, also where 50, the one before, is the newest that is known.
    assert recommend(recommender, 0, history=[50, 20])["movie_id"] == [10, 40, 30]
    assert recommend(recommender, 0, history=[50])["movie_id"][0] == 40
    assert recommender.popularity.numpy()[5] == -np.inf
    assert np.isneginf(recommender.popularity_by_group.numpy()[..., 5]).all()


def test_known_user_is_not_recommended_seen_movies(by_rating):
    answer = recommend(by_rating, 7)
    assert answer["movie_id"] == [10, 20, 30]
    assert answer["title"] == [b"title 10", b"title 20", b"title 30"]
    assert answer["predicted_rating"] == [4.5, 4.0, 3.5]


def test_given_history_is_excluded_and_its_last_movie_steers_retrieval():
    # 20 is the newest movie of the history, so 10, just before it, is retrieved first; 20 and 30 are left out.
    answer = recommend(fake_recommender(candidates=2), 0, history=[30, 20])
    assert answer["movie_id"] == [10, 50]


def test_padding_and_unknown_movies_in_a_history_are_ignored(by_rating):
    assert recommend(by_rating, 0, history=[0, 999]) == recommend(by_rating, 0)


@pytest.mark.parametrize("seed", range(5))
def test_the_answer_for_a_person_is_the_same_alone_and_in_any_batch(by_rating, seed):
    # More people than are rated at once.
    rows, width = 40, 6
    rng = np.random.default_rng(seed)
    lengths = rng.integers(0, width + 1, rows)
    is_given = np.arange(width) < lengths[:, None]

    def lists_of(values, dtype=np.int64):
        return np.where(is_given, rng.choice(values, (rows, width)), 0).astype(dtype)

    people = {
        "user_id": rng.choice([0, 7, 99], rows),
        "history_movie_ids": lists_of([0, 10, 20, 30, 40, 50, 999]),
        "history_ratings": lists_of([0, 1, 2, 3, 4, 5], np.float32),
        "history_timestamps": lists_of([0, 5, 6, 7]),
        "now": rng.choice([0, 80, 90], rows),
        "gender": rng.choice(np.array([b"", b"M", b"F"], object), rows),
        "age": rng.choice([0, 18, 35], rows),
        "exclude_movie_ids": lists_of([0, 10, 20, 999]),
        "k": rng.choice([0, 1, 2, 3, 50], rows),
    }
    together = ask(by_rating, **people)
    for row in range(rows):
        alone = ask(by_rating, **{name: values[row : row + 1] for name, values in people.items()})
        for name, value in alone.items():
            shown = len(value[0])
            assert value[0] == together[name][row][:shown]
            assert not any(together[name][row][shown:])
    assert len({tuple(ratings) for ratings in together["predicted_rating"]}) > 5


class ShiftedModel(FakeModel):
    """A fake model whose scores rise by what it is told, as long as queries are computed anew."""

    def __init__(self):
        super().__init__()
        self.shift = tf.Variable(0.0)
        self.model_variables.append(self.shift)

    def queries_of_read(self, person):
        return super().queries_of_read(person) + tf.stack([0.0, self.shift])


@pytest.fixture(scope="module")
def shifted():
    """Retrievers with recommenders made of them, by the seconds after which all moments are alike to the retriever."""
    made = {}
    for alike_after in (None, 30):
        model, ranking = ShiftedModel(), FakeModel()
        # A ranker that reads no moments says nothing of the retriever.
        ranking.alike_after = tf.Variable(0, dtype=tf.int64)
        if alike_after is not None:
            model.alike_after = tf.Variable(alike_after, dtype=tf.int64)
        made[alike_after] = model, Recommender(model, ranking, fake_transform(), MOVIES, USERS, 3)
    return made


# User 7's latest rating is of the second 70.
@pytest.mark.parametrize(
    ("told", "alike_after", "is_stored"),
    [
        ({}, None, True),
        ({"history_movie_ids": [[999, 0]], "history_ratings": [[4, 0]]}, None, True),
        ({"exclude_movie_ids": [[10]], "k": [2]}, None, True),
        ({"history_movie_ids": [[20]]}, None, False),
        ({"gender": [b"F"]}, None, False),
        ({"age": [35]}, None, False),
        ({"now": [1000]}, None, False),
        ({"now": [101]}, 30, True),
        ({"now": [101], "gender": [b"F"]}, 30, False),
        ({"now": [101], "history_movie_ids": [[20]]}, 30, False),
        # Within a session, and before the latest rating.
        ({"now": [100]}, 30, False),
        ({"now": [5]}, 30, False),
    ],
)
@pytest.mark.parametrize("user", [7, 8])
def test_queries_are_computed_at_export_unless_something_is_told(shifted, user, told, alike_after, is_stored):
    model, recommender = shifted[alike_after]
    # Somebody unknown has no latest rating, so that any moment is like any other.
    if user == 8 and alike_after is not None and told.keys() == {"now"}:
        is_stored = True
    model.shift.assign(0.0)
    before = ask(recommender, user_id=[user], **told)["retrieval_score"][0][0]
    model.shift.assign(8.0)
    after = ask(recommender, user_id=[user], **told)["retrieval_score"][0][0]
    assert after - before == pytest.approx(0.0 if is_stored else 8.0, abs=1e-5)


@pytest.mark.parametrize(("user", "history", "shift"), [(7, [], 0), (8, [], 0), (7, [999], 0), (7, [20], 8)])
def test_the_default_signature_takes_stored_queries_too(shifted, user, history, shift):
    model, recommender = shifted[None]
    scores = []
    for value in (0.0, 8.0):
        model.shift.assign(value)
        scores.append(recommend(recommender, user, history)["retrieval_score"][0])
    assert scores[1] - scores[0] == pytest.approx(shift, abs=1e-5)


@pytest.mark.parametrize("seed", range(3))
def test_answers_are_those_of_a_model_that_computes_all_queries_anew(seed):
    # Of a model that cannot give a query alone, none are stored.
    model, earlier = FakeModel(), EarlierModel()
    rng = np.random.default_rng(seed)
    # More people than are answered at once, of whom half tell nothing.
    rows = 150
    tells = rng.random(rows) < 0.5
    history = np.where(tells[:, np.newaxis], rng.choice([0, 10, 20, 999], (rows, 4)), 0)
    people = {
        "user_id": rng.choice([0, 7, 99], rows),
        "history_movie_ids": history,
        "now": rng.choice([0, 50, 80, 101], rows),
        "gender": np.where(tells, rng.choice([b"", b"M", b"F"], rows), b"").astype(object),
    }
    answers = [ask(Recommender(each, each, fake_transform(), MOVIES, USERS, 3), **people) for each in (model, earlier)]
    assert answers[0] == answers[1]
    assert len({tuple(scores) for scores in answers[0]["retrieval_score"]}) > 5


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"history_movie_ids": [[10], [20]], "history_ratings": [[1, 1], [5, 5]]},
            ["history_ratings", "[2 1]", "[2 2]"],
        ),
        (
            {"history_movie_ids": [[10, 20], [30, 40]], "history_ratings": [[1], [5]]},
            ["history_ratings", "[2 2]", "[2 1]"],
        ),
        ({"history_movie_ids": [[10, 20]], "history_ratings": [[1], [5]]}, ["history_movie_ids", "[1 2]", "2"]),
        ({"history_movie_ids": [[10]], "history_ratings": [[1]]}, ["history_movie_ids", "[1 1]", "2"]),
        ({"history_movie_ids": [[10], [20]], "history_ratings": [[6], [5]]}, ["history_ratings", "1 to 5", "6"]),
        ({"history_movie_ids": [[10], [20]], "history_ratings": [[-1], [5]]}, ["history_ratings", "1 to 5", "-1"]),
        ({"history_movie_ids": [[10], [20]], "history_ratings": [[0.5], [5]]}, ["history_ratings", "1 to 5", "0.5"]),
        ({"history_movie_ids": [[10], [20]], "history_ratings": [[5], [np.nan]]}, ["history_ratings", "1 to 5", "nan"]),
        ({"history_movie_ids": [[10], [20]], "history_ratings": [[5], [1e38]]}, ["history_ratings", "1 to 5", "1e+38"]),
        ({"user_id": [0] * 5}, ["at most 4 people", "5"]),
        ({"history_movie_ids": [[10] * 7] * 2, "history_ratings": [[1] * 7] * 2}, ["at most 6 movies", "[2 7]"]),
        (
            {"user_id": [0] * 3, "history_movie_ids": [[10] * 6] * 3, "history_ratings": [[1] * 6] * 3},
            ["history_movie_ids", "at most 16 values", "[3 6]"],
        ),
    ],
)
@pytest.mark.parametrize("signature", ["serving_default", "recommend"])
def test_what_does_not_fit_is_refused(tmp_path_factory, saved, signature, changes, words):
    # Without the checks of shapes, ratings of one row would count as those of the next.
    people = len(changes.get("user_id", [0, 0]))
    inputs = {name: np.repeat(value, people, axis=0) for name, value in NEUTRAL.items()}
    inputs |= {name: np.array(value, NEUTRAL[name].dtype) for name, value in changes.items()}
    names = NEUTRAL if signature == "recommend" else INPUTS
    with pytest.raises(tf.errors.InvalidArgumentError) as caught:
        saved.signatures[signature](**{name: constant(inputs[name]) for name in names})
    for word in words:
        assert word in caught.value.message


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"gender": [b"X"]}, ["gender", "M or F", "X"]),
        ({"age": [-1]}, ["age", "0 to 150", "-1"]),
        ({"age": [151]}, ["age", "0 to 150", "151"]),
        ({"occupation": [21]}, ["occupation", "0 to 20", "21"]),
        ({"now": [-5]}, ["now", "0 or more", "-5"]),
        ({"k": [-1]}, ["k should be", "0 or more", "-1"]),
        ({"k": [1, 1]}, ["k should have", "[2]"]),
        ({"zip_code": [b"1", b"2"]}, ["zip_code should have", "[2]"]),
        ({"zip_code": [b"1" * 33]}, ["zip_code should be", "at most 32 bytes", "1111"]),
        ({"exclude_movie_ids": [[10], [20]]}, ["exclude_movie_ids should have", "[2 1]"]),
        ({"exclude_movie_ids": [[10] * 7]}, ["exclude_movie_ids", "at most 6 movies"]),
        ({"history_timestamps": [[5]]}, ["history_timestamps", "[1 0]", "[1 1]"]),
        ({"history_movie_ids": [[10]], "history_timestamps": [[-1]]}, ["history_timestamps", "-1"]),
    ],
)
def test_impossible_values_are_refused(saved, changes, words):
    inputs = NEUTRAL | {name: np.array(value, NEUTRAL[name].dtype) for name, value in changes.items()}
    with pytest.raises(tf.errors.InvalidArgumentError) as caught:
        saved.signatures["recommend"](**{name: constant(value) for name, value in inputs.items()})
    for word in words:
        assert word in caught.value.message


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A loaded recommender that answers at most 4 people and 6 movies of history."""
    folder = tmp_path_factory.mktemp("limited")
    save(fake_recommender(limits=Limits(batch=4, history=6, values=16)), str(folder))
    return tf.saved_model.load(str(folder))


def constant(values):
    dtype = tf.string if values.dtype == object else values.dtype
    return tf.constant(values.tolist(), dtype, shape=values.shape)


def test_limits_are_attributes_of_the_saved_model(saved):
    assert (int(saved.max_batch), int(saved.max_history), int(saved.max_values)) == (4, 6, 16)


@pytest.mark.parametrize("shape", [[2**40, 0], [0, 2**40]])
@pytest.mark.parametrize("name", ["history_movie_ids", "history_ratings", "history_timestamps", "exclude_movie_ids"])
def test_a_shape_that_is_too_large_is_refused_by_name(saved, name, shape):
    inputs = {each: constant(value) for each, value in NEUTRAL.items()}
    inputs[name] = tf.zeros(shape, inputs[name].dtype)
    with pytest.raises(tf.errors.InvalidArgumentError, match=name):
        saved.signatures["recommend"](**inputs)


def test_a_long_text_that_is_refused_is_shown_in_part(saved):
    inputs = {name: constant(value) for name, value in NEUTRAL.items()}
    inputs["gender"] = tf.constant([b"x" * 1_000_000])
    with pytest.raises(tf.errors.InvalidArgumentError, match="gender should be M or F") as caught:
        saved.signatures["recommend"](**inputs)
    assert len(caught.value.message) < 1000


@pytest.mark.parametrize("text", ["x" + "é" * 60, b"\xff" * 33])
def test_a_text_that_is_refused_is_shown_as_a_client_can_read_it(saved, text):
    inputs = {name: constant(value) for name, value in NEUTRAL.items()}
    inputs["zip_code"] = tf.constant([text])
    with pytest.raises(tf.errors.InvalidArgumentError, match="zip_code should be of at most 32 bytes"):
        saved.signatures["recommend"](**inputs)


def test_more_rows_than_are_judged_at_once_are_refused(saved):
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"examples should be at most 2048 at once.*2049"):
        saved.signatures["evaluate"](tf.constant([b""] * 2049))


class TestRecommend:
    """The signature that takes all that can be told of a person and the moment."""

    def test_with_neutral_values_it_answers_as_serving_default(self, by_rating):
        for user in (0, 7):
            assert {name: value[0] for name, value in ask(by_rating, user_id=[user]).items()} == recommend(
                by_rating, user
            )

    @pytest.mark.parametrize(("k", "expected"), [(0, 3), (1, 1), (2, 2), (3, 3), (4, 3), (2**62, 3)])
    def test_k_movies_are_returned_at_most_all_candidates(self, by_rating, k, expected):
        assert ask(by_rating, k=[k])["movie_id"] == [[30, 40, 50][:expected]]

    def test_each_person_gets_their_own_k(self, by_rating):
        assert ask(by_rating, user_id=[0, 0], k=[1, 2])["movie_id"] == [[30, 0], [30, 40]]

    def test_excluded_movies_are_not_recommended(self, by_rating):
        assert ask(by_rating, exclude_movie_ids=[[50, 0, 999]])["movie_id"] == [[20, 30, 40]]

    def test_everything_excluded_leaves_an_empty_answer(self, by_rating):
        answer = ask(by_rating, exclude_movie_ids=[[10, 20, 30, 40, 50]])
        assert answer["movie_id"] == [[0, 0, 0]]
        assert answer["predicted_rating"] == answer["retrieval_score"] == [[0.0, 0.0, 0.0]]

    def test_times_put_a_history_in_order(self, by_retrieval):
        # With its time, 30 is the newest, so that 20 is retrieved first.
        movies = {"history_movie_ids": [[30, 10]], "history_ratings": [[1.0, 5.0]]}
        in_order = ask(by_retrieval, **movies, history_timestamps=[[200, 100]])
        assert in_order["movie_id"][0][0] == 20
        swapped = {"history_movie_ids": [[10, 30]], "history_ratings": [[5.0, 1.0]]}
        answers = ask(by_retrieval, **swapped, history_timestamps=[[100, 200]])
        assert answers["predicted_rating"] == in_order["predicted_rating"]

    @pytest.mark.parametrize(
        ("changes", "moment"),
        [
            ({}, 0),
            ({"user_id": [7]}, 70),
            ({"user_id": [7], "now": [80]}, 80),
            ({"now": [80]}, 80),
            ({"history_movie_ids": [[10]], "history_timestamps": [[75]]}, 75),
            ({"user_id": [7], "history_movie_ids": [[10]], "history_timestamps": [[60]]}, 60),
            ({"user_id": [7], "history_movie_ids": [[10]], "history_timestamps": [[60]], "now": [90]}, 90),
        ],
    )
    def test_the_moment_is_now_or_that_of_the_latest_known_rating(self, by_retrieval, changes, moment):
        inputs = {"exclude_movie_ids": [[10, 40, 50]]} | changes
        score = ask(by_retrieval, **inputs)["retrieval_score"][0][0]
        plain = {"user_id": changes.get("user_id", [0])} | {"exclude_movie_ids": [[10, 40, 50]]}
        history = {name: value for name, value in changes.items() if name == "history_movie_ids"}
        at_one = ask(by_retrieval, **plain, **history, now=[1])["retrieval_score"][0][0]
        assert score - at_one == pytest.approx(1e-3 * (moment - 1), abs=1e-5)

    def test_demographics_are_those_told_or_else_the_stored_ones(self, by_retrieval):
        def told(**changes):
            return round(ask(by_retrieval, **changes, now=[1000])["retrieval_score"][0][0] % 1, 5)

        assert told(gender=[b"M"], age=[25]) == pytest.approx(1e-4 + 2e-5, abs=1e-6)
        assert told(user_id=[7]) == pytest.approx(2e-4 + 3e-5, abs=1e-6)
        assert told(user_id=[7], gender=[b"M"]) == pytest.approx(1e-4 + 3e-5, abs=1e-6)
        assert told(user_id=[7], age=[50]) == pytest.approx(2e-4 + 5e-5, abs=1e-6)

    def test_no_people_get_no_answers(self, by_rating):
        answer = by_rating.recommend(**{name: constant(value[:0]) for name, value in NEUTRAL.items()})
        assert all(values.shape.as_list() == [0, 0] for values in answer.values())


def test_places_behind_the_last_recommendation_are_empty():
    recommender = fake_recommender(candidates=5)
    recommender.set_second_stage(RATING_ORDER)
    answer = recommend(recommender, 7)
    assert answer["movie_id"] == [10, 20, 30, 0, 0]
    assert answer["title"][3:] == [b"", b""]
    assert answer["predicted_rating"][3:] == [0.0, 0.0]


def test_smoke_test_refuses_a_recommender_that_returns_seen_movies(tmp_path):
    save(fake_recommender(), str(tmp_path / "good"))
    smoke_test(str(tmp_path / "good"), USERS, MOVIES)
    forgetful = dataclasses.replace(USERS, seen_offsets=np.zeros_like(USERS.seen_offsets))
    save(fake_recommender(users=forgetful), str(tmp_path / "bad"))
    with pytest.raises(ValueError, match="user 7: should be recommended unseen movies"):
        smoke_test(str(tmp_path / "bad"), USERS, MOVIES)


@pytest.mark.parametrize("most", [1, 2])
def test_smoke_test_asks_for_no_more_people_than_are_allowed(tmp_path, most):
    # Two people: nobody, and user 7.
    save(fake_recommender(limits=Limits(batch=most, history=1)), str(tmp_path / "small"))
    smoke_test(str(tmp_path / "small"), USERS, MOVIES)


@pytest.mark.parametrize("place", range(5))
@pytest.mark.parametrize("weight", [np.nan, np.inf])
def test_weights_that_are_no_finite_numbers_are_refused(weighed, place, weight):
    weights = np.ones(5)
    weights[place] = weight
    with pytest.raises(ValueError, match=r"weights of the second stage should be finite; received .*(nan|inf)"):
        weighed.set_second_stage(RATING_ORDER, weights)


class TestUnplannedRequests:
    """What docs/requests.md says of them."""

    def check(self, answer, seen=()):
        for ids, titles, ratings, scores in zip(*answer.values(), strict=True):
            returned = [movie for movie in ids if movie]
            assert ids == returned + [0] * (len(ids) - len(returned))
            assert len(set(returned)) == len(returned)
            assert not set(returned) & set(seen)
            assert all(bool(title) == bool(movie) for title, movie in zip(titles, ids, strict=True))
            assert np.isfinite(ratings + scores).all()

    def test_every_movie_seen(self, by_rating):
        history = {"history_movie_ids": [[10, 20, 30, 40, 50]], "history_ratings": [[5] * 5]}
        answer = ask(by_rating, **history)
        self.check(answer)
        assert answer["movie_id"] == [[0, 0, 0]]

    def test_the_longest_history_is_answered_by_its_latest_movies(self, by_rating):
        longest = {"history_movie_ids": [[10] * 9997 + [20, 30, 20]], "history_ratings": [[1] * 9997 + [5, 4, 3]]}
        answer = ask(by_rating, **longest)
        self.check(answer, seen=[10, 20, 30])
        latest = {"history_movie_ids": [[10, 20, 30, 20]], "history_ratings": [[1, 5, 4, 3]]}
        assert answer == ask(by_rating, **latest)
        with pytest.raises(tf.errors.InvalidArgumentError, match="at most 10000 movies"):
            ask(by_rating, history_movie_ids=[[10] * 10_001])

    def test_unknown_movies_only(self, by_rating):
        for user in (0, 7):
            unknown = {"history_movie_ids": [[999, 998]], "history_ratings": [[5, 5]]}
            assert ask(by_rating, user_id=[user], **unknown) == ask(by_rating, user_id=[user])

    @pytest.mark.parametrize("user", [0, 7])
    @pytest.mark.parametrize("movies", [[999, 998], [0, 0], [999, 0]])
    def test_times_of_what_is_no_movie_tell_nothing(self, by_rating, user, movies):
        times = [2**40, 900]
        assert ask(
            by_rating, user_id=[user], history_movie_ids=[movies], history_timestamps=[times], gender=["M"]
        ) == ask(by_rating, user_id=[user], gender=["M"])
        # Beside a movie, they change neither the moment nor the order.
        known = {"user_id": [user], "history_movie_ids": [[10, 20]], "history_timestamps": [[300, 200]]}
        beside = {"history_movie_ids": [[10, *movies, 20]], "history_timestamps": [[300, *times, 200]]}
        assert ask(by_rating, **known | beside) == ask(by_rating, **known)

    def test_a_movie_without_a_time_counts_as_older_than_those_with_one(self, by_rating):
        untimed = ask(by_rating, history_movie_ids=[[20, 10, 30]], history_timestamps=[[100, 0, 50]])
        assert untimed == ask(by_rating, history_movie_ids=[[10, 30, 20]], now=[100])

    def test_fewer_unseen_movies_than_k(self, by_rating):
        answer = ask(by_rating, exclude_movie_ids=[[10, 20, 30, 40]], k=[3])
        self.check(answer, seen=[10, 20, 30, 40])
        assert answer["movie_id"] == [[50, 0, 0]]

    @pytest.mark.parametrize("seed", range(3))
    def test_whatever_is_asked_no_movie_is_there_twice_or_seen(self, by_rating, seed):
        rng = np.random.default_rng(seed)
        for _ in range(20):
            history = rng.choice([0, 10, 20, 30, 40, 50, 999], (1, rng.integers(0, 8)))
            excluded = rng.choice([0, 10, 20, 30, 40, 50, 999], (1, rng.integers(0, 4)))
            user = int(rng.choice([0, 7]))
            answer = ask(
                by_rating,
                user_id=[user],
                history_movie_ids=history,
                exclude_movie_ids=excluded,
                k=[rng.integers(9)],
            )
            self.check(answer, seen={*history[0], *excluded[0], *((40, 50) if user == 7 else ())})
