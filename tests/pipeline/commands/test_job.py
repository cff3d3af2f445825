"""What a command does before a pipeline runs: it reads the options, finds the data and locks the output folder."""

from pathlib import Path

import pytest

from pipeline.commands.job import prepared_job
from pipeline.local.errors import RunError

SIZES = ["data.sample={users: 20, movies: 30, ratings: 300}"]


def sample(output: Path) -> dict[str, bytes]:
    """The synthetic data that a command with this output folder reads."""
    with prepared_job("sample", SIZES, None, output) as job:
        return {file.name: file.read_bytes() for file in job.data.iterdir()}


def test_synthetic_data_are_those_of_their_settings_whatever_lies_in_their_place(tmp_path: Path) -> None:
    first = sample(tmp_path)
    (ratings,) = tmp_path.glob("data/*/ratings.dat")
    time = ratings.stat().st_mtime_ns
    assert sample(tmp_path) == first
    assert ratings.stat().st_mtime_ns == time
    # As an earlier version of the generator would have left it.
    ratings.write_bytes(first["ratings.dat"].replace(b"::5::", b"::4::"))
    assert sample(tmp_path) == first


def test_other_files_beside_synthetic_data_are_not_deleted(tmp_path: Path) -> None:
    sample(tmp_path)
    (folder,) = tmp_path.glob("data/*")
    (folder / "thesis.txt").write_text("years of work")
    with pytest.raises(RunError, match=r"should be new, empty or hold nothing but data; received one with thesis\.txt"):
        sample(tmp_path)
    assert (folder / "thesis.txt").read_text() == "years of work"


def test_the_same_data_are_known_by_every_spelling_of_their_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with prepared_job("sample", SIZES, None, tmp_path / "first") as job:
        data = job.data
    (data.parent / "link").symlink_to(data)
    (data / "left.dat").symlink_to("nowhere")
    monkeypatch.chdir(data)
    for number, spelling in enumerate([data, data / ".." / data.name, Path("../link"), Path()]):
        with prepared_job("sample", [], spelling, tmp_path / str(number)) as job:
            assert job.data == data
