"""Processes that have TFX loaded when they start, for the many tests that run a command in a process of its own.

Loading TensorFlow and TFX takes a new interpreter ten seconds and more. Here a server, of which each worker of the
tests has one, loads them once and is forked for each process. It has none of the modules of the tests' own process:
neither those that a test has changed, nor the project's, which each process loads by itself.

A test starts a new interpreter instead (`tests.pipeline.command_line.run_code`) where it looks at something that is
different here: what is loaded, or printed by loading it; the seed of hashes, which all forks share; how an interpreter
ends, for functions of `atexit` are not called, and SIGINT gives 1; or processes that `multiprocessing` would start.
"""

import contextlib
import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

_SERVER = multiprocessing.get_context("forkserver")
_SERVER.set_forkserver_preload(["tfx.v1"])


def run(
    code: str, *arguments: str, environment: dict[str, str] | None = None, timeout: float = 500
) -> subprocess.CompletedProcess[str]:
    """Runs Python code in the project's root folder and returns what it wrote and how it ended, as `subprocess.run`.

    Args:
      code: the Python code.
      arguments: what it finds in `sys.argv` after the first.
      environment: the variables that it has; if this is None, those of this process.
      timeout: the time limit in seconds.

    Raises:
      subprocess.TimeoutExpired: it took longer, and was killed.
    """
    process = WarmProcess(code, *arguments, environment=environment)
    try:
        out, err = process.communicate(timeout)
    except BaseException:  # Also pytest's own time limit, which is none of Exception.
        process.kill()
        raise
    return subprocess.CompletedProcess([*arguments], process.wait(timeout), out, err)


class WarmProcess:
    """A process that runs Python code, with the methods of `subprocess.Popen` that tests need."""

    def __init__(self, code: str, *arguments: str, environment: dict[str, str] | None = None):
        """Starts it in the project's root folder; `run` describes the arguments."""
        self._folder = tempfile.TemporaryDirectory()
        self._out, self._err = Path(self._folder.name, "out"), Path(self._folder.name, "err")
        for file in (self._out, self._err):
            file.touch()
        variables = dict(os.environ if environment is None else environment)
        files = [str(self._out), str(self._err)]
        self._process = _SERVER.Process(target=_become, args=(code, arguments, variables, files), daemon=True)
        self._process.start()

    @property
    def pid(self) -> int:
        assert self._process.pid is not None
        return self._process.pid

    def poll(self) -> int | None:
        """The exit code, negative if a signal ended it, or None while it runs."""
        return self._process.exitcode

    def wait(self, timeout: float) -> int:
        self._process.join(timeout)
        code = self._process.exitcode
        if code is None:
            raise subprocess.TimeoutExpired(str(self.pid), timeout)
        return code

    def communicate(self, timeout: float) -> tuple[str, str]:
        """What it wrote to standard output and to standard error, once it has ended."""
        self.wait(timeout)
        return self._out.read_text(), self._err.read_text()

    def send_signal(self, number: signal.Signals) -> None:
        # It may end between the question and the signal.
        with contextlib.suppress(ProcessLookupError):
            if self.poll() is None:
                os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def _become(code: str, arguments: tuple[str, ...], environment: dict[str, str], files: list[str]) -> None:
    """Makes the fork what an interpreter is that was called with this code."""
    for number, file in zip((1, 2), files, strict=True):
        opened = os.open(file, os.O_WRONLY | os.O_APPEND)
        os.dup2(opened, number)
        os.close(opened)
    os.chdir(ROOT)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = ["-c", *arguments]
    sys.path.insert(0, str(ROOT))
    exec(compile(code, "<string>", "exec"), {"__name__": "__main__"})
