"""Serving: a local model server that speaks TensorFlow Serving's protocol, and its client."""
