"""Rows that are not as they should be: counted by kind, reported, and tolerated up to a share of their file."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from components.data.layout import DataError, RowError, describe

EXAMPLES = 3  # Rows of each kind that a report shows.


@dataclass(frozen=True)
class BadRow:
    """A row that cannot be used.

    Attributes:
      file: where it is.
      line: from 1.
      kind, expected, value: as in `RowError`.
      text: the row, without its line end.
    """

    file: Path
    line: int
    kind: str
    expected: str
    value: str
    text: str

    @classmethod
    def of(cls, file: Path, line: int, error: RowError, text: str) -> "BadRow":
        """The row behind an error."""
        return cls(file, line, error.kind, error.expected, error.value, text)

    def __str__(self) -> str:
        return describe(self.file, self.line, self.expected, self.value)


def count_by_kind(rows: Sequence[BadRow]) -> dict[str, int]:
    """Number of rows of each kind, the most frequent first."""
    return dict(Counter(row.kind for row in rows).most_common())


def check_tolerance(bad: Sequence[BadRow], good: Mapping[Path, int], tolerance: float) -> None:
    """Refuses files with too many bad rows.

    Args:
      bad: the bad rows of all files, file by file.
      good: number of good rows in each file.
      tolerance: share of a file's rows, 0 to 1, that may be bad.

    Raises:
      DataError: a file has more; the message counts the bad rows of every file by kind, and shows the first few.
    """
    counts = Counter(row.file for row in bad)
    if any(count > tolerance * (count + good[file]) for file, count in counts.items()):
        raise DataError(bad[0].file, bad[0].line, bad[0].expected, bad[0].value, _report(bad, good, tolerance))


def check_any_good(bad: Sequence[BadRow], good: Mapping[Path, int]) -> None:
    """Refuses files without a single good row, however many bad ones are tolerated.

    Raises:
      DataError: there is such a file.
    """
    for file, count in good.items():
        if not count:
            problem = "should have at least one good row; there is none"
            report = [describe(file, None, problem, None), *_examples([row for row in bad if row.file == file])]
            raise DataError(file, None, problem, None, "\n".join(report))


def _report(bad: Sequence[BadRow], good: Mapping[Path, int], tolerance: float) -> str:
    if len(bad) == 1 and not tolerance:
        return str(bad[0])
    files = [(file, list(rows)) for file, rows in groupby(bad, key=lambda row: row.file)]
    counts = [_summary(file, rows, len(rows) + good[file], tolerance) for file, rows in files]
    return "\n".join([*counts, *(example for _, rows in files for example in _examples(rows))])


def _summary(file: Path, bad: Sequence[BadRow], total: int, tolerance: float) -> str:
    kinds = ", ".join(f"{kind}: {count:,}" for kind, count in count_by_kind(bad).items())
    allowed = f"at most {tolerance:.2%} of the rows" if tolerance else "no row"
    return describe(file, None, f"{allowed} should be bad; {len(bad):,} of {total:,} are ({kinds})", None)


def _examples(rows: Sequence[BadRow]) -> list[str]:
    """The first rows of each kind, in the order of the file."""
    shown: Counter[str] = Counter()
    examples = []
    for row in rows:
        shown[row.kind] += 1
        if shown[row.kind] <= EXAMPLES:
            examples.append(str(row))
    return examples
