"""The tables that a run ends with, made of its summary."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.table import Table

from trainers.registry import RECOMMENDER

_METRICS = ("recall_at_10", "recall_at_10_filtered", "ndcg_at_10_filtered", "rmse", "mae", "auc", "log_loss")
_LIST_METRICS = ("recall_at_10", "liked_recall_at_10", "ndcg_at_10", "liked_ndcg_at_10")
# Short, so that the table of shares fits a terminal.
_MAIN_METRICS = {"recall_at_10_filtered": "recall@10", "squared_error": "rmse"}
_SITUATIONS = {
    "after_30_days": "30 d",
    "after_1_year": "1 y",
    "after_25_years": "25 y",
    "new_with_history": "new",
    "new_with_history_alone": "history alone",
    "new_without_history": "no history",
}
_LISTS = {
    "metrics": "the recommender's",
    "retrieval": "the retriever's order",
    "baseline": "popularity",
    "by_group": "popularity by gender and age",
}


def models_table(summary: Mapping[str, Any]) -> Table:
    """The models of a summary: test metrics beside the trivial baseline's, verdict and pushed version."""
    table = Table(title="Test split", title_justify="left")
    for column in ("model", "metric", "test", "baseline", "blessed", "pushed"):
        table.add_column(column, no_wrap=True, justify="right" if column in ("test", "baseline") else "left")
    for name, entry in _entries(summary).items():
        metrics, baseline = entry.get("metrics", {}), entry.get("baseline", {})
        shown = [metric for metric in (_LIST_METRICS if name == RECOMMENDER else _METRICS) if metric in metrics]
        table.add_row(
            name,
            "\n".join(_title(metric) for metric in shown),
            "\n".join(_number(metrics[metric], digits=4) for metric in shown),
            "\n".join(_number(baseline[metric], digits=4) if metric in baseline else "" for metric in shown),
            "yes" if entry["blessed"] else "no",
            Path(entry["pushed"]).name if entry["pushed"] else "-",
            end_section=True,
        )
    return table


def recommender_table(summary: Mapping[str, Any]) -> Table:
    """The recommender's final list beside its retriever's own order and popularity; empty if it was not measured."""
    table = Table(title="The list that people get, without what they had seen", title_justify="left")
    table.add_column("list", no_wrap=True)
    for metric in _LIST_METRICS:
        table.add_column(_title(metric), justify="right")
    entry = summary[RECOMMENDER]
    for key, title in _LISTS.items():
        if key in entry:
            table.add_row(title, *(_number(entry[key].get(metric), digits=4) for metric in _LIST_METRICS))
    return table


def kept_table(summary: Mapping[str, Any]) -> Table:
    """How much of its main metric each model keeps when it is asked later, and by new people: 1 for all of it."""
    table = Table(title="Share of quality kept, asked later or by new people", title_justify="left")
    table.add_column("model", no_wrap=True)
    table.add_column("metric", no_wrap=True)
    rows = [
        (name, metric, kept)
        for name, entry in _entries(summary).items()
        for metric, kept in entry.get("kept", {}).items()
    ]
    for situation in rows[0][2] if rows else ():
        table.add_column(_SITUATIONS.get(situation, _title(situation)), justify="right")
    for name, metric, kept in rows:
        table.add_row(
            name, _MAIN_METRICS.get(metric, _title(metric)), *(_number(share, digits=3) for share in kept.values())
        )
    return table


def champions_lines(champions: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """A line for each model: which champion it met, the latest model that was blessed before it, or why none.

    Args:
      champions: as in the summary, by model.
    """
    lines = []
    for name, champion in champions.items():
        met = "none" if champion["model"] is None else f"model {champion['model']}, {champion['uri']}"
        lines.append(f"Champion of {name}: {met}" + (f", because {champion['why']}" if champion["why"] else ""))
    return lines


def champions_of(summary: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """The champions in a summary, by model."""
    return {name: entry["champion"] for name, entry in _entries(summary).items() if entry.get("champion")}


def made_of_lines(summary: Mapping[str, Any]) -> list[str]:
    """A line that says so if the recommender that was built is not made of this run's models; else nothing."""
    made_of = summary[RECOMMENDER].get("made_of")
    if not made_of or not made_of["why"] or "metrics" not in summary[RECOMMENDER]:
        return []
    taken = ", ".join(f"{part} {uri}" for part, (_, uri) in made_of["parts"].items())
    return [f"The recommender is made of {taken}, because {made_of['why']}"]


def champions_table(summary: Mapping[str, Any]) -> Table:
    """How much better each model is than its champion; empty if no model met one."""
    table = Table(title="Better than the champion, on the same test rows, by", title_justify="left")
    for column in ("model", "metric", "change", "at worst", "at best", "verdict"):
        table.add_column(column, no_wrap=True, justify="left" if column in ("model", "metric", "verdict") else "right")
    for name, entry in _entries(summary).items():
        for metric, compared in entry.get("against_champion", {}).items():
            bounds = (compared[key] for key in ("change", "at_worst", "at_best"))
            table.add_row(
                name,
                _title(metric),
                *("-" if bound is None else f"{bound:+.4f}" for bound in bounds),
                compared["verdict"],
            )
    return table


def _entries(summary: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    return {**summary["models"], RECOMMENDER: summary[RECOMMENDER]}


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def _title(metric: str) -> str:
    return metric.replace("_at_", "@").replace("_", " ")
