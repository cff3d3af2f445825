"""Writes data sets of any size: the first users of MovieLens 1M, or generated data with its proportions."""

from pathlib import Path

import numpy as np

from components.data.layout import split_lines
from components.data.raw_files import CREDITS_FILE, MOVIES_FILE, RATINGS_FILE, USERS_FILE, MovieLens
from components.data.sample import generate_sample

# Proportions of MovieLens 1M. A larger generated data set has more users, but as many movies and ratings per user.
_RATINGS_PER_USER = 1_000_209 / 6_040
_MOVIES = 3_883


def write_first_users(source: Path, data: MovieLens, rows: int, folder: Path) -> int:
    """Writes the first users of users.dat with all their ratings, as many users as give at least `rows` ratings.

    Args:
      source: folder of the raw files.
      data: contents of the raw files.
      rows: number of ratings; at most the number in the files.
      folder: folder to write to; created here.

    Returns:
      The number of ratings written: `rows`, or more if the last user has further ratings.
    """
    users = data.users["user_id"].to_numpy()
    ratings = data.ratings["user_id"].value_counts().reindex(users, fill_value=0).to_numpy()
    count = int(np.searchsorted(np.cumsum(ratings), rows)) + 1
    chosen = data.ratings["user_id"].isin(users[:count]).to_numpy()
    lines = split_lines((source / RATINGS_FILE).read_bytes())
    folder.mkdir()
    _write_lines(folder / RATINGS_FILE, [lines[row] for row in np.flatnonzero(chosen)])
    _write_lines(folder / USERS_FILE, split_lines((source / USERS_FILE).read_bytes())[:count])
    for name in (MOVIES_FILE, CREDITS_FILE):
        if (source / name).exists():
            (folder / name).write_bytes((source / name).read_bytes())
    return int(chosen.sum())


def write_generated(rows: int, folder: Path) -> int:
    """Generates `rows` ratings, with as many per user and as many movies as in MovieLens 1M; returns `rows`."""
    generate_sample(folder, users=max(round(rows / _RATINGS_PER_USER), 1), movies=_MOVIES, ratings=rows)
    return rows


def _write_lines(path: Path, lines: list[bytes]) -> None:
    path.write_bytes(b"\n".join(lines) + b"\n")
