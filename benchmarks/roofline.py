"""Roofline model (Williams et al. 2009): the limits of the machine, and the operations and bytes of a training step.

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
# For each weight, Adam's dense update reads 4 values (the weight, its gradient and two moments), writes 3 (all but the
# gradient), and takes about a dozen operations.
_ADAM_TRANSFERS, _ADAM_FLOPS = 7, 12
_MATRIX_PRODUCTS = ("MatMul", "BatchMatMulV2", "BatchMatMulV3", "Einsum")
# Operations that move no data: views, metadata, or reads without a copy.
_FREE_OPERATIONS = {
    *("Const", "Identity", "Reshape", "Shape", "ShapeN", "ExpandDims", "Squeeze", "Placeholder", "ReadVariableOp"),
    *("StopGradient", "NoOp", "BroadcastGradientArgs", "StridedSlice", "Assert", "PreventGradient", "IdentityN"),
}
# Operations that read and write data but do no arithmetic.
_COPY_OPERATIONS = {
    *("Cast", "ConcatV2", "Fill", "GatherV2", "Pad", "ResourceGather", "Slice", "StridedSliceGrad", "Tile"),
    *("Transpose", "ZerosLike", "OnesLike", "Pack", "SelectV2", "BroadcastTo"),
}


@dataclass(frozen=True)
class Cost:
    """What a training step, or an operation of it, asks of the machine.

    Attributes:
      flops: number of floating-point operations.
      bytes: bytes moved, assuming that each operation reads its inputs from memory and writes its outputs there. This
        is an upper bound, because caches avoid some of these transfers.
    """

    flops: float
    bytes: float

    @property
    def intensity(self) -> float:
        """Arithmetic intensity: floating-point operations per byte moved."""
        return self.flops / self.bytes

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(self.flops + other.flops, self.bytes + other.bytes)


@dataclass(frozen=True)
class Limits:
    """The peak performance of a machine.

    Attributes:
      flops: float32 operations per second in matrix products.
      bandwidth: bytes per second to and from memory.
    """

    flops: float
    bandwidth: float

    def roof(self, intensity: float) -> float:
        """Highest possible operations per second of a program with this arithmetic intensity (operations per byte)."""
        return min(self.flops, intensity * self.bandwidth)


def measure_limits(sizes: Sequence[int] = (512, 1024, 2048), floats: int = 2**26, repeats: int = 5) -> Limits:
    """Measures the limits of this machine; each is the best of several tries.

    Args:
      sizes: numbers of rows and columns of the square matrices to multiply.
      floats: length of the arrays to add; they should not fit into the caches.
      repeats: number of tries for each.
    """
    return Limits(
        flops=max(2 * size**3 / _fastest(_matrix_product(size), repeats) for size in sizes),
        bandwidth=3 * floats * _FLOAT_BYTES / _fastest(_array_sum(floats), repeats),
    )


def _matrix_product(size: int) -> Callable[[], object]:
    a, b = tf.random.uniform([size, size]), tf.random.uniform([size, size])
    return lambda: tf.matmul(a, b).numpy()


def _array_sum(floats: int) -> Callable[[], object]:
    """The add kernel of the STREAM benchmark with one thread per core; NumPy releases the interpreter's lock."""
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
    """Cost of a step of the project's training loop: the loss, its gradient and Adam's update of all weights.

    Args:
      model: a model of the project that was called before, since Keras creates the weights in the first call.
      rows: transformed features, [rows, ...] by name.
      batch_size: number of rows in a step.
    """

    @tf.function(autograph=False)
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
    """Number of trainable weights of a model; their layers create them in the model's first call."""
    return sum(math.prod(variable.shape) for variable in model.trainable_variables)


def graph_cost(graph: tf.Graph) -> Cost:
    """Cost of all operations of a graph; the shapes of its tensors must be known.

    An operation other than a copy or a matrix product counts as one floating-point operation for each value of its
    outputs or of its largest input, whichever are more.
    """
    cost = Cost(0, 0)
    for operation in graph.get_operations():
        cost += _operation_cost(operation)
    return cost


def _operation_cost(operation: tf.Operation) -> Cost:
    if operation.type in _FREE_OPERATIONS:
        return Cost(0, 0)
    written = sum(map(_value_count, operation.outputs))
    moved = sum(_bytes(tensor) for tensor in operation.outputs)
    if operation.type in _COPY_OPERATIONS:
        return Cost(0, 2 * moved)
    moved += sum(_bytes(tensor) for tensor in operation.inputs)
    if operation.type in _MATRIX_PRODUCTS:
        return Cost(2 * written * _summed_products(operation), moved)
    read = max((_value_count(tensor) for tensor in operation.inputs), default=0)
    return Cost(max(written, read), moved)


def _summed_products(operation: tf.Operation) -> float:
    """Number of products that are summed for one value of a matrix product's result."""
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


def _value_count(tensor: tf.Tensor) -> int:
    return tensor.shape.num_elements() or 0


def _bytes(tensor: tf.Tensor) -> int:
    return _value_count(tensor) * tensor.dtype.size
