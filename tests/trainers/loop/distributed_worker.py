"""Trains models on planted splits, as one worker process of the tests of distribution.

Its arguments are MODELS (separated by commas), DISTRIBUTION, FOLDER and DEVICES (the number of logical devices that
the CPU is divided into). The Trainer's outputs go into FOLDER/MODEL; worker INDEX also writes its final weights there,
into weights-INDEX.npz.
"""

import functools
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import cast
from unittest import mock

from transform.legacy_keras import ensure_legacy_keras

ensure_legacy_keras()

import numpy as np  # noqa: E402
import tensorflow as tf  # noqa: E402
from tfx.components.trainer.fn_args_utils import FnArgs  # noqa: E402

from tests.trainers.planted_splits import planted_splits, with_history  # noqa: E402
from tests.trainers.specs import no_dropout, spec_of  # noqa: E402
from trainers.export import signatures  # noqa: E402
from trainers.hyperparameters import JointRatingHyperparameters  # noqa: E402
from trainers.layers.weights import named_weights  # noqa: E402
from trainers.loop import training  # noqa: E402
from trainers.loop.distribution import strategy_of, worker_index  # noqa: E402
from trainers.registry import MODELS  # noqa: E402

# The model that is exported, too: an export knows nothing of how its model was trained, so one stands for all.
EXPORTED = "like"

# In batches of 100, the last one of `like` has an odd number of rows, which two replicas cannot divide evenly.
_COMMON: dict[str, object] = {
    "batch_size": 100,
    "epochs": 2,
    "learning_rate": 0.01,
    "embedding_dim": 4,
    "l2": 1e-3,
}
_NETWORK: dict[str, object] = {"hidden_units": [8], "max_norm": 0.5, "table_l2": 5.0, "cross_l2": 1e-3}
_RATING = _NETWORK | no_dropout(JointRatingHyperparameters) | {"factor_dim": 4, "embedding_dim": 4, "l2": 1e-3}
SETTINGS = {
    "like": _COMMON | _NETWORK | {"objective": "like", "second_structure": "parallel", "factor_dim": 4},
    "joint": _COMMON | {"rating": _RATING},
    # Windows, of which parts of a batch may have different numbers of rows.
    "sequence": _COMMON | {"query": "sequence", "blocks": 2, "learning_rate": 2e-3},
}


def train(name: str, distribution: str, folder: Path) -> None:
    """Runs a Trainer's function on planted splits and saves the final weights."""
    registered = {"like": "dcn", "sequence": "retrieval"}.get(name, name)
    # Dropout is off, because replicas draw other random numbers than a single device.
    section = no_dropout(MODELS[registered].hyperparameters) | SETTINGS[name] | {"distribution": distribution}
    spec = spec_of(registered, section)
    splits = with_history(planted_splits(users=40, movies=30, ratings=601, seed=0))
    fn_args = SimpleNamespace(
        custom_config={training.HYPERPARAMETERS: spec.hyperparameters(**section).model_dump(mode="json")},
        hyperparameters=None,
        model_run_dir=str(folder / "logs"),
        serving_model_dir=str(folder / "model"),
    )
    export = mock.patch.object(training, "export", wraps=signatures.export if name == EXPORTED else None)
    with mock.patch.object(training, "read_splits", return_value=splits), export as exported:
        training.run(cast(FnArgs, fn_args), spec)
    (model, *_), _ = exported.call_args
    index = worker_index(strategy_of(spec.hyperparameters(**section).distribution))
    weights = {path: weight.numpy() for path, weight in named_weights(model).items()}
    np.savez(folder / f"weights-{index}.npz", **weights)


if __name__ == "__main__":
    names, distribution, folder, devices = sys.argv[1:]
    if int(devices) > 1:
        cpu = tf.config.list_physical_devices("CPU")[0]
        tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * int(devices))
        # By default MirroredStrategy uses all GPUs, but only one CPU device.
        cpu_devices = [f"CPU:{number}" for number in range(int(devices))]
        tf.distribute.MirroredStrategy = functools.partial(tf.distribute.MirroredStrategy, cpu_devices)
    for name in names.split(","):
        (Path(folder) / name).mkdir(exist_ok=True)
        train(name, distribution, Path(folder) / name)
