"""Tuning of all models: keras-tuner chooses hyper-parameters, and the training loop tries them on the eval split.

keras-tuner does not accept models of tf-keras, so it never gets one: each trial builds and trains its own model and
returns the objective's value.
"""

import hashlib
import json
import logging
import os
import time
from collections.abc import Mapping
from typing import Any

import keras_tuner
import tensorflow as tf
from keras_tuner.engine.base_tuner import BaseTuner
from keras_tuner.engine.trial import Trial, TrialStatus
from pydantic import ValidationError
from tfx.components.trainer.fn_args_utils import FnArgs
from tfx.components.tuner.component import TunerFnResult

from trainers.datasets import Splits, read_splits
from trainers.loop.distribution import strategy_of
from trainers.loop.search_spaces import from_choices, to_choice
from trainers.loop.training import HYPERPARAMETERS, ModelSpec, fit

_logger = logging.getLogger("trainers")

# Keys of the Tuner component's `custom_config`.
SPACE, TRIALS, SEED, FOLDER = "space", "max_trials", "tuning_seed", "trials_folder"
# Name of the metric with a trial's duration.
SECONDS = "seconds"


class Oracle(keras_tuner.oracles.RandomSearchOracle):
    """Random search whose first trial uses the configured values, so that the best trial is no worse than these.

    Random trials do not depend on each other's results. With as few trials as are affordable here, random search finds
    as good values as a grid many times as large (Bergstra & Bengio 2012,
    https://jmlr.org/papers/v13/bergstra12a.html).
    """

    def __init__(self, start: Mapping[str, str], **arguments: Any):
        """Makes an oracle.

        Args:
          start: hyper-parameters of the first trial, encoded by `to_choice`.
          **arguments: arguments of the base class.
        """
        super().__init__(**arguments)
        self._start = dict(start)

    def populate_space(self, trial_id: str) -> dict[str, Any]:
        """Chooses the hyper-parameters of the next trial."""
        if not self.trials:
            return {"status": TrialStatus.RUNNING, "values": dict(self._start)}
        return super().populate_space(trial_id)

    def get_best_trials(self, num_trials: int = 1) -> list[Trial]:
        """The best of the first `max_trials` trials, without failed ones.

        The records may hold more trials than that, from an earlier search with a larger `max_trials`.
        """
        wanted = set(self.start_order[: self.max_trials])
        ranked = super().get_best_trials(len(self.trials))
        completed = [trial for trial in ranked if trial.status == TrialStatus.COMPLETED and trial.trial_id in wanted]
        return completed[:num_trials]


class Tuner(BaseTuner):
    """Runs trials with the same training loop as the Trainer."""

    def __init__(self, spec: ModelSpec, section: Mapping[str, Any], **arguments: Any):
        """Makes a tuner.

        Args:
          spec: describes the model.
          section: the model's section of the configuration; a trial overrides the hyper-parameters that it tries.
          **arguments: arguments of the base class.
        """
        self._spec, self._section = spec, dict(section)
        super().__init__(**arguments)

    def run_trial(self, trial: Trial, splits: Splits) -> dict[str, float]:
        """Trains a model with the trial's hyper-parameters.

        Args:
          trial: the trial, with the hyper-parameters to try.
          splits: the splits to train and evaluate on.

        Returns:
          The objective's best value on the eval split, and the trial's duration in seconds, by metric name.

        Raises:
          keras_tuner.errors.FailedTrialError: the hyper-parameters are invalid or the loss is NaN or infinite; the
            search continues.
          keras_tuner.errors.FatalError: any other error, which other hyper-parameters would not avoid; the search ends.
        """
        label = f"{self._spec.name} trial {int(trial.trial_id) + 1}/{self.oracle.max_trials}"
        tried = from_choices(trial.hyperparameters.values)
        _logger.info("%s: %s", label, ", ".join(f"{name} {value}" for name, value in tried.items()))
        started = time.monotonic()
        try:
            hparams = self._spec.hyperparameters.model_validate(self._section | tried)
            tf.keras.utils.set_random_seed(hparams.seed)
            log_dir = os.path.join(self.get_trial_dir(trial.trial_id), "logs")
            with strategy_of(hparams.distribution).scope():
                model = self._spec.build(splits, hparams)
                # An objective of its own, since it keeps what it traced of the model.
                value = fit(model, splits.train, self._spec.objective(splits), hparams, log_dir, label)
        except (FloatingPointError, ValidationError) as error:
            _logger.info("%s failed: %s", label, str(error).removeprefix(f"{label}: "))
            raise keras_tuner.errors.FailedTrialError(str(error)) from error
        except Exception as error:
            # keras-tuner would record any other exception as a failed trial and continue the search.
            raise keras_tuner.errors.FatalError(f"{label} failed") from error
        finally:
            # The next trial runs in the same process, where the graphs of this one would otherwise stay in memory.
            tf.keras.backend.clear_session()
        seconds = time.monotonic() - started
        _logger.info("%s: eval %s %.4f, %.0f s", label, self._spec.objective.name, value, seconds)
        return {self._spec.objective.name: value, SECONDS: seconds}

    def on_search_end(self) -> None:
        """Checks that at least one trial completed.

        Raises:
          FloatingPointError: every trial failed.
        """
        if not self.oracle.get_best_trials():
            name = self._spec.name
            raise FloatingPointError(f"{name}: every trial failed; other values in tuning.space.{name} may work.")


