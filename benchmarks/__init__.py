"""Compares the project with simple methods and with the notebooks that it grew out of: quality, speed and cost."""

from transform.legacy_keras import ensure_legacy_keras

ensure_legacy_keras()
