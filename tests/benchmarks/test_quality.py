"""The command line: one table from measurements, reported numbers and pipeline runs."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from benchmarks import models, quality
from benchmarks.dataset import split_ratings
from benchmarks.methods import METHODS, Case, Method
from benchmarks.protocols import EARLY_USERS, PROTOCOLS
from benchmarks.report import RATING_COLUMNS, RETRIEVAL_COLUMNS, Row, Run
from benchmarks.transformed import Transformed, load_transformed
from components.data.raw_files import read_movielens
from components.data.sample import generate_sample
from components.ingestion.splits import SplitConfig
from pipeline.config import load_config
from trainers.hyperparameters import JointHyperparameters

APP = typer.Typer()
APP.command()(quality.main)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A small MovieLens, in files."""
    rng = np.random.default_rng(0)
    users, movies = np.nonzero(rng.random((40, 25)) < 0.5)
    lines = [
        # In no order of users, but for the last one, who comes when the others have been.
        f"{u + 1}::{m + 1}::{rng.integers(1, 6)}::{978300000 + (10_000 if u == 39 else 7 * i % 600)}"
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


def measured(data: Path, folder: Path, protocols: str, only: str, *more: str):
    """What is printed, and the written protocols, of a measurement whose results are kept in `folder`."""
    arguments: list[str | Path] = [
        "--data",
        data,
        "--cache",
        folder / "cache",
        "--json",
        folder / "results.json",
        *more,
    ]
    result = run(*arguments, "--protocols", protocols, "--only", only)
    assert result.exit_code == 0, result.output
    return result.stdout, json.loads((folder / "results.json").read_text())["protocols"]


def cells(stdout: str, heading: str) -> dict[str, list[str]]:
    """The rows of the table that `heading` heads, by title."""
    blocks = [block.splitlines() for block in stdout.split("\n\n")]
    (lines,) = (lines for lines in blocks if lines[0].startswith("|") and lines[0].split("|")[1].strip() == heading)
    parts = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines]
    return {title: rest for title, *rest in parts}


def test_measured_and_reported_rows(data, tmp_path):
    stdout, (document,) = measured(data, tmp_path, "random-75", "popularity,bias", "--seeds", "0,1")

    assert "Split: random 75/25 (2 of the 75 % held out); seeds 0 (" in stdout
    assert "±" in cells(stdout, "retrieval")["popularity"][0]
    ratings = cells(stdout, "ratings")
    assert ratings["notebooks' ranking, tuned (as reported, test overlaps train)"][0] == "0.8665"

    popularity, biases = document["rows"][:2]
    runs = [run["metrics"]["recall_at_10"] for run in popularity["runs"]]
    assert len(set(runs)) == 2
    assert popularity["mean"]["recall_at_10"] == pytest.approx(np.mean(runs))
    assert popularity["deviation"]["recall_at_10"] == pytest.approx(np.std(runs, ddof=1))
    assert biases["runs"][0]["settings"]["penalty"] > 0
    assert len({part["hash"] for part in document["seeds"].values()}) == 2


def test_what_was_measured_is_not_measured_again(data, tmp_path, monkeypatch):
    first, _ = measured(data, tmp_path, "random-75", "popularity", "--seeds", "0")
    calls: list[str] = []
    for name in ("popularity", "bias"):

        def measure(case, name=name, measure=METHODS[name].measure):
            calls.append(name)
            return measure(case)

        monkeypatch.setitem(METHODS, name, Method(METHODS[name].title, measure))

    # What a model is set to is nothing to a method without one.
    second, _ = measured(
        data, tmp_path, "random-75", "popularity,bias", "--seeds", "0", "--set", "models.dcn.dropout=0.3"
    )

    assert cells(second, "retrieval")["popularity"] == cells(first, "retrieval")["popularity"]
    assert calls == ["bias"]


def test_other_data_are_measured_anew_though_their_ratings_are_in_the_same_splits(data, tmp_path):
    def errors() -> dict[str, float]:
        (protocol,) = measured(data, tmp_path, "random-75", "bias")[1]
        return protocol["rows"][0]["runs"][0]["metrics"]

    first = errors()
    rows = [line.split("::") for line in (data / "ratings.dat").read_text().splitlines()]
    squeezed = "".join(f"{user}::{movie}::{min(int(stars), 3)}::{time}\n" for user, movie, stars, time in rows)
    (data / "ratings.dat").write_text(squeezed)
    assert errors()["rmse"] < first["rmse"]


