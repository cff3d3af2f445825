"""The two-stage recommender: one TensorFlow graph that retrieves movies, drops seen ones, and ranks the others."""

from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from trainers.export.signatures import SAVE_OPTIONS
from transform.features import HISTORY_MOVIES, HISTORY_RATINGS, transformed_name

Arrays = dict[str, np.ndarray]

_HISTORY = transformed_name(HISTORY_MOVIES)
_RATINGS = transformed_name(HISTORY_RATINGS)


@dataclass(frozen=True)
class Movies:
    """The catalogue, by movie index; indices that are no movie, such as 0, have id 0.

    Attributes:
      ids: int64 [movie indices].
      titles: str [movie indices].
      features: transformed features of the role movie, [movie indices, ...] by name.
    """

    ids: np.ndarray
    titles: np.ndarray
    features: Arrays


@dataclass(frozen=True)
class Users:
    """What is known of each user; row 0 stands for an unknown user.

    Attributes:
      ids: int64 [users], 0 in row 0.
      features: transformed features of the roles user, context and history, [users, ...] by name.
      seen_offsets: int64 [users + 1]; row u has seen `seen_movies[seen_offsets[u]:seen_offsets[u + 1]]`.
      seen_movies: int32 [rated pairs], movie indices.
    """

    ids: np.ndarray
    features: Arrays
    seen_offsets: np.ndarray
    seen_movies: np.ndarray


