"""The one definition of the pipeline, for every runner. It reads from top to bottom, in the order in which data flow.

ratings.dat users.dat movies.dat [credits.csv]
   └─ MovieLensExampleGen ─ ImportSchemaGen ─ StatisticsGen ─ ExampleValidator ─ DistributionValidator ─ DataGate
        └─ Transform ─ for each model: [Tuner] ─ Trainer ─ Resolver ─ Evaluator ─ Pusher
             ├─ FeatureImportance of the DCN
             └─ Resolver of the latest blessed pair ─ RecommenderBuilder ─ Resolver ─ Evaluator ─ Pusher
"""

from dataclasses import dataclass

import tensorflow_data_validation as tfdv
from ml_metadata.proto import metadata_store_pb2
from tfx import v1 as tfx
from tfx.dsl.components.base.base_node import BaseNode
from tfx.types import channel_utils

from components.importance.feature_importance import FeatureImportance
from components.ingestion.example_rows import NEWEST, PAST, PREVIOUS
from components.ingestion.movielens_example_gen import MovieLensExampleGen
from components.validation.curated_schema import CuratedSchema
from components.validation.data_gate import DataGate
from components.validation.distributions import span_validator, train_eval_validator
from pipeline.cache_keys import add_source_keys
from pipeline.config import Config
from pipeline.model_stage import model_stage, tuner
from pipeline.paths import check_no_pattern
from pipeline.recommender_stage import recommender_stage
from trainers.registry import MODELS
from transform.schema import PATH as SCHEMA_PATH


@dataclass(frozen=True)
class DataStage:
    """The nodes from the raw files to transformed examples, with which every pipeline begins.

    Attributes:
      nodes: all nodes of the stage, in order.
      examples: MovieLensExampleGen.
      gate: the data gate, whose output is the schema without the features that the data lack.
      transform: Transform, whose output is the examples that models are trained on.
    """

    nodes: list[BaseNode]
    examples: BaseNode
    gate: BaseNode
    transform: BaseNode


def data_stage(config: Config, data_dir: str) -> DataStage:
    """Reads, describes, checks and transforms the data.

    Args:
      config: what to run.
      data_dir: as for `create_pipeline`.
    """
    # Reads and checks the raw files; splits them; gives every rating the history that came before it.
    examples = MovieLensExampleGen(
        input_base=data_dir,
        split=config.data.split,
        history_length=config.data.history_length,
        tolerance=config.data.tolerance,
        spans=config.data.spans,
        versions=config.data.versions,
        skip_missing=config.data.missing_spans == "skip",
        keep_spans=config.data.keep_spans,
    )

    # Computes statistics, and compares them with the schema that is kept in the repository, and train with eval. The
    # validators only write down what they find; the gate stops the pipeline if there is anything, and passes on the
    # schema without the optional features that the data lack.
    curated = CuratedSchema().with_id("ImportSchemaGen")
    statistics = tfx.components.StatisticsGen(
        examples=examples.outputs["examples"], schema=curated.outputs["schema"], exclude_splits=["test", PAST.name]
    )
    validator = tfx.components.ExampleValidator(
        statistics=statistics.outputs["statistics"],
        schema=curated.outputs["schema"],
        exclude_splits=["movies", NEWEST.name, PREVIOUS.name],
    )
    schema = tfdv.load_schema_text(str(SCHEMA_PATH))
    comparison = train_eval_validator(statistics.outputs["statistics"], schema, config.data.split.strategy)
    comparisons, drift = [comparison], comparison.outputs["anomalies"]
    if config.data.spans is not None:
        of_spans = span_validator(statistics.outputs["statistics"], schema)
        comparisons.append(of_spans)
        drift = channel_utils.union([drift, of_spans.outputs["anomalies"]])
    gate = DataGate(
        statistics=statistics.outputs["statistics"],
        curated_schema=curated.outputs["schema"],
        anomalies=validator.outputs["anomalies"],
        drift=drift,
    )

    # Makes the features for training. Its graph is part of every exported model, so test rows need no Transform here:
    # the Evaluator gives raw ones to the model.
    transform = tfx.components.Transform(
        examples=examples.outputs["examples"],
        schema=gate.outputs["schema"],
        preprocessing_fn="transform.preprocessing.preprocessing_fn",
        # Statistics of the transformed features would take longer than Transform itself, and nothing reads them.
        disable_statistics=True,
        # No run could use another's analyzer cache, and writing one makes Beam's graph much larger for any data.
        disable_analyzer_cache=True,
        # Traces and loads the same graph in half the time, which saves seconds for any data.
        force_tf_compat_v1=True,
        splits_config=tfx.proto.SplitsConfig(analyze=["train", "movies"], transform=["train", "eval", "movies"]),
        custom_config={"history_length": config.data.history_length},
    )

    nodes: list[BaseNode] = [examples, curated, statistics, validator, *comparisons, gate, transform]
    return DataStage(nodes, examples, gate, transform)


