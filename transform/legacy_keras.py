"""TensorFlow Recommenders needs Keras 2 (tf-keras); TensorFlow picks its Keras once, when it is first imported."""

import os
import sys

VARIABLE = "TF_USE_LEGACY_KERAS"
ON = ("1", "true", "True")


def ensure_legacy_keras() -> None:
    """Makes `tf.keras` mean tf-keras in this process and in every process that it starts.

    Raises:
      RuntimeError: TensorFlow has already been imported, with Keras 3.
    """
    if os.environ.get(VARIABLE) in ON:
        return
    if "tensorflow" in sys.modules:
        raise RuntimeError(
            f"{VARIABLE} should be 1 before TensorFlow is first imported; received {os.environ.get(VARIABLE)!r}. "
            f"Import this project's packages before tensorflow, or set {VARIABLE}=1 in the environment."
        )
    os.environ[VARIABLE] = "1"
