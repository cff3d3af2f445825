"""The pipeline as an Airflow DAG.

To use it, put a file like this into Airflow's DAG folder:

    from pipeline.airflow_dag import create_dag

    dag = create_dag()

The DAG reads its settings from environment variables, which must be set for both the scheduler and the workers:

    MOVIELENS_CONFIG   a preset or a YAML file (default: ml1m)
    MOVIELENS_DATA     folder of the raw files (required)
    MOVIELENS_OUTPUT   folder for artifacts, metadata and pushed models (required)
    MOVIELENS_SCHEDULE a cron expression; without one, the DAG runs only when somebody starts it

File and folders are paths that scheduler and workers share; URIs are refused.
"""

import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tfx.orchestration.airflow.airflow_dag_runner import AirflowDagRunner, AirflowPipelineConfig
from tfx.orchestration.metadata import sqlite_metadata_connection_config

from pipeline.config import load_config
from pipeline.graph import create_pipeline
from pipeline.paths import check_local, check_no_pattern


def create_dag() -> Any:
    """Returns the pipeline as an `airflow.models.DAG`; its id is the `name` of the configuration.

    Raises:
      ValueError: a required environment variable is not set.
      PathError: a path is a URI, or the folder for the output reads as a pattern.
    """
    output, data = Path(_setting("MOVIELENS_OUTPUT")), _setting("MOVIELENS_DATA")
    check_no_pattern("MOVIELENS_OUTPUT", str(output))
    schedule = {
        "schedule": os.environ.get("MOVIELENS_SCHEDULE") or None,
        "start_date": datetime(2026, 1, 1, tzinfo=UTC),
        "catchup": False,
    }
    return AirflowDagRunner(AirflowPipelineConfig(schedule)).run(
        create_pipeline(
            config=load_config(os.environ.get("MOVIELENS_CONFIG", "ml1m")),
            data_dir=data,
            pipeline_root=str(output / "pipeline"),
            serving_dir=str(output / "serving"),
            metadata_connection_config=sqlite_metadata_connection_config(str(output / "metadata.sqlite")),
        )
    )


def _setting(name: str) -> str:
    value = os.environ.get(name)
    if not value:
        raise ValueError(f"{name} should be set in Airflow's environment; it is not.")
    check_local(name, value)
    return value
