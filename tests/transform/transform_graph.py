"""Fits the Transform graph to a few rows and transforms rows with it in Beam, as the Transform component does."""

from pathlib import Path
from typing import Any

import apache_beam as beam
import tensorflow as tf
import tensorflow_transform as tft
import tensorflow_transform.beam as tft_beam
from apache_beam.options.pipeline_options import PipelineOptions
from tensorflow_metadata.proto.v0 import schema_pb2
from tensorflow_transform.tf_metadata import dataset_metadata, metadata_io
from tfx_bsl.coders.example_coder import RecordBatchToExamplesEncoder
from tfx_bsl.public import tfxio

from pipeline.beam_config import BeamConfig
from transform import features
from transform.preprocessing import preprocessing_fn
from transform.schema import curated_schema

Row = dict[str, list[Any]]

_OPTIONS = PipelineOptions(BeamConfig().args())


def serialize(row: Row) -> bytes:
    """Serializes a raw row as a tf.Example; features without values are left out."""
    example = tf.train.Example()
    for feature in features.FEATURES:
        values = row.get(feature.name)
        if not values:
            continue
        target = example.features.feature[feature.name]
        if feature.dtype == "string":
            target.bytes_list.value.extend(value.encode() for value in values)
        elif feature.dtype == "int64":
            target.int64_list.value.extend(values)
        else:
            target.float_list.value.extend(values)
    return example.SerializeToString()


def analyze(rows: list[Row], directory: Path, history_length: int, without: tuple[str, ...] = ()) -> Path:
    """Fits the Transform graph to rows and writes it.

    Args:
      rows: the raw rows to analyse.
      directory: the folder to write to.
      history_length: the number of movies in a history.
      without: features that the data lack.

    Returns:
      The folder of the graph.
    """
    reader = _reader(without)
    with beam.Pipeline(options=_OPTIONS) as pipeline, _context(directory):
        batches = _batches(pipeline, rows, reader)
        analyzed = (batches, reader.TensorAdapterConfig()) | tft_beam.AnalyzeDataset(
            lambda inputs: preprocessing_fn(inputs, {"history_length": history_length})
        )
        analyzed | tft_beam.WriteTransformFn(str(directory / "graph"))
    # The Transform component writes this beside the graph.
    raw_metadata = dataset_metadata.DatasetMetadata(_schema(without))
    metadata_io.write_metadata(raw_metadata, str(directory / "graph" / "metadata"))
    return directory / "graph"


def write(rows: list[Row], graph: Path, directory: Path) -> list[bytes]:
    """Transforms rows and returns them serialized, in the same order, as the Transform component writes them."""
    reader, path = _reader(), str(directory / "rows")
    schema = tft.TFTransformOutput(str(graph)).transformed_metadata.schema
    with beam.Pipeline(options=_OPTIONS) as pipeline, _context(directory):
        batches = _batches(pipeline, rows, reader)
        transform_fn = pipeline | tft_beam.ReadTransformFn(str(graph))
        transformed, _ = ((batches, reader.TensorAdapterConfig()), transform_fn) | tft_beam.TransformDataset(
            output_record_batches=True
        )
        encoded = transformed | beam.FlatMapTuple(lambda batch, _: RecordBatchToExamplesEncoder(schema).encode(batch))
        encoded | beam.io.WriteToTFRecord(path, num_shards=1, shard_name_template="")
    return [record.numpy() for record in tf.data.TFRecordDataset(path)]


def _context(directory: Path) -> tft_beam.Context:
    # The pipeline's Transform component traces the graph in this mode too.
    return tft_beam.Context(temp_dir=str(directory / "temporary"), force_tf_compat_v1=True)


def _schema(without: tuple[str, ...]) -> schema_pb2.Schema:
    schema = curated_schema()
    kept = [feature for feature in schema.feature if feature.name not in without]
    del schema.feature[:]
    schema.feature.extend(kept)
    return schema


def _reader(without: tuple[str, ...] = ()) -> tfxio.TFExampleBeamRecord:
    return tfxio.TFExampleBeamRecord("test", schema=_schema(without))


def _batches(pipeline: beam.Pipeline, rows: list[Row], reader: tfxio.TFExampleBeamRecord) -> beam.PCollection:
    # These batches of 7 differ in size from those that the serving graph gets, so that an effect of the size shows.
    return pipeline | beam.Create([serialize(row) for row in rows], reshuffle=False) | reader.BeamSource(7)
