"""Measures the project's models beside simple ones and beside the notebooks it grew out of."""

from transform.legacy_keras import ensure_legacy_keras

ensure_legacy_keras()
