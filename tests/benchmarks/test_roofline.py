"""Operations and bytes, counted by hand."""

import pytest
import tensorflow as tf

from benchmarks.roofline import Cost, Limits, graph_cost, measure_limits


def cost(function, *shapes: list[int]) -> Cost:
    specs = [tf.TensorSpec(shape, tf.float32) for shape in shapes]
    return graph_cost(tf.function(function).get_concrete_function(*specs).graph)


@pytest.mark.parametrize(
    ("product", "shapes"),
    [
        (tf.matmul, ([5, 7], [7, 3])),
        (lambda a, b: tf.matmul(a, b, transpose_a=True, transpose_b=True), ([7, 5], [3, 7])),
        (lambda a, b: tf.einsum("ik,kj->ij", a, b), ([5, 7], [7, 3])),
    ],
)
def test_a_matrix_product(product, shapes):
    assert cost(product, *shapes) == Cost(flops=2 * 5 * 7 * 3, bytes=4 * (5 * 7 + 7 * 3 + 5 * 3))


def test_products_of_many_matrices():
    assert cost(tf.matmul, [2, 5, 7], [2, 7, 3]).flops == 2 * 2 * 5 * 7 * 3
    assert cost(lambda w, x: tf.einsum("blh,bld->bhd", w, x), [4, 6, 2], [4, 6, 3]).flops == 2 * 4 * 6 * 2 * 3


def test_a_gradient_is_two_more_products():
    def gradient(a, b):
        with tf.GradientTape() as tape:
            tape.watch([a, b])
            product = tf.matmul(a, b)
        return tape.gradient(product, [a, b], output_gradients=tf.ones_like(product))

    products = 3 * 2 * 50 * 70 * 30
    assert products <= cost(gradient, [50, 70], [70, 30]).flops <= products + 50 * 30


def test_sums_and_copies():
    assert cost(lambda x: x + 1.0, [10]) == Cost(flops=10, bytes=4 * (10 + 1 + 10))
    assert cost(lambda x: tf.reduce_sum(x), [10]).flops == 10
    assert cost(lambda x: tf.tile(x, [3]), [10]) == Cost(flops=0, bytes=4 * 2 * 30)
    assert cost(lambda x: tf.reshape(x, [2, 5]), [10]) == Cost(0, 0)


def test_the_roof_is_flat_where_memory_is_fast_enough():
    limits = Limits(flops=100.0, bandwidth=10.0)
    assert [limits.roof(intensity) for intensity in (1.0, 10.0, 50.0)] == [10.0, 100.0, 100.0]


def test_limits_are_measured():
    limits = measure_limits(sizes=(64, 256), floats=2**20, repeats=2)
    assert limits.flops > 1e8
    assert limits.bandwidth > 1e7
