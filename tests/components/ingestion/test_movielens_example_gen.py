"""The ExampleGen component on generated data, through TFX's own driver and metadata."""

import json
import os
import shutil
from pathlib import Path

import fsspec
import pandas as pd
import pyarrow as pa
import pytest
from tensorflow_metadata.proto.v0 import anomalies_pb2
from tfx import v1 as tfx
from tfx.orchestration.metadata import Metadata, sqlite_metadata_connection_config
from tfx.types import artifact_utils

from components.data.raw_files import DataError
from components.data.sample import generate_sample
from components.ingestion.movielens_example_gen import MovieLensExampleGen
from components.ingestion.splits import Fractions, SplitConfig, Strategy
from pipeline.beam_config import BeamConfig
from tests.components.ingestion.examples_oracle import SPLITS, assert_examples, assert_window, read_split

pytestmark = pytest.mark.component

SCHEMA = Path(__file__).parents[3] / "transform" / "schema.pbtxt"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    generate_sample(tmp_path / "data", users=60, movies=50, ratings=900, seed=1)
    return tmp_path / "data"


class Runs:
    """Runs of one pipeline: ExampleGen and what else is asked for."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.connection = sqlite_metadata_connection_config(str(folder / "metadata.db"))

    def __call__(
        self, data: Path | str, split: SplitConfig | None = None, history_length: int = 5, then=lambda _: [], **settings
    ):
        """Runs, and returns the latest `examples` artifact."""
        example_gen = MovieLensExampleGen(str(data), split or SplitConfig(), history_length, **settings)
        pipeline = tfx.dsl.Pipeline(
            pipeline_name="examples",
            pipeline_root=str(self.folder / "root"),
            components=[example_gen, *then(example_gen)],
            enable_cache=True,
            metadata_connection_config=self.connection,
            beam_pipeline_args=BeamConfig().args(),
        )
        tfx.orchestration.LocalDagRunner().run(pipeline)
        return self.examples()[-1]

    def examples(self):
        return self.artifacts("Examples")

    def artifacts(self, kind: str):
        """All artifacts of a type, the latest last."""
        with Metadata(self.connection) as metadata:
            return sorted(metadata.store.get_artifacts_by_type(kind), key=lambda artifact: artifact.id)

    def quarantine(self):
        """The latest list of rows left out: its table and its counts."""
        artifact = self.artifacts("movielens.QuarantinedRows")[-1]
        counts = {
            name: value.int_value for name, value in artifact.custom_properties.items() if name.startswith("rows")
        }
        return pd.read_csv(Path(artifact.uri) / "rows.csv", keep_default_na=False), counts


@pytest.fixture
def run(tmp_path: Path) -> Runs:
    folder = tmp_path / "pipeline"
    folder.mkdir()
    return Runs(folder)


def assert_same_rows(uri: str, other: str) -> None:
    for split in SPLITS:
        first, second = read_split(uri, split), read_split(other, split)
        names = sorted(first.column_names)
        assert first.num_rows > 0
        assert first.select(names).equals(second.select(sorted(second.column_names)))


def test_files_of_a_uri_give_the_rows_of_a_folder(data, run, tmp_path):
    expected = run(data).uri
    files = fsspec.filesystem("memory")
    try:
        for file in data.iterdir():
            files.pipe(f"/bucket/ml-1m/{file.name}", file.read_bytes())
        (tmp_path / "other").mkdir()
        assert_same_rows(Runs(tmp_path / "other")("memory://bucket/ml-1m").uri, expected)
    finally:
        files.rm("/bucket", recursive=True)


@pytest.mark.parametrize("strategy", Strategy)
@pytest.mark.parametrize("credits_", [True, False])
def test_rows_are_those_worked_out_from_the_files(data, run, strategy, credits_):
    if not credits_:
        (data / "credits.csv").unlink()
    split = SplitConfig(strategy=strategy, fractions=Fractions(train=0.6, eval=0.1, test=0.3))
    artifact = run(data, split)
    tables = {name: read_split(artifact.uri, name) for name in SPLITS}
    ratings = assert_examples(tables, data, 5, strategy)
    assert set(ratings["split"]) == {"train", "eval", "test"}
    assert artifact_utils.decode_split_names(artifact.properties["split_names"].string_value) == [
        "train",
        "eval",
        "test",
        "movies",
    ]
    assert artifact.custom_properties["file_format"].string_value == "tfrecords_gzip"
    assert artifact.custom_properties["payload_format"].string_value == "FORMAT_TF_EXAMPLE"
    counts = {name: artifact.custom_properties[f"rows_{name}"].int_value for name in SPLITS}
    assert counts == {**ratings["split"].value_counts().to_dict(), "movies": 50}
    settings = json.loads(artifact.custom_properties["settings"].string_value)
    assert (settings["split"]["strategy"], settings["history_length"]) == (strategy, 5)
    rows, counts = run.quarantine()
    assert rows.columns.tolist() == ["file", "line", "kind", "expected", "text"]
    assert (len(rows), counts, artifact.custom_properties["rows_quarantined"].int_value) == (0, {"rows": 0}, 0)


def test_the_same_data_gives_the_same_rows_and_a_second_run_is_cached(data, run, tmp_path):
    first = run(data)
    assert run(data).id == first.id
    (tmp_path / "again").mkdir()
    again = Runs(tmp_path / "again")(data)
    assert_same_rows(again.uri, first.uri)
    assert again.custom_properties["data_sha256"] == first.custom_properties["data_sha256"]


def turn_around(ratings: Path) -> None:
    """Makes every rating r 6 - r, and leaves the file's size and time as they were."""
    before = ratings.stat()
    rows = [line.split("::") for line in ratings.read_text().splitlines()]
    ratings.write_text("".join(f"{user}::{movie}::{6 - int(stars)}::{time}\n" for user, movie, stars, time in rows))
    os.utime(ratings, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (ratings.stat().st_size, ratings.stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)


def test_changed_data_or_settings_run_again(data, run):
    ids = [run(data).id]
    turn_around(data / "ratings.dat")
    ids.append(run(data).id)
    ids.append(run(data, SplitConfig(seed=1)).id)
    ids.append(run(data, SplitConfig(seed=1), history_length=6).id)
    (data / "credits.csv").unlink()
    ids.append(run(data, SplitConfig(seed=1), history_length=6).id)
    assert len(set(ids)) == len(ids)


def test_other_files_times_and_places_of_the_same_data_change_nothing(data, run):
    first = run(data).id
    (data / "notes.txt").write_text("Not one of the files that are read.")
    (data / "notes.dat").write_text("Nor is this one.")
    os.utime(data / "ratings.dat", (0, 0))
    assert run(data).id == first


# Each of these names is a pattern, to TensorFlow, Beam or TFX, that does not match itself.
@pytest.mark.parametrize("name", ["d[1]", "d*", "d?", "d{1,2}", "d\\d", "{SPAN}"])
def test_a_folder_whose_name_reads_as_a_pattern_is_an_ordinary_one(data, run, name):
    if name in ("d*", "d?"):
        # These would match this folder too.
        shutil.copytree(data, data.with_name("d1"))
        (data.with_name("d1") / "ratings.dat").write_text("no ratings")
    folder = data.rename(data.with_name(name))
    first = run(folder)
    assert run(folder).id == first.id
    lines = (folder / "ratings.dat").read_bytes().splitlines(keepends=True)
    (folder / "ratings.dat").write_bytes(b"".join(lines[:-60]))
    second = run(folder)
    assert second.id != first.id
    counts = [sum(each.custom_properties[f"rows_{name}"].int_value for name in SPLITS[:3]) for each in (first, second)]
    assert counts == [900, 840]


def test_long_seeds_are_told_apart(data, run):
    tests = [read_split(run(data, SplitConfig(seed=seed)).uri, "test") for seed in (2**60, 2**60 + 1)]
    assert tests[0].num_rows != tests[1].num_rows or not tests[0]["movie_id"].equals(tests[1]["movie_id"])


def test_bad_data_comes_out_as_it_is_and_leaves_nothing(data, run):
    lines = (data / "ratings.dat").read_bytes().split(b"\n")
    lines[16] = lines[16].rsplit(b"::", 2)[0] + b"::7::978300760"
    (data / "ratings.dat").write_bytes(b"\n".join(lines))
    with pytest.raises(DataError, match=r"^ratings\.dat:17: .*'7'"):
        run(data)
    assert not list((run.folder / "root").rglob("*.gz"))
    assert all(artifact.state != artifact.LIVE for artifact in run.examples())


def test_bad_rows_are_quarantined_with_what_refers_to_them(data, run, tmp_path):
    users, ratings = ((data / name).read_bytes().splitlines(keepends=True) for name in ("users.dat", "ratings.dat"))
    user = ratings[200].split(b"::")[0]
    bad_user = next(row for row, text in enumerate(users) if text.split(b"::")[0] == user)
    users[bad_user] = users[bad_user].replace(b"::M::", b"::,\t::").replace(b"::F::", b"::,\t::")
    other = next(row for row, text in enumerate(ratings) if text.split(b"::")[0] != user)
    ratings[other] = ratings[other].rsplit(b"::", 2)[0] + b"::7::978300760\n"
    left_out = [row for row, text in enumerate(ratings) if text.split(b"::")[0] == user or row == other]
    (data / "users.dat").write_bytes(b"".join(users))
    (data / "ratings.dat").write_bytes(b"".join(ratings))

    with pytest.raises(DataError, match=r"at most 0\.10% of the rows should be bad; 1 of 60 are"):
        run(data, tolerance=0.001)
    assert not list((run.folder / "root").rglob("*.gz"))
    assert not list((run.folder / "root").rglob("rows.csv"))

    artifact = run(data, tolerance=0.2)
    rows, counts = run.quarantine()
    of_user = len(left_out) - 1
    assert counts == {
        "rows": len(left_out) + 1,
        "rows_unprintable_text": 1,
        "rows_rating_out_of_range": 1,
        "rows_unknown_user": of_user,
    }
    assert artifact.custom_properties["rows_quarantined"].int_value == len(left_out) + 1
    assert rows["file"].tolist() == ["users.dat", *["ratings.dat"] * len(left_out)]
    assert rows["line"].tolist() == [bad_user + 1, *(row + 1 for row in left_out)]
    assert rows["text"].tolist() == [
        users[bad_user].decode().rstrip("\n"),
        *(ratings[row].decode().rstrip("\n") for row in left_out),
    ]

    # What is written is what comes of files without these rows.
    (data / "users.dat").write_bytes(b"".join(users[:bad_user] + users[bad_user + 1 :]))
    (data / "ratings.dat").write_bytes(b"".join(text for row, text in enumerate(ratings) if row not in left_out))
    (tmp_path / "clean").mkdir()
    clean = Runs(tmp_path / "clean")(data)
    assert_same_rows(artifact.uri, clean.uri)
    assert run(data, tolerance=0.2).id != artifact.id


def test_a_split_without_ratings_is_an_error(data, run):
    lines = (data / "ratings.dat").read_bytes().splitlines(keepends=True)
    (data / "ratings.dat").write_bytes(b"".join(lines[:1]))
    with pytest.raises(DataError, match=r"^ratings\.dat: .*leave_last_out leaves none of 1 for eval"):
        run(data, SplitConfig(strategy=Strategy.LEAVE_LAST_OUT))
    assert not list((run.folder / "root").rglob("*.gz"))


def test_the_curated_schema_finds_nothing_wrong(data, run):
    def checks(example_gen):
        statistics = tfx.components.StatisticsGen(
            examples=example_gen.outputs["examples"], exclude_splits=["test", "movies"]
        )
        schema = tfx.components.ImportSchemaGen(schema_file=str(SCHEMA))
        validator = tfx.components.ExampleValidator(
            statistics=statistics.outputs["statistics"], schema=schema.outputs["schema"]
        )
        return [statistics, schema, validator]

    run(data, then=checks)

    found = {path.parent.name: path for path in (run.folder / "root" / "ExampleValidator").rglob("SchemaDiff.pb")}
    assert set(found) == {"Split-train", "Split-eval"}
    for path in found.values():
        anomalies = anomalies_pb2.Anomalies.FromString(path.read_bytes())
        assert not anomalies.anomaly_info
        assert not anomalies.HasField("dataset_anomaly_info")
        # An empty report would also come of a schema that was not held against anything.
        assert {feature.name for feature in anomalies.baseline.feature} >= {"rating", "history_movie_ids", "genres"}


@pytest.fixture
def days(data, tmp_path) -> Path:
    """The same users and movies, and a third of the ratings each: in turn, so that days overlap in time."""
    lines = (data / "ratings.dat").read_bytes().splitlines(keepends=True)
    for day in range(3):
        folder = tmp_path / "days" / f"span-{day + 1}"
        folder.mkdir(parents=True)
        for name in ("users.dat", "movies.dat", "credits.csv"):
            (folder / name).write_bytes((data / name).read_bytes())
        (folder / "ratings.dat").write_bytes(b"".join(lines[day::3]))
    return tmp_path / "days"


PARTS = (*SPLITS, "past", "newest", "previous")


def tables_of(artifact) -> dict[str, pa.Table]:
    return {name: read_split(artifact.uri, name) for name in PARTS}


def folders_of(days: Path) -> dict[int, Path]:
    return {int(folder.name.removeprefix("span-")): folder for folder in days.glob("span-*")}


@pytest.mark.parametrize("strategy", [Strategy.RANDOM, Strategy.TEMPORAL, Strategy.TEMPORAL_ROLLING])
def test_a_window_is_made_of_the_spans_that_are_there(days, run, strategy):
    split = SplitConfig(strategy=strategy, fractions=Fractions(train=0.6, eval=0.1, test=0.3))
    later = days.rename(days.parent / "later")
    days.mkdir()
    for day in (1, 2, 3):
        (later / f"span-{day}").rename(days / f"span-{day}")
        artifact = run(days, split, spans=2)
        assert artifact.custom_properties["span"].int_value == day
        ratings = assert_window(tables_of(artifact), folders_of(days), 2, 5, split)
        counts = {name: artifact.custom_properties[f"rows_{name}"].int_value for name in PARTS}
        assert counts == {name: read_split(artifact.uri, name).num_rows for name in PARTS}
        assert set(ratings["part"]) == {"train", "eval", "test", *(["past"] if day > 1 else [])}
        names = artifact.custom_properties["spans"].string_value
        assert names == {1: "1", 2: "1, 2", 3: "2, 3"}[day]
    assert run(days, split, spans=2).id == artifact.id


def rate_again(days: Path, span: int, of: int, rows: int) -> None:
    """Lets the first ratings of a span be given again in a later one, a second later and with other stars."""
    lines = (days / f"span-{of}" / "ratings.dat").read_text(encoding="latin-1").splitlines()[:rows]
    again = []
    for line in lines:
        user, movie, stars, time = line.split("::")
        again.append(f"{user}::{movie}::{6 - int(stars)}::{int(time) + 1}\n")
    with (days / f"span-{span}" / "ratings.dat").open("a", encoding="latin-1") as file:
        file.writelines(again)


def test_a_movie_that_was_rated_again_is_in_one_split_with_its_later_rating(days, run):
    rate_again(days, span=3, of=1, rows=40)
    rate_again(days, span=2, of=1, rows=80)
    split = SplitConfig(fractions=Fractions(train=0.5, eval=0.1, test=0.4))
    ratings = assert_window(tables_of(run(days, split, spans=3)), folders_of(days), 3, 5, split)
    # 80 of the first span's ratings were given again in the second, and 40 of these in the third.
    assert ratings.groupby("span").size().tolist() == [300 - 80, 300 + 80 - 40, 300 + 40]
    assert not ratings.duplicated(["user_id", "movie_id"]).any()


def test_movies_are_those_of_the_newest_span_and_what_is_known_of_them_is_the_newest(days, run):
    first, newest = (days / f"span-{day}" / "movies.dat" for day in (1, 3))
    lines = first.read_text(encoding="latin-1").splitlines()
    rated = {line.split("::")[1] for line in (days / "span-3" / "ratings.dat").read_text("latin-1").splitlines()}
    gone = next(line for line in lines if line.split("::")[0] not in rated)
    corrected = [line.replace(" (", ", The (", 1) for line in lines if line != gone]
    newest.write_text("\n".join(corrected) + "\n", encoding="latin-1")
    credits_ = days / "span-3" / "credits.csv"
    of_others = [line for line in credits_.read_text().splitlines() if line.split(",")[0] != gone.split("::")[0]]
    credits_.write_text("\n".join(of_others) + "\n")
    tables = tables_of(run(days, spans=3))
    ratings = assert_window(tables, folders_of(days), 3, 5, SplitConfig())
    number = int(gone.split("::")[0])
    assert number not in tables["movies"]["movie_id"].combine_chunks().flatten().to_pylist()
    assert number in set(ratings["movie_id"])


def test_a_span_that_arrives_late_or_anew_counts_from_then_on(days, run):
    later = days.parent / "later"
    (days / "span-2").rename(later)
    with pytest.raises(DataError, match=r"every span from 1 to 3; there is no span 2.*missing_spans"):
        run(days, spans=3)
    assert not run.examples()
    without = run(days, spans=3, skip_missing=True)
    assert without.custom_properties["missing_spans"].string_value == "2"
    assert_window(tables_of(without), folders_of(days), 3, 5, SplitConfig())
    later.rename(days / "span-2")
    late = run(days, spans=3)
    assert late.custom_properties["missing_spans"].string_value == ""
    assert_window(tables_of(late), folders_of(days), 3, 5, SplitConfig())
    turn_around(days / "span-1" / "ratings.dat")
    anew = run(days, spans=3)
    assert anew.id != late.id
    assert_window(tables_of(anew), folders_of(days), 3, 5, SplitConfig())


@pytest.mark.parametrize("strategy", [Strategy.RANDOM, Strategy.TEMPORAL_ROLLING])
def test_of_spans_that_are_not_kept_nothing_is_known(days, run, strategy):
    # Some of the first day's movies were rated again later, and all of its people rated others.
    rate_again(days, span=2, of=1, rows=40)
    split = SplitConfig(strategy=strategy, fractions=Fractions(train=0.6, eval=0.1, test=0.3))
    rows = {}
    for keep in (1, 2, 3, None):
        artifact = run(days, split, spans=1, keep_spans=keep)
        ratings = assert_window(tables_of(artifact), folders_of(days), 1, 5, split, keep)
        assert set(ratings["part"]) == {"train", "eval", "test", *(["past"] if keep != 1 else [])}
        rows[keep] = artifact.custom_properties["rows_past"].int_value
        assert json.loads(artifact.custom_properties["settings"].string_value)["keep_spans"] == keep
    assert rows == {1: 0, 2: 340, 3: 600, None: 600}


def test_a_change_before_the_spans_that_are_kept_runs_nothing_again(days, run):
    first = run(days, spans=1, keep_spans=2)
    turn_around(days / "span-1" / "ratings.dat")
    assert run(days, spans=1, keep_spans=2).id == first.id
    (days / "span-1" / "ratings.dat").write_text("no ratings")
    assert run(days, spans=1, keep_spans=2).id == first.id
    shutil.rmtree(days / "span-1")
    assert run(days, spans=1, keep_spans=2).id == first.id
    turn_around(days / "span-2" / "ratings.dat")
    second = run(days, spans=1, keep_spans=2)
    assert second.id != first.id
    # Not kept any more, the second span is not asked for either.
    third = run(days, spans=1, keep_spans=1)
    assert third.id != second.id
    shutil.rmtree(days / "span-2")
    assert run(days, spans=1, keep_spans=1).id == third.id


def test_a_hole_before_the_window_is_of_no_matter(days, run):
    shutil.rmtree(days / "span-1")
    (days / "span-2").rename(days / "span-1")
    assert_window(tables_of(run(days, spans=1)), folders_of(days), 1, 5, SplitConfig())


def test_spans_in_a_folder_whose_name_reads_as_a_pattern(days, run):
    base = days.rename(days.with_name("days[1]"))
    artifact = run(base, spans=1)
    assert artifact.custom_properties["span"].int_value == 3
    turn_around(base / "span-3" / "ratings.dat")
    assert run(base, spans=1).id != artifact.id


def test_the_latest_version_of_the_latest_span_is_ingested(days, run):
    for day in (1, 2, 3):
        span = days / f"span-{day}"
        (days / "files").mkdir()
        for file in list(span.iterdir()):
            file.rename(days / "files" / file.name)
        (days / "files").rename(span / "version-9")
    shutil.copytree(days / "span-3" / "version-9", days / "span-3" / "version-10")
    artifact = run(days, spans=2, versions=True)
    numbers = [artifact.custom_properties[name].int_value for name in ("span", "version")]
    assert numbers == [artifact.properties[name].int_value for name in ("span", "version")] == [3, 10]
    # The version before is not read.
    turn_around(days / "span-3" / "version-9" / "ratings.dat")
    assert run(days, spans=2, versions=True).id == artifact.id


def test_without_spans_there_is_span_0_and_no_version(data, run):
    artifact = run(data)
    assert artifact.custom_properties["span"].int_value == 0
    assert "version" not in artifact.custom_properties
