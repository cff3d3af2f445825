"""What a Tuner tries: for each hyper-parameter a list of values, checked against the model's own bounds."""

import json
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field, ValidationError, create_model

from trainers.hyperparameters import Hyperparameters

# Values by hyper-parameter. They are lists, not ranges: lists can hold the widths of layers too, and the value that is
# found is as short as one that a person would have written.
Space = dict[str, Annotated[list[Any], Field(min_length=1)]]


def checked_space(hyperparameters: type[Hyperparameters], space: Space) -> Space:
    """The space, with its values in the types that the model has for them: 1 becomes 1.0 where a float is meant.

    Args:
      hyperparameters: the model's.
      space: values by hyper-parameter.

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
                # As strictly as the rest of the configuration is read, but each value on its own: one that does not go
                # with the default values may go with other values of the space.
                text = json.dumps({name: value}, default=str)
                checked[name].append(getattr(alone.model_validate_json(text, strict=True), name))
            except ValidationError as error:
                problems += [f"{name}: {problem['msg']}; received {value!r}" for problem in error.errors()]
    if problems:
        raise ValueError("; ".join(problems))
    return checked


def to_choice(value: Any) -> str:
    """A value for keras-tuner, as JSON: its spaces can hold neither lists nor nulls."""
    return json.dumps(value)


def from_choices(choices: Mapping[str, str]) -> dict[str, Any]:
    """The hyper-parameters that keras-tuner has chosen, read from JSON."""
    return {name: json.loads(text) for name, text in choices.items()}
