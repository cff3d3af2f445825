"""The results of a run: what `summary.json` holds."""

import dataclasses
import json
import math
import os
import platform
import re
from collections.abc import Mapping
from importlib import metadata as distributions
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components.evaluation.names import AT_BEST, AT_WORST, CHANGE, LIKED, MEAN_AT_BEST, MEAN_AT_WORST
from components.pushing.pushed_models import REFUSED
from components.storage.paths import write_whole
from pipeline.config import Config
from pipeline.local.choices import Champion, MadeOf, Outputs, read_champions, read_made_of, read_outputs
from pipeline.nodes import NodeRun
from trainers.registry import MODELS, RECOMMENDER

if TYPE_CHECKING:
    from ml_metadata import MetadataStore

_TOP_K = re.compile(
    r"(?P<list>popularity_by_group_|popularity_|retrieval_)?(?P<metric>(?:recall|ndcg)_at_\d+(?:_filtered)?)"
)
_LISTS = {
    None: "metrics",
    "popularity_": "baseline",
    "popularity_by_group_": "by_group",
    "retrieval_": "retrieval",
}
# The outputs that tell how good a model is in a situation; the longer of two names with one beginning comes first.
_MAIN = ("recall_at_10_filtered", "recall_at_10", "squared_error", "log_loss")
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


def read_evaluation(uri: str) -> dict[str, dict[str, float | None]]:
    """The overall test metrics of an Evaluator, as {model output: {metric: value}}.

    A value is None where it is no finite number, such as the mean over liked rows where no row is liked.
    """
    import tensorflow_model_analysis as tfma

    result = tfma.load_eval_result(uri)
    for slice_key, by_output in result.slicing_metrics:
        if not slice_key:
            return {
                output: {
                    name: _finite(value["doubleValue"])
                    for name, value in by_sub_key[""].items()
                    if "doubleValue" in value
                }
                for output, by_sub_key in by_output.items()
            }
    return {}


def _finite(value: float | str) -> float | None:
    # JSON has no word for what is not finite; TensorFlow Model Analysis writes "NaN" and "Infinity".
    return float(value) if math.isfinite(float(value)) else None


def read_refusals(uri: str) -> list[str]:
    """Why an Evaluator did not bless a model: the thresholds that were not met."""
    import tensorflow_model_analysis as tfma
    from google.protobuf import json_format

    result = tfma.load_validation_result(uri)
    reasons = [
        _refusal(_name(failure.metric_key.name, failure.metric_key.output_name), json_format.MessageToDict(failure))
        for by_slice in result.metric_validations_per_slice
        for failure in by_slice.failures
    ]
    return reasons or ([] if result.validation_ok else ["the model was not validated"])


def _name(metric: str, output: str) -> str:
    # Most are means, which need no word; a share that is kept of an error, for one, must not be taken for the error.
    return f"{metric} of {output}" if output and metric != "mean_prediction" else output or metric


def _refusal(name: str, failure: dict[str, Any]) -> str:
    number = failure.get("metricValue", {}).get("doubleValue")
    if not isinstance(number, int | float):
        return f"{name}: {failure.get('message') or 'no value'}"
    threshold = failure.get("metricThreshold", {})
    if "changeThreshold" in threshold:
        bound, (metric, _, output) = threshold["changeThreshold"].get("absolute"), name.partition(" of ")
        liked, how = ("liked " if metric.startswith(LIKED) else ""), metric.rpartition("_at_")[2]
        return f"{liked}{output} against the champion's is {number:+.4f} at {how}; should be at least {bound:+.4f}"
    metric, _, output = name.partition(" of ")
    if metric in (MEAN_AT_WORST, MEAN_AT_BEST):
        name, number_at = output, f"{number:.4f} at {metric.rpartition('_at_')[2]}"
    else:
        number_at = f"{number:.4f}"
    bound = threshold.get("valueThreshold", {}).get("lowerBound")
    return f"{name} is {number_at}" + (f"; should be at least {bound:.4f}" if bound is not None else "")


def model_summary(
    evaluation: Mapping[str, Mapping[str, float | None]],
    reasons: list[str],
    blessed: bool,
    pushed: str | None,
    tolerances: Mapping[str, float],
    champion: Champion | None = None,
) -> dict[str, Any]:
    """One entry of the summary's `models`.

    Args:
      evaluation: from `read_evaluation`.
      reasons: why the model was not blessed or, if it was, why it was not pushed; empty if it was pushed.
      blessed: whether it passed its gates.
      pushed: the folder that it was pushed to; None if it was not.
      tolerances: from the configuration.
      champion: the earlier model that it was compared with; None if that is not known.
    """
    entry: dict[str, Any] = {"metrics": {}, "baseline": {}}
    for output, values in evaluation.items():
        if output in _PREDICTIONS:
            known = {_ERRORS[name]: value for name, value in values.items() if name in _ERRORS}
            entry[_PREDICTIONS[output]].update(known)
        elif match := _TOP_K.fullmatch(output):
            metrics = entry.setdefault(_LISTS[match["list"]], {})
            metrics[match["metric"]] = values.get("mean_prediction")
            if "liked_mean" in values:
                metrics[f"liked_{match['metric']}"] = values["liked_mean"]
    return entry | {
        "kept": _kept(evaluation),
        "champion": None if champion is None else dataclasses.asdict(champion),
        "against_champion": _against_champion(evaluation, tolerances),
        "blessed": blessed,
        "reasons": reasons,
        "pushed": pushed,
    }


