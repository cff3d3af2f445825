"""Gives every component a key of the code that it runs, as an execution property, so that TFX's cache goes by it."""

import json
from collections.abc import Iterable

from tfx.dsl.components.base.base_component import BaseComponent
from tfx.dsl.components.base.base_node import BaseNode
from tfx.dsl.components.base.executor_spec import ExecutorClassSpec
from tfx.types import standard_component_specs as specs

from pipeline.source import source_key

SOURCE = "source"

_USER_FUNCTIONS = (specs.PREPROCESSING_FN_KEY, specs.RUN_FN_KEY, specs.TUNER_FN_KEY)


def add_source_keys(nodes: Iterable[BaseNode]) -> None:
    """Sets the execution property `source` of all components to the key of the modules that they run.

    Resolvers have none: they are no components, and TFX asks them anew in every run.

    Args:
      nodes: the nodes of a pipeline; they are changed.
    """
    for node in nodes:
        if isinstance(node, BaseComponent):
            node.exec_properties[SOURCE] = source_key(*modules_of(node))


def modules_of(component: BaseComponent) -> list[str]:
    """The modules that a component runs: its executor's, and those of user functions and metrics that it calls."""
    spec = component.executor_spec
    assert isinstance(spec, ExecutorClassSpec), f"{component.id} should run a class; received {spec!r}."
    properties = component.exec_properties
    modules = {spec.executor_class.__module__}
    for name in _USER_FUNCTIONS:
        if properties.get(name):
            modules.add(properties[name].rpartition(".")[0])
    if properties.get(specs.MODULE_PATH_KEY):
        modules.add(properties[specs.MODULE_PATH_KEY])
    if properties.get(specs.EVAL_CONFIG_KEY):
        # Metrics that are not TFMA's own are named with their module.
        config = json.loads(properties[specs.EVAL_CONFIG_KEY])
        metrics = [metric for spec in config["metrics_specs"] for metric in spec["metrics"]]
        modules |= {metric["module"] for metric in metrics if metric.get("module")}
    return sorted(modules)
