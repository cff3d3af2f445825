"""Bad rows of the raw files: counts and reports them by kind, and tolerates them up to a share of each file."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from components.data.layout import DataError, RowError, describe

EXAMPLES = 3  # Number of bad rows of each kind that a message shows.


@dataclass(frozen=True)
class BadRow:
    """A row that cannot be used.

    Attributes:
      file: the file that holds it.
      line: its line, counted from 1.
      kind, expected, value: as in `RowError`.
      text: the whole row, without its line end.
    """

    file: Path
    line: int
    kind: str
    expected: str
    value: str
    text: str

    @classmethod
    def of(cls, file: Path, line: int, error: RowError, text: str) -> "BadRow":
        """Makes a bad row from the error that parsing it raised."""
        return cls(file, line, error.kind, error.expected, error.value, text)

    def __str__(self) -> str:
        return describe(self.file, self.line, self.expected, self.value)


def count_by_kind(rows: Sequence[BadRow]) -> dict[str, int]:
    """Counts the rows of each kind, the most frequent kind first."""
    return dict(Counter(row.kind for row in rows).most_common())


def check_tolerance(bad: Sequence[BadRow], good: Mapping[Path, int], tolerance: float) -> None:
    """Raises an error if a file has too many bad rows.

    Args:
      bad: the bad rows of all files, grouped by file.
      good: number of good rows in each file.
      tolerance: share of a file's rows, 0 to 1, that may be bad.

    Raises:
      DataError: a file has more; the message counts every file's bad rows by kind, and shows the first few of each.
    """
    counts = Counter(row.file for row in bad)
    if any(count > tolerance * (count + good[file]) for file, count in counts.items()):
        raise DataError(bad[0].file, bad[0].line, bad[0].expected, bad[0].value, _report(bad, good, tolerance))


def check_any_good(bad: Sequence[BadRow], good: Mapping[Path, int]) -> None:
    """Raises an error if a file has no good row, whatever share of bad rows is tolerated.

    Raises:
      DataError: a file has no good row.
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
    """Returns the messages of the first few rows of each kind, in file order."""
    shown: Counter[str] = Counter()
    examples = []
    for row in rows:
        shown[row.kind] += 1
        if shown[row.kind] <= EXAMPLES:
            examples.append(str(row))
    return examples
