"""Everything that libraries say goes into a log file; the console keeps only what is meant for the user."""

import contextlib
import io
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
    """The user's own standard output and error, out of the reach of libraries."""

    out: Console
    err: Console
    log: Path


@contextlib.contextmanager
def quiet_libraries(folder: Path) -> Iterator[Consoles]:
    """Sends standard output, standard error (that of native code too) and all logging to a new file.

    Args:
      folder: where to make `run-<timestamp>.log`.

    Yields:
      Consoles on the standard output and error as they were before.

    Raises:
      RunError: the file cannot be made.
    """
    path = folder / f"run-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}.log"
    try:
        file = path.open("ab", buffering=0)
    except OSError as error:
        raise RunError(f"{path}: should be a file that can be written; {error.strerror}.") from error
    sys.stdout.flush()
    sys.stderr.flush()
    with contextlib.ExitStack() as stack:
        stack.enter_context(file)
        out = stack.enter_context(_duplicate(sys.stdout, 1))
        err = stack.enter_context(_duplicate(sys.stderr, 2))
        # Libraries keep the stream beyond the run, so it is never closed; afterwards it swallows what it gets.
        sink = _Forgiving(file)
        stack.callback(sink.release)
        log = io.TextIOWrapper(io.BufferedWriter(sink), "utf-8", line_buffering=True)
        stack.callback(log.flush)
        for descriptor in (1, 2):
            stack.enter_context(_descriptor_moved(descriptor, file.fileno()))
        stack.enter_context(contextlib.redirect_stdout(log))
        stack.enter_context(contextlib.redirect_stderr(log))
        stack.enter_context(_logging_to(log))
        yield Consoles(out=Console(file=out, highlight=False), err=Console(file=err, highlight=False), log=path)


class _Forgiving(io.RawIOBase):
    """Writes to a file; what does not fit on a full disk is dropped, so that logging never hides the first error."""

    def __init__(self, file: io.FileIO):
        self._file: io.FileIO | None = file

    def release(self) -> None:
        """Lets go of the file; from now on everything is dropped."""
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
def _duplicate(stream: TextIO, descriptor: int) -> Iterator[TextIO]:
    """A second handle on a standard stream; the stream itself where a test runner put its own in its place."""
    try:
        own = stream.fileno() == descriptor
    except (OSError, ValueError):
        own = False
    if not own:
        yield stream
        return
    with os.fdopen(os.dup(descriptor), "w", encoding=stream.encoding, errors="replace", buffering=1) as duplicate:
        yield duplicate


@contextlib.contextmanager
def _descriptor_moved(descriptor: int, target: int) -> Iterator[None]:
    kept = os.dup(descriptor)
    os.dup2(target, descriptor)
    try:
        yield
    finally:
        os.dup2(kept, descriptor)
        os.close(kept)


@contextlib.contextmanager
def _logging_to(log: TextIO) -> Iterator[None]:
    root = logging.getLogger()
    handlers, level, raises = root.handlers[:], root.level, logging.raiseExceptions
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
        logging.raiseExceptions = raises
        root.handlers[:] = handlers
        root.setLevel(level)
