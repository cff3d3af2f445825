"""During a run only output for the user reaches the console; the output of libraries goes to the log file."""

import subprocess
import sys
from pathlib import Path

NOISE = """
import logging, os, sys, warnings
from pathlib import Path
from pipeline.local.logs import quiet_libraries

with quiet_libraries(Path(sys.argv[1])) as consoles:
    stream = sys.stderr
    print("printed")
    print("printed to stderr", file=sys.stderr)
    os.write(2, b"native\\n")
    os.system("echo child; echo child to stderr >&2")
    logging.getLogger("library").info("logged")
    warnings.warn("warned")
    consoles.out.print("for the user")
    consoles.err.print("progress")
print("afterwards")
logging.getLogger("library").warning("logged afterwards")
stream.write("to a stream that a library kept")
"""


def run(code: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code, str(folder)], capture_output=True, text=True, check=True, timeout=60
    )


def test_only_output_for_the_user_reaches_the_console(tmp_path: Path) -> None:
    completed = run(NOISE, tmp_path)
    assert completed.stdout == "for the user\nafterwards\n"
    assert completed.stderr == "progress\nlogged afterwards\n"
    (log,) = tmp_path.iterdir()
    text = log.read_text()
    for noise in (
        "printed\n",
        "printed to stderr",
        "native",
        "child\n",
        "child to stderr",
        "library: logged",
        "warned",
    ):
        assert noise in text
    assert "for the user" not in text


def test_log_output_is_dropped_when_the_disk_is_full() -> None:
    code = (
        "import io, logging, sys; from pipeline.local import logs\n"
        "stream = io.TextIOWrapper(io.BufferedWriter(logs._ErrorIgnoringFile(open('/dev/full', 'wb', buffering=0))))\n"
        "stream.write('x' * 100_000); stream.flush(); print('alive')"
    )
    assert run(code, Path()).stdout == "alive\n"
