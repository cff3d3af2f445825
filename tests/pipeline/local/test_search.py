"""The result of a search is a table of its trials, and a configuration file with the best hyper-parameters."""

import json

import pytest
from rich.console import Console

from pipeline.config import load_config
from pipeline.local.search import Search, Trial, read_trials, trials_table, write_tuned

TRIALS = [
    Trial(2, {"learning_rate": 1e-6, "hidden_units": [128, 64]}, 0.87654, 12.3),
    Trial(1, {"learning_rate": 0.002, "hidden_units": [64]}, 0.9, None),
]
SEARCH = Search("ranking", "rmse", -1, TRIALS)


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("name: mine\nmodels: {ranking: {epochs: 3, learning_rate: 0.1}, dcn: {projection_dim: 8}}\n")
    return str(path)


def write_and_load(config, path, search=SEARCH, command="movielens tune ranking"):
    write_tuned(config, search, command, path)
    return load_config(str(path))


def test_the_file_is_the_configuration_with_the_best_hyper_parameters(source, tmp_path):
    overrides = ["data.split.strategy=temporal", "models.dcn.projection_dim=null", "evaluation.slices=[[gender, age]]"]
    read = write_and_load(load_config(source, overrides), tmp_path / "tuned.yaml")
    best = ["models.ranking.learning_rate=1e-6", "models.ranking.hidden_units=[128, 64]"]
    assert read == load_config(source, [*overrides, *best])


def test_the_file_contains_no_settings_left_at_their_defaults(source, tmp_path):
    write_and_load(load_config(source), tmp_path / "tuned.yaml")
    text = (tmp_path / "tuned.yaml").read_text()
    assert "patience" not in text
    assert "evaluation" not in text
    assert "hidden_units: [128, 64]" in text


def test_a_run_with_the_file_does_not_search_again(source, tmp_path):
    config = load_config(source, ["tuning.models=[ranking, dcn]"])
    assert write_and_load(config, tmp_path / "tuned.yaml").tuning.models == ["dcn"]
    assert config.tuning.models == ["ranking", "dcn"]


def test_the_comment_names_the_command_and_the_best_value(source, tmp_path):
    command = "movielens tune ranking --set 'data.sample={users: 20,\nmovies: 30}' --trials 2"
    write_and_load(load_config(source), tmp_path / "tuned.yaml", command=command)
    lines = (tmp_path / "tuned.yaml").read_text().splitlines()
    assert lines[:3] == [
        "# Found by: movielens tune ranking --set 'data.sample={users: 20,",
        "# movies: 30}' --trials 2",
        "# Best of 2 trials by rmse on the eval split (smaller is better): 0.87654; 0.9 with the settings as they "
        "were.",
    ]
    assert lines[3] == "name: mine"


def test_the_comment_says_when_no_trial_beat_the_given_settings(source, tmp_path):
    search = Search("ranking", "rmse", 1, TRIALS[::-1])
    write_and_load(load_config(source), tmp_path / "tuned.yaml", search)
    line = (tmp_path / "tuned.yaml").read_text().splitlines()[1]
    assert line.endswith("(larger is better): 0.9, which is that of the settings as they were.")


def test_the_old_file_stays_if_the_new_one_cannot_be_written(source, tmp_path, monkeypatch):
    path = tmp_path / "tuned.yaml"
    write_and_load(load_config(source), path)
    before = path.read_text()
    monkeypatch.setattr("pathlib.Path.replace", lambda *_: (_ for _ in ()).throw(OSError("full")))
    with pytest.raises(OSError, match="full"):
        write_tuned(load_config("sample"), SEARCH, "movielens tune ranking", path)
    assert path.read_text() == before


def test_the_table_lists_the_trials_best_first():
    console = Console(width=120)
    with console.capture() as capture:
        console.print(trials_table(SEARCH))
    text = capture.get()
    assert "smaller is better" in text
    rows = [line for line in text.splitlines() if "│" in line and "trial" not in line]
    cells = [[cell.strip() for cell in row.strip("│").split("│")] for row in rows]
    assert cells == [
        ["2", "0.8765", "12.3", "learning_rate 1e-06, hidden_units [128, 64]"],
        ["1", "0.9000", "", "learning_rate 0.002, hidden_units [64]"],
    ]


def test_the_table_is_not_truncated_on_a_narrow_screen():
    tried = {f"hyper_parameter_{number}": number for number in range(12)}
    console = Console(width=80)
    with console.capture() as capture:
        console.print(trials_table(Search("joint", "recall_at_10_filtered", 1, [Trial(1, tried, 0.12345, 6789.01)])))
    text = capture.get()
    assert "…" not in text
    assert all(word in text for word in ("recall_at_10_filtered", "0.1235", "6789.0", *tried))


def test_trials_are_read_from_the_tuners_results_and_trial_records(tmp_path):
    rows = [{"trial_id": "1", "score": 0.8, "l2": "0.0"}, {"trial_id": "0", "score": 0.9, "l2": "1e-06"}]
    (tmp_path / "tuner_results.json").write_text(json.dumps(rows))
    record = tmp_path / "trial_1" / "trial.json"
    record.parent.mkdir()
    record.write_text(
        json.dumps({"metrics": {"metrics": {"seconds": {"observations": [{"value": [3.5], "step": 0}]}}}})
    )
    assert read_trials(tmp_path, tmp_path) == [Trial(2, {"l2": 0.0}, 0.8, 3.5), Trial(1, {"l2": 1e-6}, 0.9, None)]
