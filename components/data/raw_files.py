"""Reads a folder in MovieLens 1M's layout: users.dat, movies.dat, ratings.dat and, where there is one, credits.csv."""

import csv
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from components.data.layout import (
    AGE_CODES,
    GENDERS,
    GENRES,
    OCCUPATIONS,
    DataError,
    parse_id,
    parse_integer,
    read_bytes,
    split_lines,
    split_row,
)
from components.data.ratings_file import read_ratings

__all__ = ["CREDITS_FILE", "MOVIES_FILE", "RATINGS_FILE", "USERS_FILE", "DataError", "MovieLens", "read_movielens"]

USERS_FILE = "users.dat"
MOVIES_FILE = "movies.dat"
RATINGS_FILE = "ratings.dat"
CREDITS_FILE = "credits.csv"

USER_FIELDS = ("user_id", "gender", "age", "occupation", "zip_code")
MOVIE_FIELDS = ("movie_id", "title", "genres")
CREDIT_FIELDS = ("movie_id", "director", "star")

_AGE_TEXTS = tuple(str(code) for code in AGE_CODES)
_TITLE = re.compile(r"[^\s:].*\(([12][0-9]{3})\)")
_ZIP_CODE = re.compile(r"[0-9A-Za-z][0-9A-Za-z -]*")


@dataclass(frozen=True)
class MovieLens:
    """A data set, checked: every rating's user and movie is known, ids and (user, movie) pairs are unique.

    Attributes:
      ratings: user_id, movie_id, timestamp (int64, seconds since 1970), rating (float32, 1 to 5), in file order.
      users: user_id, age (code of a bucket), occupation (0 to 20) (int64), gender (M or F), zip_code (str).
      movies: movie_id, release_year (int64), title (str, with the year, as in the file), genres (list of str).
      credits: movie_id (int64), director, star (str, or None where unknown); None where there is no credits.csv.
    """

    ratings: pd.DataFrame
    users: pd.DataFrame
    movies: pd.DataFrame
    credits: pd.DataFrame | None


def read_movielens(folder: Path) -> MovieLens:
    """Reads and checks a folder; 1M ratings take about a second.

    Raises:
      DataError: a file is missing, or has a line that is not as it should be (the first one of the file).
    """
    folder = Path(folder)
    try:
        _check_files(folder)
    except OSError as error:
        raise DataError(folder, None, f"should be a folder that can be read; {error.strerror}") from error
    users = read_users(folder / USERS_FILE)
    movies = read_movies(folder / MOVIES_FILE)
    movie_ids = movies["movie_id"].to_numpy()
    credits_path = folder / CREDITS_FILE
    credits_ = read_credits(credits_path, movie_ids) if credits_path.exists() else None
    ratings = read_ratings(folder / RATINGS_FILE, users["user_id"].to_numpy(), movie_ids)
    return MovieLens(ratings=ratings, users=users, movies=movies, credits=credits_)


def _check_files(folder: Path) -> None:
    """Raises DataError where the folder or a file is missing, OSError where nobody may look."""
    if not folder.is_dir():
        names = f"{USERS_FILE}, {MOVIES_FILE} and {RATINGS_FILE}"
        raise DataError(folder, None, f"should be a folder with {names}; there is none at {folder.absolute()}")
    for name in (USERS_FILE, MOVIES_FILE, RATINGS_FILE):
        if not (folder / name).exists():
            raise DataError(folder / name, None, f"should be in {folder}; no such file")


def read_users(path: Path) -> pd.DataFrame:
    """Reads users.dat: `user_id::gender::age::occupation::zip_code`."""
    rows = []
    first_lines: dict[int, int] = {}
    for line, row in enumerate(split_lines(read_bytes(path)), start=1):
        user_text, gender, age_text, occupation_text, zip_code = split_row(path, line, row, USER_FIELDS)
        user_id = parse_id(path, line, "user_id", user_text)
        _check_unique(path, line, "user_id", user_id, first_lines)
        if gender not in GENDERS:
            raise DataError(path, line, "gender should be M or F", gender)
        if age_text not in _AGE_TEXTS:
            raise DataError(path, line, f"age should be one of the codes {', '.join(_AGE_TEXTS)}", age_text)
        occupation = parse_integer(path, line, "occupation", occupation_text, 0, OCCUPATIONS - 1)
        if not _ZIP_CODE.fullmatch(zip_code):
            raise DataError(path, line, "zip_code should be digits, letters and dashes", zip_code)
        rows.append((user_id, gender, int(age_text), occupation, zip_code))
    frame = pd.DataFrame(rows, columns=list(USER_FIELDS))
    return frame.astype({"user_id": np.int64, "age": np.int64, "occupation": np.int64})


