"""Data that arrive in spans, such as days: a folder of files each, span-1, span-2 and so on."""

import re
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from components.data.raw_files import DataError, MovieLens, read_movielens
from components.example_rows import with_splits
from components.splits import SplitConfig

SPAN_PATTERN = "span-{SPAN}"  # In the notation of TFX.

_NAME = re.compile(r"span-(0|[1-9][0-9]*)")


def span_folders(base: Path) -> dict[int, Path]:
    """The folders of all spans, by number, the earliest first.

    Raises:
      DataError: there is none, or one whose name has no number or one with leading zeros.
    """
    folders = {}
    for path in base.glob("span-*"):
        match = _NAME.fullmatch(path.name)
        if match is None:
            raise DataError(path, None, "the name should be span- and a whole number without leading zeros")
        folders[int(match.group(1))] = path
    if not folders:
        raise DataError(base, None, "should hold the folders span-1, span-2 and so on; there is none")
    return dict(sorted(folders.items()))


@dataclass(frozen=True)
class Source:
    """What ExampleGen reads.

    Attributes:
      folder: the files whose rows are written.
      earlier: folders of the spans before, oldest first; histories draw on their train ratings.
      split: how ratings are divided. Each span is divided by itself, so that a rating stays in the split that it had
        when its span was the latest.
      tolerance: share of a file's rows that may be bad.
    """

    folder: Path
    earlier: tuple[Path, ...]
    split: SplitConfig
    tolerance: float

    @classmethod
    def of(cls, base: Path, name: str, split: SplitConfig, tolerance: float) -> "Source":
        """The files in `base`, or in its folder `name` of a span, together with the spans before."""
        if not name:
            return cls(base, (), split, tolerance)
        folders = span_folders(base)
        number = next((number for number, folder in folders.items() if folder.name == name), None)
        if number is None:
            raise DataError(base / name, None, f"should be in {base}; no such folder")
        earlier = tuple(folder for other, folder in folders.items() if other < number)
        return cls(folders[number], earlier, split, tolerance)

    def read(self) -> MovieLens:
        """Reads the files whose rows are written.

        Raises:
          DataError: as `read_movielens`.
        """
        return read_movielens(self.folder, self.tolerance)

    def read_earlier(self) -> pd.DataFrame | None:
        """The ratings of the spans before, with their splits; None where there are none.

        Raises:
          DataError: as `read_movielens`; its `file` tells the span.
        """
        parts = [with_splits(read_movielens(folder, self.tolerance).ratings, self.split) for folder in self.earlier]
        return pd.concat(parts, ignore_index=True) if parts else None
