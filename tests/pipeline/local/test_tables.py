"""The tables that a run ends with say what its summary says."""

import io
from typing import Any

import pytest
from rich.console import Console
from rich.table import Table

from pipeline.local.tables import (
    champions_lines,
    champions_of,
    champions_table,
    kept_table,
    models_table,
    recommender_table,
)

LISTS = ("recall_at_10", "liked_recall_at_10", "ndcg_at_10", "liked_ndcg_at_10")
RETRIEVAL = {
    "metrics": {"recall_at_10": 0.15, "recall_at_10_filtered": 0.25, "recall_at_50": 0.5},
    "baseline": {"recall_at_10_filtered": 0.05},
    "kept": {"recall_at_10_filtered": {"after_1_year": 0.961, "new_with_history": 0.882}},
    "blessed": True,
    "reasons": [],
    "pushed": "/serving/retrieval/1700000001",
}
RANKING = {
    "metrics": {"rmse": 0.815, "mae": 0.643},
    "baseline": {"rmse": 0.872, "mae": 0.690},
    "kept": {"squared_error": {"after_1_year": 0.973, "new_with_history": 0.914}},
    "blessed": False,
    "reasons": ["too bad"],
    "pushed": None,
}
RECOMMENDER = {
    "metrics": dict(zip(LISTS, (0.27, 0.31, 0.14, 0.18), strict=True)),
    "retrieval": dict(zip(LISTS, (0.28, 0.30, 0.13, 0.16), strict=True)),
    "baseline": dict(zip(LISTS, (0.06, 0.07, 0.02, 0.03), strict=True)),
    "kept": {"recall_at_10": {"after_1_year": 0.955, "new_with_history": 0.806}},
    "blessed": True,
    "reasons": [],
    "pushed": "/serving/recommender/1700000002",
}
SUMMARY: dict[str, Any] = {"models": {"retrieval": RETRIEVAL, "ranking": RANKING}, "recommender": RECOMMENDER}
NOT_BUILT = {"blessed": False, "reasons": [], "pushed": None}


def cells(table: Table) -> list[list[str]]:
    """The words of each line that has any, with the lines of rich's frame left out."""
    file = io.StringIO()
    Console(file=file, width=200).print(table)
    lines = [
        "".join(" " if 0x2500 <= ord(sign) < 0x2580 else sign for sign in line) for line in file.getvalue().split("\n")
    ]
    return [line.split() for line in lines if line.strip()]


def test_each_model_has_its_metrics_beside_the_baselines() -> None:
    found = cells(models_table(SUMMARY))
    assert ["retrieval", "recall@10", "0.1500", "yes", "1700000001"] in found
    assert ["recall@10", "filtered", "0.2500", "0.0500"] in found
    assert ["ranking", "rmse", "0.8150", "0.8720", "no", "-"] in found
    assert ["mae", "0.6430", "0.6900"] in found
    assert not any("recall@50" in line for line in found)


def test_the_recommender_is_one_of_the_models() -> None:
    found = cells(models_table(SUMMARY))
    assert ["recommender", "recall@10", "0.2700", "0.0600", "yes", "1700000002"] in found
    assert ["liked", "ndcg@10", "0.1800", "0.0300"] in found


def test_the_list_of_the_recommender_stands_beside_the_others() -> None:
    assert cells(recommender_table(SUMMARY))[-3:] == [
        ["the", "recommender's", "0.2700", "0.3100", "0.1400", "0.1800"],
        ["the", "retriever's", "order", "0.2800", "0.3000", "0.1300", "0.1600"],
        ["popularity", "0.0600", "0.0700", "0.0200", "0.0300"],
    ]


def test_what_each_model_keeps_in_each_situation() -> None:
    found = cells(kept_table(SUMMARY))
    assert ["model", "metric", "1", "y", "new"] in found
    assert found[-3:] == [
        ["retrieval", "recall@10", "0.961", "0.882"],
        ["ranking", "rmse", "0.973", "0.914"],
        ["recommender", "recall@10", "0.955", "0.806"],
    ]


def test_each_model_names_its_champion_or_says_why_there_is_none() -> None:
    champion = {"model": 12, "uri": "/model/12", "why": ""}
    passed_over = {"model": 12, "uri": "/model/12", "why": "model 15 was fitted to 3 of this run's 9 test rows"}
    nobody = {"model": None, "uri": None, "why": "no earlier model was blessed"}
    models = {name: RETRIEVAL | {"champion": met} for name, met in (("dcn", champion), ("joint", passed_over))}
    summary = {"models": models, "recommender": RECOMMENDER | {"champion": nobody}}
    assert champions_lines(champions_of(summary)) == [
        "Champion of dcn: model 12, /model/12",
        "Champion of joint: model 12, /model/12, because model 15 was fitted to 3 of this run's 9 test rows",
        "Champion of recommender: none, because no earlier model was blessed",
    ]
    assert champions_lines(champions_of(SUMMARY)) == []


def test_a_model_stands_against_its_champion() -> None:
    assert not champions_table(SUMMARY).rows
    compared = {"change": 0.012, "at_worst": -0.001, "at_best": 0.025, "verdict": "no worse"}
    unknown = {"change": None, "at_worst": None, "at_best": None, "verdict": "no value"}
    ranking = SUMMARY["models"]["ranking"] | {"against_champion": {"squared_error": compared}}
    recommender = SUMMARY["recommender"] | {"against_champion": {"liked_ndcg_at_10": unknown}}
    summary = SUMMARY | {"models": SUMMARY["models"] | {"ranking": ranking}, "recommender": recommender}
    assert cells(champions_table(summary))[-2:] == [
        ["ranking", "squared", "error", "+0.0120", "-0.0010", "+0.0250", "no", "worse"],
        ["recommender", "liked", "ndcg@10", "-", "-", "-", "no", "value"],
    ]


def test_a_recommender_that_was_not_built_has_no_figures() -> None:
    summary = SUMMARY | {"recommender": NOT_BUILT}
    assert ["recommender", "no", "-"] in cells(models_table(summary))
    assert not recommender_table(summary).rows
    assert [line[0] for line in cells(kept_table(summary))[-2:]] == ["retrieval", "ranking"]


@pytest.mark.parametrize("models", [{}, {"ranking": NOT_BUILT}])
def test_tables_of_a_run_that_measured_nothing_are_empty(models: dict[str, Any]) -> None:
    summary = {"models": models, "recommender": NOT_BUILT}
    assert not recommender_table(summary).rows
    assert not kept_table(summary).rows
    assert ["recommender", "no", "-"] in cells(models_table(summary))
