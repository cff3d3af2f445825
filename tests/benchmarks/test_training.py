"""Training of the project's models and of the notebooks', timed on a little generated data."""

import json

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from benchmarks import training
from benchmarks.looks import RecallMeasurement, seconds_to_recall
from benchmarks.loops import NOTEBOOK_LOOP, NOTEBOOK_LOOP_OPTIONS, PIPELINE_LOOP, draw_rows
from components.data.sample import generate_sample

APP = typer.Typer()
APP.command()(training.main)


def run(*arguments: object):
    return CliRunner().invoke(APP, [str(argument) for argument in arguments])


@pytest.mark.component
def test_both_loops_are_measured_on_the_same_split(tmp_path):
    generate_sample(tmp_path / "data", users=60, movies=120, ratings=1500)
    written = tmp_path / "results.json"
    arguments = ["--data", tmp_path / "data", "--cache", tmp_path / "cache", "--config", "sample", "--json", written]
    arguments += ["--examples", 256, "--rounds", 2, "--batch-size", 128, "--part", 0.25, "--target", 0.999]
    arguments += ["--max-seconds", 30]
    for model in ("retrieval", "joint"):
        arguments += ["--set", f"models.{model}.epochs=1", "--set", f"models.{model}.batch_size=64"]

    result = run(*arguments)

    assert result.exit_code == 0, result.output
    assert "the models are not alike" in result.stdout
    document = json.loads(written.read_text())
    assert set(document["tasks"]) == {"retrieval", "joint"}
    for task in document["tasks"].values():
        rounds = task["rounds"]
        assert set(rounds) == {PIPELINE_LOOP, *NOTEBOOK_LOOP_OPTIONS}
        assert all(len(speeds) == 2 and min(speeds) > 0 for speeds in rounds.values())
        for loop in NOTEBOOK_LOOP_OPTIONS:
            ratios = np.divide(rounds[PIPELINE_LOOP], rounds[loop])
            assert task["times_as_fast"][loop]["median"] == pytest.approx(np.median(ratios))
            assert task["times_as_fast"][loop]["least"] == pytest.approx(min(ratios))
        step, speed = task["roofline"], task["examples_per_second"][PIPELINE_LOOP]
        assert step["achieved"] == pytest.approx(step["flops"] * speed / 64)
        assert step["share"] == pytest.approx(step["achieved"] / step["roof"])
        assert step["roof"] <= document["limits"]["flops"]
        pipeline_recalls, notebook_recalls = task["looks"][PIPELINE_LOOP], task["looks"][NOTEBOOK_LOOP]
        train_rows = notebook_recalls[-1]["examples"] // 3
        assert [each["examples"] for each in pipeline_recalls] == [part * round(train_rows / 4) for part in range(5)]
        assert [each["examples"] for each in notebook_recalls[:3]] == [0, 256, 512]
        assert all(
            np.diff([each["seconds"] for each in recalls]).min() > 0 for recalls in (pipeline_recalls, notebook_recalls)
        )
        level = min(map(float, task["seconds_to"]))
        assert level <= max(each["recall"] for each in notebook_recalls) < level + 0.1
        assert task["seconds_to"]["0.999"] == dict.fromkeys((PIPELINE_LOOP, *NOTEBOOK_LOOP_OPTIONS))

    in_order = ("--set", "models.retrieval.query=sequence")
    again = run(*arguments, "--only", "retrieval", "--max-seconds", 0, *in_order)
    assert again.exit_code == 0, again.output
    assert "Transform" not in again.stderr
    assert "with query pooled alone" in again.stdout
    task = json.loads(written.read_text())["tasks"]["retrieval"]
    assert min(task["rounds"][PIPELINE_LOOP]) > 0
    assert task["weights"] != document["tasks"]["retrieval"]["weights"]
    assert not {"looks", "roofline"} & set(task)


def test_all_rows_of_people_are_drawn():
    users = np.random.default_rng(0).integers(0, 20, 300)
    rows = draw_rows(users, 100, seed=1)
    assert len(rows) == len(set(rows.tolist())) == 100
    whole = [user for user in range(20) if set(np.flatnonzero(users == user)) <= set(rows.tolist())]
    assert len(set(users[rows])) - len(whole) <= 1
    assert set(users[draw_rows(users, 100, seed=2)]) != set(users[rows])
    assert sorted(draw_rows(users, 1000, seed=1)) == list(range(300))


def test_seconds_count_until_a_level_is_first_seen():
    recalls = ((0, 0.0, 0.01), (10, 1.0, 0.05), (20, 2.0, 0.04), (30, 3.0, 0.06))
    measurements = [RecallMeasurement(*each) for each in recalls]
    assert [seconds_to_recall(measurements, level) for level in (0.0, 0.05, 0.06, 0.07)] == [0.0, 1.0, 3.0, None]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--only", "ranking"), "'ranking'"),
        (("--set", "models.joint.depth=3"), "models.joint.depth"),
        (("--part", "0"), "'--part'"),
        ((), "ratings.dat"),
    ],
)
def test_what_cannot_be_used_is_named(tmp_path, arguments, message):
    result = run("--data", tmp_path / "data", "--cache", tmp_path / "cache", *arguments)
    assert result.exit_code == 2
    assert message in result.output
