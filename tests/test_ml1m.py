"""ExampleGen and Transform on real MovieLens 1M, every row held against the raw files.

Every test run takes a quarter of the people and all movies; the whole data set is nightly, for it takes minutes.
"""

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import tensorflow_transform as tft
from tfx import v1 as tfx
from tfx.orchestration.metadata import Metadata, sqlite_metadata_connection_config

from components.ingestion.movielens_example_gen import MovieLensExampleGen
from components.ingestion.splits import SplitConfig
from pipeline.beam_config import BeamConfig
from tests.components.ingestion.examples_oracle import SPLITS, assert_examples, read_split

pytestmark = [pytest.mark.ml1m, pytest.mark.timeout(900), pytest.mark.xdist_group("ml1m")]

HISTORY_LENGTH = 50
SCHEMA = Path(__file__).parents[1] / "transform" / "schema.pbtxt"


@dataclass(frozen=True)
class Artifacts:
    """Where the outputs of one run are."""

    examples: str
    transformed: str
    graph: str


@pytest.fixture(
    scope="module", params=[pytest.param(4, id="a-quarter"), pytest.param(1, id="everybody", marks=pytest.mark.nightly)]
)
def raw(request: pytest.FixtureRequest, ml1m_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The raw files, of one in so many people."""
    if request.param == 1:
        return ml1m_dir
    folder = tmp_path_factory.mktemp("raw")
    for file in ml1m_dir.iterdir():
        content = file.read_bytes()
        if file.name in ("users.dat", "ratings.dat"):
            lines = content.splitlines(keepends=True)
            content = b"".join(line for line in lines if int(line.partition(b"::")[0]) % request.param == 0)
        (folder / file.name).write_bytes(content)
    return folder


@pytest.fixture(scope="module")
def counts(raw: Path) -> dict[str, int]:
    """The number of rows of each raw file."""
    return {name: len((raw / f"{name}.dat").read_bytes().splitlines()) for name in ("users", "movies", "ratings")}


@pytest.fixture(scope="module")
def artifacts(raw: Path, tmp_path_factory: pytest.TempPathFactory) -> Artifacts:
    root = tmp_path_factory.mktemp("ml1m")
    example_gen = MovieLensExampleGen(str(raw), SplitConfig(), HISTORY_LENGTH)
    schema = tfx.components.ImportSchemaGen(schema_file=str(SCHEMA))
    transform = tfx.components.Transform(
        examples=example_gen.outputs["examples"],
        schema=schema.outputs["schema"],
        preprocessing_fn="transform.preprocessing.preprocessing_fn",
        splits_config=tfx.proto.SplitsConfig(analyze=["train", "movies"], transform=["train", "eval", "movies"]),
        custom_config={"history_length": HISTORY_LENGTH},
        # As in `pipeline.graph`.
        disable_statistics=True,
        disable_analyzer_cache=True,
        force_tf_compat_v1=True,
    )
    connection = sqlite_metadata_connection_config(str(root / "metadata.db"))
    pipeline = tfx.dsl.Pipeline(
        pipeline_name="ml1m",
        pipeline_root=str(root),
        components=[example_gen, schema, transform],
        metadata_connection_config=connection,
        beam_pipeline_args=BeamConfig().args(),
    )
    tfx.orchestration.LocalDagRunner().run(pipeline)
    with Metadata(connection) as metadata:
        examples, transformed = sorted(metadata.store.get_artifacts_by_type("Examples"), key=lambda each: each.id)
        (graph,) = metadata.store.get_artifacts_by_type("TransformGraph")
    return Artifacts(examples.uri, transformed.uri, graph.uri)


@pytest.fixture(scope="module")
def tables(artifacts: Artifacts) -> dict[str, pa.Table]:
    return {split: read_split(artifacts.examples, split) for split in SPLITS}


@pytest.fixture(scope="module")
def ratings(tables: dict[str, pa.Table], raw: Path) -> pd.DataFrame:
    """The ratings of the file with their split, once every written row was found to be as it should."""
    return assert_examples(tables, raw, HISTORY_LENGTH)


def test_every_rating_is_in_one_split(ratings, counts):
    assert len(ratings) == counts["ratings"]
    assert ratings["user_id"].nunique() == counts["users"]
    shares = ratings["split"].value_counts(normalize=True)
    for split, share in (("train", 0.73), ("eval", 0.02), ("test", 0.25)):
        deviation = math.sqrt(share * (1 - share) / len(ratings))
        assert shares[split] == pytest.approx(share, abs=4 * deviation), split


def test_movies_are_the_whole_catalogue(tables):
    movies = tables["movies"]
    assert movies.num_rows == 3_883
    assert len(set(_numbers(movies, "movie_id"))) == 3_883


def test_histories_hold_nothing_from_the_future_or_from_held_out_rows(tables, ratings):
    of_pair = ratings.set_index(["user_id", "movie_id"])
    for split in ("train", "eval", "test"):
        table = tables[split]
        users, times = (_numbers(table, name) for name in ("user_id", "timestamp"))
        history = table["history_movie_ids"].combine_chunks()
        lengths = np.diff(history.offsets.to_numpy())
        assert lengths.max() == HISTORY_LENGTH
        pairs = pd.MultiIndex.from_arrays([np.repeat(users, lengths), history.flatten().to_numpy()])
        found = of_pair.iloc[of_pair.index.get_indexer(pairs)]
        assert (found["split"] == "train").all()
        assert (found["timestamp"].to_numpy() <= np.repeat(times, lengths)).all()


def test_transform_keeps_every_row_and_history(artifacts, tables, ratings, counts):
    graph = tft.TFTransformOutput(artifacts.graph)
    movies = np.array([0, *map(int, graph.vocabulary_by_name("movie_id_vocabulary"))])
    users = np.array([0, *map(int, graph.vocabulary_by_name("user_id_vocabulary"))])
    # Of the movies that nobody rated, too.
    assert len(movies) == 3_883 + 1
    assert len(users) == counts["users"] + 1
    for split in ("train", "eval"):
        raw, transformed = tables[split], read_split(artifacts.transformed, split)
        assert transformed.num_rows == raw.num_rows == (ratings["split"] == split).sum()
        raw_order, order = (
            np.lexsort(keys)
            for keys in (
                (_numbers(raw, "movie_id"), _numbers(raw, "user_id")),
                (movies[_numbers(transformed, "movie_id_xf")], users[_numbers(transformed, "user_id_xf")]),
            )
        )
        for name in ("history_movie_ids", "history_ratings"):
            dense = _numbers(transformed, f"{name}_xf").reshape(-1, HISTORY_LENGTH)[order]
            lists = raw[name].combine_chunks().take(raw_order)
            lengths = np.nan_to_num(lists.value_lengths().to_numpy(zero_copy_only=False)).astype(int)
            is_filled = np.arange(HISTORY_LENGTH) < lengths[:, None]
            np.testing.assert_array_equal(dense != 0, is_filled)
            # Newest first, where the raw list is oldest first.
            values = dense[:, ::-1][is_filled[:, ::-1]]
            values = movies[values] if name == "history_movie_ids" else values
            np.testing.assert_array_equal(values, lists.flatten().to_numpy())
    assert read_split(artifacts.transformed, "movies").num_rows == 3_883


def _numbers(table: pa.Table, name: str) -> np.ndarray:
    return table[name].combine_chunks().flatten().to_numpy()
