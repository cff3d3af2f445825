"""The line through the costs of several sizes."""

import pytest

from benchmarks.scaling import fit_scaling


def test_fixed_and_per_row_parts_are_found():
    fit = fit_scaling([100, 1_000, 10_000], [5 + 0.02 * rows for rows in (100, 1_000, 10_000)])
    assert fit is not None
    assert fit.fixed == pytest.approx(5)
    assert fit.per_row == pytest.approx(0.02)
    assert fit.ratio == pytest.approx((7 / 100) / (205 / 10_000))
    assert fit.ratio_beyond_fixed == pytest.approx(1)


def test_a_small_size_counts_as_much_as_a_large_one():
    # The large size is off by a tenth: by absolute errors, that alone would make the fixed part 0.
    fit = fit_scaling([100, 200, 10_000], [7, 9, 1.1 * 205])
    assert fit is not None
    assert fit.fixed == pytest.approx(5, rel=0.1)
    assert fit.ratio_beyond_fixed > 1.05


def test_the_fixed_part_is_never_negative():
    fit = fit_scaling([100, 1_000], [1.0, 20.0])
    assert fit is not None
    assert fit.fixed == 0
    assert 0.01 < fit.per_row < 0.02
    assert fit.ratio == pytest.approx(2)


@pytest.mark.parametrize("rows", [[100], [100, 100]])
def test_one_size_makes_no_line(rows):
    assert fit_scaling(rows, [1.0] * len(rows)) is None
