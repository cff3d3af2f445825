"""The store loads new versions of models and keeps the old ones if they fail.

The loader of these tests reads a word from saved_model.pb, and fails if it is "bad".
"""

import logging
import os
import shutil
from dataclasses import dataclass

import grpc
import pytest

from serving.local.errors import ServingError
from serving.local.model_store import ModelStore


@dataclass
class Word:
    version: int
    text: str


def load_word(name, version, path):
    text = (path / "saved_model.pb").read_text()
    if text == "bad":
        raise ValueError("cannot be parsed")
    return Word(version, text)


def write(root, version, text, name="ranking"):
    path = root / name / str(version)
    path.mkdir(parents=True, exist_ok=True)
    (path / "saved_model.pb").write_text(text)
    return path


@pytest.fixture
def store(tmp_path):
    return ModelStore(tmp_path, load_word, settle_seconds=0.0)


def states(store, name="ranking"):
    return {status.version: status.state for status in store.status(name)}


def test_the_newest_version_of_each_model_is_loaded(store, tmp_path):
    write(tmp_path, 1, "old")
    write(tmp_path, 2, "new")
    write(tmp_path, 5, "other", name="dcn")
    store.poll()
    assert store.served() == {"dcn": 5, "ranking": 2}
    assert store.get("ranking").text == "new"
    assert states(store) == {2: "AVAILABLE"}


def test_a_new_version_replaces_the_old_one(store, tmp_path):
    write(tmp_path, 1, "old")
    store.poll()
    held = store.get("ranking")
    write(tmp_path, 2, "new")
    store.poll()
    assert store.get("ranking").text == "new"
    assert states(store) == {2: "AVAILABLE", 1: "END"}
    assert held.text == "old"


def test_the_old_version_stays_available_while_the_new_one_loads(tmp_path):
    seen = []

    def load_and_look(name, version, path):
        if version == 2:
            seen.append((watched.get("ranking").version, states(watched)))
        return load_word(name, version, path)

    watched = ModelStore(tmp_path, load_and_look, settle_seconds=0.0)
    write(tmp_path, 1, "old")
    watched.poll()
    write(tmp_path, 2, "new")
    watched.poll()
    assert seen == [(1, {1: "AVAILABLE", 2: "LOADING"})]


def test_a_broken_version_is_logged_once_and_the_previous_one_keeps_serving(store, tmp_path, caplog):
    write(tmp_path, 1, "good")
    store.poll()
    path = write(tmp_path, 2, "bad")
    for _ in range(3):
        store.poll()
    errors = [record.message for record in caplog.records if record.levelno == logging.ERROR]
    assert len(errors) == 1
    assert str(path) in errors[0]
    assert store.get("ranking").version == 1
    assert states(store) == {2: "END", 1: "AVAILABLE"}
    assert "cannot be parsed" in store.status("ranking", 2)[0].message
    assert store.status("ranking", 2)[0].code != grpc.StatusCode.OK


def test_a_broken_version_is_tried_again_when_its_files_change(store, tmp_path):
    write(tmp_path, 1, "good")
    write(tmp_path, 2, "bad")
    store.poll()
    assert store.get("ranking").version == 1
    write(tmp_path, 2, "mended")
    store.poll()
    assert store.get("ranking").text == "mended"


def test_one_broken_model_does_not_stop_the_others(store, tmp_path):
    write(tmp_path, 1, "bad", name="dcn")
    write(tmp_path, 1, "good", name="ranking")
    store.poll()
    assert store.served() == {"ranking": 1}


def test_a_version_being_written_is_not_loaded(tmp_path):
    store = ModelStore(tmp_path, load_word, settle_seconds=60.0)
    write(tmp_path, 1, "half of the text")
    assert store.poll()
    assert store.served() == {}


def test_deleting_the_newest_version_brings_back_the_previous_one(store, tmp_path):
    write(tmp_path, 1, "old")
    path = write(tmp_path, 2, "new")
    store.poll()
    shutil.rmtree(path)
    store.poll()
    assert store.get("ranking").text == "old"
    assert states(store) == {2: "END", 1: "AVAILABLE"}


def test_a_deleted_version_is_not_served_if_the_others_are_broken(store, tmp_path):
    write(tmp_path, 1, "bad")
    path = write(tmp_path, 2, "new")
    store.poll()
    shutil.rmtree(path)
    store.poll()
    assert store.served() == {}
    assert states(store) == {2: "END", 1: "END"}


def test_a_broken_version_is_tried_again_when_its_content_changes_alone(store, tmp_path):
    file = write(tmp_path, 1, "bad") / "saved_model.pb"
    stat = file.stat()
    store.poll()
    file.write_text("new")
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    store.poll()
    assert store.get("ranking").text == "new"


@pytest.mark.parametrize("what", ["version", "model"])
def test_a_model_without_versions_is_unloaded(store, tmp_path, what):
    path = write(tmp_path, 1, "old")
    store.poll()
    shutil.rmtree(path if what == "version" else path.parent)
    store.poll()
    assert store.served() == {}
    assert states(store) == {1: "END"}


def test_models_stay_when_the_folder_cannot_be_read(store, tmp_path, caplog):
    write(tmp_path, 1, "old")
    store.poll()
    shutil.rmtree(tmp_path)
    store.poll()
    assert store.served() == {"ranking": 1}
    assert str(tmp_path) in caplog.text


def test_the_store_watches_the_folder_from_start_to_stop(tmp_path, eventually):
    store = ModelStore(tmp_path, load_word, poll_seconds=0.02, settle_seconds=0.0)
    store.start()
    assert store.served() == {}
    write(tmp_path, 1, "first")
    eventually(lambda: store.served() == {"ranking": 1})
    store.stop()
    write(tmp_path, 2, "too late")
    assert store.served() == {"ranking": 1}


@pytest.mark.parametrize(
    ("name", "version", "code", "message"),
    [
        ("", None, grpc.StatusCode.INVALID_ARGUMENT, "ModelSpec has no name specified."),
        ("nothing", None, grpc.StatusCode.NOT_FOUND, "Servable not found for request: Latest(nothing)"),
        ("ranking", 9, grpc.StatusCode.NOT_FOUND, "Servable not found for request: Specific(ranking, 9)"),
    ],
)
def test_get_of_an_unknown_model_or_version_is_an_error(store, tmp_path, name, version, code, message):
    write(tmp_path, 1, "x")
    store.poll()
    with pytest.raises(ServingError) as caught:
        store.get(name, version)
    assert (caught.value.code, caught.value.message) == (code, message)


@pytest.mark.parametrize(
    ("name", "version", "message"),
    [
        ("nothing", None, "Could not find any versions of model nothing"),
        ("ranking", 9, "Could not find version 9 of model ranking"),
    ],
)
def test_status_of_an_unknown_model_or_version_is_an_error(store, tmp_path, name, version, message):
    write(tmp_path, 1, "x")
    store.poll()
    with pytest.raises(ServingError, match=message) as caught:
        store.status(name, version)
    assert caught.value.code == grpc.StatusCode.NOT_FOUND
