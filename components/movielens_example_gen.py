"""TFX ExampleGen for MovieLens: reads the raw files, joins them, splits the ratings and gives each its history.

The files are read once, checked whole, and cut into shards of users; Beam workers write a file per shard and split.
Rows come out in the order of users and time, so trainers have to shuffle.
"""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import apache_beam as beam
import numpy as np
import tensorflow as tf
from google.protobuf import json_format, struct_pb2
from tfx import types
from tfx.components.example_gen.component import FileBasedExampleGen
from tfx.components.util import examples_utils
from tfx.dsl.components.base.base_beam_executor import BaseBeamExecutor
from tfx.dsl.components.base.executor_spec import BeamExecutorSpec
from tfx.proto import example_gen_pb2
from tfx.types import artifact_utils, standard_component_specs

from components.data.raw_files import (
    CREDITS_FILE,
    MOVIES_FILE,
    RATINGS_FILE,
    USERS_FILE,
    DataError,
    MovieLens,
    read_movielens,
)
from components.example_rows import Columns, MovieTable, Shard, encode, make_shards, split_codes
from components.interactions import SPLITS
from components.splits import SplitConfig

MOVIES = "movies"

# The raw files, whether there is a credits.csv or not, but nothing else that lies beside them.
_FILE_PATTERN = "*.[cd][as][tv]"


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
        # As text, because numbers of a Struct are floating-point: a long seed would lose its last digits.
        settings.update({"split": split.model_dump_json(), "history_length": history_length, "source": source})
        custom_config = example_gen_pb2.CustomConfig()
        custom_config.custom_config.Pack(settings)
        super().__init__(
            input_base=input_base,
            # One input of all files: a change of any of them changes the fingerprint of the input.
            input_config=example_gen_pb2.Input(
                splits=[example_gen_pb2.Input.Split(name="files", pattern=_FILE_PATTERN)]
            ),
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

    def Do(
        self,
        input_dict: dict[str, list[types.Artifact]],
        output_dict: dict[str, list[types.Artifact]],
        exec_properties: dict[str, Any],
    ) -> None:
        """Writes the artifact `examples` from the files in `input_base`.

        Its custom properties `rows_train`, `rows_eval`, `rows_test` and `rows_movies` count rows; `data_sha256` is a
        hash of the files' contents.

        Raises:
          DataError: a file is missing or holds something that it should not, or a split is left without ratings;
            nothing is written then.
        """
        self._log_startup(input_dict, output_dict, exec_properties)
        folder = Path(exec_properties[standard_component_specs.INPUT_BASE_KEY])
        split, history_length = _settings(exec_properties[standard_component_specs.CUSTOM_CONFIG_KEY])
        # Here rather than in a worker, so that the error comes out as it is. A worker reads again, which takes a
        # second: a collection made from what was read would travel inside the pipeline's definition.
        data = read_movielens(folder)
        rows = _count_rows(data, split, folder)
        examples = artifact_utils.get_single_instance(output_dict[standard_component_specs.EXAMPLES_KEY])
        examples.split_names = artifact_utils.encode_split_names(list(rows))
        examples_utils.set_payload_format(examples, exec_properties[standard_component_specs.OUTPUT_DATA_FORMAT_KEY])
        examples_utils.set_file_format(examples, "tfrecords_gzip")
        examples.set_string_custom_property("data_sha256", _hash_files(folder))
        for name, count in rows.items():
            examples.set_int_custom_property(f"rows_{name}", count)
            tf.io.gfile.makedirs(artifact_utils.get_split_uri([examples], name))
        _write(f"{examples.uri}/Split-{MOVIES}/{_file_name(0, 1)}", MovieTable(data).all())
        with self._make_beam_pipeline() as pipeline:
            (
                pipeline
                | "Folder" >> beam.Create([folder])
                | "ReadShards" >> beam.FlatMap(_read_shards, split)
                | "Reshuffle" >> beam.Reshuffle()
                | "WriteShard" >> beam.Map(_write_shard, history_length, examples.uri)
            )


def _settings(custom_config: str) -> tuple[SplitConfig, int]:
    message = example_gen_pb2.CustomConfig()
    json_format.Parse(custom_config, message)
    settings = struct_pb2.Struct()
    message.custom_config.Unpack(settings)
    return SplitConfig.model_validate_json(settings["split"]), int(settings["history_length"])


def _count_rows(data: MovieLens, split: SplitConfig, folder: Path) -> dict[str, int]:
    counts = np.bincount(split_codes(data, split), minlength=len(SPLITS)).tolist()
    rows = dict(zip(SPLITS, counts, strict=True))
    for name, count in rows.items():
        if not count:
            problem = (
                f"should hold enough ratings for {', '.join(SPLITS)}; the strategy {split.strategy} "
                f"leaves none of {len(data.ratings)} for {name}"
            )
            raise DataError(folder / RATINGS_FILE, None, problem)
    return {**rows, MOVIES: len(data.movies)}


def _hash_files(folder: Path) -> str:
    digest = hashlib.sha256()
    for path in (folder / name for name in (RATINGS_FILE, USERS_FILE, MOVIES_FILE, CREDITS_FILE)):
        content = path.read_bytes() if path.is_file() else b""
        digest.update(hashlib.sha256(content).digest())
    return digest.hexdigest()


def _read_shards(folder: Path, split: SplitConfig) -> Iterator[tuple[str, Shard, MovieTable]]:
    data = read_movielens(folder)
    movies = MovieTable(data)
    shards = make_shards(data, split)
    for index, shard in enumerate(shards):
        yield _file_name(index, len(shards)), shard, movies


def _write_shard(element: tuple[str, Shard, MovieTable], history_length: int, uri: str) -> None:
    file_name, shard, movies = element
    for split, columns in zip(SPLITS, shard.columns(movies, history_length), strict=True):
        _write(f"{uri}/Split-{split}/{file_name}", columns)


def _file_name(index: int, count: int) -> str:
    return f"data_tfrecord-{index:05d}-of-{count:05d}.gz"


def _write(path: str, columns: Columns) -> None:
    # Level 1 takes a third of the default level's time, for files a fifth larger.
    options = tf.io.TFRecordOptions(compression_type="GZIP", compression_level=1)
    with tf.io.TFRecordWriter(path, options) as writer:
        for example in encode(columns):
            writer.write(example)
