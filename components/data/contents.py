"""A hash of what raw files hold, by which data are known again; neither times nor sizes of files can be trusted."""

import hashlib
from pathlib import Path

from components.data.raw_files import CREDITS_FILE, MOVIES_FILE, RATINGS_FILE, USERS_FILE

_FILES = (RATINGS_FILE, USERS_FILE, MOVIES_FILE, CREDITS_FILE)


def content_hash(folder: Path) -> str:
    """Hashes the names and the contents of the raw files that are in a folder; other files do not count.

    Args:
      folder: the folder with the files, in MovieLens 1M's layout.

    Returns:
      64 hexadecimal digits (SHA-256).

    Raises:
      OSError: a file cannot be read.
    """
    digest = hashlib.sha256()
    for name in _FILES:
        if (folder / name).is_file():
            with (folder / name).open("rb") as file:
                digest.update(f"{name}\0{hashlib.file_digest(file, 'sha256').hexdigest()}\n".encode())
    return digest.hexdigest()
