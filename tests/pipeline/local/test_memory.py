"""The peak of memory."""

import subprocess
import sys

from pipeline.local.memory import PeakMemory

HELD = 200


def test_children_count_too() -> None:
    code = f"held = bytearray({HELD} << 20); import time; time.sleep(2)"
    with PeakMemory() as memory:
        before = memory.megabytes
        subprocess.run([sys.executable, "-c", code], check=True)
    assert memory.megabytes >= HELD
    assert memory.megabytes >= before


def test_memory_that_was_given_back_still_counts() -> None:
    with PeakMemory() as memory:
        before = memory.megabytes
        held = bytearray(b"x") * (HELD << 20)
        del held
    assert memory.megabytes >= min(before, HELD)
