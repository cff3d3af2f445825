"""A pipeline that is as small as can be and still has what a prune looks at; tests let it run night after night."""

import os
from pathlib import Path

import ml_metadata as mlmd
import pandas as pd
from ml_metadata.proto.metadata_store_pb2 import Artifact
from tfx import v1 as tfx
from tfx.types import standard_artifacts

from components.ingestion.row_keys import write_row_keys
from components.ingestion.splits import TEST, TRAIN
from components.pushing.pushed_models import Push, pushes
from pipeline.local.choices import Champion, read_champions, read_outputs
from pipeline.local.errors import NodeFailed
from pipeline.local.output import OutputFolder
from pipeline.local.recovery import recover
from pipeline.local.runner import run_pipeline
from pipeline.local.store import metadata_config
from pipeline.model_stage import latest_blessed, pusher
from tests.pipeline.silent import Silent


def _write(uri: str, name: str, content: str) -> None:
    file = Path(uri, name)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(content)


@tfx.dsl.components.component
def Ingest(
    night: tfx.dsl.components.Parameter[int],
    examples: tfx.dsl.components.OutputArtifact[standard_artifacts.Examples],
) -> None:
    """Writes the ratings of people whom no other night has, and their keys."""
    _write(examples.uri, "Split-train/rows", f"rows of night {night}" * 1000)
    users = pd.DataFrame({"user_id": [2 * night, 2 * night + 1], "movie_id": 1, "timestamp": 1, "split": [TRAIN, TEST]})
    write_row_keys(examples.uri, users)


@tfx.dsl.components.component
def Transform(
    examples: tfx.dsl.components.InputArtifact[standard_artifacts.Examples],
    transform_graph: tfx.dsl.components.OutputArtifact[standard_artifacts.TransformGraph],
    transformed_examples: tfx.dsl.components.OutputArtifact[standard_artifacts.Examples],
) -> None:
    """Writes a graph and rows."""
    _write(transform_graph.uri, "graph", f"graph of {examples.uri}")
    _write(transformed_examples.uri, "Split-train/rows", f"rows of {examples.uri}" * 1000)


@tfx.dsl.components.component
def Train(
    transform_graph: tfx.dsl.components.InputArtifact[standard_artifacts.TransformGraph],
    transformed_examples: tfx.dsl.components.InputArtifact[standard_artifacts.Examples],
    content: tfx.dsl.components.Parameter[str],
    model: tfx.dsl.components.OutputArtifact[standard_artifacts.Model],
    model_run: tfx.dsl.components.OutputArtifact[standard_artifacts.ModelRun],
) -> None:
    """Writes a model where a Trainer does, unless it is a bad one."""
    if content == "fails":
        raise ValueError("the loss should be a number")
    _write(model.uri, "Format-Serving/saved_model.pb", content)
    _write(model.uri, "Format-Serving/variables/data", content)
    _write(model_run.uri, "events", f"{transform_graph.uri} {transformed_examples.uri}" * 1000)


@tfx.dsl.components.component
def Evaluate(
    examples: tfx.dsl.components.InputArtifact[standard_artifacts.Examples],
    model: tfx.dsl.components.InputArtifact[standard_artifacts.Model],
    blessed: tfx.dsl.components.Parameter[int],
    evaluation: tfx.dsl.components.OutputArtifact[standard_artifacts.ModelEvaluation],
    blessing: tfx.dsl.components.OutputArtifact[standard_artifacts.ModelBlessing],
) -> None:
    """Blesses a model, or not, as the Evaluator does."""
    _write(evaluation.uri, "metrics", f"metrics on {examples.uri}" * 1000)
    _write(blessing.uri, "BLESSED" if blessed else "NOT_BLESSED", "")
    blessing.set_int_custom_property("blessed", blessed)
    blessing.set_int_custom_property("current_model_id", model.id)


