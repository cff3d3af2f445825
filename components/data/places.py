"""Where raw files lie: in a folder of this machine or, for a URI, wherever a library for fsspec finds them.

`pathlib` would take `gs://bucket/data` for the local folder `gs:/bucket/data`. `UPath`, of universal-pathlib, is a
path with the same methods whose files may be in Amazon S3 (s3://, with the library s3fs), Google Cloud Storage (gs://,
gcsfs) and others.
"""

import errno
import re
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

_URI = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
# Passwords may have any characters, so what is before the last @ is left out; and what follows ? or #, where some
# stores take keys.
_SECRETS = (re.compile(r"://.*@", re.DOTALL), re.compile(r"(?<=://)([^?#'\"\s]*)[?#][^'\"]*"))


class PlaceError(ValueError):
    """A URI that no installed library understands; the message says what it should be."""


def is_uri(text: str) -> bool:
    """Whether a text names a place by a URI, and not by a path of this machine."""
    return _URI.match(text) is not None


def place_of(text: str | Path) -> Path:
    """A path for a path or a URI; nothing is looked up.

    Raises:
      PlaceError: no installed library understands the URI.
    """
    uri = str(text)
    if isinstance(text, Path) or not is_uri(uri):
        return Path(text) if isinstance(text, str) else text
    refuse_password(uri)
    parts = urlsplit(uri)
    if parts.scheme == "file":
        if parts.netloc not in ("", "localhost"):
            raise PlaceError(f"should be on this machine, file:///…; received {uri!r}, which is on {parts.netloc}.")
        return Path(url2pathname(parts.path))
    from upath import UPath

    try:
        place = UPath(uri)
        place.fs  # noqa: B018 - Libraries are loaded when the file system is asked for.
    except ImportError as error:
        raise PlaceError(f"should be in a place that an installed library knows; {uri!r}: {error}.") from error
    except (ValueError, OSError) as error:
        raise PlaceError(f"should be a path, or a URI that fsspec understands; {uri!r}: {error}.") from error
    if parts.netloc not in str(place):
        # As of hdfs://, whose host gets lost on the way.
        raise PlaceError(f"should be a path, or a URI that is understood as a whole; {uri!r} is taken for {place}.")
    return place


def refuse_password(uri: str) -> None:
    """Raises PlaceError if a URI has a password; the message does not repeat it."""
    parts = urlsplit(uri)
    if parts.password:
        # Names of places are printed, logged, and kept in metadata.
        raise PlaceError(
            f"should have no password, which the library of {parts.scheme}:// takes from the environment; received one "
            f"for {parts.hostname}."
        )


def without_password(text: str) -> str:
    """A text, such as a value that was refused, in which URIs have no name, no password and no key."""
    user, query = _SECRETS
    return query.sub(r"\1…", user.sub("://…@", text))


def below(place: Path, base: Path) -> str:
    """The part of a place that is below another one, with slashes; "." for the same place."""
    return "/".join(place.parts[len(base.parts) :]) or "."


def check_answered(place: Path, error: OSError) -> None:
    """Tells a store that did not answer, where another try may succeed, from a file that is wrong.

    Raises:
      ConnectionError: the place is a URI, and the error says neither that something is not there nor that it is closed.
    """
    wrong = FileNotFoundError | PermissionError | IsADirectoryError | NotADirectoryError
    if is_uri(str(place)) and not isinstance(error, wrong):
        raise ConnectionError(errno.EIO, reason(error), str(place)) from error


def reason(error: OSError) -> str:
    """Why a file could not be read; what libraries for other places raise has no such text of its own."""
    return error.strerror or str(error) or type(error).__name__
