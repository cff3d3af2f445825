"""The layout of MovieLens 1M's files: parsers of lines and fields, and the errors that say where a file is wrong."""

import re
from collections.abc import Sequence
from pathlib import Path

from components.data.places import check_answered, reason

SEPARATOR = "::"
MAX_ID = 2**63 - 1
MAX_TIMESTAMP = 253_402_300_799  # The last second of the year 9999, in seconds since 1970.

_DIGITS = re.compile(r"[0-9]{1,19}")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_MAX_QUOTED = 100  # Characters; messages cut longer names and values.


class DataError(ValueError):
    """Input data that cannot be used.

    Attributes:
      file: the file (or folder) at fault.
      line: its line, counted from 1; None if the file as a whole is at fault.
      problem: what the file or the line should be, and why it is not.
      value: the text that was found there; None if there is none.
      report: the whole message, if it lists several faults; None if the message is about this place only.
    """

    def __init__(
        self, file: Path, line: int | None, problem: str, value: str | None = None, report: str | None = None
    ) -> None:
        super().__init__(report or describe(file, line, problem, value))
        self.file = file
        self.line = line
        self.problem = problem
        self.value = value
        self.report = report

    def __reduce__(self) -> tuple[type, tuple[Path, int | None, str, str | None, str | None]]:
        return DataError, (self.file, self.line, self.problem, self.value, self.report)


class RowError(ValueError):
    """A row that cannot be used; the caller knows its file and line.

    Attributes:
      kind: a short description by which bad rows are counted, such as "unknown gender".
      expected: what the row should hold.
      value: the text that it holds instead.
    """

    def __init__(self, kind: str, expected: str, value: str) -> None:
        super().__init__(expected)
        self.kind, self.expected, self.value = kind, expected, value


def describe(file: Path, line: int | None, problem: str, value: str | None) -> str:
    """Formats a message as `file:line: problem; received 'value'.`; cuts long names and values."""
    name = _shorten(file.name)
    place = name if line is None else f"{name}:{line}"
    received = "" if value is None else f"; received {_shorten(value)!r}"
    return f"{place}: {problem}{received}."


def _shorten(text: str) -> str:
    return text if len(text) <= _MAX_QUOTED else text[:_MAX_QUOTED] + "…"


def read_bytes(path: Path) -> bytes:
    """Reads the whole file.

    Raises:
      DataError: the file is missing, cannot be read, or is empty.
      ConnectionError: the store that has it did not answer.
    """
    try:
        if not path.exists():
            raise DataError(path, None, f"should be in {path.parent}; no such file")
        if not path.is_file():
            raise DataError(path, None, "should be a readable file; it is a folder, a pipe or a device")
        data = path.read_bytes()
    except OSError as error:
        check_answered(path, error)
        raise DataError(path, None, f"should be a readable file; {reason(error)}") from error
    if not data:
        raise DataError(path, None, "should have at least one row; the file is empty")
    return data


def split_lines(data: bytes) -> list[bytes]:
    """Splits a file at LF or CR LF and drops these; other characters that Unicode calls line breaks end no line."""
    lines = data.split(b"\n")
    if not lines[-1]:
        lines.pop()
    return [line[:-1] if line.endswith(b"\r") else line for line in lines]


def split_row(row: bytes, names: Sequence[str]) -> list[str]:
    """Splits a `::`-separated latin-1 row, given without its line end, into its fields.

    Raises:
      RowError: the row is blank, has more or fewer fields than `names`, is UTF-8, or has control characters.
    """
    check_not_blank(row)
    if not row.isascii():
        _refuse_utf8(row)
    text = row.decode("latin-1")
    if _CONTROL.search(text):
        raise RowError("unprintable text", "a row should be printable latin-1 text", text)
    fields = text.split(SEPARATOR)
    check_field_count(fields, names, SEPARATOR, text)
    return fields


def check_not_blank(row: bytes) -> None:
    """Raises RowError if a row is empty or nothing but white space."""
    if not row.strip():
        raise RowError("blank line", "should be a row; the line is blank", row.decode("latin-1"))


def check_field_count(fields: Sequence[str], names: Sequence[str], separator: str, text: str) -> None:
    """Raises RowError if a row has more or fewer fields than `names`."""
    if len(fields) != len(names):
        expected = f"a row should have {len(names)} fields, {separator.join(names)}, but has {len(fields)}"
        raise RowError("wrong number of fields", expected, text)


def parse_integer(name: str, text: str, low: int, high: int, expected: str = "") -> int:
    """Parses a whole number from `low` to `high` that is written in decimal digits only.

    Raises:
      RowError: `text` has other characters or is out of range; the message names `expected` or, without it, the range.
    """
    number = int(text) if _DIGITS.fullmatch(text) else None
    if number is None or not low <= number <= high:
        kind = f"{name} not a number" if number is None else f"{name} out of range"
        raise RowError(kind, f"{name} should be {expected or f'an integer from {low} to {high}'}", text)
    return number


def parse_id(name: str, text: str) -> int:
    """Parses a positive 64-bit integer; 0 is reserved for unknown users and for padding."""
    return parse_integer(name, text, 1, MAX_ID, "a positive integer")


def _refuse_utf8(row: bytes) -> None:
    """Raises RowError if a row with accents decodes as UTF-8, which latin-1 text with accents does not."""
    try:
        text = row.decode("utf-8")
    except UnicodeDecodeError:
        return
    expected = "text should be latin-1 but is UTF-8 (iconv -f UTF-8 -t LATIN1 converts it)"
    raise RowError("text in UTF-8", expected, text)
