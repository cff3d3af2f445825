"""An Airflow of the project's own environment, without a scheduler, with a small DAG whose commands are stand-ins.

Airflow is called in processes of its own, since its import sets up logging for the whole process.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]

LOAD = """
import json, sys
from airflow.models import DagBag
bag = DagBag(sys.argv[1], include_examples=False)
heavy = sorted({"tensorflow", "tfx", "apache_beam", "ml_metadata"} & set(sys.modules))
dags = {
    name: {
        "tasks": {task.task_id: sorted(task.upstream_task_ids) for task in dag.tasks},
        "groups": {task.task_id: task.task_group.group_id for task in dag.tasks},
        "pools": {task.task_id: task.pool for task in dag.tasks},
        "outlets": {task.task_id: [outlet.uri for outlet in task.outlets] for task in dag.tasks if task.outlets},
        "schedule": dag.timetable.summary,
        "params": sorted(dag.params),
        "active": dag.max_active_runs,
        "retries": sorted({task.retries for task in dag.tasks}),
        "slas": sorted({task.sla.total_seconds() / 3600 for task in dag.tasks if task.sla}),
        "alerts": {task.task_id: bool(task.on_failure_callback) for task in dag.tasks},
        "hours": sorted({task.execution_timeout.total_seconds() / 3600 for task in dag.tasks}),
    }
    for name, dag in bag.dags.items()
}
errors = {str(k): str(v) for k, v in bag.import_errors.items()}
print("RESULT" + json.dumps({"errors": errors, "dags": dags, "heavy": heavy}))
"""

RUN = """
import json, sys
from airflow.models import DagBag, TaskInstance
from airflow.utils.session import create_session
(dag,) = DagBag(sys.argv[1], include_examples=False).dags.values()
run = dag.test(run_conf=json.loads(sys.argv[2]))
with create_session() as session:
    tasks = session.query(TaskInstance).filter(TaskInstance.run_id == run.run_id).all()
    states = {task.task_id: str(task.state) for task in tasks}
print("RESULT" + json.dumps({"run": str(run.state), "run_id": run.run_id, "tasks": states}))
"""

# Notes down how it was called, and ends with what the variable of its node says.
COMMAND = """#!{python}
import json, os, sys
with open({calls!r}, "a") as file:
    file.write(json.dumps(sys.argv[1:]) + "\\n")
arguments = dict(zip(sys.argv[2::2], sys.argv[3::2]))
name = arguments.get("--node", sys.argv[1])
print(f"{{name}}: why it ended so")
print("Log: /out/logs/run.log")
sys.exit(json.loads(os.environ.get("EXIT_CODES", "{{}}")).get(name, 0))
"""


def write_dag(folder: Path) -> None:
    """Writes the file that the documentation shows into a new DAG folder."""
    folder.mkdir()
    lines = ["# An Airflow DAG.", "import sys", f"sys.path.insert(0, {str(ROOT)!r})"]
    lines += ["from pipeline.airflow_dag import create_dag", "dag = create_dag()"]
    (folder / "movielens.py").write_text("\n".join(lines))


class Airflow:
    """An Airflow of its own, with a DAG of four nodes."""

    def __init__(self, folder: Path):
        self.folder, self.calls = folder, folder / "calls"
        self.dags = folder / "dags"
        write_dag(self.dags)
        command = folder / "movielens"
        command.write_text(COMMAND.format(python=sys.executable, calls=str(self.calls)))
        command.chmod(0o755)
        upstream = {"Ingest": [], "Trainer.dcn": ["Ingest"], "Evaluator.dcn": ["Trainer.dcn"]}
        upstream["Pusher.dcn"] = ["Trainer.dcn", "Evaluator.dcn"]
        nodes = [
            {"id": name, "group": name.partition(".")[2] or "data", "upstream": before}
            for name, before in upstream.items()
        ]
        self.description = folder / "pipeline.json"
        described = {"name": "four", "data": "/data", "output": str(folder / "out"), "nodes": nodes}
        self.description.write_text(json.dumps(described))

    def environment(self, **settings: str) -> dict[str, str]:
        return {name: value for name, value in os.environ.items() if not name.startswith("MOVIELENS_")} | {
            "AIRFLOW_HOME": str(self.folder / "airflow"),
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{self.folder}/airflow.db",
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__CORE__UNIT_TEST_MODE": "False",
            "MOVIELENS_PIPELINE": str(self.description),
            "MOVIELENS_COMMAND": str(self.folder / "movielens"),
            "MOVIELENS_RETRY_MINUTES": "0.001",
            **settings,
        }

    def python(self, program: str, *arguments: str, **settings: str) -> dict[str, Any]:
        done = subprocess.run(
            [sys.executable, "-c", program, str(self.dags), *arguments],
            env=self.environment(**settings),
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        result: dict[str, Any] = json.loads(done.stdout.rsplit("RESULT", 1)[1].splitlines()[0])
        return result | {"log": done.stdout + done.stderr}

    def load(self, **settings: str) -> dict[str, Any]:
        return self.python(LOAD, **settings)

    def run(self, exit_codes: dict[str, int], **params: object) -> dict[str, Any]:
        """A run, after an Airflow database was made for the first."""
        if not (self.folder / "airflow.db").exists():
            self.python("from airflow.utils import db; db.initdb(); print('RESULT{}')")
        self.calls.unlink(missing_ok=True)
        return self.python(RUN, json.dumps(params), EXIT_CODES=json.dumps(exit_codes))

    def called(self) -> list[list[str]]:
        return [json.loads(line) for line in self.calls.read_text().splitlines()]
