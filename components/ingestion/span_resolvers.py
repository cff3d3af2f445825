"""Which spans a node reads: a window of the latest, each as it was ingested last; or the one before."""

import os

import ml_metadata as mlmd
from tfx import types
from tfx import v1 as tfx
from tfx.dsl.components.base.base_node import BaseNode
from tfx.dsl.components.common.resolver import Resolver, ResolverStrategy
from tfx.types import standard_artifacts

from components.ingestion.movielens_example_gen import SETTINGS

CURRENT = "current"
EXAMPLES = "examples"
STATISTICS = "statistics"


class LatestSpansStrategy(ResolverStrategy):
    """The latest spans up to the current one, newest first.

    TFX's own strategy would take a span twice where it was ingested twice, and would mix rows that were split in
    different ways, which puts ratings of one run's test split into another's train split.

    Inputs: `current`, the examples of this run; `examples`, all examples in the store.
    """

    def __init__(self, spans: int | None = None):
        """Makes the strategy; None for all spans."""
        self._spans = spans

    def resolve_artifacts(
        self, store: mlmd.MetadataStore, input_dict: dict[str, list[types.Artifact]]
    ) -> dict[str, list[types.Artifact]]:
        """Gives the spans of the window under `examples`, and the current one as it came."""
        (current,) = input_dict[CURRENT]
        settings = current.get_string_custom_property(SETTINGS)
        alike = [each for each in input_dict[EXAMPLES] if each.get_string_custom_property(SETTINGS) == settings]
        newest = _before(current, alike)
        first = 0 if self._spans is None else max(0, current.span - self._spans + 1)
        last = tfx.proto.RangeConfig(
            static_range=tfx.proto.StaticRange(start_span_number=first, end_span_number=current.span)
        )
        window = {EXAMPLES: [*newest, current]}
        resolved = tfx.dsl.experimental.SpanRangeStrategy(last).resolve_artifacts(store, window)
        return {CURRENT: [current], **(resolved or {})}


class PreviousSpanStrategy(ResolverStrategy):
    """The statistics of the span before the current one; where there is none, the current ones again.

    DistributionValidator wants something to compare with.

    Inputs: `current`, the statistics of this run; `statistics`, all in the store.
    """

    def resolve_artifacts(
        self, store: mlmd.MetadataStore, input_dict: dict[str, list[types.Artifact]]
    ) -> dict[str, list[types.Artifact]]:
        """Gives them under `statistics`, and the current ones as they came."""
        del store
        (current,) = input_dict[CURRENT]
        *_, last = [current, *_before(current, input_dict[STATISTICS])]
        return {CURRENT: [current], STATISTICS: [last]}


def _before(current: types.Artifact, artifacts: list[types.Artifact]) -> list[types.Artifact]:
    """Those of spans before the current one, earliest first; of a span that was ingested again, the last."""
    # A component keeps all that it writes in one folder: what another wrote is in another.
    folder = os.path.dirname(current.uri)
    newest = {
        artifact.span: artifact
        for artifact in sorted(artifacts, key=lambda artifact: artifact.id)
        if os.path.dirname(artifact.uri) == folder and artifact.span < current.span
    }
    return [newest[span] for span in sorted(newest)]


def latest_spans(example_gen: BaseNode, spans: int | None) -> Resolver:
    """A node whose output `examples` is the window of the latest `spans` spans (None: of all) up to this run's."""
    channels = {CURRENT: example_gen.outputs[EXAMPLES], EXAMPLES: tfx.dsl.Channel(type=standard_artifacts.Examples)}
    name, config = ("Resolver.all_spans", {}) if spans is None else ("Resolver.spans", {"spans": spans})
    return Resolver(strategy_class=LatestSpansStrategy, config=config, **channels).with_id(name)


def previous_span(statistics_gen: BaseNode) -> Resolver:
    """A node whose output `statistics` is that of the span before, or, in the first, that of the span itself."""
    every = tfx.dsl.Channel(type=standard_artifacts.ExampleStatistics)
    channels = {CURRENT: statistics_gen.outputs[STATISTICS], STATISTICS: every}
    return Resolver(strategy_class=PreviousSpanStrategy, **channels).with_id("Resolver.previous_span")
