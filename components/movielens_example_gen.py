"""TFX ExampleGen for MovieLens: reads the raw files, joins them, splits the ratings and gives each its history.

The files are read once, checked whole, and cut into shards of users; Beam turns each shard into tf.Examples by columns.
Rows come out in the order of users, so trainers have to shuffle.
"""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import apache_beam as beam
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import tensorflow as tf
from google.protobuf import json_format, struct_pb2
from tfx import types
from tfx.components.example_gen.component import FileBasedExampleGen
from tfx.components.util import examples_utils
from tfx.dsl.components.base.base_beam_executor import BaseBeamExecutor
from tfx.dsl.components.base.executor_spec import BeamExecutorSpec
from tfx.proto import example_gen_pb2
from tfx.types import artifact_utils, standard_component_specs
from tfx_bsl.coders.example_coder import RecordBatchToExamplesEncoder

from components.data.raw_files import MovieLens, read_movielens
from components.interactions import SPLITS, TRAIN, Timeline, assign_splits
from components.splits import SplitConfig

MOVIES = "movies"

USER_COLUMNS = ("gender", "age", "occupation", "zip_code")

_SHARD_ROWS = 32_768
_BATCH_ROWS = 1024
_TEXTS = pa.large_list(pa.large_binary())

Columns = dict[str, pa.Array]
Shard = dict[str, np.ndarray]


class MovieLensExampleGen(FileBasedExampleGen):
    """Writes the splits train, eval, test and movies as gzipped TFRecords of tf.Examples."""

    EXECUTOR_SPEC: BeamExecutorSpec

    def __init__(self, input_base: str, split: SplitConfig, history_length: int, source: str = ""):
        """Makes the component.

        Args:
          input_base: folder of ratings.dat, users.dat, movies.dat and, optionally, credits.csv.
          split: how ratings are divided.
          history_length: most recent earlier train ratings that a row carries.
          source: fingerprint of the code, so that changed code runs again.
        """
        settings = struct_pb2.Struct()
        settings.update({"split": split.model_dump(mode="json"), "history_length": history_length, "source": source})
        custom_config = example_gen_pb2.CustomConfig()
        custom_config.custom_config.Pack(settings)
        super().__init__(
            input_base=input_base,
            # One input of all files: a change of any of them changes the fingerprint of the input.
            input_config=example_gen_pb2.Input(splits=[example_gen_pb2.Input.Split(name="files", pattern="*")]),
            output_config=example_gen_pb2.Output(
                split_config=example_gen_pb2.SplitConfig(
                    # TFX asks for buckets; the executor divides rows by itself.
                    splits=[example_gen_pb2.SplitConfig.Split(name=name, hash_buckets=1) for name in (*SPLITS, MOVIES)]
                )
            ),
            custom_config=custom_config,
            custom_executor_spec=BeamExecutorSpec(Executor),
        )


class Executor(BaseBeamExecutor):
    """Reads a folder and writes tf.Examples, a file for each split and shard."""

    def Do(  # noqa: N802
        self,
        input_dict: dict[str, list[types.Artifact]],
        output_dict: dict[str, list[types.Artifact]],
        exec_properties: dict[str, Any],
    ) -> None:
        """Writes the artifact `examples` from the files in `input_base`.

        Raises:
          DataError: a file is missing or holds something that it should not; nothing is written then.
        """
        self._log_startup(input_dict, output_dict, exec_properties)
        folder = Path(exec_properties[standard_component_specs.INPUT_BASE_KEY])
        settings = _settings(exec_properties[standard_component_specs.CUSTOM_CONFIG_KEY])
        # Here rather than in a worker, so that the error comes out as it is. Workers read again, which takes a second:
        # a collection made from what was read would travel inside the pipeline's definition.
        read_movielens(folder)
        examples = artifact_utils.get_single_instance(output_dict[standard_component_specs.EXAMPLES_KEY])
        examples.split_names = artifact_utils.encode_split_names([*SPLITS, MOVIES])
        examples_utils.set_payload_format(examples, exec_properties[standard_component_specs.OUTPUT_DATA_FORMAT_KEY])
        examples_utils.set_file_format(examples, "tfrecords_gzip")
        for split in (*SPLITS, MOVIES):
            tf.io.gfile.makedirs(artifact_utils.get_split_uri([examples], split))
        with self._make_beam_pipeline() as pipeline:
            folders = pipeline | "Folder" >> beam.Create([folder])
            folders | "WriteMovies" >> beam.Map(_write_movies, examples.uri)
            (
                folders
                | "ReadShards" >> beam.FlatMap(_read_shards, settings)
                | "Reshuffle" >> beam.Reshuffle()
                | "WriteShard" >> beam.Map(_write_shard, examples.uri)
            )