def tuner(fn_args: FnArgs, spec: ModelSpec) -> TunerFnResult:
    """Implements every `tuner_fn`: reads the splits and makes the tuner with its search space and objective.

    A search that was interrupted, or that is repeated with more trials, continues after the trials that finished.

    Args:
      fn_args: arguments from the Tuner component. `custom_config` holds the model's section of the configuration as
        "hyperparameters", and "space", "max_trials", "tuning_seed" and "trials_folder", the folder for the records of
        searches.
      spec: describes the model.

    Returns:
      The tuner, and the arguments of its `run_trial` beside the trial.

    Raises:
      ValueError: the model's distribution is `multi_worker`.
    """
    settings = fn_args.custom_config
    section, space = settings[HYPERPARAMETERS], settings[SPACE]
    if section["distribution"] == "multi_worker":
        # Every worker would run its own search, and all would write their records to the same folder.
        raise ValueError(
            f"models.{spec.name}.distribution should be none or mirrored for tuning; received multi_worker."
        )
    splits = spec.rows(read_splits(fn_args))
    # Raises early what every trial would.
    objective = spec.objective(splits)

    def make_tuner(overwrite: bool) -> Tuner:
        choices = keras_tuner.HyperParameters()
        for name, values in space.items():
            choices.Choice(name, [to_choice(value) for value in values])
        oracle = Oracle(
            start={name: to_choice(section[name]) for name in space},
            objective=keras_tuner.Objective(objective.name, "max" if objective.sign > 0 else "min"),
            max_trials=settings[TRIALS],
            # keras-tuner takes 0 for no seed.
            seed=settings[SEED] + 1,
            hyperparameters=choices,
            # The limit is too high to be reached. Trials fail only because of their values, so a later trial may
            # succeed after any number of failures.
            max_consecutive_failed_trials=settings[TRIALS] + 1,
        )
        directory, project = os.path.split(search_folder(settings, fn_args.transform_graph_path))
        return Tuner(spec, section, oracle=oracle, directory=directory, project_name=project, overwrite=overwrite)

    try:
        made_tuner = make_tuner(overwrite=False)
    except (ValueError, RuntimeError):
        # Records are not written atomically, so the earlier search may have been killed while it wrote one.
        _logger.warning("%s: the records of an earlier search cannot be read; the search starts anew.", spec.name)
        made_tuner = make_tuner(overwrite=True)
    if made_tuner.oracle.end_order:
        _logger.info("%s: trials that an earlier search finished: %d", spec.name, len(made_tuner.oracle.end_order))
    return TunerFnResult(made_tuner, {"splits": splits})


def search_folder(settings: Mapping[str, Any], transform_graph: str) -> str:
    """Returns the folder for the records of a search.

    Searches that differ only in the number of trials share a folder, so that one can continue another.

    Args:
      settings: the Tuner component's `custom_config`.
      transform_graph: URI of the Transform graph, which identifies the data.
    """
    key = {name: value for name, value in settings.items() if name not in (TRIALS, FOLDER)}
    text = json.dumps([key, transform_graph], sort_keys=True)
    return os.path.join(settings[FOLDER], hashlib.sha256(text.encode()).hexdigest()[:16])
