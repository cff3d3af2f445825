"""The data components written the straightforward way, as in TFX's guides; compared with the pipeline's own.

A custom ExampleGen on Beam reads the files line by line and groups the ratings by user; a Python loop builds a history
and a `tf.train.Example` for each rating. The stock StatisticsGen and Transform follow with their defaults; they get a
schema of the features in the data, and the pipeline's `preprocessing_fn`. Rows, features and splits are those of
`MovieLensExampleGen` for a random split.

The guide: https://www.tensorflow.org/tfx/guide/examplegen#custom_examplegen
"""

import csv
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import apache_beam as beam
import numpy as np
import tensorflow as tf
from google.protobuf import text_format
from tfx import v1 as tfx
from tfx.components.example_gen.base_example_gen_executor import BaseExampleGenExecutor
from tfx.components.example_gen.component import FileBasedExampleGen
from tfx.dsl.components.base.base_node import BaseNode
from tfx.dsl.components.base.executor_spec import BeamExecutorSpec
from tfx.proto import example_gen_pb2

from components.data.layout import SEPARATOR
from components.data.raw_files import CREDITS_FILE, MOVIES_FILE, RATINGS_FILE, USERS_FILE
from components.ingestion.movielens_example_gen import MOVIES
from components.ingestion.splits import SPLITS, TRAIN, assign_splits
from pipeline.beam_config import BeamConfig
from pipeline.config import DataConfig
from pipeline.local.store import metadata_config
from transform.schema import curated_schema

Features = dict[str, Any]

_CONFIG = DataConfig()


class Rating(NamedTuple):
    """A row of ratings.dat without its user_id."""

    movie_id: int
    rating: float
    timestamp: int


class Executor(BaseExampleGenExecutor):
    """Reads the raw files with Beam; the base class shuffles and writes the examples."""

    def GetInputSourceToExamplePTransform(self) -> beam.PTransform:
        """The transform that reads ratings as pairs (position of the split in SPLITS, `tf.train.Example`)."""
        return _ratings_to_examples

    def GenerateExamplesByBeam(
        self, pipeline: beam.Pipeline, exec_properties: Features
    ) -> dict[str, beam.pvalue.PCollection]:
        """The three splits of the ratings, and the movies.

        The base class would split examples by a hash, but a rating's split must be known before its history is built:
        histories hold only train ratings.
        """
        folder = exec_properties["input_base"]
        movies = _read_movies(pipeline, folder)
        to_examples = self.GetInputSourceToExamplePTransform()
        rated = (
            pipeline
            | "RatingsToExamples" >> to_examples(folder, movies)
            | "Split" >> beam.Partition(lambda tagged, _: tagged[0], len(SPLITS))
        )
        splits = {name: part | f"Untag[{name}]" >> beam.Values() for name, part in zip(SPLITS, rated, strict=True)}
        return splits | {MOVIES: movies | "MovieExamples" >> beam.Values() | beam.Map(make_example)}


@beam.ptransform_fn
def _ratings_to_examples(
    pipeline: beam.Pipeline, folder: str, movies: beam.pvalue.PCollection
) -> beam.pvalue.PCollection:
    users = pipeline | "ReadUsers" >> _read(folder, USERS_FILE) | "ParseUsers" >> beam.Map(parse_user)
    return (
        pipeline
        | "ReadRatings" >> _read(folder, RATINGS_FILE)
        | "ParseRatings" >> beam.Map(parse_rating)
        | "ByUser" >> beam.GroupByKey()
        | "ToExamples" >> beam.FlatMap(examples_of_user, beam.pvalue.AsDict(users), beam.pvalue.AsDict(movies))
    )


def _read_movies(pipeline: beam.Pipeline, folder: str) -> beam.pvalue.PCollection:
    if Path(folder, CREDITS_FILE).exists():
        lines = pipeline | "ReadCredits" >> beam.io.ReadFromText(f"{folder}/{CREDITS_FILE}", skip_header_lines=1)
    else:
        lines = pipeline | "NoCredits" >> beam.Create([], reshuffle=False)
    movie_credits = lines | "ParseCredits" >> beam.Map(parse_credits)
    return (
        pipeline
        | "ReadMovies" >> _read(folder, MOVIES_FILE)
        | "ParseMovies" >> beam.Map(parse_movie, beam.pvalue.AsDict(movie_credits))
    )


def _read(folder: str, name: str) -> beam.PTransform:
    return beam.io.ReadFromText(f"{folder}/{name}", coder=beam.coders.BytesCoder())


def _fields(line: bytes) -> list[str]:
    return line.decode("latin-1").split(SEPARATOR)


def parse_user(line: bytes) -> tuple[int, Features]:
    """Returns (user_id, features of the user)."""
    user_id, gender, age, occupation, zip_code = _fields(line)
    features = {"gender": gender, "age": int(age), "occupation": int(occupation), "zip_code": zip_code}
    return int(user_id), {"user_id": int(user_id), **features}


