"""Reads ratings.dat: `user_id::movie_id::rating::timestamp`.

NumPy parses and checks a million rows at once, directly on the bytes of the file. Only the rows that this fast path
does not accept are parsed one by one, to find out what is wrong with them.
"""

from pathlib import Path

import numpy as np
import pandas as pd

from components.data.bad_rows import BadRow
from components.data.layout import (
    MAX_TIMESTAMP,
    SEPARATOR,
    RowError,
    parse_id,
    parse_integer,
    read_bytes,
    split_row,
)
from transform.features import HIGHEST_RATING, LOWEST_RATING

FIELDS = ("user_id", "movie_id", "rating", "timestamp")
_COLONS = 2 * (len(FIELDS) - 1)  # In a row: two for each separator.
_MAX_DIGITS = 18  # A number of 18 digits always fits int64.


def read_ratings(path: Path, user_ids: np.ndarray, movie_ids: np.ndarray) -> tuple[pd.DataFrame, list[BadRow]]:
    """Reads and checks the ratings.

    Args:
      path: the file.
      user_ids: int64 [users], the known users.
      movie_ids: int64 [movies], the known movies.

    Returns:
      The good rows, in file order: user_id, movie_id and timestamp (int64, seconds since 1970), rating (float32). And
      the bad rows: those that are malformed, have a value out of range or an unknown user or movie, or repeat the
      (user, movie) pair of an earlier good row.

    Raises:
      DataError: the file cannot be read or is empty.
    """
    lines = Lines(path, read_bytes(path))
    columns, is_parsed = parse_columns(lines)
    bad = _parse_one_by_one(lines, columns, is_parsed & _in_range(columns))
    is_good = np.ones(lines.count, bool)
    is_good[[row.line - 1 for row in bad]] = False

    user_rows = pd.Index(user_ids).get_indexer(pd.Index(columns[0]))
    movie_rows = pd.Index(movie_ids).get_indexer(pd.Index(columns[1]))
    for field, kind, found in ((0, "user", user_rows), (1, "movie", movie_rows)):
        unknown = np.flatnonzero((found < 0) & is_good)
        is_good[unknown] = False
        expected = f"{kind}_id should be in {kind}s.dat"
        bad += [lines.bad_row(row, f"unknown {kind}", expected, slice(field, field + 1)) for row in unknown.tolist()]

    good = np.flatnonzero(is_good)
    repeats, firsts = _find_repeats(user_rows[good].astype(np.int64) * movie_ids.size + movie_rows[good])
    is_good[good[repeats]] = False
    for row, first in zip(good[repeats].tolist(), good[firsts].tolist(), strict=True):
        expected = f"a user should rate a movie once, and line {first + 1} has this pair"
        bad.append(lines.bad_row(row, "duplicate pair", expected, slice(2)))

    users, movies, ratings, timestamps = columns[:, is_good] if bad else columns
    table = {"user_id": users, "movie_id": movies, "rating": ratings.astype(np.float32), "timestamp": timestamps}
    return pd.DataFrame(table), sorted(bad, key=lambda row: row.line)


class Lines:
    """The lines of a file, as offsets into its bytes.

    Attributes:
      buffer: uint8 [bytes], the file, with LF at the end of every line.
      starts, ends: int64 [count], offsets of each line's first byte and of its LF.
      count: number of lines.
    """

    def __init__(self, path: Path, data: bytes) -> None:
        if b"\r" in data:
            data = data.replace(b"\r\n", b"\n")
        if not data.endswith(b"\n"):
            data = data.removesuffix(b"\r") + b"\n"
        self._path, self._data = path, data
        self.buffer = np.frombuffer(data, np.uint8)
        self.ends = np.flatnonzero(self.buffer == ord("\n"))
        self.starts = np.concatenate(([0], self.ends[:-1] + 1))
        self.count = self.ends.size

    def __getitem__(self, row: int) -> bytes:
        return self._data[self.starts[row] : self.ends[row]]

    def bad_row(self, row: int, kind: str, expected: str, fields: slice) -> BadRow:
        """Makes the BadRow of a row that can be parsed but has unexpected values; its message quotes `fields`."""
        text = self[row].decode("latin-1")
        return BadRow(self._path, row + 1, kind, expected, SEPARATOR.join(text.split(SEPARATOR)[fields]), text)

    def unreadable_row(self, row: int, error: RowError) -> BadRow:
        """Makes the BadRow of a row that cannot be parsed."""
        return BadRow.of(self._path, row + 1, error, self[row].decode("latin-1"))


