"""Damaged files are either refused with a DataError or read without their bad rows; no other error is raised."""

import random
import re
from pathlib import Path

import pytest

from components.data.raw_files import DataError, MovieLens, read_movielens
from components.data.sample import generate_sample

MUTANTS = 60  # Damaged versions of each file, for each tolerance.
_PIECES = [b"::", b":", b"\n", b"\r", b"\r\n", b"|", b",", b'"', b" ", b"-1", b"0", b"7", b"9" * 25, b"(1995)"]
_PIECES += [b"\x00", b"\x1c", b"\x85", b"\xb2", b"\xe9", b"\xff", b"\xc2\x85", b"\xc3\xa9", b"\xd9\xa1"]


def _mutate(rng: random.Random, data: bytes) -> bytes:
    """Makes one random change to a byte, a field or a line, or truncates the file."""
    place = rng.randrange(len(data))
    end = min(len(data), place + rng.randrange(1, 30))
    lines = data.splitlines(keepends=True)
    one, other = rng.randrange(len(lines)), rng.randrange(len(lines))
    kind = rng.randrange(9)
    if kind == 0:
        return data[:place] + bytes([rng.randrange(256)]) + data[place + 1 :]
    if kind == 1:
        return data[:place] + rng.choice(_PIECES) + data[place:]
    if kind == 2:
        return data[:place] + data[end:]
    if kind == 3:
        return data[:place]
    if kind == 4:
        return b"".join([*lines[:one], lines[other], *lines[one:]])
    if kind == 5:
        return b"".join([*lines[:one], *lines[one + 1 :]])
    if kind == 6:
        lines[one], lines[other] = lines[other], lines[one]
        return b"".join(lines)
    if kind == 7:
        fields = re.split(rb"(::|,)", lines[one])
        fields[rng.randrange(0, len(fields), 2)] = rng.choice(_PIECES)
        return b"".join([*lines[:one], b"".join(fields), *lines[one + 1 :]])
    return data + rng.choice(_PIECES)


def _read(folder: Path, tolerance: float) -> tuple[DataError | None, MovieLens | None]:
    try:
        return None, read_movielens(folder, tolerance)
    except DataError as error:
        return error, None


def _count_rows(data: bytes) -> int:
    return data.count(b"\n") + (not data.endswith(b"\n"))


@pytest.mark.parametrize("tolerance", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("name", ["users.dat", "movies.dat", "ratings.dat", "credits.csv"])
def test_damaged_files_are_refused_or_read_without_their_bad_rows(tmp_path, name, tolerance):
    folder = tmp_path / "data"
    generate_sample(folder, users=12, movies=30, ratings=240, seed=4)
    # Keeping only 100 ratings leaves users and movies without any; a changed id of theirs can go unnoticed.
    ratings = (folder / "ratings.dat").read_bytes().splitlines(keepends=True)[:100]
    (folder / "ratings.dat").write_bytes(b"".join(ratings))
    original = (folder / name).read_bytes()
    rng = random.Random(f"seed of {name}")
    refused = damaged = 0
    for _ in range(MUTANTS):
        mutant = original
        for _ in range(rng.randrange(1, 4) if tolerance else 1):
            mutant = _mutate(rng, mutant) or original
        (folder / name).write_bytes(mutant)
        error, data = _read(folder, tolerance)
        if error is not None:
            refused += 1
            lines = _count_rows((folder / error.file.name).read_bytes())
            assert error.line is None or 1 <= error.line <= lines
            assert error.file.parent == folder
        if data is not None:
            damaged += bool(data.bad_rows)
            _assert_every_row_is_counted(data, folder, tolerance)
    # The mutants cover both cases: damage that is noticed, and damage that leaves the file valid.
    assert MUTANTS // 4 < refused + damaged < MUTANTS
    assert bool(damaged) == bool(tolerance)
    # Although tolerance 1 accepts any share of bad rows, an empty file or a wrong header, for example, is refused.
    assert refused < MUTANTS // 2 or tolerance < 1


def _assert_every_row_is_counted(data: MovieLens, folder: Path, tolerance: float) -> None:
    """Checks that each row of each file is read or listed as bad, and that bad rows keep the file's order and text."""
    assert data.credits is not None
    frames = {"users.dat": data.users, "movies.dat": data.movies, "ratings.dat": data.ratings}
    for name, table in {**frames, "credits.csv": data.credits}.items():
        content = (folder / name).read_bytes()
        bad = [row for row in data.bad_rows if row.file == folder / name]
        total = _count_rows(content) - (name == "credits.csv")
        assert len(table) + len(bad) == total, f"{len(table)} good and {len(bad)} bad rows read from {content!r}"
        assert len(bad) <= tolerance * total
        lines = [row.line for row in bad]
        assert lines == sorted(set(lines))
        for row in bad:
            assert row.text == content.split(b"\n")[row.line - 1].removesuffix(b"\r").decode("latin-1")
            assert row.kind
            assert row.expected
            assert f"{name}:{row.line}: " in str(row)
