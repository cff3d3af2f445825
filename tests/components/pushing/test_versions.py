"""Versions of models appear and vanish whole."""

import threading
import time
import uuid
from pathlib import Path

import pytest

from components.pushing.versions import add, next_version, take_out, unfinished
from components.storage.paths import stored_path
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


@pytest.fixture
def at_uri() -> Path:
    """The folder of a model's versions, in memory."""
    folder = stored_path(f"ram://{uuid.uuid4().hex}/serving/ranking")
    folder.mkdir(parents=True)
    return folder


def test_at_a_uri_a_version_is_added_and_taken_out(at_uri: Path, tmp_path: Path) -> None:
    model, version = write_version(tmp_path / "model"), next_version(at_uri)
    add(model, version)
    assert (version / "variables" / "data").read_text() == "model"
    with pytest.raises(FileExistsError):
        add(model, version)
    assert int(next_version(at_uri).name) > int(version.name)
    assert take_out(version)
    assert not take_out(version)
    assert list(at_uri.iterdir()) == []


def test_at_a_uri_what_is_half_there_or_half_gone_is_no_version(
    at_uri: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import tensorflow as tf

    def broken(*_: object, **__: object) -> None:
        raise tf.errors.UnavailableError(None, None, "no network")

    model, half, gone = write_version(tmp_path / "model"), at_uri / "17", at_uri / "18"
    add(model, gone)
    with monkeypatch.context() as patched:
        # The copy breaks off at the file after the first.
        copy, copied = tf.io.gfile.copy, list[str]()

        def copy_one(source: str, target: str, overwrite: bool) -> None:
            broken() if copied else copy(source, target, overwrite)
            copied.append(target)

        patched.setattr(tf.io.gfile, "copy", copy_one)
        patched.setattr(tf.io.gfile, "rmtree", broken)
        with pytest.raises(OSError, match="no network"):
            add(model, half)
        with pytest.raises(OSError, match="no network"):
            take_out(gone)
    for version in (half, gone):
        assert version.is_dir()
        assert not (version / "saved_model.pb").exists()
        assert take_out(version)
    assert list(at_uri.iterdir()) == []
