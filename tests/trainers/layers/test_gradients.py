"""Operations with custom gradients have the values and gradients of plain NumPy."""

import numpy as np
import pytest
import tensorflow as tf

from trainers.layers.gradients import lookup, softmax_cross_entropies


@pytest.mark.parametrize("shape", [(0,), (1,), (7,), (1, 3), (5, 4), (4, 0)])
def test_a_lookup_returns_rows_and_its_gradient_sums_the_upstream_gradients_of_each_row(shape):
    rng = np.random.default_rng(0)
    table, indices = rng.normal(size=(6, 2)).astype(np.float32), rng.integers(0, 4, shape).astype(np.int32)
    upstream = rng.normal(size=(*shape, 2)).astype(np.float32)
    variable = tf.Variable(table)
    with tf.GradientTape() as tape:
        rows = lookup(variable, tf.constant(indices))
    expected = np.zeros_like(table)
    np.add.at(expected, indices, upstream)
    np.testing.assert_array_equal(rows, table[indices])
    np.testing.assert_allclose(tape.gradient(rows, variable, upstream), expected, rtol=1e-6, atol=1e-6)


class TestSoftmaxCrossEntropies:
    TARGETS = np.array([0, 3, 3, 1, 3], np.int32)
    # The upstream gradient of each row's loss; one of them is 0.
    UPSTREAM = np.array([0.5, 1.0, 0.0, 2.0, 0.25], np.float32)

    @staticmethod
    def draw_inputs(scale):
        rng = np.random.default_rng(0)
        biases = rng.normal(size=6)
        biases[[2, 5]] = -np.inf
        inputs = scale * rng.normal(size=(5, 3)), rng.normal(size=(6, 3)), biases
        return [x.astype(np.float32) for x in inputs]

    def computed(self, scale):
        queries, candidates, biases = (tf.Variable(x) for x in self.draw_inputs(scale))
        with tf.GradientTape() as tape:
            losses = softmax_cross_entropies(queries, candidates, biases, tf.constant(self.TARGETS))
        return losses, tape.gradient(losses, [queries, candidates, biases], self.UPSTREAM)

    def expected(self, scale):
        queries, candidates, biases = (x.astype(np.float64) for x in self.draw_inputs(scale))
        logits = queries @ candidates.T + biases
        logits -= logits.max(axis=1, keepdims=True)
        normalizers = np.log(np.exp(logits).sum(axis=1, keepdims=True))
        logit_gradients = (np.exp(logits - normalizers) - np.eye(6)[self.TARGETS]) * self.UPSTREAM[:, None]
        losses = (normalizers - logits)[range(5), self.TARGETS]
        return losses, [logit_gradients @ candidates, logit_gradients.T @ queries, logit_gradients.sum(axis=0)]

    @pytest.mark.parametrize("scale", [1, 200])
    def test_losses_follow_the_formula(self, scale):
        losses, _ = self.expected(scale)
        # The loss is exact even if the softmax of the target is so small that it is rounded to 0.
        assert (losses.max() > 200) == (scale == 200)
        np.testing.assert_allclose(self.computed(scale)[0], losses, rtol=1e-5, atol=1e-5 * scale)

    @pytest.mark.parametrize("scale", [1, 200])
    def test_gradients_follow_the_formula(self, scale):
        for computed, expected in zip(self.computed(scale)[1], self.expected(scale)[1], strict=True):
            np.testing.assert_allclose(computed, expected, rtol=1e-4, atol=1e-5 * scale)

    def test_a_nan_input_gives_a_nan_loss(self):
        queries, candidates, biases = self.draw_inputs(1)
        queries[1, 0] = np.nan
        losses = softmax_cross_entropies(queries, candidates, biases, tf.constant(self.TARGETS))
        assert np.isnan(losses).tolist() == [False, True, False, False, False]