@tfx.dsl.components.component
def Report(
    model: tfx.dsl.components.InputArtifact[standard_artifacts.Model],
    fails: tfx.dsl.components.Parameter[int],
    report: tfx.dsl.components.OutputArtifact[standard_artifacts.ModelEvaluation],
) -> None:
    """Writes a report that nothing reads, or fails."""
    if fails:
        raise ValueError("nothing to report")
    _write(report.uri, "report", model.uri)


class Nights:
    """The output folder of a pipeline that runs every night.

    Attributes:
      champions: by night, what the ranker of that night was compared with.
    """

    def __init__(self, root: Path):
        self.root, self.output = root, OutputFolder(root)
        self.output.prepare(0)
        self.champions: dict[int, Champion] = {}
        self._logs = 0

    @property
    def store(self) -> mlmd.MetadataStore:
        return mlmd.MetadataStore(metadata_config(self.output.metadata))

    def run(
        self,
        night: int,
        content: str = "",
        blessed: int = 1,
        report_fails: int = 0,
        search: bool = False,
    ) -> dict[str, str]:
        """Runs the pipeline, or only its beginning as a search would, and gives the states of the nodes that ran."""
        ingest = Ingest(night=night)
        transform = Transform(examples=ingest.outputs["examples"])
        train = Train(
            transform_graph=transform.outputs["transform_graph"],
            transformed_examples=transform.outputs["transformed_examples"],
            content=content or f"model of night {night}",
        ).with_id("Trainer.ranking")
        model = train.outputs["model"]
        resolver = latest_blessed("ranking", model)
        evaluate = Evaluate(examples=ingest.outputs["examples"], model=model, blessed=blessed)
        evaluate.with_id("Evaluator.ranking").add_upstream_node(resolver)
        report = Report(model=model, fails=report_fails).with_id("FeatureImportance")
        push = pusher("ranking", model, evaluate.outputs["blessing"], str(self.output.serving))
        nodes = [ingest, transform] if search else [ingest, transform, train, resolver, evaluate, report, push]
        pipeline = tfx.dsl.Pipeline(
            pipeline_name="nightly",
            pipeline_root=str(self.output.artifacts),
            components=nodes,
            enable_cache=True,
            metadata_connection_config=metadata_config(self.output.metadata),
        )
        self._logs += 1
        try:
            ran = run_pipeline(pipeline, "local", Silent())
        except NodeFailed:
            return {"Trainer.ranking": "failed"}
        finally:
            recover(self.output)
            (self.output.logs / f"run-20261128-{self._logs:06d}-17.log").write_text(f"log of night {night}")
        outputs = read_outputs(self.store, ran)
        if "Trainer.ranking" in outputs:
            self.champions[night] = read_champions(self.store, outputs)["ranking"]
        return {node.id: node.state for node in ran}

    def artifacts(self, kind: str) -> list[Artifact]:
        """The artifacts of a type, the oldest first."""
        return sorted(self.store.get_artifacts_by_type(kind), key=lambda artifact: artifact.id)

    def live(self, kind: str) -> list[bool]:
        """Whether the artifacts of a type are live, the oldest first."""
        return [artifact.state == Artifact.LIVE for artifact in self.artifacts(kind)]

    def files(self, kind: str) -> list[list[str]]:
        """The files of the artifacts of a type, the oldest first."""
        folders = [Path(artifact.uri) for artifact in self.artifacts(kind)]
        return [
            sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()) for folder in folders
        ]

    def pushes(self) -> list[Push]:
        return pushes(self.store)

    def served(self) -> list[str]:
        """The contents of the versions, the oldest first."""
        folders = sorted((self.output.serving / "ranking").glob("[0-9]*"), key=lambda folder: int(folder.name))
        return [(folder / "saved_model.pb").read_text() for folder in folders]

    def contents(self) -> dict[str, bytes]:
        """All files but the lock's."""
        files = [Path(folder, name) for folder, _, names in os.walk(self.root) for name in names if name != ".lock"]
        return {str(file.relative_to(self.root)): file.read_bytes() for file in files}
