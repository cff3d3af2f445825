"""A small pipeline that tests run instead of the real graph; the variable STANDIN_TROUBLE makes it fail or wait."""

import os
import signal
import time
from pathlib import Path

from tfx import v1 as tfx
from tfx.dsl.components.common.resolver import Resolver
from tfx.types import standard_artifacts
from tfx.utils import path_utils

from components.data.raw_files import DataError
from components.validation.data_gate import Anomaly, AnomalyError
from pipeline.model_stage import pusher

TROUBLE = "STANDIN_TROUBLE"


@tfx.dsl.components.component
def Source(
    text: tfx.dsl.components.Parameter[str],
    data: tfx.dsl.components.OutputArtifact[standard_artifacts.Examples],
) -> None:
    """Writes a text."""
    Path(data.uri, "text").write_text(text)


@tfx.dsl.components.component
def Worker(
    data: tfx.dsl.components.InputArtifact[standard_artifacts.Examples],
    factor: tfx.dsl.components.Parameter[int],
    model: tfx.dsl.components.OutputArtifact[standard_artifacts.Model],
) -> None:
    """Writes the text `factor` times; if STANDIN_TROUBLE is set, writes "half" and then fails or waits as it says."""
    result = Path(model.uri, "result")
    text = Path(data.uri, "text").read_text()
    trouble = os.environ.get(TROUBLE, "")
    if trouble and not trouble.startswith("report"):
        result.write_text("half")
    if trouble == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if trouble == "wait":
        time.sleep(120)
    if trouble == "data":
        raise DataError(Path("ratings.dat"), 17, "rating should be 1 to 5; received '7'.")
    if trouble == "anomalies":
        raise AnomalyError(
            [
                Anomaly("train", "occupation", "Out-of-range values", "Unexpectedly large value: 21."),
                Anomaly("train_eval", "genres", "High Linfty distance", "It is 0.3, above the threshold 0.1."),
            ]
        )
    if trouble == "error":
        raise ZeroDivisionError("factor should not be zero")
    if trouble == "disk":
        with Path(model.uri, "large").open("wb") as file:
            while True:
                file.write(bytes(1 << 20))
    result.write_text(text * factor)
    served = Path(path_utils.serving_model_path(model.uri))
    served.mkdir()
    (served / "saved_model.pb").write_text(text * factor)


@tfx.dsl.components.component
def Report(
    model: tfx.dsl.components.InputArtifact[standard_artifacts.Model],
    report: tfx.dsl.components.OutputArtifact[standard_artifacts.ModelEvaluation],
) -> None:
    """Writes a report that nothing reads; fails if STANDIN_TROUBLE is "report" or "report data"."""
    Path(report.uri, "report").write_text(Path(model.uri, "result").read_text())
    if os.environ.get(TROUBLE) == "report":
        raise ZeroDivisionError("[rows] should not be zero")
    if os.environ.get(TROUBLE) == "report data":
        raise DataError(Path("ratings.dat"), 17, "rating should be 1 to 5; received '7'.")


def create_pipeline(
    *, config, data_dir, pipeline_root, serving_dir, metadata_connection_config=None, enable_cache=True
):
    """Makes Source, Worker, report, Resolver and Pusher; the Worker's factor is `models.ranking.epochs`."""
    source = Source(text="ab").with_id("Source")
    worker = Worker(data=source.outputs["data"], factor=config.models.ranking.epochs).with_id("Worker")
    report = Report(model=worker.outputs["model"]).with_id("FeatureImportance")
    latest = Resolver(
        strategy_class=tfx.dsl.experimental.LatestArtifactStrategy,
        model=tfx.dsl.Channel(type=standard_artifacts.Model),
    ).with_id("Latest")
    latest.add_upstream_node(worker)
    push = pusher("recommender", worker.outputs["model"], None, serving_dir)
    return tfx.dsl.Pipeline(
        pipeline_name=config.name,
        pipeline_root=pipeline_root,
        components=[source, worker, report, latest, push],
        enable_cache=enable_cache,
        metadata_connection_config=metadata_connection_config,
        beam_pipeline_args=config.beam.args(),
    )
