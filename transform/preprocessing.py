"""The TensorFlow Transform graph: raw rows to model features, the same in training and serving."""

from collections.abc import Callable
from typing import Any

import tensorflow as tf
import tensorflow_transform as tft

from transform.features import (
    HISTORY_MOVIES,
    HISTORY_RATINGS,
    LABEL,
    MOVIE_ID,
    Feature,
    Kind,
    columns,
    transformed_name,
    vocabulary_name,
)

# Titles hold some five thousand distinct words; rarer ones than these tell little.
TITLE_VOCABULARY_SIZE = 2000

_HOUR, _DAY = 3600, 86_400
_FIRST_WEEKDAY = 3  # 1 January 1970 was a Thursday.

_CENTER_STEPS = 1e6  # in a standard deviation

Inputs = dict[str, tf.SparseTensor]


def preprocessing_fn(inputs: Inputs, custom_config: dict[str, Any]) -> dict[str, tf.Tensor]:
    """Computes the transformed features of a batch.

    Args:
      inputs: raw features by name, sparse [batch_size, None]; what is made of an optional feature that is not among
        them is not among the outputs either.
      custom_config: `history_length`, the number of movies kept in a history.

    Returns:
      Dense features by transformed name; shapes by kind are in `transform.features.Kind`, behind [batch_size].
    """
    # Of movies, once: histories are indexed with it, too.
    movie_ids = tft.vocabulary(inputs[MOVIE_ID], vocab_filename=vocabulary_name(MOVIE_ID))
    outputs = {
        transformed_name(MOVIE_ID): _indexed(inputs[MOVIE_ID], movie_ids),
        **_history(inputs, movie_ids, custom_config["history_length"]),
    }
    for column in columns():
        feature = column.feature
        if column.name in outputs:
            continue
        if column.kind is Kind.FREQUENCY:
            outputs[column.name] = _frequency(inputs[feature.name], inputs[LABEL])
        elif feature.name in inputs:
            outputs[column.name] = _TRANSFORMS[column.kind](feature, inputs[feature.name])
        elif not feature.optional:
            raise ValueError(f"The schema should have the feature {feature.name}; received {sorted(inputs)}.")
    return outputs


def _category(feature: Feature, raw: tf.SparseTensor) -> tf.Tensor:
    if feature.prefix is not None:
        raw = raw.with_values(tf.strings.substr(raw.values, 0, feature.prefix))
    return _indexed(raw, tft.vocabulary(raw, vocab_filename=vocabulary_name(feature.name)))


def _indexed(raw: tf.SparseTensor, vocabulary: tf.Tensor) -> tf.Tensor:
    indices = tft.apply_vocabulary(raw, vocabulary, num_oov_buckets=1)
    return _first(indices.with_values(indices.values + 1), default=0)


def _buckets(feature: Feature, raw: tf.SparseTensor) -> tf.Tensor:
    values = tf.cast(raw.values, tf.float32)
    bucket = tf.searchsorted(tf.constant(feature.codes[1:], tf.float32), values, side="right", out_type=tf.int64)
    return _first(raw.with_values(bucket + 1), default=0)


