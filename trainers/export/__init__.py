"""Exports trained models: their signatures, their heads (one per task) and the metrics that the heads compute."""
