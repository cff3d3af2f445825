"""What the machine could do, and what a training step asks of it (Williams et al. 2009).

https://doi.org/10.1145/1498765.1498785
"""

import math
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from trainers.datasets import Arrays

_FLOAT_BYTES = 4
# Adam's dense update reads a weight, its gradient and its two moments, writes all but the gradient, and takes some
# dozen operations.
_ADAM_TRANSFERS, _ADAM_FLOPS = 7, 12
_MATRIX_PRODUCTS = ("MatMul", "BatchMatMulV2", "BatchMatMulV3", "Einsum")
# Operations that move no memory: views, metadata, or constants.
_FREE = {
    *("Const", "Identity", "Reshape", "Shape", "ShapeN", "ExpandDims", "Squeeze", "Placeholder", "ReadVariableOp"),
    *("StopGradient", "NoOp", "BroadcastGradientArgs", "StridedSlice", "Assert", "PreventGradient", "IdentityN"),
}
# Operations that read and write memory, without arithmetic.
_COPIES = {
    *("Cast", "ConcatV2", "Fill", "GatherV2", "Pad", "ResourceGather", "Slice", "StridedSliceGrad", "Tile"),
    *("Transpose", "ZerosLike", "OnesLike", "Pack", "SelectV2", "BroadcastTo"),
}


@dataclass(frozen=True)
class Cost:
    """What a training step takes.

    Attributes:
      flops: floating-point operations.
      bytes: moved, if each operation reads its inputs from memory and writes its outputs there: caches spare some.
    """

    flops: float
    bytes: float

    @property
    def intensity(self) -> float:
        """Operations a byte."""
        return self.flops / self.bytes

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(self.flops + other.flops, self.bytes + other.bytes)


@dataclass(frozen=True)
class Limits:
    """What a machine can do at most.

    Attributes:
      flops: float32 operations a second, in matrix products.
      bandwidth: bytes a second, to and from memory.
    """

    flops: float
    bandwidth: float

    def roof(self, intensity: float) -> float:
        """Operations a second that are possible with so many of them a byte."""
        return min(self.flops, intensity * self.bandwidth)


def measure_limits(sizes: Sequence[int] = (512, 1024, 2048), floats: int = 2**26, repeats: int = 5) -> Limits:
    """The best of several tries.

    Args:
      sizes: rows and columns of the matrices to multiply.
      floats: length of the arrays to add; they should not fit into the caches.
      repeats: tries.
    """
    return Limits(
        flops=max(2 * size**3 / _fastest(_product(size), repeats) for size in sizes),
        bandwidth=3 * floats * _FLOAT_BYTES / _fastest(_sum(floats), repeats),
    )


def _product(size: int) -> Callable[[], object]:
    a, b = tf.random.uniform([size, size]), tf.random.uniform([size, size])
    return lambda: tf.matmul(a, b).numpy()


def _sum(floats: int) -> Callable[[], object]:
    """STREAM's add, in one thread a core: NumPy releases the interpreter's lock."""
    threads = os.cpu_count() or 1
    a, b, c = (np.array_split(np.ones(floats, np.float32), threads) for _ in range(3))
    pool = ThreadPoolExecutor(threads)
    return lambda: list(pool.map(lambda x, y, z: np.add(x, y, out=z), a, b, c))


def _fastest(work: Callable[[], object], repeats: int) -> float:
    work()
    seconds = []
    for _ in range(repeats):
        started = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - started)
    return min(seconds)


def step_cost(model: tf.keras.Model, rows: Arrays, batch_size: int) -> Cost:
    """Of a step of the project's loop: the loss, its gradient and Adam's update of all weights.

    Args:
      model: a model of the project.
      rows: transformed features, [rows, ...] by name.
      batch_size: rows of a step.
    """
    # One call makes the weights, which should not happen while a graph is traced.
    model.compute_loss({name: tf.constant(values[:1]) for name, values in rows.items()})

    @tf.function
    def gradient(batch: dict[str, tf.Tensor]) -> list[tf.Tensor]:
        with tf.GradientTape() as tape:
            loss = model.compute_loss(batch, training=True)
            penalized = loss + tf.add_n(model.losses) if model.losses else loss
        return tape.gradient(penalized, model.trainable_variables)

    spec = {name: tf.TensorSpec([batch_size, *values.shape[1:]], values.dtype) for name, values in rows.items()}
    weights = weight_count(model)
    update = Cost(_ADAM_FLOPS * weights, _ADAM_TRANSFERS * _FLOAT_BYTES * weights)
    return graph_cost(gradient.get_concrete_function(spec).graph) + update


def weight_count(model: tf.keras.Model) -> int:
    """Number of trained weights of a model that has made a prediction."""
    return sum(math.prod(variable.shape) for variable in model.trainable_variables)


def graph_cost(graph: tf.Graph) -> Cost:
    """Of all operations of a graph whose shapes are known; one operation is counted for each number computed."""
    cost = Cost(0, 0)
    for operation in graph.get_operations():
        cost += _operation_cost(operation)
    return cost


def _operation_cost(operation: tf.Operation) -> Cost:
    if operation.type in _FREE:
        return Cost(0, 0)
    written = sum(map(_size, operation.outputs))
    moved = sum(_bytes(tensor) for tensor in operation.outputs)
    if operation.type in _COPIES:
        return Cost(0, 2 * moved)
    moved += sum(_bytes(tensor) for tensor in operation.inputs)
    if operation.type in _MATRIX_PRODUCTS:
        return Cost(2 * written * _contracted(operation), moved)
    read = max((_size(tensor) for tensor in operation.inputs), default=0)
    return Cost(max(written, read), moved)


def _contracted(operation: tf.Operation) -> float:
    """Products that are added up for one number of the result."""
    if operation.type == "Einsum":
        inputs, output = operation.get_attr("equation").decode().split("->")
        sizes = {
            label: size
            for labels, tensor in zip(inputs.split(","), operation.inputs, strict=True)
            for label, size in zip(labels, tensor.shape, strict=True)
        }
        return math.prod(size or 0 for label, size in sizes.items() if label not in output)
    transposed = operation.get_attr("transpose_a" if operation.type == "MatMul" else "adj_x")
    return operation.inputs[0].shape[-2 if transposed else -1] or 0


def _size(tensor: tf.Tensor) -> int:
    return tensor.shape.num_elements() or 0


def _bytes(tensor: tf.Tensor) -> int:
    return _size(tensor) * tensor.dtype.size
