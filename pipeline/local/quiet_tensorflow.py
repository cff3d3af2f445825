"""TensorFlow's first import in a command that a person looks at."""

import os
import shutil
import sys
import tempfile


def import_tensorflow_quietly() -> None:
    """Imports TensorFlow without its notes on processors and missing GPU drivers on standard error.

    Some of them are written before TensorFlow reads any of its settings, so standard error itself is put aside; what
    was written there is shown when the import fails.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    if "tensorflow" in sys.modules:
        return
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as aside:
        os.dup2(aside.fileno(), 2)
        try:
            import tensorflow as tf

            # Looking for a GPU is noted too, and would otherwise happen later.
            tf.config.list_physical_devices()
        except BaseException:
            aside.seek(0)
            with os.fdopen(os.dup(kept), "wb") as stderr:
                shutil.copyfileobj(aside, stderr)
            raise
        finally:
            os.dup2(kept, 2)
            os.close(kept)
