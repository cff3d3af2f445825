"""TensorFlow's files in memory, ram://, as a place for artifacts: a stand-in for an object store, without a server.

Importing this makes them known to Apache Beam, which finds file systems among the sub-classes of its own. They are of
one process, so Beam's workers have to be its threads.
"""

import io
from collections.abc import Iterator
from typing import Any

import pytest
import tensorflow as tf
from apache_beam.io.filesystem import (
    BeamIOError,
    CompressedFile,
    CompressionTypes,
    FileMetadata,
    FileSystem,
)

SCHEME = "ram"


class RamFileSystem(FileSystem):
    """Beam's interface to TensorFlow's files in memory."""

    @classmethod
    def scheme(cls) -> str:
        return SCHEME

    def join(self, basepath: str, *paths: str) -> str:
        return "/".join([basepath.rstrip("/"), *(path.strip("/") for path in paths)])

    def split(self, path: str) -> tuple[str, str]:
        head, _, tail = path.rpartition("/")
        return head, tail

    def mkdirs(self, path: str) -> None:
        if tf.io.gfile.exists(path):
            raise BeamIOError(f"{path} exists already.")
        tf.io.gfile.makedirs(path)

    def has_dirs(self) -> bool:
        return True

    def _list(self, dir_or_prefix: str) -> Iterator[FileMetadata]:
        folder = dir_or_prefix if tf.io.gfile.isdir(dir_or_prefix) else self.split(dir_or_prefix)[0]
        for parent, _, names in tf.io.gfile.walk(folder):
            for name in names:
                path = self.join(parent, name)
                if path.startswith(dir_or_prefix):
                    yield self._metadata(path)

    def _metadata(self, path: str) -> FileMetadata:
        return FileMetadata(path, self.size(path))

    def _open(self, path: str, mode: str, compression_type: str) -> Any:
        kind = CompressionTypes.detect_compression_type(path) if compression_type == "auto" else compression_type
        file = _File(path, mode)
        return file if kind == CompressionTypes.UNCOMPRESSED else CompressedFile(file, kind)

    def create(
        self,
        path: str,
        mime_type: str = "application/octet-stream",
        compression_type: str = CompressionTypes.AUTO,
    ) -> Any:
        return self._open(path, "wb", compression_type)

    def open(
        self,
        path: str,
        mime_type: str = "application/octet-stream",
        compression_type: str = CompressionTypes.AUTO,
    ) -> Any:
        return self._open(path, "rb", compression_type)

    def copy(self, source_file_names: list[str], destination_file_names: list[str]) -> None:
        for source, target in zip(source_file_names, destination_file_names, strict=True):
            _copy(source, target)

    def rename(self, source_file_names: list[str], destination_file_names: list[str]) -> None:
        for source, target in zip(source_file_names, destination_file_names, strict=True):
            _copy(source, target)
            self.delete([source])

    def exists(self, path: str) -> bool:
        return bool(tf.io.gfile.exists(path))

    def size(self, path: str) -> int:
        return int(tf.io.gfile.stat(path).length)

    def last_updated(self, path: str) -> float:
        return float(tf.io.gfile.stat(path).mtime_nsec) / 1e9

    def checksum(self, path: str) -> str:
        return str(self.size(path))

    def metadata(self, path: str) -> FileMetadata:
        return self._metadata(path)

    def delete(self, paths: list[str]) -> None:
        for path in paths:
            if tf.io.gfile.isdir(path):
                tf.io.gfile.rmtree(path)
            else:
                tf.io.gfile.remove(path)


class _File(io.BytesIO):
    """A file; one that is written is there, whole, once it is closed, as in an object store."""

    def __init__(self, path: str, mode: str):
        super().__init__(tf.io.gfile.GFile(path, "rb").read() if mode == "rb" else b"")
        self._path, self._mode = path, mode

    @property
    def mode(self) -> str:
        return self._mode

    def close(self) -> None:
        if not self.closed and self.mode == "wb":
            with tf.io.gfile.GFile(self._path, "wb") as file:
                file.write(self.getvalue())
        super().close()


def _copy(source: str, target: str) -> None:
    if not tf.io.gfile.isdir(source):
        tf.io.gfile.copy(source, target, overwrite=True)
        return
    tf.io.gfile.makedirs(target)
    for name in tf.io.gfile.listdir(source):
        _copy(f"{source}/{name}", f"{target}/{name}")


def behave_as_elsewhere(patch: pytest.MonkeyPatch) -> None:
    """Has TensorFlow's files in memory do what all other places do, but these do not.

    A folder is renamed with the files in it, as tensorflow-transform renames those that it has written; in memory they
    would be left behind. And what is written to a file replaces what was there, as keras-tuner relies on; in memory it
    would be appended.

    Args:
      patch: undoes this.
    """
    rename, file = tf.io.gfile.rename, tf.io.gfile.GFile

    def is_here(path: Any) -> bool:
        return str(path).startswith(f"{SCHEME}://")

    def renamed(src: str, dst: str, overwrite: bool = False) -> None:
        if is_here(src) and tf.io.gfile.isdir(src):
            _copy(src, dst)
            tf.io.gfile.rmtree(src)
        else:
            rename(src, dst, overwrite)

    def opened(name: str, mode: str = "r") -> Any:
        if is_here(name) and mode.startswith("w") and tf.io.gfile.exists(name):
            tf.io.gfile.remove(name)
        return file(name, mode)

    patch.setattr(tf.io.gfile, "rename", renamed)
    patch.setattr(tf.io.gfile, "GFile", opened)
