"""Imports TensorFlow in commands whose console output is for the user, without its start-up messages."""

import os
import shutil
import sys
import tempfile


def import_tensorflow_quietly() -> None:
    """Imports TensorFlow without showing its messages about processors and missing GPU drivers on standard error.

    TensorFlow writes some of them before it reads any of its settings, so standard error itself goes to a temporary
    file during the import; if the import fails, what was written there is shown.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    if "tensorflow" in sys.modules:
        return
    sys.stderr.flush()
    original_stderr = os.dup(2)
    with tempfile.TemporaryFile() as captured:
        os.dup2(captured.fileno(), 2)
        try:
            import tensorflow as tf

            # The search for GPUs writes messages too; without this call it would happen later, after the capture.
            tf.config.list_physical_devices()
        except BaseException:
            captured.seek(0)
            with os.fdopen(os.dup(original_stderr), "wb") as stderr:
                shutil.copyfileobj(captured, stderr)
            raise
        finally:
            os.dup2(original_stderr, 2)
            os.close(original_stderr)
