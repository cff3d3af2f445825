"""What the Tuner tries: checked against the models, and what is said about the rest."""

import pytest

from pipeline.config import Config, ConfigError, load_config
from pipeline.model_settings import SpacesConfig
from trainers.loop.search_spaces import from_choices, to_choice

MODELS = list(SpacesConfig.model_fields)


def message(*overrides: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load_config("sample", list(overrides))
    return str(caught.value)


def test_there_is_a_space_for_every_model_of_values_that_it_takes():
    config = Config(name="x")
    assert set(MODELS) == set(type(config.models).model_fields)
    spaces = SpacesConfig.model_validate(config.tuning.space.model_dump())
    assert spaces == config.tuning.space
    for name in MODELS:
        assert all(len(values) > 1 for values in getattr(spaces, name).values())


def test_naming_a_hyper_parameter_leaves_out_the_others():
    override = "tuning.space.dcn.projection_dim=[null, 16]"
    space = load_config("sample", [override]).tuning.space
    assert space.dcn == {"projection_dim": [None, 16]}
    assert space.ranking == SpacesConfig().ranking


def test_values_are_of_the_models_types():
    (rate, *_) = load_config("sample", ["tuning.space.ranking.learning_rate=[1, 0.5]"]).tuning.space.ranking.values()
    assert [type(value) for value in rate] == [float, float]


def test_values_may_need_others_of_the_space():
    override = "tuning.space.retrieval={loss: [in_batch], hard_negatives: [null, 50]}"
    space = load_config("sample", [override]).tuning.space.retrieval
    assert space == {"loss": ["in_batch"], "hard_negatives": [None, 50]}


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("tuning.space.ranking.learning_rat=[1]", "tuning.space.ranking: unknown hyper-parameter 'learning_rat'"),
        ("tuning.space.ranking.temperature=[1]", "expected one of: id_dropout"),
        ("tuning.space.ranking.dropout=[0.1, 1.5]", "dropout: Input should be less than 1; received 1.5"),
        ("tuning.space.ranking.epochs=[2.5]", "epochs: Input should be a valid integer"),
        ("tuning.space.ranking.hidden_units=[[64], 32]", "hidden_units: Input should be a valid array; received 32"),
        ("tuning.space.dcn.structure=[stacked, piled]", "received 'piled'"),
        ("tuning.space.ranking.dropout=0.1", "tuning.space.ranking.dropout: Input should be a valid array"),
        ("tuning.space.ranking.dropout=[]", "tuning.space.ranking.dropout: "),
        ("tuning.space.ranking={}", "tuning.space.ranking: "),
        ("tuning.space.ranker={dropout: [0.1]}", "expected one of: dcn, retrieval, ranking, joint"),
        ("tuning.max_trials=0", "tuning.max_trials: Input should be greater than or equal to 1"),
        ("tuning.models=[ranker]", "each should be one of: dcn, retrieval, ranking, joint; unknown: ranker"),
    ],
)
def test_what_cannot_be_tried_is_named(override, expected):
    assert expected in message(override)


def test_all_that_is_wrong_with_a_space_is_told_at_once():
    text = message("tuning.space.ranking={droput: [0.1], dropout: [2.0], l2: [-1.0]}")
    assert "'droput'" in text
    assert "received 2.0" in text
    assert "received -1.0" in text


@pytest.mark.parametrize("value", [0.002, 1e-6, 64, [128, 64], [], None, "stacked"])
def test_choices_keep_their_values(value):
    assert from_choices({"x": to_choice(value)}) == {"x": value}
