"""The four models, each in a module with its run_fn and tuner_fn, and what they share: layers, loop and export."""

from transform.legacy_keras import ensure_legacy_keras

ensure_legacy_keras()
