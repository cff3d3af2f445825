"""A model server for one machine that speaks TensorFlow Serving's protocol over gRPC and REST."""
