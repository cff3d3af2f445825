"""Raw files in another place than this machine: they are read, known again and refused like those in a folder."""

import json
import pickle
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pandas as pd
import pytest

from components.data.contents import content_hash
from components.data.places import PlaceError, below, place_of
from components.data.raw_files import DataError, read_movielens
from components.data.sample import generate_sample
from components.ingestion.spans import find_window
from pipeline import cli
from pipeline.paths import data_path
from tests.example_rows import rows_of
from tests.servers import free_port, wait_until

ROOT = Path(__file__).parents[3]
FILES = ("ratings.dat", "users.dat", "movies.dat", "credits.csv")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    generate_sample(tmp_path / "data", users=60, movies=50, ratings=900, seed=1)
    return tmp_path / "data"


@pytest.fixture
def memory() -> Iterator[fsspec.AbstractFileSystem]:
    """fsspec's file system in memory, which is that of the whole process."""
    files = fsspec.filesystem("memory")
    yield files
    files.store.clear()
    files.pseudo_dirs[:] = [""]


def put(folder: Path, uri: str, names: tuple[str, ...] = FILES, **options: object) -> None:
    files, path = fsspec.core.url_to_fs(uri, **options)
    for name in names:
        files.pipe(f"{path}/{name}", (folder / name).read_bytes())


def test_files_of_a_uri_are_read_like_those_of_a_folder(folder: Path, memory: object) -> None:
    put(folder, "memory://bucket/ml-1m")
    found, expected = read_movielens(place_of("memory://bucket/ml-1m")), read_movielens(folder)
    for name in ("ratings", "users", "movies", "credits"):
        pd.testing.assert_frame_equal(getattr(found, name), getattr(expected, name))
    assert content_hash(place_of("memory://bucket/ml-1m")) == content_hash(folder)


def test_a_file_without_credits_is_no_error(folder: Path, memory: object) -> None:
    put(folder, "memory://bucket/ml-1m", FILES[:3])
    assert read_movielens(place_of("memory://bucket/ml-1m")).credits is None


def test_spans_and_versions_of_a_uri_are_found(folder: Path, memory: object, tmp_path: Path) -> None:
    places = ["span-1/version-1", "span-2/version-1", "span-2/version-2", "span-10/version-1"]
    for place in places:
        put(folder, f"memory://bucket/spans/{place}")
        shutil.copytree(folder, tmp_path / "spans" / place)
    base = place_of("memory://bucket/spans")
    found, expected = (find_window(each, 9, versions=True, skip_missing=True) for each in (base, tmp_path / "spans"))
    assert (found.newest, found.first, found.version) == (expected.newest, expected.first, expected.version)
    names = [
        {number: below(each, place) for number, each in window.folders.items()}
        for place, window in ((base, found), (tmp_path / "spans", expected))
    ]
    assert names[0] == names[1] == {1: "span-1/version-1", 2: "span-2/version-2", 10: "span-10/version-1"}


@pytest.mark.parametrize("missing", FILES[:3])
def test_a_missing_file_is_named_with_the_uri_of_its_folder(folder: Path, memory: object, missing: str) -> None:
    put(folder, "memory://bucket/ml-1m", tuple(name for name in FILES if name != missing))
    with pytest.raises(DataError) as raised:
        read_movielens(place_of("memory://bucket/ml-1m"))
    assert f"{missing}: should be in memory://bucket/ml-1m; no such file" in str(raised.value)


def test_a_bad_row_is_named_with_file_and_line(folder: Path, memory: object) -> None:
    lines = (folder / "ratings.dat").read_text().splitlines()
    lines[6] = "1::1::7::978300760"
    (folder / "ratings.dat").write_text("\n".join(lines) + "\n")
    put(folder, "memory://bucket/ml-1m")
    with pytest.raises(DataError) as raised:
        read_movielens(place_of("memory://bucket/ml-1m"))
    assert "ratings.dat:7: rating should be" in str(raised.value)
    assert str(pickle.loads(pickle.dumps(raised.value))) == str(raised.value)


def test_a_place_that_is_not_there_is_named(memory: object) -> None:
    with pytest.raises(DataError, match="memory://bucket/none"):
        read_movielens(place_of("memory://bucket/none"))


def refuse_to_open(files: fsspec.AbstractFileSystem, name: str, error: OSError, patch: pytest.MonkeyPatch) -> None:
    """Makes a file system raise an error when a file of this name is opened."""
    opened = type(files)._open

    def _open(self: object, path: str, *arguments: object, **options: object) -> object:
        if path.endswith(name):
            raise error
        return opened(self, path, *arguments, **options)

    patch.setattr(type(files), "_open", _open)


