"""Writes a data folder atomically: all of its files or none."""

import shutil
import tempfile
from pathlib import Path

from components.data.raw_files import CREDITS_FILE, MOVIES_FILE, RATINGS_FILE, USERS_FILE

README_FILE = "README"
DATA_FILES = frozenset({USERS_FILE, MOVIES_FILE, RATINGS_FILE, CREDITS_FILE, README_FILE})


def check_output_folder(folder: Path, force: bool = False) -> None:
    """Checks that data can be written to a folder.

    Args:
      folder: the folder to write.
      force: whether data files in it may be replaced.

    Raises:
      FileExistsError: the folder is not empty (with `force`: holds files other than data files), or it cannot be
        replaced, because a file is in its place, or because it is a mount point or the current folder.
    """
    for path in (folder, *folder.parents):
        if path.exists() and not path.is_dir():
            raise FileExistsError(f"{folder}: should be a folder; {path} is a file.")
    resolved = folder.resolve()
    if resolved.is_mount() or resolved == Path.cwd():
        what = "a mount point" if resolved.is_mount() else "the current folder"
        raise FileExistsError(f"{folder}: should be a folder that can be replaced as a whole; received {what}.")
    present = {entry.name for entry in folder.iterdir()} if folder.is_dir() else set()
    other_files = present - DATA_FILES
    if other_files:
        found = ", ".join(sorted(other_files)[:4])
        raise FileExistsError(f"{folder}: should be new, empty or hold nothing but data; received one with {found}.")
    if present and not force:
        found = ", ".join(sorted(present))
        raise FileExistsError(f"{folder}: should be new or empty; received a folder with {found}.")


def write_folder(folder: Path, files: dict[str, bytes], force: bool = False) -> None:
    """Writes files into a new folder, all or none; leaves a folder untouched that already holds exactly these files.

    Args:
      folder: the folder to write; it and its parents are created if missing.
      files: contents by file name; the names are among DATA_FILES.
      force: whether data files in the folder are replaced.

    Raises:
      FileExistsError: as `check_output_folder`.
    """
    if _has_content(folder, files):
        return
    check_output_folder(folder, force)
    folder.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", suffix=".partial", dir=folder.parent))
    try:
        new = work / "new"
        new.mkdir()
        for name, content in files.items():
            (new / name).write_bytes(content)
        _replace(folder, new, work / "old")
    finally:
        shutil.rmtree(work)


def _replace(folder: Path, new: Path, old: Path) -> None:
    """Moves `folder`, if it exists, to `old` and `new` to `folder`; if that fails, moves `folder` back."""
    if folder.exists():
        folder.rename(old)
    try:
        new.rename(folder)
    except OSError:
        if old.exists():
            old.rename(folder)
        raise


def _has_content(folder: Path, files: dict[str, bytes]) -> bool:
    if not folder.is_dir() or {entry.name for entry in folder.iterdir()} != set(files):
        return False
    return all((folder / name).read_bytes() == content for name, content in files.items())
