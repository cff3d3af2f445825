"""The project's own TFX components and the pure logic that they wrap."""

from transform.legacy_keras import ensure_legacy_keras

ensure_legacy_keras()
