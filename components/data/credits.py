r"""Makes credits.csv, the director and the star of every movie, from MovieLens's links.csv and IMDb's public tables.

The director is the first that title.crew lists or, if it lists none, the first principal whose category is director.
The star is the first principal (the lowest `ordering`) who is an actor, an actress or appears as themselves; if there
is none, as in some documentaries, the first who appears in archive footage. People without a name in name.basics are
skipped; if nobody is left, the name stays blank.
"""

import csv
import io
import os
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from components.data.bad_rows import check_tolerance
from components.data.imdb_tables import BLOCK_BYTES, Progress, find_table, wanted_rows
from components.data.layout import (
    MAX_ID,
    DataError,
    RowError,
    check_field_count,
    check_not_blank,
    parse_id,
)
from components.data.raw_files import CREDIT_FIELDS, lines_below_header, read_movies, read_rows

TITLES, CREW, PRINCIPALS, NAMES = "title.basics.tsv", "title.crew.tsv", "title.principals.tsv", "name.basics.tsv"
LINK_FIELDS = ("movieId", "imdbId", "tmdbId")

_STAR_CATEGORIES = ("actor", "actress", "self")
_CATEGORIES = (*_STAR_CATEGORIES, "archive_footage", "director")
_IMDB_ID = re.compile(r"[0-9]{1,12}")

# Candidates for a title's director or star, best first, by the title's IMDb id.
People = dict[str, list[str]]


@dataclass(frozen=True)
class LinkCounts:
    """How many links led to a title, a director and a star.

    Attributes:
      movies: number of rows in credits.csv.
      with_director, with_star: number of rows with a director, and with a star.
      without_id: number of links without an IMDb id.
      unknown: number of links to titles that title.basics does not have.
      other_types: number of titles by IMDb's title type, for types other than movie, such as tvMovie.
    """

    movies: int
    with_director: int
    with_star: int
    without_id: int
    unknown: int
    other_types: dict[str, int]

    @property
    def unmatched(self) -> int:
        """Number of links that lead to no title."""
        return self.without_id + self.unknown


def check_output_file(output: Path, force: bool = False) -> None:
    """Checks that a file can be written.

    Args:
      output: the file.
      force: whether an existing file may be replaced.

    Raises:
      FileExistsError: the file exists (without `force`), is a folder, or one of its parents is a file.
    """
    for parent in output.absolute().parents:
        if parent.exists() and not parent.is_dir():
            raise FileExistsError(f"{output}: should be in a folder; {parent} is a file.")
    if output.is_dir():
        raise FileExistsError(f"{output}: should be a file; received a folder.")
    if output.exists() and not force:
        raise FileExistsError(f"{output}: should be a new file; there is one, which --force replaces.")


def make_credits(
    links: Path,
    imdb: Path,
    output: Path,
    movie_ids: Iterable[int] | None = None,
    force: bool = False,
    progress: Progress | None = None,
    block_bytes: int = BLOCK_BYTES,
) -> LinkCounts:
    """Writes credits.csv atomically: the whole file or nothing.

    Args:
      links: links.csv of a MovieLens data set.
      imdb: folder of title.basics, title.crew, title.principals and name.basics, .tsv or .tsv.gz.
      output: the file to write.
      movie_ids: ids of the movies to write, for instance those of movies.dat; None for all movies in `links`.
      force: whether an existing file is replaced.
      progress: called while the tables are read; None for no calls.
      block_bytes: how many bytes of a table are read at once.

    Raises:
      FileExistsError: as `check_output_file`.
      DataError: a file is missing, or has a malformed line.
    """
    check_output_file(output, force)
    tables = {name: find_table(imdb, name) for name in (TITLES, CREW, PRINCIPALS, NAMES)}
    titles = read_links(links)
    if movie_ids is not None:
        wanted = set(movie_ids)
        titles = {movie_id: title for movie_id, title in titles.items() if movie_id in wanted}
    ids = _string_array(title for title in titles.values() if title)
    types = _read_types(tables[TITLES], ids, progress, block_bytes)
    directors = _read_directors(tables[CREW], ids, progress, block_bytes)
    stars = _read_principals(tables[PRINCIPALS], ids, directors, progress, block_bytes)
    people = _string_array(person for group in (directors, stars) for persons in group.values() for person in persons)
    names = _read_names(tables[NAMES], people, progress, block_bytes)

    rows = [
        (movie, _first_name(directors, title, names), _first_name(stars, title, names))
        for movie, title in titles.items()
    ]
    check_output_file(output, force)
    _write(output, rows)
    return LinkCounts(
        movies=len(rows),
        with_director=sum(bool(director) for _, director, _ in rows),
        with_star=sum(bool(star) for _, _, star in rows),
        without_id=sum(not title for title in titles.values()),
        unknown=sum(bool(title) and title not in types for title in titles.values()),
        other_types=dict(Counter(kind for kind in types.values() if kind != "movie").most_common()),
    )


