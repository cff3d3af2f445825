"""Transformed splits in memory, and batches of them.

A row takes some 700 bytes, so that MovieLens 1M fits into less than a gigabyte; reading it once and drawing batches
from memory is many times faster than parsing the files in every epoch.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import tensorflow as tf
import tensorflow_transform as tft
from tfx.components.trainer.fn_args_utils import FnArgs

from transform.features import MOVIE_ID, USER_ID, Column, Kind, transformed_name, vocabulary_name

Arrays = dict[str, np.ndarray]

_PARSE_BATCH = 4096
_PREDICTION_BATCH = 8192


@dataclass(frozen=True)
class Splits:
    """What a trainer reads.

    Attributes:
      train: transformed features of the train split, [rows, ...] by name.
      eval: the same of the eval split.
      movies: the same of the catalogue, one row a movie.
      transform: the Transform output that they come from.
    """

    train: Arrays
    eval: Arrays
    movies: Arrays
    transform: tft.TFTransformOutput

    @property
    def movie_size(self) -> int:
        """Number of movie indices, padding and out-of-vocabulary included."""
        return self.size(MOVIE_ID)

    def size(self, name: str) -> int:
        """Number of indices of a category, padding and out-of-vocabulary included."""
        return self.transform.vocabulary_size_by_name(vocabulary_name(name)) + 2

    def index_count(self, column: Column) -> int:
        """Number of indices of a column that holds indices."""
        if column.kind is Kind.MULTI_HOT:
            return column.feature.width + 2
        if column.kind is Kind.BUCKETS:
            return len(column.feature.codes) + 1
        fixed = {Kind.HOUR: 25, Kind.WEEKDAY: 8}
        return fixed.get(column.kind) or self.size(column.feature.name)


def read_splits(fn_args: FnArgs) -> Splits:
    """Reads the splits `train`, `movies` (both in `train_files`) and `eval` that Trainer or Tuner names."""
    transform = tft.TFTransformOutput(fn_args.transform_graph_path)
    return Splits(
        train=read_rows(_files(fn_args.train_files, "train"), transform),
        eval=read_rows(_files(fn_args.eval_files, "eval"), transform),
        movies=read_rows(_files(fn_args.train_files, "movies"), transform),
        transform=transform,
    )


def _files(patterns: Sequence[str], split: str) -> list[str]:
    files = sorted(path for pattern in patterns if f"Split-{split}/" in pattern for path in tf.io.gfile.glob(pattern))
    if not files:
        raise ValueError(f"A trainer should be given files of the split {split!r}; received {list(patterns)}.")
    return files


def read_rows(files: list[str], transform: tft.TFTransformOutput) -> Arrays:
    """Reads transformed rows: [rows, ...] by name, indices as int32."""
    spec = transform.transformed_feature_spec()
    dataset = without_autotuning(
        tf.data.TFRecordDataset(files, compression_type="GZIP", num_parallel_reads=2)
        .batch(_PARSE_BATCH)
        .map(lambda rows: with_int32_indices(tf.io.parse_example(rows, spec)), num_parallel_calls=2)
        .prefetch(2)
    )
    batches = list(dataset.as_numpy_iterator())
    return {name: np.concatenate([batch[name] for batch in batches]) for name in spec}


def with_int32_indices(features: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
    """Indices as int32: half the memory, and enough for any vocabulary."""
    return {name: tf.cast(x, tf.int32) if x.dtype == tf.int64 else x for name, x in features.items()}


def batches(arrays: Arrays, batch_size: int, shuffle_seed: int | None = None) -> tf.data.Dataset:
    """Batches of rows, in a new order each epoch when `shuffle_seed` is given."""
    lookup = _lookup(arrays)
    numbers = _row_numbers(arrays, batch_size, shuffle_seed)
    return without_autotuning(numbers.map(lookup, num_parallel_calls=1).prefetch(2))


def replica_batches(
    arrays: Arrays, batch_size: int, shuffle_seed: int, replicas: range, replica_count: int
) -> tf.data.Dataset:
    """The batches of `batches`, dealt out row by row among replicas.

    Args:
      arrays: [rows, ...] by name.
      batch_size: rows of a whole batch.
      shuffle_seed: seed of the order of rows.
      replicas: those whose rows are wanted, one after the other, of each batch.
      replica_count: number of all replicas.

    Returns:
      Pairs of a replica's rows and, float32 [], their share of the batch. Where there are not enough rows for all
      replicas, the others get one whose share is 0: of no rows at all, means are no numbers.
    """
    lookup = _lookup(arrays)

    def deal(batch: tf.Tensor, replica: tf.Tensor) -> tuple[dict[str, tf.Tensor], tf.Tensor]:
        first = tf.minimum(replica, tf.size(batch) - 1)
        share = tf.size(batch[replica::replica_count]) / tf.size(batch)
        return lookup(batch[first::replica_count]), tf.cast(share, tf.float32)

    numbers = _row_numbers(arrays, batch_size, shuffle_seed)
    if replica_count == 1:
        dealt = numbers.map(lambda batch: (lookup(batch), 1.0), num_parallel_calls=1)
    else:
        among = tf.data.Dataset.from_tensor_slices(list(replicas))
        dealt = numbers.flat_map(lambda batch: among.map(lambda replica: deal(batch, replica)))
    return without_autotuning(dealt.prefetch(2 * len(replicas)))


def without_autotuning(dataset: tf.data.Dataset) -> tf.data.Dataset:
    """The dataset without tf.data's autotuning, for which nothing is left open here.

    At its end a tuned dataset waits for the tuning thread to wake, and that sleeps twice as long each time: iterating
    takes 5.1 s, 10.2 s, 20.5 s or 41.0 s, never less than the next of these.
    """
    options = tf.data.Options()
    options.autotune.enabled = False
    return dataset.with_options(options)


def _row_numbers(arrays: Arrays, batch_size: int, shuffle_seed: int | None) -> tf.data.Dataset:
    """Row numbers, int64 [batch_size], batch by batch; with a seed, in a new order each time they are iterated.

    The order of an epoch is drawn as a whole. A shuffle buffer as large as the split would draw it number by number,
    and all numbers would have to pass through it before the first batch.
    """
    rows = len(next(iter(arrays.values())))
    starts = tf.data.Dataset.range(0, rows, batch_size)
    if shuffle_seed is None:
        return starts.map(lambda start: tf.range(start, tf.minimum(start + batch_size, rows)))

    def batches_in_order_of(key: tf.Tensor) -> tf.data.Dataset:
        order = tf.random.experimental.stateless_shuffle(tf.range(rows, dtype=tf.int64), tf.stack([key, shuffle_seed]))
        return starts.map(lambda start: order[start : start + batch_size])

    keys = tf.data.Dataset.random(seed=shuffle_seed, rerandomize_each_iteration=True)
    return keys.take(1).flat_map(batches_in_order_of)


def _lookup(arrays: Arrays) -> Callable[[tf.Tensor], dict[str, tf.Tensor]]:
    tensors = {name: tf.constant(values) for name, values in arrays.items()}
    return lambda index: {name: tf.gather(x, index) for name, x in tensors.items()}


def predictions(function: Callable[[dict[str, tf.Tensor]], tf.Tensor], arrays: Mapping[str, np.ndarray]) -> np.ndarray:
    """What a function gives for rows, batch by batch: float32 [rows].

    Args:
      function: takes a batch of the columns of `arrays` and gives [batch_size].
      arrays: [rows, ...] by name.
    """
    count = len(next(iter(arrays.values())))
    # Slices instead of a tf.data pipeline, which would take longer to set up than a few batches take to compute.
    batches = [slice(start, start + _PREDICTION_BATCH) for start in range(0, count, _PREDICTION_BATCH)]
    return np.concatenate(
        [function({name: tf.constant(values[batch]) for name, values in arrays.items()}) for batch in batches]
    )


@dataclass(frozen=True)
class SeenMovies:
    """The movies of each user's train ratings, as compressed rows.

    Attributes:
      offsets: int64 [user indices + 1].
      movies: int64 [ratings], sorted by user.
    """

    offsets: np.ndarray
    movies: np.ndarray

    @classmethod
    def of(cls, train: Arrays, user_size: int) -> "SeenMovies":
        """Collects them from the train split."""
        users, movies = train[transformed_name(USER_ID)], train[transformed_name(MOVIE_ID)]
        order = np.argsort(users, kind="stable")
        offsets = np.concatenate([[0], np.cumsum(np.bincount(users, minlength=user_size))])
        return cls(offsets, movies[order].astype(np.int64))

    def pairs(self, users: np.ndarray) -> np.ndarray:
        """Cells that `users` have seen: int64 [seen_pairs, 2] of row in `users` and movie index."""
        counts = self.offsets[users + 1] - self.offsets[users]
        rows = np.repeat(np.arange(len(users)), counts)
        starts = np.repeat(self.offsets[users] - (np.cumsum(counts) - counts), counts)
        return np.stack([rows, self.movies[starts + np.arange(len(rows))]], axis=1)
