"""Paths of artifacts are those of this machine or URIs, and the same is done to either."""

import os
import pickle
import shutil
import uuid
from pathlib import Path

import pytest
import tensorflow as tf

from components.storage.paths import UriPath, below, copy_folder, remove_folder, stored_path, write_whole


@pytest.fixture(params=["local", "uri"])
def folder(request, tmp_path: Path) -> Path:
    """A folder that nothing is in, here or in memory."""
    place = tmp_path / "folder" if request.param == "local" else stored_path(f"ram://{uuid.uuid4().hex}/folder")
    place.mkdir(parents=True)
    return place


def fill(folder: Path) -> Path:
    """Writes two files, one of them further down."""
    (folder / "variables").mkdir(parents=True, exist_ok=True)
    (folder / "variables" / "data").write_bytes(b"values")
    (folder / "saved_model.pb").write_bytes(b"graph")
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    for child in folder.iterdir():
        inner = contents(child) if child.is_dir() else {"": child.read_bytes()}
        found |= {f"{child.name}/{name}".rstrip("/"): content for name, content in inner.items()}
    return found


def test_a_uri_keeps_its_slashes_whatever_is_made_of_it() -> None:
    path = stored_path("gs://bucket/pipeline/Trainer.dcn")
    assert isinstance(path, UriPath)
    assert str(path) == f"{path}" == "gs://bucket/pipeline/Trainer.dcn"
    assert str(path / "model" / "7") == "gs://bucket/pipeline/Trainer.dcn/model/7"
    assert (str(path.parent), path.name) == ("gs://bucket/pipeline", "Trainer.dcn")
    assert str(path.with_name(".x")) == "gs://bucket/pipeline/.x"
    assert str(path.parent.parent) == "gs://bucket"
    assert path.is_relative_to(stored_path("gs://bucket/pipeline"))
    assert path == stored_path(str(path)) == path.resolve() == path.absolute() == pickle.loads(pickle.dumps(path))
    assert not isinstance(stored_path("/bucket/pipeline"), UriPath)


@pytest.mark.parametrize(
    "look",
    [
        *(os.listdir, os.stat, open, shutil.rmtree),
        *(
            lambda path: path.stat(),
            lambda path: path.touch(),
            lambda path: path.glob("*"),
            lambda path: path.rglob("*"),
        ),
    ],
)
def test_nothing_takes_a_uri_for_a_local_path(look, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(TypeError, match=r"gs://bucket/x: (should be looked at by TensorFlow|patterns mean different)"):
        look(stored_path("gs://bucket/x"))
    assert list(tmp_path.iterdir()) == []


def test_a_folder_is_listed_and_its_files_are_told_from_folders(folder: Path) -> None:
    fill(folder)
    assert sorted(child.name for child in folder.iterdir()) == ["saved_model.pb", "variables"]
    assert [(folder / name).is_dir() for name in ("variables", "saved_model.pb", "nothing")] == [True, False, False]
    assert [(folder / name).is_file() for name in ("variables", "saved_model.pb", "nothing")] == [False, True, False]
    assert (folder / "saved_model.pb").read_text() == "graph"


def test_what_is_missing_is_an_error_of_files(folder: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nothing"):
        (folder / "nothing").read_bytes()
    with pytest.raises(FileNotFoundError):
        list((folder / "nothing").iterdir())
    with pytest.raises(FileNotFoundError):
        remove_folder(folder / "nothing")
    remove_folder(folder / "nothing", ignore_errors=True)
    (folder / "nothing").unlink(missing_ok=True)


def test_folders_are_found_level_by_level(folder: Path) -> None:
    for place in ("A/.system/1", "A/model/1", "A/model/2", "B/model/1"):
        fill(folder / place)
    (folder / "file").write_bytes(b"")

    def found(*names: str) -> list[str]:
        return sorted("/".join(path.parts[len(folder.parts) :]) for path in below(folder, *names))

    assert found("*", "model", "*") == ["A/model/1", "A/model/2", "B/model/1"]
    assert found("*", "*", "1") == ["A/.system/1", "A/model/1", "B/model/1"]
    assert found("A", ".system", "1", "saved_model.pb") == ["A/.system/1/saved_model.pb"]
    assert found("C", "*") == []
    assert below(folder / "nothing", "*") == []


@pytest.mark.parametrize("target_is_uri", [False, True])
def test_a_folder_is_copied_between_any_two_places(folder: Path, target_is_uri: bool, tmp_path: Path) -> None:
    fill(folder)
    target = stored_path(f"ram://{uuid.uuid4().hex}/copy") if target_is_uri else tmp_path / "copy"
    copy_folder(folder, target)
    assert contents(target) == {"saved_model.pb": b"graph", "variables/data": b"values"}
    # A folder of TFX is there before anything is in it.
    copy_folder(folder, target)
    remove_folder(target)
    assert not target.exists()
    assert contents(folder) == {"saved_model.pb": b"graph", "variables/data": b"values"}


def test_the_file_that_is_to_be_the_last_is_the_last(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("aaa", "zzz"):
        (folder / name).write_bytes(b"")
    fill(folder)
    copied: list[str] = []
    copy = tf.io.gfile.copy

    def recorded(source: str, target: str, overwrite: bool) -> None:
        copied.append(target.rpartition("/")[2])
        copy(source, target, overwrite)

    monkeypatch.setattr(tf.io.gfile, "copy", recorded)
    copy_folder(folder, stored_path(f"ram://{uuid.uuid4().hex}/copy"), last="saved_model.pb")
    assert copied[-1] == "saved_model.pb"
    assert sorted(copied) == ["aaa", "data", "saved_model.pb", "zzz"]


def test_a_file_is_written_whole(folder: Path) -> None:
    file = folder / "file"
    write_whole(file, "first")
    write_whole(file, b"second")
    assert file.read_text() == "second"
    assert [child.name for child in folder.iterdir()] == ["file"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become a user to whom a folder is closed")
def test_a_folder_that_is_closed_is_passed_over(tmp_path: Path) -> None:
    (tmp_path / "open" / "a").mkdir(parents=True)
    (tmp_path / "closed" / "a").mkdir(parents=True)
    tmp_path.chmod(0o755)
    (tmp_path / "closed").chmod(0)
    above = [folder for folder in tmp_path.parents if not folder.stat().st_mode & 0o005]
    modes = {folder: folder.stat().st_mode for folder in above}
    for folder in above:
        folder.chmod(0o755)
    os.seteuid(65534)
    try:
        found = {names: below(tmp_path, *names) for names in (("*", "a"), ("*", "*"), ("closed", "*"))}
    finally:
        os.seteuid(0)
        for folder, mode in modes.items():
            folder.chmod(mode)
    assert found == {("*", "a"): [tmp_path / "open" / "a"], ("*", "*"): [tmp_path / "open" / "a"], ("closed", "*"): []}
