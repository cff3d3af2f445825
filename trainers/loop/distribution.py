"""Data parallelism: replicas of a model on several devices, or machines, among which each batch is dealt out.

The loss of a step is the mean over its batch, whichever the number of replicas: a replica weighs the mean over its own
rows, penalties included, by their share of the batch, and gradients are summed. Penalties are either means over rows or
functions of the weights alone, so that they count once, too. See https://www.tensorflow.org/guide/distributed_training.
"""

import functools
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

import tensorflow as tf

from trainers.datasets import Arrays, replica_batches
from trainers.hyperparameters import Distribution

_TF_CONFIG = "TF_CONFIG"


def strategy_of(distribution: Distribution) -> tf.distribute.Strategy:
    """How a model is distributed; for `none`, TensorFlow's default strategy, which adds nothing.

    Args:
      distribution: for `multi_worker`, `TF_CONFIG` names the workers and which of them this process is. Each runs the
        same Trainer with the same inputs, in a process that has not used TensorFlow before.

    Raises:
      ValueError: `TF_CONFIG` is needed, and missing or something else.
      RuntimeError: it is too late for workers to be joined.
    """
    return tf.distribute.get_strategy() if distribution == "none" else _strategy(distribution)


# One for all models of a process: workers can be joined once.
@functools.cache
def _strategy(distribution: Distribution) -> tf.distribute.Strategy:
    if distribution == "mirrored":
        return tf.distribute.MirroredStrategy()
    text = os.environ.get(_TF_CONFIG, "")
    if not _names_a_task(text):
        raise ValueError(
            f"{_TF_CONFIG} should hold the cluster and this worker's task, as JSON, for distribution: multi_worker; "
            f"received {text!r}."
        )
    try:
        return tf.distribute.MultiWorkerMirroredStrategy()
    except RuntimeError as error:
        raise RuntimeError(
            "A Trainer with distribution: multi_worker should have a process, such as a container's, for itself; "
            f"received one that cannot be joined with others: {error}"
        ) from error


def _names_a_task(text: str) -> bool:
    try:
        config = json.loads(text)
    except json.JSONDecodeError:
        return False
    return isinstance(config, dict) and bool(config.get("cluster")) and {"type", "index"} <= set(config.get("task", {}))


def worker_index(strategy: tf.distribute.Strategy) -> int:
    """Which of the workers this process is; 0 is the chief, whose outputs count."""
    resolver = strategy.cluster_resolver
    if resolver is None or resolver.task_type == "chief":
        return 0
    return resolver.task_id + ("chief" in resolver.cluster_spec().jobs)


@contextmanager
def outputs(strategy: tf.distribute.Strategy, *folders: str) -> Iterator[tuple[str, ...]]:
    """Where this worker writes: the chief into the folders, any other into temporary ones, which are then dropped."""
    if worker_index(strategy) == 0:
        yield folders
    else:
        with tempfile.TemporaryDirectory() as temporary:
            yield tuple(os.path.join(temporary, str(number)) for number in range(len(folders)))


def batches(strategy: tf.distribute.Strategy, arrays: Arrays, batch_size: int, shuffle_seed: int) -> tf.data.Dataset:
    """Batches, each dealt out among the replicas: pairs of a replica's rows, and their share of the batch.

    Every worker has all rows and draws the same batches, which are thus those of a single device.
    """

    def of_worker(context: tf.distribute.InputContext) -> tf.data.Dataset:
        count = context.num_replicas_in_sync // context.num_input_pipelines
        first = context.input_pipeline_id * count
        replicas = range(first, first + count)
        return replica_batches(arrays, batch_size, shuffle_seed, replicas, context.num_replicas_in_sync)

    return strategy.distribute_datasets_from_function(of_worker)


def mean_over_workers(strategy: tf.distribute.Strategy, value: float) -> float:
    """The mean of the workers' values, so that they all decide alike; waits for all of them."""
    if strategy.num_replicas_in_sync == 1:
        return value
    values = strategy.run(lambda: tf.constant(value, tf.float64))
    return float(strategy.reduce(tf.distribute.ReduceOp.MEAN, values, axis=None))


def use_own_random_stream(strategy: tf.distribute.Strategy, seed: int) -> None:
    """From here on, gives each worker its own random numbers, so that they do not drop the same units."""
    if index := worker_index(strategy):
        tf.random.set_seed(seed + index)
