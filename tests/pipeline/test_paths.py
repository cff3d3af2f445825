"""URIs and paths that read as patterns are refused by every option, before anything is read or written."""

import importlib
import inspect
import pkgutil
import runpy
import subprocess
import sys
import types
import typing
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

import benchmarks
from pipeline import cli
from pipeline.config import ConfigError, load_config
from pipeline.paths import PathError, artifact_path, check_local, check_no_pattern, data_path, local_path

ROOT = Path(__file__).resolve().parents[2]
URIS = ["gs://bucket/out", "s3://bucket/out", "hdfs://host/out", "file:///out", "abfs+x.y-z://out"]
PATTERNS = ["o[1]", "o*", "o?", "{SPAN}", "o\\o", "o]"]


def commands() -> Iterator[tuple[tuple[str, ...], Callable[..., Any]]]:
    """Every command of `movielens` with the function behind it."""
    for name, command in cli.COMMANDS.items():
        target = getattr(importlib.import_module(command.module), command.attribute)
        if isinstance(target, typer.Typer):
            for each in target.registered_commands:
                assert each.callback
                yield (name, each.name or each.callback.__name__), each.callback
        else:
            yield (name,), target


def path_parameters(function: Callable[..., Any]) -> Iterator[tuple[str, Any]]:
    """The parameters of a function that are paths, with what typer knows of them."""
    for name, hint in typing.get_type_hints(function, include_extras=True).items():
        kind, *extras = typing.get_args(hint) if typing.get_origin(hint) is typing.Annotated else (hint,)
        if Path in (typing.get_args(kind) if isinstance(kind, types.UnionType) else (kind,)):
            yield name, extras[0]


CASES = [
    (command, name, info, {artifact_path: "artifact", data_path: "data", local_path: "local"}[info.parser])
    for command, function in commands()
    for name, info in path_parameters(function)
]


def invoke(command: tuple[str, ...], name: str, info: Any, value: str) -> tuple[int, str]:
    arguments = [value] if isinstance(info, typer.models.ArgumentInfo) else [f"--{name}", value]
    arguments += ["dcn"] if command == ("tune",) else []
    result = CliRunner().invoke(cli.app, [*command, *arguments], env={"COLUMNS": "200", "TERM": "dumb"})
    return result.exit_code, result.stderr


@pytest.mark.parametrize(("command", "name", "info", "kind"), CASES, ids=[" ".join((*c[0], c[1])) for c in CASES])
def test_every_path_option_refuses_a_uri_but_raw_files_may_be_elsewhere(
    tmp_path, monkeypatch, command, name, info, kind
):
    monkeypatch.chdir(tmp_path)
    uri = "nowhere://bucket/out" if kind == "data" else "gs://bucket/out"
    code, err = invoke(command, name, info, uri)
    assert code == 2
    assert name in err
    if kind == "data":
        assert f"should be a path, or a URI that fsspec understands; '{uri}'" in err
    else:
        assert f"should be a path on this machine; received the URI '{uri}'." in err
    assert not list(tmp_path.iterdir())


def test_the_cases_are_all_there():
    found = {(*command, name) for command, name, *_ in CASES}
    assert found == {
        *(("run", name) for name in ("data", "output")),
        *(("tune", name) for name in ("data", "output")),
        *(("plan", name) for name in ("data", "output")),
        *(("compile", name) for name in ("data", "root", "output", "like")),
        ("run-node", "pipeline"),
        ("summary", "pipeline"),
        ("submit", "spec"),
        ("withdraw", "output"),
        ("prune", "output"),
        ("serve", "models"),
        *(("data", "credits", name) for name in ("links", "imdb", "output", "movies")),
        ("data", "sample", "output"),
        ("data", "fetch", "output"),
        ("data", "check", "folder"),
    }


@pytest.mark.component
def test_every_path_option_of_the_other_programs_has_one_of_the_two_parsers():
    functions = {"compile": runpy.run_path(str(ROOT / "kubeflow" / "compile.py"))["main"]}
    for module in pkgutil.iter_modules(benchmarks.__path__, "benchmarks."):
        main = getattr(importlib.import_module(module.name), "main", None)
        if inspect.isfunction(main):
            functions[module.name] = main
    found = {name: {key: info.parser for key, info in path_parameters(main)} for name, main in functions.items()}
    assert {"compile", "benchmarks.quality", "benchmarks.data_job"} <= set(found)
    parsers = [parser for each in found.values() for parser in each.values()]
    assert len(parsers) >= 13
    assert set(parsers) == {local_path, artifact_path}
    artifacts = {(name, key) for name, each in found.items() for key, parser in each.items() if parser is artifact_path}
    outputs = {("benchmarks.nodes", "output"), ("benchmarks.spans", "output")}
    assert outputs <= artifacts
    assert {key for _, key in artifacts - outputs} == {"cache", "root"}


