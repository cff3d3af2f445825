"""Which model a candidate is measured against: the latest blessed one that is not the candidate itself."""

import os

import ml_metadata as mlmd
from tfx import types
from tfx.dsl.components.common.resolver import ResolverStrategy
from tfx.dsl.input_resolution.strategies.latest_blessed_model_strategy import LatestBlessedModelStrategy

CANDIDATE = "candidate"
MODEL = "model"
MODEL_BLESSING = "model_blessing"


class LatestOtherBlessedModelStrategy(ResolverStrategy):
    """The latest blessed model but for the candidate.

    TFX's own strategy would, when a pipeline is run again and the Trainer's model comes from the cache, find that very
    model: the Evaluator would then run again, to compare a model with itself, and the model would be pushed again.

    Inputs: `candidate`, the model under test; `model` and `model_blessing`, all models and blessings in the store.
    """

    def resolve_artifacts(
        self, store: mlmd.MetadataStore, input_dict: dict[str, list[types.Artifact]]
    ) -> dict[str, list[types.Artifact]]:
        """Gives the chosen model and its blessing, or neither; and the candidate as it came."""
        candidates = {model.id for model in input_dict[CANDIDATE]}
        # A component keeps all its models in one folder: those beside the candidate are of the same kind.
        folders = {os.path.dirname(model.uri) for model in input_dict[CANDIDATE]}
        others = {
            MODEL: [
                model
                for model in input_dict[MODEL]
                if model.id not in candidates and os.path.dirname(model.uri) in folders
            ],
            MODEL_BLESSING: input_dict[MODEL_BLESSING],
        }
        chosen = LatestBlessedModelStrategy().resolve_artifacts(store, others) or {}
        return {
            CANDIDATE: input_dict[CANDIDATE],
            MODEL: chosen.get(MODEL, []),
            MODEL_BLESSING: chosen.get(MODEL_BLESSING, []),
        }