def parse_columns(lines: Lines) -> tuple[np.ndarray, np.ndarray]:
    """Parses the rows that consist of digits and `::` only, and leaves the others to `parse_row`.

    Returns:
      int64 [4, rows], the columns, with 0 in rows that were not parsed; and bool [rows], which rows were parsed.
    """
    buffer, starts, ends = lines.buffer, lines.starts, lines.ends
    colons = np.flatnonzero(buffer == ord(":"))
    colons_before = np.searchsorted(colons, ends)
    is_parsed = np.diff(colons_before, prepend=0) == _COLONS
    others = np.flatnonzero((buffer > ord(":")) | ((buffer < ord("0")) & (buffer != ord("\n"))))
    is_parsed[np.searchsorted(ends, others)] = False

    rows = np.flatnonzero(is_parsed)
    places = colons[(colons_before[rows] - _COLONS)[:, np.newaxis] + np.arange(_COLONS)].reshape(-1, _COLONS // 2, 2)
    firsts = np.column_stack([starts[rows], places[..., 1] + 1])
    lengths = np.column_stack([places[..., 0], ends[rows]]) - firsts
    fits = (places[..., 1] == places[..., 0] + 1).all(axis=1) & ((lengths >= 1) & (lengths <= _MAX_DIGITS)).all(axis=1)
    is_parsed[rows] = fits
    columns = np.zeros((len(FIELDS), lines.count), np.int64)
    for column, first, length in zip(columns, firsts[fits].T, lengths[fits].T, strict=True):
        column[is_parsed] = _parse_numbers(buffer, first, length)
    return columns, is_parsed


def parse_row(row: bytes) -> tuple[int, int, int, int]:
    """Parses one row into user, movie, rating and timestamp.

    Raises:
      RowError: the row is malformed, or a value is out of range.
    """
    user_text, movie_text, rating_text, time_text = split_row(row, FIELDS)
    seconds = "seconds since 1970, a positive integer"
    return (
        parse_id("user_id", user_text),
        parse_id("movie_id", movie_text),
        parse_integer("rating", rating_text, LOWEST_RATING, HIGHEST_RATING),
        parse_integer("timestamp", time_text, 1, MAX_TIMESTAMP, seconds),
    )


def _parse_one_by_one(lines: Lines, columns: np.ndarray, is_good: np.ndarray) -> list[BadRow]:
    """Parses the rows that are not known to be good into `columns`, and returns those that cannot be parsed."""
    bad = []
    for row in np.flatnonzero(~is_good).tolist():
        try:
            columns[:, row] = parse_row(lines[row])
        except RowError as error:
            bad.append(lines.unreadable_row(row, error))
    return bad


def _in_range(columns: np.ndarray) -> np.ndarray:
    users, movies, ratings, timestamps = columns
    return (
        (users >= 1)
        & (movies >= 1)
        & (ratings >= LOWEST_RATING)
        & (ratings <= HIGHEST_RATING)
        & (timestamps >= 1)
        & (timestamps <= MAX_TIMESTAMP)
    )


def _parse_numbers(buffer: np.ndarray, first: np.ndarray, length: np.ndarray) -> np.ndarray:
    """Parses the decimal numbers that start at offset `first` and have `length` digits: int64 [rows]."""
    numbers = np.zeros(first.size, np.int64)
    for place in range(int(length.max(initial=0))):
        present = place < length
        digits = buffer[np.where(present, first + place, first)] - ord("0")
        numbers = np.where(present, numbers * 10 + digits, numbers)
    return numbers


def _find_repeats(keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the indices of the keys that occurred before, and for each the index of its first occurrence."""
    sorted_keys = np.sort(keys)
    if not np.any(sorted_keys[1:] == sorted_keys[:-1]):
        return np.array([], np.int64), np.array([], np.int64)
    _, firsts, inverse = np.unique(keys, return_index=True, return_inverse=True)
    first_of_each = firsts[inverse]
    repeats = np.flatnonzero(first_of_each != np.arange(keys.size))
    return repeats, first_of_each[repeats]
