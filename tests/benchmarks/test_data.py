"""The cost of the data components: what is measured, compared and printed; and that both jobs do the same work."""

import json
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from benchmarks import data as benchmark
from benchmarks.data_job import COMPONENTS, Cost, CostObserver, Job, count_rows, data_pipeline, main
from components.data.sample import generate_sample
from tests.components.ingestion.examples_oracle import RATING_SPLITS, SPLITS, assert_examples, read_split
from tests.pipeline.command_line import run_code

APP = typer.Typer()
APP.command()(benchmark.main)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    generate_sample(tmp_path / "source", users=40, movies=60, ratings=1_000, seed=2)
    return tmp_path / "source"


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Job, int]]:
    """Jobs that would have run, with their number of ratings, of which each component takes a time of its own."""
    asked: list[tuple[Job, int]] = []

    def run(job: Job, data: Path, root: Path):
        ratings = len((data / "ratings.dat").read_bytes().splitlines())
        asked.append((job, ratings))
        times = 1 if job is Job.PIPELINE else 3
        costs = {name: Cost(times * (2 + ratings / 100), 1.5, 100 + place) for place, name in enumerate(COMPONENTS)}
        return costs, {"ExampleGen": {"train": ratings}}

    monkeypatch.setattr(benchmark, "_run", run)
    return asked


def run(*arguments: str | Path):
    return CliRunner().invoke(APP, [str(argument) for argument in arguments], env={"ML1M_DIR": None})


def test_sizes_are_measured_and_compared(source, runs, tmp_path):
    written = tmp_path / "results.json"
    result = run("--data", source, "--rows", "400,3000", "--baseline-rows", "1000", "--json", written)
    assert result.exit_code == 0, result.output
    (job, small), *others = runs
    assert job is Job.PIPELINE
    assert 400 <= small < 600
    assert others == [(Job.PIPELINE, 1_000), (Job.STRAIGHTFORWARD, 1_000), (Job.PIPELINE, 3_000)]

    document = json.loads(written.read_text())
    assert [each["source"] for each in document["measurements"]] == ["MovieLens"] * 3 + ["generated"]
    total = document["measurements"][-1]["costs"]["all three"]
    assert total == {"seconds": 3 * 32, "cpu_seconds": 4.5, "peak_mb": 102}
    # The straightforward job has no part in how the pipeline's cost grows.
    assert document["scaling"]["Transform"]["fixed"] == pytest.approx(2)
    assert document["scaling"]["Transform"]["per_row"] == pytest.approx(0.01)
    assert document["scaling"]["all three"]["fixed"] == pytest.approx(6)
    comparison = document["comparison"]
    assert comparison["ratings"] == 1_000
    assert comparison["same_rows"]
    assert comparison["times_faster"] == dict.fromkeys([*COMPONENTS, "all three"], pytest.approx(3))

    tables = [[cell.strip() for cell in line.split("|")[1:-1]] for line in result.stdout.splitlines() if "|" in line]
    row = ["StatisticsGen", "straightforward", "MovieLens", "1,000", "36.0", "1.5", "28", "36000.0", "101"]
    assert row in tables
    assert ["all three", "36.0", "108.0", "3.00"] in tables


def test_other_rows_are_told(source, runs, monkeypatch):
    stand_in = benchmark._run

    def run_with_loss(job: Job, data: Path, root: Path):
        costs, rows = stand_in(job, data, root)
        return costs, rows if job is Job.PIPELINE else {"ExampleGen": {"train": 999}}

    monkeypatch.setattr(benchmark, "_run", run_with_loss)
    assert "NOT the same" in run("--data", source, "--rows", "1000", "--baseline-rows", "1000").stdout


def test_no_baseline_and_no_data(runs):
    result = run("--rows", "2000", "--baseline-rows", "0")
    assert result.exit_code == 0, result.output
    assert runs == [(Job.PIPELINE, 2_000)]
    assert "times faster" not in result.stdout


@pytest.mark.parametrize("rows", ["", "0", "10,x"])
def test_sizes_that_cannot_be(rows, runs):
    result = run("--rows", rows)
    assert result.exit_code == 2
    assert not runs


