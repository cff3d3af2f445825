"""Pair strengths against a kernel whose crosses are known."""

import io

import numpy as np
import pytest

from components.feature_importance import draw, pair_strengths, ranked_pairs

FEATURES = ["a", "b", "c"]
DIM = 4


@pytest.fixture
def kernel():
    blocks = np.zeros((3, DIM, 3, DIM))
    blocks[0, :, 2, :] = 1.0  # a x c
    blocks[1, 0, 0, 0] = 1.0  # b x a, weaker
    return blocks.reshape(3 * DIM, 3 * DIM)


def test_strongest_pairs_come_first_in_either_direction(kernel):
    pairs = ranked_pairs(FEATURES, pair_strengths(kernel, np.ones(3)))
    assert [pair["features"] for pair in pairs] == [["a", "c"], ["a", "b"], ["b", "c"]]
    assert pairs[2]["strength"] == 0.0
    assert pairs[0]["strength"] == pytest.approx(DIM / np.sqrt(2))


def test_rescaling_an_embedding_and_its_weights_changes_nothing(kernel):
    # The model that halves a feature's embeddings and doubles the weights on them computes the same crosses.
    scale = np.array([0.5, 1.0, 3.0])
    spread = np.repeat(scale, DIM)
    rescaled = kernel / np.outer(spread, spread)
    np.testing.assert_allclose(pair_strengths(rescaled, scale), pair_strengths(kernel, np.ones(3)))


def test_heat_map_is_a_picture(kernel):
    file = io.BytesIO()
    draw(FEATURES, pair_strengths(kernel, np.ones(3)), file)
    assert file.getvalue().startswith(b"\x89PNG")