def _settings(custom_config: str) -> dict[str, Any]:
    message = example_gen_pb2.CustomConfig()
    json_format.Parse(custom_config, message)
    settings = struct_pb2.Struct()
    message.custom_config.Unpack(settings)
    return json.loads(json_format.MessageToJson(settings))


def make_shards(data: MovieLens, split: SplitConfig, history_length: int) -> Iterator[tuple[str, Shard]]:
    """Cuts ratings into shards of whole users.

    Yields:
      The name of a file, and arrays of about 32,768 ratings sorted by user and time: `codes` (of the split),
      `movie_rows` (of the movie table), the ratings' and users' columns, and the lists `history_*` and
      `seen_movie_ids` with their offsets.
    """
    ratings, users = data.ratings, data.users
    user_id, movie_id = ratings["user_id"].to_numpy(), ratings["movie_id"].to_numpy()
    timestamp = ratings["timestamp"].to_numpy()
    codes = assign_splits(user_id, movie_id, timestamp, split)
    timeline = Timeline.of(user_id, timestamp, codes)
    histories = timeline.histories(history_length)
    order = timeline.order
    user_rows = pd.Index(users["user_id"]).get_indexer(user_id[order])
    movie_rows = pd.Index(data.movies["movie_id"]).get_indexer(movie_id[order])
    stars = ratings["rating"].to_numpy(np.float32)
    cuts = list(_cuts(timeline.user_end))
    for index, (start, end) in enumerate(cuts):
        places = np.arange(start, end)
        rows = order[start:end]
        history = slice(histories.offsets[start], histories.offsets[end])
        held_out = codes[rows] != TRAIN
        seen = timeline.seen(places[held_out])
        seen_lengths = np.zeros(len(rows), np.int64)
        seen_lengths[held_out] = np.diff(seen.offsets)
        yield (
            _file_name(index, len(cuts)),
            {
                "codes": codes[rows],
                "movie_rows": movie_rows[start:end],
                "user_id": user_id[rows],
                "timestamp": timestamp[rows],
                "rating": stars[rows],
                **{name: users[name].to_numpy()[user_rows[start:end]] for name in USER_COLUMNS},
                "history_offsets": histories.offsets[start : end + 1] - histories.offsets[start],
                "history_movie_ids": movie_id[histories.values[history]].astype(np.int32),
                "history_ratings": stars[histories.values[history]],
                "seen_offsets": np.concatenate([[0], np.cumsum(seen_lengths)]),
                "seen_movie_ids": movie_id[seen.values].astype(np.int32),
            },
        )


def _cuts(user_end: np.ndarray) -> Iterator[tuple[int, int]]:
    start = 0
    while start < len(user_end):
        end = int(user_end[min(start + _SHARD_ROWS, len(user_end)) - 1])
        yield start, end
        start = end


