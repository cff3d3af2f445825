"""Permutation importance against what it should be for models that are known."""

import numpy as np
import pytest

from components.importance.permutation import permutation_importance

ROWS = 20_000
COLUMNS = {"a": ["a"], "b": ["b"], "c": ["c"]}


@pytest.fixture
def rows():
    rng = np.random.default_rng(1)
    return {name: rng.standard_normal(ROWS) for name in "abc"}


def labelled(model, rows):
    """The rows with what the model says of them as their label."""
    return rows | {"label": model(rows)}


def squared_error(model):
    return lambda given: (model(given) - given["label"]) ** 2


def test_a_product_is_lost_once_by_each_feature_and_by_both(rows):
    def model(given):
        return given["a"] * given["b"] + 0.5 * given["c"]

    pairs = [("a", "b"), ("a", "c"), ("b", "c")]
    importance = permutation_importance(labelled(model, rows), COLUMNS, squared_error(model), pairs, repeats=2)
    # Of independent unit normals: E[(a'b - ab)^2] = 2, E[(c'/2 - c/2)^2] = 1/2.
    assert importance.loss == 0
    assert importance.features == pytest.approx({"a": 2, "b": 2, "c": 0.5}, rel=0.1)
    assert importance.pairs == pytest.approx({("a", "b"): 2, ("a", "c"): 0, ("b", "c"): 0}, abs=0.1)


def test_growth_equals_a_loop_over_rows():
    rng = np.random.default_rng(0)
    target = rng.standard_normal(50)
    rows = {"a": rng.standard_normal((50, 2)), "b": rng.standard_normal(50), "label": target}

    def losses(given):
        return np.abs(given["a"].sum(axis=1) * given["b"] - given["label"])

    got = permutation_importance(rows, {"a": ["a"], "b": ["b"]}, losses, [("a", "b")], seed=7)

    order = np.random.default_rng(7).permutation(50)

    def mean(of_a, of_b):
        cells = [abs(rows["a"][of_a(row)].sum() * rows["b"][of_b(row)] - target[row]) for row in range(50)]
        return sum(cells) / 50

    def kept(row):
        return row

    def moved(row):
        return order[row]

    base, a, b, both = mean(kept, kept), mean(moved, kept), mean(kept, moved), mean(moved, moved)
    assert got.features == pytest.approx({"a": a - base, "b": b - base})
    assert got.pairs["a", "b"] == pytest.approx(a + b - both - base)


def test_columns_of_a_feature_are_shuffled_together(rows):
    rows["twice_a"] = 2 * rows["a"]

    def losses(given):
        return np.abs(given["twice_a"] - 2 * given["a"])

    assert permutation_importance(rows, {"a": ["a", "twice_a"]}, losses).features["a"] == 0
    assert permutation_importance(rows, {"a": ["a"]}, losses).features["a"] > 0


@pytest.mark.parametrize("count", [2, 1000, 5000, ROWS])
def test_rows_are_measured_together_and_the_growth_is_that_of_each_set_alone(rows, count):
    """However many copies fit into one call, the numbers are those of a call for each."""
    few = {name: values[:count] for name, values in rows.items()}
    few["label"] = np.zeros(count)
    calls = []

    def losses(given):
        calls.append(len(given["label"]))
        return (given["a"] * given["b"] + given["c"]) ** 2

    pairs = [("a", "b"), ("a", "c"), ("b", "c")]
    got = permutation_importance(few, COLUMNS, losses, pairs, repeats=2, seed=3)

    growth = dict.fromkeys([*[(name,) for name in "abc"], *pairs], 0.0)
    rng = np.random.default_rng(3)
    for _ in range(2):
        order = rng.permutation(count)
        for names in growth:
            moved = few | {name: few[name][order] for name in names}
            growth[names] += ((moved["a"] * moved["b"] + moved["c"]) ** 2).mean() / 2
    before = ((few["a"] * few["b"] + few["c"]) ** 2).mean()
    assert got.features == pytest.approx({name: growth[name,] - before for name in "abc"})
    assert got.pairs == pytest.approx({(a, b): growth[a,] + growth[b,] - growth[a, b] - before for a, b in pairs})
    assert sum(calls) == (1 + 2 * 6) * count
    assert max(calls) <= max(count, 8192)
    if count == 1000:
        assert len(calls) == 1 + 2


def test_rows_stay_as_they_are_and_the_seed_decides(rows):
    before = {name: values.copy() for name, values in rows.items()}

    def model(given):
        return given["a"] + given["b"] ** 2

    rows = labelled(model, rows)
    before["label"] = rows["label"].copy()
    results = [permutation_importance(rows, COLUMNS, squared_error(model), seed=seed).features for seed in (0, 0, 1)]
    assert results[0] == results[1] != results[2]
    for name, values in before.items():
        np.testing.assert_array_equal(rows[name], values)


@pytest.mark.parametrize(("count", "repeats"), [(1, 1), (5, 0)])
def test_what_cannot_be_shuffled_is_an_error(count, repeats):
    with pytest.raises(ValueError, match=f"received {count}, {repeats}"):
        permutation_importance({"a": np.zeros(count)}, {"a": ["a"]}, lambda given: given["a"], repeats=repeats)
