"""The pipeline for Kubeflow Pipelines: what the file says, and what its containers do when they are run one by one."""

import json
import os
import re
import runpy
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

import pipeline
from pipeline.config import load_config
from tests.orchestrators.kubeflow_containers import Containers
from tests.pipeline.local import standin
from tests.pipeline.local.standin import TROUBLE
from tests.servers import MariaDB, running_mariadb

ROOT = Path(__file__).parents[2]
COMPILER = ROOT / "kubeflow" / "compile.py"
GOLDEN = Path(__file__).with_name("kubeflow_golden.txt")
IMAGE = "registry.example/movielens-tfx@sha256:" + "0123456789abcdef" * 4

pytestmark = [pytest.mark.component, pytest.mark.timeout(1200)]

pytest.importorskip("kfp", reason="kfp is not installed; it comes with the extra 'kubeflow'")


def compiled(folder: Path, *settings: str, config: str = "sample", **folders: str) -> Path:
    output = folder / "movielens.yaml"
    compile_pipeline = runpy.run_path(str(COMPILER))["compile_pipeline"]
    where = {"data": "/data/ml-1m", "root": "/data/output"} | folders
    compile_pipeline(config, ["metadata.backend=mysql", *settings], IMAGE, output=output, **where)
    return output


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compiled(tmp_path_factory.mktemp("kubeflow"))


@pytest.fixture(scope="module")
def spec(file: Path) -> dict[str, Any]:
    return next(yaml.safe_load_all(file.read_text()))


def tasks_of(spec: dict[str, Any]) -> dict[str, Any]:
    return spec["components"]["comp-exit-handler-1"]["dag"]["tasks"]


def test_kfp_takes_the_file(file: Path, spec: dict[str, Any]) -> None:
    from google.protobuf import json_format
    from kfp import components
    from kfp.pipeline_spec import pipeline_spec_pb2

    json_format.ParseDict(spec, pipeline_spec_pb2.PipelineSpec())
    assert spec["schemaVersion"] == "2.1.0"
    loaded = components.load_component_from_file(str(file))
    assert set(loaded.pipeline_spec.root.input_definitions.parameters) == {"data", "settings"}


