"""`PeakMemory` reports the peak memory of this process and its children."""

import subprocess
import sys

from pipeline.local.memory import PeakMemory

HELD_MEGABYTES = 200


def test_memory_of_child_processes_counts() -> None:
    code = f"held = bytearray({HELD_MEGABYTES} << 20); import time; time.sleep(2)"
    with PeakMemory() as memory:
        before = memory.megabytes
        subprocess.run([sys.executable, "-c", code], check=True)
    assert memory.megabytes >= HELD_MEGABYTES
    assert memory.megabytes >= before


def test_freed_memory_still_counts() -> None:
    with PeakMemory() as memory:
        before = memory.megabytes
        held = bytearray(b"x") * (HELD_MEGABYTES << 20)
        del held
    assert memory.megabytes >= min(before, HELD_MEGABYTES)
