"""What a command does before a pipeline runs: it reads the options, finds the data and locks the output folder."""

from pathlib import Path

import pytest

from components.data.sample import generate_sample
from pipeline.commands.job import describe_spans, prepared_job
from pipeline.config import load_config
from pipeline.local.errors import RunError

SIZES = ["data.sample={users: 20, movies: 30, ratings: 300}"]
SPANS = ["data.spans=1"]


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


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ([], "Trained on span 6, measured on span 6; what was rated in spans 1, 2, 4, 5 is known."),
        (
            ["data.keep_spans=2"],
            "Trained on span 6, measured on span 6; what was rated in span 5 is known; what was rated in spans 1, 2, 4 "
            "is no longer read.",
        ),
        (
            ["data.keep_spans=1"],
            "Trained on span 6, measured on span 6; what was rated in spans 1, 2, 4, 5 is no longer read.",
        ),
        (
            ["data.spans=4", "data.keep_spans=5", "data.missing_spans=skip"],
            "Trained on spans 4, 5, 6, measured on span 6; what was rated in span 2 is known; what was rated in span 1 "
            "is no longer read; span 3 missing.",
        ),
    ],
)
def test_it_is_said_which_spans_are_read(tmp_path: Path, settings: list[str], expected: str) -> None:
    for number in (1, 2, 4, 5, 6):
        (tmp_path / f"span-{number}").mkdir()
    assert describe_spans(tmp_path, load_config("sample", ["data.spans=1", *settings])) == expected


def test_spans_that_are_not_kept_need_no_room_on_the_disk(tmp_path: Path) -> None:
    for number in (1, 2):
        generate_sample(tmp_path / f"span-{number}", users=20, movies=30, ratings=300)
    # A file without content that claims to be larger than any disk.
    with (tmp_path / "span-1" / "more.dat").open("wb") as file:
        file.truncate(2**42)
    with pytest.raises(RunError, match="MB should be free"), prepared_job("sample", SPANS, tmp_path, tmp_path / "out"):
        pass
    with prepared_job("sample", [*SPANS, "data.keep_spans=1"], tmp_path, tmp_path / "out"):
        pass
