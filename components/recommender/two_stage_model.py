"""The two-stage recommender: one TensorFlow graph that retrieves movies, drops seen ones, and orders the others."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from components.recommender import evaluation
from components.recommender.requests import (
    Checks,
    Limits,
    check_demographics,
    check_examples,
    check_history,
    encode_history,
    given_columns,
    padded_like,
    raw_features,
)
from components.recommender.retriever import AT_ONCE, Retriever, alike_after
from components.recommender.second_stage import MIDDLE, RETRIEVAL_ORDER
from components.recommender.stored_data import Movies, Users
from trainers.datasets import with_int32_indices
from trainers.export import metrics
from trainers.export.signatures import SAVE_OPTIONS
from trainers.export.situations import NEW_WITH_HISTORY, in_every_situation, in_situation
from trainers.layers.towers import Tensors
from transform.features import (
    HISTORY_MOVIES,
    LABEL,
    MOVIE_ID,
    SEEN_MOVIES,
    TIMESTAMP,
    USER_ID,
    Kind,
    Role,
    columns,
    transformed_name,
)
from transform.moments import seconds

_HISTORY = transformed_name(HISTORY_MOVIES)
_SECONDS = transformed_name(TIMESTAMP, Kind.SECONDS)


@dataclass(frozen=True)
class Transform:
    """The Transform graph.

    Attributes:
      layer: from raw to transformed features.
      spec: of raw features, for parsing.
    """

    layer: Callable[[dict[str, tf.SparseTensor]], Tensors]
    spec: dict[str, tf.io.VarLenFeature]


class Lists(NamedTuple):
    """Candidates of each person, each [batch_size, candidates].

    Attributes:
      movies: int32, movie indices; 0 behind the last movie.
      scores: float32, retrieval scores; -inf behind the last movie.
      ratings: float32, predicted stars.
      values: float32, by which the second stage orders; -inf behind the last movie.
    """

    movies: tf.Tensor
    scores: tf.Tensor
    ratings: tf.Tensor
    values: tf.Tensor

    def ordered(self) -> "Lists":
        """The same candidates by falling value; those of equal value stay in the order of retrieval."""
        order = tf.math.top_k(self.values, k=tf.shape(self.values)[1]).indices
        return Lists(*(tf.gather(each, order, batch_dims=1) for each in self))


class Recommender(tf.Module):
    """Answers "what should this person watch?" in one call.

    The retriever picks `candidates` movies among those that the person has not rated; the second stage orders them.
    """

    def __init__(
        self,
        retrieval: tf.Module,
        ranking: tf.Module,
        transform: Transform,
        movies: Movies,
        users: Users,
        candidates: int,
        limits: Limits | None = None,
    ):
        """Joins the models; the second stage is the retriever's own order until `set_second_stage`.

        Args:
          retrieval: a loaded SavedModel with the function `scores`, whose first head is a `RetrievalHead`.
          ranking: a loaded SavedModel with the function `ratings_of`, whose last head is a `RatingHead`; it may be the
            same one.
          transform: the Transform graph.
          movies: the movies that both models know.
          users: the people that are known.
          candidates: number of movies that the retriever picks.
          limits: the largest requests.
        """
        super().__init__()
        # What has left the catalogue since the models were trained is no candidate any more.
        retrieval.catalogue.candidates.assign(movies.candidates)
        self._retriever = Retriever(retrieval, users.features)
        self._ratings_of, self._transform = ranking.ratings_of, transform
        # Moments are alike to a pair of models if they are to both.
        alike = [after for after in (self._retriever.alike_after, alike_after(ranking)) if after is not None]
        self._alike_after = max(alike) if len(alike) == 2 else None
        # Saved with this module, because the functions read them; other parts of the models are not needed.
        self.parts = [retrieval.model_variables, retrieval.catalogue, ranking.model_variables, transform.layer]
        self._candidates, self._length = candidates, users.features[_HISTORY].shape[1]
        self._limits = limits or Limits()
        self.max_batch = _constant(np.array(self._limits.batch), "max_batch")
        self.max_history = _constant(np.array(self._limits.history), "max_history")
        self.max_values = _constant(np.array(self._limits.values), "max_values")
        self.movie_ids = _constant(movies.ids, "movie_ids")
        self.titles = _constant(movies.titles.astype(object), "titles")
        self.user_features = {name: _constant(values, name) for name, values in users.features.items()}
        if self._retriever.stores_queries:
            self.user_queries = _constant(self._retriever.queries(users.features), "user_queries")
        self.latest = _constant(users.latest, "latest")
        self.seen_offsets = _constant(users.seen_offsets, "seen_offsets")
        self.seen_movies = _constant(users.seen_movies, "seen_movies")
        known = np.flatnonzero(movies.ids)
        self.movie_index = _table(movies.ids[known], known)
        self.user_row = _table(users.ids[1:], np.arange(1, len(users.ids)))
        popularity, by_group = retrieval.heads[0].popularity.numpy(), retrieval.heads[0].popularity_by_group.numpy()
        self.popularity = _constant(np.where(movies.candidates, popularity, -np.inf), "popularity")
        self.popularity_by_group = _constant(np.where(movies.candidates, by_group, -np.inf), "popularity_by_group")
        biases = ranking.heads[-1].biases
        # Features of the second stage that depend on the movie alone. What is no candidate has a popularity of -inf.
        log_popularity = np.log1p(np.maximum(self.popularity.numpy(), 0))
        self.movie_features = _constant(np.stack([log_popularity, biases.movies.numpy()], axis=1), "movie_features")
        self._user_count = biases.users.shape[0]
        self.candidates = _constant(np.array(candidates), "candidates")
        self.weights = _constant(np.stack([RETRIEVAL_ORDER] * 2).astype(np.float32), "second_stage")

    def set_second_stage(self, for_known: np.ndarray, for_new: np.ndarray | None = None) -> None:
        """Sets how candidates are ordered.

        Args:
          for_known: float [features], in the order of `second_stage.FEATURES`, for people whom training saw.
          for_new: likewise, for those whom it never saw; None for the same weights.

        Raises:
          ValueError: a weight is not a finite number.
        """
        weights = np.stack([for_known if for_new is None else for_new, for_known])
        if not np.isfinite(weights).all():
            raise ValueError(f"The weights of the second stage should be finite; received {weights.tolist()}.")
        self.weights.assign(weights.astype(np.float32))

    def second_stage_features(self, lists: Lists) -> np.ndarray:
        """The features of candidates, as in `second_stage.Candidates`: float32 [batch_size, candidates, features]."""
        stars = lists.ratings.numpy()[..., np.newaxis] - MIDDLE
        of_movies = self.movie_features.numpy()[lists.movies.numpy()]
        return np.concatenate([lists.scores.numpy()[..., np.newaxis], stars, stars**2, of_movies], axis=2)

    def _is_known(self, person: Tensors) -> tf.Tensor:
        """Whether training saw each person: bool [batch_size]."""
        index = person[transformed_name(USER_ID)]
        # The last index stands for all ids that are not in the vocabulary.
        return (index > 0) & (index < self._user_count - 1)

    @tf.function(
        autograph=False,
        input_signature=[
            tf.TensorSpec([None], tf.int64, name="user_id"),
            tf.TensorSpec([None, None], tf.int64, name="history_movie_ids"),
            tf.TensorSpec([None, None], tf.float32, name="history_ratings"),
        ],
    )
    def serving_default(self, user_id: tf.Tensor, history_movie_ids: tf.Tensor, history_ratings: tf.Tensor) -> Tensors:
        """Recommends movies for a moment that is not known, with the date and hour of the latest rating, best first.

        Args:
          user_id: int64 [batch_size]; 0 or any other unknown id for an unknown user.
          history_movie_ids: int64 [batch_size, any], oldest first, padded with 0. A history with a known movie replaces
            the stored one.
          history_ratings: float32, of the same shape; 0 where the rating is not known.

        Returns:
          By name, [batch_size, candidates]: `movie_id` int64 (0 after the last recommendation), `title` string,
          `predicted_rating` float32 (stars) and `retrieval_score` float32.

        Raises:
          InvalidArgumentError: the inputs do not fit each other, are too large, or have impossible ratings.
        """
        checks = Checks(self._limits, user_id)
        check_history(checks, history_movie_ids, history_ratings)
        user_id, history_movie_ids, history_ratings = checks.passed(user_id, history_movie_ids, history_ratings)
        row = self.user_row.lookup(user_id)
        no_times = tf.zeros([tf.size(user_id), 0], tf.int64)
        person, is_stored = self._person(row, history_movie_ids, history_ratings, no_times)
        scored = self._scored_stored(person, row, is_stored)
        return self._answer(person, scored, self._seen(row, history_movie_ids), tf.zeros_like(user_id))

    @tf.function(
        autograph=False,
        input_signature=[
            tf.TensorSpec([None], tf.int64, name="user_id"),
            tf.TensorSpec([None, None], tf.int64, name="history_movie_ids"),
            tf.TensorSpec([None, None], tf.float32, name="history_ratings"),
            tf.TensorSpec([None, None], tf.int64, name="history_timestamps"),
            tf.TensorSpec([None], tf.int64, name="now"),
            tf.TensorSpec([None], tf.string, name="gender"),
            tf.TensorSpec([None], tf.int64, name="age"),
            tf.TensorSpec([None], tf.int64, name="occupation"),
            tf.TensorSpec([None], tf.string, name="zip_code"),
            tf.TensorSpec([None, None], tf.int64, name="exclude_movie_ids"),
            tf.TensorSpec([None], tf.int64, name="k"),
        ],
    )
    def recommend(
        self,
        user_id: tf.Tensor,
        history_movie_ids: tf.Tensor,
        history_ratings: tf.Tensor,
        history_timestamps: tf.Tensor,
        now: tf.Tensor,
        gender: tf.Tensor,
        age: tf.Tensor,
        occupation: tf.Tensor,
        zip_code: tf.Tensor,
        exclude_movie_ids: tf.Tensor,
        k: tf.Tensor,
    ) -> Tensors:
        """Recommends movies for what is told of the person and the moment, best first.

        Every input has a neutral value, with which it tells nothing: 0, "", or a list without columns, [batch_size, 0].
        Of a known person, what is not told is what is stored of them.

        Args:
          user_id: int64 [batch_size]; 0 or any other unknown id for an unknown user.
          history_movie_ids: int64 [batch_size, any], oldest first, padded with 0. A history with a known movie replaces
            the stored one.
          history_ratings: float32, of the same shape, 0 where the rating is not known; or [batch_size, 0].
          history_timestamps: int64, of the same shape, seconds since 1970, 0 where the time is not known; or
            [batch_size, 0]. The movies are put in the order of their times; one whose time is not known counts as older
            than those with a time.
          now: int64 [batch_size], the moment in seconds since 1970; 0 where not known.
          gender: string [batch_size], M or F.
          age: int64 [batch_size], years.
          occupation: int64 [batch_size], one of MovieLens's codes, 0 to 20. Its 0 means "other or not specified", and
            nothing is concluded from it.
          zip_code: string [batch_size].
          exclude_movie_ids: int64 [batch_size, any], movies not to recommend, padded with 0.
          k: int64 [batch_size], the number of movies; 0, or more than there are candidates, for all candidates.

        Returns:
          As `serving_default`, [batch_size, largest k].

        Raises:
          InvalidArgumentError: the inputs do not fit each other, are too large, or have impossible values.
        """
        told = {"gender": gender, "age": age, "occupation": occupation, "zip_code": zip_code}
        checks = Checks(self._limits, user_id)
        check_history(checks, history_movie_ids, history_ratings, or_none=True)
        checks.alike("history_timestamps", history_timestamps, "history_movie_ids", history_movie_ids, or_none=True)
        checks.values("history_timestamps", "0 or more", history_timestamps, history_timestamps >= 0)
        checks.lists("exclude_movie_ids", exclude_movie_ids)
        for name, values in {"now": now, "k": k}.items():
            checks.one_each(name, values)
            checks.values(name, "0 or more", values, values >= 0)
        check_demographics(checks, told)
        user_id, history_movie_ids, history_ratings, history_timestamps, now, exclude_movie_ids, k, *told_values = (
            checks.passed(
                *(user_id, history_movie_ids, history_ratings, history_timestamps, now, exclude_movie_ids, k),
                *told.values(),
            )
        )
        told = dict(zip(told, told_values, strict=True))
        row = self.user_row.lookup(user_id)
        # Times of padding and of unknown movies tell nothing.
        is_known = self.movie_index.lookup(history_movie_ids) > 0
        times = tf.where(is_known, padded_like(history_timestamps, history_movie_ids), 0)
        person, is_stored = self._person(row, history_movie_ids, history_ratings, times)
        # Without columns, the largest time is the smallest integer.
        latest_told = tf.maximum(tf.reduce_max(times, axis=1), 0)
        latest = tf.where(latest_told > 0, latest_told, tf.gather(self.latest, row))
        person |= self._told(person, tf.where(now > 0, now, latest), now > 0, told)
        for is_given in given_columns(told, among=person).values():
            is_stored &= ~is_given
        is_like_stored = tf.equal(now, 0)
        if self._retriever.alike_after is not None:
            # As the retriever knows moments, which are cut where they are too far away.
            stored = seconds(tf.gather(self.latest, row))
            is_like_stored |= tf.equal(stored, 0) | (seconds(now) - stored > self._retriever.alike_after)
        scored = self._scored_stored(person, row, is_stored & is_like_stored)
        seen = tf.concat([history_movie_ids, exclude_movie_ids], axis=1)
        return self._answer(person, scored, self._seen(row, seen), k)

    @tf.function(autograph=False, input_signature=[tf.TensorSpec([None], tf.string, name="examples")])
    def evaluate(self, examples: tf.Tensor) -> Tensors:
        """Judges the list that the person of each row would have got: float32 [batch_size] by output name.

        Args:
          examples: string [batch_size], serialized raw tf.Examples, at most `requests.MAX_EXAMPLES`. The person is
            what the row says of them: history, demographics, and the moment. What the row says they had seen is not
            recommended.

        Returns:
          The values of `evaluation.row_values`, `recall_at_10` in every situation of `trainers.export.situations`, and
          recall@10 of popularity by gender and age.
        """
        features, raw = self._parse(check_examples(examples))
        features |= self._retriever.read(features)
        seen = self._seen_in(raw)
        targets = tf.cast(features[transformed_name(MOVIE_ID)], tf.int64)
        lists = self._lists(features, self._retriever.scored(features), seen)
        final = lists.ordered()
        popularity = metrics.popularity_metrics(self.popularity, targets, seen)
        filtered = {name: popularity[f"{name}_filtered"] for name in evaluation.LIST_METRICS}
        stars = features[transformed_name(LABEL)]
        values = evaluation.row_values(final.movies, lists.movies, final.ratings, filtered, targets, stars)
        group = tf.stack([features[transformed_name(name)] for name in ("gender", "age")], axis=1)
        of_group = metrics.filtered_ranks(tf.gather_nd(self.popularity_by_group, group), targets, seen)
        values[f"{evaluation.GROUP_PREFIX}recall_at_10"] = metrics.recall(of_group, 10)

        def found(there: Tensors) -> Tensors:
            there_final = self._lists(there, self._retriever.scored(there), seen).ordered()
            return {"recall_at_10": metrics.recall(evaluation.place_in(there_final.movies, targets), 10)}

        return values | in_every_situation(found, features, raw, self._transform.layer, self._alike_after)

    @tf.function(autograph=False, input_signature=[tf.TensorSpec([None], tf.string, name="examples")])
    def candidates_of(self, examples: tf.Tensor) -> tuple[Lists, Lists, tf.Tensor]:
        """The candidates that `evaluate` judges, in the retriever's order.

        Args:
          examples: as for `evaluate`.

        Returns:
          The candidates of the people as training knows them, and as if it had never seen them, and the movie of each
          row, int32 [batch_size].
        """
        features, raw = self._parse(examples)
        features |= self._retriever.read(features)
        seen = self._seen_in(raw)
        new = in_situation(NEW_WITH_HISTORY, features, raw, self._transform.layer)
        lists, lists_of_new = (self._lists(each, self._retriever.scored(each), seen) for each in (features, new))
        return lists, lists_of_new, features[transformed_name(MOVIE_ID)]

    def _parse(self, examples: tf.Tensor) -> tuple[Tensors, dict[str, tf.SparseTensor]]:
        raw = tf.io.parse_example(examples, self._transform.spec)
        return with_int32_indices(self._transform.layer(raw)), raw

    def _seen_in(self, raw: dict[str, tf.SparseTensor]) -> tf.Tensor:
        """What rows say that their people had seen: int64 [pairs, 2], each a row and a movie index."""
        seen = raw[SEEN_MOVIES]
        return tf.stack([seen.indices[:, 0], self.movie_index.lookup(seen.values)], axis=1)

    def _person(
        self, row: tf.Tensor, movies: tf.Tensor, ratings: tf.Tensor, timestamps: tf.Tensor
    ) -> tuple[Tensors, tf.Tensor]:
        """Transformed features of people: the stored ones, and the given history if it has a known movie.

        Returns:
          The features, [batch_size, ...] by name; and whether all of a person's are stored, bool [batch_size].
        """
        person = {name: tf.gather(values, row) for name, values in self.user_features.items()}
        given = encode_history(movies, ratings, timestamps, self.movie_index, self._length)
        is_given = tf.reduce_any(given[_HISTORY] > 0, axis=1)
        # Models of earlier versions know no times of histories.
        read = person.keys() & given.keys()
        person |= {name: tf.where(is_given[:, tf.newaxis], given[name], person[name]) for name in read}
        return person, ~is_given

    def _told(self, person: Tensors, now: tf.Tensor, is_told: tf.Tensor, demographics: Tensors) -> Tensors:
        """Transformed features of the moment, and those of a person that are told instead of stored ones.

        A moment that was not told has the date and hour of the latest rating, but is not said to be that very second. A
        retriever that reads in order then leaves out date and hour, too.
        """
        transformed = with_int32_indices(self._transform.layer(raw_features(self._transform.spec, now, demographics)))
        told = {column.name: transformed[column.name] for column in columns(Role.CONTEXT, among=person)}
        if _SECONDS in told:
            told[_SECONDS] = tf.where(is_told, told[_SECONDS], 0)
        for name, is_given in given_columns(demographics, among=person).items():
            told[name] = tf.where(is_given, transformed[name], person[name])
        return told

    def _seen(self, row: tf.Tensor, movie_ids: tf.Tensor) -> tf.Tensor:
        """What people have rated, and given movie ids: int64 [pairs, 2], each a row and a movie index."""
        starts, ends = tf.gather(self.seen_offsets, row), tf.gather(self.seen_offsets, row + 1)
        stored = tf.ragged.range(starts, ends)
        stored_pairs = [stored.value_rowids(), tf.cast(tf.gather(self.seen_movies, stored.values), tf.int64)]
        given = self.movie_index.lookup(movie_ids)
        places = tf.where(given > 0)
        given_pairs = [places[:, 0], tf.gather_nd(given, places)]
        return tf.concat([tf.stack(stored_pairs, axis=1), tf.stack(given_pairs, axis=1)], axis=0)

    def _answer(self, person: Tensors, scored: Tensors, seen: tf.Tensor, k: tf.Tensor) -> Tensors:
        """The outputs of a request, [batch_size, largest k]; k is int64 [batch_size], 0 for all candidates."""
        lists = self._lists(person, scored, seen).ordered()
        wanted = tf.where(k > 0, tf.minimum(k, self._candidates), self._candidates)
        width = tf.maximum(tf.reduce_max(wanted), 0)  # Without rows, the largest is the smallest integer.
        lists = Lists(*(each[:, :width] for each in lists))
        there = tf.math.is_finite(lists.scores) & (tf.range(width) < wanted[:, tf.newaxis])
        return {
            "movie_id": tf.where(there, tf.gather(self.movie_ids, lists.movies), 0),
            "title": tf.where(there, tf.gather(self.titles, lists.movies), ""),
            "predicted_rating": tf.where(there, lists.ratings, 0.0),
            "retrieval_score": tf.where(there, lists.scores, 0.0),
        }

    def _scored_stored(self, person: Tensors, row: tf.Tensor, is_stored: tf.Tensor) -> Tensors:
        """The query vectors and scores of people, where the query vectors of some are stored.

        Args:
          person: transformed features of the roles user, context and history; others are ignored.
          row: int64 [batch_size], their rows among those of whom something is stored.
          is_stored: bool [batch_size], who asks with what is stored of them alone, at a moment that is like any other.
        """
        if not self._retriever.stores_queries:
            return self._retriever.scored(person)
        return self._retriever.scored_with_stored(person, tf.gather(self.user_queries, row), is_stored)

    def _lists(self, person: Tensors, scored: Tensors, seen: tf.Tensor) -> Lists:
        """The candidates of each person in the retriever's order.

        Args:
          person: transformed features of the roles user, context and history; others are ignored.
          scored: as from `Retriever.scored`.
          seen: int64 [pairs, 2], each a row and the index of a movie that is not recommended.
        """
        person = {name: person[name] for name in self.user_features}
        scores = tf.tensor_scatter_nd_update(scored["scores"], seen, tf.fill(tf.shape(seen)[:1], float("-inf")))
        top = tf.math.top_k(scores, k=self._candidates)
        is_movie = tf.math.is_finite(top.values)
        # Behind the last movie would be some that are not recommended, and one may be the movie of a row to judge.
        movies = tf.where(is_movie, top.indices, 0)
        ratings = self._rate(person, movies, scored["queries"])
        weights = tf.gather(self.weights, tf.cast(self._is_known(person), tf.int32))
        of_score, of_stars, of_squares, of_movies = tf.split(weights[:, tf.newaxis], [1, 1, 1, 2], axis=2)
        stars = ratings - MIDDLE
        values = of_score[..., 0] * top.values + of_stars[..., 0] * stars + of_squares[..., 0] * tf.square(stars)
        values += tf.reduce_sum(of_movies * tf.gather(self.movie_features, movies), axis=2)
        return Lists(movies, top.values, ratings, tf.where(is_movie, values, float("-inf")))

    def _rate(self, person: Tensors, movies: tf.Tensor, queries: tf.Tensor) -> tf.Tensor:
        """Predicted ratings of each person for their movies, [batch_size, candidates], some people at once."""
        rows = tf.shape(movies)[0]
        shape = [None, self._candidates]
        parts = tf.TensorArray(tf.float32, size=0, dynamic_size=True, infer_shape=False, element_shape=shape)

        def rate_some(start: tf.Tensor, parts: tf.TensorArray) -> tuple[tf.Tensor, tf.TensorArray]:
            end = tf.minimum(start + AT_ONCE, rows)
            some = {name: values[start:end] for name, values in person.items()}
            rated = self._ratings_of(some, movies[start:end], queries[start:end])
            return end, parts.write(parts.size(), rated)

        _, parts = tf.while_loop(lambda start, _: start < rows, rate_some, (0, parts), parallel_iterations=1)
        return parts.concat()


def save(recommender: Recommender, directory: str) -> None:
    """Writes the recommender as a SavedModel with the signatures `serving_default`, `recommend` and `evaluate`."""
    signatures = {name: getattr(recommender, name) for name in ("serving_default", "recommend", "evaluate")}
    tf.saved_model.save(recommender, directory, signatures=signatures, options=SAVE_OPTIONS)


def smoke_test(directory: str, users: Users, movies: Movies) -> None:
    """Loads a saved recommender and asks it for recommendations for a few known users, and for an unknown one.

    Raises:
      ValueError: a user is recommended a movie that they have rated, or nothing although they have not rated every
        movie, or a predicted rating is not 1 to 5.
    """
    loaded = tf.saved_model.load(directory)
    rows = np.unique(np.linspace(0, len(users.ids) - 1, 16).astype(int))
    for some in np.array_split(rows, -(-len(rows) // int(loaded.max_batch))):
        ids = tf.constant(users.ids[some])
        zeros, none, nobody = tf.zeros_like(ids), tf.zeros([len(some), 0], tf.int64), tf.fill([len(some)], "")
        history = {"user_id": ids, "history_movie_ids": none, "history_ratings": tf.cast(none, tf.float32)}
        told = {"now": zeros, "gender": nobody, "age": zeros, "occupation": zeros, "zip_code": nobody, "k": zeros}
        lists = {"history_timestamps": none, "exclude_movie_ids": none}
        _check_answer(loaded.signatures["serving_default"](**history), some, users, movies)
        _check_answer(loaded.signatures["recommend"](**history, **told, **lists), some, users, movies)


def _check_answer(answer: Tensors, rows: np.ndarray, users: Users, movies: Movies) -> None:
    for row, ids, ratings in zip(rows, answer["movie_id"].numpy(), answer["predicted_rating"].numpy(), strict=True):
        returned = ids > 0
        seen = movies.ids[users.seen_by(row)]
        if not returned.any() and len(seen) < movies.count:
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
