"""Training and tuning: the loop, its distribution, its eval metrics, warm starts and search spaces."""
