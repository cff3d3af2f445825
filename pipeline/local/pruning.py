"""Frees the disk of an output folder: removes what earlier runs have left and neither later runs nor servers need.

TFX takes an output from the cache only if the metadata call it live. So everything is marked before its files go, and a
prune that was cut off leaves nothing that a later run would trust; the next prune finds the marks, and goes on.
"""

import shutil
import tempfile
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path

import ml_metadata as mlmd
from ml_metadata.proto import metadata_store_pb2
from tfx.types import standard_artifacts

from components.ingestion.row_keys import ROW_KEYS_FILE
from components.metadata.lineage import Lineage
from components.pushing.pushed_models import Push, mark_pruned, pushes, withdrawals
from components.pushing.versions import take_out
from pipeline.local.errors import RunError
from pipeline.local.output import OutputFolder
from pipeline.local.relocation import follow_move
from pipeline.local.store import metadata_config
from pipeline.nodes import ONLY_REPORT
from serving.local.versions import list_versions

_LIVE = metadata_store_pb2.Artifact.LIVE
_MARKED = metadata_store_pb2.Artifact.MARKED_FOR_DELETION
_DELETED = metadata_store_pb2.Artifact.DELETED
_OUTPUT = metadata_store_pb2.Event.OUTPUT
_SKIPPED = metadata_store_pb2.Execution.CANCELED
_ENDED_WELL = (metadata_store_pb2.Execution.COMPLETE, metadata_store_pb2.Execution.CACHED)

_MODEL = standard_artifacts.Model.TYPE_NAME
_BLESSING = standard_artifacts.ModelBlessing.TYPE_NAME
_PUSHED = standard_artifacts.PushedModel.TYPE_NAME
_GRAPH = standard_artifacts.TransformGraph.TYPE_NAME


class NothingToPruneError(RunError):
    """The folder is not one whose files the metadata know; the message says why."""

    exit_code = 2


@dataclass(frozen=True)
class Removed:
    """An artifact whose files are removed.

    Attributes:
      id: its id.
      kind: the name of its type.
      folder: its folder.
      but: the name of a file in it that stays; "" if the folder goes.
      size: the bytes that this frees.
    """

    id: int
    kind: str
    folder: Path
    but: str
    size: int


@dataclass(frozen=True)
class Pruning:
    """What is removed from an output folder, and what stays for which reason.

    Attributes:
      artifacts: the artifacts that are removed.
      runs: the number of earlier runs, which had not yet been pruned.
      versions: the pushed models whose versions are taken out of serving.
      records: folders of what TFX noted down about executions of earlier runs.
      logs: log files of earlier runs.
      size: the bytes that are freed.
      kept_runs: how many of the newest runs that came to their end stay, with all that was begun after.
      since: when the oldest of these runs began; None if there are too few runs for anything to be older.
      blessed: the number of blessed models from before that stay.
      copies: the number of copies, from before, of versions that stay in serving.
      served: the versions of runs that stay, as NAME and numbers, the newest first.
      by_hand: the versions that no run has put where they are, likewise; they stay.
      elsewhere: the number of artifacts that lie outside of the folder, since it is a copy; they stay.
    """

    artifacts: Sequence[Removed]
    runs: int
    versions: Sequence[Push]
    records: Sequence[Path]
    logs: Sequence[Path]
    size: int
    kept_runs: int
    since: datetime | None
    blessed: int
    copies: int
    served: dict[str, list[int]]
    by_hand: dict[str, list[int]]
    elsewhere: int


def find(output: OutputFolder, keep_runs: int, keep_versions: int) -> Pruning:
    """Finds what can be removed; changes nothing, not even what the metadata know of a folder that was moved.

    Only the command that has locked the folder may call this.

    Args:
      output: the folder of the runs.
      keep_runs: how many of the newest runs that came to their end stay.
      keep_versions: how many of the newest versions of each model stay.

    Raises:
      NothingToPruneError: no run has written to the folder, or it is a copy of the one that they have written to.
    """
    with tempfile.TemporaryDirectory(prefix="movielens-prune-") as folder:
        copy = Path(folder, output.metadata.name)
        output.store.copy(copy)
        store = mlmd.MetadataStore(metadata_config(copy))
        follow_move(store, output)
        return _Finder(store, output, keep_runs, keep_versions).pruning()


