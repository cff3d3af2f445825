"""The command line explains every option, and reports each kind of error with a message and an exit code."""

import errno
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from pipeline import cli
from pipeline.local.errors import RunError

RUN_OPTIONS = ("--config", "--data", "--output", "--runner", "--set", "--no-cache")


def invoke(*arguments: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(cli.app, arguments, env={"COLUMNS": "200", "TERM": "dumb"})
    return result.exit_code, result.stdout, result.stderr


def test_help_lists_every_command() -> None:
    code, out, _ = invoke("--help")
    assert code == 0
    for name in cli.COMMANDS:
        assert name in out


@pytest.mark.parametrize("name", sorted(cli.COMMANDS))
def test_every_command_and_option_is_explained(name: str) -> None:
    code, out, _ = invoke(name, "--help")
    assert code == 0
    assert "Usage: " in out
    commands = [cli.load(name)]
    while commands:
        command = commands.pop()
        assert command.help
        commands.extend(getattr(command, "commands", {}).values())
        for parameter in command.params:
            assert parameter.help, f"{command.name}: {parameter.name} should have a help text"


def test_help_of_run_lists_its_options() -> None:
    _, out, _ = invoke("run", "--help")
    for option in RUN_OPTIONS:
        assert option in out


def test_help_is_quick_and_imports_neither_tensorflow_nor_tfx() -> None:
    code = (
        "import sys; from pipeline.cli import app\n"
        "try: app(['--help'])\n"
        "except SystemExit as end: assert end.code == 0\n"
        "heavy = {'tensorflow', 'tfx', 'apache_beam', 'pandas', 'pydantic'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    completed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert completed.returncode == 0, completed.stderr


def test_unknown_command_is_a_usage_error() -> None:
    code, _, err = invoke("trian")
    assert code == 2
    assert "trian" in err


@pytest.mark.parametrize("command", [("run",), ("tune", "ranking")], ids=["run", "tune"])
@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("--config", "nothing"), "nothing: should be a YAML file"),
        (("--set", "models.ranking.epochs=0"), "models.ranking.epochs"),
        (("--set", "trainr.epochs=3"), "trainr"),
        (
            ("--set", "tuning.space.ranking.epoch=[1, 2]"),
            "unknown hyper-parameter 'epoch'; expected one of: id_dropout, ",
        ),
        (("--data", "/nonexistent"), "/nonexistent"),
    ],
)
def test_bad_configuration_or_data_exits_with_2_before_anything_is_written(
    tmp_path: Path, command: tuple[str, ...], arguments: tuple[str, ...], expected: str
) -> None:
    output = tmp_path / "output"
    code, out, err = invoke(*command, "--output", str(output), *arguments)
    assert code == 2
    assert expected in err
    assert "Traceback" not in err
    assert not out
    assert not output.exists()


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("ranker",), ("'ranker'", "dcn", "retrieval", "ranking", "joint")),
        ((), ("dcn", "retrieval", "ranking", "joint")),
        (("ranking", "--trials", "0"), ("--trials",)),
    ],
)
def test_tune_names_the_possible_models_and_refuses_zero_trials(
    arguments: tuple[str, ...], expected: tuple[str, ...]
) -> None:
    code, _, err = invoke("tune", *arguments)
    assert code == 2
    assert all(part in err for part in expected)


def test_the_recorded_command_of_a_search_can_be_run_again() -> None:
    from pipeline.commands.tune import Model, _command

    sizes = "data.sample={users: 20}"
    line = _command(Model("dcn"), "ml1m", Path("my data"), Path("out"), [sizes, "name=x"], 5)
    assert shlex.split(line) == [
        *("movielens", "tune", "dcn", "--config", "ml1m", "--data", "my data", "--output", "out"),
        *("--set", sizes, "--set", "name=x", "--trials", "5"),
    ]
    assert _command(Model("dcn"), "sample", None, None, None, None) == "movielens tune dcn"


def test_an_impossible_sample_is_a_configuration_error(tmp_path: Path) -> None:
    sizes = "data.sample={users: 20, movies: 20, ratings: 1000}"
    code, _, err = invoke("run", "--output", str(tmp_path / "output"), "--set", sizes)
    assert code == 2
    assert "data.sample: ratings should be from 20 (one a user) to 400 (users x movies); received 1000" in err
    assert not (tmp_path / "output").exists()


