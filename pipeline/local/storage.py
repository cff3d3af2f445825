"""The URIs at which artifacts or pushed models of an output folder lie, and whose these are.

Like metadata on a server, see `pipeline.local.store`: an output folder keeps to what its first run chose, and has a
file that says so, with a name that nobody else has. Each place knows that name, too, and where the folder was last
used. For artifacts are known by the numbers of executions, which are unique in one metadata store only: the runs of a
second folder, or of a copy of this one, would overwrite what is there, and recovery and withdrawals would remove it.
"""

import contextlib
import json
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from components.storage.paths import UriPath, stored_path, write_first, write_whole
from pipeline.local.errors import RunError
from pipeline.local.quiet_tensorflow import import_tensorflow_quietly

_MARK = "storage.json"
OWNER = ".movielens-output.json"


class StorageError(RunError):
    """A place that cannot be used; the message says why."""

    exit_code = 2


class StorageUnreachable(StorageError):
    """A place whose store does not answer; another try may succeed."""

    exit_code = 1


@dataclass(frozen=True)
class Kept:
    """Where an output folder keeps artifacts and pushed models; None for in the folder itself."""

    artifacts: Path | None = None
    serving: Path | None = None
    name: str = ""

    @property
    def settings(self) -> dict[str, Path]:
        """The places, by the setting that names each."""
        named = {"storage.artifacts": self.artifacts, "storage.serving": self.serving}
        return {setting: place for setting, place in named.items() if place is not None}

    @property
    def places(self) -> list[UriPath]:
        """The places."""
        return [place for place in self.settings.values() if isinstance(place, UriPath)]


def read(root: Path) -> Kept:
    """What an output folder has written down.

    Raises:
      StorageError: it cannot be read.
    """
    mark = root / _MARK
    try:
        content = json.loads(mark.read_text(encoding="utf-8"))
        places = {name: stored_path(uri) if (uri := content[name]) else None for name in ("artifacts", "serving")}
        return Kept(places["artifacts"], places["serving"], str(content["folder"]))
    except (FileNotFoundError, NotADirectoryError):
        return Kept()
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StorageError(f"{mark}: should say where artifacts and pushed models lie; {error!r}.") from error


def keep(root: Path, artifacts: str | None, serving: str | None, write: bool) -> None:
    """Implements `OutputFolder.keep_storage`."""
    wanted = {"artifacts": artifacts, "serving": serving}
    published = ""
    if not (root / _MARK).exists():
        if artifacts is None and serving is None:
            return
        if used := [name for name in ("pipeline", "serving") if (root / name).exists()]:
            raise StorageError(
                f"{root}: has {' and '.join(used)}, in which artifacts and pushed models are kept unless a setting "
                f"says otherwise; storage.artifacts is {_told(artifacts)}, storage.serving {_told(serving)}. Choose "
                "another --output."
            )
        published = uuid.uuid4().hex
        kept = Kept(stored_path(artifacts) if artifacts else None, stored_path(serving) if serving else None, published)
        _check_known(kept)
        if not write:
            _refuse_others(root, kept)
            return
        root.mkdir(parents=True, exist_ok=True)
        # Written before any place is claimed, so that a process that is killed leaves no place that nobody has.
        write_first(root / _MARK, json.dumps({**wanted, "folder": published}, indent=1) + "\n")
    # Of several processes that begin at once, the first one's file is there now.
    kept = read(root)
    for name, place in (("artifacts", kept.artifacts), ("serving", kept.serving)):
        if (str(place) if place else None) != wanted[name]:
            raise StorageError(
                f"{root}: earlier runs keep {name} {f'at {place}' if place else 'in the folder'}, as {_MARK} says; "
                f"storage.{name} is {_told(wanted[name])}. Leave it as it was, or choose another --output."
            )
    _check_known(kept)
    if not write:
        _refuse_others(root, kept)
        return
    try:
        _claim(root, kept)
    except StorageError:
        # A first try that was refused should bind the folder to nothing.
        if kept.name == published:
            (root / _MARK).unlink()
        raise