class MovieTable:
    """The movies' columns, as lists of no, one or several values."""

    def __init__(self, data: MovieLens):
        """Takes movies, and directors and stars where known."""
        movies = data.movies
        self._columns: Columns = {
            "movie_id": _single(movies["movie_id"].to_numpy()),
            "title": _single(movies["title"].to_numpy()),
            "release_year": _single(movies["release_year"].to_numpy()),
            "genres": pa.array(movies["genres"].tolist(), pa.large_list(pa.large_string())).cast(_TEXTS),
        }
        if data.credits is not None:
            credits = data.credits.set_index("movie_id").reindex(movies["movie_id"])
            for name in ("director", "star"):
                values = [[value] if isinstance(value, str) else None for value in credits[name]]
                self._columns[name] = pa.array(values, pa.large_list(pa.large_string())).cast(_TEXTS)

    def columns(self, rows: np.ndarray) -> Columns:
        """The columns of some rows."""
        index = pa.array(rows)
        return {name: column.take(index) for name, column in self._columns.items()}


def _read_shards(folder: Path, settings: dict[str, Any]) -> Iterator[tuple[str, Shard, MovieTable]]:
    data = read_movielens(folder)
    movies = MovieTable(data)
    split = SplitConfig.model_validate(settings["split"])
    for name, shard in make_shards(data, split, int(settings["history_length"])):
        yield name, shard, movies


def _write_movies(folder: Path, uri: str) -> None:
    data = read_movielens(folder)
    table = MovieTable(data).columns(np.arange(len(data.movies)))
    _write(os.path.join(uri, f"Split-{MOVIES}", _file_name(0, 1)), table)


def _write_shard(element: tuple[str, Shard, MovieTable], uri: str) -> None:
    name, shard, movies = element
    columns = movies.columns(shard["movie_rows"])
    for column in ("user_id", *USER_COLUMNS, "timestamp", "rating"):
        columns[column] = _single(shard[column])
    for column, offsets in (
        ("history_movie_ids", "history_offsets"),
        ("history_ratings", "history_offsets"),
        ("seen_movie_ids", "seen_offsets"),
    ):
        values = pa.array(shard[column])
        values = values.cast(pa.int64()) if pa.types.is_integer(values.type) else values
        columns[column] = pa.LargeListArray.from_arrays(pa.array(shard[offsets]), values)
    for code, split in enumerate(SPLITS):
        rows = pa.array(np.flatnonzero(shard["codes"] == code))
        _write(os.path.join(uri, f"Split-{split}", name), {key: values.take(rows) for key, values in columns.items()})


def _write(path: str, columns: Columns) -> None:
    # Level 1 takes a third of the default level's time, for files a fifth larger.
    options = tf.io.TFRecordOptions(compression_type="GZIP", compression_level=1)
    with tf.io.TFRecordWriter(path, options) as writer:
        for example in encode(columns):
            writer.write(example)


def _file_name(index: int, count: int) -> str:
    return f"data_tfrecord-{index:05d}-of-{count:05d}.gz"


def _single(values: np.ndarray) -> pa.Array:
    """Lists of one value each."""
    array = pa.array(values)
    if values.dtype == object:
        array = array.cast(pa.large_binary())
    return pa.LargeListArray.from_arrays(pa.array(np.arange(len(values) + 1)), array)


def encode(columns: Columns) -> Iterator[bytes]:
    """Serializes rows as tf.Examples; an empty list becomes no feature at all.

    Args:
      columns: arrays of lists, by feature name.
    """
    encoder = RecordBatchToExamplesEncoder()
    # The encoder writes a feature without values for an empty list, and none for null.
    table = pa.RecordBatch.from_arrays([_null_if_empty(column) for column in columns.values()], list(columns))
    for start in range(0, table.num_rows, _BATCH_ROWS):
        yield from encoder.encode(table.slice(start, _BATCH_ROWS))


def _null_if_empty(column: pa.LargeListArray) -> pa.Array:
    lengths = pc.list_value_length(column)
    is_empty = pc.fill_null(pc.equal(lengths, 0), True)
    if not pc.any(is_empty).as_py():
        return column
    return pc.if_else(is_empty, pa.scalar(None, column.type), column)