def test_data_that_cannot_be_used_are_named(source, runs):
    (source / "ratings.dat").write_text("1::1::7::978300000\n")
    result = run("--data", source)
    assert result.exit_code == 2
    assert "ratings.dat:1" in result.output


@pytest.mark.component
def test_a_failed_job_is_told_with_its_last_words(tmp_path, monkeypatch):
    monkeypatch.setattr(benchmark, "write_generated", lambda rows, folder: rows)
    result = run("--rows", "100", "--baseline-rows", "0")
    assert result.exit_code == 1
    assert "should be a folder" in result.output


# A process by itself, without children: what they hold counts, too, and other tests may have left some.
OBSERVE = """
import dataclasses, json
from benchmarks.data_job import CostObserver
from pipeline.nodes import NodeRun

observer = CostObserver()
for node, size in (("large", 300 << 20), ("small", 1)):
    observer.started(node)
    memory = bytearray(b"x") * size
    del memory
    observer.finished(NodeRun(node, "complete", 1.5))
print(json.dumps({node: dataclasses.asdict(cost) for node, cost in observer.costs.items()}))
"""


def test_peak_memory_is_of_one_node():
    completed = run_code(OBSERVE)
    assert completed.returncode == 0, completed.stderr
    costs = json.loads(completed.stdout)
    assert costs["large"]["peak_mb"] - costs["small"]["peak_mb"] == pytest.approx(300, abs=50)
    assert costs["large"]["seconds"] == 1.5


@pytest.mark.component
def test_the_measured_nodes_are_the_pipelines_own(source, tmp_path):
    nodes = data_pipeline(source, tmp_path).components
    ids = {node.id for node in nodes}
    assert {"MovieLensExampleGen", "StatisticsGen", "DataGate", "Transform"} <= ids
    assert not any("Trainer" in name for name in ids)


@pytest.mark.component
@pytest.mark.nightly
def test_the_straightforward_job_runs_to_its_end(source, tmp_path):
    result = tmp_path / "result.json"
    main(source, tmp_path, result, Job.STRAIGHTFORWARD)
    document = json.loads(result.read_text())
    assert set(document["costs"]) == set(COMPONENTS)
    assert sum(document["rows"]["ExampleGen"][split] for split in RATING_SPLITS) == 1_000
    assert document["rows"]["Transform"]["train"] == document["rows"]["ExampleGen"]["train"]


@pytest.mark.component
def test_the_straightforward_rows_are_the_pipelines(source, tmp_path):
    from tfx import v1 as tfx

    from benchmarks.straightforward import example_gen
    from components.ingestion.movielens_example_gen import MovieLensExampleGen
    from components.ingestion.splits import SplitConfig
    from pipeline.beam_config import BeamConfig
    from pipeline.config import DataConfig
    from pipeline.local.runner import run_pipeline
    from pipeline.local.store import metadata_config

    history_length = DataConfig().history_length
    pipeline = tfx.dsl.Pipeline(
        pipeline_name="both",
        pipeline_root=str(tmp_path),
        components=[MovieLensExampleGen(str(source), SplitConfig(), history_length), example_gen(source)],
        metadata_connection_config=metadata_config(tmp_path / "metadata.sqlite"),
        beam_pipeline_args=BeamConfig().args(),
    )
    observer = CostObserver()
    run_pipeline(pipeline, "local", observer)

    assert all(observer.costs[node].cpu_seconds > 0 for node in ("MovieLensExampleGen", "ExampleGen"))
    splits = []
    for node in ("MovieLensExampleGen", "ExampleGen"):
        (uri,) = tmp_path.glob(f"{node}/examples/*")
        tables = {name: read_split(str(uri), name) for name in SPLITS}
        if node == "ExampleGen":
            # Shuffled; the oracle expects the movies in the order of the file.
            tables["movies"] = _by_id(tables["movies"])
        ratings = assert_examples(tables, source, history_length)
        splits.append(ratings["split"].tolist())
        assert count_rows(tmp_path)["ExampleGen"] == {name: table.num_rows for name, table in tables.items()}
    assert splits[0] == splits[1]


def _by_id(table):
    return table.take(table["movie_id"].combine_chunks().flatten().to_numpy().argsort())
