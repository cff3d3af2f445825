"""The nodes of the recommender: Resolver of its parts ─ RecommenderBuilder ─ Resolver ─ Evaluator ─ Pusher."""

import contextlib
from collections.abc import Mapping

from tfx import v1 as tfx
from tfx.components.evaluator import constants
from tfx.dsl.components.base.base_node import BaseNode

from components.evaluation.champion_resolvers import (
    DATA,
    PART_BLESSING,
    PART_MODEL,
    parts_of_recommender,
)
from components.recommender.recommender_builder import RecommenderBuilder
from pipeline.config import Config
from pipeline.gates import recommender_eval_config
from pipeline.model_stage import ModelStage, evaluated, latest_blessed, pusher
from trainers.registry import RECOMMENDER


def recommender_stage(
    config: Config,
    examples: BaseNode,
    gate: BaseNode,
    transform: BaseNode,
    stages: Mapping[str, ModelStage],
    serving_dir: str,
) -> list[BaseNode]:
    """Builds the recommender of the parts that the configuration names, measures it, and pushes it if it is good.

    Its parts were measured alone; what people get is the final list, which has gates of its own. If a part of this run
    was refused, the recommender is made of the latest pair before it that was blessed, since even so it should know the
    newest people and ratings. None of the nodes runs if there is no such pair.
    """
    parts = {
        part: stages[name] for part, name in zip(("retrieval", "ranking"), config.recommender.part_names, strict=True)
    }
    chosen = parts_of_recommender(
        transform,
        {part: stage.trainer.outputs["model"] for part, stage in parts.items()},
        {part: stage.evaluator.outputs["blessing"] for part, stage in parts.items()},
    ).with_id(f"Resolver.{RECOMMENDER}_parts")
    blessings = {part: chosen.outputs[part + PART_BLESSING] for part in parts}
    with contextlib.ExitStack() as conditions:
        # Both parts may be one model.
        for blessing in {id(each): each for each in blessings.values()}.values():
            is_blessed = blessing.future()[0].custom_property(constants.ARTIFACT_PROPERTY_BLESSED_KEY) == 1
            conditions.enter_context(tfx.dsl.Cond(is_blessed))
        builder = RecommenderBuilder(
            examples=examples.outputs["examples"],
            transform_graph=chosen.outputs[DATA],
            retrieval_model=chosen.outputs[f"retrieval{PART_MODEL}"],
            ranking_model=chosen.outputs[f"ranking{PART_MODEL}"],
            candidates=config.recommender.candidates,
            order=config.recommender.order,
            tolerance=config.evaluation.retrieval_tolerance,
            max_batch=config.recommender.max_batch,
            max_history=config.recommender.max_history,
        )
        model = builder.outputs["recommender"]
        resolver = latest_blessed(RECOMMENDER, model)
        bounds = recommender_eval_config(config.evaluation)
        evaluator = evaluated(RECOMMENDER, model, resolver, examples, gate, bounds)
        pushed = pusher(RECOMMENDER, model, evaluator.outputs["blessing"], serving_dir)
    return [chosen, builder, resolver, evaluator, pushed]
