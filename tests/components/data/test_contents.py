"""The hash of raw files tells other contents and other files, and nothing else."""

import os
import shutil
from pathlib import Path

import pytest

from components.data.contents import content_hash

FILES = ("ratings.dat", "users.dat", "movies.dat", "credits.csv")


def test_the_same_contents_have_the_same_hash_wherever_and_whenever(folder: Path) -> None:
    first = content_hash(folder)
    assert len(first) == 64
    other = folder.with_name("data[1]")
    shutil.copytree(folder, other)
    os.utime(other / "ratings.dat", (0, 0))
    (other / "README").write_text("not one of the files")
    assert content_hash(other) == first


@pytest.mark.parametrize("name", FILES)
def test_a_byte_in_any_file_changes_it(folder: Path, name: str) -> None:
    first = content_hash(folder)
    content = bytearray((folder / name).read_bytes())
    content[-2] ^= 1
    (folder / name).write_bytes(bytes(content))
    assert content_hash(folder) != first


def test_a_missing_file_is_not_an_empty_one_and_bytes_do_not_pass_from_file_to_file(folder: Path) -> None:
    hashes = [content_hash(folder)]
    users, movies = (folder / "users.dat").read_bytes(), (folder / "movies.dat").read_bytes()
    (folder / "users.dat").write_bytes(users + movies[:5])
    (folder / "movies.dat").write_bytes(movies[5:])
    hashes.append(content_hash(folder))
    (folder / "credits.csv").write_bytes(b"")
    hashes.append(content_hash(folder))
    (folder / "credits.csv").unlink()
    hashes.append(content_hash(folder))
    assert len(set(hashes)) == len(hashes)
