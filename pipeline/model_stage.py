"""The nodes of one model: [Tuner], [Resolver] ─ Trainer ─ Resolver ─ Evaluator ─ Pusher."""

import os
from dataclasses import dataclass
from typing import Any

from tensorflow_model_analysis.proto import config_pb2
from tfx import v1 as tfx
from tfx.dsl.components.base.base_node import BaseNode
from tfx.dsl.components.common.resolver import Resolver
from tfx.types import standard_artifacts

from components.evaluation import extractors as evaluation_extractors
from components.evaluation.champion_resolvers import (
    CANDIDATE,
    MODEL,
    MODEL_BLESSING,
    ChampionStrategy,
    base_model,
)
from components.pushing.pusher import Pusher
from pipeline.config import Config
from pipeline.gates import eval_config
from pipeline.source import source_key
from trainers.loop.training import HYPERPARAMETERS
from trainers.loop.tuning import FOLDER, SEED, SPACE, TRIALS
from trainers.registry import MODELS


@dataclass(frozen=True)
class ModelStage:
    """The nodes of a model.

    Attributes:
      tuner: searches for hyper-parameters; None unless `tuning.models` names the model.
      base: finds the model to start from; None without `warm_start`.
      trainer: trains it.
      resolver: finds the champion, the earlier model that the new one is compared with.
      evaluator: measures it on the test split.
      pusher: pushes it if it passes the gates, unless it was withdrawn.
    """

    tuner: tfx.components.Tuner | None
    base: Resolver | None
    trainer: tfx.components.Trainer
    resolver: Resolver
    evaluator: tfx.components.Evaluator
    pusher: Pusher

    @property
    def nodes(self) -> list[BaseNode]:
        """The nodes that are not None, in order."""
        before = [node for node in (self.tuner, self.base) if node]
        return [*before, self.trainer, self.resolver, self.evaluator, self.pusher]


def model_stage(
    name: str,
    config: Config,
    examples: BaseNode,
    gate: BaseNode,
    transform: BaseNode,
    pipeline_root: str,
    serving_dir: str,
) -> ModelStage:
    """Trains a model, measures it on the test split, and pushes it if it passes the gates."""
    tuned = tuner(name, config, gate, transform, pipeline_root) if name in config.tuning.models else None
    trainer_id = f"Trainer.{name}"
    warm = config.models[name].warm_start
    base = base_model(trainer_id, transform).with_id(f"Resolver.{name}_base") if warm else None
    trainer = tfx.components.Trainer(
        run_fn=MODELS[name].run_fn,
        custom_config=_settings(name, config),
        hyperparameters=tuned.outputs["best_hyperparameters"] if tuned else None,
        base_model=base.outputs[MODEL] if base else None,
        **_inputs(gate, transform),
    ).with_id(trainer_id)
    resolver = latest_blessed(name, trainer.outputs["model"])
    bounds = eval_config(config.models[name].tasks, config.evaluation)
    evaluator = evaluated(name, trainer.outputs["model"], resolver, examples, gate, bounds)
    pushed = pusher(name, trainer.outputs["model"], evaluator.outputs["blessing"], serving_dir)
    return ModelStage(tuned, base, trainer, resolver, evaluator, pushed)


def tuner(name: str, config: Config, gate: BaseNode, transform: BaseNode, pipeline_root: str) -> tfx.components.Tuner:
    """Searches for the hyper-parameters of a model. It reads what the Trainer reads, so never the test split."""
    return tfx.components.Tuner(
        tuner_fn=MODELS[name].tuner_fn,
        custom_config=tuner_settings(name, config, pipeline_root),
        **_inputs(gate, transform),
    ).with_id(f"Tuner.{name}")


def tuner_settings(name: str, config: Config, pipeline_root: str) -> dict[str, Any]:
    """The `custom_config` of a Tuner: the part of the configuration that `trainers.loop.tuning` reads."""
    return _settings(name, config) | {
        SPACE: config.tuning.space[name],
        TRIALS: config.tuning.max_trials,
        SEED: config.tuning.seed,
        # A search goes on from the trials of the same code only.
        "source": source_key(MODELS[name].module),
        # Not one of the Tuner's outputs, which are removed after a run that was killed: a search goes on from here.
        FOLDER: os.path.join(pipeline_root, f"Tuner.{name}", "trials"),
    }


def _settings(name: str, config: Config) -> dict[str, Any]:
    return {HYPERPARAMETERS: config.models[name].model_dump(mode="json")}


def _inputs(gate: BaseNode, transform: BaseNode) -> dict[str, Any]:
    """The inputs that Trainer and Tuner share."""
    return {
        "examples": transform.outputs["transformed_examples"],
        "transform_graph": transform.outputs["transform_graph"],
        "schema": gate.outputs["schema"],
        "train_args": tfx.proto.TrainArgs(splits=["train", "movies"]),
        "eval_args": tfx.proto.EvalArgs(splits=["eval"]),
    }


def latest_blessed(name: str, model: tfx.dsl.Channel) -> Resolver:
    """Finds the champion of a model."""
    channels = {
        MODEL: tfx.dsl.Channel(type=standard_artifacts.Model),
        MODEL_BLESSING: tfx.dsl.Channel(type=standard_artifacts.ModelBlessing),
        CANDIDATE: model,
    }
    return Resolver(strategy_class=ChampionStrategy, **channels).with_id(f"Resolver.{name}")


def evaluated(
    name: str,
    model: tfx.dsl.Channel,
    resolver: Resolver,
    examples: BaseNode,
    gate: BaseNode,
    bounds: config_pb2.EvalConfig,
) -> tfx.components.Evaluator:
    """Measures a model on the test split, beside its champion."""
    return tfx.components.Evaluator(
        examples=examples.outputs["examples"],
        model=model,
        baseline_model=resolver.outputs[MODEL],
        schema=gate.outputs["schema"],
        example_splits=["test"],
        eval_config=bounds,
        module_path=evaluation_extractors.__name__,
    ).with_id(f"Evaluator.{name}")


def pusher(name: str, model: tfx.dsl.Channel, blessing: tfx.dsl.Channel | None, serving_dir: str) -> Pusher:
    """Pushes a model to NAME/VERSION if it was blessed, or needs no blessing, and was not withdrawn."""
    return Pusher(
        model=model,
        model_blessing=blessing,
        push_destination=tfx.proto.PushDestination(
            filesystem=tfx.proto.PushDestination.Filesystem(base_directory=os.path.join(serving_dir, name))
        ),
    ).with_id(f"Pusher.{name}")
