"""A candidate's baseline and the model that a warm start takes are the latest blessed ones of the same trainer."""

from datetime import UTC, datetime

import pytest
from ml_metadata.proto import metadata_store_pb2
from tfx.types import standard_artifacts

from components.evaluation.latest_blessed_model import (
    CANDIDATE,
    DATA,
    MODEL,
    MODEL_BLESSING,
    BaseModelStrategy,
    LatestOtherBlessedModelStrategy,
)
from components.pushing.pushed_models import Withdrawal, mark_withdrawn, pushes
from tests.components.pushing.recorded import Recorded


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
def recorded():
    return Recorded()


def withdraw(recorded, number, folder):
    """Withdraws a model that was pushed."""
    recorded.push(number, folder / "ranking" / "17")
    mark_withdrawn(recorded.store, pushes(recorded.store)[-1], Withdrawal(datetime.now(UTC), "too bad"))


@pytest.fixture
def resolve_baseline(recorded):
    def ids(candidate, models, blessings):
        inputs = {CANDIDATE: [candidate], MODEL: models, MODEL_BLESSING: blessings}
        resolved = LatestOtherBlessedModelStrategy().resolve_artifacts(recorded.store, inputs)
        return [artifact.id for artifact in resolved[MODEL]]

    return ids


def test_baseline_is_the_latest_blessed_model_of_the_same_trainer(resolve_baseline):
    models = [model(1), model(2), model(3), model(4, "Trainer.dcn"), model(5)]
    blessings = [blessing(1), blessing(2), blessing(3, blessed=False), blessing(4)]
    assert resolve_baseline(model(5), models, blessings) == [2]


def test_candidate_is_not_its_own_baseline(resolve_baseline):
    assert resolve_baseline(model(1), [model(1)], [blessing(1)]) == []
    assert resolve_baseline(model(2), [model(1), model(2)], [blessing(1), blessing(2)]) == [1]


def test_there_is_no_baseline_without_a_blessed_model(resolve_baseline):
    assert resolve_baseline(model(2), [model(1), model(2)], []) == []


def test_a_withdrawn_model_is_no_baseline(resolve_baseline, recorded, tmp_path):
    numbers = [recorded.model() for _ in range(3)]
    older, withdrawn, candidate = (model(number) for number in numbers)
    blessings = [blessing(number) for number in numbers]
    assert resolve_baseline(candidate, [older, withdrawn, candidate], blessings) == [withdrawn.id]
    withdraw(recorded, withdrawn.id, tmp_path)
    assert resolve_baseline(candidate, [older, withdrawn, candidate], blessings) == [older.id]
    assert resolve_baseline(candidate, [withdrawn, candidate], blessings) == []


def test_a_recommender_that_is_made_of_a_withdrawn_model_is_no_baseline(resolve_baseline, recorded, tmp_path):
    retrieval, ranking, other = (recorded.model() for _ in range(3))
    numbers = [recorded.model(retrieval_model=retrieval, ranking_model=part) for part in (other, ranking, other)]
    recommenders = [model(number, "RecommenderBuilder") for number in numbers]
    blessings = [blessing(number) for number in numbers]
    withdraw(recorded, ranking, tmp_path)
    assert resolve_baseline(recommenders[2], recommenders, blessings) == [numbers[0]]


def graph(number):
    artifact = standard_artifacts.TransformGraph()
    artifact.id = number
    return artifact


@pytest.fixture
def resolve_base_model(recorded, tmp_path):
    """A function from the transform graph that each model was trained on to the models that training starts from.

    Models are numbered from 1 in the order of `graphs`; the result holds no number or one.
    """
    store = recorded.store
    kind = store.put_artifact_type(metadata_store_pb2.ArtifactType(name="Any"))
    training = store.put_execution_type(metadata_store_pb2.ExecutionType(name="Trainer"))

    def new_artifact():
        (number,) = store.put_artifacts([metadata_store_pb2.Artifact(type_id=kind)])
        return number

    def record(event, artifact, execution):
        event = metadata_store_pb2.Event(type=event, artifact_id=artifact, execution_id=execution)
        store.put_events([event])

    def ids(graphs, current, blessed, trainers=None, withdrawn=()):
        nodes = {name: new_artifact() for name in sorted({*graphs, current})}
        models = []
        for place, name in enumerate(graphs):
            artifact = model(new_artifact(), (trainers or {}).get(place + 1, "Trainer.ranking"))
            models.append(artifact)
            # The second execution stands for a later run that took the Trainer's output from the cache.
            for _ in range(2):
                (execution,) = store.put_executions([metadata_store_pb2.Execution(type_id=training)])
                record(metadata_store_pb2.Event.INPUT, nodes[name], execution)
                record(metadata_store_pb2.Event.OUTPUT, artifact.id, execution)
        for place in withdrawn:
            withdraw(recorded, models[place - 1].id, tmp_path)
        blessings = [blessing(models[place - 1].id) for place in blessed]
        inputs = {DATA: [graph(nodes[current])], MODEL: models, MODEL_BLESSING: blessings}
        resolved = BaseModelStrategy("Trainer.ranking").resolve_artifacts(store, inputs)
        assert resolved[DATA] == inputs[DATA]
        return [place for place, artifact in enumerate(models, start=1) if artifact in resolved[MODEL]]

    return ids


def test_training_starts_from_the_latest_blessed_model_of_other_data(resolve_base_model):
    assert resolve_base_model(["monday", "tuesday", "tuesday"], current="wednesday", blessed=[1, 2]) == [2]


def test_training_again_on_the_same_data_starts_from_the_same_model(resolve_base_model):
    assert resolve_base_model(["monday", "tuesday", "tuesday"], current="tuesday", blessed=[1, 2, 3]) == [1]
    assert resolve_base_model(["monday"], current="monday", blessed=[1]) == []


def test_training_starts_from_a_model_of_its_own_trainer(resolve_base_model):
    trainers = {2: "Trainer.dcn"}
    assert resolve_base_model(["monday", "tuesday"], current="wednesday", blessed=[1, 2], trainers=trainers) == [1]


def test_training_starts_from_scratch_without_a_blessed_model(resolve_base_model):
    assert resolve_base_model(["monday"], current="tuesday", blessed=[]) == []


def test_training_does_not_start_from_a_withdrawn_model(resolve_base_model):
    days = ["monday", "tuesday"]
    assert resolve_base_model(days, current="wednesday", blessed=[1, 2], withdrawn=[2]) == [1]
    assert resolve_base_model(["monday"], current="tuesday", blessed=[1], withdrawn=[1]) == []
