"""The results of a run: `summary.json`, and the same as a table."""

import json
import os
import platform
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from importlib import metadata as distributions
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from rich.table import Table

from pipeline.config import Config
from pipeline.local.output import write_whole
from pipeline.nodes import NodeRun
from trainers.registry import MODELS, RECOMMENDER

if TYPE_CHECKING:
    from ml_metadata import MetadataStore

_TOP_K = re.compile(r"(?P<popularity>popularity_)?(?P<metric>(?:recall|ndcg)_at_\d+(?:_filtered)?)")
_PREDICTIONS = {
    "predicted_rating": "metrics",
    "bias_predicted_rating": "baseline",
    "like_probability": "metrics",
    "bias_like_probability": "baseline",
}
_ERRORS = {
    "root_mean_squared_error": "rmse",
    "mean_absolute_error": "mae",
    "auc": "auc",
    "binary_crossentropy": "log_loss",
}
_VERSIONS = ("tfx", "tensorflow", "apache-beam", "tensorflow-recommenders", "tf-keras")
_TABLE_METRICS = ("recall_at_10", "recall_at_10_filtered", "ndcg_at_10_filtered", "rmse", "mae", "auc", "log_loss")


@dataclass(frozen=True)
class Artifact:
    """An output of a node: where it lies and its custom properties."""

    uri: str
    properties: Mapping[str, int | float | str] = field(default_factory=dict)


Outputs = Mapping[str, Mapping[str, Artifact]]


def read_outputs(store: "MetadataStore", nodes: Iterable[NodeRun]) -> Outputs:
    """The outputs of nodes, as {node: {output: artifact}}; of several artifacts of one output, the last."""
    from ml_metadata.proto import metadata_store_pb2

    kinds = (metadata_store_pb2.Event.OUTPUT, metadata_store_pb2.Event.INTERNAL_OUTPUT)
    outputs: dict[str, dict[str, Artifact]] = {}
    for node in nodes:
        if node.execution_id is None:
            continue
        events = [event for event in store.get_events_by_execution_ids([node.execution_id]) if event.type in kinds]
        artifacts = {a.id: a for a in store.get_artifacts_by_id([event.artifact_id for event in events])}
        for event in events:
            artifact = artifacts[event.artifact_id]
            properties = {
                name: getattr(value, cast(str, value.WhichOneof("value")))
                for name, value in artifact.custom_properties.items()
            }
            outputs.setdefault(node.id, {})[event.path.steps[0].key] = Artifact(artifact.uri, properties)
    return outputs


def read_evaluation(uri: str) -> dict[str, dict[str, float]]:
    """The overall test metrics of an Evaluator, as {model output: {metric: value}}."""
    import tensorflow_model_analysis as tfma

    result = tfma.load_eval_result(uri)
    for slice_key, by_output in result.slicing_metrics:
        if not slice_key:
            return {
                output: {name: value["doubleValue"] for name, value in by_sub_key[""].items() if "doubleValue" in value}
                for output, by_sub_key in by_output.items()
            }
    return {}


def read_refusals(uri: str) -> list[str]:
    """Why an Evaluator did not bless a model: the thresholds that were not met."""
    import tensorflow_model_analysis as tfma
    from google.protobuf import json_format

    result = tfma.load_validation_result(uri)
    reasons = [
        _refusal(failure.metric_key.output_name or failure.metric_key.name, json_format.MessageToDict(failure))
        for by_slice in result.metric_validations_per_slice
        for failure in by_slice.failures
    ]
    return reasons or ([] if result.validation_ok else ["the model was not validated"])


def _refusal(name: str, failure: dict[str, Any]) -> str:
    number = failure.get("metricValue", {}).get("doubleValue")
    if not isinstance(number, int | float):
        return f"{name}: {failure.get('message') or 'no value'}"
    threshold = failure.get("metricThreshold", {})
    if "changeThreshold" in threshold:
        bound = threshold["changeThreshold"].get("absolute")
        return f"{name} against the latest blessed model changes by {number:.4f}; should be at least {bound:.4f}"
    bound = threshold.get("valueThreshold", {}).get("lowerBound")
    return f"{name} is {number:.4f}; should be at least {bound:.4f}" if bound is not None else f"{name} is {number:.4f}"


def model_summary(
    evaluation: Mapping[str, Mapping[str, float]], refusals: list[str], blessed: bool, pushed: str | None
) -> dict[str, Any]:
    """One entry of the summary's `models`."""
    entry: dict[str, Any] = {"metrics": {}, "baseline": {}}
    for output, values in evaluation.items():
        if output in _PREDICTIONS:
            known = {_ERRORS[name]: value for name, value in values.items() if name in _ERRORS}
            entry[_PREDICTIONS[output]].update(known)
        elif match := _TOP_K.fullmatch(output):
            kind = "baseline" if match["popularity"] else "metrics"
            entry[kind][match["metric"]] = values["mean_prediction"]
    return entry | {"blessed": blessed, "reasons": [] if blessed else refusals, "pushed": pushed}


