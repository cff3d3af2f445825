"""The training loop of all models: it fits, evaluates after each epoch, keeps the best epoch's weights and exports."""

import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

import tensorflow as tf
from tfx.components.trainer.fn_args_utils import FnArgs

from trainers.datasets import Arrays, Splits, elements_of, read_splits
from trainers.export.signatures import HeadType, export
from trainers.hyperparameters import Hyperparameters
from trainers.layers.towers import Tensors
from trainers.loop import distribution
from trainers.loop.search_spaces import from_choices
from trainers.loop.warm_start import start_from

_logger = logging.getLogger("trainers")

HYPERPARAMETERS = "hyperparameters"

HyperparametersType = TypeVar("HyperparametersType", bound=Hyperparameters)


class Objective(Protocol):
    """A metric on the eval split, by which the best epoch is chosen.

    Attributes:
      name: the metric's name in logs.
      sign: 1 if larger values are better, -1 if smaller values are.
    """

    name: str
    sign: int

    def __init__(self, splits: Splits) -> None: ...

    def __call__(self, model: tf.keras.Model) -> float:
        """Computes the metric of the model with its current weights."""


@dataclass(frozen=True)
class ModelSpec(Generic[HyperparametersType]):
    """Describes a model to the training loop and to the tuner.

    Attributes:
      name: the model's name in logs and in the configuration.
      hyperparameters: the type of the model's section in the configuration.
      build: makes the model from the splits and the hyper-parameters.
      objective: the metric on the eval split, by which epochs and hyper-parameters are chosen.
      heads: the types of the heads to export.
      rows: filters the rows of the splits that were read; by default it keeps all rows.
    """

    name: str
    hyperparameters: type[HyperparametersType]
    build: Callable[[Splits, HyperparametersType], tf.keras.Model]
    objective: type[Objective]
    heads: tuple[HeadType, ...]
    rows: Callable[[Splits], Splits] = lambda splits: splits


def fit(
    model: tf.keras.Model,
    train: Arrays,
    objective: Objective,
    hparams: Hyperparameters,
    log_dir: str,
    name: str,
) -> float:
    """Trains a model and restores the weights of its best epoch.

    Training ends after `epochs` epochs, or earlier after `patience` epochs in a row without a better objective. Call it
    in the scope of the distribution strategy in whose scope the model was built.

    Args:
      model: a TFRS model, not compiled.
      train: transformed features of the train split, which the model's `compute_loss` reads.
      objective: the metric on the eval split.
      hparams: epochs, patience, batch size, learning rate and seed.
      log_dir: folder for TensorBoard's scalars.
      name: the model's name in logs.

    Returns:
      The best value of the objective.

    Raises:
      FloatingPointError: the loss of an epoch is NaN or infinite.
    """
    strategy = tf.distribute.get_strategy()
    elements, batch_size = elements_of(model, train), hparams.batch_size
    if elements is not train:
        # As many ratings in a step as are configured, on average.
        batch_size = max(1, round(batch_size * _row_count(elements) / _row_count(train)))
    dataset = distribution.batches(strategy, elements, batch_size, hparams.seed)
    steps = math.ceil(_row_count(elements) / batch_size) * hparams.epochs
    # The legacy optimizer updates a variable by one operation, the current one by some thirty, with the same result.
    optimizer = tf.keras.optimizers.legacy.Adam(tf.keras.optimizers.schedules.CosineDecay(hparams.learning_rate, steps))

    def train_step(batch: Tensors, share: tf.Tensor) -> tf.Tensor:
        with tf.GradientTape() as tape:
            loss = model.compute_loss(batch, training=True)
            penalized = share * (loss + tf.add_n(model.losses) if model.losses else loss)
        variables = model.trainable_variables
        optimizer.apply_gradients(zip(tape.gradient(penalized, variables), variables, strict=True))
        return share * loss

    # This tf.function runs one step, not a whole epoch, for two reasons. In a loop inside the function, TensorFlow
    # takes longer for the same step of a large model. And the tensors that replicas exchange should have one shape
    # within a call, but the last batch of an epoch is smaller.
    @tf.function(autograph=False, input_signature=dataset.element_spec)
    def train_replicas(batch: Tensors, share: tf.Tensor) -> tf.Tensor:
        losses = strategy.run(train_step, args=(batch, share))
        return strategy.reduce(tf.distribute.ReduceOp.SUM, losses, axis=None)

    def train_epoch() -> tf.Tensor:
        losses = [train_replicas(batch, share) for batch, share in dataset]
        return tf.add_n(losses) / len(losses)

    # This first call creates the weights, which `get_weights` below needs.
    strategy.run(lambda batch, _: model.compute_loss(batch, training=False), args=next(iter(dataset)))
    distribution.use_own_random_stream(strategy, hparams.seed)
    best, best_weights, waited = -math.inf, model.get_weights(), 0
    with tf.summary.create_file_writer(log_dir).as_default():
        for epoch in range(1, hparams.epochs + 1):
            started = time.monotonic()
            loss = float(train_epoch())
            if not math.isfinite(loss):
                raise FloatingPointError(
                    f"{name}: the loss of epoch {epoch} is {loss}; a lower learning_rate than "
                    f"{hparams.learning_rate} may help."
                )
            value = distribution.mean_over_workers(strategy, objective(model))
            tf.summary.scalar("loss", loss, step=epoch)
            tf.summary.scalar(f"eval_{objective.name}", value, step=epoch)
            _logger.info(
                "%s epoch %d/%d: loss %.4f, eval %s %.4f, %.0f s",
                *(name, epoch, hparams.epochs, loss, objective.name, value, time.monotonic() - started),
            )
            if objective.sign * value > best:
                best, best_weights, waited = objective.sign * value, model.get_weights(), 0
            else:
                waited += 1
                if waited >= hparams.patience:
                    break
    model.set_weights(best_weights)
    return objective.sign * best


def run(fn_args: FnArgs, spec: ModelSpec) -> None:
    """Implements every `run_fn`: reads the splits, builds, trains and exports the model.

    Args:
      fn_args: arguments from the Trainer component. `custom_config["hyperparameters"]` holds the model's section of the
        configuration. If a Tuner ran, `hyperparameters` holds its results, which override the section's values.
      spec: describes the model.
    """
    section = fn_args.custom_config[HYPERPARAMETERS]
    tuned = from_choices(fn_args.hyperparameters["values"]) if fn_args.hyperparameters else {}
    hparams = spec.hyperparameters.model_validate(section | tuned)
    strategy = distribution.strategy_of(hparams.distribution)
    tf.keras.utils.set_random_seed(hparams.seed)
    splits = spec.rows(read_splits(fn_args))
    _logger.info(
        "%s: %d train rows, %d eval rows", spec.name, *(_row_count(split) for split in (splits.train, splits.eval))
    )
    with distribution.outputs(strategy, fn_args.model_run_dir, fn_args.serving_model_dir) as (log_dir, model_dir):
        with strategy.scope():
            model = spec.build(splits, hparams)
            if hparams.warm_start:
                start_from(fn_args.base_model, model, splits, spec.name)
            fit(model, splits.train, spec.objective(splits), hparams, log_dir, spec.name)
        export(model, splits, model_dir, spec.heads)
    # The next model may be trained in the same process, where the graphs of this one would otherwise stay in memory.
    tf.keras.backend.clear_session()


def _row_count(arrays: Arrays) -> int:
    return len(next(iter(arrays.values())))
