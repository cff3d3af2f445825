"""A compiled pipeline in files, from which any process can launch any of its nodes.

`pipeline.pb` is TFX's intermediate representation. `pipeline.json`, beside it, tells orchestrators and people what is
in it without their having to import TFX: the configuration, the folder of the runs, the nodes with what each waits for,
and a key of the code that it was compiled from.
"""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tfx.proto.orchestration import pipeline_pb2

from components.data.places import place_of
from components.storage.paths import write_whole
from pipeline.config import Config, ConfigError, config_of
from pipeline.launcher import upstream_of_nodes
from pipeline.local.output import OutputFolder
from pipeline.source import component_key
from trainers.registry import MODELS, RECOMMENDER

_LONGEST_RUN_ID = 200  # Bytes of a run's id in its name; a database on a server takes 255 for the whole.

_PROBLEM = "should be a file that `movielens compile` wrote"


@dataclass(frozen=True)
class Compiled:
    """A compiled pipeline.

    Attributes:
      ir: TFX's intermediate representation; the id of the run is left open.
      config: what it was compiled from.
      data: the folder of the data.
      output: the folder that its runs write to.
      cache: whether results of earlier runs are used.
    """

    ir: pipeline_pb2.Pipeline
    config: Config
    data: Path
    output: OutputFolder
    cache: bool = True

    @property
    def nodes(self) -> dict[str, list[str]]:
        """The ids of the nodes, each with those that it waits for, in order."""
        return upstream_of_nodes(self.ir)

    def name_of_run(self, run_id: str) -> str:
        """The name by which the metadata know a run.

        It ends with a key of the pipeline and of the whole id, so that it is of this run alone, although a database
        takes no long name, and does not tell upper from lower case.
        """
        key = _key(self.ir.SerializeToString(deterministic=True) + run_id.encode())
        return f"{run_id.encode()[:_LONGEST_RUN_ID].decode(errors='ignore')}@{key[:12]}"


@dataclass(frozen=True)
class Description:
    """What stands beside a compiled pipeline.

    Attributes:
      file: where this stands.
      config: the configuration, as the keys and values of a file.
      data, output, nodes, cache: as of `Compiled`.
      source: the key of the code that the pipeline was compiled from.
      key: of the pipeline itself.
    """

    file: Path
    config: dict[str, Any]
    data: Path
    output: OutputFolder
    nodes: dict[str, list[str]]
    cache: bool
    source: str
    key: str


def write(compiled: Compiled, path: Path) -> None:
    """Writes a compiled pipeline and, beside it, its description; readers find an old file or a new one, whole.

    Args:
      compiled: the pipeline.
      path: of the file; the description has the ending `.json` instead.

    Raises:
      OSError: a file cannot be written.
    """
    content = compiled.ir.SerializeToString(deterministic=True)
    described = {
        "name": compiled.config.name,
        "data": str(compiled.data),
        "output": str(compiled.output.root),
        "cache": compiled.cache,
        "source": component_key(),
        "key": _key(content),
        "nodes": [
            {"id": node, "group": _group(node), "upstream": upstream} for node, upstream in compiled.nodes.items()
        ],
        "config": compiled.config.model_dump(mode="json"),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    # The description goes first: whoever has the pipeline finds the description, too.
    write_whole(description(path), json.dumps(described, indent=1) + "\n")
    write_whole(path, content)


def read(path: Path) -> Compiled:
    """Reads a compiled pipeline.

    Raises:
      ConfigError: there is no compiled pipeline, or it was compiled from other code than this one. Its results would
        then be known by the wrong code, and taken from the cache where they should not.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{path}: {_PROBLEM}; {error.strerror}.") from error
    described = read_description(description(path))
    if described.key != _key(content):
        raise ConfigError(f"{path}: {_PROBLEM}; {described.file}, beside it, describes another one.")
    if described.source != component_key():
        raise ConfigError(f"{path}: was compiled from other code than this; compile it again.")
    config = config_of(str(described.file), described.config)
    ir = pipeline_pb2.Pipeline.FromString(content)
    return Compiled(ir, config, described.data, described.output, described.cache)


def read_description(file: Path) -> Description:
    """Reads the description of a compiled pipeline.

    Raises:
      ConfigError: there is none.
    """
    try:
        read: Any = json.loads(file.read_text(encoding="utf-8"))
        return Description(
            file,
            dict(read["config"]),
            place_of(read["data"]),
            OutputFolder(Path(read["output"])),
            {node["id"]: list(node["upstream"]) for node in read["nodes"]},
            bool(read["cache"]),
            read["source"],
            read["key"],
        )
    except OSError as error:
        raise ConfigError(f"{file}: {_PROBLEM}; {error.strerror}.") from error
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{file}: {_PROBLEM}; it holds something else.") from error


def _key(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _group(node: str) -> str:
    """The part of the pipeline that a node belongs to: a model, the recommender, or the data."""
    kind, _, name = node.partition(".")
    if kind == "FeatureImportance":
        return "dcn"
    if kind == "RecommenderBuilder" or name.startswith(RECOMMENDER):
        return RECOMMENDER
    # The model that training starts from belongs to its model, too.
    return next((model for model in MODELS if name in (model, f"{model}_base")), "data")


def description(path: Path) -> Path:
    """The file that describes a compiled pipeline."""
    return path.with_suffix(".json")