def summarise(
    config: Config,
    nodes: list[NodeRun],
    outputs: Outputs,
    *,
    seconds: float,
    peak_rss_mb: int,
    finished: str,
    log: Path,
) -> dict[str, Any]:
    """The summary of a run that came to its end.

    Args:
      config: what was run.
      nodes: what became of the nodes.
      outputs: of the nodes, from `read_outputs`.
      seconds: how long the whole run took.
      peak_rss_mb: the most memory that the run's processes held.
      finished: when it ended, as ISO 8601.
      log: the run's log file.
    """
    models = {}
    for name in MODELS:
        evaluator = outputs.get(f"Evaluator.{name}", {})
        if "evaluation" not in evaluator or "blessing" not in evaluator:
            continue
        uri = evaluator["evaluation"].uri
        blessed = evaluator["blessing"].properties.get("blessed") == 1
        models[name] = model_summary(
            read_evaluation(uri), [] if blessed else read_refusals(uri), blessed, _pushed(outputs, name)
        )
    return {
        "config": config.name,
        "finished": finished,
        "split": config.data.split.model_dump(mode="json"),
        "seeds": {
            "split": config.data.split.seed,
            "sample": config.data.sample.seed,
            **{name: config.models[name].seed for name in MODELS},
        },
        "components": [_component(node) for node in nodes],
        "models": models,
        RECOMMENDER: {"pushed": _pushed(outputs, RECOMMENDER)},
        "seconds": round(seconds, 1),
        "peak_rss_mb": peak_rss_mb,
        "machine": {
            "cpus": os.cpu_count(),
            "memory_mb": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20,
            "python": platform.python_version(),
            "versions": {name: distributions.version(name) for name in _VERSIONS},
        },
        "log": str(log),
    }


def _component(node: NodeRun) -> dict[str, Any]:
    entry = {"id": node.id, "seconds": round(node.seconds, 2), "state": node.state}
    return entry | ({"problem": node.problem} if node.state == "failed" else {})


def failed_reports(summary: Mapping[str, Any]) -> dict[str, str]:
    """The nodes that failed although the run came to its end, because they only report, and why."""
    return {node["id"]: node["problem"] for node in summary["components"] if node["state"] == "failed"}


def _pushed(outputs: Outputs, name: str) -> str | None:
    model = outputs.get(f"Pusher.{name}", {}).get("pushed_model")
    if model is None or model.properties.get("pushed") != 1:
        return None
    return str(model.properties["pushed_destination"])


def reasons_not_pushed(summary: Mapping[str, Any]) -> dict[str, str]:
    """The models, the recommender among them, that were not pushed, and why."""
    reasons = {
        name: "; ".join(entry["reasons"]) or "it was not pushed"
        for name, entry in summary["models"].items()
        if entry["pushed"] is None
    }
    if summary[RECOMMENDER]["pushed"] is None:
        reasons[RECOMMENDER] = "retrieval and ranking should both be blessed"
    return reasons


def write_summary(summary: Mapping[str, Any], path: Path) -> None:
    """Writes the summary; the file is the old one or the new one, whole, whenever it is read."""
    write_whole(path, json.dumps(summary, indent=2) + "\n")


def models_table(summary: Mapping[str, Any]) -> Table:
    """The models of a summary: test metrics beside the trivial baseline's, verdict and pushed version."""
    table = Table(title="Test split", title_justify="left")
    for column in ("model", "metric", "test", "baseline", "blessed", "pushed"):
        table.add_column(column, no_wrap=True, justify="right" if column in ("test", "baseline") else "left")
    for name, entry in summary["models"].items():
        shown = [metric for metric in _TABLE_METRICS if metric in entry["metrics"]]
        baselines = [entry["baseline"].get(metric) for metric in shown]
        table.add_row(
            name,
            "\n".join(metric.replace("_at_", "@").replace("_", " ") for metric in shown),
            "\n".join(f"{entry['metrics'][metric]:.4f}" for metric in shown),
            "\n".join("" if value is None else f"{value:.4f}" for value in baselines),
            "yes" if entry["blessed"] else "no",
            _version(entry["pushed"]),
            end_section=True,
        )
    pushed = summary[RECOMMENDER]["pushed"]
    table.add_row(RECOMMENDER, "", "", "", "yes" if pushed else "no", _version(pushed))
    return table


def _version(pushed: str | None) -> str:
    return Path(pushed).name if pushed else "-"
