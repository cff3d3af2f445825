"""The pipeline as an Airflow DAG, for Airflow 2.11 and 3: one task for each node, and a summary at the end.

Airflow and TFX need not share an environment: a task calls `movielens run-node` by its path, and this module imports
nothing but Airflow. Compile the pipeline once with `movielens compile`, which lists the nodes, and put a file like this
into Airflow's DAG folder:

    # An Airflow DAG.
    import sys

    sys.path.insert(0, "/path/to/this/project")
    from pipeline.airflow_dag import create_dag

    dag = create_dag()

Settings are environment variables of the scheduler and the workers or, in lower case, Airflow's Variables:

    MOVIELENS_PIPELINE      the file pipeline.json that `movielens compile` wrote (required)
    MOVIELENS_COMMAND       the project's command itself, with its path if it is not on PATH (default: movielens); if
                            it is a program that starts the command, a task that is killed may leave the command running
    MOVIELENS_SCHEDULE      a cron expression; without one, the DAG runs only when somebody starts it
    MOVIELENS_RETRIES       how often a node is tried again that failed or was killed (default: 2)
    MOVIELENS_RETRY_MINUTES minutes before the first of these tries; later ones wait longer (default: 1)
    MOVIELENS_NODE_HOURS    hours after which a node is ended (default: 6)
    MOVIELENS_RUN_HOURS     hours after which a run counts as failed (default: 24)
    MOVIELENS_POOL          the pool that Trainers and Tuners take a slot of (default: default_pool, in which all of
                            them may train at once); `airflow pools set trainers 1 "one training at a time"` makes one

With `metadata.backend: mysql`, the workers also need the variables MOVIELENS_METADATA_* that
pipeline/metadata_server.py lists. They are read by the command, not by Airflow.

Alerts on runs that take too long are Airflow's own, and differ between its versions: `create_dag(default_args={"sla":
timedelta(hours=4)}, sla_miss_callback=...)` for 2.11, `create_dag(deadline=DeadlineAlert(...))` from 3.1 on.

Whoever starts the DAG by hand may name another data folder, with spans how many of them to train on, and settings as
for --set. Bad data fail at once, without another try; a model that was not blessed is a task that is skipped, with the
reason in its log. Once bad data are mended, start a new run: one that is cleared does not read the data again, since a
node that came to its end does nothing when it is called again.

Each pushed model is an asset (a dataset, in Airflow 2). A run updates it also if the pushed model came from the cache.
"""

import ctypes
import json
import os
import re
import shlex
import signal
import subprocess
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

from airflow.configuration import conf

try:
    from airflow.sdk.exceptions import AirflowException, AirflowFailException, AirflowSkipException
except ImportError:
    from airflow.exceptions import AirflowException, AirflowFailException, AirflowSkipException

try:
    from airflow.sdk import DAG, Asset, BaseOperator, Param, TaskGroup, Variable
except ImportError:  # Airflow 2
    from airflow.datasets import Dataset as Asset
    from airflow.models import DAG, BaseOperator, Param, Variable
    from airflow.utils.task_group import TaskGroup

_Parsed = TypeVar("_Parsed")

DONE, BAD_INPUT, NOT_BLESSED = 0, 2, 3  # Exit codes of `movielens`.

# Airflow's executors whose tasks all run where its scheduler does.
_ON_ONE_MACHINE = ("LocalExecutor", "SequentialExecutor", "DebugExecutor")

_DIE_WITH_PARENT = 1  # PR_SET_PDEATHSIG, see `man 2 prctl`.
_LIBC = ctypes.CDLL(None)  # Loaded here, since a process that was forked from one with threads should load nothing.
_GRACE_SECONDS = 20


