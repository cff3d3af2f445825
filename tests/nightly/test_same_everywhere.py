"""However a pipeline is run, it makes the same: the whole graph, on three nights with other settings and other data.

Ways to run it: node by node in one process, with TFX's BeamDagRunner, each node in a process of its own, in the
containers that are written for Kubeflow, as processes of this machine with the metadata on a MariaDB, and by a real
Airflow of each version that `make test-airflow` has made an environment for, with its database on a PostgreSQL and,
from Airflow 3 on, the metadata on a MariaDB.
"""

import contextlib
import json
import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from components.data.sample import generate_sample
from tests.example_rows import rows_of
from tests.orchestrators.airflow_service import ENVIRONMENTS, Airflow
from tests.orchestrators.kubeflow_containers import Containers
from tests.orchestrators.test_kubeflow import ROOT, compiled
from tests.servers import running_mariadb, running_postgres

# Data and training are as small as they can be with models that pass their gates.
SETTINGS = ["models.dcn.epochs=4"]
SAMPLE = {"users": 300, "movies": 200, "ratings": 24_000}
POOL = "trainers"


class Night(NamedTuple):
    """A run: the seed of its data, and settings of its own."""

    seed: int
    settings: tuple[str, ...] = ()


NIGHTS = (
    # Nothing that retrieves can pass, so that there is nothing to make a recommender of.
    Night(0, ("evaluation.recall_margin=0.9",)),
    # What was trained is taken from the cache, and judged anew.
    Night(0),
    # Models meet those of the nights before.
    Night(1),
)

pytestmark = [pytest.mark.component, pytest.mark.timeout(4 * 3600)]

# Runs the pipeline once, with the data of a night, whose number is given.
Run = Callable[[Path, int], None]


def movielens(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", "from pipeline.cli import main; main()", *arguments],
        cwd=ROOT,
        env=os.environ | {"COLUMNS": "200"} | environment,
        capture_output=True,
        text=True,
        check=False,
    )


def options(*settings: str) -> list[str]:
    return [option for setting in (*SETTINGS, *settings) for option in ("--set", setting)]


def program(folder: Path) -> Path:
    """Writes the project's command as a program, which needs no installation."""
    command = folder / "movielens"
    command.write_text(
        f"#!/bin/sh\ncd {ROOT}\nexec {sys.executable} -c 'from pipeline.cli import main; main()' \"$@\"\n"
    )
    command.chmod(0o755)
    return command


def compile_nodes(output: Path, data: Path, *settings: str, **environment: str) -> Path:
    """Compiles the pipeline for single nodes; returns the list of its nodes."""
    file = output.with_name("pipeline.pb")
    folders = ["--data", str(data), "--root", str(output), "--output", str(file)]
    done = movielens("compile", "--config", "sample", *folders, *options(*settings), **environment)
    assert done.returncode == 0, done.stderr
    return file.with_suffix(".json")


@contextmanager
def in_one_process(runner: str, output: Path) -> Iterator[Run]:
    def run(data: Path, night: int) -> None:
        folders = ["--data", str(data), "--output", str(output)]
        done = movielens("run", "--config", "sample", "--runner", runner, *folders, *options(*NIGHTS[night].settings))
        assert done.returncode in (0, 3), done.stdout + done.stderr

    yield run


@contextmanager
def one_by_one(output: Path) -> Iterator[Run]:
    def run(data: Path, night: int) -> None:
        listed = compile_nodes(output, data, *NIGHTS[night].settings)
        of_run = ["--run-id", str(night), "--pipeline", str(listed.with_suffix(".pb"))]
        for node in json.loads(listed.read_text())["nodes"]:
            done = movielens("run-node", "--node", node["id"], *of_run)
            assert done.returncode in (0, 3), done.stdout + done.stderr
        assert movielens("summary", *of_run).returncode in (0, 3)

    yield run


@contextmanager
def in_containers(output: Path) -> Iterator[Run]:
    volume = output.parent
    (volume / "mariadb").mkdir()
    with running_mariadb(volume / "mariadb") as mariadb:
        variables = mariadb.environment("movielens_same")
        secret = {name.removeprefix("MOVIELENS_METADATA_").lower(): each for name, each in variables.items()}
        program(volume)
        file = compiled(volume, f"kubeflow.mount_path={volume}", *SETTINGS, data=str(volume / "data"), root=str(output))

        def run(data: Path, night: int) -> None:
            parameters = {"data": str(data), "settings": list(NIGHTS[night].settings)}
            ended = Containers(file, secret, str(volume)).run(f"night-{night}", **parameters)
            assert ended.succeeded, ended

        yield run


@contextmanager
def by_airflow(environment: Path, output: Path) -> Iterator[Run]:
    folder = output.parent
    with running_postgres(["airflow"]) as address, contextlib.ExitStack() as stack:
        settings, variables = [], {}
        if not environment.name.startswith("airflow-2"):
            (folder / "mariadb").mkdir()
            mariadb = stack.enter_context(running_mariadb(folder / "mariadb"))
            settings, variables = ["metadata.backend=mysql"], mariadb.environment("movielens_airflow")
        listed = compile_nodes(output, folder / "data", *settings, **variables)
        variables |= {"MOVIELENS_POOL": POOL}
        airflow = Airflow(environment, folder, f"{address}/airflow", program(folder), listed, variables)
        stack.callback(airflow.stop)
        airflow.start()
        airflow.call("pools", "set", POOL, "1", "one training at a time")

        def run(data: Path, night: int) -> None:
            airflow.trigger(f"night-{night}", data=str(data), settings=list(NIGHTS[night].settings))
            state = airflow.ended(f"night-{night}", seconds=3600)
            assert state == "success", airflow.tasks(f"night-{night}")

        yield run


