"""The TensorFlow Transform graph, which turns raw rows into model features, the same in training and serving."""

from collections.abc import Callable
from typing import Any

import tensorflow as tf
import tensorflow_transform as tft

from transform.features import (
    HISTORY_MOVIES,
    HISTORY_RATINGS,
    HISTORY_TIMES,
    LABEL,
    MOVIE_ID,
    Feature,
    Kind,
    columns,
    transformed_name,
    vocabulary_name,
)
from transform.moments import seconds

# Titles have some five thousand distinct words; the rarer ones carry little information.
TITLE_VOCABULARY_SIZE = 2000

_HOUR, _DAY = 3600, 86_400
_FIRST_WEEKDAY = 3  # 1 January 1970 was a Thursday.

_MEAN_STEPS = 1e6  # Steps per standard deviation, to which the mean is rounded.

Inputs = dict[str, tf.SparseTensor]


def preprocessing_fn(inputs: Inputs, custom_config: dict[str, Any]) -> dict[str, tf.Tensor]:
    """Computes the transformed features of a batch.

    Args:
      inputs: raw features by name, sparse [batch_size, None]; the outputs lack the transformed features of an optional
        feature that is missing here.
      custom_config: `history_length`, the number of movies kept in a history.

    Returns:
      Dense features by transformed name, [batch_size, ...]; `transform.features.Kind` has the other dimensions.

    Raises:
      ValueError: a feature that is not optional is missing.
    """
    # One vocabulary of movies, for movie_id and for histories.
    movie_ids = tft.vocabulary(inputs[MOVIE_ID], vocab_filename=vocabulary_name(MOVIE_ID))
    outputs = {
        transformed_name(MOVIE_ID): _vocabulary_index(inputs[MOVIE_ID], movie_ids),
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
    return _vocabulary_index(raw, tft.vocabulary(raw, vocab_filename=vocabulary_name(feature.name)))


def _vocabulary_index(raw: tf.SparseTensor, vocabulary: tf.Tensor) -> tf.Tensor:
    indices = tft.apply_vocabulary(raw, vocabulary, num_oov_buckets=1)
    return _first_value(indices.with_values(indices.values + 1), default=0)


def _buckets(feature: Feature, raw: tf.SparseTensor) -> tf.Tensor:
    return _first_value(raw.with_values(_bucket(feature, raw.values) + 1), default=0)


def _bucket(feature: Feature, values: tf.Tensor) -> tf.Tensor:
    """The place of the code whose bucket each value is in: int64, of the values' shape."""
    codes = tf.constant(feature.codes[1:], tf.float32)
    return tf.searchsorted(codes, tf.cast(values, tf.float32), side="right", out_type=tf.int64)


def _hour(feature: Feature, raw: tf.SparseTensor) -> tf.Tensor:
    del feature
    return _first_value(raw.with_values(raw.values % _DAY // _HOUR + 1), default=0)


def _weekday(feature: Feature, raw: tf.SparseTensor) -> tf.Tensor:
    del feature
    return _first_value(raw.with_values((raw.values // _DAY + _FIRST_WEEKDAY) % 7 + 1), default=0)


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
    # A row has at most one title; rows without a title stay all 0.
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
    # In double precision, because single precision cannot tell timestamps apart that differ by less than two minutes.
    values = tf.cast(raw.values, tf.float64)
    if feature.codes:
        # Data have codes alone; a request may have any number, and means the code of its bucket.
        values = tf.gather(tf.constant(feature.codes, tf.float64), _bucket(feature, raw.values))
    score = standardized(values, tft.mean(raw.with_values(values)), tft.var(raw.with_values(values)))
    score = tf.clip_by_value(score, -feature.bound, feature.bound)
    return _first_value(raw.with_values(tf.cast(score, tf.float32)), default=0.0)


def standardized(values: tf.Tensor, mean: tf.Tensor, variance: tf.Tensor) -> tf.Tensor:
    """Computes z-scores that are exactly the same in every run on the same data.

    Beam adds up mean and variance in another order in each run, which changes their last digits. Both are rounded here,
    so that the same data give the same scores, and models learn the same from them.

    Args:
      values: float64 [any].
      mean: float64 [], mean of the values.
      variance: float64 [], variance of the values; if it is 0, so are the scores.

    Returns:
      float64, of the values' shape.
    """
    deviation = tf.cast(tf.cast(tf.sqrt(variance), tf.float32), tf.float64)
    center = tf.round(tf.math.divide_no_nan(mean, deviation) * _MEAN_STEPS) / _MEAN_STEPS
    return tf.math.divide_no_nan(values, deviation) - center


def _seconds(feature: Feature, raw: tf.SparseTensor) -> tf.Tensor:
    del feature
    return _first_value(raw.with_values(seconds(raw.values)), default=0)


def _count(feature: Feature, raw: tf.SparseTensor) -> tf.Tensor:
    del feature
    return _first_value(raw, default=0)


def _number(feature: Feature, raw: tf.SparseTensor) -> tf.Tensor:
    del feature
    return _first_value(raw.with_values(tf.cast(raw.values, tf.float32)), default=0.0)


_TRANSFORMS: dict[Kind, Callable[[Feature, tf.SparseTensor], tf.Tensor]] = {
    Kind.CATEGORY: _category,
    Kind.BUCKETS: _buckets,
    Kind.HOUR: _hour,
    Kind.WEEKDAY: _weekday,
    Kind.TOKENS: _tokens,
    Kind.MULTI_HOT: _multi_hot,
    Kind.NORMALIZED: _normalized,
    Kind.NUMBER: _number,
    Kind.SECONDS: _seconds,
    Kind.COUNT: _count,
}


def _frequency(raw: tf.SparseTensor, label: tf.SparseTensor) -> tf.Tensor:
    """Counts the ratings with each value; rows of the catalogue have no label and do not count."""
    is_rated = tf.scatter_nd(label.indices[:, :1], tf.ones_like(label.values, tf.bool), raw.dense_shape[:1])
    rated = tf.boolean_mask(raw.values, tf.gather(is_rated, raw.indices[:, 0]))
    keys, counts = tft.count_per_key(rated)
    # A last key that no value exceeds, so that every position that searchsorted returns is that of a key. It may equal
    # a key of the data; a stable sort leaves that one before it, and searchsorted finds the first of equals.
    keys = tf.concat([keys, [keys.dtype.max]], axis=0)
    counts = tf.concat([tf.cast(counts, tf.float32), [0.0]], axis=0)
    order = tf.argsort(keys, stable=True)
    keys, counts = tf.gather(keys, order), tf.gather(counts, order)
    position = tf.searchsorted(keys, raw.values)
    found = tf.where(tf.equal(tf.gather(keys, position), raw.values), tf.gather(counts, position), 0.0)
    return _first_value(raw.with_values(found), default=0.0)


def _history(inputs: Inputs, movie_ids: tf.Tensor, length: int) -> dict[str, tf.Tensor]:
    """Makes dense histories, newest first, so that positions say how recent a movie is; drops unknown movies."""
    movies, ratings, times = (inputs[name] for name in (HISTORY_MOVIES, HISTORY_RATINGS, HISTORY_TIMES))
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

    return {
        transformed_name(HISTORY_MOVIES): dense(indices + 1),
        transformed_name(HISTORY_RATINGS): dense(_values_at(ratings, movies.indices)),
        transformed_name(HISTORY_TIMES): dense(seconds(_values_at(times, movies.indices))),
    }


def _values_at(sparse: tf.SparseTensor, cells: tf.Tensor) -> tf.Tensor:
    """Looks up values by row and column, int64 [cells, 2]; it returns 0 where a row ends before the column.

    A request may give fewer ratings than movies, or none; the missing ratings become 0, which means unknown. A dense
    tensor would do as well, but a single long row would make it as wide for all rows.
    """
    rows, columns = cells[:, 0], cells[:, 1]
    given = sparse.indices[:, 0]
    begins = tf.searchsorted(given, rows, side="left", out_type=tf.int64)
    ends = tf.searchsorted(given, rows, side="right", out_type=tf.int64)
    # The place behind the last value holds a 0.
    place = tf.where(begins + columns < ends, begins + columns, tf.size(given, out_type=tf.int64))
    return tf.gather(tf.concat([sparse.values, tf.zeros([1], sparse.values.dtype)], axis=0), place)


def _first_value(sparse: tf.SparseTensor, default: Any) -> tf.Tensor:
    """Returns each row's first value, or the default if a row has none: [batch_size]."""
    column = _resize(sparse, tf.stack([sparse.dense_shape[0], 1]))
    return tf.reshape(tf.sparse.to_dense(column, default_value=default), [-1])


def _resize(sparse: tf.SparseTensor, shape: tf.Tensor) -> tf.SparseTensor:
    """Cuts a tensor to a shape, or extends it where the shape is larger."""
    corner = tf.sparse.slice(sparse, tf.zeros_like(shape), shape)
    return tf.SparseTensor(corner.indices, corner.values, shape)


def _left_aligned(sparse: tf.SparseTensor, width: int) -> tf.Tensor:
    return _to_width(tf.RaggedTensor.from_sparse(sparse), width)


def _to_width(rows: tf.RaggedTensor, width: int) -> tf.Tensor:
    """Cuts rows to `width` or pads them with zeros: [batch_size, width]."""
    dense = rows.to_tensor(shape=[None, width])
    return tf.ensure_shape(dense, [None, width])
