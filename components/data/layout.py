"""What a MovieLens 1M file looks like, and the error that says where one does not."""

import re
from collections.abc import Sequence
from pathlib import Path

SEPARATOR = "::"
GENDERS = ("M", "F")
AGE_CODES = (1, 18, 25, 35, 45, 50, 56)
OCCUPATIONS = 21
GENRES = (
    "Action",
    "Adventure",
    "Animation",
    "Children's",
    "Comedy",
    "Crime",
    "Documentary",
    "Drama",
    "Fantasy",
    "Film-Noir",
    "Horror",
    "Musical",
    "Mystery",
    "Romance",
    "Sci-Fi",
    "Thriller",
    "War",
    "Western",
)
LOWEST_RATING, HIGHEST_RATING = 1, 5
MAX_ID = 2**63 - 1
MAX_TIMESTAMP = 253_402_300_799  # The last second of the year 9999, in seconds since 1970.

_DIGITS = re.compile(r"[0-9]{1,19}")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_SHOWN = 100  # Longest value that a message quotes, in characters.


class DataError(ValueError):
    """Input data that cannot be used.

    Attributes:
      file: the file (or folder) at fault.
      line: its line, counted from 1; None where the file as a whole is at fault.
      value: the text that was found there; None where there is none.
    """

    def __init__(self, file: Path, line: int | None, problem: str, value: str | None = None) -> None:
        self.file = file
        self.line = line
        self.value = value
        self.problem = problem
        name = _shorten(file.name)
        place = name if line is None else f"{name}:{line}"
        received = "" if value is None else f"; received {_shorten(value)!r}"
        super().__init__(f"{place}: {problem}{received}.")

    def __reduce__(self) -> tuple[type, tuple[Path, int | None, str, str | None]]:
        return DataError, (self.file, self.line, self.problem, self.value)


def _shorten(text: str) -> str:
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "…"


def read_bytes(path: Path) -> bytes:
    """The content of a file.

    Raises:
      DataError: the file is missing, cannot be read, or is empty.
    """
    if not path.exists():
        raise DataError(path, None, f"should be in {path.parent}; no such file")
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(path, None, f"should be a readable file; {error.strerror}") from error
    if not data:
        raise DataError(path, None, "should have at least one row; the file is empty")
    return data


def split_lines(data: bytes) -> list[bytes]:
    """Lines without their ends (LF or CR LF); only these end a line, whatever else Unicode counts as a line break."""
    lines = data.split(b"\n")
    if not lines[-1]:
        lines.pop()
    return [line[:-1] if line.endswith(b"\r") else line for line in lines]


def split_row(path: Path, line: int, row: bytes, names: Sequence[str]) -> list[str]:
    """The fields of a `::`-separated latin-1 row.

    Args:
      path: the file, for messages.
      line: the row's line, from 1.
      row: the row without its line end.
      names: the names of the fields that it should have.

    Raises:
      DataError: a blank line, another number of fields, UTF-8 or control characters.
    """
    if not row.strip():
        raise DataError(path, line, "should be a row; the line is blank", row.decode("latin-1"))
    if not row.isascii():
        _refuse_utf8(path, line, row)
    text = row.decode("latin-1")
    if _CONTROL.search(text):
        raise DataError(path, line, "a row should be printable latin-1 text", text)
    fields = text.split(SEPARATOR)
    if len(fields) != len(names):
        layout = SEPARATOR.join(names)
        raise DataError(path, line, f"a row should have {len(names)} fields, {layout}, but has {len(fields)}", text)
    return fields


def parse_integer(path: Path, line: int, name: str, text: str, low: int, high: int, expected: str = "") -> int:
    """A whole number in plain decimal digits, from `low` to `high`.

    Raises:
      DataError: other characters, or out of range; the message says `expected`, or the range.
    """
    number = int(text) if _DIGITS.fullmatch(text) else None
    if number is None or not low <= number <= high:
        raise DataError(path, line, f"{name} should be {expected or f'an integer from {low} to {high}'}", text)
    return number


def parse_id(path: Path, line: int, name: str, text: str) -> int:
    """A positive 64-bit integer; 0 is kept for "nobody" and for padding."""
    return parse_integer(path, line, name, text, 1, MAX_ID, "a positive integer")


def _refuse_utf8(path: Path, line: int, row: bytes) -> None:
    """Raises DataError where a row with accents is UTF-8: accented latin-1 text is not valid UTF-8."""
    try:
        text = row.decode("utf-8")
    except UnicodeDecodeError:
        return
    raise DataError(path, line, "text should be latin-1 but is UTF-8 (iconv -f UTF-8 -t LATIN1 converts it)", text)
