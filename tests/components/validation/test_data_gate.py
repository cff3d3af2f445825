"""The data gate, after the stock validators, passes good rows and reports every bad value or drift put into them."""

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import tensorflow_data_validation as tfdv
from tensorflow_metadata.proto.v0 import schema_pb2
from tfx import v1 as tfx
from tfx.orchestration.metadata import Metadata, sqlite_metadata_connection_config
from tfx.types import artifact_utils

from components.data.sample import generate_sample
from components.ingestion.movielens_example_gen import MovieLensExampleGen
from components.ingestion.splits import SplitConfig, Strategy
from components.validation.data_gate import FEWEST_COMPARED_ROWS, Anomaly, AnomalyError, DataGate
from components.validation.distributions import comparison, train_eval_validator
from pipeline.beam_config import BeamConfig
from tests.components.validation.gate_runs import SCHEMA, SCHEMA_FILE, Columns, Gate
from transform.features import AGE_CODES, GENRES

MOVIE_FEATURES = ("movie_id", "title", "release_year", "genres", "director", "star")
ROWS = {"train": 4000, "eval": 1000, "movies": 200}


def lists(values: Any) -> pa.Array:
    """A column with one value per row; None for a row without a value."""
    return pa.array([None if value is None else [value] for value in values])


def good_rows(split: str) -> Columns:
    """Valid rows of a split; all splits are drawn from the same distributions."""
    count = ROWS[split]
    rng = np.random.default_rng(list(ROWS).index(split))
    columns = {
        "user_id": lists(rng.integers(1, 100, count)),
        "gender": lists(rng.choice(["F", "M"], count)),
        "age": lists(rng.choice(AGE_CODES, count)),
        "occupation": lists(rng.integers(0, 21, count)),
        "zip_code": lists(["48067"] * count),
        "timestamp": lists(rng.integers(956_703_932, 1_046_454_590, count)),
        "movie_id": lists(rng.integers(1, 200, count)),
        "title": lists(["Toy Story (1995)"] * count),
        "release_year": lists(rng.integers(1950, 2001, count)),
        "genres": pa.array([rng.choice(GENRES, size, replace=False).tolist() for size in rng.integers(1, 4, count)]),
        "director": lists([None, "A. Director"] * (count // 2)),
        "star": lists(["A. Star", None] * (count // 2)),
        "rating": lists(rng.integers(1, 6, count).astype(np.float32)),
        "history_movie_ids": pa.array([None, *[[3, 5]] * (count - 1)]),
        "history_ratings": pa.array([None, *[[3, 5]] * (count - 1)], pa.list_(pa.float32())),
        "history_timestamps": pa.array([None, *[[956_703_932, 956_703_933]] * (count - 1)]),
        "place": lists([0, *[2] * (count - 1)]),
    }
    if split == "movies":
        return {name: columns[name] for name in MOVIE_FEATURES}
    return columns if split == "train" else columns | {"seen_movie_ids": pa.array([[3, 5]] * count)}


def with_first(column: pa.Array, value: Any) -> pa.Array:
    """The column with its first row replaced by `value`, or by no value if that is None."""
    return pa.concat_arrays([pa.array([None if value is None else [value]], column.type), column[1:]])


@pytest.fixture
def gate(tmp_path: Path) -> Gate:
    return Gate(tmp_path, {split: good_rows(split) for split in ROWS})


def test_good_data_pass_with_the_whole_schema(gate):
    assert gate.run() == [feature.name for feature in SCHEMA.feature]


@pytest.mark.parametrize("nulls", [False, True], ids=["no column", "a column without values"])
def test_without_credits_the_schema_has_neither_director_nor_star(gate, nulls):
    for columns in gate.splits.values():
        for name in ("director", "star"):
            if nulls:
                columns[name] = pa.nulls(len(columns[name]))
            else:
                del columns[name]
    assert gate.run() == [feature.name for feature in SCHEMA.feature if feature.name not in ("director", "star")]


@pytest.mark.parametrize("split", ["train", "eval"])
@pytest.mark.parametrize(
    ("feature", "value", "message"),
    [
        ("occupation", 21, "Unexpectedly large value: 21"),
        ("rating", 5.5, "Unexpectedly high value: 5.5"),
        ("rating", 0.5, "Unexpectedly low values: 0.5<1"),
        ("age", 34, "Should be one of 1, 18, 25, 35, 45, 50, 56; received 34 (1 rows)"),
        ("gender", "X", "Examples contain values missing from the schema: X"),
        ("user_id", None, "The feature was present in fewer examples than expected"),
    ],
)
def test_one_bad_value_is_found(gate, split, feature, value, message):
    gate.splits[split][feature] = with_first(gate.splits[split][feature], value)
    found = gate.anomalies()
    # A rating out of range also moves the bounds of the histograms that the validators compare between train and eval,
    # so the same feature may have a second anomaly.
    assert {each.feature for each in found} == {feature}
    assert [each.split for each in found if message in each.long] == [split]


@pytest.mark.parametrize("split", ["train", "eval", "movies"])
def test_a_vanished_feature_is_found(gate, split):
    del gate.splits[split]["genres"]
    found = gate.anomalies()
    assert {(split, "genres", "Column dropped")} <= {(each.split, each.feature, each.short) for each in found}
    assert {each.feature for each in found} == {"genres"}


@pytest.mark.parametrize("split", ["train", "eval", "movies"])
def test_a_new_column_is_found(gate, split):
    gate.splits[split]["colour"] = lists(["blue"] * ROWS[split])
    (anomaly,) = gate.anomalies()
    assert (anomaly.split, anomaly.feature, anomaly.short) == (split, "colour", "New column")


def test_ratings_in_the_catalogue_and_bad_movie_features_are_found(gate):
    gate.splits["movies"]["rating"] = lists([3.0] * ROWS["movies"])
    gate.splits["movies"]["release_year"] = with_first(gate.splits["movies"]["release_year"], 1800)
    assert {(each.split, each.feature) for each in gate.anomalies()} == {
        ("movies", "rating"),
        ("movies", "release_year"),
    }


def test_all_anomalies_are_reported_at_once(gate):
    gate.splits["train"]["occupation"] = with_first(gate.splits["train"]["occupation"], 99)
    gate.splits["eval"]["age"] = with_first(gate.splits["eval"]["age"], 17)
    gate.splits["movies"]["movie_id"] = with_first(gate.splits["movies"]["movie_id"], 0)
    found = {(each.split, each.feature) for each in gate.anomalies()}
    assert found == {("train", "occupation"), ("eval", "age"), ("movies", "movie_id")}


def comedies(count: int) -> pa.Array:
    return pa.array([["Comedy"]] * count)


@pytest.mark.parametrize("strategy", Strategy)
def test_drifted_genres_are_found(gate, strategy):
    mixed = gate.splits["eval"]["genres"]
    gate.splits["eval"]["genres"] = pa.concat_arrays([comedies(300), mixed[300:]])
    (anomaly,) = gate.anomalies(strategy)
    assert (anomaly.split, anomaly.feature, anomaly.short) == (
        "train_eval",
        "genres",
        "High Linfty distance between current and previous",
    )
    assert "above the threshold 0.1" in anomaly.long
    assert "Comedy" in anomaly.long


def drifted(name: str) -> pa.Array:
    """A feature of eval that has the same value in every row."""
    count = ROWS["eval"]
    return {
        "gender": lists(["F"] * count),
        "age": lists([25] * count),
        "occupation": lists([4] * count),
        "rating": lists(np.full(count, 5, np.float32)),
        "release_year": lists([1999] * count),
    }[name]


@pytest.mark.parametrize("name", ["gender", "age", "occupation", "rating", "release_year"])
def test_a_drift_of_any_compared_feature_is_found(gate, name):
    gate.splits["eval"][name] = drifted(name)
    (anomaly,) = gate.anomalies()
    assert (anomaly.split, anomaly.feature) == ("train_eval", name)


def test_drifted_user_features_are_no_anomaly_in_a_temporal_split(gate):
    for name in ("gender", "age", "occupation"):
        gate.splits["eval"][name] = drifted(name)
    assert gate.run(Strategy.TEMPORAL)


def test_drift_in_a_split_of_few_rows_is_ignored(gate):
    few = FEWEST_COMPARED_ROWS - 1
    gate.splits["eval"] = {name: column[:few] for name, column in gate.splits["eval"].items()}
    gate.splits["eval"]["genres"] = comedies(few)
    assert gate.run()


def add_comedies(gate: Gate) -> None:
    """Turns the first third of the rows of train and eval into comedies."""
    for split in ("train", "eval"):
        mixed, share = gate.splits[split]["genres"], ROWS[split] // 3
        gate.splits[split]["genres"] = pa.concat_arrays([comedies(share), mixed[share:]])


def with_spans(gate: Gate) -> None:
    """Makes the train rows those of the newest span, and of the one before."""
    gate.splits |= {"newest": dict(gate.splits["train"]), "previous": dict(gate.splits["train"])}


def test_drift_from_the_previous_span_is_found(gate):
    with_spans(gate)
    assert gate.run()
    share = ROWS["train"] // 3
    gate.splits["newest"]["genres"] = pa.concat_arrays([comedies(share), gate.splits["newest"]["genres"][share:]])
    (anomaly,) = Gate(gate.folder / "again", gate.splits).anomalies()
    assert (anomaly.split, anomaly.feature) == ("newest_previous", "genres")


def test_user_features_may_drift_between_spans(gate):
    with_spans(gate)
    gate.splits["newest"]["gender"] = lists(["F"] * ROWS["train"])
    assert gate.run()


def test_drift_from_a_previous_span_of_few_rows_is_ignored(gate):
    with_spans(gate)
    few = FEWEST_COMPARED_ROWS - 1
    gate.splits["previous"] = {name: column[:few] for name, column in gate.splits["previous"].items()}
    gate.splits["newest"]["genres"] = comedies(ROWS["train"])
    assert gate.run()


@pytest.mark.parametrize("comparator", ["skew_comparator", "drift_comparator"])
def test_compared_features_and_thresholds_come_from_the_schema(comparator):
    schema = schema_pb2.Schema()
    for name, threshold in (("one", 0.25), ("two", 0.5), ("three", 0.125)):
        getattr(schema.feature.add(name=name), comparator).infinity_norm.threshold = threshold
    schema.feature.add(name="none")
    features = comparison(schema, comparator, ["two"]).default_slice_config.feature
    assert [(f.path.step[0], f.distribution_comparator.infinity_norm.threshold) for f in features] == [
        ("one", 0.25),
        ("three", 0.125),
    ]


def test_the_error_survives_pickling():
    error = AnomalyError([Anomaly("train", "age", "Unexpected codes", "17")] * 60)
    assert str(pickle.loads(pickle.dumps(error))) == str(error)
    assert str(error).endswith("and 10 more")


@pytest.fixture
def run(tmp_path: Path) -> Callable[[Path], Path]:
    """Runs all components from ExampleGen to the gate; returns the pipeline's folder."""

    def pipeline(data: Path) -> Path:
        root = tmp_path / "root"
        examples = MovieLensExampleGen(str(data), SplitConfig(), 10)
        curated = tfx.components.ImportSchemaGen(schema_file=str(SCHEMA_FILE))
        statistics = tfx.components.StatisticsGen(
            examples=examples.outputs["examples"], schema=curated.outputs["schema"], exclude_splits=["test"]
        )
        validator = tfx.components.ExampleValidator(
            statistics=statistics.outputs["statistics"], schema=curated.outputs["schema"], exclude_splits=["movies"]
        )
        drift = train_eval_validator(statistics.outputs["statistics"], SCHEMA, Strategy.RANDOM)
        gate = DataGate(
            statistics=statistics.outputs["statistics"],
            curated_schema=curated.outputs["schema"],
            anomalies=validator.outputs["anomalies"],
            drift=drift.outputs["anomalies"],
        )
        tfx.orchestration.LocalDagRunner().run(
            tfx.dsl.Pipeline(
                pipeline_name="gate",
                pipeline_root=str(root),
                components=[examples, curated, statistics, validator, drift, gate],
                enable_cache=True,
                metadata_connection_config=sqlite_metadata_connection_config(str(tmp_path / "metadata.sqlite")),
                beam_pipeline_args=BeamConfig().args(),
            )
        )
        return root

    return pipeline


@pytest.mark.component
def test_generated_data_pass_through_the_real_components(run, tmp_path):
    generate_sample(tmp_path / "data", users=300, movies=150, ratings=30_000)
    (tmp_path / "data" / "credits.csv").unlink()
    root = run(tmp_path / "data")
    (written,) = root.glob("DataGate/schema/*/schema.pbtxt")
    names = {feature.name for feature in tfdv.load_schema_text(str(written)).feature}
    assert names == {feature.name for feature in SCHEMA.feature} - {"director", "star"}
    with Metadata(sqlite_metadata_connection_config(str(tmp_path / "metadata.sqlite"))) as metadata:
        (statistics,) = metadata.store.get_artifacts_by_type("ExampleStatistics")
    assert artifact_utils.decode_split_names(statistics.properties["split_names"].string_value) == [
        "train",
        "eval",
        "movies",
    ]
