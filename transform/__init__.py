"""From raw MovieLens rows to model features: names, types, schema and the TensorFlow Transform graph."""