def _hour(feature: Feature, raw: tf.SparseTensor) -> tf.Tensor:
    del feature
    return _first(raw.with_values(raw.values % _DAY // _HOUR + 1), default=0)


def _weekday(feature: Feature, raw: tf.SparseTensor) -> tf.Tensor:
    del feature
    return _first(raw.with_values((raw.values // _DAY + _FIRST_WEEKDAY) % 7 + 1), default=0)


def _tokens(feature: Feature, raw: tf.SparseTensor) -> tf.Tensor:
    without_year = tf.strings.regex_replace(raw.values, r"\s*\(\d{4}\)\s*$", "")
    words = tf.strings.split(tf.strings.regex_replace(tf.strings.lower(without_year), r"[^\pL\pN]+", " "))
    indices = tft.compute_and_apply_vocabulary(
        words.to_sparse(),
        top_k=TITLE_VOCABULARY_SIZE,
        num_oov_buckets=1,
        vocab_filename=vocabulary_name(feature.name),
    )
    padded = _left_aligned(indices.with_values(indices.values + 1), feature.width)
    # One title at most in a row; rows without one stay empty.
    return tf.scatter_nd(raw.indices[:, :1], padded, [raw.dense_shape[0], feature.width])


def _multi_hot(feature: Feature, raw: tf.SparseTensor) -> tf.Tensor:
    indices = tft.compute_and_apply_vocabulary(
        raw, top_k=feature.width, num_oov_buckets=1, vocab_filename=vocabulary_name(feature.name)
    )
    depth = feature.width + 2
    cells = tf.stack([indices.indices[:, 0], indices.values + 1], axis=1)
    counts = tf.scatter_nd(cells, tf.ones_like(indices.values), [raw.dense_shape[0], depth])
    return tf.minimum(tf.ensure_shape(counts, [None, depth]), 1)


def _normalized(feature: Feature, raw: tf.SparseTensor) -> tf.Tensor:
    del feature
    # In double precision: single precision cannot tell apart timestamps less than two minutes from each other.
    values = tf.cast(raw.values, tf.float64)
    score = standardized(values, tft.mean(raw.with_values(values)), tft.var(raw.with_values(values)))
    return _first(raw.with_values(tf.cast(score, tf.float32)), default=0.0)


def standardized(values: tf.Tensor, mean: tf.Tensor, variance: tf.Tensor) -> tf.Tensor:
    """Z-scores that do not tell in which order Beam, another one in each run, added up the mean and the variance.

    Both are rounded, so that the same data give the same scores, from which the same is learnt.

    Args:
      values: float64 [any].
      mean: float64 [], theirs.
      variance: float64 []; where it is 0, so are the scores.

    Returns:
      float64, of the values' shape.
    """
    deviation = tf.cast(tf.cast(tf.sqrt(variance), tf.float32), tf.float64)
    center = tf.round(tf.math.divide_no_nan(mean, deviation) * _CENTER_STEPS) / _CENTER_STEPS
    return tf.math.divide_no_nan(values, deviation) - center


def _number(feature: Feature, raw: tf.SparseTensor) -> tf.Tensor:
    del feature
    return _first(raw.with_values(tf.cast(raw.values, tf.float32)), default=0.0)


_TRANSFORMS: dict[Kind, Callable[[Feature, tf.SparseTensor], tf.Tensor]] = {
    Kind.CATEGORY: _category,
    Kind.BUCKETS: _buckets,
    Kind.HOUR: _hour,
    Kind.WEEKDAY: _weekday,
    Kind.TOKENS: _tokens,
    Kind.MULTI_HOT: _multi_hot,
    Kind.NORMALIZED: _normalized,
    Kind.NUMBER: _number,
}


def _frequency(raw: tf.SparseTensor, label: tf.SparseTensor) -> tf.Tensor:
    """Counts rows that have a label: rows of the catalogue are no ratings."""
    is_rated = tf.scatter_nd(label.indices[:, :1], tf.ones_like(label.values, tf.bool), raw.dense_shape[:1])
    rated = tf.boolean_mask(raw.values, tf.gather(is_rated, raw.indices[:, 0]))
    keys, counts = tft.count_per_key(rated)
    # A last key that no value has, so that every position that a search may give is one of a key.
    keys = tf.concat([keys, [keys.dtype.max]], axis=0)
    counts = tf.concat([tf.cast(counts, tf.float32), [0.0]], axis=0)
    order = tf.argsort(keys)
    keys, counts = tf.gather(keys, order), tf.gather(counts, order)
    place = tf.searchsorted(keys, raw.values)
    found = tf.where(tf.equal(tf.gather(keys, place), raw.values), tf.gather(counts, place), 0.0)
    return _first(raw.with_values(found), default=0.0)


def _history(inputs: Inputs, movie_ids: tf.Tensor, length: int) -> dict[str, tf.Tensor]:
    """Newest first, so that a position means how long ago; movies outside the vocabulary are left out."""
    movies, ratings = inputs[HISTORY_MOVIES], inputs[HISTORY_RATINGS]
    batch_size = movies.dense_shape[0]
    indices = tft.apply_vocabulary(movies.values, movie_ids, default_value=-1)
    known = tf.where(indices >= 0)[:, 0]
    rows = tf.gather(movies.indices[:, 0], known)
    ends = tf.searchsorted(rows, tf.range(batch_size), side="right", out_type=tf.int64)
    positions = tf.gather(ends, rows) - 1 - tf.range(tf.size(rows, out_type=tf.int64))
    kept = tf.where(positions < length)[:, 0]
    known = tf.gather(known, kept)
    cells = tf.gather(tf.stack([rows, positions], axis=1), kept)

    def dense(values: tf.Tensor) -> tf.Tensor:
        by_position = tf.scatter_nd(cells, tf.gather(values, known), [batch_size, length])
        return tf.ensure_shape(by_position, [None, length])

    # A request may give fewer ratings than movies, or none: those movies' ratings are 0, not known.
    by_place = tf.sparse.to_dense(_cut(ratings, movies.dense_shape))
    return {
        transformed_name(HISTORY_MOVIES): dense(indices + 1),
        transformed_name(HISTORY_RATINGS): dense(tf.gather_nd(by_place, movies.indices)),
    }


def _first(sparse: tf.SparseTensor, default: Any) -> tf.Tensor:
    """A row's first value, or the default: [batch_size]."""
    column = _cut(sparse, tf.stack([sparse.dense_shape[0], 1]))
    return tf.reshape(tf.sparse.to_dense(column, default_value=default), [-1])


def _cut(sparse: tf.SparseTensor, shape: tf.Tensor) -> tf.SparseTensor:
    """The corner of a shape, which may be larger than the tensor is."""
    corner = tf.sparse.slice(sparse, tf.zeros_like(shape), shape)
    return tf.SparseTensor(corner.indices, corner.values, shape)


def _left_aligned(sparse: tf.SparseTensor, width: int) -> tf.Tensor:
    return _to_width(tf.RaggedTensor.from_sparse(sparse), width)


def _to_width(rows: tf.RaggedTensor, width: int) -> tf.Tensor:
    """Cut or padded with zeros: [batch_size, width]."""
    dense = rows.to_tensor(shape=[None, width])
    return tf.ensure_shape(dense, [None, width])