class Movielens(BaseOperator):
    """Calls the project's command, and shows in the task's log what it prints."""

    template_fields: Sequence[str] = ("arguments",)

    def __init__(self, *, command: Sequence[str], arguments: Sequence[str], skips: bool = True, **kwargs: Any):
        """Takes the command and its arguments.

        Args:
          command: the command.
          arguments: Airflow fills in what they say in double braces.
          skips: whether the task is skipped if a model was not blessed; otherwise it is then done.
          **kwargs: of any Airflow task.
        """
        super().__init__(**kwargs)
        self.command, self.arguments, self.skips = list(command), list(arguments), skips
        self._process: subprocess.Popen[str] | None = None

    def execute(self, context: Any) -> None:
        """Runs the command to its end.

        Raises:
          AirflowSkipException: there is nothing to go on with, as a model was not blessed.
          AirflowFailException: the data or the settings are bad; another try would fail, too.
          AirflowException: it failed in another way.
        """
        arguments = [*self.arguments, *self.further_arguments(context)]
        self.log.info("%s", shlex.join([*self.command, *arguments]))
        # A list and no shell, so that what somebody types into a form is never a command.
        self._process = subprocess.Popen(
            [*self.command, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            errors="replace",
            start_new_session=True,
            preexec_fn=_die_with_parent,
        )
        assert self._process.stdout is not None
        last = ""
        try:
            for line in self._process.stdout:
                self.log.info("%s", line.rstrip())
                # Where the log is comes after the error.
                last = line.strip() if line.strip() and not line.startswith("Log: ") else last
            code = self._process.wait()
        finally:
            self.on_kill()
        if code == NOT_BLESSED and self.skips:
            raise AirflowSkipException(last)
        if code == BAD_INPUT:
            raise AirflowFailException(last)
        if code not in (DONE, NOT_BLESSED):
            raise AirflowException(f"{self.task_id} ended with {code}: {last}")

    def further_arguments(self, context: Any) -> list[str]:
        """Arguments that depend on the run; none here."""
        del context
        return []

    def on_kill(self) -> None:
        """Ends the command when Airflow ends the task."""
        if self._process is not None and self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGTERM)
            try:
                self._process.wait(_GRACE_SECONDS)
            except subprocess.TimeoutExpired:
                os.killpg(self._process.pid, signal.SIGKILL)


class Compile(Movielens):
    """Compiles the pipeline for a run, with what was typed into the form."""

    def further_arguments(self, context: Any) -> list[str]:
        """The data folder, the spans and the settings of the run."""
        params = context["params"]
        data = ["--data", params["data"]] if params["data"] else []
        settings = [f"data.spans={params['spans']}"] if params.get("spans") else []
        settings += params["settings"] or []
        return [*data, *(option for setting in settings for option in ("--set", setting))]


def create_dag(
    pipeline: str | None = None, on_failure: Callable[[Any], None] | None = None, **dag_arguments: Any
) -> DAG:
    """Makes the DAG; its id is the `name` of the configuration.

    Args:
      pipeline: the file pipeline.json, for an Airflow with several of these DAGs; None for MOVIELENS_PIPELINE.
      on_failure: called with Airflow's context when a task has failed for good, but for the summary, which fails
        because others have; and when the run has failed.
      **dag_arguments: arguments of Airflow's DAG that are added to those from here, or replace them, such as `tags`.
        `default_args` and `params` are added one by one.

    Raises:
      ValueError: a setting is missing, the file that it names lists no nodes, or its metadata are in a file while tasks
        may run on several machines.
    """
    file = Path(pipeline or _setting("PIPELINE", None)).absolute()
    described = _read(file)
    command = _parsed("COMMAND", "movielens", shlex.split)
    if not command:
        raise ValueError("MOVIELENS_COMMAND should name the project's command; it is empty.")
    _check_metadata_can_be_shared(described)
    run = "{{ run_id | replace('/', '_') }}"
    compiled = str(Path(described["output"], "runs", f"{run}.pb"))
    default_args = {
        "owner": "movielens",
        "retries": _parsed("RETRIES", "2", int),
        "retry_delay": timedelta(minutes=_parsed("RETRY_MINUTES", "1", float)),
        "retry_exponential_backoff": True,
        "max_retry_delay": timedelta(minutes=30),
        "execution_timeout": timedelta(hours=_parsed("NODE_HOURS", "6", float)),
        "on_failure_callback": on_failure,
    }
    params = {
        "data": Param(
            described["data"],
            type=["null", "string"],
            title="Data folder",
            description="A folder that the workers can read.",
        ),
        "settings": Param(
            [],
            type=["null", "array"],
            items={"type": "string"},
            title="Settings",
            description="Replace settings of the configuration, one a line, as in models.ranking.epochs=3.",
        ),
    }
    if described.get("config", {}).get("data", {}).get("spans"):
        # Without spans the graph has fewer nodes, and this DAG has been drawn.
        params["spans"] = Param(
            None,
            type=["null", "integer"],
            minimum=1,
            title="Spans",
            description="How many of the newest spans are trained on; empty for what the configuration says.",
        )
    arguments = {
        "dag_id": described["name"],
        "description": f"{len(described['nodes'])} nodes of {described['name']}; writes to {described['output']}",
        "schedule": _setting("SCHEDULE", "") or None,
        "start_date": datetime(2026, 1, 1, tzinfo=UTC),
        "catchup": False,
        "max_active_runs": 1,
        "dagrun_timeout": timedelta(hours=_parsed("RUN_HOURS", "24", float)),
        "on_failure_callback": on_failure,
        "doc_md": __doc__,
        **dag_arguments,
        "default_args": default_args | dag_arguments.get("default_args", {}),
        "params": params | dag_arguments.get("params", {}),
    }
    dag = DAG(**arguments)
    with dag:
        first = Compile(
            task_id="compile", command=command, arguments=["compile", "--like", str(file), "--output", compiled]
        )
        ends = _add_nodes(described, command, compiled)
        last = Movielens(
            task_id="summary",
            command=command,
            arguments=["summary", "--pipeline", compiled, "--run-id", "{{ run_id }}"],
            skips=False,
            # Nothing comes after it, so that its state is that of the run: it fails if any node has failed. One that
            # only reports may fail; the others have results all the same.
            trigger_rule="all_done",
            retries=0,
            # What failed has called it already, and so does the run.
            on_failure_callback=None,
        )
        for task in ends["first"]:
            first >> task
        for task in ends["last"]:
            task >> last
    return dag