def check(root: Path, wanted: Mapping[str, str | None]) -> None:
    """Implements `OutputFolder.check_places`; the places that are wanted, by the name of the setting."""
    kept = read(root)
    for name, uri in wanted.items():
        place = kept.settings.get(f"storage.{name}")
        if (str(place) if place else None) != uri:
            raise StorageError(
                f"{root}: should keep {name} {f'at {uri}' if uri else 'in the folder'}, as storage.{name} says; "
                f"{_MARK} {f'says {place}' if place else 'does not say so'}. Compile the pipeline again."
            )
    _check_known(kept)
    _claim(root, kept)


def _told(uri: str | None) -> str:
    return uri or "null"


def _check_known(kept: Kept) -> None:
    if not kept.settings:
        return
    import_tensorflow_quietly()
    import tensorflow as tf
    from apache_beam.io.filesystem import BeamIOError
    from apache_beam.io.filesystems import FileSystems

    known = sorted(set(tf.io.gfile.get_registered_schemes()) - {"", "file"})
    for setting, place in kept.settings.items():
        scheme = urlsplit(str(place)).scheme
        if scheme not in known:
            raise StorageError(
                f"{setting}: should be a URI that TensorFlow knows, of {', '.join(f'{each}://' for each in known)}; "
                f"received {str(place)!r}. {scheme}:// needs a plug-in for TensorFlow's file systems, which this "
                "environment lacks."
            )
        try:
            FileSystems.get_filesystem(str(place))
        except (ValueError, BeamIOError, ImportError) as error:
            raise StorageError(
                f"{setting}: should be a URI that Apache Beam knows, too; received {str(place)!r}. {scheme}:// needs "
                f"Beam's library for it, such as apache-beam[gcp] for gs://; {error}"
            ) from error


def _refuse_others(root: Path, kept: Kept) -> dict[str, dict[str, str] | None]:
    """Returns what the places say of whose they are, by setting; None for nobody's.

    Raises:
      StorageError: another folder has one of them, or it cannot be read.
    """
    owners = {}
    for setting, place in kept.settings.items():
        try:
            owner = owners[setting] = _owner(place)
            if owner is None or (owner["folder"] == kept.name and not _is_there(Path(owner["root"]), root, kept.name)):
                continue
            if owner["folder"] != kept.name and owner["root"] == str(root):
                raise StorageError(
                    f"{setting}: {place} belongs to an earlier output folder {root}, which is gone, with the metadata "
                    f"that say what is there. Delete {place} if it is not needed any more, or choose another place."
                )
            if owner != {"folder": kept.name, "root": str(root)}:
                raise StorageError(
                    f"{setting}: {place} belongs to the output folder {owner['root']}, whose runs and those of "
                    f"{root} would overwrite each other's. Choose another place for a new --output."
                )
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise _unusable(setting, place, error) from error
    return owners


def _claim(root: Path, kept: Kept) -> None:
    """Writes down at the places whose they are, unless that is known; at all of them or at none.

    Raises:
      StorageError: another folder has them, or they cannot be written.
    """
    here, new = {"folder": kept.name, "root": str(root)}, []
    for setting, owner in _refuse_others(root, kept).items():
        place = kept.settings[setting]
        if owner == here:
            continue
        try:
            place.mkdir(parents=True, exist_ok=True)
            write_whole(place / OWNER, json.dumps(here) + "\n")
            if owner is None:
                new.append(place / OWNER)
            if _owner(place) != here:
                raise StorageError(f"{setting}: {place} was taken by another output folder at the same time.")
        except (OSError, ValueError, StorageError) as error:
            for mine in new:
                with contextlib.suppress(OSError, ValueError):
                    if _owner(mine.parent) == here:
                        mine.unlink()
            if isinstance(error, StorageError):
                raise
            raise _unusable(setting, place, error) from error


def _unusable(setting: str, place: Path, error: Exception) -> StorageError:
    if isinstance(error, ConnectionError):
        return StorageUnreachable(f"{setting}: {place} cannot be reached; {error}.")
    return StorageError(f"{setting}: {place} should be a folder that can be written; {error}.")


def _owner(place: Path) -> dict[str, str] | None:
    try:
        return dict(json.loads((place / OWNER).read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None


def _is_there(last: Path, root: Path, name: str) -> bool:
    """Whether the folder that a place belongs to is still where it was, so that this one is a copy of it.

    What cannot be read is taken to be there.
    """
    try:
        return not last.samefile(root) and read(last).name == name
    except (FileNotFoundError, NotADirectoryError):
        return False
    except (OSError, StorageError):
        return True
