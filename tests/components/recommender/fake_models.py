"""Models with outputs that are easy to foresee, and a recommender made of them."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import tensorflow as tf

from components.recommender.requests import Limits
from components.recommender.stored_data import Movies, Users
from components.recommender.two_stage_model import Recommender, Transform
from trainers.layers.towers import HISTORY_READ
from transform.moments import seconds

IDS = np.array([0, 10, 20, 30, 40, 50, 0])  # index 0 is padding, the last one the unknown movie
LENGTH = 3
USER_COUNT = 3  # nobody, user 7, and all others
MOVIES = Movies(IDS, np.array([f"title {i}".encode() for i in IDS], object), IDS > 0)
# User 7 has seen the movies 40 and 50, the latter last.
USERS = Users(
    ids=np.array([0, 7]),
    features={
        "user_id_xf": np.array([0, 1], np.int32),
        "gender_xf": np.array([0, 2], np.int32),
        "age_xf": np.array([0, 3], np.int32),
        "timestamp_normalized_xf": np.array([0, 70], np.float32),
        "history_movie_ids_xf": np.array([[0, 0, 0], [5, 4, 0]], np.int32),
        "history_ratings_xf": np.zeros([2, LENGTH], np.float32),
    },
    latest=np.array([0, 70]),
    seen_offsets=np.array([0, 0, 2]),
    seen_movies=np.array([4, 5], np.int32),
)


class FakeModel(tf.Module):
    """A fake model for both stages.

    Retrieval scores rise with the movie's index, and are 100 higher for the index before the newest movie of the
    history; they also tell of the moment, the gender and the age. Ratings fall with the index, and rise a little with
    those of the history.
    """

    def __init__(self):
        super().__init__()
        self.model_variables: list[tf.Variable] = []
        self.catalogue = tf.Module()
        self.catalogue.candidates = tf.Variable(IDS > 0)
        popularity = tf.Variable([-np.inf, 5, 4, 3, 2, 1, -np.inf], dtype=tf.float32)
        by_group = tf.Variable(tf.tile(popularity[tf.newaxis, tf.newaxis], [4, 9, 1]))
        biases = SimpleNamespace(
            movies=tf.Variable(np.linspace(0, 1, 7).astype(np.float32)),
            users=tf.Variable(np.zeros(USER_COUNT, np.float32)),
        )
        self.heads = [SimpleNamespace(popularity=popularity, popularity_by_group=by_group, biases=biases)]

    def read_histories(self, person):
        return {HISTORY_READ: tf.cast(person["history_movie_ids_xf"][:, :1], tf.float32)}

    def queries(self, person):
        return self.queries_of_read(person | self.read_histories(person))

    def queries_of_read(self, person):
        told = 1e-3 * person["timestamp_normalized_xf"] + 1e-4 * tf.cast(person["gender_xf"], tf.float32)
        told += 1e-5 * tf.cast(person["age_xf"], tf.float32)
        return tf.stack([person[HISTORY_READ][:, 0], told], axis=1)

    def scores_of(self, queries):
        return self.scores_of_queries(queries)

    def scores_of_queries(self, queries):
        newest, told = tf.cast(queries[:, 0], tf.int32), queries[:, 1:]
        score = tf.tile(tf.range(7, dtype=tf.float32)[tf.newaxis], [tf.shape(newest)[0], 1])
        score += 100.0 * tf.one_hot(newest - 1, 7) + told
        return tf.where(self.catalogue.candidates, score, float("-inf"))

    def scores(self, person):
        queries = self.queries_of_read(person)
        return {"scores": self.scores_of_queries(queries), "queries": queries}

    def ratings_of(self, person, movies, queries):
        del queries
        given = tf.reduce_sum(person["history_ratings_xf"] * tf.constant([0.01, 0.001, 0.0001]), axis=1)
        return 5.0 - 0.5 * tf.cast(movies, tf.float32) + given[:, tf.newaxis]


class EarlierModel(FakeModel):
    """The same, as models of earlier versions are, which read histories with every query, and give no query alone."""

    read_histories: Any = None
    queries: Any = None
    scores_of: Any = None

    def scores(self, person):
        assert HISTORY_READ not in person
        return super().scores(person | super().read_histories(person))


class FakeTransform(tf.Module):
    """Takes moments as they are, and gender and age by their places among what is allowed."""

    def __call__(self, raw):
        def dense(name, default):
            first = tf.sparse.to_dense(tf.sparse.reset_shape(raw[name]), default)
            rows = raw[name].dense_shape[0]
            padded = tf.pad(first, [[0, rows - tf.shape(first, tf.int64)[0]], [0, 1]], constant_values=default)
            return padded[:, 0]

        gender, moment = dense("gender", ""), dense("timestamp", 0)
        oldest_first = tf.RaggedTensor.from_sparse(raw["history_movie_ids"])
        history = tf.reverse(oldest_first, axis=[1]).to_tensor(shape=[None, LENGTH]) // 10
        return {
            "user_id_xf": tf.cast(tf.equal(dense("user_id", 0), 7), tf.int64),
            "gender_xf": tf.cast(tf.equal(gender, "M"), tf.int64) + 2 * tf.cast(tf.equal(gender, "F"), tf.int64),
            "age_xf": dense("age", 0) // 10,
            "timestamp_normalized_xf": tf.cast(moment, tf.float32),
            "timestamp_hour_xf": tf.where(moment > 0, moment // 3600 % 24 + 1, 0),
            "timestamp_seconds_xf": seconds(moment),
            "history_movie_ids_xf": tf.ensure_shape(history, [None, LENGTH]),
            "history_ratings_xf": tf.zeros_like(history, tf.float32),
            "history_timestamps_xf": tf.zeros_like(history),
            "movie_id_xf": dense("movie_id", 0) // 10,
            "rating_xf": dense("rating", 0.0),
        }


def fake_transform():
    types = {
        **dict.fromkeys(("user_id", "age", "occupation", "timestamp", "movie_id"), tf.int64),
        **dict.fromkeys(("history_movie_ids", "seen_movie_ids"), tf.int64),
        "gender": tf.string,
        "zip_code": tf.string,
        "rating": tf.float32,
        "history_ratings": tf.float32,
    }
    return Transform(FakeTransform(), {name: tf.io.VarLenFeature(dtype) for name, dtype in types.items()})


def fake_recommender(candidates=3, limits=None, users=USERS):
    """A recommender that orders as the retriever does."""
    limits = limits or Limits()
    return Recommender(FakeModel(), FakeModel(), fake_transform(), MOVIES, users, candidates, limits)


NEUTRAL = {
    "user_id": np.array([0]),
    "history_movie_ids": np.zeros([1, 0], np.int64),
    "history_ratings": np.zeros([1, 0], np.float32),
    "history_timestamps": np.zeros([1, 0], np.int64),
    "now": np.array([0]),
    "gender": np.array([b""], object),
    "age": np.array([0]),
    "occupation": np.array([0]),
    "zip_code": np.array([b""], object),
    "exclude_movie_ids": np.zeros([1, 0], np.int64),
    "k": np.array([0]),
}


def ask(recommender, **inputs):
    """Asks the signature `recommend`; what is not given has its neutral value. Returns lists, by output name."""
    rows = len(next(iter(inputs.values()))) if inputs else 1
    values = {name: np.repeat(value, rows, axis=0) for name, value in NEUTRAL.items()}
    for name, given in inputs.items():
        values[name] = np.array(given, NEUTRAL[name].dtype)
    tensors = {
        name: tf.constant(value.tolist(), shape=value.shape, dtype=tf.string)
        if value.dtype == object
        else tf.constant(value)
        for name, value in values.items()
    }
    return {name: value.numpy().tolist() for name, value in recommender.recommend(**tensors).items()}
