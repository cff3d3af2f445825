"""Lists are judged as plain counting does, and `evaluate` judges the lists that `recommend` answers."""

import numpy as np
import pytest
import tensorflow as tf

from components.recommender import evaluation
from components.recommender.second_stage import FEATURES
from components.recommender.two_stage_model import Lists, Recommender
from tests.components.recommender.fake_models import (
    IDS,
    LENGTH,
    MOVIES,
    USERS,
    EarlierModel,
    FakeModel,
    ask,
    fake_recommender,
    fake_transform,
)
from trainers.export.situations import SITUATIONS
from trainers.layers.towers import HISTORY_READ

DAY = 86_400
LIST_METRICS = ("recall_at_5", "recall_at_10", "ndcg_at_10")


def slow_metrics(movies, target):
    rank = list(movies).index(target) + 1 if target in movies else None
    return {
        "recall_at_5": float(rank is not None and rank <= 5),
        "recall_at_10": float(rank is not None and rank <= 10),
        "ndcg_at_10": 1 / np.log2(1 + rank) if rank is not None and rank <= 10 else 0.0,
    }


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("places", [3, 8, 30])
def test_row_values_are_those_of_plain_counting(seed, places):
    rng = np.random.default_rng(seed)
    rows = 200
    retrieved = np.array([rng.permutation(np.arange(1, 41))[:places] for _ in range(rows)], np.int32)
    final = np.array([rng.permutation(movies) for movies in retrieved], np.int32)
    # About a third of the targets are in no list.
    targets = np.where(rng.random(rows) < 0.3, 41, rng.choice(retrieved.ravel(), rows))
    stars = rng.integers(1, 6, rows).astype(np.float32)
    ratings = rng.uniform(1, 5, final.shape).astype(np.float32)
    popularity = {name: rng.random(rows).astype(np.float32) for name in LIST_METRICS}

    found = evaluation.row_values(
        tf.constant(final),
        tf.constant(retrieved),
        tf.constant(ratings),
        {name: tf.constant(values) for name, values in popularity.items()},
        tf.constant(targets, tf.int64),
        tf.constant(stars),
    )

    assert all(values.dtype == tf.float32 and values.shape == [rows] for values in found.values())
    found = {name: values.numpy() for name, values in found.items()}
    for row in range(rows):
        own = slow_metrics(final[row], targets[row])
        of_retrieval = slow_metrics(retrieved[row], targets[row])
        of_popularity = {name: values[row] for name, values in popularity.items()}
        expected = own | {f"retrieval_{name}": value for name, value in of_retrieval.items()}
        expected |= {f"popularity_{name}": value for name, value in of_popularity.items()}
        for name in ("recall_at_10", "ndcg_at_10"):
            expected[f"{name}_over_retrieval"] = own[name] - of_retrieval[name]
            expected[f"{name}_over_popularity"] = own[name] - of_popularity[name]
        expected["is_liked"] = float(stars[row] >= 4)
        expected["is_hit"] = own["recall_at_10"]
        place = list(final[row]).index(targets[row]) if own["recall_at_10"] else None
        expected["rating_error"] = ratings[row, place] - stars[row] if place is not None else 0.0
        assert found.keys() == expected.keys()
        for name, value in expected.items():
            assert found[name][row] == pytest.approx(value, abs=1e-6), name
    assert 0 < found["is_hit"].mean() < 1


def example(**features):
    made = tf.train.Example()
    for name, values in features.items():
        feature = made.features.feature[name]
        if name in ("gender", "zip_code"):
            feature.bytes_list.value.extend(values)
        elif name in ("rating", "history_ratings"):
            feature.float_list.value.extend(values)
        else:
            feature.int64_list.value.extend(values)
    return made.SerializeToString()


def random_people(seed, rows=60):
    """Rows as ExampleGen writes them: what people had seen, their history, and the movie that they rated then."""
    rng = np.random.default_rng(seed)
    known = IDS[IDS > 0]
    people = []
    for _ in range(rows):
        seen = rng.permutation(known)[: rng.integers(0, len(known))]
        people.append(
            {
                "user_id": [int(rng.choice([7, 8]))],
                "gender": [rng.choice([b"M", b"F"])],
                "age": [int(rng.choice([18, 25, 35, 56]))],
                "timestamp": [int(rng.integers(1, 900))],
                "seen_movie_ids": seen.tolist(),
                "history_movie_ids": seen[-LENGTH:].tolist(),
                "movie_id": [int(rng.choice(np.setdiff1d(known, seen)))],
                "rating": [float(rng.integers(1, 6))],
            }
        )
    return people


