"""Streams IMDb's public tables (https://developer.imdb.com/non-commercial-datasets): tab-separated, gzipped or plain.

The tables are gigabytes of millions of rows, of which a few thousand are wanted. A block is read, every row's id is
checked, and the rows of the wanted ids are handed on; memory holds a few blocks, whatever the size of the file.
"""

import gzip
import io
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from components.data.layout import DataError

Progress = Callable[[Path, int, int], None]
"""Called with a file, the bytes of it that were read (compressed ones, where it is), and its size in bytes."""

BLOCK_BYTES = 1 << 23  # The longest real lines have some thousand bytes.

_GZIP = b"\x1f\x8b"
_ID = "^(tt|nm)[0-9]+$"


def find_table(folder: Path, name: str) -> Path:
    """The file of a table, `title.crew.tsv` for instance: as it is or, without that, with `.gz`.

    Raises:
      DataError: there is neither.
    """
    for path in (folder / name, folder / f"{name}.gz"):
        if path.is_file():
            return path
    problem = f"should be in {folder}, as {name} or {name}.gz from https://datasets.imdbws.com; no such file"
    raise DataError(folder / name, None, problem)


def wanted_rows(
    path: Path,
    columns: Sequence[str],
    wanted: pa.Array,
    progress: Progress | None = None,
    block_bytes: int = BLOCK_BYTES,
) -> Iterator[pa.Table]:
    r"""The rows of some ids, a part of them at a time, in the order of the file.

    Args:
      path: a table; its first line names the columns.
      columns: those to read; the first holds the ids, of titles or of people.
      wanted: ids, strings.
      progress: where there is one, is told how far the reading is.
      block_bytes: how much is read at once.

    Yields:
      Tables of `columns` and of `line`, the row's line in the file, from 1. Texts are strings, null for `\N`.

    Raises:
      DataError: the file cannot be read or breaks off, or has a header, a row or an id that is not as it should be.
    """
    try:
        with ExitStack() as stack:
            raw = stack.enter_context(path.open("rb", buffering=0))
            compressed = raw.read(len(_GZIP)) == _GZIP
            raw.seek(0)
            stream = stack.enter_context(io.BufferedReader(gzip.GzipFile(fileobj=raw) if compressed else raw))
            size = path.stat().st_size
            for first_line, batch in _batches(path, stream, columns, block_bytes):
                yield _selected(path, batch, wanted, first_line)
                if progress is not None:
                    progress(path, raw.tell(), size)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(path, None, f"should be a whole gzip file; {error}") from error
    except OSError as error:
        raise DataError(path, None, f"should be a readable file; {error.strerror}") from error


def _batches(
    path: Path, stream: "io.BufferedReader[Any]", columns: Sequence[str], block_bytes: int
) -> Iterator[tuple[int, pa.RecordBatch]]:
    """Parts of a table, each with the line that it begins with."""
    header = stream.readline().decode("utf-8", "replace").rstrip("\r\n").split("\t")
    if not set(columns) <= set(header) or len(set(header)) != len(header):
        raise DataError(path, 1, f"the header should name the columns {', '.join(columns)}", "\t".join(header))
    if not stream.peek(1):
        raise DataError(path, None, "should have at least one row below its header")
    first_line = 2
    for block in _blocks(stream, block_bytes):
        batch = _parsed(path, block, header, columns, first_line)
        yield first_line, batch
        first_line += batch.num_rows


def _blocks(stream: "io.BufferedReader[Any]", block_bytes: int) -> Iterator[bytes]:
    """Whole lines, about so many bytes at a time.

    Arrow's own streaming reader would call back into Python from its threads, which may abort a process that ends.
    """
    rest = b""
    while chunk := stream.read(block_bytes):
        block, newline, rest = (rest + chunk).rpartition(b"\n")
        if newline:
            yield block + newline
    if rest:
        yield rest


def _parsed(path: Path, block: bytes, header: list[str], columns: Sequence[str], first_line: int) -> pa.RecordBatch:
    bad: list[pa.csv.InvalidRow] = []

    def refuse(row: pa.csv.InvalidRow) -> str:
        bad.append(row)
        return "error"

    try:
        table = pa.csv.read_csv(
            pa.BufferReader(block),
            # One thread, so that rows come with their numbers; one block, so that they are one batch.
            pa.csv.ReadOptions(use_threads=False, block_size=len(block) + 1, column_names=header),
            pa.csv.ParseOptions(delimiter="\t", quote_char=False, ignore_empty_lines=False, invalid_row_handler=refuse),
            pa.csv.ConvertOptions(
                check_utf8=False,
                column_types=dict.fromkeys(columns, pa.binary()),
                include_columns=list(columns),
                null_values=["\\N"],
                strings_can_be_null=True,
            ),
        )
    except pa.ArrowInvalid as error:
        if not bad:
            raise DataError(path, None, f"should be a tab-separated table; {error}") from error
        problem = f"a row should have {len(header)} fields, separated by tabs, but has {bad[0].actual_columns}"
        raise DataError(path, first_line + bad[0].number - 1, problem, bad[0].text) from error
    (batch,) = table.combine_chunks().to_batches()
    return batch


def _selected(path: Path, batch: pa.RecordBatch, wanted: pa.Array, first_line: int) -> pa.Table:
    ids = batch.column(0)
    is_id = pc.fill_null(pc.match_substring_regex(ids, _ID), False)
    if not pc.all(is_id).as_py():
        row = pc.index(is_id, False).as_py()
        value = ids[row].as_py()
        problem = f"{batch.schema.names[0]} should be tt or nm and digits" + (
            "; there is none" if value is None else ""
        )
        raise DataError(path, first_line + row, problem, None if value is None else value.decode("utf-8", "replace"))
    rows = pc.indices_nonzero(pc.is_in(ids, value_set=wanted.cast(pa.binary())))
    lines = pc.add(rows.cast(pa.int64()), first_line)
    columns = {name: _texts(path, batch.column(name).take(rows), lines) for name in batch.schema.names}
    return pa.table({**columns, "line": lines})


def _texts(path: Path, column: pa.Array, lines: pa.Array) -> pa.Array:
    try:
        return column.cast(pa.string())
    except pa.ArrowInvalid:
        for value, line in zip(column.to_pylist(), lines.to_pylist(), strict=True):
            try:
                (value or b"").decode("utf-8")
            except UnicodeDecodeError as error:
                raise DataError(path, line, "text should be UTF-8", value.decode("latin-1")) from error
        raise
