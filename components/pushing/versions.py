"""Versions of models in the folder that is served, NAME/VERSION, which appear and vanish whole.

Model servers overlook folders whose names are no numbers, and a rename within a folder is a single step.

At a URI it may not be one: object stores copy every file. But a single file appears and vanishes there in one step, so
a version begins to be one with its `saved_model.pb`, which is the last file to come and the first to go. A server that
tries to load the version before finds no model, keeps to the one that it has, and tries again.
"""

import errno
import time
from pathlib import Path

from components.storage.paths import UriPath, copy_folder, remove_folder

SAVED_MODEL = "saved_model.pb"

# A file in the folder of a Pusher's execution: the version, as NAME/VERSION, that the execution adds.
VERSION_FILE = "version"


def next_version(folder: Path) -> Path:
    """The Unix time as a version of a model; later, if there are versions of this second and of those after it."""
    number = int(time.time())
    while (folder / str(number)).exists() or unfinished(folder / str(number)).exists():
        number += 1
    return folder / str(number)


def unfinished(version: Path) -> Path:
    """The folder in which a version is put together before it gets its name."""
    return version.with_name(f".{version.name}-unfinished")


def add(model: Path, version: Path) -> None:
    """Copies a model to where it is served.

    Raises:
      OSError: the model could not be copied, or there is such a version.
    """
    if isinstance(version, UriPath):
        if version.exists():
            raise FileExistsError(errno.EEXIST, "there is such a version", str(version))
        copy_folder(model, version, last=SAVED_MODEL)
        return
    copy_folder(model, unfinished(version), exist_ok=False)
    unfinished(version).rename(version)


def take_out(version: Path) -> bool:
    """Removes a version, and what an earlier attempt to add or to remove it has left.

    Returns:
      Whether there was such a version.

    Raises:
      OSError: it could not be removed.
    """
    if isinstance(version, UriPath):
        if not version.is_dir():
            return False
        (version / SAVED_MODEL).unlink(missing_ok=True)
        remove_folder(version)
        return True
    removed = version.with_name(f".{version.name}-removed")
    for leftover in (unfinished(version), removed):
        if leftover.exists():
            remove_folder(leftover)
    if not version.is_dir():
        return False
    version.rename(removed)
    remove_folder(removed)
    return True
