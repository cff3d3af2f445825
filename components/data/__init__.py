"""MovieLens files on disk: reading, checking, generating and fetching them. No TensorFlow."""
