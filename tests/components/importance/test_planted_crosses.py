"""On data whose crosses are known, the network finds them: by its cross weights and by permutation alike.

Which pairs rank highest depends on the seed of the network, and on the order of its train rows. Each expectation
therefore holds for four of five seeds.
"""

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
SEEDS = range(5)
ENOUGH_SEEDS = 4


@pytest.fixture(scope="module")
def reports(tmp_path_factory) -> list[Report]:
    """Reports on networks that differ in their seeds alone."""
    splits = planted_splits(USERS, MOVIES, RATINGS, seed=0)
    spec = SPECS[Task.RATING]
    measured = []
    for seed in SEEDS:
        hparams = DCNHyperparameters(
            seed=seed,
            epochs=15,
            patience=15,
            batch_size=512,
            learning_rate=0.01,
            embedding_dim=16,
            dropout=0,
            l2=0,
            table_l2=8,
        )
        tf.keras.utils.set_random_seed(seed)
        model = spec.build(splits, hparams)
        training.fit(model, splits.train, spec.objective(splits), hparams, str(tmp_path_factory.mktemp("logs")), "dcn")
        exported = SimpleNamespace(heads=[Crosses(model, splits)], ratings=model.ratings)
        measured.append(measure(exported, splits.eval))
    return measured


@pytest.fixture(scope="module")
def planted(reports) -> set[tuple[str, str]]:
    pairs = {pair for pair in combinations(reports[0].features, 2) if pair_strength(*pair)}
    assert len(pairs) == 6
    return pairs


def by_weights(report: Report) -> list[tuple[str, str]]:
    """All pairs, the one with the strongest cross weights first."""
    ranked = [pair.features for pair in ranked_pairs(report)]
    assert len(ranked) == 36
    return ranked


def by_permutation(report: Report) -> list[tuple[str, str]]:
    """All pairs, the one with the largest interaction when shuffled first."""
    assert report.importance is not None
    return sorted(report.importance.pairs, key=report.importance.pairs.__getitem__, reverse=True)


@pytest.mark.parametrize("ranking", [by_weights, by_permutation])
def test_five_of_six_planted_crosses_rank_among_the_first_six(reports, planted, ranking):
    found = [len(planted & set(ranking(report)[: len(planted)])) for report in reports]
    assert sum(count >= 5 for count in found) >= ENOUGH_SEEDS, found


def test_the_two_strongest_pairs_by_weights_are_strongest_by_permutation_too(reports):
    agree = [set(by_weights(report)[:2]) <= set(by_permutation(report)[:3]) for report in reports]
    assert sum(agree) >= ENOUGH_SEEDS, agree


def test_a_feature_without_any_effect_ranks_last_or_next_to_last(reports):
    places = []
    for report in reports:
        growth = report.importance.features
        places.append(sorted(growth, key=growth.__getitem__).index("zip_code"))
    assert sum(place <= 1 for place in places) >= ENOUGH_SEEDS, places


def test_a_feature_without_any_effect_costs_little_beside_one_that_has_some(reports):
    shares = [report.importance.features["zip_code"] / report.importance.features["occupation"] for report in reports]
    assert sum(share < 0.25 for share in shares) >= ENOUGH_SEEDS, shares