def padded(lists, dtype):
    width = max(map(len, lists))
    return np.array([[*values, *[0] * (width - len(values))] for values in lists], dtype).reshape(len(lists), width)


@pytest.fixture(scope="module")
def recommender():
    return fake_recommender()


def answers_to_strangers(recommender, people):
    """The answers to somebody unknown who tells all that rows have; the history is given without ratings."""
    return ask(
        recommender,
        user_id=np.zeros(len(people), np.int64),
        history_movie_ids=padded([person["history_movie_ids"] for person in people], np.int64),
        now=[person["timestamp"][0] for person in people],
        gender=np.array([person["gender"][0] for person in people], object),
        age=[person["age"][0] for person in people],
        exclude_movie_ids=padded([person["seen_movie_ids"] for person in people], np.int64),
    )


@pytest.mark.parametrize("seed", range(5))
def test_evaluate_judges_the_lists_that_recommend_answers(recommender, seed):
    rng = np.random.default_rng(seed)
    recommender.set_second_stage(rng.normal(size=len(FEATURES)))
    people = random_people(seed)
    examples = tf.constant([example(**person) for person in people])

    answered = answers_to_strangers(recommender, people)
    lists, _, targets = recommender.candidates_of(examples)
    final = lists.ordered()
    shown = np.isfinite(final.scores.numpy())
    np.testing.assert_array_equal(np.where(shown, IDS[final.movies.numpy()], 0), answered["movie_id"])
    np.testing.assert_allclose(np.where(shown, final.ratings, 0), answered["predicted_rating"], rtol=1e-6)
    np.testing.assert_allclose(np.where(shown, final.scores, 0), answered["retrieval_score"], rtol=1e-6)
    np.testing.assert_array_equal(IDS[targets.numpy()], [person["movie_id"][0] for person in people])

    judged = {name: values.numpy() for name, values in recommender.evaluate(examples).items()}
    for row, person in enumerate(people):
        for name, value in slow_metrics(answered["movie_id"][row], person["movie_id"][0]).items():
            assert judged[name][row] == pytest.approx(value), name
        error = dict(zip(answered["movie_id"][row], answered["predicted_rating"][row], strict=True))
        expected = error[person["movie_id"][0]] - person["rating"][0] if judged["is_hit"][row] else 0.0
        assert judged["rating_error"][row] == pytest.approx(expected, abs=1e-5)
    assert 0 < judged["is_hit"].mean() < 1
    assert len({tuple(ids) for ids in answered["movie_id"]}) > 10


@pytest.mark.parametrize("seed", range(3))
def test_rows_are_judged_as_those_of_known_and_of_new_people(recommender, seed):
    rng = np.random.default_rng(seed)
    people = random_people(seed)
    for_known = rng.normal(size=len(FEATURES))
    for_new = -for_known
    examples = tf.constant([example(**person) for person in people])

    recommender.set_second_stage(for_known=for_new)
    as_new = np.array(answers_to_strangers(recommender, people)["movie_id"])
    recommender.set_second_stage(for_known=for_known)
    as_known = np.array(answers_to_strangers(recommender, people)["movie_id"])
    recommender.set_second_stage(for_known, for_new)
    of_people, of_new, _ = (shown(lists) for lists in recommender.candidates_of(examples))

    is_known = np.array([person["user_id"] == [7] for person in people])
    np.testing.assert_array_equal(of_people, np.where(is_known[:, np.newaxis], as_known, as_new))
    np.testing.assert_array_equal(of_new, as_new)
    assert (as_known != as_new).any()
    judged = recommender.evaluate(examples)["recall_at_10_new_with_history"].numpy()
    found = [person["movie_id"][0] in ids for person, ids in zip(people, as_new, strict=True)]
    np.testing.assert_array_equal(judged, np.array(found, np.float32))


def shown(lists):
    """The movie ids of lists in the order of the second stage, 0 behind the last movie."""
    if not isinstance(lists, Lists):
        return lists
    final = lists.ordered()
    return np.where(np.isfinite(final.scores.numpy()), IDS[final.movies.numpy()], 0)


