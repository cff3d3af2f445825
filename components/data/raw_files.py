"""Reads MovieLens's files and checks them whole: a problem is an error that names file, line and value.

The layout is that of MovieLens 1M: `::` between fields, latin-1, one record a line.

    ratings.dat  UserID::MovieID::Rating::Timestamp
    users.dat    UserID::Gender::Age::Occupation::Zip-code
    movies.dat   MovieID::Title (Year)::Genre|Genre|...
    credits.csv  movie_id,director,star            (optional, UTF-8, with a header)
"""

import csv
import io
import re
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.csv

RATINGS, USERS, MOVIES, CREDITS = "ratings.dat", "users.dat", "movies.dat", "credits.csv"

AGES = (1, 18, 25, 35, 45, 50, 56)
OCCUPATIONS = range(21)
GENDERS = ("F", "M")
STARS = range(1, 6)
GENRES = (
    *("Action", "Adventure", "Animation", "Children's", "Comedy", "Crime", "Documentary", "Drama", "Fantasy"),
    *("Film-Noir", "Horror", "Musical", "Mystery", "Romance", "Sci-Fi", "Thriller", "War", "Western"),
)

_TITLE = re.compile(r".+\((\d{4})\)")
_UTF8_SEQUENCE = re.compile(rb"[\xc2-\xf4][\x80-\xbf]+")
_LARGEST = 2**63 - 1

T = TypeVar("T")


class DataError(ValueError):
    """Something in the files that should not be there.

    Attributes:
      file: the file.
      line: its line, from 1; None if the file as a whole is meant.
    """

    def __init__(self, file: Path, line: int | None, problem: str):
        """Args: problem says what should be and what was received."""
        place = str(file) if line is None else f"{file}:{line}"
        super().__init__(f"{place}: {problem}")
        self.file, self.line = file, line


class _Problem(ValueError):
    """What is wrong with a line."""


@dataclass(frozen=True)
class MovieLens:
    """The contents of a folder.

    Attributes:
      ratings: user_id, movie_id (int64), rating (float32), timestamp (int64, seconds); in file order.
      users: user_id, gender, age (code), occupation (code), zip_code.
      movies: movie_id, title (with year), release_year, genres (list).
      credits: movie_id, director, star (None where not known); None without credits.csv.
    """

    ratings: pd.DataFrame
    users: pd.DataFrame
    movies: pd.DataFrame
    credits: pd.DataFrame | None


def read_movielens(folder: Path) -> MovieLens:
    """Reads and checks a folder.

    Args:
      folder: holds ratings.dat, users.dat, movies.dat and, optionally, credits.csv.

    Raises:
      DataError: a file is missing, empty, not in its layout, or at odds with another.
    """
    if not folder.is_dir():
        raise DataError(folder, None, "should be a folder with ratings.dat, users.dat and movies.dat; there is none.")
    for name in (RATINGS, USERS, MOVIES):
        if not (folder / name).is_file():
            raise DataError(folder / name, None, "should be a file; there is none.")
    users = _read_users(folder / USERS)
    movies = _read_movies(folder / MOVIES)
    ratings = _read_ratings(folder / RATINGS, users["user_id"].to_numpy(), movies["movie_id"].to_numpy())
    credits_file = folder / CREDITS
    credits = _read_credits(credits_file, set(movies["movie_id"])) if credits_file.is_file() else None
    return MovieLens(ratings, users, movies, credits)


def _read_users(path: Path) -> pd.DataFrame:
    def parse(fields: list[str]) -> tuple[int, str, int, int, str]:
        return (
            _integer("user id", fields[0]),
            _one_of("gender", fields[1], GENDERS),
            _code("age", fields[2], AGES),
            _code("occupation", fields[3], OCCUPATIONS),
            _filled("zip code", fields[4]),
        )

    rows = list(_records(path, 5, parse))
    frame = pd.DataFrame(rows, columns=["user_id", "gender", "age", "occupation", "zip_code"])
    _unique(path, "user id", frame["user_id"])
    return frame


def _read_movies(path: Path) -> pd.DataFrame:
    def parse(fields: list[str]) -> tuple[int, str, int, list[str]]:
        return _integer("movie id", fields[0]), fields[1], _year(fields[1]), _genres(fields[2])

    rows = list(_records(path, 3, parse, utf8_refused=True))
    frame = pd.DataFrame(rows, columns=["movie_id", "title", "release_year", "genres"])
    _unique(path, "movie id", frame["movie_id"])
    return frame


def _read_ratings(path: Path, user_ids: np.ndarray, movie_ids: np.ndarray) -> pd.DataFrame:
    frame = _parse_ratings(path)
    if frame is None or not _plausible(frame, user_ids, movie_ids):
        # Something is wrong somewhere: look for it line by line.
        users, movies = set(user_ids.tolist()), set(movie_ids.tolist())

        def check(fields: list[str]) -> None:
            _known("user id", _integer("user id", fields[0]), users, USERS)
            _known("movie id", _integer("movie id", fields[1]), movies, MOVIES)
            _code("rating", fields[2], STARS)
            _integer("timestamp", fields[3])

        deque(_records(path, 4, check), maxlen=0)
        if frame is None:
            raise DataError(path, None, "should hold records of four integers; it cannot be parsed.")
    pairs = frame["user_id"].to_numpy() * (int(movie_ids.max()) + 1) + frame["movie_id"].to_numpy()
    repeated = pd.Series(pairs).duplicated().to_numpy()
    if repeated.any():
        row = int(repeated.argmax())
        user, movie = frame["user_id"][row], frame["movie_id"][row]
        first = int((pairs == pairs[row]).argmax()) + 1
        problem = f"a user should rate a movie once; received user {user}, movie {movie} again, as in line {first}."
        raise DataError(path, row + 1, problem)
    return frame


