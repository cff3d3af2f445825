"""Runs the containers of a pipeline for Kubeflow one by one as processes of this machine, as Kubeflow would.

It stands in for Kubeflow itself, which needs a cluster: it goes by the graph, the parameters and the Secret's keys of
the written file, and by nothing else.
"""

import json
import os
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml


@dataclass
class Ended:
    """What became of the containers of a run.

    Attributes:
      codes: exit codes by the name of the task; None for one that was not started.
      said: what they wrote, by the name of the task.
    """

    codes: dict[str, int | None] = field(default_factory=dict)
    said: dict[str, str] = field(default_factory=dict)

    @property
    def succeeded(self) -> bool:
        return all(code == 0 for code in self.codes.values())


class Containers:
    """The containers of a file."""

    def __init__(self, file: Path, secret: dict[str, str], path: str):
        """Reads the file.

        Args:
          file: what kubeflow/compile.py wrote.
          secret: the values of the Secret by key.
          path: the folder with the command `movielens` of the image.
        """
        spec, platform = yaml.safe_load_all(file.read_text())
        self._components, self._root = spec["components"], spec["root"]
        self._executors = spec["deploymentSpec"]["executors"]
        self._platform = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
        self._secret, self._path = secret, path

    def run(self, run_id: str, **parameters: object) -> Ended:
        """Runs all containers, each after those that it waits for; once one has failed, none is started any more.

        What runs at the same time as one that fails comes to its end on Kubeflow; here, nothing does.
        """
        inputs = self._root["inputDefinitions"]["parameters"]
        given = {name: each["defaultValue"] for name, each in inputs.items()} | parameters
        ended = Ended()
        self._run_tasks(self._root["dag"]["tasks"], given, run_id, ended)
        return ended

    def _run_tasks(self, tasks: dict[str, Any], given: dict[str, object], run_id: str, ended: Ended) -> bool:
        done: dict[str, bool] = {}
        while len(done) < len(tasks):
            name = next(
                name
                for name, task in tasks.items()
                if name not in done and set(task.get("dependentTasks", [])) <= {*done}
            )
            task = tasks[name]
            always = task.get("triggerPolicy", {}).get("strategy") == "ALL_UPSTREAM_TASKS_COMPLETED"
            if always or all(done.values()):
                done[name] = self._run_task(task, given, run_id, ended)
            else:
                done[name] = False
                ended.codes[task["taskInfo"]["name"]] = None
        return all(done.values())

    def _run_task(self, task: dict[str, Any], given: dict[str, object], run_id: str, ended: Ended) -> bool:
        component = self._components[task["componentRef"]["name"]]
        inputs = {
            name: given[source["componentInputParameter"]]
            if "componentInputParameter" in source
            else source["runtimeValue"]["constant"].replace("{{$.pipeline_job_uuid}}", run_id)
            for name, source in task.get("inputs", {}).get("parameters", {}).items()
        }
        if "dag" in component:
            return self._run_tasks(component["dag"]["tasks"], inputs, run_id, ended)
        label = component["executorLabel"]
        container, platform = self._executors[label]["container"], self._platform[label]
        arguments = []
        for argument in container["args"]:
            for name, value in inputs.items():
                text = value if isinstance(value, str) else json.dumps(value)
                argument = argument.replace(f"{{{{$.inputs.parameters['{name}']}}}}", text)
            assert "{{" not in argument
            arguments.append(argument)
        environment = {
            each["envVar"]: self._secret[each["secretKey"]]
            for secret in platform["secretAsEnv"]
            for each in secret["keyToEnv"]
        }
        kept = {name: value for name, value in os.environ.items() if not name.startswith("MOVIELENS_")}
        done = subprocess.run(
            [*container["command"], *arguments],
            env=kept | environment | {"PATH": f"{self._path}:{os.environ['PATH']}", "COLUMNS": "200"},
            capture_output=True,
            text=True,
            check=False,
        )
        name = task["taskInfo"]["name"]
        ended.codes[name], ended.said[name] = done.returncode, done.stdout + done.stderr
        return done.returncode == 0
