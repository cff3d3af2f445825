"""A compiled pipeline in files, from which any process can launch any of its nodes.

`pipeline.pb` is TFX's intermediate representation. `pipeline.json`, beside it, tells orchestrators and people what is
in it without their having to import TFX: the configuration, the folder of the runs, the nodes with what each waits for,
and a key of the code that it was compiled from.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from google.protobuf.message import DecodeError
from tfx.proto.orchestration import pipeline_pb2

from pipeline.config import Config, ConfigError, config_of
from pipeline.launcher import metadata_of, node_ids
from pipeline.local.output import OutputFolder, write_whole
from pipeline.source import component_key
from trainers.registry import MODELS, RECOMMENDER

_PROBLEM = "should be a file that `movielens compile` wrote"


@dataclass(frozen=True)
class Compiled:
    """A compiled pipeline.

    Attributes:
      ir: TFX's intermediate representation; the id of the run is left open.
      config: what it was compiled from.
      data: the folder of the data.
      output: the folder that its runs write to.
    """

    ir: pipeline_pb2.Pipeline
    config: Config
    data: Path
    output: OutputFolder


def write(compiled: Compiled, path: Path) -> None:
    """Writes a compiled pipeline and, beside it, its description; readers find the old files or the new ones, whole.

    Args:
      compiled: the pipeline.
      path: of the file; the description has the ending `.json` instead.

    Raises:
      OSError: a file cannot be written.
    """
    nodes = [node.pipeline_node for node in compiled.ir.nodes]
    described = {
        "name": compiled.config.name,
        "data": str(compiled.data),
        "output": str(compiled.output.root),
        "source": component_key(),
        "nodes": [
            {"id": node.node_info.id, "group": _group(node.node_info.id), "upstream": list(node.upstream_nodes)}
            for node in nodes
        ],
        "config": compiled.config.model_dump(mode="json"),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    # The description goes first: whoever has the pipeline finds the description, too.
    write_whole(description(path), json.dumps(described, indent=1) + "\n")
    write_whole(path, compiled.ir.SerializeToString(deterministic=True))


def read(path: Path) -> Compiled:
    """Reads a compiled pipeline.

    Raises:
      ConfigError: there is no compiled pipeline, or it was compiled from other code than this one. Its results would
        then be known by the wrong code, and taken from the cache where they should not.
    """
    ir = pipeline_pb2.Pipeline()
    try:
        ir.ParseFromString(path.read_bytes())
        store = metadata_of(ir).sqlite.filename_uri
    except OSError as error:
        raise ConfigError(f"{path}: {_PROBLEM}; {error.strerror}.") from error
    except (DecodeError, ValueError, AttributeError) as error:
        raise ConfigError(f"{path}: {_PROBLEM}; it holds something else.") from error
    described = read_description(description(path))
    config = config_of(str(described.file), described.config)
    if store != str(described.output.metadata) or described.nodes != node_ids(ir):
        raise ConfigError(f"{described.file}: {_PROBLEM} together with {path.name}; it describes another pipeline.")
    if described.source != component_key():
        raise ConfigError(f"{path}: was compiled from other code than this; compile it again.")
    return Compiled(ir, config, described.data, described.output)


@dataclass(frozen=True)
class Description:
    """What stands beside a compiled pipeline.

    Attributes:
      file: where this stands.
      config: the configuration, as the keys and values of a file.
      data: the folder of the data.
      output: the folder that runs write to.
      nodes: the ids of the nodes, in order.
      source: the key of the code that it was compiled from.
    """

    file: Path
    config: dict[str, Any]
    data: Path
    output: OutputFolder
    nodes: list[str]
    source: str


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
            Path(read["data"]),
            OutputFolder(Path(read["output"])),
            [node["id"] for node in read["nodes"]],
            read["source"],
        )
    except OSError as error:
        raise ConfigError(f"{file}: {_PROBLEM}; {error.strerror}.") from error
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{file}: {_PROBLEM}; it holds something else.") from error


def _group(node: str) -> str:
    """The part of the pipeline that a node belongs to: a model, the recommender, or the data."""
    kind, _, name = node.partition(".")
    if kind == "FeatureImportance":
        return "dcn"
    if kind == "RecommenderBuilder" or name.startswith(RECOMMENDER):
        return RECOMMENDER
    return name if name in MODELS else "data"


def description(path: Path) -> Path:
    """The file that describes a compiled pipeline."""
    return path.with_suffix(".json")
