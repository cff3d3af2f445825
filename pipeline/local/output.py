"""The output folder of a run: its layout, and the checks and the lock before a run writes to it."""

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from components.storage.paths import UriPath, below, write_first
from pipeline.local import storage
from pipeline.local.errors import RunError
from pipeline.local.store import FileStore, ServerStore, Store, mark_of_server, reach_server

if TYPE_CHECKING:
    from pipeline.storage_config import StorageConfig

_MEGABYTE = 2**20


@dataclass(frozen=True)
class OutputFolder:
    """The folder that holds everything a run writes, or says at which URIs the artifacts or the pushed models are."""

    root: Path

    @property
    def data(self) -> Path:
        """The folder of synthetic data, for runs without a data folder."""
        return self.root / "data"

    @property
    def logs(self) -> Path:
        """The folder of log files, one for each run."""
        return self.root / "logs"

    @property
    def metadata(self) -> Path:
        """The SQLite file of the ML Metadata store, unless the metadata are on a server."""
        return self.root / "metadata.sqlite"

    @property
    def store(self) -> Store:
        """Where the metadata are kept."""
        return ServerStore(self._mark) if self._mark.exists() else FileStore(self.metadata)

    @property
    def _mark(self) -> Path:
        """The file that is there if the metadata are on a server."""
        return self.root / "metadata.json"

    @property
    def artifacts(self) -> Path:
        """The pipeline root: artifacts as COMPONENT/OUTPUT/EXECUTION."""
        return self._kept.artifacts or self.root / "pipeline"

    @property
    def serving(self) -> Path:
        """Pushed models, as NAME/VERSION."""
        return self._kept.serving or self.root / "serving"

    @property
    def places(self) -> list[UriPath]:
        """The URIs at which artifacts or pushed models lie."""
        return self._kept.places

    @property
    def _kept(self) -> storage.Kept:
        return storage.read(self.root)

    @property
    def summary(self) -> Path:
        """The file with the results of the last finished run."""
        return self.root / "summary.json"

    def tuned(self, model: str) -> Path:
        """The configuration file with the best hyper-parameters that the last search found for a model."""
        return self.root / f"tuned-{model}.yaml"

    def prepare(self, free_megabytes: int) -> None:
        """Creates the folder, and checks that it is writable and that its disk has enough free space.

        Args:
          free_megabytes: the free space that the disk must have, in MiB.

        Raises:
          RunError: the folder is not writable, or the disk has less free space.
        """
        try:
            for folder in (self.root, self.logs):
                folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.root):
                pass
        except OSError as error:
            raise RunError(f"{self.root}: should be a folder that can be written; {error.strerror}.") from error
        free = shutil.disk_usage(self.root).free // _MEGABYTE
        if free < free_megabytes:
            raise RunError(
                f"{self.root}: No space left on device: at least {free_megabytes} MB should be free; {free} MB are. "
                "Free some, or choose another --output."
            )

    @contextlib.contextmanager
    def locked(self, advice: str = "wait for it, or choose another --output") -> Iterator[None]:
        """Locks the folder for one run; the operating system frees the lock even if the process is killed.

        Args:
          advice: what to do if another run has locked it.

        Raises:
          RunError: another run, or a node of one, has locked the folder.
        """
        with _locked(self.root / ".lock", f"{self.root}: another run ({{}}) is writing here; {advice}."):
            yield

    @contextlib.contextmanager
    def locked_for_node(self, node: str) -> Iterator[None]:
        """Locks the folder for one node: other nodes may run meanwhile, but neither this one nor a whole run.

        Raises:
          RunError: a whole run, or another process with this node, has locked the folder.
        """
        whole = f"{self.root}: another run ({{}}) is writing here; try again when it has ended."
        same = f"{self.root}: {node} is running already ({{}}); try again when it has ended."
        folder = self.root / ".nodes"
        folder.mkdir(exist_ok=True)
        with _locked(self.root / ".lock", whole, shared=True), _locked(folder / node, same):
            yield

    def keep_metadata(self, backend: str, write: bool = True) -> None:
        """Has the metadata of a new folder kept where a configuration says; a used one keeps to what it has.

        Args:
          backend: as `metadata.backend` of the configuration.
          write: whether the folder may be made; otherwise it is only checked.

        Raises:
          RunError: earlier runs have kept the metadata elsewhere, or there is no server to keep them.
        """
        on_server = backend == "mysql"
        there = self._mark if self._mark.exists() else self.metadata if self.metadata.exists() else None
        if there is not None and on_server != (there == self._mark):
            kept = "a file" if there == self.metadata else "a server"
            raise RunError(
                f"{self.root}: earlier runs keep their metadata in {kept}, as {there.name} says; metadata.backend is "
                f"{backend}. Leave it as it was, or choose another --output."
            )
        if on_server and there is None and write:
            # A first try that finds no server should not bind the folder to one.
            reach_server()
            self.root.mkdir(parents=True, exist_ok=True)
            # Of several processes that begin at once, the first one's name stays.
            write_first(self._mark, mark_of_server())

    def keep_storage(self, config: "StorageConfig", write: bool = True) -> None:
        """Has artifacts and pushed models of a new folder kept where a configuration says; a used one keeps to it.

        Args:
          config: the section `storage` of the configuration.
          write: whether the folder, and the files by which the places know it, may be made; otherwise it is only
            checked.

        Raises:
          StorageError: earlier runs have kept them elsewhere, a place belongs to another folder, or it is one of a kind
            that TensorFlow or Beam does not know.
        """
        storage.keep(self.root, config.artifacts, config.serving, write)

    def check_places(self, config: "StorageConfig | None" = None) -> None:
        """Checks, before anything is changed at the URIs of this folder, that they are this folder's.

        Args:
          config: the section `storage` of a configuration that the folder should keep to; None for whatever it has.

        Raises:
          StorageError: the folder does not keep to it, one of them belongs to another folder, or it cannot be used.
        """
        wanted = {} if config is None else {"artifacts": config.artifacts, "serving": config.serving}
        storage.check(self.root, wanted)

    def check_metadata(self, alone: bool = True) -> None:
        """Checks that the metadata store, if there is one, is usable.

        Args:
          alone: whether nobody else should be using it; otherwise others may, and this waits for them.

        Raises:
          RunError: the store is damaged, locked by another process or out of reach, or it is missing although
            artifacts exist.
        """
        if self.store.exists:
            self.store.check(alone)
        elif any(not child.name.startswith(storage.OWNER) for child in below(self.artifacts, "*")):
            raise RunError(
                f"{self.artifacts} holds artifacts, but the metadata that describe them, in {self.store}, are gone. "
                "Bring them back, or name the right database if they are on a server; else delete the folder, or "
                "choose another --output."
            )


@contextlib.contextmanager
def _locked(path: Path, refusal: str, shared: bool = False) -> Iterator[None]:
    """Locks a file, which then says who locked it last.

    Raises:
      RunError: another process has locked it; the message is `refusal`, with what the file says.
    """
    with path.open("a+") as file:
        try:
            fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            raise RunError(refusal.format(file.read().strip() or "unknown")) from error
        file.truncate(0)
        # Of several processes that share a lock, none is the one that keeps others out.
        file.write("of single nodes" if shared else f"process {os.getpid()}")
        file.flush()
        yield
