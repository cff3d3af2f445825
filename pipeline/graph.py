"""The pipeline, once, for every runner: reads from top to bottom as data flows.

ratings.dat users.dat movies.dat [credits.csv]
   └─ MovieLensExampleGen ─ ImportSchemaGen ─ StatisticsGen ─ ExampleValidator ─ DistributionValidator ─ DataGate
        └─ Transform ─ for each model: Trainer ─ Resolver ─ Evaluator ─ Pusher
             ├─ FeatureImportance of the DCN
             └─ RecommenderBuilder, from the blessed retriever and ranker ─ Pusher
"""

import os
from dataclasses import dataclass
from importlib import resources

import tensorflow_data_validation as tfdv
from ml_metadata.proto import metadata_store_pb2
from tensorflow_metadata.proto.v0 import schema_pb2
from tfx import v1 as tfx
from tfx.components import DistributionValidator
from tfx.dsl.components.base.base_node import BaseNode
from tfx.dsl.components.common.resolver import Resolver, ResolverStrategy
from tfx.types import channel_utils, standard_artifacts

from components.curated_schema import CuratedSchemaGen
from components.data_gate import DataGate
from components.distributions import span_validator, train_eval_validator
from components.feature_importance import FeatureImportance
from components.latest_blessed_model import CANDIDATE, MODEL, MODEL_BLESSING, LatestOtherBlessedModelStrategy
from components.movielens_example_gen import MovieLensExampleGen
from components.recommender_builder import RecommenderBuilder
from components.span_resolvers import STATISTICS, latest_spans, previous_span
from pipeline.config import Config
from pipeline.gates import TASKS, eval_config
from pipeline.source import fingerprint
from trainers.training import HYPERPARAMETERS

RECOMMENDER = "recommender"


