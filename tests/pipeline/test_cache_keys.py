"""What docs/cache.md says runs again is what gets another cache key, and what reads its outputs."""

import hashlib
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Collection
from importlib import metadata
from pathlib import Path

import pytest

from pipeline import source
from pipeline.cache_keys import SOURCE, add_source_keys, modules_of
from pipeline.config import Config, load_config
from tests.pipeline.copied_sources import copy_sources
from trainers.registry import MODELS

pytestmark = pytest.mark.component

DOCUMENT = Path(__file__).parents[2] / "docs" / "cache.md"
# A pipeline with all nodes that the table names.
OVERRIDES = [f"tuning.models=[{', '.join(MODELS)}]"]
RESOLVERS = "Resolver."


def table() -> list[tuple[list[str], str, str]]:
    """The rows of the table: examples of the change, which components get another key, and which run again."""
    rows = [line.strip("|").split("|") for line in DOCUMENT.read_text().splitlines() if line.startswith("|")]
    return [(re.findall(r"`([^`]+)`", row[1]), row[2].strip(), row[3].strip()) for row in rows[2:]]


ROWS = table()
(MODEL_NODES,) = re.findall(r"^    models = (.*)$", DOCUMENT.read_text(), re.MULTILINE)
CHANGES = [(example, keys, again) for examples, keys, again in ROWS for example in examples]


class Pipeline:
    """The pipeline of the sources in `source.ROOT`, as TFX compiles it."""

    def __init__(self, data: Path, config: Config, root: str = "/root", serving: str = "/serving"):
        from tfx.dsl.components.base.base_component import BaseComponent

        from pipeline.graph import create_pipeline
        from pipeline.launcher import compile_pipeline

        pipeline = create_pipeline(config=config, data_dir=str(data), pipeline_root=root, serving_dir=serving)
        self.components = [node for node in pipeline.components if isinstance(node, BaseComponent)]
        self.ir = compile_pipeline(pipeline)
        self.nodes = {node.pipeline_node.node_info.id: node.pipeline_node for node in self.ir.nodes}
        self._data = data

    def keys(self) -> dict[str, str]:
        """Of each component, a hash of what TFX's cache goes by, apart from the artifacts that it reads."""
        from tfx.orchestration.local import runner_utils

        deployment = runner_utils.extract_local_deployment_config(self.ir)
        keys = {}
        for name, node in self.nodes.items():
            if not name.startswith(RESOLVERS):
                executor = runner_utils.extract_executor_spec(deployment, name)
                parts = (node.node_info, node.parameters, executor)
                text = b"".join(part.SerializeToString(deterministic=True) for part in parts)
                keys[name] = hashlib.sha256(text + self._fingerprint_of_data(name)).hexdigest()
        return keys

    def _fingerprint_of_data(self, name: str) -> bytes:
        """What the driver of ExampleGen adds, which is not known before the pipeline runs."""
        from tfx.proto import example_gen_pb2

        from components.ingestion.content_driver import ContentDriver

        if name != "MovieLensExampleGen":
            return b""
        splits = [example_gen_pb2.Input.Split(name="files", pattern="*")]
        processor = ContentDriver(None).get_input_processor(splits, None, str(self._data))
        span, version = processor.resolve_span_and_version()
        return str(processor.get_input_fingerprint(span, version)).encode()

    def with_readers(self, names: Collection[str]) -> set[str]:
        """Components, and all that read their outputs, directly or not."""
        reached = set(names)
        # Nodes are listed after those whose outputs they read.
        for name, node in self.nodes.items():
            # What a resolver chooses among is hidden behind what it chooses.
            is_resolver = name.startswith(RESOLVERS)
            inputs = [each for each in node.inputs.inputs.values() if is_resolver or not each.hidden]
            if reached & {channel.producer_node_query.id for each in inputs for channel in each.channels}:
                reached.add(name)
        return {name for name in reached if not name.startswith(RESOLVERS)}


