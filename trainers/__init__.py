"""The four models: each a module with a model and a run_fn; towers, datasets and signatures are shared."""

from transform.legacy_keras import ensure_legacy_keras

ensure_legacy_keras()
