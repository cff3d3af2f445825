"""Data parallelism: each batch is divided among replicas of the model on several devices or machines.

The loss of a step is the mean over the whole batch for any number of replicas: each replica multiplies the mean loss of
its rows, penalties included, by its share of the batch's rows, and the gradients are summed. Penalties are either means
over rows or functions of the weights alone, so they too count once in total, not once per replica.
See https://www.tensorflow.org/guide/distributed_training.
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
    """Returns the strategy for a distribution; for `none`, TensorFlow's default strategy, which does not distribute.

    Args:
      distribution: the configured value. For `multi_worker`, the environment variable `TF_CONFIG` names the workers and
        tells which of them this process is. Each worker runs the same Trainer with the same inputs, in a process that
        has not used TensorFlow before.

    Raises:
      ValueError: `multi_worker` needs `TF_CONFIG`, which is missing or does not describe a cluster and a task.
      RuntimeError: this process has used TensorFlow already, so it cannot join the other workers.
    """
    return tf.distribute.get_strategy() if distribution == "none" else _strategy(distribution)


# All models of a process share one strategy, since a process can join the other workers only once.
@functools.cache
def _strategy(distribution: Distribution) -> tf.distribute.Strategy:
    if distribution == "mirrored":
        return tf.distribute.MirroredStrategy()
    text = os.environ.get(_TF_CONFIG, "")
    if not _has_cluster_and_task(text):
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


def _has_cluster_and_task(text: str) -> bool:
    try:
        config = json.loads(text)
    except json.JSONDecodeError:
        return False
    return isinstance(config, dict) and bool(config.get("cluster")) and {"type", "index"} <= set(config.get("task", {}))


def worker_index(strategy: tf.distribute.Strategy) -> int:
    """The number of this process among the workers; 0 is the chief, whose outputs are kept."""
    resolver = strategy.cluster_resolver
    if resolver is None or resolver.task_type == "chief":
        return 0
    return resolver.task_id + ("chief" in resolver.cluster_spec().jobs)


@contextmanager
def outputs(strategy: tf.distribute.Strategy, *folders: str) -> Iterator[tuple[str, ...]]:
    """Yields the folders that this worker writes to: for the chief the given ones, for others temporary ones."""
    if worker_index(strategy) == 0:
        yield folders
    else:
        with tempfile.TemporaryDirectory() as temporary:
            yield tuple(os.path.join(temporary, str(number)) for number in range(len(folders)))


def batches(strategy: tf.distribute.Strategy, arrays: Arrays, batch_size: int, shuffle_seed: int) -> tf.data.Dataset:
    """Returns a distributed dataset of batches, of which each replica gets its rows and their share of the batch.

    Every worker has all rows and draws the same batches, so the batches are the same as on a single device.
    """

    def worker_batches(context: tf.distribute.InputContext) -> tf.data.Dataset:
        count = context.num_replicas_in_sync // context.num_input_pipelines
        first = context.input_pipeline_id * count
        replicas = range(first, first + count)
        return replica_batches(arrays, batch_size, shuffle_seed, replicas, context.num_replicas_in_sync)

    return strategy.distribute_datasets_from_function(worker_batches)


def mean_over_workers(strategy: tf.distribute.Strategy, value: float) -> float:
    """Averages the workers' values, so that all workers make the same decisions; waits for all of them."""
    if strategy.num_replicas_in_sync == 1:
        return value
    values = strategy.run(lambda: tf.constant(value, tf.float64))
    return float(strategy.reduce(tf.distribute.ReduceOp.MEAN, values, axis=None))


def use_own_random_stream(strategy: tf.distribute.Strategy, seed: int) -> None:
    """Gives each worker its own random numbers from now on, so that dropout differs between workers."""
    if index := worker_index(strategy):
        tf.random.set_seed(seed + index)
