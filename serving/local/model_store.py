"""Watches MODELS/NAME/VERSION and keeps the newest complete version of every model in memory."""

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, Literal, Protocol, TypeVar

import grpc

from serving.local.errors import invalid_argument, not_found
from serving.local.versions import Snapshot, VersionDirectory, list_versions, model_directories

logger = logging.getLogger(__name__)

State = Literal["LOADING", "AVAILABLE", "END"]


class Versioned(Protocol):
    """What the store needs to know about a model."""

    @property
    def version(self) -> int: ...


Model = TypeVar("Model", bound=Versioned)
Loader = Callable[[str, int, Path], Model]


@dataclass(frozen=True)
class VersionStatus:
    """State of a model version, with the state names of TensorFlow Serving's ModelService.

    Attributes:
      version: The version.
      state: LOADING, AVAILABLE, or END (unloaded, or could not be loaded).
      code: OK, or the error code if the version could not be loaded.
      message: The error message; empty if there was no error.
    """

    version: int
    state: State
    code: grpc.StatusCode = grpc.StatusCode.OK
    message: str = ""


class ModelStore(Generic[Model]):
    """Holds the newest complete version of every model under a folder.

    A new version replaces the old one only after it has loaded; running calls finish on the version they started
    with. A version that cannot be loaded is logged once, and tried again only when its files change. When the newest
    version is deleted, the next newest one that can be loaded takes over, and without one the model is served no
    longer, as in TensorFlow Serving.

    Args:
      root: Folder of NAME/VERSION/saved_model.pb.
      load: Function that loads a version; takes its model name, version and path.
      poll_seconds: Seconds between two checks of the folder.
      settle_seconds: Seconds without a change of a version's files after which the version is loaded.
    """

    def __init__(
        self, root: Path, load: Loader[Model], *, poll_seconds: float = 2.0, settle_seconds: float = 1.0
    ) -> None:
        self.root = root
        self._load = load
        self._poll_seconds = poll_seconds
        self._settle_seconds = settle_seconds
        self._models: dict[str, Model] = {}
        self._statuses: dict[str, dict[int, VersionStatus]] = {}
        self._broken: dict[Path, Snapshot] = {}
        self._lock = threading.Lock()
        self._poll_lock = threading.Lock()
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Loads the versions that are there, then watches for changes in a thread of its own."""
        if self.poll():
            # Some version was still being written: wait once, so that a version just pushed is served from the start.
            time.sleep(self._settle_seconds)
            self.poll()
        self._thread = threading.Thread(target=self._watch, name="model-store", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stops watching the folder; loaded models stay usable."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join()

    def poll(self) -> bool:
        """Checks the folder once, and loads or unloads versions accordingly.

        Returns:
          Whether some version is still being written, so that a later check may load it.
        """
        with self._poll_lock:
            try:
                directories = model_directories(self.root)
            except OSError as error:
                logger.warning("%s cannot be read, its models stay as they are: %s", self.root, error)
                return False
            for name in set(self._models) - {directory.name for directory in directories}:
                self._unload(name)
            pending = [self._poll_model(directory) for directory in directories]
            return any(pending)

    def get(self, name: str, version: int | None = None) -> Model:
        """Returns a loaded model.

        Args:
          name: Name of the model.
          version: The version; None for the one that is served.

        Raises:
          ServingError: INVALID_ARGUMENT without a name, NOT_FOUND when there is no such model or version.
        """
        if not name:
            raise invalid_argument("ModelSpec has no name specified.")
        with self._lock:
            model = self._models.get(name)
        if model is None or (version is not None and model.version != version):
            wanted = f"Latest({name})" if version is None else f"Specific({name}, {version})"
            raise not_found(f"Servable not found for request: {wanted}")
        return model

    def served(self) -> dict[str, int]:
        """Returns the served version of every model, by name."""
        with self._lock:
            return {name: model.version for name, model in sorted(self._models.items())}

    def status(self, name: str, version: int | None = None) -> list[VersionStatus]:
        """Returns the state of one or all known versions of a model, newest first.

        Raises:
          ServingError: NOT_FOUND when the store knows no such model or version.
        """
        with self._lock:
            statuses = dict(self._statuses.get(name, {}))
        if version is not None:
            if version not in statuses:
                raise not_found(f"Could not find version {version} of model {name}")
            return [statuses[version]]
        if not statuses:
            raise not_found(f"Could not find any versions of model {name}")
        return [statuses[known] for known in sorted(statuses, reverse=True)]

    def _watch(self) -> None:
        while not self._stopping.wait(self._poll_seconds):
            self.poll()

    def _poll_model(self, directory: Path) -> bool:
        name = directory.name
        try:
            found = list_versions(directory, self._settle_seconds)
        except OSError as error:
            logger.warning("%s cannot be read, the model stays as it is: %s", directory, error)
            return False
        current = self._models.get(name)
        pending = False
        for candidate in found:
            if current is not None and candidate.version == current.version:
                break
            if not candidate.settled:
                pending = True
            elif self._broken.get(candidate.path) != candidate.snapshot and self._replace(name, candidate):
                break
        else:
            # The version that is served is not on disk any more, and nothing takes its place.
            if current is not None and not pending:
                self._unload(name)
        return pending

    def _replace(self, name: str, candidate: VersionDirectory) -> bool:
        version = candidate.version
        self._set_status(name, VersionStatus(version, "LOADING"))
        started = time.monotonic()
        try:
            model = self._load(name, version, candidate.path)
        except Exception as error:  # TensorFlow raises many types; one damaged model must not stop others
            message = f"{type(error).__name__}: {error}"
            self._broken[candidate.path] = candidate.snapshot
            self._set_status(name, VersionStatus(version, "END", grpc.StatusCode.UNKNOWN, message))
            logger.error("%s version %d cannot be loaded from %s: %s", name, version, candidate.path, message)
            return False
        self._broken.pop(candidate.path, None)
        with self._lock:
            old = self._models.get(name)
            self._models[name] = model
            statuses = self._statuses[name]
            statuses[version] = VersionStatus(version, "AVAILABLE")
            if old is not None:
                statuses[old.version] = VersionStatus(old.version, "END")
        replaced = "" if old is None else f", replaces version {old.version}"
        logger.info("%s version %d loaded in %.1f s%s", name, version, time.monotonic() - started, replaced)
        return True

    def _unload(self, name: str) -> None:
        with self._lock:
            version = self._models.pop(name).version
            self._statuses[name][version] = VersionStatus(version, "END")
        logger.warning(
            "%s version %d unloaded: it was deleted, and %s holds no other that can be loaded",
            name,
            version,
            self.root / name,
        )

    def _set_status(self, name: str, status: VersionStatus) -> None:
        with self._lock:
            self._statuses.setdefault(name, {})[status.version] = status
