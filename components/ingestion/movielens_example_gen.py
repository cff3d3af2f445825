"""TFX ExampleGen for MovieLens: reads the raw files, joins them, splits the ratings and gives each its history.

The executor reads and checks all files first. A Beam worker then reads them again and cuts them into shards of users,
and Beam workers write one file per shard and split. Rows come out sorted by user and time, so trainers have to shuffle.
"""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

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
from tfx.types import artifact_utils, component_spec, standard_artifacts, standard_component_specs
from tfx.utils import proto_utils

from components.data.contents import content_hash
from components.data.raw_files import RATINGS_FILE, DataError, MovieLens
from components.ingestion.content_driver import ContentDriver
from components.ingestion.example_rows import Columns, MovieTable, Shard, encode, make_shards, with_splits
from components.ingestion.quarantine import QuarantinedRows, write_quarantine
from components.ingestion.row_keys import write_row_keys
from components.ingestion.spans import SPAN_PATTERN, VERSION_PATTERN, Source
from components.ingestion.splits import SPLITS, SplitConfig

MOVIES = "movies"
QUARANTINE = "quarantine"
SETTINGS = "settings"  # Custom property of the examples: all settings that the rows depend on, as JSON.

# Matches the raw files (.dat, and credits.csv if present) but not other files in the folder, such as the README. Only
# TFX's own driver, which Kubeflow Pipelines runs, looks for files with it.
_FILE_PATTERN = "*.[cd][as][tv]"


class MovieLensExampleGenSpec(standard_component_specs.FileBasedExampleGenSpec):
    """The spec of TFX's file-based ExampleGen, with an output for the rows that were left out."""

    OUTPUTS: ClassVar[dict[str, component_spec.ChannelParameter]] = {
        **standard_component_specs.FileBasedExampleGenSpec.OUTPUTS,
        QUARANTINE: component_spec.ChannelParameter(type=QuarantinedRows),
    }


class MovieLensExampleGen(FileBasedExampleGen):
    """Writes the splits train, eval, test and movies as gzipped TFRecords of tf.Examples; lists the rows left out."""

    SPEC_CLASS = MovieLensExampleGenSpec
    EXECUTOR_SPEC: BeamExecutorSpec
    DRIVER_CLASS = ContentDriver

    def __init__(
        self,
        input_base: str,
        split: SplitConfig,
        history_length: int,
        tolerance: float = 0.0,
        spans: bool = False,
        versions: bool = False,
    ):
        """Makes the component.

        Args:
          input_base: folder of ratings.dat, users.dat, movies.dat and, optionally, credits.csv.
          split: how ratings are divided.
          history_length: largest number of the user's earlier ratings that a row carries, of those that
            `histories.is_known` marks; the most recent are kept.
          tolerance: share of a file's rows that may be bad; these rows are left out.
          spans: whether `input_base` holds folders span-1, span-2 and so on. The latest is read and becomes an artifact
            beside those of earlier runs; histories draw on the train ratings of all spans up to it.
          versions: whether each span holds folders version-1, version-2 and so on; the latest is read.
        """
        settings = {"split": split.model_dump(mode="json"), "history_length": history_length, "tolerance": tolerance}
        packed = struct_pb2.Struct()
        # As text, because a Struct holds numbers in floating point, and a long seed would lose its last digits.
        packed.update({SETTINGS: json.dumps(settings)})
        custom_config = example_gen_pb2.CustomConfig()
        custom_config.custom_config.Pack(packed)
        folders = [*([SPAN_PATTERN] if spans else []), *([VERSION_PATTERN] if versions else [])]
        pattern = "/".join([*folders, _FILE_PATTERN])
        # Made here, because the __init__ of FileBasedExampleGen would make a spec without the second output.
        spec = MovieLensExampleGenSpec(
            input_base=input_base,
            # One input split for all files, so that a change of any file changes the input's fingerprint.
            input_config=example_gen_pb2.Input(splits=[example_gen_pb2.Input.Split(name="files", pattern=pattern)]),
            output_config=example_gen_pb2.Output(
                split_config=example_gen_pb2.SplitConfig(
                    # TFX requires hash buckets, but the executor ignores them and splits rows itself.
                    splits=[example_gen_pb2.SplitConfig.Split(name=name, hash_buckets=1) for name in (*SPLITS, MOVIES)]
                )
            ),
            output_data_format=example_gen_pb2.FORMAT_TF_EXAMPLE,
            output_file_format=example_gen_pb2.FORMAT_TFRECORDS_GZIP,
            custom_config=custom_config,
            examples=types.Channel(type=standard_artifacts.Examples),
            quarantine=types.Channel(type=QuarantinedRows),
        )
        super(FileBasedExampleGen, self).__init__(spec=spec, custom_executor_spec=BeamExecutorSpec(Executor))


