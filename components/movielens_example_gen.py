"""TFX ExampleGen for MovieLens: reads the raw files, joins them, splits the ratings and gives each its history.

The files are read once, checked whole, and cut into shards of users; Beam turns each shard into tf.Examples, by columns.
Rows come out in the order of users, so trainers have to shuffle.
"""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import apache_beam as beam
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from google.protobuf import json_format, struct_pb2
from tfx.components.example_gen.base_example_gen_executor import BaseExampleGenExecutor
from tfx.components.example_gen.component import FileBasedExampleGen
from tfx.dsl.components.base.executor_spec import BeamExecutorSpec
from tfx.proto import example_gen_pb2
from tfx_bsl.coders.example_coder import RecordBatchToExamplesEncoder

from components.data.raw_files import MovieLens, read_movielens
from components.interactions import SPLITS, TRAIN, Timeline, assign_splits
from components.splits import SplitConfig

MOVIES = "movies"

USER_COLUMNS = ("gender", "age", "occupation", "zip_code")

_SHARD_ROWS = 32_768
_BATCH_ROWS = 1024

Columns = dict[str, pa.Array]


class MovieLensExampleGen(FileBasedExampleGen):
    """Writes the splits train, eval, test and movies as gzipped TFRecords of tf.Examples."""

    EXECUTOR_SPEC: BeamExecutorSpec

    def __init__(
        self, input_base: str, split: SplitConfig, history_length: int, has_credits: bool = False, source: str = ""
    ):
        """Makes the component.

        Args:
          input_base: folder of ratings.dat, users.dat, movies.dat and, if `has_credits`, credits.csv.
          split: how ratings are divided.
          history_length: most recent earlier train ratings that a row carries.
          has_credits: whether there is a credits.csv; it is part of the fingerprint of the input then.
          source: fingerprint of the code, so that changed code runs again.
        """
        files = ["ratings.dat", "users.dat", "movies.dat", *(["credits.csv"] if has_credits else [])]
        settings = struct_pb2.Struct()
        settings.update(
            {"split": split.model_dump(mode="json"), "history_length": history_length, "source": source}
        )
        custom_config = example_gen_pb2.CustomConfig()
        custom_config.custom_config.Pack(settings)
        super().__init__(
            input_base=input_base,
            input_config=example_gen_pb2.Input(
                splits=[example_gen_pb2.Input.Split(name=Path(file).stem, pattern=file) for file in files]
            ),
            output_config=example_gen_pb2.Output(
                split_config=example_gen_pb2.SplitConfig(
                    # TFX asks for buckets; the executor below divides rows by itself.
                    splits=[
                        example_gen_pb2.SplitConfig.Split(name=name, hash_buckets=1) for name in (*SPLITS, MOVIES)
                    ]
                )
            ),
            custom_config=custom_config,
            custom_executor_spec=BeamExecutorSpec(Executor),
        )


class Executor(BaseExampleGenExecutor):
    """Reads a folder and yields serialized tf.Examples by split."""

    def GetInputSourceToExamplePTransform(self) -> beam.PTransform:  # noqa: N802
        """Not used: the input files are not converted one by one, but joined."""
        raise NotImplementedError("MovieLens files are joined; see GenerateExamplesByBeam.")

    def GenerateExamplesByBeam(  # noqa: N802
        self, pipeline: beam.Pipeline, exec_properties: dict[str, Any]
    ) -> dict[str, beam.PCollection]:
        """Reads the folder `input_base`; gives a collection of serialized tf.Examples for each split.

        Raises:
          DataError: a file is missing or holds something that it should not.
        """
        settings = _settings(exec_properties["custom_config"])
        data = read_movielens(Path(exec_properties["input_base"]))
        split = SplitConfig.model_validate(settings["split"])
        shards = list(make_shards(data, split, int(settings["history_length"])))
        movies = MovieTable(data)
        rows = (
            pipeline
            | "Shards" >> beam.Create(shards, reshuffle=True)
            | "Encode" >> beam.ParDo(_EncodeShard(movies)).with_outputs(*SPLITS)
        )
        result = {name: rows[name] for name in SPLITS}
        result[MOVIES] = pipeline | "Movies" >> beam.Create(encode(movies.columns(np.arange(len(data.movies)))))
        return result


def _settings(custom_config: str) -> dict[str, Any]:
    message = example_gen_pb2.CustomConfig()
    json_format.Parse(custom_config, message)
    settings = struct_pb2.Struct()
    message.custom_config.Unpack(settings)
    return json.loads(json_format.MessageToJson(settings))


def make_shards(data: MovieLens, split: SplitConfig, history_length: int) -> Iterator[dict[str, np.ndarray]]:
    """Cuts ratings into shards of whole users.

    Yields:
      Arrays of about 32,768 ratings, sorted by user and time: `codes` (of the split), `movie_rows` (of the movie
      table), the ratings' and users' columns, and the lists `history_*` and `seen_movie_ids` with their offsets.
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
    for start, end in _cuts(timeline.user_end):
        places = np.arange(start, end)
        rows = order[start:end]
        history = slice(histories.offsets[start], histories.offsets[end])
        held_out = codes[rows] != TRAIN
        seen = timeline.seen(places[held_out])
        seen_lengths = np.zeros(len(rows), np.int64)
        seen_lengths[held_out] = np.diff(seen.offsets)
        yield {
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
        }


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
            "genres": pa.array(movies["genres"].tolist(), pa.large_list(pa.large_string())),
        }
        if data.credits is not None:
            credits = data.credits.set_index("movie_id").reindex(movies["movie_id"])
            for name in ("director", "star"):
                values = [[value] if isinstance(value, str) else None for value in credits[name]]
                self._columns[name] = pa.array(values, pa.large_list(pa.large_string()))

    def columns(self, rows: np.ndarray) -> Columns:
        """The columns of some rows."""
        index = pa.array(rows)
        return {name: column.take(index) for name, column in self._columns.items()}


class _EncodeShard(beam.DoFn):
    def __init__(self, movies: MovieTable):
        self._movies = movies

    def process(self, element: dict[str, Any]) -> Iterable[beam.pvalue.TaggedOutput]:
        columns = self._movies.columns(element["movie_rows"])
        for name in ("user_id", *USER_COLUMNS, "timestamp", "rating"):
            columns[name] = _single(element[name])
        for name, offsets in (
            ("history_movie_ids", "history_offsets"),
            ("history_ratings", "history_offsets"),
            ("seen_movie_ids", "seen_offsets"),
        ):
            values = pa.array(element[name])
            values = values.cast(pa.int64()) if pa.types.is_integer(values.type) else values
            columns[name] = pa.LargeListArray.from_arrays(pa.array(element[offsets]), values)
        for code, split in enumerate(SPLITS):
            rows = pa.array(np.flatnonzero(element["codes"] == code))
            for example in encode({name: column.take(rows) for name, column in columns.items()}):
                yield beam.pvalue.TaggedOutput(split, example)


def _single(values: np.ndarray) -> pa.Array:
    """Lists of one value each."""
    array = pa.array(values, pa.large_string()) if values.dtype == object else pa.array(values)
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