def create_pipeline(
    *,
    config: Config,
    data_dir: str,
    pipeline_root: str,
    serving_dir: str,
    metadata_connection_config: metadata_store_pb2.ConnectionConfig | None = None,
    enable_cache: bool = True,
) -> tfx.dsl.Pipeline:
    """Builds the pipeline.

    Args:
      config: what to run.
      data_dir: folder with ratings.dat, users.dat, movies.dat and, optionally, credits.csv; or, with `data.spans`, of
        folders span-1, span-2 and so on with these files.
      pipeline_root: where artifacts go.
      serving_dir: where blessed models are pushed, as NAME/VERSION.
      metadata_connection_config: the metadata store; None where the runner brings its own.
      enable_cache: reuse the outputs of components whose inputs did not change.

    Returns:
      A pipeline for any TFX runner.

    Raises:
      PathError: `pipeline_root` or `serving_dir` reads as a pattern.
    """
    check_no_pattern("serving_dir", serving_dir)
    data = data_stage(config, data_dir)
    nodes = list(data.nodes)

    # Each model: trained, measured on the test split, and pushed if it passes the gates.
    stages = {
        name: model_stage(name, config, data.examples, data.gate, data.transform, pipeline_root, serving_dir)
        for name in MODELS
    }
    for stage in stages.values():
        nodes += stage.nodes

    # Which features matter, alone and in pairs: by the DCN's cross weights, and by what shuffling them costs.
    importance = FeatureImportance(
        model=stages["dcn"].trainer.outputs["model"],
        examples=data.transform.outputs["transformed_examples"],
        transform_graph=data.transform.outputs["transform_graph"],
    )
    nodes.append(importance)

    # One model that retrieves, drops seen movies and orders the rest; made of the latest parts that were blessed.
    nodes += recommender_stage(config, data.examples, data.gate, data.transform, stages, serving_dir)
    return _pipeline(config, nodes, pipeline_root, metadata_connection_config, enable_cache)


def create_data_pipeline(
    *,
    config: Config,
    data_dir: str,
    pipeline_root: str,
    metadata_connection_config: metadata_store_pb2.ConnectionConfig | None = None,
    enable_cache: bool = True,
) -> tfx.dsl.Pipeline:
    """Builds a pipeline of the data stage alone; the arguments are those of `create_pipeline`."""
    nodes = data_stage(config, data_dir).nodes
    return _pipeline(config, nodes, pipeline_root, metadata_connection_config, enable_cache)


def create_tuning_pipeline(
    *,
    config: Config,
    model: str,
    data_dir: str,
    pipeline_root: str,
    metadata_connection_config: metadata_store_pb2.ConnectionConfig | None = None,
    enable_cache: bool = True,
) -> tfx.dsl.Pipeline:
    """Builds the pipeline that searches for the hyper-parameters of one model: the data stage and a Tuner.

    With the same folders as `create_pipeline`, the data stage comes from that pipeline's cache.

    Args:
      config: what to run.
      model: the name of the model.
      data_dir: as for `create_pipeline`, like the arguments that follow.
      pipeline_root: where artifacts go.
      metadata_connection_config: the metadata store.
      enable_cache: reuse the outputs of components whose inputs did not change.

    Returns:
      A pipeline for any TFX runner.
    """
    data = data_stage(config, data_dir)
    nodes = [*data.nodes, tuner(model, config, data.gate, data.transform, pipeline_root)]
    return _pipeline(config, nodes, pipeline_root, metadata_connection_config, enable_cache)


def _pipeline(
    config: Config,
    nodes: list[BaseNode],
    pipeline_root: str,
    metadata_connection_config: metadata_store_pb2.ConnectionConfig | None,
    enable_cache: bool,
) -> tfx.dsl.Pipeline:
    check_no_pattern("pipeline_root", pipeline_root)
    add_source_keys(nodes)
    return tfx.dsl.Pipeline(
        pipeline_name=config.name,
        pipeline_root=pipeline_root,
        components=nodes,
        enable_cache=enable_cache,
        metadata_connection_config=metadata_connection_config,
        beam_pipeline_args=config.beam.args(),
    )