def read_links(path: Path) -> dict[int, str]:
    """Reads links.csv: `movieId,imdbId,tmdbId` with that header.

    Returns:
      The IMDb id by movie id, such as `tt0114709`; empty if the link has none.

    Raises:
      DataError: the file cannot be read, a line is malformed, or two lines have the same movie.
    """
    rows, bad = read_rows(path, lines_below_header(path, LINK_FIELDS), LINK_FIELDS[0], _parse_link)
    check_tolerance(bad, {path: len(rows)}, tolerance=0.0)
    return dict(rows)


def _parse_link(row: bytes) -> tuple[int, str]:
    check_not_blank(row)
    text = row.decode("utf-8", "replace")
    fields = text.split(",")
    check_field_count(fields, LINK_FIELDS, ",", text)
    movie_text, imdb_text, _ = fields
    if imdb_text and not _IMDB_ID.fullmatch(imdb_text):
        raise RowError("malformed imdbId", "imdbId should be digits, without tt", imdb_text)
    return parse_id("movieId", movie_text), f"tt{imdb_text:0>7}" if imdb_text else ""


def read_movie_ids(path: Path) -> list[int]:
    """Reads the movie ids from movies.dat.

    Raises:
      DataError: the file cannot be read, or has a bad row.
    """
    movies, bad = read_movies(path)
    check_tolerance(bad, {path: len(movies)}, tolerance=0.0)
    return movies["movie_id"].tolist()


def _read_types(path: Path, ids: pa.Array, progress: Progress | None, block_bytes: int) -> dict[str, str]:
    types: dict[str, str] = {}
    for rows in wanted_rows(path, ("tconst", "titleType"), ids, progress, block_bytes):
        types.update(zip(rows["tconst"].to_pylist(), pc.fill_null(rows["titleType"], "").to_pylist(), strict=True))
    return types


def _read_directors(path: Path, ids: pa.Array, progress: Progress | None, block_bytes: int) -> People:
    people: People = {}
    for rows in wanted_rows(path, ("tconst", "directors"), ids, progress, block_bytes):
        known = rows.filter(pc.is_valid(rows["directors"]))
        for title, directors in zip(known["tconst"].to_pylist(), known["directors"].to_pylist(), strict=True):
            people[title] = directors.split(",")
    return people


def _read_principals(
    path: Path, ids: pa.Array, directors: People, progress: Progress | None, block_bytes: int
) -> People:
    """Returns the candidates for stars; appends the directors among the principals to `directors`."""
    columns = ("tconst", "ordering", "nconst", "category")
    found: list[tuple[bool, int, str, str, str]] = []
    for rows in wanted_rows(path, columns, ids, progress, block_bytes):
        chosen = rows.filter(pc.is_in(rows["category"], value_set=_string_array(_CATEGORIES)))
        for title, ordering, person, category, line in zip(
            *(chosen[name].to_pylist() for name in (*columns, "line")), strict=True
        ):
            if ordering is None or not ordering.isdecimal() or int(ordering) > MAX_ID:
                raise DataError(path, line, "ordering should be a whole number", ordering or "\\N")
            if person is None:
                raise DataError(path, line, "nconst should be nm and digits", "\\N")
            found.append((category == "archive_footage", int(ordering), title, person, category))
    stars: People = {}
    # Sorted by `ordering`, with archive footage after everything else.
    for _, _, title, person, category in sorted(found):
        (directors if category == "director" else stars).setdefault(title, []).append(person)
    return stars


def _read_names(path: Path, ids: pa.Array, progress: Progress | None, block_bytes: int) -> dict[str, str]:
    names: dict[str, str] = {}
    for rows in wanted_rows(path, ("nconst", "primaryName"), ids, progress, block_bytes):
        for person, name in zip(rows["nconst"].to_pylist(), rows["primaryName"].to_pylist(), strict=True):
            names[person] = _printable(name or "")
    return names


def _printable(name: str) -> str:
    """Cleans a name for credits.csv: single spaces, and no characters that cannot be printed."""
    return "".join(character for character in " ".join(name.split()) if character.isprintable())


def _first_name(people: People, title: str, names: dict[str, str]) -> str:
    return next((names[person] for person in people.get(title, ()) if names.get(person)), "")


def _string_array(values: Iterable[str]) -> pa.Array:
    return pa.array(sorted(set(values)), pa.string())


def _write(output: Path, rows: list[tuple[int, str, str]]) -> None:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(CREDIT_FIELDS)
    writer.writerows(rows)
    output.parent.mkdir(parents=True, exist_ok=True)
    partial = output.with_name(f".{output.name}.{os.getpid()}.partial")
    try:
        partial.write_bytes(text.getvalue().encode("utf-8"))
        partial.replace(output)
    finally:
        partial.unlink(missing_ok=True)