def carry_out(output: OutputFolder, pruning: Pruning) -> None:
    """Removes what was found.

    Logs go first, because on a full disk the metadata store may need the space for its marks.

    Only the command that has locked the folder may call this, and only with what it found itself.

    Raises:
      RunError: something could not be marked or removed; another prune goes on from there.
    """
    store = output.store.open()
    removed = [artifact.id for artifact in pruning.artifacts]
    again = "another prune goes on from here"
    try:
        for log in pruning.logs:
            log.unlink()
        follow_move(store, output)
        mark_pruned(store, pruning.versions)
        _set_state(store, removed, _MARKED, of=_LIVE)
        for push in pruning.versions:
            take_out(push.destination)
        for artifact in pruning.artifacts:
            _remove(artifact.folder, artifact.but)
        for record in pruning.records:
            shutil.rmtree(record)
        _set_state(store, removed, _DELETED, of=_MARKED)
    except OSError as error:
        raise RunError(f"{error.filename} could not be removed; {error.strerror}; {again}.") from error
    except mlmd.errors.StatusError as error:
        raise RunError(f"{output.store} could not be written; {error}; {again}.") from error


class _Finder:
    """Works out a `Pruning`."""

    def __init__(self, store: mlmd.MetadataStore, output: OutputFolder, keep_runs: int, keep_versions: int):
        self._store, self._output = store, output
        self._keep_runs, self._keep_versions = keep_runs, keep_versions
        self._lineage = Lineage(store)
        self._artifacts = {artifact.id: artifact for artifact in store.get_artifacts()}
        self._runs = sorted(store.get_contexts_by_type("pipeline_run"), key=lambda run: run.id)
        self._root = output.artifacts.resolve()

    def pruning(self) -> Pruning:
        places = {Path(artifact.uri).parent.parent.parent for artifact in self._artifacts.values() if artifact.uri}
        if not self._runs or not places:
            raise NothingToPruneError(
                f"{self._output.root}: should be the output folder of a run; its metadata know of none."
            )
        if not self._here:
            raise NothingToPruneError(
                f"{self._output.root}: should be where its runs have written to; it is a copy, since their artifacts "
                f"lie in {', '.join(sorted(map(str, places)))}."
            )
        artifacts = [*filter(None, map(self._removed, sorted(self._chosen)))]
        records, logs = self._records(), self._logs()
        others = [*(path for push in self._pruned for path in _folders(push.destination)), *records, *logs]
        return Pruning(
            artifacts=artifacts,
            runs=self._earlier_runs_of({artifact.id for artifact in artifacts}),
            versions=self._pruned,
            records=records,
            logs=logs,
            size=sum(artifact.size for artifact in artifacts) + sum(map(size, others)),
            kept_runs=sum(map(self._came_to_its_end, self._kept_runs)),
            since=self._since,
            blessed=len(self._blessed & self._outputs_of_earlier),
            copies=len(self._copies & self._outputs_of_earlier),
            served=self._served,
            by_hand=self._by_hand,
            elsewhere=sum(bool(artifact.uri) for artifact in self._artifacts.values()) - len(self._here),
        )

    # Runs.

    @cached_property
    def _kept_runs(self) -> list[metadata_store_pb2.Context]:
        """The newest runs that came to their end, and all that was begun after the oldest of them.

        A run that failed or was cut off counts as none, since what is good for the next run is that of the one before;
        nor does a search for hyper-parameters, which pushes no model.
        """
        found = 0
        for place, run in reversed([*enumerate(self._runs)]):
            found += self._came_to_its_end(run)
            if found == self._keep_runs:
                return self._runs[place:]
        return self._runs

    @cached_property
    def _since(self) -> datetime | None:
        if len(self._kept_runs) == len(self._runs):
            return None
        return datetime.fromtimestamp(self._kept_runs[0].create_time_since_epoch / 1000, UTC)

    def _came_to_its_end(self, run: metadata_store_pb2.Context) -> bool:
        executions = sorted(self._store.get_executions_by_context(run.id), key=lambda execution: execution.id)
        # A node that failed may have been run again.
        latest = {self._node(execution): execution for execution in executions}.values()
        bad = [execution for execution in latest if execution.last_known_state not in (*_ENDED_WELL, _SKIPPED)]
        has_pushed = any(self._artifacts[number].type == _PUSHED for number in self._outputs(executions))
        return has_pushed and all(self._node(execution) in ONLY_REPORT for execution in bad)

    def _node(self, execution: metadata_store_pb2.Execution) -> str:
        contexts = self._store.get_contexts_by_execution(execution.id)
        return next((context.name.partition(".")[2] for context in contexts if context.type == "node"), "")

    def _executions(self, runs: Iterable[metadata_store_pb2.Context]) -> list[metadata_store_pb2.Execution]:
        return [execution for run in runs for execution in self._store.get_executions_by_context(run.id)]

    def _outputs(self, executions: Iterable[metadata_store_pb2.Execution]) -> set[int]:
        """What executions have written or, if they were cached, taken from the cache."""
        numbers = [execution.id for execution in executions]
        events = self._store.get_events_by_execution_ids(numbers) if numbers else []
        return {event.artifact_id for event in events if event.type == _OUTPUT}

    @cached_property
    def _earlier_executions(self) -> list[metadata_store_pb2.Execution]:
        return self._executions(self._runs[: len(self._runs) - len(self._kept_runs)])

    @cached_property
    def _outputs_of_kept(self) -> set[int]:
        return self._outputs(self._executions(self._kept_runs))

    @cached_property
    def _outputs_of_earlier(self) -> set[int]:
        """What runs have left that do not stay, and no run that stays has taken from the cache."""
        return self._outputs(self._earlier_executions) - self._outputs_of_kept

    def _earlier_runs_of(self, artifacts: set[int]) -> int:
        runs = self._runs[: len(self._runs) - len(self._kept_runs)]
        return sum(not artifacts.isdisjoint(self._outputs(self._executions([run]))) for run in runs)

    # Versions.

    @cached_property
    def _pushes(self) -> list[Push]:
        """The pushes to this folder whose versions are theirs.

        Once the copy of a version is gone, what is found in the version's place was put there by hand.
        """
        every = [push for push in pushes(self._store) if push.is_in(self._output.serving)]
        return [push for push in every if push.artifact in self._here and not self._has_state(push.artifact, _DELETED)]

    @cached_property
    def _versions(self) -> set[tuple[str, int]]:
        """The versions that a server would find, as NAME and VERSION."""
        folders = [path for path in self._output.serving.glob("*") if path.is_dir()]
        return {(folder.name, each.version) for folder in folders for each in list_versions(folder, settle_seconds=0)}

    @cached_property
    def _kept_versions(self) -> list[Push]:
        """The newest versions of each model. One that was withdrawn is not counted, since it is about to go."""
        withdrawn = withdrawals(self._store, {push.model for push in self._pushes})
        kept, counts = [], Counter[str]()
        for push in sorted(self._pushes, key=lambda push: push.version, reverse=True):
            if not self._is_there(push):
                continue
            if push.model in withdrawn:
                kept.append(push)
            elif counts[push.name] < self._keep_versions:
                kept.append(push)
                counts[push.name] += 1
        return kept

    @cached_property
    def _pruned(self) -> list[Push]:
        """The versions to take out, those among them that an earlier prune had begun to take out."""
        others = [push for push in self._pushes if push not in self._kept_versions]
        return [push for push in others if self._is_there(push) or push.pruned]

    def _is_there(self, push: Push) -> bool:
        return (push.name, push.version) in self._versions

    @property
    def _served(self) -> dict[str, list[int]]:
        return by_name((push.name, push.version) for push in self._kept_versions)

    @property
    def _by_hand(self) -> dict[str, list[int]]:
        return by_name(self._versions - {(push.name, push.version) for push in self._pushes})

    # Artifacts.

    @cached_property
    def _here(self) -> set[int]:
        """The artifacts that lie in this folder, as NODE/OUTPUT/EXECUTION; whatever lies elsewhere stays."""
        folders = {number: Path(artifact.uri).resolve() for number, artifact in self._artifacts.items() if artifact.uri}
        return {
            number
            for number, folder in folders.items()
            if folder.is_relative_to(self._root) and len(folder.relative_to(self._root).parts) >= 3
        }

    @cached_property
    def _blessed(self) -> set[int]:
        """The models that may be a champion, now or when later ones are withdrawn."""
        verdicts = {_model_of(verdict): verdict.custom_properties["blessed"].int_value for verdict in self._verdicts}
        models = {number for number, blessed in verdicts.items() if blessed and self._is_live(number, _MODEL)}
        return models - set(withdrawals(self._store, models))

    @cached_property
    def _verdicts(self) -> list[metadata_store_pb2.Artifact]:
        """What was said of models, in the order in which runs said it last, from the cache or not."""
        live = [number for number in sorted(self._artifacts) if self._is_live(number, _BLESSING)]
        given = self._lineage.last_given(live)
        return [self._artifacts[number] for number in sorted(live, key=lambda number: (given[number], number))]

    def _is_live(self, number: int, kind: str) -> bool:
        return self._has_state(number, _LIVE) and self._artifacts[number].type == kind

    def _has_state(self, number: int, *states: int) -> bool:
        return number in self._artifacts and self._artifacts[number].state in states

    @cached_property
    def _copies(self) -> set[int]:
        """The pushed copies of versions that stay in serving."""
        return {push.artifact for push in self._kept_versions}

    @cached_property
    def _kept(self) -> set[int]:
        """All artifacts that stay. A version that is taken out must be pushed anew, and not come from the cache."""
        kept = (self._outputs_of_kept - {push.artifact for push in self._pruned}) | self._copies | self._blessed
        # All that was ever said of a model, since the last verdict counts.
        kept |= {blessing.id for blessing in self._verdicts if _model_of(blessing) in kept}
        return kept | self._graphs_of(self._blessed)

    def _graphs_of(self, models: set[int]) -> set[int]:
        """The Transform graphs that models were made with."""
        graphs = [self._lineage.transform_graph(model) for model in models]
        return {graph.id for graph in graphs if graph is not None and self._is_live(graph.id, _GRAPH)}

    @cached_property
    def _chosen(self) -> set[int]:
        """The artifacts to remove: live ones of earlier runs, and what earlier prunes have begun with or left."""
        of_runs = (self._outputs_of_earlier | {push.artifact for push in self._pruned}) - self._kept
        live = {number for number in of_runs if self._has_state(number, _LIVE)}
        left = {number for number in self._artifacts if self._has_state(number, _MARKED, _DELETED)}
        # No two artifacts share a folder, unless somebody imported one.
        shared = {Path(self._artifacts[number].uri) for number in self._kept}
        chosen = (live | left) & self._here
        return {number for number in chosen if Path(self._artifacts[number].uri) not in shared}

    @cached_property
    def _rows_behind_models(self) -> set[int]:
        """The Examples by whose keys one tells what the models that stay have seen."""
        models = {number for number in self._kept if self._is_live(number, _MODEL)}
        return {examples.id for examples in self._lineage.data(*models)}

    def _removed(self, number: int) -> Removed | None:
        """What is removed of an artifact; None if it is done with."""
        artifact = self._artifacts[number]
        folder = Path(artifact.uri)
        has_keys = number in self._rows_behind_models and (folder / ROW_KEYS_FILE).is_file()
        but = ROW_KEYS_FILE if has_keys else ""
        if artifact.state == _DELETED and not _to_remove(folder, but):
            return None
        return Removed(number, artifact.type, folder, but, sum(map(size, _to_remove(folder, but))))

    # Everything else.

    def _records(self) -> list[Path]:
        """Those of executions that ended well; what is known of others is for recovery to remove."""
        names = {str(each.id) for each in self._earlier_executions if each.last_known_state in _ENDED_WELL}
        folders = self._output.artifacts.glob("*/.system/executor_execution/*")
        return sorted(folder for folder in folders if folder.name in names)

    def _logs(self) -> list[Path]:
        """Those that were last written to before the oldest run began that stays."""
        if self._since is None:
            return []
        oldest = self._since.timestamp()
        return sorted(log for log in self._output.logs.glob("run-*.log") if log.stat().st_mtime < oldest)