def components_of(text: str, all_names: Collection[str]) -> set[str]:
    """The components that a cell of the table means: `Trainer` is each Trainer, `Trainer.dcn` that of the DCN."""
    kept, but, left_out = text.partition(" but ")
    if but:
        return components_of(kept, all_names) - components_of(left_out, all_names)
    if text in ("all", "none"):
        return set(all_names) if text == "all" else set()
    found = set()
    for word in re.sub(r"\bmodels\b", MODEL_NODES, text).split(", "):
        named = {name for name in all_names if name == word or name.startswith(f"{word}.")}
        assert named, f"{DOCUMENT.name}: {word} should be a component of the pipeline."
        found |= named
    return found


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A folder of raw files; nothing reads more than their contents here."""
    folder = tmp_path_factory.mktemp("data")
    for name in ("ratings.dat", "users.dat", "movies.dat"):
        (folder / name).write_text(name)
    return folder


@pytest.fixture(scope="module")
def unchanged(data):
    return Pipeline(data, load_config("sample", OVERRIDES))


@pytest.fixture
def changed(tmp_path, data, unchanged, monkeypatch):
    """Makes a change, and returns which components have another key, and which run again."""
    before = unchanged.keys()

    def change(example: str) -> tuple[set[str], set[str]]:
        overrides, folder = list(OVERRIDES), data
        monkeypatch.setattr(source, "ROOT", copy_sources(tmp_path / "sources"))
        if example == "--data":
            folder = shutil.copytree(data, tmp_path / "data")
        elif "=" in example:
            overrides.append(example)
        elif "/" in example:
            with (source.ROOT / example).open("a") as file:
                file.write("# Changed.\n")
        elif (data / example).is_file():
            monkeypatch.setattr("components.ingestion.content_driver.content_hash", lambda folder: "another")
        elif example != ".":
            _install_another(example, monkeypatch)
        pipeline = Pipeline(folder, load_config("sample", overrides))
        after = pipeline.keys()
        own = {name for name in before if before[name] != after[name]}
        return own, pipeline.with_readers(own)

    return change


def _install_another(library: str, monkeypatch: pytest.MonkeyPatch) -> None:
    version = metadata.version
    assert version(library)

    def version_of(name: str) -> str:
        return "another" if name.replace("_", "-").lower() == library else version(name)

    monkeypatch.setattr(source, "_version", version_of)


@pytest.mark.parametrize(("example", "keys", "again"), CHANGES, ids=[example for example, *_ in CHANGES])
def test_the_table_says_what_runs_again(example, keys, again, changed, unchanged):
    own, reached = changed(example)
    names = unchanged.keys()
    assert own == components_of(keys, names)
    assert reached == components_of(again, names)


def test_the_table_has_rows_for_every_component(unchanged):
    """Each component has a row that gives it another key without giving one to all."""
    names = unchanged.keys()
    own = set().union(*(components_of(keys, names) for _, keys, _ in ROWS if keys != "all"))
    assert own == set(names)
    assert all(examples for examples, *_ in ROWS)


def test_tfx_goes_by_the_key(tmp_path, monkeypatch):
    """A component runs again if its sources have changed, and otherwise comes from the cache."""
    from tfx import v1 as tfx
    from tfx.orchestration.metadata import Metadata, sqlite_metadata_connection_config

    from components.validation.curated_schema import CuratedSchema

    connection = sqlite_metadata_connection_config(str(tmp_path / "metadata.sqlite"))
    monkeypatch.setattr(source, "ROOT", copy_sources(tmp_path / "sources"))

    def run() -> int:
        """Runs the pipeline, and returns how often the component has run so far."""
        component = CuratedSchema()
        add_source_keys([component])
        pipeline = tfx.dsl.Pipeline(
            pipeline_name="schema",
            pipeline_root=str(tmp_path / "root"),
            components=[component],
            enable_cache=True,
            metadata_connection_config=connection,
        )
        tfx.orchestration.LocalDagRunner().run(pipeline)
        with Metadata(connection) as store:
            return len(store.store.get_artifacts_by_type("Schema"))

    assert [run(), run()] == [1, 1]
    with (source.ROOT / "transform" / "schema.pbtxt").open("a") as file:
        file.write("# Changed.\n")
    assert [run(), run()] == [2, 2]


def test_every_component_has_a_key_of_its_code(data):
    pipeline = Pipeline(data, load_config("sample", [*OVERRIDES, "data.spans=2"]))
    for component in pipeline.components:
        assert pipeline.nodes[component.id].parameters.parameters[SOURCE].field_value.string_value
    assert len(pipeline.components) == len(pipeline.keys())


def test_no_path_of_the_sources_is_part_of_the_compiled_pipeline(unchanged):
    assert str(source.ROOT) not in str(unchanged.ir)


def test_keys_take_no_time(unchanged):
    started = time.perf_counter()
    for component in unchanged.components:
        source.source_key(*modules_of(component))
    # Measured at 0.1 s; the bound leaves room for a busy machine.
    assert time.perf_counter() - started < 1


def test_what_components_load_is_part_of_their_keys(unchanged):
    """What Python loads when it imports the modules that components run is what the sources were searched for."""
    modules = sorted({module for component in unchanged.components for module in modules_of(component)})
    program = (
        "import importlib, sys\n"
        "for module in sys.argv[1:]: importlib.import_module(module)\n"
        "print('RESULT', *(module.__file__ for module in list(sys.modules.values()) if getattr(module, '__file__', 0)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, *modules], cwd=source.ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    files = [Path(file) for file in done.stdout.rsplit("RESULT", 1)[1].split()]
    loaded = {file.relative_to(source.ROOT).as_posix() for file in files if file.is_relative_to(source.ROOT)}
    loaded = {file for file in loaded if file.split("/")[0] in source.PACKAGES}
    assert "trainers/dcn.py" in loaded
    assert loaded <= set(source.files_reached(*modules))


def test_every_data_file_of_these_packages_is_part_of_a_key():
    packages = ("components", "trainers", "transform")
    data_files = {
        path.relative_to(source.ROOT).as_posix()
        for package in packages
        for path in (source.ROOT / package).rglob("*")
        if path.is_file() and path.suffix not in (".py", ".pyc")
    }
    assert data_files <= set(source.files_reached(*packages))


def test_where_artifacts_lie_is_in_no_key_but_those_of_tuners_and_where_models_go_in_those_of_pushers(data, unchanged):
    before, config = unchanged.keys(), load_config("sample", OVERRIDES)

    def differ(**places: str) -> set[str]:
        after = Pipeline(data, config, **places).keys()
        return {name for name, key in after.items() if key != before[name]}

    assert differ(root="gs://bucket/pipeline") == components_of("Tuner", before)
    assert differ(serving="gs://bucket/serving") == components_of("Pusher", before)
