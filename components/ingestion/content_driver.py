"""The driver of MovieLensExampleGen: it chooses the span, and says by what the files hold whether they have changed.

TFX's own driver looks for files with a pattern that begins with the folder's path, so that it finds none in a folder
with a name like `data[1]`. It then takes them for unchanged if their sizes and times, in whole seconds, are the same.
And it looks at the latest span only, although what is written depends on all that are read.
"""

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tfx.components.example_gen.driver import FileBasedDriver
from tfx.components.example_gen.input_processor import FileBasedInputProcessor
from tfx.orchestration import data_types
from tfx.proto import example_gen_pb2, range_config_pb2
from tfx.types import standard_component_specs

from components.data.contents import content_hash
from components.data.places import below, place_of
from components.ingestion.settings import unpack_settings
from components.ingestion.spans import find_window


class ContentDriver(FileBasedDriver):
    """TFX's driver with another way to find the files; what it records about span and version is TFX's."""

    _keep: int | None = None

    def resolve_exec_properties(
        self,
        exec_properties: dict[str, Any],
        pipeline_info: data_types.PipelineInfo,
        component_info: data_types.ComponentInfo,
    ) -> dict[str, Any]:
        """Adds span, version and fingerprint, of the spans that the executor will read."""
        settings = json.loads(unpack_settings(exec_properties[standard_component_specs.CUSTOM_CONFIG_KEY]))
        # TFX calls get_input_processor from here, and does not hand it these properties.
        self._keep = settings["keep_spans"]
        return super().resolve_exec_properties(exec_properties, pipeline_info, component_info)

    def get_input_processor(
        self,
        splits: Iterable[example_gen_pb2.Input.Split],
        range_config: range_config_pb2.RangeConfig | None = None,
        input_base_uri: str | None = None,
    ) -> FileBasedInputProcessor:
        """Returns the part of the driver that looks at the input folder."""
        assert input_base_uri is not None, "MovieLensExampleGen always has an input folder."
        return _ContentProcessor(self._keep, input_base_uri, splits, range_config)


class _ContentProcessor(FileBasedInputProcessor):
    def __init__(self, keep: int | None, *args: Any):
        super().__init__(*args)
        self._keep = keep

    def resolve_span_and_version(self) -> tuple[int, int | None]:
        """Chooses the latest span and its latest version; without spans these are 0 and None, as TFX has it.

        Raises:
          DataError: as `components.ingestion.spans.find_window`.
        """
        base = place_of(self._input_base_uri)
        if not self._is_match_span:
            self._fingerprint = _fingerprint(base, [base])
            return 0, None
        # Whether spans are missing inside the window, is for the executor to say; nothing is cached if it fails.
        window = find_window(base, 1, versions=bool(self._is_match_version), keep=self._keep)
        self._fingerprint = _fingerprint(base, window.folders.values())
        return window.newest, window.version


def _fingerprint(base: Path, folders: Iterable[Path]) -> str:
    """Hashes the contents of folders and their places below the input folder, wherever that folder lies."""
    digest = hashlib.sha256()
    for folder in folders:
        digest.update(f"{below(folder, base)}\0{content_hash(folder)}\n".encode())
    return f"sha256:{digest.hexdigest()}"
