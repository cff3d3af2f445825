"""Data of any size to measure on: the first users of MovieLens 1M, or generated data with its proportions."""

from pathlib import Path

import numpy as np

from components.data.layout import split_lines
from components.data.raw_files import CREDITS_FILE, MOVIES_FILE, RATINGS_FILE, USERS_FILE, MovieLens
from components.data.sample import generate_sample

# The size of MovieLens 1M. A larger set has more users; each rates as many movies, out of as many, as there.
_RATINGS_PER_USER = 1_000_209 / 6_040
_MOVIES = 3_883


def write_first_users(source: Path, data: MovieLens, rows: int, folder: Path) -> int:
    """Writes the first users of users.dat, as many as it takes to have `rows` ratings, with all their ratings.

    Args:
      source: folder of the raw files.
      data: what they hold.
      rows: number of ratings, at most all.
      folder: where to write; made here.

    Returns:
      The number of ratings written: `rows`, and what is left of the last user's.
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
    """Generates `rows` ratings, as many a user and of as many movies as in MovieLens 1M; returns their number."""
    generate_sample(folder, users=max(round(rows / _RATINGS_PER_USER), 1), movies=_MOVIES, ratings=rows)
    return rows


def _write_lines(path: Path, lines: list[bytes]) -> None:
    path.write_bytes(b"\n".join(lines) + b"\n")
