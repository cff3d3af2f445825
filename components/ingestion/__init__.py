"""From raw files to tf.Examples: splits, histories, spans, quarantine and MovieLensExampleGen itself."""
