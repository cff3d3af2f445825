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

from pipeline.config import Config, ConfigError
from pipeline.launcher import metadata_of, node_ids
from pipeline.local.output import OutputFolder, write_whole
from pipeline.source import component_key


@dataclass(frozen=True)
class Compiled:
    """A compiled pipeline.

    Attributes:
      ir: TFX's intermediate representation; the id of the run is left open.
      config: what it was compiled from.
      output: the folder that its runs write to.
    """

    ir: pipeline_pb2.Pipeline
    config: Config
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
        "output": str(compiled.output.root),
        "source": component_key(),
        "nodes": [{"id": node.node_info.id, "upstream": list(node.upstream_nodes)} for node in nodes],
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
    problem = "should be a file that `movielens compile` wrote"
    ir = pipeline_pb2.Pipeline()
    file = path
    try:
        ir.ParseFromString(file.read_bytes())
        store = metadata_of(ir).sqlite.filename_uri
        file = description(path)
        described: Any = json.loads(file.read_text(encoding="utf-8"))
        source, output = described["source"], OutputFolder(Path(described["output"]))
        config = Config.model_validate_json(json.dumps(described["config"]), strict=True)
        described_nodes = [node["id"] for node in described["nodes"]]
    except OSError as error:
        raise ConfigError(f"{file}: {problem}; {error.strerror}.") from error
    except (DecodeError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(f"{file}: {problem}; it holds something else.") from error
    if store != str(output.metadata) or described_nodes != node_ids(ir):
        raise ConfigError(f"{file}: {problem} together with {path.name}; it describes another pipeline.")
    if source != component_key():
        raise ConfigError(f"{path}: was compiled from other code than this (key {source}); compile it again.")
    return Compiled(ir, config, output)


def description(path: Path) -> Path:
    """The file that describes a compiled pipeline."""
    return path.with_suffix(".json")
