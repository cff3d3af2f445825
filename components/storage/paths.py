"""Paths of artifacts and of pushed models, in a folder of this machine or, for a URI, wherever TensorFlow finds files.

TFX, TensorFlow and Beam take either. `pathlib` and `os` do not: they would take `gs://bucket/x` for the local folder
`gs:/bucket/x`. So whatever looks at these files itself does so by a path of `stored_path`, and by the functions here.

Object stores have no rename of a folder, nor of a file, in one step. What they do have is that a single object appears
and vanishes whole. Nothing here pretends otherwise, so that whoever needs a folder to appear whole has one of its files
written last.
"""

import contextlib
import errno
import os
import shutil
import uuid
from collections.abc import Generator, Iterator
from pathlib import Path, PosixPath
from typing import Any, NoReturn, Self

from components.data.places import is_uri

_ANY = "*"


class UriPath(PosixPath):
    """A place that a URI names, with those methods of `Path` that are needed; TensorFlow's file systems do the work.

    What else would touch a file raises, since `__fspath__` and the methods for patterns do, and so never takes the URI
    for a local path. Only `Path(path)` makes one of it. TensorFlow is imported once a file is looked at, because it
    takes seconds.
    """

    __slots__ = ()

    def __str__(self) -> str:
        # The parts are those of a relative path, whose first is `gs:`.
        scheme, *others = self.parts
        return f"{scheme}//{'/'.join(others)}"

    def __fspath__(self) -> NoReturn:
        raise TypeError(f"{self}: should be looked at by TensorFlow's file systems, not by those of this machine.")

    def glob(self, pattern: str) -> NoReturn:
        raise TypeError(f"{self}: patterns mean different things in different file systems; use `below`.")

    def rglob(self, pattern: str) -> NoReturn:
        self.glob(pattern)

    def is_absolute(self) -> bool:
        return True

    def absolute(self) -> Self:
        return self

    def resolve(self, strict: bool = False) -> Self:
        return self

    def exists(self) -> bool:
        with _os_errors(self) as gfile:
            return bool(gfile.exists(str(self)))

    def is_dir(self) -> bool:
        with _os_errors(self) as gfile:
            return bool(gfile.isdir(str(self)))

    def is_file(self) -> bool:
        return self.exists() and not self.is_dir()

    def iterdir(self) -> Generator[Self, None, None]:
        with _os_errors(self) as gfile:
            # Object stores mark folders by a slash, and list the folder itself if it was made as an object.
            names = sorted(name.rstrip("/") for name in gfile.listdir(str(self)))
        yield from (self / name for name in names if name)

    def mkdir(self, mode: int = 0o777, parents: bool = False, exist_ok: bool = False) -> None:
        with _os_errors(self) as gfile:
            gfile.makedirs(str(self))

    def read_bytes(self) -> bytes:
        with _os_errors(self) as gfile, gfile.GFile(str(self), "rb") as file:
            return bytes(file.read())

    def read_text(self, encoding: str | None = None, errors: str | None = None) -> str:
        return self.read_bytes().decode(encoding or "utf-8", errors or "strict")

    def write_bytes(self, data: Any) -> int:
        with _os_errors(self) as gfile, gfile.GFile(str(self), "wb") as file:
            file.write(bytes(data))
        return len(data)

    def unlink(self, missing_ok: bool = False) -> None:
        if not missing_ok or self.exists():
            with _os_errors(self) as gfile:
                gfile.remove(str(self))


def stored_path(text: str) -> Path:
    """The path for a local path or a URI; nothing is looked up."""
    return UriPath(text) if is_uri(text) else Path(text)


def below(folder: Path, *names: str) -> list[Path]:
    """What is there at some levels below a folder.

    Patterns with `*` mean different things in different file systems, so folders are listed level by level.

    Args:
      folder: the folder, which need not exist.
      *names: the name at each level; "*" for all names.
    """
    found = [folder]
    for name in names:
        if name == _ANY:
            found = [child for place in found for child in _children(place)]
        else:
            found = [place / name for place in found]
    # What was listed is there.
    return found if names[-1] == _ANY else [place for place in found if _exists(place)]


def _children(folder: Path) -> list[Path]:
    """What is in a folder; nothing if it is none, or is closed to this user, as a volume's lost+found is."""
    try:
        return list(folder.iterdir()) if folder.is_dir() else []
    except PermissionError:
        return []


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except PermissionError:
        return False


def copy_folder(source: Path, target: Path, last: str = "", exist_ok: bool = True) -> None:
    """Copies a folder, between any two places.

    Args:
      source: the folder.
      target: where to.
      last: the name of a file in it that is copied when all others are there; "" if no file has to be the last.
      exist_ok: whether the target may exist; of importance on this machine only, where folders appear in one step.

    Raises:
      OSError: it could not be copied, or the target exists.
    """
    if not (isinstance(source, UriPath) or isinstance(target, UriPath)):
        shutil.copytree(source, target, dirs_exist_ok=exist_ok)
        return
    target.mkdir(parents=True, exist_ok=True)
    for child in sorted(source.iterdir(), key=lambda child: child.name == last):
        if child.is_dir():
            copy_folder(child, target / child.name)
        else:
            with _os_errors(target) as gfile:
                gfile.copy(str(child), str(target / child.name), overwrite=True)


def remove_folder(folder: Path, ignore_errors: bool = False) -> None:
    """Removes a folder.

    Args:
      folder: the folder.
      ignore_errors: whether to remove no more than can be removed.

    Raises:
      OSError: it could not be removed, or is not there.
    """
    if not isinstance(folder, UriPath):
        shutil.rmtree(folder, ignore_errors=ignore_errors)
        return
    with contextlib.suppress(OSError) if ignore_errors else contextlib.nullcontext(), _os_errors(folder) as gfile:
        gfile.rmtree(str(folder))


def write_whole(path: Path, content: str | bytes) -> None:
    """Writes a file atomically: a reader finds either the old content or the new, never a part of it."""
    # Processes in containers may have the same number.
    temporary = path.with_name(f"{path.name}.{uuid.uuid4().hex}.tmp")
    temporary.write_bytes(content.encode() if isinstance(content, str) else content)
    if isinstance(path, UriPath):
        with _os_errors(path) as gfile:
            gfile.rename(str(temporary), str(path), overwrite=True)
    else:
        temporary.replace(path)


def write_first(path: Path, content: str | bytes) -> None:
    """Writes a file of this machine, whole, unless it is there; of several processes, the first one's stays."""
    new = path.with_name(f"{path.name}.{uuid.uuid4().hex}.tmp")
    new.write_bytes(content.encode() if isinstance(content, str) else content)
    with contextlib.suppress(FileExistsError):
        os.link(new, path)
    new.unlink()


@contextlib.contextmanager
def _os_errors(path: Path) -> Iterator[Any]:
    """Gives TensorFlow's file systems, whose errors become those that local files have.

    Raises:
      FileNotFoundError: there is no such file.
      ConnectionError: the store did not answer, or had too much to do; another try may succeed.
      OSError: they raise anything else.
    """
    import tensorflow as tf

    errors = tf.errors
    passing = (
        *(errors.UnavailableError, errors.DeadlineExceededError, errors.AbortedError),
        *(errors.InternalError, errors.UnknownError, errors.ResourceExhaustedError),
    )
    try:
        yield tf.io.gfile
    except errors.NotFoundError as error:
        raise FileNotFoundError(errno.ENOENT, error.message, str(path)) from error
    except passing as error:
        raise ConnectionError(errno.EIO, error.message, str(path)) from error
    except errors.OpError as error:
        raise OSError(errno.EIO, error.message, str(path)) from error
