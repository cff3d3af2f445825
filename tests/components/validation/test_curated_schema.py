"""The curated schema becomes an artifact as it is."""

from tfx.types import standard_artifacts

from components.validation.curated_schema import CuratedSchema
from transform.schema import PATH


def test_the_artifact_holds_the_file(tmp_path):
    schema = standard_artifacts.Schema()
    schema.uri = str(tmp_path / "schema" / "1")
    CuratedSchema.EXECUTOR_SPEC.executor_class().Do({}, {"schema": [schema]}, {})
    assert [path.name for path in (tmp_path / "schema" / "1").iterdir()] == [PATH.name]
    assert (tmp_path / "schema" / "1" / PATH.name).read_bytes() == PATH.read_bytes()