def _parse_ratings(path: Path) -> pd.DataFrame | None:
    """The ratings, at the speed of a C parser; None where the file is not a plain table of integers."""
    content = path.read_bytes()
    if b"\t" in content or b"\r" in content or b'"' in content:
        return None
    names = ["user_id", "movie_id", "rating", "timestamp"]
    try:
        table = pa.csv.read_csv(
            io.BytesIO(content.replace(b"::", b"\t")),
            read_options=pa.csv.ReadOptions(column_names=names, use_threads=False),
            parse_options=pa.csv.ParseOptions(delimiter="\t", ignore_empty_lines=False),
            convert_options=pa.csv.ConvertOptions(
                column_types=dict.fromkeys(names, pa.int64()), null_values=[], strings_can_be_null=False
            ),
        )
    except pa.ArrowInvalid:
        return None
    return table.to_pandas().astype({"rating": np.float32})


def _plausible(frame: pd.DataFrame, user_ids: np.ndarray, movie_ids: np.ndarray) -> bool:
    return bool(
        len(frame) > 0
        and frame["rating"].isin(STARS).all()
        and frame["user_id"].isin(user_ids).all()
        and frame["movie_id"].isin(movie_ids).all()
        and (frame["timestamp"] > 0).all()
    )


def _read_credits(path: Path, movie_ids: set[int]) -> pd.DataFrame:
    content = path.read_bytes()
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        received = content[error.start : error.start + 12]
        raise DataError(path, line, f"should be UTF-8; received {received!r}.") from error
    reader = csv.reader(io.StringIO(text))
    header = ["movie_id", "director", "star"]
    if (received_header := next(reader, [])) != header:
        raise DataError(path, 1, f"should begin with {','.join(header)}; received {','.join(received_header)!r}.")
    rows = []
    try:
        for fields in reader:
            with _located(path, reader.line_num):
                _count(fields, 3, ",")
                movie = _integer("movie id", fields[0])
                _known("movie id", movie, movie_ids, MOVIES)
                rows.append((movie, *(field.strip() or None for field in fields[1:])))
    except csv.Error as error:
        raise DataError(path, reader.line_num, f"should be CSV; {error}.") from error
    frame = pd.DataFrame(rows, columns=header)
    _unique(path, "movie id", frame["movie_id"], first_line=2)
    return frame


class _located:
    """Says in which line a problem was met."""

    def __init__(self, path: Path, line: int):
        self._path, self._line = path, line

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, _Problem):
            raise DataError(self._path, self._line, str(error)) from None


def _records(path: Path, count: int, parse: Callable[[list[str]], T], utf8_refused: bool = False) -> Iterator[T]:
    """What `parse` makes of the fields of each line; a problem that it meets is given its line."""
    content = path.read_bytes()
    if not content.strip():
        raise DataError(path, None, "should hold records; it is empty.")
    for number, line in enumerate(content.removesuffix(b"\n").split(b"\n"), start=1):
        with _located(path, number):
            if utf8_refused and (sequence := _UTF8_SEQUENCE.search(line)):
                _refuse_utf8(sequence.group())
            text = line.decode("latin-1")
            if not text.strip():
                raise _Problem("should be a record; the line is blank.")
            fields = text.split("::")
            _count(fields, count, "::", text)
            record = parse(fields)
        yield record


def _refuse_utf8(sequence: bytes) -> None:
    try:
        character = sequence.decode("utf-8")
    except UnicodeDecodeError:
        return
    raise _Problem(f"should be latin-1; received {character!r} in UTF-8.")


def _count(fields: list[str], count: int, separator: str, text: str | None = None) -> None:
    if len(fields) != count:
        received = separator.join(fields) if text is None else text
        raise _Problem(f"should have {count} fields between {separator!r}; received {len(fields)}: {received!r}.")


def _integer(name: str, text: str) -> int:
    if not re.fullmatch(r"[0-9]+", text) or not 0 < int(text) <= _LARGEST:
        raise _Problem(f"{name} should be a positive integer; received {text!r}.")
    return int(text)


def _code(name: str, text: str, codes: range | tuple[int, ...]) -> int:
    value = int(text) if re.fullmatch(r"[0-9]{1,9}", text) else None
    if value not in codes:
        expected = f"{codes[0]} to {codes[-1]}" if isinstance(codes, range) else f"one of {', '.join(map(str, codes))}"
        raise _Problem(f"{name} should be {expected}; received {text!r}.")
    return value


def _one_of(name: str, text: str, values: tuple[str, ...]) -> str:
    if text not in values:
        raise _Problem(f"{name} should be one of {', '.join(values)}; received {text!r}.")
    return text


def _filled(name: str, text: str) -> str:
    if not text.strip() or text != text.strip():
        raise _Problem(f"{name} should be text without blanks around it; received {text!r}.")
    return text


def _year(title: str) -> int:
    match = _TITLE.fullmatch(title)
    if match is None:
        raise _Problem(f"title should end with a year, as in 'Toy Story (1995)'; received {title!r}.")
    return int(match.group(1))


def _genres(text: str) -> list[str]:
    genres = text.split("|")
    for genre in genres:
        _one_of("genre", genre, GENRES)
    if len(set(genres)) < len(genres):
        raise _Problem(f"genres should differ; received {text!r}.")
    return genres


def _known(name: str, value: int, known: set[int], file: str) -> None:
    if value not in known:
        raise _Problem(f"{name} should be in {file}; received {value}, which is not.")


def _unique(path: Path, name: str, values: pd.Series, first_line: int = 1) -> None:
    repeated = values.duplicated()
    if repeated.any():
        row = int(repeated.to_numpy().argmax())
        raise DataError(path, row + first_line, f"{name} should be unique; received {values[row]} again.")
