"""`movielens tune` on a tiny sample: the real graph up to a Tuner, twice in one output folder."""

import json
import re
from collections import Counter
from pathlib import Path

import pytest

from pipeline.config import load_config
from tests.pipeline.command_line import run_code

SETTINGS = [
    "data.sample={users: 300, movies: 150, ratings: 6000}",
    "models.ranking.epochs=1",
    "tuning.space.ranking={learning_rate: [0.001, 0.004], hidden_units: [[8], [16, 8]]}",
]
DATA_NODES = 7

pytestmark = [pytest.mark.component, pytest.mark.timeout(600)]


# In one process, as TensorFlow and TFX take long to load.
TWICE = """
import sys
from pipeline.cli import app

for trials in ("1", "2"):
    try:
        app([*sys.argv[1:], "--trials", trials])
    except SystemExit as end:
        assert not end.code, end.code
"""


def test_a_trial_and_then_another(tmp_path: Path) -> None:
    completed = run_code(TWICE, "tune", "ranking", "--output", str(tmp_path), settings=SETTINGS)
    assert completed.returncode == 0, completed.stderr + completed.stdout
    _, first, second = completed.stderr.split("loading TensorFlow and TFX …")
    assert f"[{DATA_NODES + 1}/{DATA_NODES + 1}] Tuner.ranking … " in first
    for line in ("trial 1/1: ", "trial 1/1 epoch 1/1: loss", "trial 1/1: eval rmse"):
        assert f"ranking {line}" in first
    # No data are made anew, and no trial is run twice.
    assert Counter(re.findall(r" … (\w+)$", second, re.MULTILINE))["cached"] == DATA_NODES
    assert set(re.findall(r"trial (\d)/2:", second)) == {"2"}
    assert completed.stdout.count("Trials of ranking, by eval rmse: smaller is better") == 2

    # The artifacts are the stock Tuner's, and the file holds the best of them.
    found = max(tmp_path.glob("pipeline/Tuner.ranking/best_hyperparameters/*/best_hyperparameters.txt"), key=execution)
    results = max(tmp_path.glob("pipeline/Tuner.ranking/tuner_results/*/tuner_results.json"), key=execution)
    best = {name: json.loads(text) for name, text in json.loads(found.read_text())["values"].items()}
    scores = {row["trial_id"]: row["score"] for row in json.loads(results.read_text())}
    assert set(scores) == {"0", "1"}
    path = tmp_path / "tuned-ranking.yaml"
    tuned = [f"models.ranking.{name}={json.dumps(value)}" for name, value in best.items()]
    assert load_config(str(path)) == load_config("sample", [*SETTINGS, "tuning.max_trials=2", *tuned])
    comment = path.read_text().splitlines()[:2]
    assert comment[0].startswith(f"# Found by: movielens tune ranking --output {tmp_path} --set 'data.sample=")
    assert comment[0].endswith(" --trials 2")
    best_of = f"# Best of 2 trials by rmse on the eval split (smaller is better): {min(scores.values()):.6g}"
    assert comment[1].startswith(best_of)


def execution(file: Path) -> int:
    return int(file.parent.name)


def test_the_tuner_is_not_given_the_test_split(tmp_path: Path) -> None:
    from pipeline.graph import create_pipeline, create_tuning_pipeline

    root = str(tmp_path)
    alone = create_tuning_pipeline(config=load_config("sample"), model="joint", data_dir=root, pipeline_root=root)
    config = load_config("sample", ["tuning.models=[joint]"])
    whole = create_pipeline(config=config, data_dir=root, pipeline_root=root, serving_dir=root)
    for pipeline in (alone, whole):
        nodes = {node.id: node for node in pipeline.components}
        assert [name for name in nodes if name.startswith("Tuner")] == ["Tuner.joint"]
        tuner, transform = nodes["Tuner.joint"], nodes["Transform"]
        assert tuner.inputs["examples"] is transform.outputs["transformed_examples"]
        assert "test" not in transform.exec_properties["splits_config"]
        splits = tuner.exec_properties["train_args"] + tuner.exec_properties["eval_args"]
        assert re.findall(r'"(\w+)"', splits.replace('"splits"', "")) == ["train", "movies", "eval"]
    # In a run, the Trainer takes what its Tuner found.
    trainers = {name: nodes[f"Trainer.{name}"] for name in ("joint", "ranking")}
    assert trainers["joint"].inputs["hyperparameters"] is nodes["Tuner.joint"].outputs["best_hyperparameters"]
    assert "hyperparameters" not in trainers["ranking"].inputs