class Executor(BaseBeamExecutor):
    """Reads a folder and writes tf.Examples, one file for each split and shard."""

    def Do(
        self,
        input_dict: dict[str, list[types.Artifact]],
        output_dict: dict[str, list[types.Artifact]],
        exec_properties: dict[str, Any],
    ) -> None:
        """Writes the artifacts `examples` and `quarantine` from the files in `input_base`, or in its latest span.

        Custom properties of `examples`: `rows_train`, `rows_eval`, `rows_test`, `rows_movies` and `rows_quarantined`
        count rows; `data_sha256` is a hash of the files' names and contents; `settings` holds the split's
        configuration, the length of histories and the tolerance as JSON; `span` and `version` are the numbers of the
        span and of its version, 0 where there are none.

        Raises:
          DataError: a file is missing or has more bad rows than tolerated, or a split would have no ratings; nothing is
            written then.
        """
        self._log_startup(input_dict, output_dict, exec_properties)
        settings = _unpack_settings(exec_properties[standard_component_specs.CUSTOM_CONFIG_KEY])
        source = _find_source(exec_properties, settings)
        # Read here first, because Beam would wrap a DataError that a worker raises. A worker reads the files again,
        # which takes a second: passed to beam.Create, the data would become part of the pipeline's definition.
        data = source.read()
        source.read_earlier()
        rows = _count_rows(data, source)
        examples = artifact_utils.get_single_instance(output_dict[standard_component_specs.EXAMPLES_KEY])
        examples.split_names = artifact_utils.encode_split_names(list(rows))
        examples_utils.set_payload_format(examples, exec_properties[standard_component_specs.OUTPUT_DATA_FORMAT_KEY])
        examples_utils.set_file_format(examples, "tfrecords_gzip")
        # TFX sets them as custom properties only, but StatisticsGen takes them from these properties.
        examples.span, examples.version = (examples.get_int_custom_property(name) for name in ("span", "version"))
        examples.set_string_custom_property("data_sha256", content_hash(source.folder))
        examples.set_string_custom_property(SETTINGS, settings)
        for name, count in {**rows, "quarantined": len(data.bad_rows)}.items():
            examples.set_int_custom_property(f"rows_{name}", count)
        for name in rows:
            tf.io.gfile.makedirs(artifact_utils.get_split_uri([examples], name))
        write_quarantine(artifact_utils.get_single_instance(output_dict[QUARANTINE]), data.bad_rows)
        _write(f"{examples.uri}/Split-{MOVIES}/{_file_name(0, 1)}", MovieTable(data).all())
        write_row_keys(examples.uri, with_splits(data.ratings, source.split))
        with self._make_beam_pipeline() as pipeline:
            (
                pipeline
                | "Source" >> beam.Create([source])
                | "ReadShards" >> beam.FlatMap(_read_shards)
                | "Reshuffle" >> beam.Reshuffle()
                | "WriteShard" >> beam.Map(_write_shard, json.loads(settings)["history_length"], examples.uri)
            )


def _unpack_settings(custom_config: str) -> str:
    message = example_gen_pb2.CustomConfig()
    json_format.Parse(custom_config, message)
    packed = struct_pb2.Struct()
    message.custom_config.Unpack(packed)
    return packed[SETTINGS]


def _find_source(exec_properties: dict[str, Any], settings: str) -> Source:
    """Returns what to read; the driver has put the numbers of the latest span and version into the pattern."""
    inputs = example_gen_pb2.Input()
    proto_utils.json_to_proto(exec_properties[standard_component_specs.INPUT_CONFIG_KEY], inputs)
    values = json.loads(settings)
    return Source.of(
        Path(exec_properties[standard_component_specs.INPUT_BASE_KEY]),
        os.path.dirname(inputs.splits[0].pattern),
        SplitConfig.model_validate_json(json.dumps(values["split"])),
        values["tolerance"],
    )


def _count_rows(data: MovieLens, source: Source) -> dict[str, int]:
    split = source.split
    counts = np.bincount(with_splits(data.ratings, split)["split"], minlength=len(SPLITS)).tolist()
    rows = dict(zip(SPLITS, counts, strict=True))
    for name, count in rows.items():
        if not count:
            problem = (
                f"should hold enough ratings for {', '.join(SPLITS)}; the strategy {split.strategy} "
                f"leaves none of {len(data.ratings)} for {name}"
            )
            raise DataError(source.folder / RATINGS_FILE, None, problem)
    return {**rows, MOVIES: len(data.movies)}


def _read_shards(source: Source) -> Iterator[tuple[str, Shard, MovieTable]]:
    data = source.read()
    movies = MovieTable(data)
    shards = make_shards(data, source.split, earlier=source.read_earlier())
    for index, shard in enumerate(shards):
        yield _file_name(index, len(shards)), shard, movies


def _write_shard(element: tuple[str, Shard, MovieTable], history_length: int, uri: str) -> None:
    file_name, shard, movies = element
    for split, columns in zip(SPLITS, shard.columns(movies, history_length), strict=True):
        _write(f"{uri}/Split-{split}/{file_name}", columns)


def _file_name(index: int, count: int) -> str:
    return f"data_tfrecord-{index:05d}-of-{count:05d}.gz"


def _write(path: str, columns: Columns) -> None:
    # Level 1 takes a third of the default level's time; the files are a fifth larger.
    options = tf.io.TFRecordOptions(compression_type="GZIP", compression_level=1)
    with tf.io.TFRecordWriter(path, options) as writer:
        for example in encode(columns):
            writer.write(example)
