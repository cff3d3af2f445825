"""What the Tuner tries: for each model its hyper-parameters, and for each of these a list of values."""

import json
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, create_model, field_validator

from trainers.hyperparameters import (
    DCNHyperparameters,
    Hyperparameters,
    JointHyperparameters,
    RankingHyperparameters,
    RetrievalHyperparameters,
)

# Values by hyper-parameter. Lists rather than ranges: they can hold widths of layers too, and what is found is as short
# as what a person would have written.
Space = dict[str, Annotated[list[Any], Field(min_length=1)]]

_MODELS: dict[str, type[Hyperparameters]] = {
    "dcn": DCNHyperparameters,
    "retrieval": RetrievalHyperparameters,
    "ranking": RankingHyperparameters,
    "joint": JointHyperparameters,
}

_SHARED: Space = {"learning_rate": [1e-3, 2e-3, 4e-3], "dropout": [0.1, 0.2, 0.3]}
_NETWORK: Space = _SHARED | {
    "embedding_dim": [16, 32, 64],
    "table_l2": [0.0, 8.0, 20.0, 40.0, 80.0],
    "cross_layers": [1, 2, 3],
    "projection_dim": [None, 32],
    "hidden_units": [[64, 64], [192, 192], [256, 128]],
}
_DCN: Space = _NETWORK | {"structure": ["stacked", "parallel"]}
_RETRIEVAL: Space = _SHARED | {
    "embedding_dim": [64, 80, 128],
    "hidden_units": [[128], [256], [256, 128]],
    "recent_movies": [5, 10, 20],
    "id_dropout": [0.1, 0.2, 0.5],
}
_RANKING: Space = _NETWORK | {
    "factor_dim": [32, 48, 64],
    "factor_l2": [0.05, 0.075, 0.1],
    "attention_l2": [20.0, 100.0, 500.0],
}
# The joint model's objective is recall alone: were the weights of its losses tried, the rating task would give way.
_JOINT: Space = _RETRIEVAL


class SpacesConfig(BaseModel):
    """The values to try, by model; hyper-parameters that are not named stay as they are.

    Naming one hyper-parameter of a model leaves out those that are tried by default.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    dcn: Space = Field(_DCN, min_length=1, description="Of the deep & cross network.")
    retrieval: Space = Field(_RETRIEVAL, min_length=1, description="Of the two-tower retriever.")
    ranking: Space = Field(_RANKING, min_length=1, description="Of the rating predictor.")
    joint: Space = Field(_JOINT, min_length=1, description="Of the model for both tasks.")

    @field_validator("*")
    @classmethod
    def _fits_the_model(cls, space: Space, info: ValidationInfo) -> Space:
        return _checked(_MODELS[str(info.field_name)], space)


class TuningConfig(BaseModel):
    """The search for hyper-parameters. It is measured on the eval split; the test split is not read."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    max_trials: int = Field(10, ge=1, description="Trials, at most; the first is of the settings as they are.")
    seed: int = Field(0, ge=0, description="Seed of the search.")
    models: list[Literal["dcn", "retrieval", "ranking", "joint"]] = Field(
        [], description="Models that `movielens run` tunes, and trains with what was found."
    )
    space: SpacesConfig = Field(default_factory=SpacesConfig, description="The values to try.")


def _checked(hyperparameters: type[Hyperparameters], space: Space) -> Space:
    """The space, with its values as the model has them: 1 as 1.0 where that is what is meant.

    Raises:
      ValueError: a hyper-parameter that the model does not have, or a value that it cannot take; the message names
        them all.
    """
    known = hyperparameters.model_fields
    problems = [
        f"unknown hyper-parameter {name!r}; expected one of: {', '.join(known)}" for name in space if name not in known
    ]
    checked: Space = {name: [] for name in space}
    for name in (name for name in space if name in known):
        field: dict[str, Any] = {name: (known[name].annotation, known[name])}
        alone = create_model(name, __config__=hyperparameters.model_config, **field)
        for value in space[name]:
            try:
                # As strictly as the rest of the configuration is read, but each on its own: what does not go with the
                # defaults may go with other values of the space.
                text = json.dumps({name: value}, default=str)
                checked[name].append(getattr(alone.model_validate_json(text, strict=True), name))
            except ValidationError as error:
                problems += [f"{name}: {problem['msg']}; received {value!r}" for problem in error.errors()]
    if problems:
        raise ValueError("; ".join(problems))
    return checked


def to_choice(value: Any) -> str:
    """A value for keras-tuner, in whose spaces there can be neither lists nor nulls: as JSON."""
    return json.dumps(value)


def from_choices(choices: Mapping[str, str]) -> dict[str, Any]:
    """Hyper-parameters that keras-tuner has chosen."""
    return {name: json.loads(text) for name, text in choices.items()}