BY_AIRFLOW = {environment.name: partial(by_airflow, environment) for environment in ENVIRONMENTS}
WAYS: dict[str, Callable[[Path], AbstractContextManager[Run]]] = {
    "beam": partial(in_one_process, "beam"),
    "run-node": one_by_one,
    "containers": in_containers,
    **BY_AIRFLOW,
}


def made_of(output: Path, night: int, born: dict[str, int]) -> dict[str, Any]:
    """What a run has made, without times and places, and without numbers that count artifacts of all kinds.

    Args:
      output: the output folder.
      night: the number of the run.
      born: on which night each artifact was made, by its folder; those of this run are added.
    """
    pipeline = output / "pipeline"
    new = {
        str(path.relative_to(pipeline))
        for path in pipeline.glob("*/*/*")
        if not any(part.startswith(".") for part in path.relative_to(pipeline).parts)
    } - born.keys()
    born |= dict.fromkeys(new, night)
    summary = json.loads((output / "summary.json").read_text())
    results = {}
    for name, model in (*summary["models"].items(), ("recommender", summary["recommender"])):
        champion = model.get("champion") or {}
        place = re.sub(r"^.*?/pipeline/", "", champion.get("uri") or "").split("/")
        results[name] = {
            **{key: model.get(key) for key in ("metrics", "baseline", "kept", "against_champion", "blessed")},
            "champion": [place[0], born["/".join(place[:3])]] if len(place) > 1 else champion.get("why"),
            "pushed": bool(model["pushed"]),
            "reasons": [re.sub(r"\d+\.\d+", "#", reason) for reason in model["reasons"]],
        }
    return {
        "states": {node["id"]: node["state"] for node in summary["components"]},
        "results": results,
        "served": sorted(
            str(path.parent.parent.relative_to(output / "serving"))
            for path in (output / "serving").glob("*/*/saved_model.pb")
        ),
        "artifacts": dict(Counter(path.rpartition("/")[0] for path in new)),
        "rows": {
            f"{place.rpartition('/')[0]} {split.name}": rows_of(split)
            for place in sorted(new)
            if place.split("/")[1] in ("examples", "transformed_examples")
            for split in (pipeline / place).glob("Split-*")
        },
    }


def leaves(tree: Any, path: str = "") -> dict[str, Any]:
    """The values of nested dictionaries and lists, by their paths."""
    if isinstance(tree, dict) and tree:
        return {name: leaf for key, each in tree.items() for name, leaf in leaves(each, f"{path}/{key}").items()}
    if isinstance(tree, list) and tree:
        return {name: leaf for key, each in enumerate(tree) for name, leaf in leaves(each, f"{path}/{key}").items()}
    return {path: tree}


def nights(way: Callable[[Path], AbstractContextManager[Run]], folder: Path) -> list[dict[str, Any]]:
    """What the runs of all nights have made, one after the other in the same output folder."""
    made, born = [], dict[str, int]()
    with way(folder / "output") as run:
        for number, night in enumerate(NIGHTS):
            data = folder / "data"
            generate_sample(data, seed=night.seed, force=True, **SAMPLE)
            run(data, number)
            made.append(made_of(folder / "output", number, born))
    return made


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What `movielens run` makes."""
    first, second, third = made = nights(partial(in_one_process, "local"), tmp_path_factory.mktemp("local"))
    assert first["states"]["RecommenderBuilder"] == "skipped"
    assert first["results"]["dcn"]["blessed"]
    assert second["states"]["Trainer.retrieval"] == "cached"
    assert second["results"]["recommender"]["pushed"]
    champions = {name: model["champion"] for name, model in third["results"].items()}
    assert champions["dcn"] == ["Trainer.dcn", 0]
    assert champions["recommender"] == ["RecommenderBuilder", 1]
    return made


@pytest.mark.parametrize(
    "way",
    [pytest.param(way, marks=pytest.mark.airflow if way in BY_AIRFLOW else pytest.mark.nightly) for way in WAYS],
)
def test_every_way_to_run_makes_the_same_every_night(way: str, expected: list[dict[str, Any]], tmp_path: Path) -> None:
    for night, (found, wanted) in enumerate(zip(nights(WAYS[way], tmp_path), expected, strict=True)):
        got, should = leaves(found), leaves(wanted)
        assert got.keys() == should.keys(), night
        numbers = {path for path, value in should.items() if isinstance(value, float)}
        others = should.keys() - numbers
        assert {path: got[path] for path in others} == {path: should[path] for path in others}, night
        close = pytest.approx({path: should[path] for path in numbers}, abs=1e-6)
        assert {path: got[path] for path in numbers} == close, night
