"""Products of batches are NumPy's, for a batch of any size, and their gradients are those of `tf.matmul`."""

import numpy as np
import pytest
import tensorflow as tf

from trainers.layers.products import batch_product


def matrices(rows, transposed):
    rng = np.random.default_rng(rows)
    shape = (rows, 3, 5) if transposed else (rows, 5, 3)
    return [rng.normal(size=size).astype(np.float32) for size in ((rows, 4, 5), shape)]


@pytest.mark.parametrize("rows", [0, 1, 2, 7])
@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("training", [False, True])
def test_products_are_those_of_numpy(rows, transposed, training):
    left, right = matrices(rows, transposed)
    product = tf.function(batch_product, autograph=False)(left, right, transposed, training)
    expected = left @ (right.transpose(0, 2, 1) if transposed else right)
    np.testing.assert_allclose(product, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("rows", [None, 1])
def test_the_shape_of_matrices_is_known_when_the_batch_is_not(rows):
    traced = tf.function(batch_product, autograph=False)
    known = traced.get_concrete_function(tf.TensorSpec([rows, 4, 5]), tf.TensorSpec([rows, 5, 3]))
    assert known.structured_outputs.shape.as_list() == [rows, 4, 3]


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("rows", [1, 3])
def test_gradients_are_those_of_matmul(rows, training):
    left, right = (tf.constant(values) for values in matrices(rows, False))
    with tf.GradientTape(persistent=True) as tape:
        tape.watch([left, right])
        found = tf.reduce_sum(batch_product(left, right, training=training) ** 2)
        expected = tf.reduce_sum((left @ right) ** 2)
    for ours, theirs in zip(tape.gradient(found, [left, right]), tape.gradient(expected, [left, right]), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)