def _check_metadata_can_be_shared(described: dict[str, Any]) -> None:
    """Refuses metadata in a file where tasks may run on several machines.

    Raises:
      ValueError: one of Airflow's executors sends tasks elsewhere.
    """
    # Separated by commas, and by semicolons for teams; each is a name or a class, maybe behind that of a team or alias.
    executors = [each.strip() for each in re.split("[,;]", conf.get("core", "executor"))]
    elsewhere = [each for each in executors if re.split("[.:=]", each)[-1] not in _ON_ONE_MACHINE]
    if elsewhere and described.get("config", {}).get("metadata", {}).get("backend") == "sqlite":
        raise ValueError(
            f"metadata.backend should be mysql where tasks may run on several machines, as with {elsewhere[0]}; "
            "received 'sqlite', a file that several machines would spoil. Compile the pipeline with "
            "--set metadata.backend=mysql and another --root, also if the only worker is on this machine."
        )


def _add_nodes(described: dict[str, Any], command: list[str], compiled: str) -> dict[str, list[Movielens]]:
    """Adds a task for each node; returns those that no other comes before, and those that no other comes after."""
    pool = _setting("POOL", "default_pool")
    groups: dict[str, TaskGroup] = {}
    tasks: dict[str, Movielens] = {}
    for node in described["nodes"]:
        name, group = node["id"], node["group"]
        if group not in groups:
            groups[group] = TaskGroup(group_id=group, prefix_group_id=False)
        kind, _, model = name.partition(".")
        tasks[name] = Movielens(
            task_id=name,
            task_group=groups[group],
            command=command,
            arguments=["run-node", "--pipeline", compiled, "--node", name, "--run-id", "{{ run_id }}"],
            pool=pool if kind in ("Trainer", "Tuner") else "default_pool",
            # Airflow would skip what comes after a skipped task without a call. But the command decides: a recommender
            # may be made of earlier models, and that a node had nothing to do is recorded for the summary.
            trigger_rule="none_failed",
            outlets=[Asset(_pushed_to(described, model))] if kind == "Pusher" else [],
        )
        for before in node["upstream"]:
            tasks[before] >> tasks[name]
    return {
        "first": [task for task in tasks.values() if not task.upstream_task_ids],
        "last": [task for task in tasks.values() if not task.downstream_task_ids],
    }


def _pushed_to(described: dict[str, Any], model: str) -> str:
    """The URI of the folder that a model is pushed to."""
    serving = described.get("config", {}).get("storage", {}).get("serving")
    return f"{quote(serving, safe=':/')}/{model}" if serving else Path(described["output"], "serving", model).as_uri()


def _read(file: Path) -> dict[str, Any]:
    try:
        described: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        if lacking := {"name", "data", "output"} - set(described):
            raise ValueError(f"it lacks {', '.join(sorted(lacking))}")
        if not described["nodes"] or not all({"id", "upstream", "group"} <= set(node) for node in described["nodes"]):
            raise ValueError("a node lacks its id, its group, or what it waits for")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"MOVIELENS_PIPELINE should name the file pipeline.json that `movielens compile` wrote; {file}: {error!r}."
        ) from error
    return described


def _setting(name: str, default: str | None) -> str:
    """A setting, from the environment or else from Airflow's Variables.

    Raises:
      ValueError: there is neither, and no default.
    """
    variable = f"MOVIELENS_{name}"
    value = os.environ.get(variable)
    if value is None:
        value = Variable.get(variable.lower(), default)
    if value is None:
        raise ValueError(f"{variable} should be set in Airflow's environment, or {variable.lower()} as a Variable.")
    return value


def _parsed(name: str, default: str, parse: Callable[[str], _Parsed]) -> _Parsed:
    """A setting that is no text.

    Raises:
      ValueError: it cannot be parsed.
    """
    value = _setting(name, default)
    try:
        return parse(value)
    except ValueError as error:
        raise ValueError(f"MOVIELENS_{name} cannot be read; {error}; received {value!r}.") from error


def _die_with_parent() -> None:
    """Has the operating system end this process with the task: a second try must not find the first one at work."""
    _LIBC.prctl(_DIE_WITH_PARENT, signal.SIGKILL)
