"""The pipeline as an Airflow DAG: put a file into Airflow's DAG folder that calls `create_dag`.

    from pipeline.airflow_dag import create_dag

    dag = create_dag()

Settings come from the environment of scheduler and workers:

    MOVIELENS_CONFIG   a preset or a YAML file (ml1m)
    MOVIELENS_DATA     folder of the raw files
    MOVIELENS_OUTPUT   folder for artifacts, metadata and pushed models
    MOVIELENS_SCHEDULE a cron expression; without one the DAG is started by hand
"""

import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tfx.orchestration.airflow.airflow_dag_runner import AirflowDagRunner, AirflowPipelineConfig
from tfx.orchestration.metadata import sqlite_metadata_connection_config

from pipeline.config import load_config
from pipeline.graph import create_pipeline


def create_dag() -> Any:
    """Returns the pipeline as an `airflow.models.DAG` that is named like its configuration.

    Raises:
        ValueError: a setting without a default is not in the environment.
    """
    output = Path(_setting("MOVIELENS_OUTPUT"))
    schedule = {
        "schedule": os.environ.get("MOVIELENS_SCHEDULE") or None,
        "start_date": datetime(2026, 1, 1, tzinfo=UTC),
        "catchup": False,
    }
    return AirflowDagRunner(AirflowPipelineConfig(schedule)).run(
        create_pipeline(
            config=load_config(os.environ.get("MOVIELENS_CONFIG", "ml1m")),
            data_dir=_setting("MOVIELENS_DATA"),
            pipeline_root=str(output / "pipeline"),
            serving_dir=str(output / "serving"),
            metadata_connection_config=sqlite_metadata_connection_config(str(output / "metadata.sqlite")),
        )
    )


def _setting(name: str) -> str:
    value = os.environ.get(name)
    if not value:
        raise ValueError(f"{name} should be set in Airflow's environment; it is not.")
    return value
