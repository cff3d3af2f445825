"""One measured run of the data components, in a process of its own: `python -m benchmarks.data_job`.

A process for each run, so that neither memory nor what TensorFlow has traced is carried over from the one before.
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

if TYPE_CHECKING:
    from tfx.v1.dsl import Pipeline

    from pipeline.config import Config

EXAMPLE_GEN, STATISTICS_GEN, TRANSFORM = COMPONENTS = ("ExampleGen", "StatisticsGen", "Transform")

# The component that each node's cost counts for. The nodes of validation, which Transform waits for, count for none:
# they read statistics only.
_COMPONENT_OF = {"MovieLensExampleGen": EXAMPLE_GEN} | {name: name for name in COMPONENTS}
_SPLIT_FILES = "{node}/{output}/*/Split-*"
_OUTPUTS = {EXAMPLE_GEN: "examples", TRANSFORM: "transformed_examples"}


class Job(StrEnum):
    """Who does the work."""

    PIPELINE = "pipeline"
    STRAIGHTFORWARD = "straightforward"


@dataclass(frozen=True)
class Cost:
    """What a component took.

    Attributes:
      seconds: by the clock.
      cpu_seconds: of all cores, of this process and of the children it waited for.
      peak_mb: the most resident memory, with what earlier components left behind, in MB of 1024 kB.
    """

    seconds: float
    cpu_seconds: float
    peak_mb: int


class CostObserver:
    """Keeps what each node takes. Implements `pipeline.nodes.Observer`."""

    def __init__(self) -> None:
        self.costs: dict[str, Cost] = {}
        self._cpu_seconds = 0.0
        self._memory = PeakMemory()

    def started(self, node_id: str) -> None:
        """A node starts."""
        del node_id
        # Resets the kernel's high-water mark of this process's memory, see proc_pid_clear_refs(5).
        Path("/proc/self/clear_refs").write_text("5")
        self._cpu_seconds = _cpu_seconds()
        self._memory = PeakMemory().__enter__()

    def finished(self, node: NodeRun) -> None:
        """A node has ended."""
        self._memory.__exit__(None, None, None)
        self.costs[node.id] = Cost(node.seconds, _cpu_seconds() - self._cpu_seconds, self._memory.megabytes)


def _cpu_seconds() -> float:
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def data_pipeline(data: Path, root: Path, config: "Config | None" = None) -> "Pipeline":
    """The pipeline's own graph, from the raw files to the transformed examples.

    Args:
      data: folder of the raw files.
      root: where artifacts and metadata go.
      config: what to run; None for the defaults.
    """
    from pipeline.config import Config
    from pipeline.graph import create_data_pipeline
    from pipeline.local.recovery import metadata_config

    return create_data_pipeline(
        config=config or Config(name="data"),
        data_dir=str(data),
        pipeline_root=str(root),
        metadata_connection_config=metadata_config(root / "metadata.sqlite"),
        enable_cache=False,
    )


def count_rows(root: Path) -> dict[str, dict[str, int]]:
    """The rows that ExampleGen and Transform wrote below `root`, as {component: {split: rows}}."""
    import tensorflow as tf

    rows: dict[str, dict[str, int]] = {}
    for node, component in _COMPONENT_OF.items():
        if component not in _OUTPUTS:
            continue
        for folder in sorted(root.glob(_SPLIT_FILES.format(node=node, output=_OUTPUTS[component]))):
            files = [str(file) for file in folder.glob("*.gz")]
            records = tf.data.TFRecordDataset(files, compression_type="GZIP")
            count = records.reduce(tf.constant(0, tf.int64), lambda total, _: total + 1)
            rows.setdefault(component, {})[folder.name.removeprefix("Split-")] = int(count.numpy())
    return rows


def main(
    data: Annotated[Path, typer.Option(help="Folder of the raw files.")],
    root: Annotated[Path, typer.Option(help="Empty folder for what the run writes.")],
    result: Annotated[Path, typer.Option(help="File for what the components took, in JSON.")],
    job: Annotated[Job, typer.Option(help="Who does the work.")] = Job.PIPELINE,
) -> None:
    """Runs the data components on a folder, and writes what each took and how many rows came out."""
    from pipeline.local.runner import run_pipeline

    if job is Job.PIPELINE:
        pipeline = data_pipeline(data, root)
    else:
        from benchmarks.straightforward import straightforward_pipeline

        pipeline = straightforward_pipeline(data, root)
    observer = CostObserver()
    run_pipeline(pipeline, "local", observer)
    costs = {_COMPONENT_OF[node]: asdict(cost) for node, cost in observer.costs.items() if node in _COMPONENT_OF}
    result.write_text(json.dumps({"costs": costs, "rows": count_rows(root)}))


if __name__ == "__main__":
    typer.run(main)
