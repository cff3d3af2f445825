"""Changes against the champion are NumPy's, and a change of 2 % is seen in some thousand rows, whatever the seed."""

import numpy as np
import pytest
from scipy import stats
from tensorflow_model_analysis.metrics import metric_types
from tensorflow_model_analysis.proto import config_pb2

from components.evaluation.champion_metrics import ChangesOfOutput
from components.evaluation.names import AT_BEST, AT_WORST, CHANGE
from components.evaluation.output_metrics import bounded_mean
from pipeline.config import EvaluationConfig

CANDIDATE, CHAMPION = "candidate", "baseline"
SPECS = [config_pb2.ModelSpec(name=CANDIDATE), config_pb2.ModelSpec(name=CHAMPION, is_baseline=True)]


def changes(candidate, champion, output="hit", counts=None, confidence=0.95, **settings):
    """The metrics of rows with the given values, by model and name."""
    weight = "" if counts is None else "counts"
    metric = ChangesOfOutput(output, confidence, weight=weight, **settings)
    computations = metric.computations(
        eval_config=config_pb2.EvalConfig(model_specs=SPECS), model_names=[CANDIDATE, CHAMPION]
    )
    counts = np.ones(len(candidate)) if counts is None else counts
    found: dict[tuple[str, str], float] = {}
    for computation in computations:
        # In two parts, as Beam does it.
        parts = []
        for part in (slice(None, 3), slice(3, None)):
            sums = computation.combiner.create_accumulator()
            for mine, other, count in zip(candidate[part], champion[part], counts[part], strict=True):
                values = {CANDIDATE: {output: np.array([mine]), "counts": np.array([count])}}
                values[CHAMPION] = {output: np.array([other])}
                sums = computation.combiner.add_input(sums, metric_types.StandardMetricInputs(prediction=values))
            parts.append(sums)
        values = computation.combiner.extract_output(computation.combiner.merge_accumulators(parts))
        found |= {(key.model_name, key.name): value for key, value in values.items() if key.output_name == output}
    return found


@pytest.mark.parametrize("output", ["hit", "squared_error", "log_loss"])
@pytest.mark.parametrize("confidence", [0.9, 0.95])
def test_the_change_and_its_bounds_are_those_of_the_differences(output, confidence):
    rng = np.random.default_rng(0)
    candidate, champion = rng.random((2, 200))
    better = (candidate - champion) * (1 if output == "hit" else -1)
    found = changes(candidate, champion, output, confidence=confidence)
    bound = stats.norm.ppf(confidence) * better.std() / np.sqrt(200)
    expected = {CHANGE: better.mean(), AT_WORST: better.mean() - bound, AT_BEST: better.mean() + bound}
    assert {name: found[CANDIDATE, name] for name in expected} == pytest.approx(expected)
    # What is subtracted from the candidate's is nothing.
    assert {name: found[CHAMPION, name] for name in expected} == dict.fromkeys(expected, 0)


def test_rows_that_do_not_count_are_left_out():
    rng = np.random.default_rng(1)
    candidate, champion = rng.random((2, 50))
    counts = (rng.random(50) < 0.5).astype(float)
    of_some = changes(candidate[counts > 0], champion[counts > 0])
    candidate[counts == 0] = np.nan
    assert changes(candidate, champion, counts=counts) == pytest.approx(of_some)


def test_without_rows_there_is_no_number():
    nothing = changes(np.zeros(5), np.zeros(5), counts=np.zeros(5))
    assert np.isnan([nothing[CANDIDATE, name] for name in (CHANGE, AT_WORST, AT_BEST)]).all()


def test_an_output_that_the_champion_lacks_gives_no_number():
    metric = ChangesOfOutput("hit", 0.95)
    computations = metric.computations(
        eval_config=config_pb2.EvalConfig(model_specs=SPECS), model_names=[CANDIDATE, CHAMPION]
    )
    row = metric_types.StandardMetricInputs(prediction={CANDIDATE: {"hit": np.array([1.0])}, CHAMPION: {}})
    for computation in computations:
        sums = computation.combiner.add_input(computation.combiner.create_accumulator(), row)
        assert np.isnan(list(computation.combiner.extract_output(sums).values())).all()


def test_without_a_champion_there_is_no_metric():
    alone = config_pb2.EvalConfig(model_specs=[config_pb2.ModelSpec()])
    assert ChangesOfOutput("hit", 0.95).computations(eval_config=alone, model_names=[""]) == []


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("kind", ["recall", "rmse"])
def test_two_per_cent_worse_is_seen_and_two_per_cent_better_is_not_taken_for_it(seed, kind):
    rng = np.random.default_rng(seed)
    rows, tolerance = 10_000, 0.002
    if kind == "recall":
        # A third of the rows is found; the worse model loses 2 % of them, and as many change places by chance.
        good = (rng.random(rows) < 1 / 3).astype(float)
        swapped = rng.permutation(rows)[: rows // 100]
        worse = good.copy()
        worse[swapped] = rng.permutation(worse[swapped])
        lost = np.flatnonzero(worse)
        worse[lost[: round(0.02 * good.sum())]] = 0
        output = "hit"
    else:
        # Residuals of .84 stars; the worse model's are 2 % larger, and those of both differ by chance.
        residuals = rng.normal(0, 0.84, rows)
        good = (residuals + rng.normal(0, 0.1, rows)) ** 2
        worse = (1.02 * residuals + rng.normal(0, 0.1, rows)) ** 2
        output = "squared_error"
    assert changes(worse, good, output)[CANDIDATE, AT_BEST] < -tolerance
    assert changes(good, worse, output)[CANDIDATE, AT_WORST] > -tolerance


@pytest.mark.parametrize(("rows", "refused"), [(250_000, "all"), (10_000, "some")])
def test_two_per_cent_less_recall_takes_as_many_rows_as_movielens_1m_has(rows, refused):
    # In an eighth of the rows one of two retrievers finds the movie and the other does not. The candidate has 2 % less
    # of a recall of .33, so that it misses so many more than it adds.
    share, less = 0.125, 0.02 * 0.33
    lost_and_gained = [(share + less) / 2, (share - less) / 2, 1 - share]
    evaluation = EvaluationConfig()
    worse = []
    for lost, gained, _ in np.random.default_rng(0).multinomial(rows, lost_and_gained, size=1000):
        _, _, at_best = bounded_mean(gained - lost, gained + lost, rows, evaluation.confidence)
        worse.append(at_best < -evaluation.recall_tolerance)
    assert np.mean(worse) > 0.999 if refused == "all" else 0.2 < np.mean(worse) < 0.6
