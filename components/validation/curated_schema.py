"""TFX's ImportSchemaGen, with a cache key that depends on the file's content and not only on its path."""

import hashlib
from pathlib import Path
from typing import Any, ClassVar

from tfx import types
from tfx.components.schema_gen.import_schema_gen.component import ImportSchemaGen
from tfx.types import component_spec, standard_artifacts
from tfx.types.standard_component_specs import ImportSchemaGenSpec


class CuratedSchemaSpec(ImportSchemaGenSpec):
    """The spec of ImportSchemaGen, with a hash of the file as an additional parameter."""

    PARAMETERS: ClassVar[dict[str, Any]] = {
        **ImportSchemaGenSpec.PARAMETERS,
        "schema_sha256": component_spec.ExecutionParameter(type=str),
    }


class CuratedSchemaGen(ImportSchemaGen):
    """Imports a schema file, and imports it again when its content has changed."""

    SPEC_CLASS = CuratedSchemaSpec

    def __init__(self, schema_file: str):
        """Takes the file's path."""
        digest = hashlib.sha256(Path(schema_file).read_bytes()).hexdigest()
        spec = CuratedSchemaSpec(
            schema_file=schema_file, schema_sha256=digest, schema=types.Channel(type=standard_artifacts.Schema)
        )
        # The __init__ of ImportSchemaGen is skipped, because it would make a spec without the hash.
        super(ImportSchemaGen, self).__init__(spec=spec)