def _kept(evaluation: Mapping[str, Mapping[str, float | None]]) -> dict[str, dict[str, float | None]]:
    """How much of each main metric is kept in each situation, as {metric: {situation: share}}."""
    kept: dict[str, dict[str, float | None]] = {}
    for output, values in evaluation.items():
        if "share_kept" in values:
            metric, situation = next(
                (metric, output.removeprefix(f"{metric}_")) for metric in _MAIN if output.startswith(f"{metric}_")
            )
            kept.setdefault(metric, {})[situation] = values["share_kept"]
    return kept


def _against_champion(
    evaluation: Mapping[str, Mapping[str, float | None]], tolerances: Mapping[str, float]
) -> dict[str, dict[str, float | str | None]]:
    """How much better each gated metric is than the champion's; empty without a champion."""
    compared: dict[str, dict[str, float | str | None]] = {}
    for metric, tolerance in tolerances.items():
        prefix = LIKED if metric.startswith(LIKED) else ""
        values = evaluation.get(metric.removeprefix(LIKED), {})
        change, worst, best = (values.get(prefix + name) for name in (CHANGE, AT_WORST, AT_BEST))
        if f"{prefix}{CHANGE}" in values:
            compared[metric] = {
                "change": change,
                "at_worst": worst,
                "at_best": best,
                "verdict": _verdict(worst, best, tolerance),
            }
    return compared


def _verdict(worst: float | None, best: float | None, tolerance: float) -> str:
    if worst is None or best is None:
        return "no value"
    if best < -tolerance:
        return "worse"
    return "no worse" if worst >= -tolerance else "undecided"


def summary_of_run(
    store: "MetadataStore",
    config: Config,
    nodes: list[NodeRun],
    *,
    seconds: float,
    peak_rss_mb: int | None,
    finished: str,
    log: Path,
) -> dict[str, Any]:
    """The summary of a run, as `summarise` makes it of what the metadata store says of the run."""
    outputs = read_outputs(store, nodes)
    return summarise(
        config,
        nodes,
        outputs,
        read_champions(store, outputs),
        read_made_of(store, outputs, config.recommender.part_names),
        seconds=seconds,
        peak_rss_mb=peak_rss_mb,
        finished=finished,
        log=log,
    )


def summarise(
    config: Config,
    nodes: list[NodeRun],
    outputs: Outputs,
    champions: Mapping[str, Champion],
    made_of: MadeOf | None,
    *,
    seconds: float,
    peak_rss_mb: int | None,
    finished: str,
    log: Path,
) -> dict[str, Any]:
    """The summary of a run that came to its end.

    Args:
      config: what was run.
      nodes: what became of the nodes.
      outputs: of the nodes, from `read_outputs`.
      champions: from `read_champions`.
      made_of: from `read_made_of`.
      seconds: how long the whole run took.
      peak_rss_mb: the most memory that the run's processes held; None if nobody has measured it.
      finished: when it ended, as ISO 8601.
      log: the run's log file, or the folder of all logs.
    """
    models = {}
    for name in (*MODELS, RECOMMENDER):
        evaluator = outputs.get(f"Evaluator.{name}", {})
        if "evaluation" not in evaluator or "blessing" not in evaluator:
            continue
        uri = evaluator["evaluation"].uri
        blessed = evaluator["blessing"].properties.get("blessed") == 1
        reasons = _refused(outputs, name) if blessed else read_refusals(uri)
        models[name] = model_summary(
            read_evaluation(uri),
            reasons,
            blessed,
            _pushed(outputs, name),
            config.evaluation.tolerances,
            champions.get(name),
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
        "recommender_parts": list(dict.fromkeys(config.recommender.part_names)),
        RECOMMENDER: (models.pop(RECOMMENDER, None) or _unmeasured(outputs, made_of))
        | {"made_of": made_of and dataclasses.asdict(made_of)},
        "models": models,
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


def _unmeasured(outputs: Outputs, made_of: MadeOf | None) -> dict[str, Any]:
    """The entry of a recommender that no Evaluator measured in this run."""
    pushed, refused = _pushed(outputs, RECOMMENDER), _refused(outputs, RECOMMENDER)
    blessed = pushed is not None or bool(refused)
    why = f"it was not built: {made_of.why if made_of else 'its parts were not measured'}"
    return {"blessed": blessed, "reasons": refused if blessed else [why], "pushed": pushed}


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


def _refused(outputs: Outputs, name: str) -> list[str]:
    """Why the Pusher refused a model that was blessed; empty if it did not."""
    model = outputs.get(f"Pusher.{name}", {}).get("pushed_model")
    return [str(model.properties[REFUSED])] if model is not None and REFUSED in model.properties else []


def reasons_not_pushed(summary: Mapping[str, Any]) -> dict[str, str]:
    """The models, the recommender among them, that were not pushed, and why."""
    entries = {**summary["models"], RECOMMENDER: summary[RECOMMENDER]}
    return {name: _why_not_pushed(entry) for name, entry in entries.items() if entry["pushed"] is None}


def _why_not_pushed(entry: Mapping[str, Any]) -> str:
    verdict = "was blessed, but it was not pushed" if entry["blessed"] else "was not blessed, so it was not pushed"
    return f"{verdict}: {'; '.join(entry['reasons']) or 'no reason is on record'}"


def write_summary(summary: Mapping[str, Any], path: Path) -> None:
    """Writes the summary; the file is the old one or the new one, whole, whenever it is read."""
    write_whole(path, json.dumps(summary, indent=2) + "\n")
