"""The four models. Each module holds a model, a run_fn and a tuner_fn; all share towers, datasets and signatures."""

from transform.legacy_keras import ensure_legacy_keras

ensure_legacy_keras()