def parse_credits(line: str) -> tuple[int, Features]:
    """Returns (movie_id, director and star of the movie, as far as they are known)."""
    ((movie_id, director, star),) = csv.reader([line])
    return int(movie_id), {name: text for name, text in (("director", director), ("star", star)) if text}


def parse_movie(line: bytes, movie_credits: dict[int, Features]) -> tuple[int, Features]:
    """Returns (movie_id, features of the movie); the features include its entry in `movie_credits`."""
    movie_id, title, genres = _fields(line)
    features = {"title": title, "release_year": int(title[-5:-1]), "genres": genres.split("|")}
    return int(movie_id), {"movie_id": int(movie_id), **features, **movie_credits.get(int(movie_id), {})}


def parse_rating(line: bytes) -> tuple[int, Rating]:
    """Returns (user_id, rating)."""
    user_id, movie_id, rating, timestamp = _fields(line)
    return int(user_id), Rating(int(movie_id), float(rating), int(timestamp))


def examples_of_user(
    element: tuple[int, Iterable[Rating]], users: dict[int, Features], movies: dict[int, Features]
) -> Iterator[tuple[int, tf.train.Example]]:
    """Yields (position of the split, example) for each rating of a user.

    Histories and seen movies are taken from the user's train ratings.

    Args:
      element: user_id and ratings of the user.
      users: features by user_id.
      movies: features by movie_id.
    """
    user_id, ratings = element[0], sorted(element[1], key=lambda rating: rating.timestamp)
    movie_ids, times = (np.array(column) for column in ([r.movie_id for r in ratings], [r.timestamp for r in ratings]))
    splits = assign_splits(np.full(len(ratings), user_id), movie_ids, times, _CONFIG.split).tolist()
    train = [rating for rating, split in zip(ratings, splits, strict=True) if split == TRAIN]
    train_before = 0
    for rating, split in zip(ratings, splits, strict=True):
        history = train[max(0, train_before - _CONFIG.history_length) : train_before]
        features = {
            **users[user_id],
            **movies[rating.movie_id],
            "rating": rating.rating,
            "timestamp": rating.timestamp,
            "history_movie_ids": [past.movie_id for past in history],
            "history_ratings": [past.rating for past in history],
            "history_timestamps": [past.timestamp for past in history],
            "place": train_before,
        }
        if split == TRAIN:
            train_before += 1
        else:
            features["seen_movie_ids"] = [past.movie_id for past in train]
        yield split, make_example(features)


def make_example(features: Features) -> tf.train.Example:
    """Returns the features as a `tf.train.Example`, without those that are empty lists."""
    example = tf.train.Example()
    for name, value in features.items():
        values = value if isinstance(value, list) else [value]
        if not values:
            continue
        feature = example.features.feature[name]
        if isinstance(values[0], str):
            feature.bytes_list.value.extend(text.encode() for text in values)
        elif isinstance(values[0], int):
            feature.int64_list.value.extend(values)
        else:
            feature.float_list.value.extend(values)
    return example


def example_gen(data: Path) -> BaseNode:
    """Returns the custom ExampleGen for a folder of raw files."""
    splits = [example_gen_pb2.SplitConfig.Split(name=name, hash_buckets=1) for name in (*SPLITS, MOVIES)]
    return FileBasedExampleGen(
        input_base=str(data),
        input_config=example_gen_pb2.Input(splits=[example_gen_pb2.Input.Split(name="files", pattern="*")]),
        output_config=example_gen_pb2.Output(split_config=example_gen_pb2.SplitConfig(splits=splits)),
        custom_executor_spec=BeamExecutorSpec(Executor),
    ).with_id("ExampleGen")


def _write_schema(data: Path, root: Path) -> str:
    schema = curated_schema()
    if not Path(data, CREDITS_FILE).exists():
        kept = [feature for feature in schema.feature if feature.name not in ("director", "star")]
        del schema.feature[:]
        schema.feature.extend(kept)
    path = root / "schema.pbtxt"
    path.write_text(text_format.MessageToString(schema))
    return str(path)


def straightforward_pipeline(data: Path, root: Path) -> tfx.dsl.Pipeline:
    """Returns the pipeline from the raw files to the transformed examples.

    Args:
      data: folder of the raw files.
      root: folder for artifacts and metadata.
    """
    examples = example_gen(data)
    statistics = tfx.components.StatisticsGen(examples=examples.outputs["examples"])
    # Not SchemaGen: it would mark features that the movies split lacks as deprecated, and they would not be read.
    schema = tfx.components.ImportSchemaGen(schema_file=_write_schema(data, root))
    transform = tfx.components.Transform(
        examples=examples.outputs["examples"],
        schema=schema.outputs["schema"],
        preprocessing_fn="transform.preprocessing.preprocessing_fn",
        custom_config={"history_length": _CONFIG.history_length},
    )
    return tfx.dsl.Pipeline(
        pipeline_name="straightforward",
        pipeline_root=str(root),
        components=[examples, statistics, schema, transform],
        enable_cache=False,
        metadata_connection_config=metadata_config(root / "metadata.sqlite"),
        beam_pipeline_args=BeamConfig().args(),
    )
