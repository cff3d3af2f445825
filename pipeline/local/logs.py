"""Sends all output of libraries to a log file, so that the console shows only what is meant for the user."""

import contextlib
import io
import itertools
import logging
import os
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from rich.console import Console
from typing_extensions import Buffer

from pipeline.local.errors import RunError

_FORMAT = "%(asctime)s %(levelname).1s %(name)s: %(message)s"


@dataclass(frozen=True)
class Consoles:
    """The original standard output and error, which libraries can no longer write to.

    Attributes:
      out: console on the standard output.
      err: console on the standard error.
      log: the log file that receives the output of libraries.
    """

    out: Console
    err: Console
    log: Path


@contextlib.contextmanager
def quiet_libraries(folder: Path) -> Iterator[Consoles]:
    """Redirects standard output, standard error (native code's too) and all logging to a new log file.

    Args:
      folder: where to create `run-<timestamp>-<process id>.log`, or with a further number if that is there.

    Yields:
      Consoles on the standard output and error as they were before.

    Raises:
      RunError: the log file cannot be created.
    """
    path, file = _new_log(folder)
    sys.stdout.flush()
    sys.stderr.flush()
    with contextlib.ExitStack() as stack:
        stack.enter_context(file)
        out = stack.enter_context(_duplicate_stream(sys.stdout, 1))
        err = stack.enter_context(_duplicate_stream(sys.stderr, 2))
        # Libraries keep a reference to `log` after the run, so it is never closed; once `sink` is released, it drops
        # whatever is written to it.
        sink = _ErrorIgnoringFile(file)
        stack.callback(sink.release)
        log = io.TextIOWrapper(io.BufferedWriter(sink), "utf-8", line_buffering=True)
        stack.callback(log.flush)
        for descriptor in (1, 2):
            stack.enter_context(_descriptor_redirected(descriptor, file.fileno()))
        stack.enter_context(contextlib.redirect_stdout(log))
        stack.enter_context(contextlib.redirect_stderr(log))
        stack.enter_context(_root_logger_writing_to(log))
        yield Consoles(out=Console(file=out, highlight=False), err=Console(file=err, highlight=False), log=path)


def _new_log(folder: Path) -> tuple[Path, io.FileIO]:
    """Creates a log file that no other process has; processes in containers may have the same number."""
    name = f"run-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}"
    for further in itertools.count(1):
        path = folder / (f"{name}.log" if further == 1 else f"{name}-{further}.log")
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o666)
        except FileExistsError:
            continue
        except OSError as error:
            raise RunError(f"{path}: should be a file that can be written; {error.strerror}.") from error
        return path, io.FileIO(descriptor, "a")
    raise AssertionError("numbers do not end")


class _ErrorIgnoringFile(io.RawIOBase):
    """Writes to a file and ignores errors such as a full disk, so that logging never hides the run's own error."""

    def __init__(self, file: io.FileIO):
        self._file: io.FileIO | None = file

    def release(self) -> None:
        """Forgets the file; from now on, `write` drops everything."""
        self._file = None

    def writable(self) -> bool:
        return True

    def write(self, data: Buffer) -> int:
        size = memoryview(data).nbytes
        if self._file is not None:
            with contextlib.suppress(OSError):
                self._file.write(data)
        return size


@contextlib.contextmanager
def _duplicate_stream(stream: TextIO, descriptor: int) -> Iterator[TextIO]:
    """Yields a stream on a duplicate of a standard descriptor, which the redirection of that descriptor leaves alone.

    Args:
      stream: sys.stdout or sys.stderr.
      descriptor: 1 or 2. If the stream does not write to it, for example because a test runner replaced the stream,
        the stream itself is yielded.
    """
    try:
        uses_descriptor = stream.fileno() == descriptor
    except (OSError, ValueError):
        uses_descriptor = False
    if not uses_descriptor:
        yield stream
        return
    with os.fdopen(os.dup(descriptor), "w", encoding=stream.encoding, errors="replace", buffering=1) as duplicate:
        yield duplicate


@contextlib.contextmanager
def _descriptor_redirected(descriptor: int, target: int) -> Iterator[None]:
    """Makes a file descriptor refer to what `target` refers to, and restores it afterwards."""
    saved = os.dup(descriptor)
    os.dup2(target, descriptor)
    try:
        yield
    finally:
        os.dup2(saved, descriptor)
        os.close(saved)


@contextlib.contextmanager
def _root_logger_writing_to(log: TextIO) -> Iterator[None]:
    """Replaces the root logger's handlers with one that writes to `log`, and restores the logging set-up afterwards."""
    root = logging.getLogger()
    handlers, level, raise_exceptions = root.handlers[:], root.level, logging.raiseExceptions
    handler = logging.StreamHandler(log)
    handler.setFormatter(logging.Formatter(_FORMAT))
    root.handlers[:] = [handler]
    root.setLevel(logging.INFO)
    logging.raiseExceptions = False
    logging.captureWarnings(True)
    try:
        yield
    finally:
        logging.captureWarnings(False)
        logging.raiseExceptions = raise_exceptions
        root.handlers[:] = handlers
        root.setLevel(level)
