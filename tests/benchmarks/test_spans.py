"""Ratings are cut by time into spans, and what each night did is told apart by the models that it made."""

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer import Typer
from typer.testing import CliRunner

from benchmarks.spans import cut, deliver, main
from components.data.raw_files import read_movielens
from components.data.sample import generate_sample
from trainers.registry import MODELS, RECOMMENDER


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    generate_sample(folder, users=60, movies=40, ratings=1001, seed=5)
    return folder


def test_spans_are_all_ratings_in_the_order_of_time(data: Path, tmp_path: Path) -> None:
    parts = cut(data, 4)
    assert [len(part) for part in parts] == [251, 250, 250, 250]
    lines = (data / "ratings.dat").read_text().splitlines()
    assert sorted(line for part in parts for line in part) == sorted(lines)
    times = [[int(line.split("::")[3]) for line in part] for part in parts]
    assert all(max(earlier) <= min(later) for earlier, later in itertools.pairwise(times))
    deliver(data, parts[2], tmp_path / "span-3")
    delivered, whole = read_movielens(tmp_path / "span-3"), read_movielens(data)
    assert delivered.ratings["timestamp"].tolist() == times[2]
    assert (len(delivered.users), len(delivered.movies)) == (len(whole.users), len(whole.movies))


def printed(output: Path, data: Path, spans: int) -> tuple[int, str]:
    app = Typer()
    app.command()(main)
    arguments = ["--data", str(data), "--output", str(output), "--spans", str(spans)]
    result = CliRunner().invoke(app, arguments, env={"COLUMNS": "400"})
    return result.exit_code, result.output


def entry(pushed: str | None, verdict: str = "", **metrics: float) -> dict[str, Any]:
    names = ("rmse", "recall_at_10_filtered", "recall_at_10", "liked_recall_at_10", "liked_ndcg_at_10")
    values = dict.fromkeys(names, 0.5) | metrics
    against = {"rmse": {"verdict": verdict}} if verdict else {}
    return {"metrics": values, "baseline": values, "pushed": pushed, "against_champion": against}


def night(spans: int, known: int = 3, exit_code: int = 0) -> dict[str, Any]:
    return {
        "exit": exit_code,
        "how": {"spans": spans, "config": "ml1m", "settings": ["data.spans=4"]},
        "minutes": 4.6,
        "entries": {name: entry("1") for name in (*MODELS, RECOMMENDER)},
        "made": {},
        "champions": dict.fromkeys((*MODELS, RECOMMENDER), "no earlier model was blessed"),
        "people_who_rated": 3,
        "people_known": known,
    }


def test_nights_that_are_on_record_are_not_run_again(data: Path, tmp_path: Path) -> None:
    second = night(spans=2, exit_code=3) | {"champions": dict.fromkeys(MODELS, 1)}
    second["entries"] |= {"ranking": entry(None, "worse", rmse=0.8765), RECOMMENDER: {"pushed": None}}
    (tmp_path / "nights.json").write_text(json.dumps([night(spans=2), second]))
    code, text = printed(tmp_path, data, spans=2)
    assert code == 1
    assert not (tmp_path / "data").exists()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line[:3] == "| 2"]
    figures, champions = rows
    assert figures == ["2", *["0.5000"] * 3, "0.8765", *["0.5000"] * 3, "", "", "", "3 of 3", "5"]
    pushed = "that of night 1; pushed"
    assert champions[1:] == [
        "3",
        *(pushed if name != "ranking" else "that of night 1; worse; refused" for name in MODELS),
        "none, because it was not evaluated; refused",
    ]


@pytest.mark.parametrize(("known", "code"), [(3, 0), (2, 1)])
def test_somebody_whom_the_recommender_does_not_know_is_a_failure(
    data: Path, tmp_path: Path, known: int, code: int
) -> None:
    (tmp_path / "nights.json").write_text(json.dumps([night(1, known)]))
    assert printed(tmp_path, data, spans=1)[0] == code


def test_nights_of_other_settings_are_not_gone_on_with(data: Path, tmp_path: Path) -> None:
    (tmp_path / "nights.json").write_text(json.dumps([night(spans=8)]))
    code, text = printed(tmp_path, data, spans=4)
    assert code == 2
    assert "Take another folder" in text
    assert not (tmp_path / "data").exists()


def test_ratings_of_one_second_stay_in_the_order_of_the_file(tmp_path: Path) -> None:
    lines = [f"{user}::1::4::{10 + user // 4}" for user in np.arange(12)]
    (tmp_path / "ratings.dat").write_text("\n".join(lines))
    assert cut(tmp_path, 3) == [lines[:4], lines[4:8], lines[8:]]
