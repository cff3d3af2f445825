"""The pipeline for Kubeflow Pipelines 2: a container for each node, which calls `movielens run-node` in the image.

TFX's own compiler for Kubeflow knows neither the project's resolvers nor ExampleGen's driver, without which no run
knows the models of the one before. So the pipeline is written with kfp, as a graph of containers. The first of them
compiles the pipeline inside of the image: paths and cache keys are those of the image, and never of the machine that
wrote the graph.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from kfp import compiler, dsl, kubernetes

from pipeline.kubeflow_config import KubeflowConfig
from pipeline.nodes import ONLY_REPORT

# A run's compiled pipeline lies beside those of other runs: `$1` is the folder of the runs and `$2` the id of this one.
# Shells get values as arguments and never within their script, so that nothing in a form becomes a command.
_FILE = '"$1/runs/$2.pb"'
_COMPILE = (
    f'exec movielens compile --root "$1" --output {_FILE} --config "$3" --data "$4" --set "$5" '
    '--set metadata.backend=mysql --nodes "$6"'
)
_RUN_NODE = f'exec movielens run-node --pipeline {_FILE} --run-id "$2" --node "$3" --refused-ok'
# What only reports keeps nothing from going on, as Argo would have any task that fails; the summary tells of it.
_REPORT = f"{_RUN_NODE.removeprefix('exec ')} || true"
_SUMMARY = f'exec movielens summary --pipeline {_FILE} --run-id "$2" --refused-ok'

_SECRET_KEYS = ("host", "port", "database", "user", "password")
_VARIABLE = "MOVIELENS_METADATA_{}"
_CERTIFICATES = "/etc/movielens-metadata"

_HOUR = 3600
_LONGEST = 10**9  # Seconds. Argo's durations end at 292 years, of which waits that double each time are soon more.
_NO_SETTINGS: list[str] = []


def write_spec(
    nodes: Mapping[str, Sequence[str]],
    name: str,
    config: str,
    containers: KubeflowConfig,
    image: str,
    data: str,
    root: str,
    output: Path,
) -> None:
    """Writes the pipeline as a YAML file, which kfp and Kubeflow's pages take.

    Args:
      nodes: the ids of the nodes, each with those that it waits for, in order.
      name: of the pipeline.
      config: the whole configuration, as text for --config.
      containers: how they are run.
      image: the container image with this project, by its digest.
      data: the folder of the data, as the containers see it; whoever starts a run may name another.
      root: the folder that the runs write to, likewise.
      output: the file to write.
    """

    def movielens(data: str = data, settings: list = _NO_SETTINGS) -> None:
        run = dsl.PIPELINE_JOB_ID_PLACEHOLDER
        # Its state is that of the run: it fails if any node has failed. It is called even then.
        last = prepared(_call("summary", image, _SUMMARY, root)(run=run), "summary", retries=0)
        with dsl.ExitHandler(last, name="nodes"):
            tasks: dict[str, dsl.PipelineTask] = {}
            first = prepared(_compile(image, root, config, nodes)(run=run, data=data, settings=settings), "compile")
            for node, upstream in nodes.items():
                script = _REPORT if node in ONLY_REPORT else _RUN_NODE
                task = _call(node, image, script, root, node)(run=run)
                tasks[node] = prepared(task, node).after(*([tasks[each] for each in upstream] or [first]))

    def prepared(task: dsl.PipelineTask, node: str, retries: int | None = None) -> dsl.PipelineTask:
        return _prepared(task, node, containers, containers.retries_of(node) if retries is None else retries)

    pipeline = dsl.pipeline(name=name, description=f"{len(nodes)} nodes; writes to {root}")(movielens)
    compiler.Compiler().compile(pipeline, str(output))
    # kfp writes an hour at most. Argo takes this for the end of all tries, counted from the start of the first. So it
    # is as long as all of them take, with an hour each until they begin, and the waits between them.
    retries = max(containers.retries_of(node) for node in ("compile", *nodes))
    waits = containers.retry_seconds * (2**retries - 1)
    seconds = min(_LONGEST, round((retries + 1) * (containers.node_hours + 1) * _HOUR) + waits)
    text = output.read_text(encoding="utf-8")
    output.write_text(text.replace(f"backoffMaxDuration: {_HOUR}s", f"backoffMaxDuration: {seconds}s"), "utf-8")


def _compile(image: str, root: str, config: str, nodes: Mapping[str, Sequence[str]]) -> Any:
    def container(run: str, data: str, settings: list) -> dsl.ContainerSpec:
        arguments = [root, run, config, data, settings, json.dumps(nodes)]
        return dsl.ContainerSpec(image, ["sh", "-c", _COMPILE, "compile"], arguments)

    return _named("compile", container)


def _call(name: str, image: str, script: str, root: str, *further: str) -> Any:
    def container(run: str) -> dsl.ContainerSpec:
        return dsl.ContainerSpec(image, ["sh", "-c", script, name], [root, run, *further])

    return _named(name, container)


def _named(name: str, container: Any) -> Any:
    """A component of its own for each node, since it is by its name that people find it on Kubeflow's pages."""
    container.__name__ = name.replace(".", "_")
    return dsl.container_component(container)


def _prepared(task: dsl.PipelineTask, node: str, containers: KubeflowConfig, retries: int) -> dsl.PipelineTask:
    """Gives a task what its container needs: the volume, the metadata, resources, and other tries."""
    task.set_display_name(node)
    # TFX has the cache. Kubeflow's would take a node for done whose data have changed.
    task.set_caching_options(False)
    resources = containers.resources_of(node)
    task.set_cpu_request(resources.cpu).set_memory_request(resources.memory).set_memory_limit(resources.memory)
    if resources.gpu:
        task.set_accelerator_type("nvidia.com/gpu").set_accelerator_limit(resources.gpu)
    if retries:
        task.set_retry(retries, f"{containers.retry_seconds}s", backoff_factor=2.0, backoff_max_duration=f"{_HOUR}s")
    kubernetes.set_timeout(task, round(containers.node_hours * _HOUR))
    kubernetes.mount_pvc(task, containers.volume_claim, containers.mount_path)
    variables = {key: _VARIABLE.format(key.upper()) for key in _SECRET_KEYS}
    kubernetes.use_secret_as_env(task, containers.metadata_secret, variables)
    if containers.metadata_tls:
        kubernetes.use_secret_as_volume(task, containers.metadata_secret, _CERTIFICATES)
        task.set_env_variable(_VARIABLE.format("TLS_CA"), f"{_CERTIFICATES}/ca.pem")
    return task
