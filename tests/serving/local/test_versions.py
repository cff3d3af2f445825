"""Only folders whose name is a number and whose saved_model.pb has settled count as versions of a model."""

import os
import time

import pytest

from serving.local.versions import has_models, list_versions, model_directories


def make_version(path, size=3):
    path.mkdir(parents=True)
    (path / "saved_model.pb").write_bytes(b"x" * size)


def versions(directory, settle_seconds=0.0):
    return [found.version for found in list_versions(directory, settle_seconds) if found.settled]


def test_numeric_directories_with_a_saved_model_count_newest_first(tmp_path):
    for name in ("9", "10", "0000011"):
        make_version(tmp_path / name)
    assert versions(tmp_path) == [11, 10, 9]


@pytest.mark.parametrize("name", [".10", "10.tmp", "_temp", "10-copy", "-1", "1e3", "²", str(2**63), "9" * 20])
def test_other_names_never_count(tmp_path, name):
    make_version(tmp_path / name)
    assert versions(tmp_path) == []


def test_a_version_without_a_saved_model_does_not_count(tmp_path):
    model = tmp_path / "ranking"
    (model / "1" / "variables").mkdir(parents=True)
    (model / "1" / "variables" / "variables.index").write_bytes(b"x")
    make_version(model / "2", size=0)
    (model / "3").write_bytes(b"a file, not a directory")
    assert versions(model) == []
    assert not has_models(tmp_path)


def test_a_version_settles_only_when_its_files_stop_changing(tmp_path):
    make_version(tmp_path / "1")
    assert versions(tmp_path, settle_seconds=30.0) == []
    time.sleep(0.25)
    assert versions(tmp_path, settle_seconds=0.2) == [1]
    (tmp_path / "1" / "late.txt").write_bytes(b"x")
    assert versions(tmp_path, settle_seconds=0.2) == []


def test_an_old_modification_time_does_not_hide_a_copy_under_way(tmp_path):
    make_version(tmp_path / "1")
    os.utime(tmp_path / "1" / "saved_model.pb", (0, 0))
    assert versions(tmp_path, settle_seconds=30.0) == []


def test_the_snapshot_changes_with_the_files(tmp_path):
    make_version(tmp_path / "1")
    before = list_versions(tmp_path, 0)[0].snapshot
    assert list_versions(tmp_path, 0)[0].snapshot == before
    (tmp_path / "1" / "saved_model.pb").write_bytes(b"longer than before")
    assert list_versions(tmp_path, 0)[0].snapshot != before


def test_files_that_cannot_be_looked_at_do_not_hide_the_other_versions(tmp_path):
    make_version(tmp_path / "1")
    for version, target in (("2", "loop"), ("3", "nowhere")):
        make_version(tmp_path / version)
        (tmp_path / version / "loop").symlink_to(target)
    assert versions(tmp_path) == [3, 2, 1]


def test_hidden_directories_and_files_are_no_models(tmp_path):
    for name in ("ranking", ".tmp-ranking"):
        make_version(tmp_path / name / "1")
    (tmp_path / "notes.txt").write_text("x")
    assert [path.name for path in model_directories(tmp_path)] == ["ranking"]
    assert has_models(tmp_path)
