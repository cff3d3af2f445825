"""Tuning that all models share: keras-tuner chooses hyper-parameters, the training loop tries them on the eval split.

keras-tuner takes no model of tf-keras, and gets none: a trial trains by itself and returns the objective's value.
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
from trainers.loop.training import HYPERPARAMETERS, ModelSpec, Objective, fit

_logger = logging.getLogger("trainers")

SPACE, TRIALS, SEED, FOLDER = "space", "max_trials", "tuning_seed", "trials_folder"
SECONDS = "seconds"


class Oracle(keras_tuner.oracles.RandomSearchOracle):
    """Random search that starts from the settings as they are, so that what it finds is no worse.

    Random trials do not depend on one another's results; with as few as are affordable here they find as much as a
    grid many times as large (Bergstra & Bengio 2012, https://jmlr.org/papers/v13/bergstra12a.html).
    """

    def __init__(self, start: Mapping[str, str], **arguments: Any):
        """Makes an oracle.

        Args:
          start: choices of the first trial.
          arguments: the base class's.
        """
        super().__init__(**arguments)
        self._start = dict(start)

    def populate_space(self, trial_id: str) -> dict[str, Any]:
        """Choices for the next trial."""
        if not self.trials:
            return {"status": TrialStatus.RUNNING, "values": dict(self._start)}
        return super().populate_space(trial_id)

    def get_best_trials(self, num_trials: int = 1) -> list[Trial]:
        """The best of the trials that were asked for, failed ones apart; a search may once have gone on for longer."""
        asked = set(self.start_order[: self.max_trials])
        ranked = super().get_best_trials(len(self.trials))
        finished = [trial for trial in ranked if trial.status == TrialStatus.COMPLETED and trial.trial_id in asked]
        return finished[:num_trials]


class Tuner(BaseTuner):
    """Runs trials with the training loop of the Trainer."""

    def __init__(self, spec: ModelSpec, section: Mapping[str, Any], **arguments: Any):
        """Makes a tuner.

        Args:
          spec: the model.
          section: its hyper-parameters, in which a trial replaces those that it tries.
          arguments: the base class's.
        """
        self._spec, self._section = spec, dict(section)
        super().__init__(**arguments)

    def run_trial(self, trial: Trial, splits: Splits, objective: Objective) -> dict[str, float]:
        """Trains a model.

        Returns:
          The objective's best value on the eval split, and the seconds it took.

        Raises:
          keras_tuner.errors.FailedTrialError: nothing can be trained with these hyper-parameters; the search goes on.
          keras_tuner.errors.FatalError: anything else went wrong, which other hyper-parameters would not mend.
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
                value = fit(model, splits.train, objective, hparams, log_dir, label)
        except (FloatingPointError, ValidationError) as error:
            _logger.info("%s failed: %s", label, str(error).removeprefix(f"{label}: "))
            raise keras_tuner.errors.FailedTrialError(str(error)) from error
        except Exception as error:
            # keras-tuner would note any other error and go on.
            raise keras_tuner.errors.FatalError(f"{label} failed") from error
        finally:
            # The next trial runs in the same process; the graphs of this one would stay.
            tf.keras.backend.clear_session()
        seconds = time.monotonic() - started
        _logger.info("%s: eval %s %.4f, %.0f s", label, objective.name, value, seconds)
        return {objective.name: value, SECONDS: seconds}

    def on_search_end(self) -> None:
        """Checks that there is something to choose from.

        Raises:
          FloatingPointError: no trial came to an end.
        """
        if not self.oracle.get_best_trials():
            name = self._spec.name
            raise FloatingPointError(f"{name}: every trial failed; other values in tuning.space.{name} may do.")


def tuner(fn_args: FnArgs, spec: ModelSpec) -> TunerFnResult:
    """What every `tuner_fn` does: read, and make the tuner with its space and its objective.

    A search that was cut off, or is now to have more trials, goes on from the trials that finished.

    Args:
      fn_args: from the Tuner component. `custom_config` holds the model's section as "hyperparameters", and "space",
        "max_trials", "tuning_seed" and "trials_folder", the folder for the records of searches.
      spec: the model.

    Returns:
      The tuner, and what its trials are given.
    """
    settings = fn_args.custom_config
    section, space = settings[HYPERPARAMETERS], settings[SPACE]
    if section["distribution"] == "multi_worker":
        # Every worker would search, with its records in the same folder.
        raise ValueError(
            f"models.{spec.name}.distribution should be none or mirrored for tuning; received multi_worker."
        )
    splits = spec.rows(read_splits(fn_args))
    objective = spec.objective(splits)

    def make(overwrite: bool) -> Tuner:
        choices = keras_tuner.HyperParameters()
        for name, values in space.items():
            choices.Choice(name, [to_choice(value) for value in values])
        oracle = Oracle(
            start={name: to_choice(section[name]) for name in space},
            objective=keras_tuner.Objective(objective.name, "max" if objective.sign > 0 else "min"),
            max_trials=settings[TRIALS],
            # For keras-tuner 0 is no seed.
            seed=settings[SEED] + 1,
            hyperparameters=choices,
            # It counts values that cannot be trained with, only; however many these are, others may do.
            max_consecutive_failed_trials=settings[TRIALS] + 1,
        )
        directory, project = os.path.split(search_folder(settings, fn_args.transform_graph_path))
        return Tuner(spec, section, oracle=oracle, directory=directory, project_name=project, overwrite=overwrite)

    try:
        made = make(overwrite=False)
    except (ValueError, RuntimeError):
        # Records are not written in one go, so that a search may have been killed half-way through one.
        _logger.warning("%s: the records of an earlier search cannot be read; it starts anew.", spec.name)
        made = make(overwrite=True)
    if made.oracle.end_order:
        _logger.info("%s: trials that an earlier search finished: %d", spec.name, len(made.oracle.end_order))
    return TunerFnResult(made, {"splits": splits, "objective": objective})


def search_folder(settings: Mapping[str, Any], transform_graph: str) -> str:
    """Where the records of a search are: one folder for all that differ in the number of their trials alone.

    Args:
      settings: the Tuner's `custom_config`.
      transform_graph: URI of the Transform graph, which stands for the data.
    """
    what = {name: value for name, value in settings.items() if name not in (TRIALS, FOLDER)}
    text = json.dumps([what, transform_graph], sort_keys=True)
    return os.path.join(settings[FOLDER], hashlib.sha256(text.encode()).hexdigest()[:16])
