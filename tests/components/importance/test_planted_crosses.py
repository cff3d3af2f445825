"""On data whose interactions are known: the network finds them, by its cross weights and by permutation alike."""

from itertools import combinations
from types import SimpleNamespace

import pytest
import tensorflow as tf

from components.data.planted import pair_strength
from components.data.sample import generate_sample
from components.importance.feature_importance import measure
from components.importance.report import Report, ranked_pairs
from tests.trainers.planted_splits import planted_splits
from trainers.dcn import SPECS, Crosses
from trainers.hyperparameters import DCNHyperparameters, Task
from trainers.loop import training

pytestmark = pytest.mark.component

# As many as the sample has that is generated where there are no data.
USERS, MOVIES, RATINGS = generate_sample.__defaults__[:3]  # type: ignore[index]


@pytest.fixture(scope="module")
def report(tmp_path_factory) -> Report:
    splits = planted_splits(USERS, MOVIES, RATINGS, seed=0)
    hparams = DCNHyperparameters(
        epochs=15, patience=15, batch_size=512, learning_rate=0.01, embedding_dim=16, dropout=0, l2=0, table_l2=8
    )
    tf.keras.utils.set_random_seed(hparams.seed)
    task = SPECS[Task.RATING]
    model = task.build(splits, hparams)
    training.fit(model, splits.train, task.objective(splits), hparams, str(tmp_path_factory.mktemp("logs")), "dcn")
    return measure(SimpleNamespace(heads=[Crosses(model, splits)], ratings=model.ratings), splits.eval)


@pytest.fixture(scope="module")
def planted(report) -> set[tuple[str, str]]:
    pairs = {pair for pair in combinations(report.features, 2) if pair_strength(*pair)}
    assert len(pairs) == 6
    return pairs


def test_planted_crosses_rank_first_by_their_weights(report, planted):
    ranked = [pair.features for pair in ranked_pairs(report)]
    assert len(ranked) == 36
    assert set(ranked[: len(planted)]) == planted


def test_planted_crosses_rank_first_by_permutation(report, planted):
    ranked = sorted(report.importance.pairs, key=report.importance.pairs.__getitem__, reverse=True)
    assert set(ranked[: len(planted)]) == planted


def test_the_strongest_pairs_are_those_of_both(report):
    by_weights = [pair.features for pair in ranked_pairs(report)][:2]
    by_permutation = sorted(report.importance.pairs, key=report.importance.pairs.__getitem__, reverse=True)[:3]
    assert set(by_weights) <= set(by_permutation)


def test_a_feature_without_any_effect_ranks_with_the_last(report):
    growth = report.importance.features
    assert sorted(growth, key=growth.__getitem__)[:2].count("zip_code") == 1
    assert growth["zip_code"] < 0.25 * growth["occupation"]
