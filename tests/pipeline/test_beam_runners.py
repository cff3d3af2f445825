"""On whatever runner of Beam the data are processed, what comes out is the same.

Prism is Beam's server for one machine, in Go; the variable PRISM names it, or it is on PATH. The other one is Beam's
own job server in Python, which asks a pool for a worker process. Both are real.
"""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_data_validation as tfdv
from tfx import v1 as tfx

from components.data.sample import generate_sample
from pipeline.config import load_config
from pipeline.graph import data_stage
from pipeline.local.report import read_evaluation
from pipeline.local.runner import run_pipeline
from pipeline.local.store import FileStore
from pipeline.model_stage import model_stage
from tests.pipeline.silent import Silent
from tests.servers import free_port, wait_until

ROOT = Path(__file__).parents[2]
SETTINGS = ["models.dcn.epochs=1", "evaluation.mse_margin=0"]

pytestmark = [pytest.mark.beam, pytest.mark.nightly, pytest.mark.component, pytest.mark.timeout(3600)]


def made_by(folder: Path, data: Path, *settings: str) -> dict[str, Any]:
    """Runs the data components, one Trainer and its Evaluator, and reads what they made."""
    config = load_config("sample", [*SETTINGS, *settings])
    root = folder / "pipeline"
    store = FileStore(folder / "metadata.sqlite")
    stage = data_stage(config, str(data))
    model = model_stage("dcn", config, stage.examples, stage.gate, stage.transform, str(root), str(folder / "serving"))
    pipeline = tfx.dsl.Pipeline(
        pipeline_name="beam",
        pipeline_root=str(root),
        components=[*stage.nodes, *model.nodes],
        metadata_connection_config=store.connection,
        beam_pipeline_args=config.beam.args(),
    )
    run_pipeline(pipeline, "local", Silent())
    made: dict[str, Any] = {"rows": {}, "statistics": {}}
    for kind in ("MovieLensExampleGen/examples", "Transform/transformed_examples"):
        for split in sorted(root.glob(f"{kind}/*/Split-*")):
            files = sorted(str(file) for file in split.glob("*.gz"))
            records = tf.data.TFRecordDataset(files, compression_type="GZIP").as_numpy_iterator()
            # Features are a map, whose order in the bytes means nothing.
            examples = (tf.train.Example.FromString(record).features.feature for record in records)
            made["rows"][f"{kind} {split.name}"] = sorted(
                tuple((name, example[name].SerializeToString()) for name in sorted(example)) for example in examples
            )
    for split in sorted(root.glob("StatisticsGen/statistics/*/Split-*")):
        (statistics,) = tfdv.load_stats_binary(str(split / "FeatureStats.pb")).datasets
        made["statistics"][split.name] = {
            feature.path.step[0]: (feature.WhichOneof("stats"), exact_numbers(feature))
            for feature in statistics.features
        }
    (metrics,) = root.glob("Evaluator.dcn/evaluation/*")
    made["metrics"] = metrics_of(str(metrics))
    return made


def exact_numbers(feature: Any) -> tuple[float, ...]:
    """The exact numbers of a feature's statistics; quantiles are sketches, which depend on how rows are bundled."""
    kind = feature.WhichOneof("stats")
    stats = getattr(feature, kind)
    common = stats.common_stats
    numbers = (common.num_non_missing, common.num_missing, common.max_num_values, common.avg_num_values)
    return (*numbers, stats.mean, stats.std_dev, stats.min, stats.max) if kind == "num_stats" else numbers


def metrics_of(folder: str) -> dict[str, float]:
    return {
        f"{kind} {name}": value
        for kind, metrics in read_evaluation(folder).items()
        for name, value in metrics.items()
        if value is not None
    }


def assert_same(found: dict[str, Any], expected: dict[str, Any]) -> None:
    assert found["rows"].keys() == expected["rows"].keys()
    for name, rows in expected["rows"].items():
        assert found["rows"][name] == rows, name
    assert found["statistics"].keys() == expected["statistics"].keys()
    for split, features in expected["statistics"].items():
        assert found["statistics"][split].keys() == features.keys()
        for name, (kind, numbers) in features.items():
            assert found["statistics"][split][name][0] == kind
            np.testing.assert_allclose(found["statistics"][split][name][1], numbers, rtol=1e-9, err_msg=name)
    assert expected["metrics"]
    assert found["metrics"] == pytest.approx(expected["metrics"], abs=1e-6)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "ratings"
    generate_sample(folder, users=200, movies=150, ratings=16_000)
    return folder


@pytest.fixture(scope="module")
def expected(data: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return made_by(tmp_path_factory.mktemp("in_memory"), data)


@pytest.fixture
def job_server(tmp_path: Path) -> Iterator[str]:
    """Beam's job server in Python."""
    port = free_port()
    with (tmp_path / "job_server.log").open("wb") as log:
        arguments = ["-m", "apache_beam.runners.portability.local_job_service_main", "--port", str(port)]
        process = subprocess.Popen([sys.executable, *arguments], stdout=log, stderr=log, cwd=tmp_path)
        try:
            wait_until(port, process, tmp_path / "job_server.log")
            yield f"localhost:{port}"
        finally:
            process.terminate()
            process.wait(60)


@pytest.fixture
def workers(tmp_path: Path) -> Iterator[str]:
    """A pool that starts a process for each worker that a runner asks for."""
    port = free_port()
    with (tmp_path / "pool.log").open("wb") as log:
        arguments = ["-m", "apache_beam.runners.worker.worker_pool_main", "--service_port", str(port)]
        # It starts workers as `python`.
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        environment = os.environ | {"PYTHONPATH": str(ROOT), "TF_USE_LEGACY_KERAS": "1", "PATH": path}
        command = [sys.executable, *arguments]
        process = subprocess.Popen(command, stdout=log, stderr=log, env=environment, start_new_session=True)
        try:
            wait_until(port, process, tmp_path / "pool.log")
            yield f"localhost:{port}"
        finally:
            # With its workers. It would give each of them ten seconds to end, which they need in full.
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(60)


def test_beams_job_server_with_worker_processes(
    tmp_path: Path, data: Path, expected: dict[str, Any], job_server: str, workers: str
) -> None:
    settings = ["runner=portable", f"job_endpoint={job_server}", "environment=external"]
    found = made_by(tmp_path, data, *(f"beam.{each}" for each in settings), f"beam.environment_config='{workers}'")
    assert_same(found, expected)
    # One for each of ExampleGen, StatisticsGen, Transform and the Evaluator, at least.
    assert (tmp_path / "pool.log").read_text().count("Starting worker") >= 4


def test_prism(tmp_path: Path, data: Path, expected: dict[str, Any]) -> None:
    prism = os.environ.get("PRISM") or shutil.which("prism")
    if not prism:
        pytest.skip("Prism is not there; `go install github.com/apache/beam/sdks/v2/go/cmd/prism@v2.77.0` builds it")
    settings = ["runner=prism", "environment=loopback", f"options=['--prism_location={prism}']"]
    assert_same(made_by(tmp_path, data, *(f"beam.{each}" for each in settings)), expected)
