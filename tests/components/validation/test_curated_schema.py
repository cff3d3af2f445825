"""The curated schema is imported again if its file has changed, and otherwise comes from the cache."""

import pytest
import tensorflow_data_validation as tfdv
from tensorflow_metadata.proto.v0 import schema_pb2
from tfx import v1 as tfx
from tfx.orchestration.metadata import Metadata, sqlite_metadata_connection_config

from components.validation.curated_schema import CuratedSchemaGen


@pytest.mark.component
def test_a_changed_file_is_imported_again(tmp_path):
    path = str(tmp_path / "schema.pbtxt")
    connection = sqlite_metadata_connection_config(str(tmp_path / "metadata.sqlite"))

    def run(*names):
        """Writes the schema, runs the pipeline, and returns the features of all schemas so far, oldest first."""
        tfdv.write_schema_text(schema_pb2.Schema(feature=[schema_pb2.Feature(name=name) for name in names]), path)
        tfx.orchestration.LocalDagRunner().run(
            tfx.dsl.Pipeline(
                pipeline_name="schema",
                pipeline_root=str(tmp_path / "root"),
                components=[CuratedSchemaGen(path)],
                enable_cache=True,
                metadata_connection_config=connection,
            )
        )
        with Metadata(connection) as metadata:
            schemas = sorted(metadata.store.get_artifacts_by_type("Schema"), key=lambda artifact: artifact.id)
        files = [f"{schema.uri}/schema.pbtxt" for schema in schemas]
        return [[feature.name for feature in tfdv.load_schema_text(file).feature] for file in files]

    assert run("one") == [["one"]]
    assert run("one") == [["one"]]
    assert run("one", "two") == [["one"], ["one", "two"]]
