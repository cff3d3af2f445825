"""The models by name."""

from collections.abc import Mapping
from typing import Any

from trainers import dcn, joint, ranking, retrieval
from trainers.loop.training import ModelSpec


def spec_of(model: str, section: Mapping[str, Any]) -> ModelSpec[Any]:
    """What there is to know about a model.

    Args:
      model: `dcn`, `retrieval`, `ranking` or `joint`.
      section: its hyper-parameters, of which the objective decides what a DCN is.
    """
    return (
        dcn.spec(section)
        if model == "dcn"
        else {"retrieval": retrieval, "ranking": ranking, "joint": joint}[model].SPEC
    )
