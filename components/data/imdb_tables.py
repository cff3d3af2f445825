"""Streams IMDb's public tables (https://developer.imdb.com/non-commercial-datasets): tab-separated, gzipped or plain.

The tables have millions of rows and fill gigabytes, but only a few thousand rows are wanted. A table is read block by
block: every row's id is checked, and the rows with wanted ids are returned. Memory holds a few blocks, whatever the
size of the file.
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
"""Called with a file, how many of its bytes have been read (before decompression), and its size in bytes."""

BLOCK_BYTES = 1 << 23  # Far more than the longest real lines, which have some thousand bytes.

_GZIP_MAGIC = b"\x1f\x8b"
_ID_PATTERN = "^(tt|nm)[0-9]+$"


def find_table(folder: Path, name: str) -> Path:
    """Finds the file of a table such as `title.crew.tsv`; the plain file is preferred to the one with `.gz`.

    Raises:
      DataError: neither file exists.
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
    r"""Reads the rows with wanted ids, block by block, in file order.

    Args:
      path: a table; its first line names the columns.
      columns: names of the columns to read; the first column holds the ids of titles or of people.
      wanted: the wanted ids, strings.
      progress: called after each block; None for no calls.
      block_bytes: how many bytes are read at once.

    Yields:
      Tables with the strings of `columns`, null for `\N`, and with `line`, the row's line in the file, counted from 1.

    Raises:
      DataError: the file cannot be read or is cut off, or its header, a row or an id is malformed.
    """
    try:
        with ExitStack() as stack:
            raw = stack.enter_context(path.open("rb", buffering=0))
            compressed = raw.read(len(_GZIP_MAGIC)) == _GZIP_MAGIC
            raw.seek(0)
            stream = stack.enter_context(io.BufferedReader(gzip.GzipFile(fileobj=raw) if compressed else raw))
            size = path.stat().st_size
            for first_line, batch in _batches(path, stream, columns, block_bytes):
                yield _select_rows(path, batch, wanted, first_line)
                if progress is not None:
                    progress(path, raw.tell(), size)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(path, None, f"should be a whole gzip file; {error}") from error
    except OSError as error:
        raise DataError(path, None, f"should be a readable file; {error.strerror}") from error


def _batches(
    path: Path, stream: "io.BufferedReader[Any]", columns: Sequence[str], block_bytes: int
) -> Iterator[tuple[int, pa.RecordBatch]]:
    """Yields parsed blocks of a table, each with the number of its first line."""
    header = stream.readline().decode("utf-8", "replace").rstrip("\r\n").split("\t")
    if not set(columns) <= set(header) or len(set(header)) != len(header):
        raise DataError(path, 1, f"the header should name the columns {', '.join(columns)}", "\t".join(header))
    if not stream.peek(1):
        raise DataError(path, None, "should have at least one row below its header")
    first_line = 2
    for block in _blocks(stream, block_bytes):
        batch = _parse_block(path, block, header, columns, first_line)
        yield first_line, batch
        first_line += batch.num_rows


def _blocks(stream: "io.BufferedReader[Any]", block_bytes: int) -> Iterator[bytes]:
    """Yields blocks of whole lines, of about `block_bytes` each.

    Arrow's own streaming reader is not used: it calls back into Python from its threads, which may abort a process that
    is exiting.
    """
    rest = b""
    while chunk := stream.read(block_bytes):
        block, newline, rest = (rest + chunk).rpartition(b"\n")
        if newline:
            yield block + newline
    if rest:
        yield rest


def _parse_block(
    path: Path, block: bytes, header: list[str], columns: Sequence[str], first_line: int
) -> pa.RecordBatch:
    bad: list[pa.csv.InvalidRow] = []

    def keep_bad_row(row: pa.csv.InvalidRow) -> str:
        bad.append(row)
        return "error"

    try:
        table = pa.csv.read_csv(
            pa.BufferReader(block),
            # One thread, because only then bad rows come with their numbers; one block, to get one batch.
            pa.csv.ReadOptions(use_threads=False, block_size=len(block) + 1, column_names=header),
            pa.csv.ParseOptions(
                delimiter="\t", quote_char=False, ignore_empty_lines=False, invalid_row_handler=keep_bad_row
            ),
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


def _select_rows(path: Path, batch: pa.RecordBatch, wanted: pa.Array, first_line: int) -> pa.Table:
    ids = batch.column(0)
    is_id = pc.fill_null(pc.match_substring_regex(ids, _ID_PATTERN), False)
    if not pc.all(is_id).as_py():
        row = pc.index(is_id, False).as_py()
        value = ids[row].as_py()
        problem = f"{batch.schema.names[0]} should be tt or nm and digits" + (
            "; there is none" if value is None else ""
        )
        raise DataError(path, first_line + row, problem, None if value is None else value.decode("utf-8", "replace"))
    rows = pc.indices_nonzero(pc.is_in(ids, value_set=wanted.cast(pa.binary())))
    lines = pc.add(rows.cast(pa.int64()), first_line)
    columns = {name: _decode(path, batch.column(name).take(rows), lines) for name in batch.schema.names}
    return pa.table({**columns, "line": lines})


def _decode(path: Path, column: pa.Array, lines: pa.Array) -> pa.Array:
    try:
        return column.cast(pa.string())
    except pa.ArrowInvalid:
        for value, line in zip(column.to_pylist(), lines.to_pylist(), strict=True):
            try:
                (value or b"").decode("utf-8")
            except UnicodeDecodeError as error:
                raise DataError(path, line, "text should be UTF-8", value.decode("latin-1")) from error
        raise
