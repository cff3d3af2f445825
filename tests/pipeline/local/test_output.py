"""The output folder is locked by one run at a time; a full disk and a damaged metadata store are errors."""

import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.local.errors import RunError
from pipeline.local.output import OutputFolder


def test_prepare_makes_the_folder(tmp_path: Path) -> None:
    output = OutputFolder(tmp_path / "a" / "b")
    output.prepare(0)
    assert output.logs.is_dir()


def test_prepare_refuses_a_disk_with_too_little_free_space(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"No space left on device: at least 1000000000 MB should be free; \d+ MB are"):
        OutputFolder(tmp_path).prepare(10**9)


def test_the_lock_excludes_and_names_its_holder_and_is_released(tmp_path: Path) -> None:
    output = OutputFolder(tmp_path)
    other = OutputFolder(tmp_path)
    with output.locked(), pytest.raises(RunError, match=f"process {os.getpid()}"), other.locked():
        pass
    with other.locked():
        pass


def test_the_lock_of_a_killed_process_is_released(tmp_path: Path) -> None:
    code = (
        "import os, signal, sys; from pathlib import Path; from pipeline.local.output import OutputFolder\n"
        f"with OutputFolder(Path({str(tmp_path)!r})).locked(): os.kill(os.getpid(), signal.SIGKILL)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -9
    with OutputFolder(tmp_path).locked():
        pass


def test_a_new_folder_and_a_sound_store_pass(tmp_path: Path) -> None:
    output = OutputFolder(tmp_path)
    output.check_metadata()
    with sqlite3.connect(output.metadata) as store:
        store.execute("CREATE TABLE Type (id INTEGER)")
    output.check_metadata()


def test_a_damaged_store_is_an_error(tmp_path: Path) -> None:
    output = OutputFolder(tmp_path)
    output.metadata.write_bytes(b"not a database, though long enough to be one" * 100)
    with pytest.raises(RunError, match=r"metadata.sqlite: should be a sound SQLite database; file is not a database"):
        output.check_metadata()


def test_a_truncated_store_is_an_error(tmp_path: Path) -> None:
    output = OutputFolder(tmp_path)
    with sqlite3.connect(output.metadata) as store:
        store.execute("CREATE TABLE Type (name TEXT)")
        store.executemany("INSERT INTO Type VALUES (?)", [("x" * 1000,)] * 100)
    os.truncate(output.metadata, 3 * 4096)
    with pytest.raises(RunError, match="should be a sound SQLite database"):
        output.check_metadata()


def test_a_locked_store_is_an_error(tmp_path: Path) -> None:
    output = OutputFolder(tmp_path)
    holder = sqlite3.connect(output.metadata)
    holder.execute("CREATE TABLE Type (id INTEGER)")
    holder.execute("BEGIN EXCLUSIVE")
    with pytest.raises(RunError, match="is locked by another process"):
        output.check_metadata()
    holder.close()


def test_artifacts_without_their_store_are_an_error(tmp_path: Path) -> None:
    output = OutputFolder(tmp_path)
    (output.artifacts / "Transform").mkdir(parents=True)
    with pytest.raises(RunError, match="holds artifacts, but the metadata that describe them"):
        output.check_metadata()
