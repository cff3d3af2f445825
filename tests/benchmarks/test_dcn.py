"""The command line of the comparison of networks, on a little generated data."""

import json
from pathlib import Path

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from benchmarks import dcn
from benchmarks.metrics import like_metrics
from benchmarks.reported import LIKES
from components.data.sample import generate_sample

APP = typer.Typer()
APP.command()(dcn.main)


def run(*arguments: str | Path):
    return CliRunner().invoke(APP, [str(argument) for argument in arguments])


@pytest.mark.component
def test_networks_are_measured_on_the_pipelines_own_splits(tmp_path):
    generate_sample(tmp_path / "data", users=60, movies=40, ratings=1500)
    arguments = ["--data", tmp_path / "data", "--cache", tmp_path / "cache", "--config", "sample", "--seeds", "0"]
    arguments += ["--rating-penalties", "9", "--like-penalties", "0,9", "--json", tmp_path / "results.json"]
    arguments += ["--set", "models.dcn.epochs=1", "--set", "models.dcn.factor_dim=4"]

    result = run(*arguments, "--objectives", "rating", "--only", "stacked,deep,factors,experts")
    assert result.exit_code == 0, result.output
    assert "DCN, stacked beats the DNN with as many weights on" in result.stdout
    rows = json.loads((tmp_path / "results.json").read_text())["rating"]
    assert [list(row["mean"]) for row in rows] == [["rmse", "mae"]] * 5
    stacked, deep, factors, experts = (run for row in rows[1:] for run in row["runs"])
    assert stacked["metrics"] != deep["metrics"]
    assert stacked["table_l2"] == 9
    assert stacked["weights"] == pytest.approx(deep["weights"], rel=0.02)
    # A factor model has weights for each of the 60 people and 40 movies, and a second network as many as the first.
    with_factors = factors["weights"] - stacked["weights"]
    assert 4 * (60 + 40) < with_factors < stacked["weights"] / 2
    assert experts["weights"] - stacked["weights"] > stacked["weights"] / 2 + with_factors

    result = run(*arguments, "--objectives", "like", "--only", "stacked,deep")
    assert result.exit_code == 0, result.output
    document = json.loads((tmp_path / "results.json").read_text())
    biases, stacked, deep, *published = document["like"]
    assert [row["title"] for row in published] == list(LIKES)
    assert [list(row["mean"]) for row in (biases, stacked, deep)] == [["auc", "log_loss"]] * 3
    assert stacked["runs"][0]["metrics"] != deep["runs"][0]["metrics"]
    assert stacked["runs"][0]["table_l2"] in (0, 9)
    assert sorted(folder.name.rsplit("-", 1)[0] for folder in (tmp_path / "cache").iterdir()) == ["random-seed0"] * 2

    again = run(*arguments, "--objectives", "like", "--only", "stacked", "--like-penalties", "9")
    assert again.exit_code == 0, again.output
    assert "Transform" not in again.stderr
    assert json.loads((tmp_path / "results.json").read_text())["like"][0] == document["like"][0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--seeds", "x"), "'x'"),
        (("--only", "wide"), "'wide'"),
        (("--objectives", "clicks"), "'clicks'"),
        (("--like-penalties", "much"), "'much'"),
        (("--set", "models.dcn.depth=3"), "models.dcn.depth"),
    ],
)
def test_what_cannot_be_used_is_named(tmp_path, arguments, message):
    result = run("--data", tmp_path, *arguments)
    assert result.exit_code == 2
    assert message in result.output


def test_like_metrics_equal_a_count_of_pairs():
    rng = np.random.default_rng(0)
    logits, liked = rng.integers(-3, 4, 60).astype(np.float32), rng.random(60) < 0.6
    wins = [(a > b) + (a == b) / 2 for a in logits[liked] for b in logits[~liked]]
    chances = 1 / (1 + np.exp(-logits))
    metrics = like_metrics(logits, liked)
    assert metrics["auc"] == pytest.approx(np.mean(wins))
    assert metrics["log_loss"] == pytest.approx(-np.mean(np.log(np.where(liked, chances, 1 - chances))), rel=1e-5)


def test_a_factor_model_without_factors_is_refused(tmp_path):
    generate_sample(tmp_path / "data", users=60, movies=40, ratings=1500)
    result = run("--data", tmp_path / "data", "--cache", tmp_path / "cache", "--config", "sample", "--only", "experts")
    assert result.exit_code == 2
    assert "models.dcn.factor_dim should be at least 1 to measure experts; received 0" in result.stderr
    assert not (tmp_path / "cache").exists()
