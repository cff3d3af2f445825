"""The models by name: the one list that configuration, graph, gates, tuning and reports go by.

A new model is an entry of `MODELS` and a module `trainers.NAME`, which has:

* `spec(hparams)`: the `ModelSpec` for some hyper-parameters;
* `run_fn(fn_args)`: trains and exports it, called by the Trainer component;
* `tuner_fn(fn_args)`: searches for hyper-parameters, called by the Tuner component.

The module also needs its place in the import contract for `trainers` in pyproject.toml.

This module imports neither TensorFlow nor the models, so that reading a configuration stays quick.
"""

import importlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from trainers.hyperparameters import (
    DCNHyperparameters,
    Hyperparameters,
    JointHyperparameters,
    RankingHyperparameters,
    RetrievalHyperparameters,
)
from trainers.loop.search_spaces import Space

if TYPE_CHECKING:
    from trainers.loop.training import ModelSpec


@dataclass(frozen=True)
class RegisteredModel:
    """A model that the pipeline trains, measures and pushes.

    Attributes:
      name: of its module in `trainers`, of its section in the configuration, and of its folder for TensorFlow Serving.
      description: what it is, in a few words, for the configuration's documentation.
      hyperparameters: the type of its section in the configuration, whose `tasks` say what it is measured by.
      search_space: what the Tuner tries unless the configuration says otherwise.
    """

    name: str
    description: str
    hyperparameters: type[Hyperparameters]
    search_space: Space

    @property
    def module(self) -> str:
        """Name of its module."""
        return f"trainers.{self.name}"

    @property
    def run_fn(self) -> str:
        """Import path of the Trainer's user function."""
        return f"{self.module}.run_fn"

    @property
    def tuner_fn(self) -> str:
        """Import path of the Tuner's user function."""
        return f"{self.module}.tuner_fn"

    def spec(self, hparams: Hyperparameters) -> "ModelSpec[Any]":
        """What training and tuning need to know of the model; imports TensorFlow."""
        spec: ModelSpec[Any] = importlib.import_module(self.module).spec(hparams)
        return spec


_SHARED: Space = {"learning_rate": [1e-3, 2e-3, 4e-3], "dropout": [0.1, 0.2, 0.3]}
_NETWORK: Space = _SHARED | {
    "embedding_dim": [16, 32, 64],
    "table_l2": [0.0, 8.0, 20.0, 40.0, 80.0],
    "cross_layers": [1, 2, 3],
    "projection_dim": [None, 32],
    "hidden_units": [[64, 64], [192, 192], [256, 128]],
}
# With `query: sequence`, hidden_units and recent_movies have no effect: `tuning.space` then takes another space.
_TWO_TOWER: Space = _SHARED | {
    "embedding_dim": [64, 80, 128],
    "hidden_units": [[128], [256], [256, 128]],
    "recent_movies": [5, 10, 20],
    "id_dropout": [0.1, 0.2, 0.5],
}

# The name under which the two-stage recommender is pushed. It is built from registered models, and not trained itself.
RECOMMENDER = "recommender"

MODELS: dict[str, RegisteredModel] = {
    model.name: model
    for model in (
        RegisteredModel(
            name="dcn",
            description="Deep & cross network, whose cross weights show which features matter together.",
            hyperparameters=DCNHyperparameters,
            search_space=_NETWORK | {"structure": ["stacked", "parallel"]},
        ),
        RegisteredModel(
            name="retrieval",
            description="Two-tower retriever.",
            hyperparameters=RetrievalHyperparameters,
            search_space=_TWO_TOWER,
        ),
        RegisteredModel(
            name="ranking",
            description="Rating predictor.",
            hyperparameters=RankingHyperparameters,
            search_space=_NETWORK
            | {
                "factor_dim": [32, 48, 64],
                "factor_l2": [0.05, 0.075, 0.1],
                "attention_l2": [20.0, 100.0, 500.0],
            },
        ),
        RegisteredModel(
            name="joint",
            description="Both tasks in one model.",
            hyperparameters=JointHyperparameters,
            # The weights of its two losses are left out: its objective is recall alone, so that a search would give the
            # rating task less and less weight.
            search_space=_TWO_TOWER,
        ),
    )
}
