"""Finds the versions of a model on disk, and tells which of them are complete.

A program that pushes a model may copy it file by file, and may be killed half-way. A version is thus loaded only if

* its directory has a numeric name (a temporary or hidden directory never does), of at most 64 bits as in requests,
* it holds a non-empty `saved_model.pb`, and
* none of its files has changed for a while.

These checks do not open the files; a damaged file is noticed when the version is loaded.
"""

import os
import time
from dataclasses import dataclass
from pathlib import Path

SAVED_MODEL = "saved_model.pb"

Snapshot = tuple[tuple[str, int, int], ...]
"""(relative path, bytes, change time in ns) of every file, sorted; unchanged files give equal snapshots."""


@dataclass(frozen=True)
class VersionDirectory:
    """Directory of a model version on disk.

    Attributes:
      version: The directory's name as a number.
      path: The directory.
      snapshot: Its files, to notice when they change.
      settled: Whether no file has changed in the last `settle_seconds` (see `list_versions`).
    """

    version: int
    path: Path
    snapshot: Snapshot
    settled: bool


def model_directories(root: Path) -> list[Path]:
    """Returns the directories of `root` that can hold a model, sorted by name, without hidden ones.

    Raises:
      OSError: `root` cannot be read.
    """
    return sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))


def list_versions(model_directory: Path, settle_seconds: float) -> list[VersionDirectory]:
    """Returns the versions of a model that have a `saved_model.pb`, newest first.

    Args:
      model_directory: Directory whose numeric sub-directories are versions.
      settle_seconds: Time without changes after which a directory counts as settled.

    Raises:
      OSError: `model_directory` cannot be read.
    """
    versions = []
    for path in model_directory.iterdir():
        if not (is_version(path.name) and path.is_dir()):
            continue
        try:
            found = _inspect(path, settle_seconds)
        except FileNotFoundError:
            # The directory is being deleted while we look at it.
            continue
        if found is not None:
            versions.append(found)
    return sorted(versions, key=lambda found: found.version, reverse=True)


def has_models(root: Path) -> bool:
    """Returns whether some model under `root` has a version with a `saved_model.pb`.

    Raises:
      OSError: `root` cannot be read.
    """
    return any(list_versions(directory, settle_seconds=0) for directory in model_directories(root))


def is_version(name: str) -> bool:
    """Whether a folder of this name can be a version."""
    # The length first, because Python refuses to read numbers of thousands of digits.
    return name.isascii() and name.isdigit() and len(name) < 20 and int(name) < 2**63


def _inspect(path: Path, settle_seconds: float) -> VersionDirectory | None:
    files: list[tuple[str, int, int]] = []
    last_change = 0.0
    for folder, _, names in os.walk(path):
        for name in names:
            file = Path(folder, name)
            try:
                stat = file.stat()
            except OSError:
                if not file.is_symlink() and not file.exists():
                    raise
                # A link that leads nowhere, or a file that may not be looked at; whether the model needs it shows when
                # it is loaded.
                files.append((str(file.relative_to(path)), -1, 0))
                continue
            # Uses the change time (ctime), because `cp -a` and `rsync -t` copy the modification time of the source.
            files.append((str(file.relative_to(path)), stat.st_size, stat.st_ctime_ns))
            last_change = max(last_change, stat.st_ctime)
    if not any(name == SAVED_MODEL and size > 0 for name, size, _ in files):
        return None
    # Takes the absolute difference, because a change time far in the future comes from a clock that was set back, not
    # from a copy in progress.
    settled = abs(time.time() - last_change) >= settle_seconds
    return VersionDirectory(int(path.name), path, tuple(sorted(files)), settled)
