"""TFX ExampleGen for MovieLens: reads the raw files, joins them, splits the ratings and gives each its history.

The executor reads and checks all files first. A Beam worker then reads them again and cuts them into shards of users,
and Beam workers write one file per shard and split. Rows come out sorted by user and time, so trainers have to shuffle.
"""

import json
from collections.abc import Iterator
from typing import Any, ClassVar

import apache_beam as beam
import numpy as np
import pandas as pd
import tensorflow as tf
from tfx import types
from tfx.components.example_gen.component import FileBasedExampleGen
from tfx.components.util import examples_utils
from tfx.dsl.components.base.base_beam_executor import BaseBeamExecutor
from tfx.dsl.components.base.executor_spec import BeamExecutorSpec
from tfx.proto import example_gen_pb2
from tfx.types import artifact_utils, component_spec, standard_artifacts, standard_component_specs

from components.data.contents import content_hash
from components.data.places import place_of
from components.data.raw_files import RATINGS_FILE, DataError
from components.ingestion.content_driver import ContentDriver
from components.ingestion.example_rows import (
    WITH_SPANS,
    WITHOUT_SPANS,
    Columns,
    MovieTable,
    Part,
    Shard,
    encode,
    is_in,
    make_shards,
)
from components.ingestion.quarantine import QuarantinedRows, write_quarantine
from components.ingestion.row_keys import write_row_keys
from components.ingestion.settings import SETTINGS, pack_settings, unpack_settings
from components.ingestion.spans import SPAN_PATTERN, VERSION_PATTERN, Ratings, Source, find_window
from components.ingestion.splits import SPLITS, SplitConfig

MOVIES = "movies"
QUARANTINE = "quarantine"

# Matches the raw files (.dat, and credits.csv if present) but not other files in the folder, such as the README. TFX
# wants such a pattern; the project's driver finds the files by their names.
_FILE_PATTERN = "*.[cd][as][tv]"


class MovieLensExampleGenSpec(standard_component_specs.FileBasedExampleGenSpec):
    """The spec of TFX's file-based ExampleGen, with an output for the rows that were left out."""

    OUTPUTS: ClassVar[dict[str, component_spec.ChannelParameter]] = {
        **standard_component_specs.FileBasedExampleGenSpec.OUTPUTS,
        QUARANTINE: component_spec.ChannelParameter(type=QuarantinedRows),
    }


