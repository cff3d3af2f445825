"""The command line: one table from measurements, reported numbers and pipeline runs."""

import json
from pathlib import Path

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from benchmarks import quality
from benchmarks.report import Row, Run

APP = typer.Typer()
APP.command()(quality.main)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A small MovieLens, in files."""
    rng = np.random.default_rng(0)
    users, movies = np.nonzero(rng.random((40, 25)) < 0.5)
    lines = [
        f"{u + 1}::{m + 1}::{rng.integers(1, 6)}::{978300000 + i}"
        for i, (u, m) in enumerate(zip(users, movies, strict=True))
    ]
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "ratings.dat").write_text("\n".join(lines) + "\n")
    (folder / "users.dat").write_text("".join(f"{u}::F::25::3::12345\n" for u in range(1, 41)))
    (folder / "movies.dat").write_text("".join(f"{m}::Film {m} (1990)::Drama\n" for m in range(1, 26)))
    return folder


def run(*arguments: str | Path):
    return CliRunner().invoke(APP, [str(argument) for argument in arguments])


def test_a_table_of_all_sources(data, tmp_path):
    summary = tmp_path / "summary.json"
    metrics = {"recall_at_10": 0.1875, "recall_at_10_filtered": 0.28, "loss": 3.0}
    summary.write_text(
        json.dumps({"models": {"retrieval": {"metrics": metrics}, "ranking": {"metrics": {"rmse": 0.86}}}})
    )
    written = tmp_path / "results.json"

    result = run("--data", data, "--seeds", "0,1", "--only", "popularity,bias", "--summary", summary, "--json", written)

    assert result.exit_code == 0, result.output
    assert "random; train 0.73, eval 0.02, test 0.25; seeds 0 (" in result.stdout
    table = {cells[1].strip(): cells[2:-1] for line in result.stdout.splitlines() if len(cells := line.split("|")) > 2}
    assert "±" in table["popularity"][0]
    assert "0.1875" in table["**retrieval** (this pipeline)"][2]
    assert table["**ranking** (this pipeline)"][0].strip() == "0.8600"
    assert table["notebooks' ranking, tuned (as reported, test overlaps train)"][0].strip() == "0.8665"

    document = json.loads(written.read_text())
    popularity = document["rows"][0]
    runs = [run["metrics"]["recall_at_10"] for run in popularity["runs"]]
    assert len(set(runs)) == 2
    assert popularity["mean"]["recall_at_10"] == pytest.approx(np.mean(runs))
    assert popularity["deviation"]["recall_at_10"] == pytest.approx(np.std(runs, ddof=1))
    assert document["rows"][1]["runs"][0]["settings"]["penalty"] > 0
    hashes = {part["hash"] for part in document["split"]["seeds"].values()}
    assert len(hashes) == 2
    assert "loss" not in document["rows"][-2]["mean"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--seeds", "0,x"), "'0,x'"),
        (("--seeds", "1,1"), "'1,1'"),
        (("--only", "popularity,svd"), "'svd'"),
        (("--summary", "nowhere.json"), "nowhere.json"),
    ],
)
def test_what_cannot_be_used_is_named(data, arguments, message):
    result = run("--data", data, *arguments)
    assert result.exit_code == 2
    assert message in result.output


def test_bad_data_are_named(data):
    (data / "ratings.dat").write_text("1::1::7::978300000\n")
    result = run("--data", data)
    assert result.exit_code == 2
    assert "ratings.dat:1" in result.output


def test_a_mean_needs_the_metric_in_every_run():
    row = Row("x", "measured", [Run({"rmse": 1.0, "mae": 0.5}), Run({"rmse": 2.0})])
    assert row.mean("rmse") == 1.5
    assert row.mean("mae") is None
    assert row.cell("rmse") == "1.5000 ± 0.7071"
