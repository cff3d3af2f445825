"""Exports trained models: their signatures, their heads and the metrics that the heads compute."""
