"""The two-stage graph retrieves, ranks and leaves out seen movies, tested with models whose outputs are known."""

import numpy as np
import pytest
import tensorflow as tf

from components.recommender.two_stage_model import Movies, Recommender, Users, save, smoke_test

IDS = np.array([0, 10, 20, 30, 40, 50, 0])  # index 0 is padding, the last one the unknown movie
LENGTH = 3


class FakeModel(tf.Module):
    """A fake model for both stages.

    Retrieval scores rise with the movie's index, and are 100 higher for the index before the newest movie of the
    history; ratings fall with the index, and rise a little with those of the history.
    """

    def __init__(self):
        super().__init__()
        self.model_variables: list[tf.Variable] = []
        self.catalogue = None

    def scores(self, features):
        score = tf.tile(tf.range(7, dtype=tf.float32)[tf.newaxis], [tf.shape(features["history_movie_ids_xf"])[0], 1])
        score += 100.0 * tf.one_hot(features["history_movie_ids_xf"][:, 0] - 1, 7)
        return tf.where(tf.constant(IDS > 0), score, float("-inf"))

    def ratings(self, features):
        given = tf.reduce_sum(features["history_ratings_xf"] * tf.constant([0.01, 0.001, 0.0001]), axis=1)
        return 5.0 - 0.5 * tf.cast(features["movie_id_xf"], tf.float32) + given


@pytest.fixture
def movies_and_users():
    movies = Movies(IDS, np.array([f"title {i}".encode() for i in IDS], object), {"movie_id_xf": np.arange(7)})
    users = Users(
        ids=np.array([0, 7]),
        features={
            "history_movie_ids_xf": np.array([[0, 0, 0], [5, 4, 0]], np.int32),
            "history_ratings_xf": np.zeros([2, LENGTH], np.float32),
        },
        seen_offsets=np.array([0, 0, 2]),
        seen_movies=np.array([4, 5], np.int32),
    )
    return movies, users


def recommend(movies_and_users, user_id, history=(), candidates=3):
    movies, users = movies_and_users
    recommender = Recommender(FakeModel(), FakeModel(), movies, users, candidates)
    answer = recommender.recommend(
        tf.constant([user_id], tf.int64),
        tf.constant([list(history)], tf.int64, shape=[1, len(history)]),
        tf.zeros([1, len(history)]),
    )
    return {name: value.numpy()[0].tolist() for name, value in answer.items()}


def test_unknown_user_gets_the_retrieved_movies_in_the_order_of_their_ratings(movies_and_users):
    assert recommend(movies_and_users, 0)["movie_id"] == [30, 40, 50]


def test_known_user_is_not_recommended_seen_movies(movies_and_users):
    answer = recommend(movies_and_users, 7)
    assert answer["movie_id"] == [10, 20, 30]
    assert answer["title"] == [b"title 10", b"title 20", b"title 30"]
    assert answer["predicted_rating"] == [4.5, 4.0, 3.5]


def test_given_history_is_excluded_and_its_last_movie_steers_retrieval(movies_and_users):
    # 20 is the newest movie of the history, so 10, just before it, is retrieved first; 20 and 30 are left out.
    answer = recommend(movies_and_users, 0, history=[30, 20], candidates=2)
    assert answer["movie_id"] == [10, 50]


def test_padding_and_unknown_movies_in_a_history_are_ignored(movies_and_users):
    assert recommend(movies_and_users, 0, history=[0, 999], candidates=3) == recommend(movies_and_users, 0)


@pytest.mark.parametrize("seed", range(5))
def test_the_answer_for_a_person_is_the_same_alone_and_in_any_batch(movies_and_users, seed):
    catalogue, people = movies_and_users
    recommender = Recommender(FakeModel(), FakeModel(), catalogue, people, 3)
    rng = np.random.default_rng(seed)
    rows, width = 20, 6
    users = rng.choice([0, 7, 99], rows)
    lengths = rng.integers(0, width + 1, rows)
    is_given = np.arange(width) < lengths[:, None]
    movies = np.where(is_given, rng.choice([0, 10, 20, 30, 40, 50, 999], (rows, width)), 0)
    ratings = np.where(is_given, rng.integers(0, 6, (rows, width)), 0).astype(np.float32)

    def answer(which):
        longest = max(lengths[which], default=0)
        inputs = (users[which], movies[which][:, :longest], ratings[which][:, :longest])
        return {name: value.numpy() for name, value in recommender.recommend(*map(tf.constant, inputs)).items()}

    together = answer(np.arange(rows))
    for row in range(rows):
        for name, value in answer(np.array([row])).items():
            np.testing.assert_array_equal(value[0], together[name][row])
    assert len({tuple(ratings) for ratings in together["predicted_rating"].tolist()}) > 5


@pytest.mark.parametrize(
    ("users", "movies", "ratings", "words"),
    [
        ([0, 0], [[10], [20]], [[1.0, 1.0], [5.0, 5.0]], ["history_ratings", "[2 1]", "[2 2]"]),
        ([0, 0], [[10, 20], [30, 40]], [[1.0], [5.0]], ["history_ratings", "[2 2]", "[2 1]"]),
        ([0, 0], [[10, 20]], [[1.0], [5.0]], ["history_ratings", "[1 2]", "[2 1]"]),
        ([0], [[10], [20]], [[1.0], [5.0]], ["user_id", "[2 1]", "[1]"]),
        ([0, 0], [[10]], [[1.0]], ["user_id", "[1 1]", "[2]"]),
    ],
)
def test_inputs_that_do_not_fit_each_other_are_refused(movies_and_users, tmp_path, users, movies, ratings, words):
    # Without the check, ratings of one row would count as those of the next.
    catalogue, people = movies_and_users
    save(Recommender(FakeModel(), FakeModel(), catalogue, people, 3), str(tmp_path))
    serve = tf.saved_model.load(str(tmp_path)).signatures["serving_default"]
    inputs = {"user_id": tf.constant(users, tf.int64), "history_movie_ids": tf.constant(movies, tf.int64)}
    with pytest.raises(tf.errors.InvalidArgumentError) as caught:
        serve(**inputs, history_ratings=tf.constant(ratings))
    for word in words:
        assert word in caught.value.message


def test_places_behind_the_last_recommendation_are_empty(movies_and_users):
    answer = recommend(movies_and_users, 7, candidates=5)
    assert answer["movie_id"] == [10, 20, 30, 0, 0]
    assert answer["title"][3:] == [b"", b""]
    assert answer["predicted_rating"][3:] == [0.0, 0.0]


def test_smoke_test_refuses_a_recommender_that_returns_seen_movies(movies_and_users, tmp_path):
    movies, users = movies_and_users
    save(Recommender(FakeModel(), FakeModel(), movies, users, 3), str(tmp_path / "good"))
    smoke_test(str(tmp_path / "good"), users, movies)
    forgetful = Users(users.ids, users.features, np.zeros_like(users.seen_offsets), users.seen_movies)
    save(Recommender(FakeModel(), FakeModel(), movies, forgetful, 3), str(tmp_path / "bad"))
    with pytest.raises(ValueError, match="user 7: should be recommended unseen movies"):
        smoke_test(str(tmp_path / "bad"), users, movies)
