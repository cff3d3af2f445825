"""Data that arrive in spans, such as days: one folder of files for each, span-1, span-2 and so on.

If spans may be delivered again with corrections, each span holds one folder per delivery: version-1, version-2 and so
on. The latest version counts.

The folders are the ledger. A run reads whatever spans are there when it begins, so that one that arrived late, or was
delivered anew, counts from then on, and no run depends on what earlier runs have read. Models are trained on a window
of the newest spans; of older ones, histories and the recommender's memory hold the ratings. Spans that are too old to
be kept are not looked at, and need not be there.
"""

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from components.data.bad_rows import BadRow
from components.data.places import below
from components.data.raw_files import DataError, MovieLens, read_movielens
from components.ingestion.splits import SplitConfig, with_splits

# In TFX's notation for input patterns.
SPAN_PATTERN = "span-{SPAN}"
VERSION_PATTERN = "version-{VERSION}"

_LARGEST_NUMBER = 2**31 - 1  # TFX adds to the numbers of spans, in 64 bits.


def _kept(spans: dict[int, Path], keep: int | None) -> dict[int, Path]:
    return spans if keep is None else {number: span for number, span in spans.items() if number > max(spans) - keep}


def _latest_versions(spans: dict[int, Path], versions: bool) -> dict[int, Path]:
    if not versions:
        return spans
    return {number: list(_numbered(span, "version").values())[-1] for number, span in spans.items()}


@dataclass(frozen=True)
class Window:
    """The spans that a run reads.

    Attributes:
      folders: the folders of all spans that are read by number, earliest first; {0: the input folder} without spans.
      first: number of the earliest span that models are trained on.
      lacking: numbers between the first and the newest of which there is no span.
      dropped: numbers of the spans that are there, but too old to be read.
    """

    folders: dict[int, Path]
    first: int
    lacking: tuple[int, ...]
    dropped: tuple[int, ...] = ()

    @property
    def newest(self) -> int:
        """Number of the newest span, on whose test ratings models are measured."""
        return max(self.folders)

    @property
    def previous(self) -> int:
        """Number of the span before the newest, with which it is compared; of the only one that is read, its own."""
        return sorted(self.folders)[max(0, len(self.folders) - 2)]

    @property
    def version(self) -> int | None:
        """Number of the newest span's version; None without versions."""
        name = self.folders[self.newest].name
        return _number(self.folders[self.newest]) if name.startswith("version-") else None


def find_window(
    base: Path, spans: int | None, versions: bool, skip_missing: bool = False, keep: int | None = None
) -> Window:
    """Finds the spans that a run reads.

    Args:
      base: the input folder, which holds either the files or all spans.
      spans: number of the newest spans that models are trained on, missing ones included; None if `base` holds the
        files.
      versions: whether each span holds versions.
      skip_missing: whether spans may be missing inside the window.
      keep: number of the newest spans that are read, missing ones included, at least `spans`; None if all are.

    Raises:
      DataError: there is no span, a folder's name does not end in a whole number without leading zeros, or a span of
        the window is missing.
    """
    if spans is None:
        return Window({0: base}, 0, ())
    there = _numbered(base, "span")
    folders = _latest_versions(_kept(there, keep), versions)
    # A span that is not read any more still tells that those after it are expected.
    first = max(min(there), max(there) - spans + 1)
    lacking = tuple(number for number in range(first, max(folders)) if number not in folders)
    if lacking and not skip_missing:
        numbers = ", ".join(map(str, lacking))
        problem = (
            f"should hold every span from {first} to {max(folders)}; there is no span {numbers}. A run does without it "
            "if data.missing_spans is skip"
        )
        raise DataError(base, None, problem)
    return Window(folders, first, lacking, tuple(number for number in there if number not in folders))


def _number(folder: Path) -> int:
    return int(folder.name.rpartition("-")[2])


def _numbered(base: Path, prefix: str) -> dict[int, Path]:
    folders = {}
    for path in base.glob(f"{prefix}-*"):
        if re.fullmatch(rf"{prefix}-(0|[1-9][0-9]*)", path.name) is None:
            raise DataError(path, None, f"the name should be {prefix}- and a whole number without leading zeros")
        if _number(path) > _LARGEST_NUMBER:
            raise DataError(path, None, f"the number should be at most {_LARGEST_NUMBER}")
        folders[_number(path)] = path
    if not folders:
        raise DataError(base, None, f"should hold the folders {prefix}-1, {prefix}-2 and so on; there is none")
    return dict(sorted(folders.items()))


def read_span(base: Path, folder: Path, tolerance: float) -> MovieLens:
    """Reads a span.

    Args:
      base: the folder that holds the spans.
      folder: the folder of the span, or of its version.
      tolerance: share of a file's rows that may be bad.

    Raises:
      DataError: as `read_movielens`; the message names the span.
    """
    try:
        return read_movielens(folder, tolerance)
    except DataError as error:
        report = f"{below(folder, base)}: {error}"
        raise DataError(error.file, error.line, error.problem, error.value, report) from error


@dataclass(frozen=True)
class Ratings:
    """The ratings of all spans, joined.

    Attributes:
      table: columns as in `MovieLens.ratings`, with `split` (int8, how the rating's own span was divided, so that it
        stays in the split that it had when its span was the newest) and `span` (int64); earliest span first. Of a movie
        that somebody rated again, the later rating counts, and is the only one.
      users: as in `MovieLens.users`; of a user that several spans have, as in the newest of them.
      movies, credits: likewise, of all spans' movies.
      catalogue: int64 [movies of the newest span], their ids; what is not among them is no candidate.
      bad_rows: the rows of all spans that were left out.
    """

    table: pd.DataFrame
    users: pd.DataFrame
    movies: pd.DataFrame
    credits: pd.DataFrame | None
    catalogue: np.ndarray
    bad_rows: tuple[BadRow, ...]


@dataclass(frozen=True)
class Source:
    """What MovieLensExampleGen reads, and how.

    Attributes:
      base: the input folder.
      window: the spans.
      split: how ratings are divided. Each span is divided on its own.
      tolerance: share of a file's rows that may be bad.
    """

    base: Path
    window: Window
    split: SplitConfig
    tolerance: float

    def read(self) -> Ratings:
        """Reads and joins all spans.

        Raises:
          DataError: as `read_span`.
        """
        spans = {
            number: read_movielens(folder, self.tolerance)
            if folder == self.base
            else read_span(self.base, folder, self.tolerance)
            for number, folder in self.window.folders.items()
        }
        tables = [with_splits(data.ratings, self.split).assign(span=number) for number, data in spans.items()]
        ratings = pd.concat(tables, ignore_index=True).drop_duplicates(["user_id", "movie_id"], keep="last")
        credits_ = [data.credits for data in spans.values() if data.credits is not None]
        return Ratings(
            table=ratings.reset_index(drop=True),
            users=_newest([data.users for data in spans.values()], "user_id"),
            movies=_newest([data.movies for data in spans.values()], "movie_id"),
            credits=_newest(credits_, "movie_id") if credits_ else None,
            catalogue=spans[self.window.newest].movies["movie_id"].to_numpy(),
            bad_rows=tuple(row for data in spans.values() for row in data.bad_rows),
        )


def _newest(tables: list[pd.DataFrame], key: str) -> pd.DataFrame:
    """Joins tables, the earliest first; of rows with one key, the last counts."""
    return pd.concat(tables, ignore_index=True).drop_duplicates(key, keep="last").reset_index(drop=True)