@pytest.mark.parametrize(
    ("command", "option"),
    [(("run",), "--output"), (("tune", "dcn"), "--output"), (("compile", "--data", "d"), "--root")],
)
@pytest.mark.parametrize("name", PATTERNS)
def test_an_output_folder_that_reads_as_a_pattern_is_refused(tmp_path, monkeypatch, command, option, name):
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(cli.app, [*command, option, name], env={"COLUMNS": "200", "TERM": "dumb"})
    assert result.exit_code == 2
    assert f"{option}: should have none of the characters [ ] * ? {{ }} \\ in its path" in result.stderr
    assert repr(str(tmp_path / name)) in result.stderr
    assert not list(tmp_path.iterdir())


def test_so_is_the_default_output_folder_below_such_a_folder(tmp_path, monkeypatch):
    folder = tmp_path / "here[1]"
    folder.mkdir()
    monkeypatch.chdir(folder)
    result = CliRunner().invoke(cli.app, ["run"], env={"COLUMNS": "200", "TERM": "dumb"})
    assert result.exit_code == 2
    assert "--output: should have none of the characters" in result.stderr
    assert not list(folder.iterdir())


def test_so_is_a_folder_of_models_to_serve(tmp_path):
    folder = tmp_path / "models[1]"
    folder.mkdir()
    result = CliRunner().invoke(cli.app, ["serve", "--models", str(folder)], env={"COLUMNS": "300", "TERM": "dumb"})
    assert result.exit_code == 2
    assert "'--models': should have none of the characters" in result.stderr


@pytest.mark.parametrize("models", ["gs://bucket/models", "models[1]"])
def test_the_server_of_the_serving_package_refuses_both(tmp_path, models):
    done = subprocess.run(
        [sys.executable, "-m", "serving", "--models", models],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 2
    assert "--models: should be a path without :// and without [ ] * ? { } \\" in done.stderr
    assert models in done.stderr


@pytest.mark.parametrize("uri", URIS)
def test_a_uri_is_told_from_a_path(uri):
    with pytest.raises(PathError, match=r"^X: should be a path on this machine; received the URI '"):
        check_local("X", uri)
    with pytest.raises(typer.BadParameter, match="received the URI"):
        local_path(uri)
    with pytest.raises(ConfigError, match=r"^--config: should be a path on this machine; received the URI"):
        load_config(uri)


@pytest.mark.parametrize("path", ["out", "/a/b", "a:b", "gs:/bucket", "C:\\out", "./a://b", "1://b", "d[1]"])
def test_other_names_are_paths(path):
    check_local("X", path)
    assert local_path(path) == Path(path)


@pytest.mark.parametrize("name", PATTERNS)
def test_artifacts_may_not_lie_in_a_folder_that_reads_as_a_pattern(name):
    for path in (f"/a/{name}/b", f"gs://bucket/{name}"):
        with pytest.raises(PathError, match=r"^X: should have none of the characters"):
            check_no_pattern("X", path)
    with pytest.raises(typer.BadParameter, match="none of the characters"):
        artifact_path(name)
    check_no_pattern("X", "gs://bucket/a-b_c (d) é")


@pytest.mark.component
def test_no_orchestrator_gets_a_pipeline_in_a_folder_that_reads_as_a_pattern(tmp_path):
    from pipeline.graph import create_data_pipeline, create_pipeline, create_tuning_pipeline

    folders: dict[str, Any] = {"config": load_config("sample"), "data_dir": str(tmp_path / "d[1]")}
    with pytest.raises(PathError, match=r"^pipeline_root: .*'/root\*'"):
        create_pipeline(**folders, pipeline_root="/root*", serving_dir="/serving")
    with pytest.raises(PathError, match=r"^serving_dir: .*'gs://b/s\?'"):
        create_pipeline(**folders, pipeline_root="/root", serving_dir="gs://b/s?")
    with pytest.raises(PathError, match=r"^pipeline_root: "):
        create_data_pipeline(**folders, pipeline_root="/root[")
    with pytest.raises(PathError, match=r"^pipeline_root: "):
        create_tuning_pipeline(**folders, model="dcn", pipeline_root="/root[")
    assert create_pipeline(**folders, pipeline_root="gs://b/root", serving_dir="gs://b/serving")


@pytest.mark.parametrize("value", ["", " gs://bucket/out", "caf\udce9"])
def test_paths_that_mean_something_else_or_are_no_text_are_refused(value):
    with pytest.raises(typer.BadParameter, match="should be a path"):
        local_path(value)
