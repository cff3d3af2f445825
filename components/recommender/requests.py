"""Reads requests inside the graph: refuses what does not fit, and makes features of people out of it."""

from dataclasses import dataclass

import tensorflow as tf

from transform.features import (
    GENDERS,
    HIGHEST_RATING,
    HISTORY_MOVIES,
    HISTORY_RATINGS,
    HISTORY_TIMES,
    LOWEST_RATING,
    OCCUPATIONS,
    TIMESTAMP,
    Role,
    columns,
    transformed_name,
)
from transform.moments import seconds

Tensors = dict[str, tf.Tensor]

_HISTORY = transformed_name(HISTORY_MOVIES)
_RATINGS = transformed_name(HISTORY_RATINGS)
_TIMES = transformed_name(HISTORY_TIMES)

MAX_EXAMPLES = 2048  # Rows that are judged at once; an Evaluator sends 1,000 at most.
_OLDEST = 150  # Years.
_LONGEST_ZIP_CODE = 32  # Bytes.
_SHOWN_BYTES = 100  # Of a string that is refused.


@dataclass(frozen=True)
class Limits:
    """The largest requests that are answered; larger ones are refused before anything is computed.

    Attributes:
      batch: people in a request.
      history: movies in a history, or among those not to recommend.
      values: movies in all histories of a request, padding included, or among all those not to recommend.
    """

    batch: int = 1024
    history: int = 10_000
    values: int = 2**20


class Checks:
    """Collects checks of a request; `passed` returns its inputs once all of them hold.

    Each message names the input, what it should be, and the sizes or the value that were received.
    """

    def __init__(self, limits: Limits, user_id: tf.Tensor):
        """Starts with the number of people, from the input `user_id`, int64 [batch_size]."""
        self._limits, self._rows = limits, tf.size(user_id, tf.int64)
        message = f"a request should have at most {limits.batch} people, one in each row of user_id; received:"
        self._checks: list[tf.Operation] = []
        self._add(self._rows <= limits.batch, message, self._rows)

    def one_each(self, name: str, values: tf.Tensor) -> None:
        """Every person has one value: [batch_size]."""
        message = f"{name} should have as many rows as user_id:"
        self._add(tf.equal(tf.size(values, tf.int64), self._rows), message, tf.shape(values), self._rows)

    def lists(self, name: str, values: tf.Tensor) -> None:
        """Every person has a list, [batch_size, any], of at most `history` movies, and all of at most `values`."""
        shape = tf.shape(values, tf.int64)
        self._add(tf.equal(shape[0], self._rows), f"{name} should have as many rows as user_id:", shape, self._rows)
        longest = self._limits.history
        self._add(shape[1] <= longest, f"{name} should have at most {longest} movies a row:", shape)
        # Neither factor is large where the checks before have passed, so that the product is what it seems.
        rows, columns = tf.minimum(shape[0], self._limits.batch), tf.minimum(shape[1], longest)
        most = f"{name} should have at most {self._limits.values} values in all rows together, padding included:"
        self._add(rows * columns <= self._limits.values, most, shape)

    def alike(self, name: str, values: tf.Tensor, other_name: str, other: tf.Tensor, or_none: bool) -> None:
        """A list has the shape of another; with `or_none`, it may also have no columns."""
        shape, wanted = tf.shape(values, tf.int64), tf.shape(other, tf.int64)
        fits = tf.reduce_all(tf.equal(shape, wanted))
        if or_none:
            fits |= tf.equal(shape[1], 0) & tf.equal(shape[0], wanted[0])
        without = ", or no columns" if or_none else ""
        self._add(fits, f"{name} should have the shape of {other_name}{without}:", wanted, shape)

    def values(self, name: str, what: str, values: tf.Tensor, allowed: tf.Tensor) -> None:
        """All values are allowed, as bool tensor of their shape says; the message shows some that are not."""
        # Only where the shape has passed: TensorFlow has messages of its own for what is too large.
        with tf.control_dependencies(self._checks):
            refused = tf.boolean_mask(tf.identity(values), ~allowed)[:3]
        if refused.dtype == tf.string:
            # Clients read messages as UTF-8, which neither what they sent nor a part of it need be.
            refused = tf.strings.unicode_transcode(tf.strings.substr(refused, 0, _SHOWN_BYTES), "UTF-8", "UTF-8")
        self._add(tf.reduce_all(allowed), f"{name} should be {what}; received:", refused)

    def passed(self, *inputs: tf.Tensor) -> list[tf.Tensor]:
        """Returns the inputs; nothing is computed from them before the checks, whose messages a client thus sees."""
        with tf.control_dependencies(self._checks):
            return [tf.identity(values) for values in inputs]

    def _add(self, condition: tf.Tensor, *message: object) -> None:
        check = tf.debugging.Assert(condition, list(message))
        # Outside of graphs, a check that holds is nothing.
        if check is not None:
            self._checks.append(check)


