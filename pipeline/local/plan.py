"""What a run would do: which components would come from the cache, which would run, and why. Nothing is run or written.

The nodes are prepared one after the other as TFX's launcher prepares them before it runs an executor: drivers look at
the data, inputs are resolved, the cache is looked into. This writes to the metadata store, so it is done on a copy of
it, in a temporary folder.
"""

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import ml_metadata as mlmd
import numpy as np
from ml_metadata.proto import metadata_store_pb2
from tfx import v1 as tfx
from tfx.dsl.compiler import constants
from tfx.orchestration import metadata
from tfx.orchestration.local import runner_utils
from tfx.orchestration.portable import launcher, runtime_parameter_utils
from tfx.proto.orchestration import pipeline_pb2

from pipeline.launcher import compile_pipeline, new_run_id
from pipeline.local.choices import Champion, planned_champions
from pipeline.local.output import OutputFolder
from pipeline.local.relocation import follow_move
from pipeline.local.store import metadata_config

# What a changed execution property stands for; others are named as they are.
_MEANINGS = {
    "source": "its code or a library",
    "input_fingerprint": "the contents of the data",
    "input_base": "the folder of the data",
    "span": "the newest span",
    "custom_config": "its settings",
    "eval_config": "its settings",
    "module_path": "its code",
    "beam_pipeline_args": "how Beam runs",
}
# Differ from run to run, and are in no cache key.
_NOT_COMPARED = frozenset({"__execution_result__", "version", "baseline_model_id"})


@dataclass(frozen=True)
class Planned:
    """What would become of a node.

    Attributes:
      node: its id.
      does: `run` if its executor would run; `cached` if an earlier result would be used; `resolve` for resolvers and
        importers, which are asked in every run; `skip` if its condition does not hold; `depend` if that is only known
        once others have run.
      why: the reason, for a person; "" where `does` says all.
    """

    node: str
    does: Literal["run", "cached", "resolve", "skip", "depend"]
    why: str = ""


def plan(
    pipeline: tfx.dsl.Pipeline, output: OutputFolder, tested: np.ndarray
) -> tuple[list[Planned], dict[str, Champion]]:
    """Plans a run.

    Args:
      pipeline: what would be run; its own connection to a metadata store is not used.
      output: the output folder; need not exist.
      tested: uint64 [test rows], the keys of the rows that models would be measured on, as of `RowKeys.test`.

    Returns:
      What would become of each node, in the order in which they would run; and the champion that each model would meet.

    Raises:
      Exception: whatever a node's driver raises, such as DataError where the data are invalid.
    """
    with tempfile.TemporaryDirectory(prefix="movielens-plan-") as folder:
        copy = Path(folder, "metadata.sqlite")
        if output.store.exists:
            output.store.copy(copy)
            follow_move(mlmd.MetadataStore(metadata_config(copy)), output)
        nodes = _Nodes(pipeline, copy, Path(folder, "artifacts"))
        planned = [nodes.plan(node.pipeline_node) for node in nodes.ir.nodes]
        does = {node.node: node.does for node in planned}
        store = mlmd.MetadataStore(metadata_config(copy))
        return planned, planned_champions(store, nodes.ir.pipeline_info.id, does, tested)


class _Nodes:
    """Prepares nodes on a copy of the metadata store.

    Attributes:
      ir: the compiled pipeline.
    """

    def __init__(self, pipeline: tfx.dsl.Pipeline, store: Path, root: Path):
        self.ir = compile_pipeline(pipeline)
        config = metadata_config(store)
        # Folders that drivers and launchers make are made in the temporary folder.
        self.ir.runtime_spec.pipeline_root.field_value.string_value = str(root)
        runtime_parameter_utils.substitute_runtime_parameter(
            self.ir, {constants.PIPELINE_RUN_ID_PARAMETER_NAME: new_run_id()}
        )
        self._connection = metadata.Metadata(config)
        self._deployment = runner_utils.extract_local_deployment_config(self.ir)
        # The nodes that would run, and those among them for whose own reasons.
        self._roots: dict[str, list[str]] = {}

    def plan(self, node: pipeline_pb2.PipelineNode) -> Planned:
        """Plans a node, after all those that it depends on."""
        name = node.node_info.id
        before = [other for other in node.upstream_nodes if other in self._roots]
        if before:
            self._roots[name] = list(dict.fromkeys(root for other in before for root in self._roots[other]))
            why = f"as {', '.join(self._roots[name])} would run"
            return Planned(name, "depend" if _has_condition(node) or _is_resolver(node) else "run", why)
        launched = _Preparing(
            pipeline_node=node,
            mlmd_connection=self._connection,
            pipeline_info=self.ir.pipeline_info,
            pipeline_runtime_spec=self.ir.runtime_spec,
            executor_spec=runner_utils.extract_executor_spec(self._deployment, name),
            custom_driver_spec=runner_utils.extract_custom_driver_spec(self._deployment, name),
        )
        if _is_resolver(node):
            launched.launch()
            return Planned(name, "resolve")
        prepared = launched.prepare()
        if prepared.is_execution_needed:
            self._roots[name] = [name]
            return Planned(name, "run", self._why(node, prepared.execution_info.execution_id))
        if not prepared.execution_info.execution_id:
            return Planned(name, "skip", "its condition does not hold")
        return Planned(name, "cached")

    def _why(self, node: pipeline_pb2.PipelineNode, execution_id: int) -> str:
        """Why a node would run: what differs from its latest run."""
        with self._connection as handle:
            store = handle.store
            (context,) = [
                context for context in store.get_contexts_by_execution(execution_id) if context.type == "node"
            ]
            executions = sorted(store.get_executions_by_context(context.id), key=lambda each: each.id)
            own = executions[-1]
            earlier = [
                each
                for each in executions[:-1]
                if each.last_known_state in (metadata_store_pb2.Execution.COMPLETE, metadata_store_pb2.Execution.CACHED)
            ]
            if not earlier:
                return "it never ran here"
            before = earlier[-1]
            names = {*own.custom_properties, *before.custom_properties} - _NOT_COMPARED
            changed = [name for name in sorted(names) if own.custom_properties[name] != before.custom_properties[name]]
            inputs = [_inputs(store.get_events_by_execution_ids([each.id])) for each in (own, before)]
            read = sorted(name for name in {*inputs[0], *inputs[1]} if inputs[0].get(name) != inputs[1].get(name))
        reasons = list(dict.fromkeys(_MEANINGS.get(name, name) for name in changed))
        reasons += [f"its input {name}" for name in read]
        return f"changed: {', '.join(reasons)}" if reasons else "its latest result is of other inputs, or is gone"


class _Preparing(launcher.Launcher):
    """TFX's launcher, up to where it would run the executor."""

    def prepare(self) -> launcher._ExecutionPreparationResult:
        return self._prepare_execution()


def _inputs(events: list[metadata_store_pb2.Event]) -> dict[str, set[int]]:
    found: dict[str, set[int]] = {}
    for event in events:
        if event.type == metadata_store_pb2.Event.INPUT:
            found.setdefault(event.path.steps[0].key, set()).add(event.artifact_id)
    return found


def _is_resolver(node: pipeline_pb2.PipelineNode) -> bool:
    return node.node_info.type.name.endswith((".Resolver", ".Importer"))


def _has_condition(node: pipeline_pb2.PipelineNode) -> bool:
    return bool(node.inputs.conditionals)
