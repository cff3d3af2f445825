"""The parts of the configuration that have an entry for each registered model: hyper-parameters and search spaces."""

from typing import TYPE_CHECKING, Any

from pydantic import Field, ValidationInfo, create_model, field_validator

from pipeline.config_section import ConfigSection
from trainers.hyperparameters import MAX_SEED
from trainers.loop.search_spaces import Space, checked_space
from trainers.registry import MODELS


class _ByModel(ConfigSection):
    """A section with a key for each model; `section[name]` is the value for the model of that name."""

    def __getitem__(self, model: str) -> Any:
        if model not in MODELS:
            raise KeyError(f"{model} should be one of: {', '.join(MODELS)}.")
        return getattr(self, model)

    if TYPE_CHECKING:
        # The keys come from the registry, which type checkers cannot follow.
        def __init__(self, **sections: Any) -> None: ...

        def __getattr__(self, model: str) -> Any: ...


class _CheckedSpaces(_ByModel):
    @field_validator("*")
    @classmethod
    def _fit_the_model(cls, space: Space, info: ValidationInfo) -> Space:
        return checked_space(MODELS[str(info.field_name)].hyperparameters, space)


if TYPE_CHECKING:
    ModelsConfig = _ByModel
    SpacesConfig = _CheckedSpaces
else:
    ModelsConfig = create_model(
        "ModelsConfig",
        __base__=_ByModel,
        __doc__="Hyper-parameters of the models.",
        **{
            model.name: (
                model.hyperparameters,
                Field(default_factory=model.hyperparameters, description=model.description),
            )
            for model in MODELS.values()
        },
    )
    SpacesConfig = create_model(
        "SpacesConfig",
        __base__=_CheckedSpaces,
        __doc__="The values to try, by model. Hyper-parameters that are not named keep their values; naming one "
        "hyper-parameter of a model leaves out those that are tried by default.",
        **{
            model.name: (Space, Field(model.search_space, min_length=1, description=model.description))
            for model in MODELS.values()
        },
    )


class TuningConfig(ConfigSection):
    """The search for hyper-parameters. It is measured on the eval split; the test split is not read."""

    max_trials: int = Field(
        10, ge=1, description="Maximum number of trials; the first one uses the configured settings."
    )
    seed: int = Field(0, ge=0, le=MAX_SEED, description="Seed of the search.")
    models: list[str] = Field(
        [], description="Models that `movielens run` tunes before it trains them with the best values."
    )
    space: SpacesConfig = Field(default_factory=SpacesConfig, description="The values to try.")

    @field_validator("models")
    @classmethod
    def _are_registered(cls, models: list[str]) -> list[str]:
        unknown = [name for name in models if name not in MODELS]
        if unknown:
            raise ValueError(f"each should be one of: {', '.join(MODELS)}; unknown: {', '.join(unknown)}")
        if len(set(models)) < len(models):
            raise ValueError("each model should be named once")
        return models
