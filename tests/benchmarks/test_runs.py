"""The figures of several runs are printed as means and standard deviations, and what a run lacks is left open."""

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from benchmarks import runs
from benchmarks.runs import main

from typer import Typer  # isort: skip

RATED = {"metrics": {"rmse": 0.8, "mae": 0.6}, "baseline": {"rmse": 0.9, "mae": 0.7}}
LISTS = dict.fromkeys(runs._LIST_METRICS, 0.1)
SUMMARY: dict[str, Any] = {
    "config": "ml1m",
    "split": {"strategy": "random"},
    "seeds": {"split": 1, "dcn": 0},
    "seconds": 120.0,
    "peak_rss_mb": 900,
    "machine": {"cpus": 2},
    "models": {
        "dcn": RATED | {"kept": {"squared_error": {"after_1_year": 0.9}}},
        "retrieval": {"metrics": {"recall_at_10_filtered": 0.3}, "baseline": {"recall_at_10_filtered": 0.05}},
        "ranking": RATED,
        "joint": RATED,
    },
    "recommender": {
        "metrics": LISTS,
        "retrieval": LISTS,
        "baseline": LISTS | {"liked_ndcg_at_10": None},
        "kept": {"recall_at_10": {"after_1_year": 0.95}},
    },
}


def printed(*outputs: Path) -> tuple[int, str]:
    app = Typer()
    app.command()(main)
    result = CliRunner().invoke(app, [text for output in outputs for text in ("--output", str(output))])
    return result.exit_code, result.output


def row(text: str, first: str) -> list[str]:
    (line,) = [line for line in text.splitlines() if line.startswith((f"| {first}  ", f"| {first} |"))]
    return [cell.strip() for cell in line.strip("|").split("|")][1:]


def write(folder: Path, **recall: float) -> Path:
    summary = copy.deepcopy(SUMMARY)
    summary["models"]["retrieval"]["metrics"] |= recall
    summary["models"]["dcn"]["kept"]["squared_error"]["after_1_year"] = recall["recall_at_10_filtered"] + 0.6
    folder.mkdir()
    (folder / "summary.json").write_text(json.dumps(summary))
    return folder


def test_figures_are_means_and_deviations_over_the_runs(tmp_path: Path) -> None:
    recalls = [0.3, 0.34, 0.32]
    outputs = [write(tmp_path / str(place), recall_at_10_filtered=value) for place, value in enumerate(recalls)]
    code, text = printed(*outputs)
    assert code == 0
    assert row(text, "retrieval")[1] == f"{np.mean(recalls):.4f} ± {np.std(recalls, ddof=1):.4f}"
    assert row(text, "retrieval's baseline")[1] == "0.0500 ± 0.0000"
    # A retriever predicts no ratings, and a figure that is no number in one run has no mean.
    assert row(text, "retrieval")[3:] == ["", ""]
    assert row(text, "popularity") == [*["0.1000 ± 0.0000"] * 5, ""]
    assert "2: ml1m, random split, seeds: split 1, dcn 0; 2 min, 900 MB; 2 processors." in text
    kept = [line for line in text.splitlines() if "squared error" in line]
    assert [cell.strip() for cell in kept[0].strip("|").split("|")] == ["dcn", "squared error", "0.920 ± 0.020"]


def test_a_single_run_has_no_deviation(tmp_path: Path) -> None:
    code, text = printed(write(tmp_path / "one", recall_at_10_filtered=0.3))
    assert code == 0
    assert row(text, "retrieval")[1] == "0.3000"


@pytest.mark.parametrize("name", ["empty", "missing"])
def test_a_folder_without_a_summary_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "empty").mkdir()
    code, text = printed(tmp_path / name)
    assert code == 2
    assert "summary.json" in text
