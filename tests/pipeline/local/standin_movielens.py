"""The `movielens` command with the stand-in pipeline for the graph, and without the answer at its end."""

import importlib
import sys

import pipeline
from pipeline import cli
from pipeline.commands import run


class _StandIn:
    """Takes the place of `pipeline.graph`; imports TFX as late as that is imported."""

    @staticmethod
    def create_pipeline(**arguments):
        return importlib.import_module("tests.pipeline.local.standin").create_pipeline(**arguments)


sys.modules["pipeline.graph"] = pipeline.graph = _StandIn  # type: ignore[assignment, attr-defined]
run._answer = lambda *_: None
cli.main()
