"""However a pipeline is run, it makes the same: the whole graph, twice with other data in between, on the sample.

Ways to run it: node by node in one process, with TFX's BeamDagRunner, each node in a process of its own, in the
containers that are written for Kubeflow, as processes of this machine with the metadata on a MariaDB, and by a real
Airflow of each version that `make test-airflow` has made an environment for, with its database on a PostgreSQL.
"""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from components.data.sample import generate_sample
from tests.orchestrators.airflow_service import ENVIRONMENTS, Airflow
from tests.orchestrators.kubeflow_containers import Containers
from tests.orchestrators.test_kubeflow import ROOT, compiled
from tests.servers import running_mariadb, running_postgres

# Data and training are as small as they can be with models that pass their gates.
SETTINGS = ["models.dcn.epochs=4"]
SAMPLE = {"users": 300, "movies": 200, "ratings": 24_000}
NIGHTS = (0, 1)  # Seeds of the data.

pytestmark = [pytest.mark.component, pytest.mark.timeout(7200)]

# Runs the pipeline once, with the data of a night.
Run = Callable[[Path, int], None]


def movielens(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", "from pipeline.cli import main; main()", *arguments],
        cwd=ROOT,
        env=os.environ | {"COLUMNS": "200"},
        capture_output=True,
        text=True,
        check=False,
    )


def options() -> list[str]:
    return [option for setting in SETTINGS for option in ("--set", setting)]


def program(folder: Path) -> Path:
    """Writes the project's command as a program, which needs no installation."""
    command = folder / "movielens"
    command.write_text(
        f"#!/bin/sh\ncd {ROOT}\nexec {sys.executable} -c 'from pipeline.cli import main; main()' \"$@\"\n"
    )
    command.chmod(0o755)
    return command


def compile_nodes(output: Path, data: Path) -> Path:
    """Compiles the pipeline for single nodes; returns the list of its nodes."""
    file = output.with_name("pipeline.pb")
    folders = ["--data", str(data), "--root", str(output), "--output", str(file)]
    done = movielens("compile", "--config", "sample", *folders, *options())
    assert done.returncode == 0, done.stderr
    return file.with_suffix(".json")


@contextmanager
def in_one_process(runner: str, output: Path) -> Iterator[Run]:
    def run(data: Path, night: int) -> None:
        del night
        folders = ["--data", str(data), "--output", str(output)]
        done = movielens("run", "--config", "sample", "--runner", runner, *folders, *options())
        assert done.returncode in (0, 3), done.stdout + done.stderr

    yield run


@contextmanager
def one_by_one(output: Path) -> Iterator[Run]:
    def run(data: Path, night: int) -> None:
        listed = compile_nodes(output, data)
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
        file = compiled(volume, f"kubeflow.mount_path={volume}", *SETTINGS, root=str(output))

        def run(data: Path, night: int) -> None:
            ended = Containers(file, secret, str(volume)).run(f"night-{night}", data=str(data))
            assert ended.succeeded, ended

        yield run


@contextmanager
def by_airflow(environment: Path, output: Path) -> Iterator[Run]:
    folder = output.parent
    listed = compile_nodes(output, folder / "data")
    with running_postgres(["airflow"]) as address:
        airflow = Airflow(environment, folder, f"{address}/airflow", program(folder), listed)

        def run(data: Path, night: int) -> None:
            airflow.trigger(f"night-{night}", data=str(data))
            state = airflow.ended(f"night-{night}", seconds=3600)
            assert state == "success", airflow.tasks(f"night-{night}")

        try:
            airflow.start()
            yield run
        finally:
            airflow.stop()


WAYS: dict[str, Callable[[Path], AbstractContextManager[Run]]] = {
    "beam": partial(in_one_process, "beam"),
    "run-node": one_by_one,
    "containers": in_containers,
    **{environment.name: partial(by_airflow, environment) for environment in ENVIRONMENTS},
}


def made_of(output: Path) -> dict[str, Any]:
    """What a run has made, without times and places, and without numbers that count artifacts of all kinds."""
    summary = json.loads((output / "summary.json").read_text())
    states = {node["id"]: node["state"] for node in summary["components"]}
    results = {}
    for name, model in (*summary["models"].items(), ("recommender", summary["recommender"])):
        champion = model["champion"] or {}
        folder = re.sub(r"^.*?/pipeline/([^/]+)/.*$", r"\1", champion.get("uri") or "")
        results[name] = {
            "metrics": model["metrics"],
            "baseline": model["baseline"],
            "champion": folder or champion.get("why"),
            "blessed": model["blessed"],
            "pushed": bool(model["pushed"]),
            "reasons": [re.sub(r"\d+\.\d+", "#", reason) for reason in model["reasons"]],
        }
    files = {
        str(path.relative_to(output / "serving").parts[0]) for path in (output / "serving").glob("*/*/saved_model.pb")
    }
    return {"states": states, "results": results, "served": sorted(files)}


def nights(way: Callable[[Path], AbstractContextManager[Run]], folder: Path) -> list[dict[str, Any]]:
    """What the runs of all nights have made, one after the other in the same output folder."""
    made = []
    with way(folder / "output") as run:
        for night in NIGHTS:
            data = folder / "data"
            generate_sample(data, seed=night, force=True, **SAMPLE)
            run(data, night)
            made.append(made_of(folder / "output"))
    return made


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What `movielens run` makes."""
    made = nights(partial(in_one_process, "local"), tmp_path_factory.mktemp("local"))
    for night in made:
        assert any(model["blessed"] for model in night["results"].values())
    # On the second night, models meet those of the first.
    assert any(str(model["champion"]).startswith("Trainer.") for model in made[1]["results"].values())
    return made


@pytest.mark.parametrize(
    "way",
    [
        pytest.param(way, marks=pytest.mark.airflow if way.startswith("airflow") else pytest.mark.nightly)
        for way in WAYS
    ],
)
def test_every_way_to_run_makes_the_same_twice(way: str, expected: list[dict[str, Any]], tmp_path: Path) -> None:
    for night, (found, wanted) in enumerate(zip(nights(WAYS[way], tmp_path), expected, strict=True)):
        assert found["states"] == wanted["states"], night
        assert found["served"] == wanted["served"], night
        for name, model in wanted["results"].items():
            other = found["results"][name]
            for kind in ("metrics", "baseline"):
                assert other[kind] == pytest.approx(model[kind], abs=1e-6), (night, name, kind)
            assert {key: other[key] for key in ("champion", "blessed", "pushed", "reasons")} == {
                key: model[key] for key in ("champion", "blessed", "pushed", "reasons")
            }, (night, name)
