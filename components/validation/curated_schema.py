"""TFX's ImportSchemaGen, but for the cache, which looks at a file's content and not only at its path."""

import hashlib
from pathlib import Path
from typing import Any, ClassVar

from tfx import types
from tfx.components.schema_gen.import_schema_gen.component import ImportSchemaGen
from tfx.types import component_spec, standard_artifacts
from tfx.types.standard_component_specs import ImportSchemaGenSpec


class CuratedSchemaSpec(ImportSchemaGenSpec):
    """What ImportSchemaGen has, and a hash of the file."""

    PARAMETERS: ClassVar[dict[str, Any]] = {
        **ImportSchemaGenSpec.PARAMETERS,
        "schema_sha256": component_spec.ExecutionParameter(type=str),
    }


class CuratedSchemaGen(ImportSchemaGen):
    """Imports a schema file; again, when it was changed."""

    SPEC_CLASS = CuratedSchemaSpec

    def __init__(self, schema_file: str):
        """Takes the file's path."""
        digest = hashlib.sha256(Path(schema_file).read_bytes()).hexdigest()
        spec = CuratedSchemaSpec(
            schema_file=schema_file, schema_sha256=digest, schema=types.Channel(type=standard_artifacts.Schema)
        )
        # TFX's own __init__ makes a spec without the hash.
        super(ImportSchemaGen, self).__init__(spec=spec)
