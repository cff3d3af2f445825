"""Which spans models are trained on: a window of the latest, each as it was ingested last."""

import os

import ml_metadata as mlmd
from tfx import types
from tfx import v1 as tfx
from tfx.dsl.components.base.base_node import BaseNode
from tfx.dsl.components.common.resolver import Resolver, ResolverStrategy
from tfx.types import standard_artifacts

from components.movielens_example_gen import SETTINGS

CURRENT = "current"
EXAMPLES = "examples"


class LatestSpansStrategy(ResolverStrategy):
    """The latest spans up to the current one, newest first.

    TFX's own strategy would take a span twice where it was ingested twice, and would mix rows that were split in
    different ways, which puts ratings of one run's test split into another's train split.

    Inputs: `current`, the examples of this run; `examples`, all examples in the store.
    """

    def __init__(self, spans: int):
        self._spans = spans

    def resolve_artifacts(
        self, store: mlmd.MetadataStore, input_dict: dict[str, list[types.Artifact]]
    ) -> dict[str, list[types.Artifact]]:
        """Gives the spans of the window under `examples`, and the current one as it came."""
        (current,) = input_dict[CURRENT]
        # A component keeps all its examples in one folder: Transform's are in another.
        folder, settings = os.path.dirname(current.uri), current.get_string_custom_property(SETTINGS)
        newest = {
            _span(artifact): artifact
            for artifact in sorted(input_dict[EXAMPLES], key=lambda artifact: artifact.id)
            if os.path.dirname(artifact.uri) == folder
            and artifact.get_string_custom_property(SETTINGS) == settings
            and _span(artifact) < _span(current)
        }
        last = tfx.proto.RangeConfig(
            static_range=tfx.proto.StaticRange(
                start_span_number=max(0, _span(current) - self._spans + 1), end_span_number=_span(current)
            )
        )
        window = {EXAMPLES: [*newest.values(), current]}
        resolved = tfx.dsl.experimental.SpanRangeStrategy(last).resolve_artifacts(store, window)
        return {CURRENT: [current], **(resolved or {})}


def latest_spans(example_gen: BaseNode, spans: int) -> Resolver:
    """A node whose output `examples` is the window of the latest `spans` spans up to the one of this run."""
    channels = {CURRENT: example_gen.outputs[EXAMPLES], EXAMPLES: tfx.dsl.Channel(type=standard_artifacts.Examples)}
    return Resolver(strategy_class=LatestSpansStrategy, config={"spans": spans}, **channels).with_id("Resolver.spans")


def _span(artifact: types.Artifact) -> int:
    return artifact.get_int_custom_property("span")
