"""The TensorFlow Transform graph: raw rows to model features, the same in training and serving."""

from collections.abc import Callable
from typing import Any

import tensorflow as tf
import tensorflow_transform as tft

from transform.features import (
    FEATURES,
    HISTORY_MOVIES,
    HISTORY_RATINGS,
    MOVIE_ID,
    Feature,
    Kind,
    normalized_name,
    transformed_name,
    vocabulary_name,
)

# Titles hold some five thousand distinct words; rarer ones than these tell little.
TITLE_VOCABULARY_SIZE = 2000


def preprocessing_fn(inputs: dict[str, tf.SparseTensor], custom_config: dict[str, Any]) -> dict[str, tf.Tensor]:
    """Computes the transformed features of a batch.

    Args:
      inputs: raw features by name, sparse [batch_size, None].
      custom_config: `history_length`, the number of movies kept in a history.

    Returns:
      Dense features by transformed name; shapes by kind are in `transform.features.Kind`, behind [batch_size].
    """
    outputs: dict[str, tf.Tensor] = {}
    for feature in FEATURES:
        if feature.kind not in _TRANSFORMS:
            continue
        raw = inputs[feature.name]
        outputs[transformed_name(feature.name)] = _TRANSFORMS[feature.kind](feature, raw)
        if feature.also_normalized:
            outputs[normalized_name(feature.name)] = _normalized(feature, raw)
    movies, ratings = _history(
        inputs[HISTORY_MOVIES], inputs[HISTORY_RATINGS], inputs[MOVIE_ID], custom_config["history_length"]
    )
    outputs[transformed_name(HISTORY_MOVIES)] = movies
    outputs[transformed_name(HISTORY_RATINGS)] = ratings
    return outputs


def _category(feature: Feature, raw: tf.SparseTensor) -> tf.Tensor:
    if feature.prefix is not None:
        raw = raw.with_values(tf.strings.substr(raw.values, 0, feature.prefix))
    indices = tft.compute_and_apply_vocabulary(raw, num_oov_buckets=1, vocab_filename=vocabulary_name(feature.name))
    return _first(indices.with_values(indices.values + 1), default=0)


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
    score = tft.scale_to_z_score(raw.with_values(tf.cast(raw.values, tf.float64)))
    return _first(score.with_values(tf.cast(score.values, tf.float32)), default=0.0)


def _number(feature: Feature, raw: tf.SparseTensor) -> tf.Tensor:
    del feature
    return _first(raw.with_values(tf.cast(raw.values, tf.float32)), default=0.0)


_TRANSFORMS: dict[Kind, Callable[[Feature, tf.SparseTensor], tf.Tensor]] = {
    Kind.CATEGORY: _category,
    Kind.TOKENS: _tokens,
    Kind.MULTI_HOT: _multi_hot,
    Kind.NORMALIZED: _normalized,
    Kind.NUMBER: _number,
}


def _history(
    movies: tf.SparseTensor, ratings: tf.SparseTensor, movie_id: tf.SparseTensor, length: int
) -> tuple[tf.Tensor, tf.Tensor]:
    """Newest first, so that a position means how long ago; movies outside the vocabulary are left out."""
    vocabulary = tft.vocabulary(movie_id, vocab_filename=vocabulary_name(MOVIE_ID))
    indices = tft.apply_vocabulary(movies, vocabulary, default_value=-1)
    known = indices.values >= 0
    row_ids = tf.boolean_mask(movies.indices[:, 0], known)

    def dense(values: tf.Tensor) -> tf.Tensor:
        rows = tf.RaggedTensor.from_value_rowids(tf.boolean_mask(values, known), row_ids, nrows=movies.dense_shape[0])
        return _to_width(tf.reverse(rows, axis=[1]), length)

    return dense(indices.values + 1), dense(ratings.values)


def _first(sparse: tf.SparseTensor, default: Any) -> tf.Tensor:
    """A row's first value, or the default: [batch_size]."""
    is_first = tf.equal(sparse.indices[:, 1], 0)
    shape = tf.stack([sparse.dense_shape[0], 1])
    column = tf.SparseTensor(tf.boolean_mask(sparse.indices, is_first), tf.boolean_mask(sparse.values, is_first), shape)
    return tf.reshape(tf.sparse.to_dense(column, default_value=default), [-1])


def _left_aligned(sparse: tf.SparseTensor, width: int) -> tf.Tensor:
    return _to_width(tf.RaggedTensor.from_sparse(sparse), width)


def _to_width(rows: tf.RaggedTensor, width: int) -> tf.Tensor:
    """Cut or padded with zeros: [batch_size, width]."""
    dense = rows.to_tensor(shape=[None, width])
    return tf.ensure_shape(dense, [None, width])