class Recommender(tf.Module):
    """Answers "what should this person watch?" in one call.

    The retriever picks `candidates` movies among those that the person has not rated; the ranker orders them by its
    predicted ratings.
    """

    def __init__(self, retrieval: tf.Module, ranking: tf.Module, movies: Movies, users: Users, candidates: int):
        """Takes loaded SavedModels: `retrieval` with the function `scores`, `ranking` with the function `ratings`."""
        super().__init__()
        self._scores, self._ratings = retrieval.scores, ranking.ratings
        # Saved with this module, because the two functions read them; other parts of the models are not needed.
        self.parts = [retrieval.model_variables, retrieval.catalogue, ranking.model_variables]
        self._candidates = candidates
        self._length = users.features[_HISTORY].shape[1]
        self.movie_ids = _constant(movies.ids, "movie_ids")
        self.titles = _constant(movies.titles.astype(object), "titles")
        self.movie_features = {name: _constant(values, name) for name, values in movies.features.items()}
        self.user_features = {name: _constant(values, name) for name, values in users.features.items()}
        self.seen_offsets = _constant(users.seen_offsets, "seen_offsets")
        self.seen_movies = _constant(users.seen_movies, "seen_movies")
        known = np.flatnonzero(movies.ids)
        self.movie_index = _table(movies.ids[known], known)
        self.user_row = _table(users.ids[1:], np.arange(1, len(users.ids)))

    @tf.function(
        input_signature=[
            tf.TensorSpec([None], tf.int64, name="user_id"),
            tf.TensorSpec([None, None], tf.int64, name="history_movie_ids"),
            tf.TensorSpec([None, None], tf.float32, name="history_ratings"),
        ]
    )
    def recommend(
        self, user_id: tf.Tensor, history_movie_ids: tf.Tensor, history_ratings: tf.Tensor
    ) -> dict[str, tf.Tensor]:
        """Recommends movies, best first.

        Args:
          user_id: int64 [batch_size]; 0 or any other unknown id for an unknown user.
          history_movie_ids: int64 [batch_size, any], oldest first, padded with 0. A history with a known movie replaces
            the stored one.
          history_ratings: float32, of the same shape; 0 where the rating is not known.

        Returns:
          By name, [batch_size, candidates]: `movie_id` int64 (0 after the last recommendation), `title` string,
          `predicted_rating` float32 (stars) and `retrieval_score` float32.

        Raises:
          InvalidArgumentError: the inputs do not have equally many rows, or a movie has no rating or a rating no movie.
        """
        with tf.control_dependencies(_shape_checks(user_id, history_movie_ids, history_ratings)):
            # Nothing is computed before the checks, so that their messages are what a client sees.
            user_id, history_movie_ids, history_ratings = map(
                tf.identity, (user_id, history_movie_ids, history_ratings)
            )
        row = self.user_row.lookup(user_id)
        given_movies, given_ratings = self._encode_history(history_movie_ids, history_ratings)
        person = {name: tf.gather(values, row) for name, values in self.user_features.items()}
        replace = tf.reduce_any(given_movies > 0, axis=1, keepdims=True)
        person[_HISTORY] = tf.where(replace, given_movies, person[_HISTORY])
        person[_RATINGS] = tf.where(replace, given_ratings, person[_RATINGS])

        scores = self._without_seen(self._all_scores(person, row), row, history_movie_ids)
        retrieved = tf.math.top_k(scores, k=self._candidates)
        rating = self._rate(person, retrieved.indices)
        is_movie = tf.math.is_finite(retrieved.values)
        order = tf.argsort(tf.where(is_movie, rating, float("-inf")), direction="DESCENDING", stable=True)

        def ordered(values: tf.Tensor, filler: object) -> tf.Tensor:
            return tf.gather(tf.where(is_movie, values, filler), order, batch_dims=1)

        return {
            "movie_id": ordered(tf.gather(self.movie_ids, retrieved.indices), tf.constant(0, tf.int64)),
            "title": ordered(tf.gather(self.titles, retrieved.indices), ""),
            "predicted_rating": ordered(rating, 0.0),
            "retrieval_score": ordered(retrieved.values, 0.0),
        }

    def _encode_history(self, movie_ids: tf.Tensor, ratings: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Makes histories as Transform does, newest first without gaps: int32 and float32 [batch_size, length]."""
        movies = tf.reverse(tf.cast(self.movie_index.lookup(movie_ids), tf.int32), axis=[1])
        known = movies > 0
        shape = [None, self._length]
        return (
            tf.ragged.boolean_mask(movies, known).to_tensor(shape=shape),
            tf.ragged.boolean_mask(tf.reverse(ratings, axis=[1]), known).to_tensor(shape=shape),
        )

    def _all_scores(self, person: dict[str, tf.Tensor], row: tf.Tensor) -> tf.Tensor:
        # The function's signature asks for a movie's features, too, which have no influence on the scores.
        no_movie = {name: tf.gather(values, tf.zeros_like(row)) for name, values in self.movie_features.items()}
        return self._scores({**person, **no_movie})

    def _without_seen(self, scores: tf.Tensor, row: tf.Tensor, history_movie_ids: tf.Tensor) -> tf.Tensor:
        starts, ends = tf.gather(self.seen_offsets, row), tf.gather(self.seen_offsets, row + 1)
        stored = tf.ragged.range(starts, ends)
        stored = stored.with_values(tf.gather(self.seen_movies, stored.values))
        given = tf.RaggedTensor.from_tensor(tf.cast(self.movie_index.lookup(history_movie_ids), tf.int32))
        seen = tf.concat([stored, tf.cast(given, tf.int32)], axis=1)
        cells = tf.stack([seen.value_rowids(), tf.cast(seen.values, tf.int64)], axis=1)
        return tf.tensor_scatter_nd_update(scores, cells, tf.fill(tf.shape(cells)[:1], float("-inf")))

    def _rate(self, person: dict[str, tf.Tensor], movies: tf.Tensor) -> tf.Tensor:
        """Predicted ratings of each person for their movies: float32 [batch_size, movies]."""
        count = tf.shape(movies)[1]
        pairs = {name: tf.repeat(values, count, axis=0) for name, values in person.items()}
        flat = tf.reshape(movies, [-1])
        pairs |= {name: tf.gather(values, flat) for name, values in self.movie_features.items()}
        return tf.reshape(self._ratings(pairs), tf.shape(movies))


def _shape_checks(user_id: tf.Tensor, history_movie_ids: tf.Tensor, history_ratings: tf.Tensor) -> list[tf.Operation]:
    """Returns operations that refuse what does not fit; otherwise values of one row would be read as another's."""
    shape = tf.shape(history_movie_ids, tf.int64)
    same_shape = tf.debugging.Assert(
        tf.reduce_all(tf.equal(shape, tf.shape(history_ratings, tf.int64))),
        ["history_ratings should have the shape of history_movie_ids:", shape, tf.shape(history_ratings, tf.int64)],
    )
    same_rows = tf.debugging.Assert(
        tf.equal(shape[0], tf.size(user_id, tf.int64)),
        ["history_movie_ids should have as many rows as user_id:", shape, tf.shape(user_id, tf.int64)],
    )
    return [operation for operation in (same_shape, same_rows) if operation is not None]


def save(recommender: Recommender, directory: str) -> None:
    """Writes the recommender as a SavedModel with one signature, `serving_default`."""
    signatures = {"serving_default": recommender.recommend}
    tf.saved_model.save(recommender, directory, signatures=signatures, options=SAVE_OPTIONS)


def smoke_test(directory: str, users: Users, movies: Movies) -> None:
    """Loads a saved recommender and asks it for recommendations for a few known users, and for an unknown one.

    Raises:
      ValueError: a user is recommended a movie that they have rated, or nothing although they have not rated every
        movie, or a predicted rating is not 1 to 5.
    """
    recommend = tf.saved_model.load(directory).signatures["serving_default"]
    rows = np.unique(np.linspace(0, len(users.ids) - 1, 16).astype(int))
    nothing = tf.zeros([len(rows), 0])
    answer = recommend(
        user_id=tf.constant(users.ids[rows]), history_movie_ids=tf.cast(nothing, tf.int64), history_ratings=nothing
    )
    for row, ids, ratings in zip(rows, answer["movie_id"].numpy(), answer["predicted_rating"].numpy(), strict=True):
        returned = ids > 0
        seen = movies.ids[users.seen_movies[users.seen_offsets[row] : users.seen_offsets[row + 1]]]
        if not returned.any() and len(seen) < np.count_nonzero(movies.ids):
            raise ValueError(f"user {users.ids[row]}: should be recommended something; received nothing.")
        if np.isin(ids[returned], seen).any():
            raise ValueError(f"user {users.ids[row]}: should be recommended unseen movies; received {ids}.")
        if not ((ratings[returned] >= 1) & (ratings[returned] <= 5)).all():
            raise ValueError(f"user {users.ids[row]}: predicted ratings should be 1 to 5; received {ratings}.")


def _constant(values: np.ndarray, name: str) -> tf.Variable:
    # A variable, because graph constants may not exceed two gigabytes and slow down the start.
    return tf.Variable(values, trainable=False, name=name)


def _table(keys: np.ndarray, values: np.ndarray) -> tf.lookup.StaticHashTable:
    pairs = tf.lookup.KeyValueTensorInitializer(keys.astype(np.int64), values.astype(np.int64))
    return tf.lookup.StaticHashTable(pairs, default_value=0)
