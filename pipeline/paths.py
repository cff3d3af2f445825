"""Paths that cannot be used, found before anything is read or written.

TFX takes its folders for URIs, `pathlib` does not: `Path("gs://bucket/out")` is the local folder `gs:/bucket/out`. And
TFX, TensorFlow and Beam look for the files of an artifact, or of a model, with a pattern that begins with its folder.
"""

from pathlib import Path

import typer

from components.data.places import PlaceError, is_uri, place_of

_PATTERN_CHARACTERS = "[]*?{}\\"


class PathError(ValueError):
    """A path that cannot be used; the message names the setting, its value and what was expected."""


def check_local(setting: str, path: str) -> None:
    """Raises PathError if a path is a URI, such as `gs://bucket/out` or `file:///out`.

    Args:
      setting: the option, argument or variable that has the path, for the message.
      path: the path as it was given.
    """
    if problem := _local_problem(path):
        raise PathError(f"{setting}: {problem}")


def check_no_pattern(setting: str, path: str) -> None:
    """Raises PathError if a folder, of artifacts or of models, has a path or a URI that reads as a pattern.

    Args:
      setting: the option, argument or variable that has the folder, for the message.
      path: the absolute path or the URI.
    """
    if problem := _pattern_problem(path):
        raise PathError(f"{setting}: {problem}")


def local_path(value: str | Path) -> Path:
    """Parses a path on the command line: `typer.Option(parser=local_path)`, since typer's own parser takes URIs."""
    return _parsed(value, _local_problem(str(value)))


def data_path(value: str | Path) -> Path:
    """Parses, as `local_path`, a folder of raw files, which may also be a URI such as s3://bucket/ml-1m."""
    if not is_uri(str(value)):
        return local_path(value)
    try:
        return place_of(value)
    except PlaceError as error:
        raise typer.BadParameter(str(error)) from error


def artifact_path(value: str | Path) -> Path:
    """Parses, as `local_path`, a folder in which TFX, TensorFlow or Beam look for files with patterns."""
    return _parsed(value, _local_problem(str(value)) or _pattern_problem(str(Path(value).absolute())))


def _parsed(value: str | Path, problem: str | None) -> Path:
    if problem:
        raise typer.BadParameter(problem)
    return Path(value)


def _local_problem(path: str) -> str | None:
    if is_uri(path.strip()):
        return f"should be a path on this machine; received the URI {path!r}."
    if not path:
        # An empty path would mean the current folder.
        return "should be a path on this machine; received an empty one."
    try:
        path.encode()
    except UnicodeEncodeError:
        # TFX keeps paths in messages that hold nothing else.
        return f"should be a path in UTF-8; received {path!r}."
    return None


def _pattern_problem(path: str) -> str | None:
    found = [character for character in _PATTERN_CHARACTERS if character in path]
    if found:
        return (
            f"should have none of the characters {' '.join(_PATTERN_CHARACTERS)} in its path, because files are looked "
            f"for by it; received {path!r}."
        )
    return None
