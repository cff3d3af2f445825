"""Reads a folder in MovieLens 1M's layout: users.dat, movies.dat, ratings.dat and, if present, credits.csv."""

import codecs
import csv
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from components.data.bad_rows import BadRow, check_any_good, check_tolerance
from components.data.layout import (
    DataError,
    RowError,
    check_field_count,
    check_not_blank,
    parse_id,
    parse_integer,
    read_bytes,
    split_lines,
    split_row,
)
from components.data.places import check_answered, reason
from components.data.ratings_file import read_ratings
from transform.features import AGE_CODES, EARLIEST_YEAR, GENDERS, GENRES, LATEST_YEAR, OCCUPATIONS

__all__ = ["CREDITS_FILE", "MOVIES_FILE", "RATINGS_FILE", "USERS_FILE", "DataError", "MovieLens", "read_movielens"]

USERS_FILE = "users.dat"
MOVIES_FILE = "movies.dat"
RATINGS_FILE = "ratings.dat"
CREDITS_FILE = "credits.csv"

USER_FIELDS = ("user_id", "gender", "age", "occupation", "zip_code")
MOVIE_FIELDS = ("movie_id", "title", "genres")
CREDIT_FIELDS = ("movie_id", "director", "star")

_AGE_TEXTS = tuple(str(code) for code in AGE_CODES)
_TITLE = re.compile(r"[^\s:].*\(([0-9]{4})\)")
_ZIP_CODE = re.compile(r"[0-9A-Za-z][0-9A-Za-z -]*")

_GoodAndBadRows = tuple[pd.DataFrame, list[BadRow]]


@dataclass(frozen=True)
class MovieLens:
    """A checked data set: every rating's user and movie is known; ids and (user, movie) pairs are unique.

    Attributes:
      ratings: columns user_id, movie_id, timestamp (int64, seconds since 1970), rating (float32, 1 to 5); in file
        order.
      users: columns user_id, age (code of a bucket), occupation (0 to 20) (int64), gender (M or F), zip_code (str).
      movies: columns movie_id, release_year (int64), title (str, with the year, as in the file), genres (list of str).
      credits: columns movie_id (int64), director, star (str, or None if unknown); None if there is no credits.csv.
      bad_rows: the rows that were left out, grouped by file.
    """

    ratings: pd.DataFrame
    users: pd.DataFrame
    movies: pd.DataFrame
    credits: pd.DataFrame | None
    bad_rows: tuple[BadRow, ...] = ()


def read_movielens(folder: Path, tolerance: float = 0.0) -> MovieLens:
    """Reads and checks a folder; 1M ratings take about a second.

    A row is bad if it is malformed or has an invalid value, if an earlier good row has the same id or the same pair of
    user and movie, or if it refers to a user or a movie that has no good row.

    Args:
      folder: the folder with the files.
      tolerance: share of a file's rows, 0 to 1, that may be bad; these are left out. With 0, one bad row is an error.

    Raises:
      DataError: a file is missing, has too many bad rows, or has no good row; the message counts all bad rows by kind
        and shows the first few of each kind.
      ConnectionError: the store that has the files did not answer.
    """
    try:
        _check_files(folder)
    except OSError as error:
        check_answered(folder, error)
        raise DataError(folder, None, f"should be a folder that can be read; {reason(error)}") from error
    users, bad_users = read_users(folder / USERS_FILE)
    movies, bad_movies = read_movies(folder / MOVIES_FILE)
    user_ids, movie_ids = users["user_id"].to_numpy(), movies["movie_id"].to_numpy()
    credits_path = folder / CREDITS_FILE
    credits_, bad_credits = read_credits(credits_path, movie_ids) if credits_path.exists() else (None, [])
    ratings, bad_ratings = read_ratings(folder / RATINGS_FILE, user_ids, movie_ids)

    bad_rows = (*bad_users, *bad_movies, *bad_credits, *bad_ratings)
    tables = {USERS_FILE: users, MOVIES_FILE: movies, RATINGS_FILE: ratings}
    good = {folder / name: len(table) for name, table in tables.items()}
    check_tolerance(bad_rows, good | ({} if credits_ is None else {credits_path: len(credits_)}), tolerance)
    check_any_good(bad_rows, good)
    return MovieLens(ratings=ratings, users=users, movies=movies, credits=credits_, bad_rows=bad_rows)


def _check_files(folder: Path) -> None:
    """Raises DataError if the folder or a file is missing, OSError if the folder may not be accessed."""
    if not folder.is_dir():
        names = f"{USERS_FILE}, {MOVIES_FILE} and {RATINGS_FILE}"
        raise DataError(folder, None, f"should be a folder with {names}; there is none at {folder.absolute()}")
    for name in (USERS_FILE, MOVIES_FILE, RATINGS_FILE):
        if not (folder / name).exists():
            raise DataError(folder / name, None, f"should be in {folder}; no such file")


def read_users(path: Path) -> _GoodAndBadRows:
    """Reads users.dat: `user_id::gender::age::occupation::zip_code`; returns the good rows and the bad rows."""
    lines = enumerate(split_lines(read_bytes(path)), start=1)
    rows, bad = read_rows(path, lines, "user_id", _parse_user)
    frame = pd.DataFrame(rows, columns=list(USER_FIELDS))
    return frame.astype({"user_id": np.int64, "age": np.int64, "occupation": np.int64}), bad


