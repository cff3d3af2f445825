"""Versions of models in the folder that is served, NAME/VERSION, which appear and vanish whole.

Model servers overlook folders whose names are no numbers, and a rename within a folder is a single step.
"""

import shutil
import time
from pathlib import Path

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
    shutil.copytree(model, unfinished(version))
    unfinished(version).rename(version)


def take_out(version: Path) -> bool:
    """Removes a version, and what an earlier attempt to add or to remove it has left.

    Returns:
      Whether there was such a version.

    Raises:
      OSError: it could not be removed.
    """
    removed = version.with_name(f".{version.name}-removed")
    for leftover in (unfinished(version), removed):
        if leftover.exists():
            shutil.rmtree(leftover)
    if not version.is_dir():
        return False
    version.rename(removed)
    shutil.rmtree(removed)
    return True
