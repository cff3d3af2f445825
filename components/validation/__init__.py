"""Checks of the data before anything is trained: the curated schema, drift between splits, and the gate."""
