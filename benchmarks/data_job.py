"""Runs the data components once and measures their cost: `python -m benchmarks.data_job`.

`benchmarks.data` starts a process for each run, so that neither memory nor TensorFlow's traced functions carry over
from the run before.
"""

import json
import resource
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.local.memory import PeakMemory
from pipeline.nodes import NodeRun
from pipeline.paths import artifact_path, local_path

if TYPE_CHECKING:
    from tfx.v1.dsl import Pipeline

    from pipeline.config import Config

EXAMPLE_GEN, STATISTICS_GEN, TRANSFORM = COMPONENTS = ("ExampleGen", "StatisticsGen", "Transform")

# The measured component by node id. The validation nodes run too, because Transform waits for them; they read only
# statistics, and their cost is not reported.
_COMPONENT_BY_NODE = {"MovieLensExampleGen": EXAMPLE_GEN} | {name: name for name in COMPONENTS}
_SPLIT_FILES = "{node}/{output}/*/Split-*"
_OUTPUTS = {EXAMPLE_GEN: "examples", TRANSFORM: "transformed_examples"}


class Job(StrEnum):
    """Which implementation of the data components runs."""

    PIPELINE = "pipeline"
    STRAIGHTFORWARD = "straightforward"


@dataclass(frozen=True)
class Cost:
    """Time and memory that a component took.

    Attributes:
      seconds: elapsed time.
      cpu_seconds: CPU time on all cores, of this process and of the child processes that have ended.
      peak_mb: peak resident memory in MB of 1024 kB; includes memory that earlier components left allocated.
    """

    seconds: float
    cpu_seconds: float
    peak_mb: int


class CostObserver:
    """Records the cost of each node; implements `pipeline.local.nodes.Observer`.

    Attributes:
      costs: cost by node id.
    """

    def __init__(self) -> None:
        self.costs: dict[str, Cost] = {}
        self._cpu_seconds = 0.0
        self._memory = PeakMemory()

    def started(self, node_id: str) -> None:
        """Starts to measure a node."""
        del node_id
        # Resets the kernel's peak resident memory of this process (VmHWM), see proc_pid_clear_refs(5).
        Path("/proc/self/clear_refs").write_text("5")
        self._cpu_seconds = _cpu_seconds()
        self._memory = PeakMemory().__enter__()

    def finished(self, node: NodeRun) -> None:
        """Stores the cost of a node that has ended."""
        self._memory.__exit__(None, None, None)
        self.costs[node.id] = Cost(node.seconds, _cpu_seconds() - self._cpu_seconds, self._memory.megabytes)


def _cpu_seconds() -> float:
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def data_pipeline(data: Path, root: Path, config: "Config | None" = None) -> "Pipeline":
    """The first part of the pipeline's own graph, from the raw files to the transformed examples.

    Args:
      data: folder of the raw files.
      root: folder for artifacts and metadata.
      config: the pipeline's configuration; None for the defaults.
    """
    from pipeline.config import Config
    from pipeline.graph import create_data_pipeline
    from pipeline.local.store import metadata_config

    return create_data_pipeline(
        config=config or Config(name="data"),
        data_dir=str(data),
        pipeline_root=str(root),
        metadata_connection_config=metadata_config(root / "metadata.sqlite"),
        enable_cache=False,
    )


def count_rows(root: Path) -> dict[str, dict[str, int]]:
    """Counts the rows that ExampleGen and Transform wrote below `root`, as {component: {split: rows}}."""
    import tensorflow as tf

    rows: dict[str, dict[str, int]] = {}
    for node, component in _COMPONENT_BY_NODE.items():
        if component not in _OUTPUTS:
            continue
        for folder in sorted(root.glob(_SPLIT_FILES.format(node=node, output=_OUTPUTS[component]))):
            files = [str(file) for file in folder.glob("*.gz")]
            records = tf.data.TFRecordDataset(files, compression_type="GZIP")
            count = records.reduce(tf.constant(0, tf.int64), lambda total, _: total + 1)
            rows.setdefault(component, {})[folder.name.removeprefix("Split-")] = int(count.numpy())
    return rows


def main(
    data: Annotated[Path, typer.Option(help="Folder of the raw files.", parser=local_path)],
    root: Annotated[Path, typer.Option(help="Empty folder for artifacts and metadata.", parser=artifact_path)],
    result: Annotated[Path, typer.Option(help="JSON file for costs and row counts.", parser=local_path)],
    job: Annotated[Job, typer.Option(help="Implementation to run.")] = Job.PIPELINE,
) -> None:
    """Runs the data components on a folder, and writes the cost of each and the number of rows they wrote."""
    from pipeline.local.runner import run_pipeline

    if job is Job.PIPELINE:
        pipeline = data_pipeline(data, root)
    else:
        from benchmarks.straightforward import straightforward_pipeline

        pipeline = straightforward_pipeline(data, root)
    observer = CostObserver()
    run_pipeline(pipeline, "local", observer)
    costs = {
        _COMPONENT_BY_NODE[node]: asdict(cost) for node, cost in observer.costs.items() if node in _COMPONENT_BY_NODE
    }
    result.write_text(json.dumps({"costs": costs, "rows": count_rows(root)}))


if __name__ == "__main__":
    typer.run(main)