class MoodyModel(FakeModel):
    """A fake model that retrieves another movie each day, for each user, gender and newest movie of a history."""

    def queries_of_read(self, person):
        day = tf.cast(person["timestamp_normalized_xf"], tf.int32) // DAY
        newest = tf.cast(person[HISTORY_READ][:, 0], tf.int32)
        mood = tf.cast((day + person["user_id_xf"] + person["gender_xf"] + newest) % 4, tf.float32)
        return tf.concat([super().queries_of_read(person), mood[:, tf.newaxis]], axis=1)

    def scores_of_queries(self, queries):
        mood = tf.cast(queries[:, 2], tf.int32)
        return super().scores_of_queries(queries[:, :2]) + 1000 * tf.one_hot(1 + mood, len(IDS))


class EarlierMoodyModel(EarlierModel, MoodyModel):
    """The same, as models of earlier versions are."""


@pytest.mark.parametrize("kind", [MoodyModel, EarlierMoodyModel])
@pytest.mark.parametrize("seed", range(3))
def test_situations_are_judged_as_their_rows_would_be(seed, kind):
    moody = Recommender(kind(), kind(), fake_transform(), MOVIES, USERS, candidates=1)
    people = random_people(seed)
    judged = moody.evaluate(tf.constant([example(**person) for person in people]))
    judged = {name: values.numpy() for name, values in judged.items()}

    def recall(changed):
        return moody.evaluate(tf.constant([example(**person) for person in changed]))["recall_at_10"].numpy()

    moved = {"after_30_days": 30 * DAY, "after_1_year": 365 * DAY, "after_25_years": 25 * 365 * DAY}
    lacking: dict[str, dict[str, list[int]]] = {
        "new_with_history": {"user_id": []},
        "new_with_history_alone": {"user_id": [], "gender": [], "age": []},
        "new_without_history": {"user_id": [], "history_movie_ids": []},
    }
    changed = {
        situation: [person | {"timestamp": [person["timestamp"][0] + seconds]} for person in people]
        for situation, seconds in moved.items()
    }
    changed |= {situation: [person | changes for person in people] for situation, changes in lacking.items()}
    assert changed.keys() == set(SITUATIONS)
    for situation, rows in changed.items():
        np.testing.assert_array_equal(judged[f"recall_at_10_{situation}"], recall(rows))
        assert (judged[f"recall_at_10_{situation}"] != judged["recall_at_10"]).any()


class CountingModel(MoodyModel):
    """The same, which counts how often it is asked in a graph."""

    def __init__(self):
        super().__init__()
        self.asked = 0

    def scores(self, person):
        self.asked += 1
        return super().scores(person)


@pytest.mark.parametrize(("of_ranking", "later"), [(None, 3), (0, 1), (60 * DAY, 2)])
def test_moments_that_are_alike_to_both_models_are_judged_once(of_ranking, later):
    # These scores do depend on the day, so that it shows where they were not computed again.
    retrieval, ranking = CountingModel(), MoodyModel()
    retrieval.alike_after = tf.Variable(30, dtype=tf.int64)
    if of_ranking is not None:
        ranking.alike_after = tf.Variable(of_ranking, dtype=tf.int64)
    settled = Recommender(retrieval, ranking, fake_transform(), MOVIES, USERS, candidates=1)
    judged = settled.evaluate(tf.constant([example(**person) for person in random_people(0)]))
    month, year = (judged[f"recall_at_10_{name}"].numpy().tolist() for name in ("after_30_days", "after_1_year"))
    # The people's own moments, the later ones, and three kinds of new people.
    assert retrieval.asked == 1 + later + 3
    assert (month == year) is (later == 1)


def test_a_movie_that_was_seen_is_never_found_behind_the_last_one(recommender):
    # Of five movies four are seen, among them that of the row, so that two of the three places stay empty.
    person = {"timestamp": [5], "seen_movie_ids": [10, 20, 30, 40], "movie_id": [10], "rating": [5.0]}
    rows = tf.constant([example(**person)])
    judged = recommender.evaluate(rows)
    for prefix in ("", "retrieval_"):
        for metric in LIST_METRICS:
            assert judged[f"{prefix}{metric}"].numpy() == [0], prefix + metric
    lists, _, target = recommender.candidates_of(rows)
    np.testing.assert_array_equal(lists.movies, [[5, 0, 0]])
    assert target.numpy() == [1]
