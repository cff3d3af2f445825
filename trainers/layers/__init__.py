"""Keras layers and losses that the four models consist of."""
