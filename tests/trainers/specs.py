"""Models for tests, by name and a few hyper-parameters."""

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

from trainers.loop.training import ModelSpec
from trainers.registry import MODELS


def spec_of(name: str, section: Mapping[str, Any]) -> ModelSpec[Any]:
    """The `ModelSpec` of a model; hyper-parameters that are not given have their default values."""
    return MODELS[name].spec(MODELS[name].hyperparameters.model_validate(section))


def no_dropout(hyperparameters: type[BaseModel]) -> dict[str, float]:
    """The settings with which nothing is hidden or dropped at random, whatever kinds of dropout there are."""
    return {name: 0.0 for name in hyperparameters.model_fields if name.endswith("dropout")}
