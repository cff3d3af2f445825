"""Runs the `movielens` command with the stand-in pipeline as its graph, and without asking for titles at the end."""

import importlib
import sys

import pipeline
from pipeline import cli
from pipeline.commands import run


class _StandIn:
    """Replaces the module `pipeline.graph`; imports TFX only when the pipeline is created, as late as usual."""

    @staticmethod
    def create_pipeline(**arguments):
        return importlib.import_module("tests.pipeline.local.standin").create_pipeline(**arguments)


sys.modules["pipeline.graph"] = pipeline.graph = _StandIn  # type: ignore[assignment, attr-defined]
run._show_recommendations = lambda *_: None
cli.main()