def test_an_output_that_is_a_file_is_an_error(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("")
    code, _, err = invoke("run", "--output", str(file))
    assert code == 1
    assert f"{file}: should be a folder that can be written" in err


def test_interrupts_exit_with_130(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted() -> None:
        raise KeyboardInterrupt

    _replace_doctor(monkeypatch, interrupted)
    assert invoke("doctor")[0] == 130


def test_a_store_that_does_not_answer_is_a_failure_and_no_mistake_of_the_user() -> None:
    unreachable = ConnectionError(errno.EIO, "no network", "gs://bucket/x")
    assert cli.exit_code(unreachable) == 1
    assert cli.exit_code(PermissionError(errno.EACCES, "closed", "/root")) == 2


def test_a_run_error_shows_only_its_message(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails() -> None:
        raise RunError("[x] is broken")

    _replace_doctor(monkeypatch, fails)
    code, _, err = invoke("doctor")
    assert (code, err) == (1, "Error: [x] is broken\n")


def test_unexpected_errors_are_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> None:
        raise LookupError("a defect")

    _replace_doctor(monkeypatch, broken)
    result = CliRunner().invoke(cli.app, ["doctor"])
    assert isinstance(result.exception, LookupError)


def _replace_doctor(monkeypatch: pytest.MonkeyPatch, function: object) -> None:
    app = typer.Typer()
    app.command("doctor")(function)  # type: ignore[type-var]
    command = typer.main.get_command(app)
    monkeypatch.setattr(cli, "load", lambda _: command)


def test_a_run_with_a_model_that_was_not_blessed_exits_with_3(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pipeline.commands import run

    refused = {"blessed": False, "reasons": ["squared_error_gain is 0.0000; should be at least 0.0100"], "pushed": None}
    summary = {"models": {"dcn": refused}, "recommender": {"pushed": "/serving/recommender/1"}, "components": []}
    monkeypatch.setattr(run, "_run_quietly", lambda *_: summary)
    sizes = "data.sample={users: 20, movies: 30, ratings: 300}"
    code, _, err = invoke("run", "--output", str(tmp_path), "--set", sizes)
    assert code == 3
    assert err == (
        "dcn was not blessed, so it was not pushed: squared_error_gain is 0.0000; should be at least 0.0100.\n"
    )


def test_a_failed_report_exits_with_1_whether_or_not_models_were_blessed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pipeline.commands import run

    summary = {
        "models": {"dcn": {"blessed": False, "reasons": ["too bad"], "pushed": None}},
        "recommender": {"pushed": "/serving/recommender/1"},
        "components": [
            {"id": "Transform", "seconds": 1.0, "state": "complete"},
            {"id": "FeatureImportance", "seconds": 1.0, "state": "failed", "problem": "ValueError: [rows]"},
        ],
        "log": "/logs/run.log",
    }
    monkeypatch.setattr(run, "_run_quietly", lambda *_: summary)
    sizes = "data.sample={users: 20, movies: 30, ratings: 300}"
    code, _, err = invoke("run", "--output", str(tmp_path), "--set", sizes)
    assert code == 1
    assert err == (
        "dcn was not blessed, so it was not pushed: too bad.\n"
        "Error: FeatureImportance failed: ValueError: [rows]\n"
        "It only reports; all else was done.\n"
        "Log: /logs/run.log\n"
    )


@pytest.mark.parametrize(
    ("recommender", "expected"),
    [
        (
            {"blessed": False, "reasons": ["ndcg_at_10_over_retrieval is -0.0300; should be at least 0.0000"]},
            "was not blessed, so it was not pushed: ndcg_at_10_over_retrieval is -0.0300; should be at least 0.0000",
        ),
        (
            {"blessed": True, "reasons": ["withdrawn on 2026-03-01: it loves sequels"]},
            "was blessed, but it was not pushed: withdrawn on 2026-03-01: it loves sequels",
        ),
    ],
)
def test_a_run_whose_recommender_was_not_pushed_exits_with_3(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recommender: dict[str, object], expected: str
) -> None:
    from pipeline.commands import run

    summary = {
        "models": {"dcn": {"reasons": [], "pushed": "/serving/dcn/1"}},
        "recommender_parts": ["retrieval", "ranking"],
        "recommender": recommender | {"pushed": None},
        "components": [],
    }
    monkeypatch.setattr(run, "_run_quietly", lambda *_: summary)
    sizes = "data.sample={users: 20, movies: 30, ratings: 300}"
    code, _, err = invoke("run", "--output", str(tmp_path), "--set", sizes)
    assert (code, err) == (3, f"recommender {expected}.\n")


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_the_list_of_commands_says_what_each_command_says_of_itself(name):
    command = cli.load(name)
    assert command.help is not None
    assert command.help.split("\n\n")[0].replace("\n", " ") == cli.COMMANDS[name].summary
