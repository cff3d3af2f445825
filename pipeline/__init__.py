"""The pipeline: typed configuration, the graph, its runners and the command line."""

from transform.legacy_keras import ensure_legacy_keras

ensure_legacy_keras()
