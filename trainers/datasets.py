"""Loads the transformed splits into memory and draws batches from them.

A row takes some 700 bytes, so that MovieLens 1M fits into less than a gigabyte. Reading the files once and drawing
batches from memory is many times faster than parsing the files in every epoch.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import tensorflow as tf
import tensorflow_transform as tft
from tfx.components.trainer.fn_args_utils import FnArgs

from transform.features import MOVIE_ID, PLACE, USER_ID, Column, Kind, transformed_name, vocabulary_name

Arrays = dict[str, np.ndarray]

_PARSE_BATCH = 4096
_PREDICTION_BATCH = 8192


@dataclass(frozen=True)
class Splits:
    """The data that a trainer reads.

    Attributes:
      train: transformed features of the train split, [rows, ...] by name.
      eval: transformed features of the eval split, likewise.
      movies: transformed features of the catalogue, likewise, with one row per movie.
      transform: the Transform output that the features come from.
    """

    train: Arrays
    eval: Arrays
    movies: Arrays
    transform: tft.TFTransformOutput

    @property
    def movie_size(self) -> int:
        """Number of movie indices, including those for padding and out-of-vocabulary movies."""
        return self.size(MOVIE_ID)

    def size(self, name: str) -> int:
        """Number of indices of a feature with a vocabulary, including those for padding and out-of-vocabulary."""
        return self.transform.vocabulary_size_by_name(vocabulary_name(name)) + 2

    def index_count(self, column: Column) -> int:
        """Number of distinct indices that a column of one of the kinds `INDICES` can hold."""
        if column.kind is Kind.MULTI_HOT:
            return column.feature.width + 2
        if column.kind is Kind.BUCKETS:
            return len(column.feature.codes) + 1
        fixed = {Kind.HOUR: 25, Kind.WEEKDAY: 8}
        return fixed.get(column.kind) or self.size(column.feature.name)


def read_splits(fn_args: FnArgs) -> Splits:
    """Reads the splits `train` and `movies` from `train_files`, and `eval` from `eval_files`.

    Args:
      fn_args: arguments from the Trainer or Tuner component.

    Raises:
      ValueError: the component names no files of one of the splits.
    """
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
    """Reads all rows of transformed TFRecord files: [rows, ...] by name, with indices as int32.

    Workers of Beam write rows into as many files, and in any order, as they happen to work, so rows are sorted by what
    is in them: the same rows give the same model, whatever runner has written them.

    Raises:
      ValueError: there are no files, or no rows in them.
    """
    spec = transform.transformed_feature_spec()
    # One file after the other: parallel reads hand over record by record, which takes several times as long as reading.
    dataset = without_autotuning(
        tf.data.TFRecordDataset(files, compression_type="GZIP")
        .batch(_PARSE_BATCH)
        .map(lambda rows: with_int32_indices(tf.io.parse_example(rows, spec)), num_parallel_calls=2)
        .prefetch(2)
    )
    batches = list(dataset.as_numpy_iterator()) if files else []
    if not batches:
        raise ValueError(f"The files should hold at least one transformed row; received none in {files}.")
    numbers = {name: np.concatenate([batch[name] for batch in batches]) for name in spec if batches[0][name].ndim == 1}
    place = np.argsort(_order(numbers))
    sizes = [len(next(iter(batch.values()))) for batch in batches]
    places = np.split(place, np.cumsum(sizes)[:-1])

    def placed(name: str) -> np.ndarray:
        values = np.empty((len(place), *batches[0][name].shape[1:]), batches[0][name].dtype)
        for batch, of_batch in zip(batches, places, strict=True):
            values[of_batch] = batch.pop(name)
        return values

    # Each value is copied once, to its place, so that a split is in memory no more than twice.
    return {name: placed(name) for name in spec}


def _order(rows: Arrays) -> np.ndarray:
    """The order of rows by person and place in their history, and then by all else that is one number of a row.

    Rows of people without an index may have the same person and place, and those of a catalogue have neither.
    """
    first = [name for name in (transformed_name(USER_ID), transformed_name(PLACE)) if name in rows]
    others = sorted(name for name, values in rows.items() if values.ndim == 1 and name not in first)
    # The last key is the first to sort by.
    return np.lexsort([rows[name] for name in [*others, *reversed(first)]])


def with_int32_indices(features: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
    """Casts int64 features to int32, which takes half the memory and is enough for any vocabulary."""
    return {name: tf.cast(x, tf.int32) if x.dtype == tf.int64 else x for name, x in features.items()}


def batches(arrays: Arrays, batch_size: int, shuffle_seed: int | None = None) -> tf.data.Dataset:
    """Returns a dataset of batches; it reshuffles the rows in each epoch if `shuffle_seed` is given."""
    lookup = _lookup(arrays)
    numbers = _row_numbers(arrays, batch_size, shuffle_seed)
    return without_autotuning(numbers.map(lookup, num_parallel_calls=1).prefetch(2))


def replica_batches(
    arrays: Arrays, batch_size: int, shuffle_seed: int, replicas: range, replica_count: int
) -> tf.data.Dataset:
    """Returns the same batches as `batches`, with the rows of each batch dealt out among replicas.

    Args:
      arrays: [rows, ...] by name.
      batch_size: rows of a whole batch.
      shuffle_seed: seed of the order of rows.
      replicas: numbers of the replicas to return rows for; each batch gives one element per replica, in this order.
      replica_count: number of all replicas.

    Returns:
      Pairs of a replica's rows and their share of the batch, float32 []. If a batch has fewer rows than there are
      replicas, each spare replica gets one row with share 0, since the mean loss of an empty batch would be NaN.
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
    """Turns tf.data's autotuning off; it has nothing to tune here, since all parallelism and buffer sizes are fixed.

    At its end, an autotuned dataset waits for its tuning thread to wake up, which sleeps twice as long each time. One
    iteration over the dataset would therefore take 5.1 s, 10.2 s, 20.5 s or 41.0 s, rounded up to the next of these.
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
    """Returns a function that looks up the rows with given numbers."""
    tensors = {name: tf.constant(values) for name, values in arrays.items()}
    return lambda index: {name: tf.gather(x, index) for name, x in tensors.items()}


def predictor(
    function: Callable[[dict[str, tf.Tensor]], tf.Tensor],
) -> Callable[[Mapping[str, np.ndarray]], np.ndarray]:
    """Traces a function once, to apply it to arrays of any number of rows, batch by batch.

    Args:
      function: maps a batch of features, [batch_size, ...] by name, to float32 [batch_size].

    Returns:
      A function from arrays, [rows, ...] by name, with at least one row, to float32 [rows]; without a row it raises
      ValueError.
    """
    traced = tf.function(lambda features: function(features), autograph=False, reduce_retracing=True)

    def predict(arrays: Mapping[str, np.ndarray]) -> np.ndarray:
        # Slices instead of a tf.data pipeline, which takes longer to set up than a few batches take to compute.
        rows = len(next(iter(arrays.values())))
        if not rows:
            raise ValueError(f"There should be at least one row to predict; received 0 rows of {', '.join(arrays)}.")
        starts = range(0, rows, _PREDICTION_BATCH)
        return np.concatenate(
            [
                traced({name: tf.constant(x[start : start + _PREDICTION_BATCH]) for name, x in arrays.items()})
                for start in starts
            ]
        )

    return predict


@dataclass(frozen=True)
class SeenMovies:
    """The movies that each user rated in the train split, in compressed sparse row (CSR) format.

    Attributes:
      offsets: int64 [user indices + 1]; the movies of user u are movies[offsets[u]:offsets[u + 1]].
      movies: int64 [ratings], movie indices sorted by user.
    """

    offsets: np.ndarray
    movies: np.ndarray

    @classmethod
    def of(cls, train: Arrays, user_size: int) -> "SeenMovies":
        """Collects the movies from the train split; `user_size` is the number of user indices."""
        users, movies = train[transformed_name(USER_ID)], train[transformed_name(MOVIE_ID)]
        order = np.argsort(users, kind="stable")
        offsets = np.concatenate([[0], np.cumsum(np.bincount(users, minlength=user_size))])
        return cls(offsets, movies[order].astype(np.int64))

    def pairs(self, users: np.ndarray) -> np.ndarray:
        """Lists what the users of a batch have seen: int64 [seen_pairs, 2], each a row in `users` and a movie index."""
        counts = self.offsets[users + 1] - self.offsets[users]
        rows = np.repeat(np.arange(len(users)), counts)
        starts = np.repeat(self.offsets[users] - (np.cumsum(counts) - counts), counts)
        return np.stack([rows, self.movies[starts + np.arange(len(rows))]], axis=1)


def elements_of(model: tf.keras.Model, train: Arrays) -> Arrays:
    """What a model's `compute_loss` reads batches of: train rows, or what it makes of them."""
    make = getattr(model, "training_elements", None)
    elements: Arrays = make(train) if make else train
    return elements