def test_kfps_local_runner_knows_the_file_but_takes_no_containers(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # It needs Docker for them; `kubeflow_containers` stands in for it.
    from kfp import components, local
    from kfp.local.config import LocalExecutionConfig

    monkeypatch.setattr(LocalExecutionConfig, "instance", None)
    local.init(local.SubprocessRunner(use_venv=False), pipeline_root=str(tmp_path))
    with (
        pytest.warns(RuntimeWarning, match="custom or non-Python base image"),
        pytest.raises(RuntimeError, match="only supports running Lightweight Python Components"),
    ):
        components.load_component_from_file(str(file))()


def test_the_file_is_what_was_looked_at(spec: dict[str, Any]) -> None:
    """Nodes with what they wait for, images, resources and other tries; a change is to be read, and written anew."""
    lines = []
    for task in sorted(tasks_of(spec).values(), key=lambda each: each["taskInfo"]["name"]):
        executor = spec["deploymentSpec"]["executors"][
            spec["components"][task["componentRef"]["name"]]["executorLabel"]
        ]
        container = executor["container"]
        resources = container["resources"]
        wanted = f"cpu {resources['resourceCpuRequest']}, memory {resources['resourceMemoryLimit']}"
        tries = task["retryPolicy"]["maxRetryCount"] + 1
        after = ", ".join(task.get("dependentTasks", []))
        lines.append(f"{task['taskInfo']['name']} after [{after}]: {container['image']}, {wanted}, {tries} tries")
    assert lines == GOLDEN.read_text().splitlines()


def test_a_node_may_have_its_own_number_of_tries_which_have_the_time_that_they_take(tmp_path: Path) -> None:
    resources = '{"default": {}, "Trainer": {"retries": 0}, "Trainer.dcn": {"retries": 4}}'
    settings = [f"kubeflow.resources={resources}", "kubeflow.retries=1", "kubeflow.retry_seconds=86400"]
    spec = next(yaml.safe_load_all(compiled(tmp_path, *settings, "kubeflow.node_hours=6").read_text()))
    policies = {task["taskInfo"]["name"]: task.get("retryPolicy") for task in tasks_of(spec).values()}
    assert policies["Trainer.joint"] is None
    retries = {name: policy["maxRetryCount"] for name, policy in policies.items() if policy}
    assert (retries["Trainer.dcn"], retries["Transform"]) == (4, 1)
    # Five tries of six hours, and 1, 2, 4 and 8 days between them.
    longest = int(policies["Trainer.dcn"]["backoffMaxDuration"].removesuffix("s"))
    assert longest >= 5 * 6 * 3600 + 15 * 86_400


def test_nothing_of_this_machine_is_in_the_file(file: Path) -> None:
    text = file.read_text()
    paths = set(re.findall(r"(?<![\w.}$*/@])/[\w.-]+(?:/[\w.-]+)*", text))
    assert {path.split("/")[1] for path in paths} <= {"data", "etc"}
    assert str(ROOT) not in text


def test_the_configuration_is_whole(spec: dict[str, Any]) -> None:
    arguments = spec["deploymentSpec"]["executors"]["exec-compile"]["container"]["args"]
    assert load_config(arguments[2]) == load_config("sample", ["metadata.backend=mysql"])


def test_raw_files_may_be_elsewhere(tmp_path: Path) -> None:
    spec = next(yaml.safe_load_all(compiled(tmp_path, data="s3://bucket/ml-1m").read_text()))
    assert spec["root"]["inputDefinitions"]["parameters"]["data"]["defaultValue"] == "s3://bucket/ml-1m"


def test_caching_is_left_to_tfx(spec: dict[str, Any]) -> None:
    assert all(not task["cachingOptions"].get("enableCache") for task in tasks_of(spec).values())


def test_the_section_kubeflow_is_followed(tmp_path: Path) -> None:
    settings = {
        "volume_claim": "store",
        "mount_path": "/mnt/store",
        "metadata_secret": "db",
        "metadata_tls": "true",
        "retries": "0",
        "node_hours": "0.5",
        "resources": '{"default": {"cpu": "500m"}, "Trainer": {"memory": "9Gi"}, "Trainer.dcn": {"gpu": 2}}',
    }
    overrides = [f"kubeflow.{name}={value}" for name, value in settings.items()]
    file = compiled(tmp_path, *overrides, data="/mnt/store/data", root="/mnt/store/output")
    spec, platform = yaml.safe_load_all(file.read_text())
    executors = spec["deploymentSpec"]["executors"]
    assert executors["exec-datagate"]["container"]["resources"]["resourceCpuRequest"] == "500m"
    assert executors["exec-trainer-joint"]["container"]["resources"]["resourceMemoryLimit"] == "9Gi"
    of_dcn = executors["exec-trainer-dcn"]["container"]["resources"]
    assert of_dcn["resourceMemoryLimit"] == "4Gi"
    assert of_dcn["accelerator"]["resourceCount"] == "2"
    assert of_dcn["accelerator"]["resourceType"] == "nvidia.com/gpu"
    assert all("retryPolicy" not in task for task in tasks_of(spec).values())
    for name, executor in platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"].items():
        assert executor["pvcMount"][0]["mountPath"] == "/mnt/store", name
        assert executor["activeDeadlineSeconds"] == "1800"
        assert executor["secretAsVolume"][0]["mountPath"] == "/etc/movielens-metadata"
        names = executor["secretAsEnv"][0]
        assert names["secretName"] == "db"
        assert {each["envVar"] for each in names["keyToEnv"]} == {
            f"MOVIELENS_METADATA_{key}" for key in ("HOST", "PORT", "DATABASE", "USER", "PASSWORD")
        }


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--set", "name=my_movies"], "ml1m: name: String should match pattern"),
        (["--set", "metadata.backend=sqlite"], "metadata.backend should be mysql for Kubeflow Pipelines"),
        (["--set", "kubeflow.resources={Trainer: {cpu: '2'}}"], "resources should have the key `default`"),
        (["--set", "kubeflow.resources={default: {cpu: many}}"], "String should match pattern"),
        (["--config", "a" * 300], "File name too long"),
        (
            ["--image", "name:tag"],
            "as in NAME@sha256:…; received 'name:tag'",
        ),
        (["--image", "name@sha256:12"], "--image: should name an image by its digest"),
        (["--data", ""], "--data: should be a folder on the volume, which containers see at /data"),
        (["--root", "gs://b/d"], "--root: should be a folder on the volume"),
        (["--root", "/database"], "--root: should be a folder on the volume"),
        (["--root", "/data/../etc"], "--root: should be a folder on the volume"),
        (["--root", "/data/r?"], "--root: should have none of the characters"),
        (["--output", "{folder}"], "--output: should be a file such as movielens.yaml"),
        (["--output", "{folder}/movielens.json"], "--output: should be a file such as movielens.yaml"),
        (
            ["--output", "{folder}/file/movielens.yaml"],
            "--output: {folder}/file/movielens.yaml should be a file",
        ),
        (["--output", "gs://b/movielens.yaml"], "should be a path on this machine"),
        (["--config", "gs://b/config.yaml"], "--config: should be a path on this machine"),
    ],
)
def test_what_cannot_be_compiled_is_a_message_and_leaves_nothing(tmp_path: Path, options, expected) -> None:
    (tmp_path / "file").write_text("")
    given = {"--image": IMAGE, "--output": str(tmp_path / "new" / "movielens.yaml")}
    given |= {options[0]: options[1].replace("{folder}", str(tmp_path))}
    command = [sys.executable, str(COMPILER), *(word for option in given.items() for word in option)]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        env=os.environ | {"COLUMNS": "300", "TERM": "dumb"},
    )
    assert done.returncode == 2, done.stderr
    assert expected.replace("{folder}", str(tmp_path)) in done.stderr
    assert "Traceback" not in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("file", sorted((ROOT / "kubeflow" / "manifests").iterdir()), ids=lambda file: file.name)