class MovieLensExampleGen(FileBasedExampleGen):
    """Writes train, eval, test and movies as gzipped TFRecords of tf.Examples; lists the rows left out."""

    SPEC_CLASS = MovieLensExampleGenSpec
    EXECUTOR_SPEC: BeamExecutorSpec
    DRIVER_CLASS = ContentDriver

    def __init__(
        self,
        input_base: str,
        split: SplitConfig,
        history_length: int,
        tolerance: float = 0.0,
        spans: int | None = None,
        versions: bool = False,
        skip_missing: bool = False,
        keep_spans: int | None = None,
    ):
        """Makes the component.

        Args:
          input_base: folder of ratings.dat, users.dat, movies.dat and, optionally, credits.csv.
          split: how ratings are divided.
          history_length: largest number of the user's earlier ratings that a row carries, of those that
            `histories.is_known` marks; the most recent are kept.
          tolerance: share of a file's rows that may be bad; these rows are left out.
          spans: if `input_base` holds folders span-1, span-2 and so on, the number of the newest that train and eval
            are made of; test is made of the newest alone. None if it holds the files.
          versions: whether each span holds folders version-1, version-2 and so on; the latest is read.
          skip_missing: whether spans may be missing among the newest.
          keep_spans: number of the newest spans that are read at all, at least `spans`; None if all are.
        """
        settings = {
            "split": split.model_dump(mode="json"),
            "history_length": history_length,
            "tolerance": tolerance,
            "spans": spans,
            "versions": versions,
            "skip_missing": skip_missing,
            "keep_spans": keep_spans,
        }
        folders = [*([SPAN_PATTERN] if spans is not None else []), *([VERSION_PATTERN] if versions else [])]
        pattern = "/".join([*folders, _FILE_PATTERN])
        # Made here, because the __init__ of FileBasedExampleGen would make a spec without the second output.
        spec = MovieLensExampleGenSpec(
            input_base=input_base,
            # One input split for all files, so that a change of any file changes the input's fingerprint.
            input_config=example_gen_pb2.Input(splits=[example_gen_pb2.Input.Split(name="files", pattern=pattern)]),
            output_config=example_gen_pb2.Output(
                split_config=example_gen_pb2.SplitConfig(
                    # TFX requires hash buckets, but the executor ignores them and splits rows itself.
                    splits=[
                        example_gen_pb2.SplitConfig.Split(name=name, hash_buckets=1)
                        for name in (*(part.name for part in _parts(spans)), MOVIES)
                    ]
                )
            ),
            output_data_format=example_gen_pb2.FORMAT_TF_EXAMPLE,
            output_file_format=example_gen_pb2.FORMAT_TFRECORDS_GZIP,
            custom_config=pack_settings(settings),
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
        """Writes the artifacts `examples` and `quarantine` from the files in `input_base`, or from its spans.

        The splits of `examples` are train, eval, test and movies; with spans also past, newest and previous, see
        `example_rows.Part`. Its custom properties: `rows_SPLIT` and `rows_quarantined` count rows; `data_sha256` is a
        hash of the names and contents of the files, of the newest span where there are several; `settings` holds the
        split's configuration, the length of histories and so on as JSON; `span` and `version` are the numbers of the
        newest span and of its version, 0 where there are none; `spans` lists the spans of the window, and
        `missing_spans` those that it lacks.

        Raises:
          DataError: a file or a span is missing, a file has more bad rows than tolerated, or a split would have no
            ratings; nothing is written then.
        """
        self._log_startup(input_dict, output_dict, exec_properties)
        settings = unpack_settings(exec_properties[standard_component_specs.CUSTOM_CONFIG_KEY])
        source = _find_source(exec_properties, settings)
        parts = _parts(json.loads(settings)["spans"])
        # Read here first, because Beam would wrap a DataError that a worker raises. A worker reads the files again,
        # which takes a second: passed to beam.Create, the data would become part of the pipeline's definition.
        ratings = source.read()
        rows = _count_rows(ratings, source, parts)
        examples = artifact_utils.get_single_instance(output_dict[standard_component_specs.EXAMPLES_KEY])
        examples.split_names = artifact_utils.encode_split_names(list(rows))
        examples_utils.set_payload_format(examples, exec_properties[standard_component_specs.OUTPUT_DATA_FORMAT_KEY])
        examples_utils.set_file_format(examples, "tfrecords_gzip")
        # TFX sets them as custom properties only, but StatisticsGen takes them from these properties.
        examples.span, examples.version = (examples.get_int_custom_property(name) for name in ("span", "version"))
        examples.set_string_custom_property("data_sha256", content_hash(source.window.folders[source.window.newest]))
        examples.set_string_custom_property(SETTINGS, settings)
        in_window = [number for number in source.window.folders if number >= source.window.first]
        for name, numbers in {"spans": in_window, "missing_spans": source.window.lacking}.items():
            examples.set_string_custom_property(name, ", ".join(map(str, numbers)))
        for name, count in {**rows, "quarantined": len(ratings.bad_rows)}.items():
            examples.set_int_custom_property(f"rows_{name}", count)
        for name in rows:
            tf.io.gfile.makedirs(artifact_utils.get_split_uri([examples], name))
        write_quarantine(artifact_utils.get_single_instance(output_dict[QUARANTINE]), ratings.bad_rows, source.base)
        movies = MovieTable(ratings.movies, ratings.credits)
        _write(f"{examples.uri}/Split-{MOVIES}/{_file_name(0, 1)}", movies.of(ratings.catalogue))
        write_row_keys(examples.uri, fitted_and_tested(ratings, source))
        with self._make_beam_pipeline() as pipeline:
            (
                pipeline
                | "Source" >> beam.Create([source])
                | "ReadShards" >> beam.FlatMap(_read_shards)
                | "Reshuffle" >> beam.Reshuffle()
                | "WriteShard" >> beam.Map(_write_shard, parts, json.loads(settings)["history_length"], examples.uri)
            )


def _parts(spans: int | None) -> tuple[Part, ...]:
    return WITHOUT_SPANS if spans is None else WITH_SPANS


def _find_source(exec_properties: dict[str, Any], settings: str) -> Source:
    base, values = place_of(exec_properties[standard_component_specs.INPUT_BASE_KEY]), json.loads(settings)
    return Source(
        base,
        find_window(base, values["spans"], values["versions"], values["skip_missing"], values["keep_spans"]),
        SplitConfig.model_validate_json(json.dumps(values["split"])),
        values["tolerance"],
    )


def _count_rows(ratings: Ratings, source: Source, parts: tuple[Part, ...]) -> dict[str, int]:
    split, span = ratings.table["split"].to_numpy(), ratings.table["span"].to_numpy()
    rows = {part.name: int(is_in(part, split, span, source.window).sum()) for part in parts}
    for name in SPLITS:
        if not rows[name]:
            of = "" if len(source.window.folders) == 1 else f" of span {source.window.newest}"
            problem = (
                f"should hold enough ratings for {', '.join(SPLITS)}; the strategy {source.split.strategy} leaves none "
                f"of {int((span == source.window.newest).sum())}{of} for {name}"
            )
            raise DataError(source.window.folders[source.window.newest] / RATINGS_FILE, None, problem)
    return {**rows, MOVIES: len(ratings.catalogue)}


def fitted_and_tested(ratings: Ratings, source: Source) -> pd.DataFrame:
    """The ratings that models are fitted to, and the test ratings, as rows of `Ratings.table`."""
    split, span = ratings.table["split"].to_numpy(), ratings.table["span"].to_numpy()
    return ratings.table[np.any([is_in(part, split, span, source.window) for part in WITHOUT_SPANS], axis=0)]


def _read_shards(source: Source) -> Iterator[tuple[str, Shard, MovieTable]]:
    ratings = source.read()
    movies = MovieTable(ratings.movies, ratings.credits)
    shards = make_shards(ratings.table, ratings.users, source.split.strategy, source.window)
    for index, shard in enumerate(shards):
        yield _file_name(index, len(shards)), shard, movies


def _write_shard(
    element: tuple[str, Shard, MovieTable], parts: tuple[Part, ...], history_length: int, uri: str
) -> None:
    file_name, shard, movies = element
    for part in parts:
        _write(f"{uri}/Split-{part.name}/{file_name}", shard.columns(part, movies, history_length))


def _file_name(index: int, count: int) -> str:
    return f"data_tfrecord-{index:05d}-of-{count:05d}.gz"


def _write(path: str, columns: Columns) -> None:
    # Level 1 takes a third of the default level's time; the files are a fifth larger.
    options = tf.io.TFRecordOptions(compression_type="GZIP", compression_level=1)
    with tf.io.TFRecordWriter(path, options) as writer:
        for example in encode(columns):
            writer.write(example)
