"""The driver of MovieLensExampleGen: it chooses the span, and says by what the files hold whether they have changed.

TFX's own driver looks for files with a pattern that begins with the folder's path, so that it finds none in a folder
with a name like `data[1]`. It then takes them for unchanged if their sizes and times, in whole seconds, are the same.
And it looks at the latest span only, although what is written depends on all of them.
"""

import hashlib
from collections.abc import Iterable
from pathlib import Path

from tfx.components.example_gen.driver import FileBasedDriver
from tfx.components.example_gen.input_processor import FileBasedInputProcessor
from tfx.proto import example_gen_pb2, range_config_pb2

from components.data.contents import content_hash
from components.ingestion.spans import find_window


class ContentDriver(FileBasedDriver):
    """TFX's driver with another way to find the files; what it records about span and version is TFX's."""

    def get_input_processor(
        self,
        splits: Iterable[example_gen_pb2.Input.Split],
        range_config: range_config_pb2.RangeConfig | None = None,
        input_base_uri: str | None = None,
    ) -> FileBasedInputProcessor:
        """Returns the part of the driver that looks at the input folder."""
        assert input_base_uri is not None, "MovieLensExampleGen always has an input folder."
        return _ContentProcessor(input_base_uri, splits, range_config)


class _ContentProcessor(FileBasedInputProcessor):
    def resolve_span_and_version(self) -> tuple[int, int | None]:
        """Chooses the latest span and its latest version; without spans these are 0 and None, as TFX has it.

        Raises:
          DataError: as `components.ingestion.spans.span_folders`.
        """
        base = Path(self._input_base_uri)
        if not self._is_match_span:
            self._fingerprint = _fingerprint(base, [base])
            return 0, None
        # Whether spans are missing inside the window, is for the executor to say; nothing is cached if it fails.
        window = find_window(base, 1, versions=bool(self._is_match_version))
        self._fingerprint = _fingerprint(base, window.folders.values())
        return window.newest, window.version


def _fingerprint(base: Path, folders: Iterable[Path]) -> str:
    """Hashes the contents of folders and their places below the input folder, wherever that folder lies."""
    digest = hashlib.sha256()
    for folder in folders:
        digest.update(f"{folder.relative_to(base)}\0{content_hash(folder)}\n".encode())
    return f"sha256:{digest.hexdigest()}"
