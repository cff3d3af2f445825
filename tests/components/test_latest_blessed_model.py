"""Which model a candidate is measured against."""

import pytest
from tfx.types import standard_artifacts

from components.latest_blessed_model import CANDIDATE, MODEL, MODEL_BLESSING, LatestOtherBlessedModelStrategy


def model(number, trainer="Trainer.ranking"):
    artifact = standard_artifacts.Model()
    artifact.uri, artifact.id = f"artifacts/{trainer}/model/{number}", number
    return artifact


def blessing(number, blessed=True):
    artifact = standard_artifacts.ModelBlessing()
    artifact.set_int_custom_property("blessed", int(blessed))
    artifact.set_int_custom_property("current_model_id", number)
    return artifact


@pytest.fixture
def resolve():
    def ids(candidate, models, blessings):
        inputs = {CANDIDATE: [candidate], MODEL: models, MODEL_BLESSING: blessings}
        resolved = LatestOtherBlessedModelStrategy().resolve_artifacts(None, inputs)
        return [artifact.id for artifact in resolved[MODEL]]

    return ids


def test_latest_blessed_model_of_the_same_trainer(resolve):
    models = [model(1), model(2), model(3), model(4, "Trainer.dcn"), model(5)]
    blessings = [blessing(1), blessing(2), blessing(3, blessed=False), blessing(4)]
    assert resolve(model(5), models, blessings) == [2]


def test_candidate_is_not_measured_against_itself(resolve):
    assert resolve(model(1), [model(1)], [blessing(1)]) == []
    assert resolve(model(2), [model(1), model(2)], [blessing(1), blessing(2)]) == [1]


def test_nothing_where_nothing_is_blessed(resolve):
    assert resolve(model(2), [model(1), model(2)], []) == []
