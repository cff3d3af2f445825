"""Training and tuning: the training loop, its distribution, the eval metrics, warm starts and search spaces."""
