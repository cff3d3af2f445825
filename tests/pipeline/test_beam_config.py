"""The section `beam`: what fits together, and whether Beam knows the options that docs/beam.md shows."""

import re
from argparse import ArgumentParser
from pathlib import Path

import pytest
import yaml
from apache_beam.options.pipeline_options import PipelineOptions

from pipeline.beam_config import BeamConfig
from pipeline.config import ConfigError, load_config

DOCS = Path(__file__).parents[2] / "docs" / "beam.md"
SHOWN = [yaml.safe_load(block)["beam"] for block in re.findall(r"```yaml\n(.*?)```", DOCS.read_text(), re.DOTALL)]


def unknown_to_beam(args: list[str]) -> list[str]:
    """The flags that none of Beam's options has."""
    parser = ArgumentParser(allow_abbrev=False, conflict_handler="resolve")
    waiting = [PipelineOptions]
    while waiting:
        options = waiting.pop()
        if "_add_argparse_args" in vars(options):
            options._add_argparse_args(parser)
        waiting += options.__subclasses__()
    return parser.parse_known_args(args)[1]


def test_an_option_that_beam_does_not_have_is_found() -> None:
    assert unknown_to_beam(["--runner=FlinkRunner", "--flink_mister=x"]) == ["--flink_mister=x"]


@pytest.mark.parametrize("section", [{}, *SHOWN], ids=lambda section: section.get("runner", "default"))
def test_beam_knows_what_it_is_told(section: dict[str, object]) -> None:
    args = BeamConfig.model_validate(section).args()
    # These are of the server that another process runs, or of TFX, which takes an image for an answer.
    assert unknown_to_beam(args) == []
    assert [arg for arg in args if arg.startswith("--runner=")] == args[:1]


def test_docs_show_every_runner() -> None:
    every = set(BeamConfig.model_json_schema()["properties"]["runner"]["enum"])
    assert {section["runner"] for section in SHOWN} == every - {"in_memory"}


def test_workers_and_their_environment_are_passed_on() -> None:
    flags = ["runner=portable", "job_endpoint=h:1", "environment=docker", "image=i", "parallelism=3", "options=[--a=b]"]
    args = load_config("sample", [f"beam.{flag}" for flag in flags]).beam.args()
    assert {"--runner=PortableRunner", "--job_endpoint=h:1", "--environment_type=DOCKER"} <= set(args)
    assert {"--environment_config=i", "--sdk_container_image=i", "--sdk_worker_parallelism=3"} <= set(args)
    assert args[-1] == "--a=b"
    assert not [arg for arg in args if arg.startswith("--direct")]


@pytest.mark.parametrize(
    ("flags", "image"),
    [
        (["runner=dataflow", "image=i"], "i"),
        (["runner=flink", "environment=docker", "image=i"], "i"),
        (["runner=spark", "options=[--extra_package=dist/x.whl]"], None),
        (["runner=dataflow", "options=[--extra_package=dist/x.whl]"], None),
        (["runner=dataflow", "image=i", "options=[--extra_package=dist/x.whl]"], "i"),
        (["runner=prism"], "none"),
        (["runner=spark", "environment=loopback"], "none"),
    ],
)
def test_workers_are_told_an_image_only_if_it_is_what_they_run_in(flags: list[str], image: str | None) -> None:
    args = load_config("sample", [f"beam.{flag}" for flag in flags]).beam.args()
    assert PipelineOptions(args).get_all_options()["sdk_container_image"] == image


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["runner=portable"], "job_endpoint should be set with runner portable"),
        (["job_endpoint=h:1"], "job_endpoint should go with another runner than in_memory"),
        (["parallelism=2"], "parallelism should go with another runner than in_memory"),
        (["runner=prism", "environment=external"], "environment_config should be set with environment process or ext"),
        (["runner=prism", "environment_config=x"], "environment_config should be set with environment process or ext"),
        (["runner=flink", "environment=docker"], "image should be set with environment docker"),
        (["runner=flink", "image=i"], "image should go with environment docker, or with runner dataflow"),
        (["runner=dataflow", "image=i", "environment=docker"], "environment should be null with runner dataflow"),
        (["runner=flink", "options=[--sdk_container_image=i]"], "options should not have what has a key of its own"),
        (["runner=flink", "options=[--environment_type=LOOPBACK]"], "options should not have what has a key of its ow"),
        (["runner=spark"], "environment should be set with runner spark, or options should give workers"),
        (["runner=spark"], "neither it nor TFX; where they are on this one, environment is loopback"),
        (["runner=dataflow"], "image should be set with runner dataflow, or options should give workers"),
        (["runner=dataflow"], "on another machine they have neither it nor TFX; received"),
        (["runner=prism", "options=[prism_location=x]"], "options should begin with --; received 'prism_location=x'"),
        (["options=[--runner=DirectRunner]"], "options should not have what has a key of its own"),
        (["runner=portable", "job_endpoint=host"], "String should match pattern"),
        (["runner=direct"], "Input should be 'in_memory', 'prism', 'portable', 'flink', 'spark' or 'dataflow'"),
    ],
)
def test_what_does_not_fit_together_is_refused(settings: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        load_config("sample", [f"beam.{setting}" for setting in settings])