def _parse_user(row: bytes) -> tuple[int, str, int, int, str]:
    user_text, gender, age_text, occupation_text, zip_code = split_row(row, USER_FIELDS)
    user_id = parse_id("user_id", user_text)
    if gender not in GENDERS:
        raise RowError("unknown gender", "gender should be M or F", gender)
    if age_text not in _AGE_TEXTS:
        raise RowError("unknown age", f"age should be one of the codes {', '.join(_AGE_TEXTS)}", age_text)
    occupation = parse_integer("occupation", occupation_text, 0, OCCUPATIONS - 1)
    if not _ZIP_CODE.fullmatch(zip_code):
        raise RowError("malformed zip_code", "zip_code should be digits, letters and dashes", zip_code)
    return user_id, gender, int(age_text), occupation, zip_code


def read_movies(path: Path) -> _GoodAndBadRows:
    """Reads movies.dat: `movie_id::title (year)::genre|genre`; returns the good rows and the bad rows."""
    lines = enumerate(split_lines(read_bytes(path)), start=1)
    rows, bad = read_rows(path, lines, "movie_id", _parse_movie)
    frame = pd.DataFrame(rows, columns=["movie_id", "title", "release_year", "genres"])
    return frame.astype({"movie_id": np.int64, "release_year": np.int64}), bad


def _parse_movie(row: bytes) -> tuple[int, str, int, list[str]]:
    movie_text, title, genres_text = split_row(row, MOVIE_FIELDS)
    movie_id = parse_id("movie_id", movie_text)
    match = _TITLE.fullmatch(title)
    if match is None:
        raise RowError("title without year", "title should end with its year, as in 'Toy Story (1995)'", title)
    year = parse_integer("release_year", match.group(1), EARLIEST_YEAR, LATEST_YEAR)
    genres = genres_text.split("|")
    for genre in genres:
        if genre not in GENRES:
            raise RowError("unknown genre", f"a genre should be one of {', '.join(GENRES)}", genre)
    if len(set(genres)) != len(genres):
        raise RowError("repeated genre", "a movie should have a genre once", genres_text)
    return movie_id, title, year, genres


def read_credits(path: Path, movie_ids: np.ndarray) -> _GoodAndBadRows:
    """Reads credits.csv: UTF-8 with the header `movie_id,director,star`; a blank name means unknown.

    Args:
      path: the file.
      movie_ids: int64 [movies], the known movies.

    Returns:
      The good rows and the bad rows. A row is bad if it is malformed, not UTF-8, of an unknown movie, or of a movie
      that has an earlier good row.

    Raises:
      DataError: the file cannot be read, is empty, or has another header.
    """
    lines = lines_below_header(path, CREDIT_FIELDS)
    known = set(movie_ids.tolist())

    def parse(row: bytes) -> tuple[int, str | None, str | None]:
        movie_id, director, star = _parse_credits(row)
        if movie_id not in known:
            raise RowError("unknown movie", f"movie_id should be in {MOVIES_FILE}", str(movie_id))
        return movie_id, director, star

    rows, bad = read_rows(path, lines, "movie_id", parse)
    frame = pd.DataFrame(rows, columns=list(CREDIT_FIELDS), dtype=object)
    return frame.astype({"movie_id": np.int64}), bad


def _parse_credits(row: bytes) -> tuple[int, str | None, str | None]:
    try:
        text = row.decode("utf-8")
    except UnicodeDecodeError as error:
        raise RowError("text not in UTF-8", "text should be UTF-8", row.decode("latin-1")) from error
    if not text.isprintable():
        raise RowError("unprintable text", "a row should be printable text", text)
    check_not_blank(row)
    try:
        fields = next(csv.reader([text], strict=True))
    except csv.Error as error:
        raise RowError("malformed CSV", f"should be a CSV row ({error})", text) from error
    check_field_count(fields, CREDIT_FIELDS, ",", text)
    movie_text, director, star = fields
    return parse_id("movie_id", movie_text), director.strip() or None, star.strip() or None


def lines_below_header(path: Path, names: Sequence[str]) -> Iterable[tuple[int, bytes]]:
    """Returns the lines below the header of a CSV file, numbered from 2.

    Raises:
      DataError: the file cannot be read, is empty, or has another header.
    """
    first_line, *rows = split_lines(read_bytes(path))
    header = ",".join(names)
    if first_line.removeprefix(codecs.BOM_UTF8) != header.encode():
        raise DataError(path, 1, f"the header should be {header}", first_line.decode("utf-8", "replace"))
    return enumerate(rows, start=2)


def read_rows(
    path: Path, lines: Iterable[tuple[int, bytes]], id_name: str, parse: Callable[[bytes], tuple[Any, ...]]
) -> tuple[list[tuple[Any, ...]], list[BadRow]]:
    """Parses lines into good rows and bad rows.

    The first value that `parse` returns is the row's id. A row is bad if `parse` raises RowError, or if an earlier good
    row has the same id.
    """
    rows, bad = [], []
    first_lines: dict[int, int] = {}
    for line, text in lines:
        try:
            row = parse(text)
            earlier = first_lines.setdefault(row[0], line)
            if earlier != line:
                expected = f"{id_name} should be unique, and line {earlier} has it"
                raise RowError(f"duplicate {id_name}", expected, str(row[0]))
            rows.append(row)
        except RowError as error:
            bad.append(BadRow.of(path, line, error, text.decode("latin-1")))
    return rows, bad
