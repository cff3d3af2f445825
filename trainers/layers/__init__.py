"""Keras layers and losses that the four models are made of."""
