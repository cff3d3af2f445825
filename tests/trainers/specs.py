"""Models for tests, by name and a few hyper-parameters."""

from collections.abc import Mapping
from typing import Any

from trainers.loop.training import ModelSpec
from trainers.registry import MODELS


def spec_of(name: str, section: Mapping[str, Any]) -> ModelSpec[Any]:
    """The `ModelSpec` of a model; hyper-parameters that are not given have their default values."""
    return MODELS[name].spec(MODELS[name].hyperparameters.model_validate(section))
