"""What the metadata store knows of pushed models, and which it forbids to push."""

import shutil
from datetime import UTC, datetime

import pytest

from components.pushing.pushed_models import (
    PART_INPUTS,
    Withdrawal,
    mark_pruned,
    mark_withdrawn,
    parts,
    pushes,
    refusal,
    withdrawals,
)
from tests.components.pushing.recorded import Recorded, write_version

WITHDRAWAL = Withdrawal(datetime(2026, 3, 1, 12, tzinfo=UTC), "it loves sequels")


@pytest.fixture
def recorded():
    return Recorded()


def withdraw(recorded, pushed):
    (push,) = (push for push in pushes(recorded.store) if push.artifact == pushed)
    mark_withdrawn(recorded.store, push, WITHDRAWAL)


def test_pushes_name_their_model_also_after_runs_that_took_them_from_the_cache(recorded, tmp_path):
    graph = recorded.model()
    model = recorded.model(transform_graph=graph)
    other = recorded.model(transform_graph=graph)
    pushed = recorded.push(model, tmp_path / "ranking" / "17", tmp_path / "archive")
    recorded.cached(pushed, model)
    recorded.refused(other)
    later = recorded.push(other, write_version(tmp_path / "ranking" / "18"))
    first, second = pushes(recorded.store)
    assert (first.artifact, first.model, first.name, first.version) == (pushed, model, "ranking", 17)
    assert (first.archive, first.is_there, first.withdrawal) == (tmp_path / "archive", False, None)
    assert abs((first.time - datetime.now(UTC)).total_seconds()) < 3600
    assert (second.artifact, second.model, second.is_there) == (later, other, True)


def test_a_new_store_has_no_pushes_and_no_withdrawals(recorded):
    assert pushes(recorded.store) == []
    assert withdrawals(recorded.store, [recorded.model()]) == {}
    assert withdrawals(recorded.store, []) == {}
    assert refusal(recorded.store, recorded.model()) is None


def test_a_withdrawn_model_is_refused_and_others_are_not(recorded, tmp_path):
    bad, good = recorded.model(), recorded.model()
    pushed = recorded.push(bad, write_version(tmp_path / "ranking" / "17"))
    recorded.push(good, write_version(tmp_path / "ranking" / "18"))
    withdraw(recorded, pushed)
    assert withdrawals(recorded.store, [bad, good]) == {bad: WITHDRAWAL}
    assert refusal(recorded.store, bad) == "withdrawn on 2026-03-01: it loves sequels"
    assert refusal(recorded.store, good) is None
    # The mark leaves everything else as it was.
    assert [(push.model, push.version, push.withdrawal) for push in pushes(recorded.store)] == [
        (bad, 17, WITHDRAWAL),
        (good, 18, None),
    ]


def test_a_recommender_is_withdrawn_with_its_parts_and_a_model_that_was_started_from_another_is_not(recorded, tmp_path):
    retrieval, ranking = recorded.model(), recorded.model()
    recommender = recorded.model(retrieval_model=retrieval, ranking_model=ranking)
    started = recorded.model(base_model=ranking)
    pushed = recorded.push(ranking, tmp_path / "ranking" / "17")
    recorded.push(recommender, write_version(tmp_path / "recommender" / "18"))
    withdraw(recorded, pushed)
    found = withdrawals(recorded.store, [retrieval, ranking, recommender, started])
    assert set(found) == {ranking, recommender}
    assert refusal(recorded.store, recommender) == "it is made of ranking 17, withdrawn on 2026-03-01: it loves sequels"
    assert parts(recorded.store, [recommender, started]) == {recommender: {retrieval, ranking}, started: set()}


def test_the_parts_are_the_models_that_the_recommender_is_built_of():
    from tfx.types import standard_artifacts

    from components.recommender.recommender_builder import RecommenderBuilder

    inputs = RecommenderBuilder.SPEC_CLASS.INPUTS.items()
    assert {name for name, channel in inputs if channel.type is standard_artifacts.Model} == set(PART_INPUTS)


def test_a_model_whose_version_was_deleted_by_hand_is_refused_until_it_is_put_back(recorded, tmp_path):
    model = recorded.model()
    version = write_version(tmp_path / "ranking" / "17")
    recorded.push(model, version, tmp_path / "archive")
    assert refusal(recorded.store, model) is None
    shutil.move(version, tmp_path / "archive")
    (push,) = pushes(recorded.store)
    assert refusal(recorded.store, model) == (
        f"version 17 of ranking was pushed on {push.time:%Y-%m-%d} and is no longer there; it was not "
        f"withdrawn, and it is not pushed again. To serve it, copy {tmp_path / 'archive'} to {version}"
    )
    shutil.copytree(tmp_path / "archive", version)
    assert refusal(recorded.store, model) is None


def test_of_a_model_that_was_pushed_twice_the_last_version_counts(recorded, tmp_path):
    model = recorded.model()
    recorded.push(model, tmp_path / "ranking" / "17")
    last = write_version(tmp_path / "ranking" / "19")
    recorded.push(model, last)
    assert refusal(recorded.store, model) is None
    shutil.rmtree(last)
    write_version(tmp_path / "ranking" / "17")
    assert "version 19 of ranking" in str(refusal(recorded.store, model))


def test_a_model_whose_version_was_pruned_may_be_pushed_again_unless_it_was_withdrawn(recorded, tmp_path):
    model, other = recorded.model(), recorded.model()
    pushed = recorded.push(model, tmp_path / "ranking" / "17")
    recorded.push(other, tmp_path / "ranking" / "18")
    assert "version 17 of ranking" in str(refusal(recorded.store, model))
    mark_pruned(recorded.store, pushes(recorded.store)[:1])
    assert [push.pruned for push in pushes(recorded.store)] == [True, False]
    assert refusal(recorded.store, model) is None
    assert "version 18 of ranking" in str(refusal(recorded.store, other))
    withdraw(recorded, pushed)
    assert pushes(recorded.store)[0].pruned
    assert refusal(recorded.store, model) == "withdrawn on 2026-03-01: it loves sequels"


def test_a_model_that_was_pushed_again_after_a_prune_and_then_deleted_by_hand_is_refused(recorded, tmp_path):
    model = recorded.model()
    recorded.push(model, tmp_path / "ranking" / "17")
    mark_pruned(recorded.store, pushes(recorded.store))
    mark_pruned(recorded.store, [])
    recorded.push(model, tmp_path / "ranking" / "19")
    assert "version 19 of ranking" in str(refusal(recorded.store, model))


def test_where_the_copy_of_a_version_is_gone_the_model_itself_is_to_be_copied(recorded, tmp_path):
    model = recorded.model()
    (artifact,) = recorded.store.get_artifacts_by_id([model])
    artifact.uri = str(tmp_path / "model")
    recorded.store.put_artifacts([artifact])
    write_version(tmp_path / "model" / "Format-Serving")
    version = tmp_path / "ranking" / "17"
    recorded.push(model, version, tmp_path / "archive")
    expected = f"To serve it, copy {tmp_path / 'model' / 'Format-Serving'} to {version}"
    assert str(refusal(recorded.store, model)).endswith(expected)


def test_a_push_is_known_to_be_in_a_folder_by_whatever_path(recorded, tmp_path):
    (tmp_path / "serving").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "serving")
    recorded.push(recorded.model(), tmp_path / "link" / "ranking" / "17")
    (push,) = pushes(recorded.store)
    assert push.is_in(tmp_path / "serving")
    assert not push.is_in(tmp_path)
