"""Versions of models appear and vanish whole."""

import threading
import time

import pytest

from components.pushing.versions import add, next_version, take_out, unfinished
from serving.local.versions import list_versions
from tests.components.pushing.recorded import write_version


def test_the_next_version_is_the_time_or_later_if_that_is_taken(tmp_path):
    now = int(time.time())
    first = next_version(tmp_path / "ranking")
    assert now <= int(first.name) <= now + 5
    for number in range(int(first.name), int(first.name) + 20):
        write_version(tmp_path / "ranking" / str(number))
    unfinished(tmp_path / "ranking" / str(int(first.name) + 20)).mkdir()
    assert int(next_version(tmp_path / "ranking").name) == int(first.name) + 21


def test_whoever_looks_sees_a_version_whole_or_not_at_all(tmp_path):
    model = write_version(tmp_path / "model")
    for number in range(200):
        (model / "variables" / str(number)).write_text("values")
    files = sorted(path.relative_to(model) for path in model.rglob("*"))
    version = tmp_path / "serving" / "ranking" / "17"
    version.parent.mkdir(parents=True)
    seen, stop = [], threading.Event()

    def look():
        while not stop.is_set():
            numbers = [path for path in version.parent.iterdir() if path.name.isdigit()]
            if numbers:
                seen.append(sorted(path.relative_to(version) for path in version.rglob("*")))

    watcher = threading.Thread(target=look)
    watcher.start()
    add(model, version)
    time.sleep(0.1)
    stop.set()
    watcher.join()
    assert seen
    assert all(found == files for found in seen)
    assert [found.version for found in list_versions(version.parent, settle_seconds=0)] == [17]
    assert take_out(version)
    assert list(version.parent.iterdir()) == []
    assert not take_out(version)


def test_a_version_is_not_added_over_another(tmp_path):
    model, version = write_version(tmp_path / "model"), write_version(tmp_path / "ranking" / "17", "by hand")
    with pytest.raises(OSError, match="not empty"):
        add(model, version)
    assert (version / "saved_model.pb").read_text() == "by hand"


def test_taking_out_removes_what_an_earlier_attempt_left(tmp_path):
    version = tmp_path / "ranking" / "17"
    write_version(unfinished(version))
    write_version(version)
    version.rename(version.with_name(".17-removed"))
    assert not take_out(version)
    assert list(version.parent.iterdir()) == []