def read_movies(path: Path) -> pd.DataFrame:
    """Reads movies.dat: `movie_id::title (year)::genre|genre`."""
    rows = []
    first_lines: dict[int, int] = {}
    for line, row in enumerate(split_lines(read_bytes(path)), start=1):
        movie_text, title, genres_text = split_row(path, line, row, MOVIE_FIELDS)
        movie_id = parse_id(path, line, "movie_id", movie_text)
        _check_unique(path, line, "movie_id", movie_id, first_lines)
        match = _TITLE.fullmatch(title)
        if match is None:
            raise DataError(path, line, "title should end with its year, as in 'Toy Story (1995)'", title)
        genres = genres_text.split("|")
        for genre in genres:
            if genre not in GENRES:
                raise DataError(path, line, f"a genre should be one of {', '.join(GENRES)}", genre)
        if len(set(genres)) != len(genres):
            raise DataError(path, line, "a movie should have a genre once", genres_text)
        rows.append((movie_id, title, int(match.group(1)), genres))
    frame = pd.DataFrame(rows, columns=["movie_id", "title", "release_year", "genres"])
    return frame.astype({"movie_id": np.int64, "release_year": np.int64})


def read_credits(path: Path, movie_ids: np.ndarray) -> pd.DataFrame:
    """Reads credits.csv: UTF-8, `movie_id,director,star` with that header; a blank name is unknown.

    Args:
      path: the file.
      movie_ids: int64 [movies], the known movies.

    Raises:
      DataError: the first line that is not UTF-8 or not as described, or whose movie is unknown or came before.
    """
    data = read_bytes(path)
    lines = []
    for line, row in enumerate(split_lines(data), start=1):
        try:
            text = row.decode("utf-8-sig" if line == 1 else "utf-8")
        except UnicodeDecodeError as error:
            raise DataError(path, line, "text should be UTF-8", row.decode("latin-1")) from error
        if not text.isprintable():
            raise DataError(path, line, "a row should be printable text", text)
        lines.append(text)
    header = ",".join(CREDIT_FIELDS)
    if lines[0] != header:
        raise DataError(path, 1, f"the header should be {header}", lines[0])
    known = set(movie_ids.tolist())
    first_lines: dict[int, int] = {}
    rows = []
    for line, text in enumerate(lines[1:], start=2):
        movie_text, director, star = _split_csv(path, line, text)
        movie_id = parse_id(path, line, "movie_id", movie_text)
        _check_unique(path, line, "movie_id", movie_id, first_lines)
        if movie_id not in known:
            raise DataError(path, line, f"movie_id should be in {MOVIES_FILE}", movie_text)
        rows.append((movie_id, director.strip() or None, star.strip() or None))
    frame = pd.DataFrame(rows, columns=list(CREDIT_FIELDS), dtype=object)
    return frame.astype({"movie_id": np.int64})


def _check_unique(path: Path, line: int, name: str, number: int, first_lines: dict[int, int]) -> None:
    earlier = first_lines.setdefault(number, line)
    if earlier != line:
        raise DataError(path, line, f"{name} should be unique, and line {earlier} has it", str(number))


def _split_csv(path: Path, line: int, text: str) -> list[str]:
    if not text.strip():
        raise DataError(path, line, "should be a row; the line is blank", text)
    try:
        fields = next(csv.reader([text], strict=True))
    except csv.Error as error:
        raise DataError(path, line, f"should be a CSV row ({error})", text) from error
    if len(fields) != len(CREDIT_FIELDS):
        expected = ",".join(CREDIT_FIELDS)
        raise DataError(path, line, f"a row should have {len(CREDIT_FIELDS)} fields, {expected}", text)
    return fields