def check_history(checks: Checks, movies: tf.Tensor, ratings: tf.Tensor, or_none: bool = False) -> None:
    """Movies and their ratings fit each other, and ratings are 1 to 5, or 0 where they are not known."""
    checks.lists("history_movie_ids", movies)
    checks.alike("history_ratings", ratings, "history_movie_ids", movies, or_none)
    # NaN fails every comparison.
    allowed = tf.equal(ratings, 0) | ((ratings >= LOWEST_RATING) & (ratings <= HIGHEST_RATING))
    checks.values("history_ratings", "1 to 5, or 0 where unknown", ratings, allowed)


def check_demographics(checks: Checks, demographics: Tensors) -> None:
    """Each person has one value of each feature, out of those that MovieLens has."""
    for name, values in demographics.items():
        checks.one_each(name, values)
    gender, age, occupation, zip_code = (demographics[name] for name in ("gender", "age", "occupation", "zip_code"))
    known = tf.reduce_any(tf.equal(gender[:, tf.newaxis], tf.constant([*GENDERS, ""])), axis=1)
    checks.values("gender", f"{' or '.join(GENDERS)}, or empty where unknown", gender, known)
    checks.values("age", f"0 to {_OLDEST}, 0 where unknown", age, (age >= 0) & (age <= _OLDEST))
    in_range = (occupation >= 0) & (occupation < OCCUPATIONS)
    checks.values("occupation", f"0 to {OCCUPATIONS - 1}", occupation, in_range)
    is_short = tf.strings.length(zip_code) <= _LONGEST_ZIP_CODE
    checks.values("zip_code", f"of at most {_LONGEST_ZIP_CODE} bytes", zip_code, is_short)


def check_examples(examples: tf.Tensor) -> tf.Tensor:
    """Returns serialized examples, string [batch_size], if there are no more than are judged at once."""
    rows = tf.size(examples)
    check = tf.debugging.Assert(
        rows <= MAX_EXAMPLES, [f"examples should be at most {MAX_EXAMPLES} at once; received:", rows]
    )
    with tf.control_dependencies([check] if check is not None else []):
        return tf.identity(examples)


def encode_history(
    movies: tf.Tensor, ratings: tf.Tensor, timestamps: tf.Tensor, index: tf.lookup.StaticHashTable, length: int
) -> Tensors:
    """Makes histories as Transform does: the latest known movies, newest first and without gaps.

    Args:
      movies: int64 [batch_size, any], movie ids, oldest first if times are not known; unknown ids are left out.
      ratings: float32, of the same shape or [batch_size, 0].
      timestamps: int64, of the same shape or [batch_size, 0]; if given, movies are put in the order of their times,
        and one whose time is 0 counts as the oldest.
      index: from movie id to movie index; 0 for unknown ids.
      length: number of movies in a history.

    Returns:
      int32 and float32 [batch_size, length], by transformed name.
    """
    indices = tf.cast(index.lookup(movies), tf.int32)
    stars, times = padded_like(ratings, movies), padded_like(timestamps, movies)
    order = tf.argsort(times, axis=1, stable=True)
    indices, stars, times = (
        tf.reverse(tf.gather(each, order, batch_dims=1), axis=[1]) for each in (indices, stars, times)
    )
    known = indices > 0
    shape = [None, length]
    return {
        _HISTORY: tf.ragged.boolean_mask(indices, known).to_tensor(shape=shape),
        _RATINGS: tf.ragged.boolean_mask(stars, known).to_tensor(shape=shape),
        _TIMES: tf.cast(tf.ragged.boolean_mask(seconds(times), known).to_tensor(shape=shape), tf.int32),
    }


def padded_like(values: tf.Tensor, other: tf.Tensor) -> tf.Tensor:
    """Adds columns of 0 up to the shape of another tensor."""
    missing = tf.shape(other)[1] - tf.shape(values)[1]
    return tf.pad(values, [[0, 0], [0, missing]])


def raw_features(spec: dict[str, tf.io.VarLenFeature], now: tf.Tensor, demographics: Tensors) -> dict[str, tf.Tensor]:
    """Makes raw features of a request, in which everything that is not known is missing.

    Args:
      spec: the raw features that Transform reads.
      now: int64 [batch_size], seconds since 1970; 0 where unknown.
      demographics: [batch_size] by name; 0 or "" where unknown.
    """
    given = demographics | {TIMESTAMP: now}
    rows = tf.size(now, tf.int64)
    return {
        name: _sparse(given[name]) if name in given else _missing(rows, feature.dtype) for name, feature in spec.items()
    }


def given_columns(demographics: Tensors, among: Tensors) -> dict[str, tf.Tensor]:
    """Tells for each transformed demographic feature for whom it is given: bool [batch_size] by transformed name."""
    return {
        column.name: tf.not_equal(
            demographics[column.feature.name], tf.zeros([], demographics[column.feature.name].dtype)
        )
        for column in columns(Role.USER, among=among)
        if column.feature.name in demographics
    }


def _sparse(values: tf.Tensor) -> tf.SparseTensor:
    return tf.sparse.from_dense(values[:, tf.newaxis])


def _missing(rows: tf.Tensor, dtype: tf.DType) -> tf.SparseTensor:
    return tf.SparseTensor(tf.zeros([0, 2], tf.int64), tf.zeros([0], dtype), tf.stack([rows, 0]))