@pytest.mark.parametrize("name", FILES)
def test_a_store_that_does_not_answer_is_no_bad_data(
    folder: Path, memory: fsspec.AbstractFileSystem, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(folder, "memory://bucket/ml-1m")
    refuse_to_open(memory, name, TimeoutError("no answer within 60 s"), monkeypatch)
    with pytest.raises(ConnectionError, match="no answer within 60 s") as raised:
        read_movielens(place_of("memory://bucket/ml-1m"))
    assert cli.exit_code(raised.value) == 1


def test_a_file_that_may_not_be_read_is_bad_data(
    folder: Path, memory: fsspec.AbstractFileSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(folder, "memory://bucket/ml-1m")
    refuse_to_open(memory, "users.dat", PermissionError("403 Forbidden"), monkeypatch)
    with pytest.raises(DataError, match=r"users\.dat: should be a readable file; 403 Forbidden"):
        read_movielens(place_of("memory://bucket/ml-1m"))


def test_a_password_is_refused_and_not_repeated() -> None:
    with pytest.raises(PlaceError, match="should have no password") as raised:
        place_of("s3://key:s3cret@bucket/x")
    assert "s3cret" not in str(raised.value)


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("nowhere://bucket/x", "'nowhere://bucket/x'"),
        ("hdfs://host/x", "hdfs://host/x"),
        ("file://server/x", "on this machine, file:///"),
    ],
)
def test_what_no_library_understands_is_refused(uri: str, message: str) -> None:
    with pytest.raises(PlaceError, match=message):
        place_of(uri)
    with pytest.raises(Exception, match="should be"):
        data_path(uri)


def test_a_file_uri_is_a_path_of_this_machine(tmp_path: Path) -> None:
    assert place_of((tmp_path / "a b").as_uri()) == tmp_path / "a b"
    assert place_of(tmp_path) == tmp_path
    assert place_of("a/b") == Path("a/b")


@pytest.fixture
def s3(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of a server that speaks S3, in an environment of its own; on this machine alone."""
    server = shutil.which("moto_server")
    if server is None:
        pytest.skip("moto_server is not on PATH; `make test-places` installs it in an environment of its own")
    port = free_port()
    with (tmp_path / "s3.log").open("wb") as log:
        process = subprocess.Popen([server, "-H", "127.0.0.1", "-p", str(port)], stdout=log, stderr=log)
        try:
            wait_until(port, process, tmp_path / "s3.log")
            for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
                monkeypatch.setenv(name, "of-the-tests")
            address = f"http://127.0.0.1:{port}"
            monkeypatch.setenv("AWS_ENDPOINT_URL", address)
            monkeypatch.setenv("FSSPEC_S3", json.dumps({"endpoint_url": address}))
            yield address
        finally:
            process.terminate()
            process.wait(60)
            # It would be taken for the next test's server.
            fsspec.get_filesystem_class("s3").clear_instance_cache()


@pytest.fixture
def bucket(s3: str, folder: Path) -> str:
    """Where the files are in S3."""
    pytest.importorskip("s3fs", reason="s3fs is not installed; it comes with the extra 's3'")
    fsspec.filesystem("s3", endpoint_url=s3).mkdir("bucket")
    put(folder, "s3://bucket/ml-1m", endpoint_url=s3)
    return "s3://bucket/ml-1m"


def ingested(data: str, output: Path) -> dict[str, str]:
    """Digests of the rows that a node of the pipeline makes of raw files, by split; each command in its own process."""
    file = output.with_suffix(".pb")
    for arguments in (
        ["compile", "--data", data, "--root", str(output), "--output", str(file)],
        ["run-node", "--pipeline", str(file), "--node", "MovieLensExampleGen", "--run-id", "one"],
    ):
        command = [sys.executable, "-c", "from pipeline.cli import main; main()", *arguments]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    (examples,) = (output / "pipeline" / "MovieLensExampleGen" / "examples").iterdir()
    return {split.name: rows_of(split) for split in examples.glob("Split-*")}


@pytest.mark.component
def test_the_pipeline_makes_the_same_rows_of_files_in_s3(folder: Path, bucket: str, tmp_path: Path) -> None:
    found = ingested(bucket, tmp_path / "of_s3")
    assert {"Split-train", "Split-test"} < found.keys()
    assert found == ingested(str(folder), tmp_path / "of_folder")


@pytest.mark.component
def test_files_in_s3_are_read(folder: Path, bucket: str) -> None:
    found, expected = read_movielens(place_of(bucket)), read_movielens(folder)
    pd.testing.assert_frame_equal(found.ratings, expected.ratings)
    assert content_hash(place_of(bucket)) == content_hash(folder)
    with pytest.raises(DataError, match="s3://bucket/none"):
        read_movielens(place_of("s3://bucket/none"))