def test_manifests_are_what_kubernetes_takes(file: Path) -> None:
    import kubernetes_validate

    for document in yaml.safe_load_all(file.read_text()):
        kubernetes_validate.validate(document, "1.31", strict=True)


def test_the_manifests_have_what_the_settings_name() -> None:
    settings = load_config("ml1m").kubeflow
    volume, secret = (
        yaml.safe_load((ROOT / "kubeflow" / "manifests" / name).read_text())
        for name in ("volume.yaml", "metadata-secret.yaml")
    )
    assert volume["metadata"]["name"] == settings.volume_claim
    assert secret["metadata"]["name"] == settings.metadata_secret
    assert list(secret["stringData"]) == ["host", "port", "database", "user", "password"]


@pytest.fixture(scope="module")
def mariadb(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MariaDB]:
    with running_mariadb(tmp_path_factory.mktemp("mariadb")) as server:
        yield server


@pytest.fixture
def containers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mariadb: MariaDB) -> Containers:
    """The containers of the small pipeline that stands in for the graph, in a folder of this machine."""
    monkeypatch.setitem(sys.modules, "pipeline.graph", standin)
    monkeypatch.setattr(pipeline, "graph", standin, raising=False)
    (tmp_path / "bin").mkdir()
    command = tmp_path / "bin" / "movielens"
    command.write_text(f'#!/bin/sh\ncd {ROOT}\nexec {sys.executable} -m tests.pipeline.local.standin_movielens "$@"\n')
    command.chmod(0o755)
    volume = tmp_path / "volume"
    (volume / "data").mkdir(parents=True)
    file = compiled(tmp_path, f"kubeflow.mount_path={volume}", data=str(volume / "data"), root=str(volume / "output"))
    variables = mariadb.environment("movielens_kubeflow")
    secret = {name.removeprefix("MOVIELENS_METADATA_").lower(): value for name, value in variables.items()}
    return Containers(file, secret, str(tmp_path / "bin"))


def states(ended) -> dict[str, str]:
    """What `run-node` said of the nodes."""
    lines = {name: said.splitlines()[-1] for name, said in ended.said.items() if name not in ("compile", "summary")}
    return {name: line.split(": ")[1].split(",")[0] for name, line in lines.items()}


def test_the_containers_do_the_work_and_the_next_run_has_the_cache(containers: Containers) -> None:
    first = containers.run("11111111-aaaa")
    assert first.succeeded, first
    assert set(states(first).values()) == {"complete", "resolved"}
    second = containers.run("22222222-bbbb", settings=["models.ranking.epochs=2"])
    assert second.succeeded, second
    assert states(second)["Source"] == "cached"
    assert states(second)["Worker"] == "complete"


def test_what_somebody_types_into_the_form_is_no_command(containers: Containers, tmp_path: Path) -> None:
    ended = containers.run("1", data=f"/x; touch {tmp_path}/made $(touch {tmp_path}/made)", settings=["$(reboot)=1"])
    assert ended.codes["compile"] == 2
    assert not (tmp_path / "made").exists()


def test_a_setting_that_has_been_followed_when_the_file_was_written_is_refused(containers: Containers) -> None:
    ended = containers.run("66666666-ffff", settings=["kubeflow.retries=0"])
    assert ended.codes["compile"] == 2
    assert "the section `kubeflow` says how containers are started" in ended.said["compile"]
    assert ended.codes["Source"] is None


def test_bad_data_end_the_run(containers: Containers, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(TROUBLE, "data")
    ended = containers.run("44444444-dddd")
    assert ended.codes["Worker"] == 2
    assert "ratings.dat:17" in ended.said["Worker"]
    assert ended.codes["Pusher.recommender"] is None
    # The summary is called all the same, and gives the reason.
    assert ended.codes["summary"] == 1
    assert "ratings.dat:17" in ended.said["summary"]


def test_a_report_that_fails_stops_nothing_and_the_summary_tells_of_it(
    containers: Containers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(TROUBLE, "report")
    ended = containers.run("55555555-eeee")
    assert {name for name, code in ended.codes.items() if code != 0} == {"summary"}
    assert "FeatureImportance failed" in ended.said["summary"]


def test_a_file_of_another_kind_is_not_submitted(tmp_path: Path) -> None:
    from typer.testing import CliRunner

    from pipeline import cli

    (tmp_path / "spec.yaml").write_text(json.dumps({"a": 1}))
    result = CliRunner().invoke(
        cli.app, ["submit", "--host", "http://127.0.0.1:1", "--spec", str(tmp_path / "spec.yaml")]
    )
    assert result.exit_code == 2
    assert "should be a file that kubeflow/compile.py wrote" in result.stderr
