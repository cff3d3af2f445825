"""The four models: each a module with a model, a run_fn and a tuner_fn; towers, datasets and signatures are shared."""

from transform.legacy_keras import ensure_legacy_keras

ensure_legacy_keras()
