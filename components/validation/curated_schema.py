"""TFX component: the curated schema as an artifact.

TFX's own ImportSchemaGen is given a path. This would make the place of the sources part of its cache key, and need the
same path in every container.
"""

import os

from tfx import v1 as tfx
from tfx.types import standard_artifacts
from tfx.utils import io_utils

from transform.schema import PATH


@tfx.dsl.components.component
def CuratedSchema(schema: tfx.dsl.components.OutputArtifact[standard_artifacts.Schema]) -> None:
    """Copies the curated schema, which is kept beside the features, from the sources that run.

    Args:
      schema: receives the schema.
    """
    io_utils.copy_file(str(PATH), os.path.join(schema.uri, PATH.name))
