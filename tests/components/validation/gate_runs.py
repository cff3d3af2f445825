"""Runs the stock validators and the data gate on given rows, as TFX does, but without a metadata store."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import tensorflow_data_validation as tfdv
from tensorflow_data_validation.statistics import stats_impl
from tfx import v1 as tfx
from tfx.types import artifact_utils, standard_artifacts
from tfx.types.artifact import Artifact

from components.ingestion.splits import Strategy
from components.validation.data_gate import Anomaly, AnomalyError, DataGate
from components.validation.distributions import span_validator, train_eval_validator

SCHEMA_FILE = Path(__file__).parents[3] / "transform" / "schema.pbtxt"
SCHEMA = tfdv.load_schema_text(str(SCHEMA_FILE))

Columns = dict[str, pa.Array]


class Gate:
    """Runs the data gate on the rows of each split; artifacts are written below `folder`."""

    def __init__(self, folder: Path, splits: dict[str, Columns]):
        self.folder = folder
        self.splits = splits

    def artifact(self, kind: type[Artifact], name: str, splits: list[str] | None = None) -> Artifact:
        artifact = kind()
        artifact.uri = str(self.folder / name)
        if splits:
            artifact.split_names = artifact_utils.encode_split_names(splits)
        return artifact

    def statistics(self, name: str = "statistics") -> Artifact:
        statistics = self.artifact(standard_artifacts.ExampleStatistics, name, list(self.splits))
        for split, columns in self.splits.items():
            batch = pa.RecordBatch.from_arrays(list(columns.values()), list(columns))
            content = stats_impl.generate_statistics_in_memory(batch, tfdv.StatsOptions(schema=SCHEMA))
            path = self.folder / name / f"Split-{split}" / "FeatureStats.pb"
            path.parent.mkdir(parents=True)
            path.write_bytes(content.SerializeToString())
        return statistics

    def schema(self) -> Artifact:
        schema = self.artifact(standard_artifacts.Schema, "curated")
        Path(schema.uri).mkdir()
        tfdv.write_schema_text(SCHEMA, f"{schema.uri}/schema.pbtxt")
        return schema

    def run(self, strategy: Strategy = Strategy.RANDOM) -> list[str]:
        """Runs the gate and returns the names of the features in the schema that it writes.

        The splits `newest` and `previous`, if they are there, are compared as those of spans.

        Args:
          strategy: the split strategy, on which the comparison of train and eval depends.
        """
        statistics, schema = self.statistics(), self.schema()
        anomalies, drift = (self.artifact(standard_artifacts.ExampleAnomalies, name) for name in ("anomalies", "drift"))
        channel = tfx.dsl.Channel(type=standard_artifacts.ExampleStatistics)
        validator = tfx.components.ExampleValidator(
            statistics=channel,
            schema=tfx.dsl.Channel(type=standard_artifacts.Schema),
            exclude_splits=["movies", "newest", "previous"],
        )
        execute(validator, {"statistics": statistics, "schema": schema}, {"anomalies": anomalies})
        comparer = train_eval_validator(channel, SCHEMA, strategy)
        execute(comparer, {"statistics": statistics, "baseline_statistics": statistics}, {"anomalies": drift})
        written = self.artifact(standard_artifacts.Schema, "written")
        inputs = {"statistics": [statistics], "curated_schema": [schema], "anomalies": [anomalies], "drift": [drift]}
        if "newest" in self.splits:
            across_spans = self.artifact(standard_artifacts.ExampleAnomalies, "drift across spans")
            pair = {"statistics": statistics, "baseline_statistics": statistics}
            execute(span_validator(channel, SCHEMA), pair, {"anomalies": across_spans})
            # TFX unites channels in any order.
            inputs["drift"] = [across_spans, drift]
        executor = DataGate.EXECUTOR_SPEC.executor_class()
        executor.Do(inputs, {"schema": [written]}, {})
        return [feature.name for feature in tfdv.load_schema_text(f"{written.uri}/schema.pbtxt").feature]

    def anomalies(self, strategy: Strategy = Strategy.RANDOM) -> list[Anomaly]:
        """Runs the gate, checks that it refuses the rows, and returns the anomalies that its message lists."""
        with pytest.raises(AnomalyError) as caught:
            self.run(strategy)
        assert not (self.folder / "written").exists()
        for anomaly in caught.value.anomalies:
            for text in (anomaly.split, anomaly.feature, anomaly.short, anomaly.long):
                assert text in str(caught.value)
        return caught.value.anomalies


def execute(component: Any, inputs: dict[str, Artifact], outputs: dict[str, Artifact]) -> None:
    """Runs a stock component's executor on artifacts."""
    executor = component.executor_spec.executor_class()
    executor.Do(
        {name: [each] for name, each in inputs.items()},
        {name: [each] for name, each in outputs.items()},
        component.exec_properties,
    )
