"""The fingerprint of code follows the whole tree of a package."""

import importlib
import shutil
import sys
from pathlib import Path

import pytest

from pipeline.source import fingerprint


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package with a sub-package, and in that one another."""
    root = tmp_path / "fingerprinted"
    inner = root / "room" / "corner"
    inner.mkdir(parents=True)
    for folder in (root, root / "room", inner):
        (folder / "__init__.py").touch()
        (folder / "module.py").write_text("VALUE = 1\n")
    (root / "room" / "notes.txt").write_text("not code")
    monkeypatch.syspath_prepend(tmp_path)
    importlib.invalidate_caches()
    yield root
    for name in [name for name in sys.modules if name.split(".")[0] == "fingerprinted"]:
        del sys.modules[name]


@pytest.mark.parametrize("place", ["module.py", "room/module.py", "room/corner/module.py"])
def test_a_change_anywhere_in_the_tree_changes_it(package, place):
    before = fingerprint("fingerprinted")
    assert fingerprint("fingerprinted") == before
    (package / place).write_text("VALUE = 2\n")
    assert fingerprint("fingerprinted") != before


def test_a_new_a_renamed_and_a_moved_file_change_it(package):
    seen = {fingerprint("fingerprinted")}
    (package / "room" / "new.py").write_text("VALUE = 3\n")
    seen.add(fingerprint("fingerprinted"))
    (package / "room" / "new.py").rename(package / "room" / "renamed.py")
    seen.add(fingerprint("fingerprinted"))
    (package / "room" / "renamed.py").rename(package / "room" / "corner" / "renamed.py")
    seen.add(fingerprint("fingerprinted"))
    assert len(seen) == 4


def test_what_is_not_code_does_not_count(package):
    before = fingerprint("fingerprinted")
    (package / "room" / "notes.txt").write_text("other text")
    cache = package / "room" / "__pycache__"
    cache.mkdir(exist_ok=True)
    (cache / "module.cpython-311.pyc").write_bytes(b"")
    assert fingerprint("fingerprinted") == before


def test_a_sub_package_counts_for_itself_alone(package):
    room, corner = fingerprint("fingerprinted.room"), fingerprint("fingerprinted.room.corner")
    (package / "module.py").write_text("VALUE = 2\n")
    assert fingerprint("fingerprinted.room") == room
    (package / "room" / "module.py").write_text("VALUE = 2\n")
    assert fingerprint("fingerprinted.room") != room
    assert fingerprint("fingerprinted.room.corner") == corner


@pytest.mark.parametrize("package_name", ["components", "trainers", "transform", "pipeline"])
def test_every_module_of_the_project_counts(package_name, tmp_path, monkeypatch):
    """Of a copy of each real package, any file that is changed changes the fingerprint."""
    source = Path(importlib.import_module(package_name).__file__ or "").parent
    copy = tmp_path / "copied"
    shutil.copytree(source, copy, ignore=shutil.ignore_patterns("__pycache__"))
    # The copy's own __init__ would import what is in place of it.
    (copy / "__init__.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    importlib.invalidate_caches()
    try:
        seen = {fingerprint("copied")}
        modules = sorted(copy.rglob("*.py"))
        for module in modules:
            module.write_text(module.read_text() + "\n# changed\n")
            seen.add(fingerprint("copied"))
        assert len(seen) == len(modules) + 1
    finally:
        sys.modules.pop("copied", None)
