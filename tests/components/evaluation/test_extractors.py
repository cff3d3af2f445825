"""The Evaluator's custom extractors lead to the same metrics as TFMA's own, and drop features that no slice needs."""

from pathlib import Path

import apache_beam as beam
import pytest
import tensorflow as tf
import tensorflow_model_analysis as tfma
from apache_beam.options.pipeline_options import PipelineOptions
from google.protobuf import text_format
from tensorflow_metadata.proto.v0 import schema_pb2
from tensorflow_model_analysis.proto import config_pb2
from tfx.components.util import udf_utils
from tfx_bsl.tfxio import tensor_adapter, tf_example_record

from components.evaluation.extractors import custom_extractors
from pipeline.beam_config import BeamConfig
from pipeline.config import load_config
from pipeline.graph import create_pipeline

SCHEMA = text_format.Parse(
    """
    feature { name: "gender" type: BYTES shape { dim { size: 1 } } presence { min_fraction: 1 } }
    feature { name: "genres" type: BYTES }
    feature { name: "history" type: INT }
    feature { name: "rating" type: FLOAT shape { dim { size: 1 } } presence { min_fraction: 1 } }
    """,
    schema_pb2.Schema(),
)


def example(row: int) -> bytes:
    features = {
        "gender": tf.train.Feature(bytes_list=tf.train.BytesList(value=[b"FM"[row % 2 : row % 2 + 1]])),
        "genres": tf.train.Feature(bytes_list=tf.train.BytesList(value=[b"Comedy", b"Drama", b"War"][: row % 4])),
        "history": tf.train.Feature(int64_list=tf.train.Int64List(value=range(row))),
        "rating": tf.train.Feature(float_list=tf.train.FloatList(value=[row % 5])),
    }
    return tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString()


@pytest.fixture
def model(tmp_path) -> str:
    """The path of a model that predicts the length of the history."""

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="examples")])
    def evaluate(examples):
        history = tf.io.parse_example(examples, {"history": tf.io.VarLenFeature(tf.int64)})["history"]
        lengths = tf.math.bincount(tf.cast(history.indices[:, 0], tf.int32), minlength=tf.size(examples))
        # The second output is needed because TFMA drops the name of a model's only output.
        return {"length": tf.cast(lengths, tf.float32), "zero": tf.zeros_like(lengths)}

    tf.saved_model.save(tf.Module(), str(tmp_path / "model"), signatures={"evaluate": evaluate})
    return str(tmp_path / "model")


CONFIG = text_format.Parse(
    """
    model_specs { signature_name: "evaluate" label_key: "rating" }
    slicing_specs { }
    slicing_specs { feature_keys: ["gender"] }
    slicing_specs { feature_keys: ["genres"] feature_values { key: "gender" value: "M" } }
    metrics_specs { output_names: ["length"] metrics { class_name: "MeanPrediction" }
                    metrics { class_name: "MeanLabel" } metrics { class_name: "ExampleCount" } }
    options { include_default_metrics { value: false } }
    """,
    config_pb2.EvalConfig(),
)


def evaluate(model: str, extractors, output: Path):
    """Returns the metrics of each slice, and the names of the features that the extractors leave for slicing."""
    shared = tfma.default_eval_shared_model(model, eval_config=CONFIG)
    source = tf_example_record.TFExampleBeamRecord(
        physical_format="inmem",
        telemetry_descriptors=["test"],
        schema=SCHEMA,
        raw_record_column_name=tfma.ARROW_INPUT_COLUMN,
    )
    adapter = tensor_adapter.TensorAdapterConfig(source.ArrowSchema(), source.TensorRepresentations())
    made = extractors(eval_shared_model=shared, eval_config=CONFIG, tensor_adapter_config=adapter)
    with beam.Pipeline(options=PipelineOptions(BeamConfig().args())) as pipeline:
        batches = pipeline | beam.Create([example(row) for row in range(50)]) | source.BeamSource()
        batches | tfma.ExtractEvaluateAndWriteResults(
            eval_shared_model=shared, eval_config=CONFIG, extractors=made, output_path=str(output)
        )
        rows = batches | "ToExtracts" >> tfma.BatchedInputsToExtracts()
        for extractor in made:
            rows |= extractor.stage_name >> extractor.ptransform
        names = rows | beam.FlatMap(lambda row: list(row[tfma.FEATURES_KEY]))
        names | beam.io.WriteToText(str(output / "names"), shard_name_template="")
    return dict(tfma.load_eval_result(str(output)).slicing_metrics), set((output / "names").read_text().split())


def test_metrics_equal_those_of_tfma_and_features_of_no_slice_are_dropped(model, tmp_path):
    stock, stock_features = evaluate(model, tfma.default_extractors, tmp_path / "stock")
    ours, our_features = evaluate(model, custom_extractors, tmp_path / "ours")

    assert ours == stock
    assert len(ours) == 1 + 2 + 3
    assert stock_features == {"gender", "genres", "history", "rating"}
    assert our_features == {"gender", "genres"}


def test_every_evaluator_uses_the_custom_extractors(tmp_path):
    root = str(tmp_path)
    pipeline = create_pipeline(config=load_config("sample"), data_dir=root, pipeline_root=root, serving_dir=root)
    evaluators = [node for node in pipeline.components if node.id.startswith("Evaluator.")]
    assert len(evaluators) == 5
    for evaluator in evaluators:
        # TFX silently falls back on TFMA's own extractors if it finds no custom function. It loads the module anew, so
        # the functions are different objects and only the names of their modules can be compared.
        found = udf_utils.try_get_fn(evaluator.exec_properties, custom_extractors.__name__)
        assert found is not None
        assert found.__module__ == custom_extractors.__module__
