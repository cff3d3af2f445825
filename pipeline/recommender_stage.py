"""The nodes of the recommender: RecommenderBuilder ─ Resolver ─ Evaluator ─ Pusher, if its parts are blessed."""

import contextlib
from collections.abc import Mapping

from tfx import v1 as tfx
from tfx.components.evaluator import constants
from tfx.dsl.components.base.base_node import BaseNode
from tfx.dsl.components.common.resolver import ResolverStrategy

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
    resolver_strategy: type[ResolverStrategy],
) -> list[BaseNode]:
    """Builds the recommender of the parts that the configuration names, measures it, and pushes it if it is good.

    Its parts were measured alone; what people get is the final list, which has gates of its own. None of the nodes runs
    if a part was refused.
    """
    retrieval, ranking = (stages[name] for name in config.recommender.part_names)
    with contextlib.ExitStack() as conditions:
        for name in dict.fromkeys(config.recommender.part_names):
            blessing = stages[name].evaluator.outputs["blessing"].future()[0]
            is_blessed = blessing.custom_property(constants.ARTIFACT_PROPERTY_BLESSED_KEY) == 1
            conditions.enter_context(tfx.dsl.Cond(is_blessed))
        builder = RecommenderBuilder(
            examples=examples.outputs["examples"],
            transform_graph=transform.outputs["transform_graph"],
            retrieval_model=retrieval.trainer.outputs["model"],
            ranking_model=ranking.trainer.outputs["model"],
            candidates=config.recommender.candidates,
            order=config.recommender.order,
            tolerance=config.evaluation.retrieval_tolerance,
            max_batch=config.recommender.max_batch,
            max_history=config.recommender.max_history,
        )
        model = builder.outputs["recommender"]
        resolver = latest_blessed(RECOMMENDER, model, resolver_strategy)
        bounds = recommender_eval_config(config.evaluation)
        evaluator = evaluated(RECOMMENDER, model, resolver, examples, gate, bounds)
        pushed = pusher(RECOMMENDER, model, evaluator.outputs["blessing"], serving_dir)
    return [builder, resolver, evaluator, pushed]
