"""Runs a model server in a child process for the duration of a `with` block."""

import contextlib
import json
import queue
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

_STOP_SECONDS = 15.0
_TAIL_LINES = 15


class ServerFailed(RuntimeError):
    """The model server did not start; the message says why, or shows the last lines of its log."""


@contextlib.contextmanager
def running_server(models: Path, *, timeout_seconds: float = 180.0) -> Iterator[tuple[int, int]]:
    """Starts a server for the models of a folder on free ports of this machine, and stops it when the block ends.

    The server also ends when this process ends in any other way, a kill included: the operating system then closes the
    pipe to the server's standard input, which the server watches.

    Args:
      models: Folder of NAME/VERSION/saved_model.pb.
      timeout_seconds: Seconds within which the models must become available.

    Yields:
      The gRPC port and the REST port.

    Raises:
      ServerFailed: There is no model, or the server ended or was not ready in time.
    """
    # The working directory (`cwd`) is the folder that holds this package, so that `-m serving` runs this code.
    command = [sys.executable, "-m", "serving", "--models", str(Path(models).absolute()), "--ready-line"]
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            cwd=Path(__file__).resolve().parents[2],
        )
        try:
            yield _wait_until_ready(process, log, timeout_seconds)
        finally:
            _stop(process)


def _wait_until_ready(process: subprocess.Popen[bytes], log: IO[bytes], timeout_seconds: float) -> tuple[int, int]:
    lines: queue.Queue[bytes] = queue.Queue()
    output = process.stdout
    assert output is not None
    threading.Thread(target=lambda: lines.put(output.readline()), daemon=True).start()
    started = time.monotonic()
    try:
        line = lines.get(timeout=timeout_seconds)
    except queue.Empty:
        raise ServerFailed(
            f"The model server should be ready within {timeout_seconds:.0f} s; it is not. It wrote:\n{_tail(log)}"
        ) from None
    if not line:
        # `readline` returns nothing only at the end of the output, so the process is ending.
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_STOP_SECONDS)
        raise ServerFailed(
            f"The model server ended with code {process.returncode} after {time.monotonic() - started:.0f} s. "
            f"It wrote:\n{_tail(log)}"
        )
    ports = json.loads(line)
    return ports["port"], ports["rest_port"]


def _tail(log: IO[bytes]) -> str:
    log.seek(0)
    return "\n".join(log.read().decode(errors="replace").splitlines()[-_TAIL_LINES:])


def _stop(process: subprocess.Popen[bytes]) -> None:
    for stream in (process.stdin, process.stdout):
        if stream is not None:
            stream.close()
    process.terminate()
    try:
        process.wait(_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