def create_pipeline(
    *,
    config: Config,
    data_dir: str,
    pipeline_root: str,
    serving_dir: str,
    metadata_connection_config: metadata_store_pb2.ConnectionConfig | None = None,
    enable_cache: bool = True,
    resolver_strategy: type[ResolverStrategy] = LatestOtherBlessedModelStrategy,
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
      resolver_strategy: picks the model that a candidate is measured against.

    Returns:
      A pipeline for any TFX runner.
    """
    # Reads and checks the raw files; splits them; gives every rating the history that came before it.
    examples = MovieLensExampleGen(
        input_base=data_dir,
        split=config.data.split,
        history_length=config.data.history_length,
        source=fingerprint("components", "components.data"),
        tolerance=config.data.tolerance,
        spans=config.data.spans is not None,
        versions=config.data.versions,
    )

    # Describes the data, holds it against the schema kept in the repository, and train against eval. The validators
    # only write down what they find; the gate stops the pipeline for it, and hands on the schema of what is there.
    schema_file = str(resources.files("transform") / "schema.pbtxt")
    curated = CuratedSchemaGen(schema_file).with_id("ImportSchemaGen")
    statistics = tfx.components.StatisticsGen(
        examples=examples.outputs["examples"], schema=curated.outputs["schema"], exclude_splits=["test"]
    )
    validator = tfx.components.ExampleValidator(
        statistics=statistics.outputs["statistics"], schema=curated.outputs["schema"], exclude_splits=["movies"]
    )
    schema = tfdv.load_schema_text(schema_file)
    comparison = train_eval_validator(statistics.outputs["statistics"], schema, config.data.split.strategy)
    spans = None if config.data.spans is None else _span_nodes(examples, statistics, schema, config.data.spans)
    gate = DataGate(
        statistics=_union(statistics.outputs["statistics"], spans and spans.previous.outputs[STATISTICS]),
        curated_schema=curated.outputs["schema"],
        anomalies=validator.outputs["anomalies"],
        drift=_union(comparison.outputs["anomalies"], spans and spans.comparison.outputs["anomalies"]),
        source=fingerprint("components"),
    )

    # Features for training; the same graph is part of every exported model. Test rows go through that one.
    transform = tfx.components.Transform(
        examples=(spans.window if spans else examples).outputs["examples"],
        schema=gate.outputs["schema"],
        preprocessing_fn="transform.preprocessing.preprocessing_fn",
        # Statistics of the transformed features would take longer than the features, and nothing reads them.
        disable_statistics=True,
        # No run reads another's cache, and writing one makes Beam's graph much larger, whatever the number of rows.
        disable_analyzer_cache=True,
        # Traces and loads the same graph in half the time, which is seconds whatever the data.
        force_tf_compat_v1=True,
        splits_config=tfx.proto.SplitsConfig(analyze=["train", "movies"], transform=["train", "eval", "movies"]),
        custom_config={"history_length": config.data.history_length, "source": fingerprint("transform")},
    )

    nodes: list[BaseNode] = [examples, curated, statistics, validator, comparison]
    nodes += [*(spans.nodes if spans else []), gate, transform]
    stages = {
        name: _model_stage(name, config, examples, gate, transform, serving_dir, resolver_strategy) for name in TASKS
    }
    for stage in stages.values():
        nodes += stage.nodes

    # Which features matter together, read off the DCN's cross weights.
    nodes.append(FeatureImportance(model=stages["dcn"].trainer.outputs["model"]))

    # One model that retrieves, drops what was seen and ranks; blessed only if both its parts are.
    recommender = RecommenderBuilder(
        examples=(spans.every if spans else examples).outputs["examples"],
        transform_graph=transform.outputs["transform_graph"],
        retrieval_model=stages["retrieval"].trainer.outputs["model"],
        retrieval_blessing=stages["retrieval"].evaluator.outputs["blessing"],
        ranking_model=stages["ranking"].trainer.outputs["model"],
        ranking_blessing=stages["ranking"].evaluator.outputs["blessing"],
        candidates=config.recommender.candidates,
        source=fingerprint("components", "transform"),
    )
    pusher = _pusher(RECOMMENDER, recommender.outputs["model"], recommender.outputs["blessing"], serving_dir)
    nodes += [recommender, pusher]

    return tfx.dsl.Pipeline(
        pipeline_name=config.name,
        pipeline_root=pipeline_root,
        components=nodes,
        enable_cache=enable_cache,
        metadata_connection_config=metadata_connection_config,
        beam_pipeline_args=config.beam.args(),
    )


def _union(first: tfx.dsl.Channel, second: tfx.dsl.Channel | None) -> tfx.dsl.Channel:
    return channel_utils.union([first, second]) if second else first


@dataclass(frozen=True)
class _SpanNodes:
    """What data in spans take in addition.

    Attributes:
      window: the examples of the latest spans, which models are trained on; they are measured on the newest alone.
      every: those of all spans: the recommender knows all that a person has rated.
      previous: statistics of the span before; of the first, its own.
      comparison: anomalies, where the newest span is unlike that one.
    """

    window: Resolver
    every: Resolver
    previous: Resolver
    comparison: DistributionValidator

    @property
    def nodes(self) -> list[BaseNode]:
        return [self.window, self.every, self.previous, self.comparison]


def _span_nodes(examples: BaseNode, statistics: BaseNode, schema: schema_pb2.Schema, spans: int) -> _SpanNodes:
    previous = previous_span(statistics)
    return _SpanNodes(
        window=latest_spans(examples, spans),
        every=latest_spans(examples, None),
        previous=previous,
        comparison=span_validator(statistics.outputs["statistics"], previous.outputs[STATISTICS], schema),
    )


@dataclass(frozen=True)
class _ModelStage:
    trainer: tfx.components.Trainer
    resolver: Resolver
    evaluator: tfx.components.Evaluator
    pusher: tfx.components.Pusher

    @property
    def nodes(self) -> list[BaseNode]:
        return [self.trainer, self.resolver, self.evaluator, self.pusher]


def _model_stage(
    name: str,
    config: Config,
    examples: BaseNode,
    gate: BaseNode,
    transform: BaseNode,
    serving_dir: str,
    resolver_strategy: type[ResolverStrategy],
) -> _ModelStage:
    """Trains a model, measures it on the test split, and pushes it if it passes the gates."""
    trainer = tfx.components.Trainer(
        run_fn=f"trainers.{name}.run_fn",
        examples=transform.outputs["transformed_examples"],
        transform_graph=transform.outputs["transform_graph"],
        schema=gate.outputs["schema"],
        train_args=tfx.proto.TrainArgs(splits=["train", "movies"]),
        eval_args=tfx.proto.EvalArgs(splits=["eval"]),
        custom_config={
            HYPERPARAMETERS: getattr(config.models, name).model_dump(mode="json"),
            "source": fingerprint("transform", "trainers"),
        },
    ).with_id(f"Trainer.{name}")
    resolver = _resolver(trainer, resolver_strategy).with_id(f"Resolver.{name}")
    evaluator = tfx.components.Evaluator(
        examples=examples.outputs["examples"],
        model=trainer.outputs["model"],
        baseline_model=resolver.outputs[MODEL],
        schema=gate.outputs["schema"],
        example_splits=["test"],
        eval_config=eval_config(name, config.evaluation),
    ).with_id(f"Evaluator.{name}")
    pusher = _pusher(name, trainer.outputs["model"], evaluator.outputs["blessing"], serving_dir)
    return _ModelStage(trainer, resolver, evaluator, pusher)


def _resolver(trainer: BaseNode, strategy: type[ResolverStrategy]) -> Resolver:
    channels = {
        MODEL: tfx.dsl.Channel(type=standard_artifacts.Model),
        MODEL_BLESSING: tfx.dsl.Channel(type=standard_artifacts.ModelBlessing),
    }
    if issubclass(strategy, LatestOtherBlessedModelStrategy):
        channels[CANDIDATE] = trainer.outputs["model"]
    return Resolver(strategy_class=strategy, **channels)


def _pusher(name: str, model: tfx.dsl.Channel, blessing: tfx.dsl.Channel, serving_dir: str) -> tfx.components.Pusher:
    return tfx.components.Pusher(
        model=model,
        model_blessing=blessing,
        push_destination=tfx.proto.PushDestination(
            filesystem=tfx.proto.PushDestination.Filesystem(base_directory=os.path.join(serving_dir, name))
        ),
    ).with_id(f"Pusher.{name}")