def by_name(versions: Iterable[tuple[str, int]]) -> dict[str, list[int]]:
    """The numbers of versions by name, the newest first."""
    found: dict[str, list[int]] = {}
    for name, number in sorted(versions, key=lambda version: (version[0], -version[1])):
        found.setdefault(name, []).append(number)
    return found


def kinds(artifacts: Iterable[Removed]) -> dict[str, int]:
    """The number of artifacts of each type, by name."""
    return dict(sorted(Counter(artifact.kind for artifact in artifacts).items()))


def size(path: Path) -> int:
    """The bytes of a file, or of all files in a folder; 0 if there is none."""
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.lstat().st_size for file in files if file.is_file())


def _model_of(blessing: metadata_store_pb2.Artifact) -> int:
    return blessing.custom_properties["current_model_id"].int_value


def _folders(version: Path) -> list[Path]:
    return [version, *version.parent.glob(f".{version.name}-*")]


def _to_remove(folder: Path, but: str) -> list[Path]:
    if not but:
        return [folder] if folder.is_dir() else []
    return [path for path in folder.iterdir() if path.name != but]


def _remove(folder: Path, but: str) -> None:
    for path in _to_remove(folder, but):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()


def _set_state(store: mlmd.MetadataStore, numbers: list[int], state: int, of: int) -> None:
    """Gives a state to those of some artifacts that have another one."""
    artifacts = [artifact for artifact in store.get_artifacts_by_id(numbers) if artifact.state == of] if numbers else []
    for artifact in artifacts:
        artifact.state = state
    if artifacts:
        store.put_artifacts(artifacts)
