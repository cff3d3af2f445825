"""Data that arrive in spans, such as days: one folder of files for each, span-1, span-2 and so on.

If spans may be delivered again with corrections, each span holds one folder per delivery: version-1, version-2 and so
on. The latest version counts.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from components.data.raw_files import DataError, MovieLens, read_movielens
from components.ingestion.example_rows import with_splits
from components.ingestion.splits import SplitConfig

# In TFX's notation for input patterns.
SPAN_PATTERN = "span-{SPAN}"
VERSION_PATTERN = "version-{VERSION}"

_LARGEST_NUMBER = 2**31 - 1  # TFX adds to the numbers of spans, in 64 bits.


def span_folders(base: Path, versions: bool) -> dict[int, Path]:
    """Returns the folders of all spans by number, the earliest first.

    Args:
      base: the folder that holds the spans.
      versions: whether each span holds versions; the folder of the latest version is then returned.

    Raises:
      DataError: there is no span, or a folder's name does not end in a whole number without leading zeros.
    """
    spans = _numbered(base, "span")
    if versions:
        return {number: list(_numbered(span, "version").values())[-1] for number, span in spans.items()}
    return spans


class LatestSpan(NamedTuple):
    """The span that a run ingests.

    Attributes:
      number: its number.
      version: the number of its latest version; None without versions.
      folders: all folders that its rows depend on, the earliest span first and its own last: histories draw on the
        train ratings of the earlier ones.
    """

    number: int
    version: int | None
    folders: list[Path]


def latest_span(base: Path, versions: bool) -> LatestSpan:
    """Finds the latest span; the arguments and the errors are those of `span_folders`."""
    folders = span_folders(base, versions)
    number = max(folders)
    return LatestSpan(number, _number(folders[number]) if versions else None, list(folders.values()))


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
        report = f"{folder.relative_to(base)}: {error}"
        raise DataError(error.file, error.line, error.problem, error.value, report) from error


@dataclass(frozen=True)
class Source:
    """The folders that MovieLensExampleGen reads, and how it reads them.

    Attributes:
      base: the input folder, which holds either the files or all spans.
      folder: the folder of the files whose ratings are written as rows.
      earlier: folders of the earlier spans, oldest first; histories draw on their train ratings.
      split: how ratings are divided. Each span is divided on its own, so that a rating stays in the split that it had
        when its span was the latest.
      tolerance: share of a file's rows that may be bad.
    """

    base: Path
    folder: Path
    earlier: tuple[Path, ...]
    split: SplitConfig
    tolerance: float

    @classmethod
    def of(cls, base: Path, name: str, split: SplitConfig, tolerance: float) -> "Source":
        """Makes the source for the files in `base` itself, or in one of its spans together with the spans before.

        Args:
          base: the input folder.
          name: path of the span's folder, or of its version's, relative to `base`; empty for `base` itself.
          split: how ratings are divided.
          tolerance: share of a file's rows that may be bad.

        Raises:
          DataError: as `span_folders`, or `base` holds no span with this name.
        """
        if not name:
            return cls(base, base, (), split, tolerance)
        folders = span_folders(base, versions="/" in name)
        number = next((number for number, folder in folders.items() if folder == base / name), None)
        if number is None:
            raise DataError(base / name, None, f"should be in {base}; no such folder")
        earlier = tuple(folder for other, folder in folders.items() if other < number)
        return cls(base, folders[number], earlier, split, tolerance)

    def read(self) -> MovieLens:
        """Reads the files in `folder`.

        Raises:
          DataError: as `read_movielens`, or as `read_span`.
        """
        if self.folder == self.base:
            return read_movielens(self.folder, self.tolerance)
        return read_span(self.base, self.folder, self.tolerance)

    def read_earlier(self) -> pd.DataFrame | None:
        """Reads the ratings of the earlier spans, with their splits; returns None if there are no earlier spans.

        Raises:
          DataError: as `read_span`.
        """
        parts = [
            with_splits(read_span(self.base, folder, self.tolerance).ratings, self.split) for folder in self.earlier
        ]
        return pd.concat(parts, ignore_index=True) if parts else None
