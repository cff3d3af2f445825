"""Reads ratings.dat: `user_id::movie_id::rating::timestamp`.

A million rows are parsed and checked with NumPy, straight on the bytes of the file. Where that finds anything out of
the ordinary, the rows are read again one by one: slower, but it finds the first line at fault and says what is wrong.
"""

from pathlib import Path

import numpy as np
import pandas as pd

from components.data.layout import (
    HIGHEST_RATING,
    LOWEST_RATING,
    MAX_TIMESTAMP,
    DataError,
    parse_id,
    parse_integer,
    read_bytes,
    split_lines,
    split_row,
)

FIELDS = ("user_id", "movie_id", "rating", "timestamp")
_COLONS = 2 * (len(FIELDS) - 1)
_MAX_DIGITS = 18  # A number of 18 digits always fits int64.


def read_ratings(path: Path, user_ids: np.ndarray, movie_ids: np.ndarray) -> pd.DataFrame:
    """Reads and checks the ratings.

    Args:
      path: the file.
      user_ids: int64 [users], the known users.
      movie_ids: int64 [movies], the known movies.

    Returns:
      One row per line, in file order: user_id, movie_id and timestamp (int64, seconds since 1970), rating (float32).

    Raises:
      DataError: the first line with another layout, a value out of range, an unknown user or movie, or a (user, movie)
        pair that an earlier line has.
    """
    data = read_bytes(path)
    columns = parse_columns(data)
    if columns is None or not _valid(columns, user_ids, movie_ids):
        columns = scan_columns(path, data, user_ids, movie_ids)
    users, movies, ratings, timestamps = columns
    return pd.DataFrame(
        {"user_id": users, "movie_id": movies, "rating": ratings.astype(np.float32), "timestamp": timestamps}
    )


def parse_columns(data: bytes) -> list[np.ndarray] | None:
    """The four columns, int64 [rows] each, of rows that are digits and `::` throughout; None where any row is not."""
    if b"\r" in data:
        data = data.replace(b"\r\n", b"\n")
    if not data.endswith(b"\n"):
        data += b"\n"
    buffer = np.frombuffer(data, np.uint8)
    ends = np.flatnonzero(buffer == ord("\n"))
    colons = np.flatnonzero(buffer == ord(":"))
    if colons.size != _COLONS * ends.size or np.any(
        (buffer > ord(":")) | ((buffer < ord("0")) & (buffer != ord("\n")))
    ):
        return None
    pairs = colons.reshape(ends.size, len(FIELDS) - 1, 2)
    starts = np.concatenate(([0], ends[:-1] + 1))
    if np.any(pairs[..., 1] != pairs[..., 0] + 1):
        return None
    columns = []
    for field in range(len(FIELDS)):
        first = starts if field == 0 else pairs[:, field - 1, 1] + 1
        last = ends if field == len(FIELDS) - 1 else pairs[:, field, 0]
        length = last - first
        if length.min() < 1 or length.max() > _MAX_DIGITS:
            return None
        columns.append(_parse_numbers(buffer, first, length))
    return columns


def scan_columns(path: Path, data: bytes, user_ids: np.ndarray, movie_ids: np.ndarray) -> list[np.ndarray]:
    """The same columns, read row by row and fully checked.

    Raises:
      DataError: the first line that is not as it should be.
    """
    known_users, known_movies = set(user_ids.tolist()), set(movie_ids.tolist())
    first_lines: dict[tuple[int, int], int] = {}
    rows = []
    for line, row in enumerate(split_lines(data), start=1):
        user_text, movie_text, rating_text, time_text = split_row(path, line, row, FIELDS)
        user = parse_id(path, line, "user_id", user_text)
        movie = parse_id(path, line, "movie_id", movie_text)
        rating = parse_integer(path, line, "rating", rating_text, LOWEST_RATING, HIGHEST_RATING)
        seconds = parse_integer(
            path, line, "timestamp", time_text, 1, MAX_TIMESTAMP, "seconds since 1970, a positive integer"
        )
        if user not in known_users:
            raise DataError(path, line, "user_id should be in users.dat", user_text)
        if movie not in known_movies:
            raise DataError(path, line, "movie_id should be in movies.dat", movie_text)
        earlier = first_lines.setdefault((user, movie), line)
        if earlier != line:
            pair = f"{user_text}::{movie_text}"
            raise DataError(path, line, f"a user should rate a movie once, and line {earlier} has this pair", pair)
        rows.append((user, movie, rating, seconds))
    return list(np.array(rows, np.int64).reshape(-1, len(FIELDS)).T)


def _parse_numbers(buffer: np.ndarray, first: np.ndarray, length: np.ndarray) -> np.ndarray:
    """The numbers written in digits at `first`, of `length` digits: int64 [rows]."""
    numbers = np.zeros(first.size, np.int64)
    for place in range(int(length.max())):
        present = place < length
        digits = buffer[np.where(present, first + place, first)] - ord("0")
        numbers = np.where(present, numbers * 10 + digits, numbers)
    return numbers


def _valid(columns: list[np.ndarray], user_ids: np.ndarray, movie_ids: np.ndarray) -> bool:
    users, movies, ratings, timestamps = columns
    if ratings.min() < LOWEST_RATING or ratings.max() > HIGHEST_RATING:
        return False
    if timestamps.min() < 1 or timestamps.max() > MAX_TIMESTAMP:
        return False
    user_rows = pd.Index(user_ids).get_indexer(pd.Index(users))
    movie_rows = pd.Index(movie_ids).get_indexer(pd.Index(movies))
    if user_rows.min() < 0 or movie_rows.min() < 0:
        return False
    pairs = np.sort(user_rows.astype(np.int64) * movie_ids.size + movie_rows)
    return not np.any(pairs[1:] == pairs[:-1])
