"""However a pipeline is run, it makes the same: the whole graph, twice with other data in between, on the sample.

Ways to run it: node by node in one process, with TFX's BeamDagRunner, each node in a process of its own, and in the
containers that are written for Kubeflow, as processes of this machine with the metadata on a MariaDB.
"""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from components.data.sample import generate_sample
from tests.orchestrators.kubeflow_containers import Containers
from tests.orchestrators.test_kubeflow import ROOT, compiled
from tests.servers import MariaDB, running_mariadb

# Data and training are as small as they can be with models that pass their gates.
SETTINGS = ["models.dcn.epochs=4"]
SAMPLE = {"users": 300, "movies": 200, "ratings": 24_000}
NIGHTS = (0, 1)  # Seeds of the data.

pytestmark = [pytest.mark.nightly, pytest.mark.component, pytest.mark.timeout(7200)]

Run = Callable[[Path, Path, int], None]


@pytest.fixture(scope="module")
def mariadb(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MariaDB]:
    with running_mariadb(tmp_path_factory.mktemp("mariadb")) as server:
        yield server


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


def whole(runner: str, output: Path, data: Path) -> None:
    folders = ["--data", str(data), "--output", str(output)]
    done = movielens("run", "--config", "sample", "--runner", runner, *folders, *options())
    assert done.returncode in (0, 3), done.stdout + done.stderr


def one_by_one(output: Path, data: Path, night: int) -> None:
    file = output.with_name("pipeline.pb")
    folders = ["--data", str(data), "--root", str(output), "--output", str(file)]
    done = movielens("compile", "--config", "sample", *folders, *options())
    assert done.returncode == 0, done.stderr
    run = ["--run-id", str(night), "--pipeline", str(file)]
    for node in json.loads(file.with_suffix(".json").read_text())["nodes"]:
        done = movielens("run-node", "--node", node["id"], *run)
        assert done.returncode in (0, 3), done.stdout + done.stderr
    assert movielens("summary", *run).returncode in (0, 3)


def in_containers(mariadb: MariaDB, output: Path, data: Path, night: int) -> None:
    volume = output.parent
    if night == NIGHTS[0]:
        variables = mariadb.environment("movielens_same")
        command = volume / "movielens"
        command.write_text(
            f"#!/bin/sh\ncd {ROOT}\nexec {sys.executable} -c 'from pipeline.cli import main; main()' \"$@\"\n"
        )
        command.chmod(0o755)
        (volume / "secret.json").write_text(
            json.dumps({name.removeprefix("MOVIELENS_METADATA_").lower(): each for name, each in variables.items()})
        )
        compiled(volume, f"kubeflow.mount_path={volume}", *SETTINGS, data=str(data), root=str(output))
    secret = json.loads((volume / "secret.json").read_text())
    ended = Containers(volume / "movielens.yaml", secret, str(volume)).run(f"night-{night}", data=str(data))
    assert ended.succeeded, ended


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


def test_every_way_to_run_makes_the_same_twice(tmp_path: Path, mariadb: MariaDB) -> None:
    ways: dict[str, Run] = {
        "local": lambda output, data, _: whole("local", output, data),
        "beam": lambda output, data, _: whole("beam", output, data),
        "run-node": one_by_one,
        "containers": lambda output, data, night: in_containers(mariadb, output, data, night),
    }
    made: dict[str, list[dict[str, Any]]] = {way: [] for way in ways}
    for way, run in ways.items():
        (tmp_path / way).mkdir()
        for night in NIGHTS:
            data = tmp_path / way / "data"
            generate_sample(data, seed=night, force=True, **SAMPLE)
            run(tmp_path / way / "output", data, night)
            made[way].append(made_of(tmp_path / way / "output"))
    for night in NIGHTS:
        expected = made["local"][night]
        assert any(model["blessed"] for model in expected["results"].values())
        for way, nights in made.items():
            found = nights[night]
            assert found["states"] == expected["states"], (way, night)
            assert found["served"] == expected["served"], (way, night)
            for name, model in expected["results"].items():
                other = found["results"][name]
                for kind in ("metrics", "baseline"):
                    assert other[kind] == pytest.approx(model[kind], abs=1e-6), (way, night, name, kind)
                assert {key: other[key] for key in ("champion", "blessed", "pushed", "reasons")} == {
                    key: model[key] for key in ("champion", "blessed", "pushed", "reasons")
                }, (way, night, name)
    # On the second night, models meet those of the first.
    assert any(str(model["champion"]).startswith("Trainer.") for model in made["local"][1]["results"].values())