def test_parts_of_the_test_ratings_add_up(data, tmp_path):
    stdout, (document,) = measured(data, tmp_path, "temporal", "bias,popularity", "--seeds", "0")

    assert "cold users" in stdout
    (of_biases,) = document["rows"][1]["runs"]
    known, cold = (of_biases["subsets"][name]["mae"] for name in ("users with train ratings", "cold users"))
    assert min(known, cold) < of_biases["metrics"]["mae"] < max(known, cold)


def test_the_joint_model_that_shares_nothing_is_one_that_the_configuration_takes(data, monkeypatch):
    trained = []

    class Trained(Exception):
        pass

    def train(spec, hparams, splits):
        trained.append(hparams)
        raise Trained

    monkeypatch.setattr(models, "train", train)
    settings = load_config("ml1m", ["models.joint.state_gradient=0.5"]).models
    assert settings.joint.shared_state
    ready = cast(Transformed, SimpleNamespace(splits=None))
    case = Case(split_ratings(read_movielens(data), SplitConfig()), lambda: ready, settings, 3)
    for method in ("joint", "joint-apart"):
        with pytest.raises(Trained):
            METHODS[method].measure(case)
    together, apart = trained
    assert together == settings.joint.model_copy(update={"seed": 3})
    assert (apart.shared, apart.shared_state, apart.state_gradient) == (False, False, 0)
    assert JointHyperparameters.model_validate(apart.model_dump()) == apart


@pytest.mark.component
def test_the_pipelines_models_are_measured_on_what_its_components_make(tmp_path):
    data = tmp_path / "data"
    generate_sample(data, users=60, movies=40, ratings=1500)
    ours = ("retrieval", "ranking", "dcn", "dnn", "joint", "joint-apart")
    more = ["--seeds", "0", "--config", "sample"]
    for model in ("retrieval", "ranking", "dcn", "joint"):
        more += ["--set", f"models.{model}.epochs=1"]

    _, (random,) = measured(data, tmp_path, "random-75", ",".join(ours), *more)
    _, (last,) = measured(data, tmp_path, "leave-last-out", "retrieval", *more)

    metrics = {row["title"]: row["mean"] for row in random["rows"] if row["source"] == "measured"}
    assert len(metrics) == len(ours)
    assert set(metrics["**retrieval**"]) == set(RETRIEVAL_COLUMNS)
    assert set(metrics["**ranking**"]) == set(RATING_COLUMNS)
    assert set(metrics["**joint**"]) == {*RETRIEVAL_COLUMNS, *RATING_COLUMNS}
    assert metrics["**joint**"]["rmse"] != metrics["joint, its two parts sharing nothing"]["rmse"]
    (retriever, *_) = last["rows"]
    assert retriever["runs"][0]["subsets"][EARLY_USERS] == pytest.approx(retriever["mean"])

    # What filtered metrics leave out, for models as for simple methods.
    split = PROTOCOLS["leave-last-out"].split
    ready = load_transformed(data, tmp_path / "cache", split, lambda node: pytest.fail(f"{node} is run again"))
    expected = split_ratings(read_movielens(data), split)
    assert expected.test.seen is not None
    assert sorted(ready.test_users) == sorted(expected.user_ids[expected.test.users])
    of_models = dict(zip(ready.test_users, np.diff(ready.seen.offsets), strict=True))
    of_methods = dict(zip(expected.user_ids[expected.test.users], np.diff(expected.test.seen.offsets), strict=True))
    assert of_models == of_methods
    assert sum(of_models.values()) == len(ready.seen.values) > len(expected.test)
    assert ready.seen.values.min() > 0
    np.testing.assert_array_equal(ready.seen_pairs(1, 3)[:, 1], ready.seen.values[slice(*ready.seen.offsets[[1, 3]])])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--seeds", "0,x"), "'0,x'"),
        (("--seeds", "1,1"), "'1,1'"),
        (("--only", "popularity,svd"), "'svd'"),
        (("--protocols", "random-75,backwards"), "'backwards'"),
        (("--set", "models.dcn.depth=3"), "models.dcn.depth"),
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
