"""How Apache Beam runs the components that process data with it: in this process, or on a runner of another one."""

from typing import Literal, Self

from pydantic import Field, model_validator

from pipeline.config_section import ConfigSection

_MAX_WORKERS = 1024  # Each is a thread or a process.

Runner = Literal["in_memory", "prism", "portable", "flink", "spark", "dataflow"]

_FLAGS = {
    # The in-process runner by its own name: DirectRunner, whatever its mode, first tries to download Prism.
    "in_memory": "FnApiRunner",
    "prism": "PrismRunner",
    "portable": "PortableRunner",
    "flink": "FlinkRunner",
    "spark": "SparkRunner",
    "dataflow": "DataflowRunner",
}


# Options by which workers get code that their environment does not have.
_PACKAGES = ("--extra_package", "--extra_packages", "--setup_file", "--requirements_file")
# Options that have a key of their own.
_OWN_KEYS = (
    *("--runner", "--job_endpoint", "--environment_type", "--environment_config", "--sdk_container_image"),
    *("--direct_running_mode", "--direct_num_workers"),
)


class BeamConfig(ConfigSection):
    """How Apache Beam runs."""

    runner: Runner = Field(
        "in_memory",
        description="in_memory: in the process of the component. prism: Beam's own server for one machine. portable: "
        "whatever job server is at `job_endpoint`. flink, spark, dataflow: as Beam's options say.",
    )
    direct_running_mode: Literal["in_memory", "multi_threading", "multi_processing"] = Field(
        "in_memory", description="With runner in_memory: Beam's direct runner mode."
    )
    direct_num_workers: int = Field(
        1, ge=0, le=_MAX_WORKERS, description="With runner in_memory: workers; 0 for one per core."
    )
    job_endpoint: str | None = Field(
        None,
        pattern=r"^\S+:\d{1,5}$",
        description="HOST:PORT of a job server that is there already; required with runner portable.",
    )
    environment: Literal["loopback", "process", "external", "docker"] | None = Field(
        None,
        description="Where workers run the project's code. loopback: in the process of the component, which has it. "
        "process: in processes that the command in environment_config starts. external: in the worker pool at "
        "environment_config. docker: in containers of `image`. null: in loopback with prism, "
        "and in containers with dataflow; with flink, spark and portable only where `options` give workers the wheel.",
    )
    environment_config: str | None = Field(
        None, description='With environment process, JSON such as {"command": "/path/boot"}; with external, HOST:PORT.'
    )
    image: str | None = Field(
        None, description="Container image with this project for workers, such as that of kubeflow/Dockerfile."
    )
    parallelism: int = Field(
        0, ge=0, le=_MAX_WORKERS, description="Workers of one component on other runners; 0 for the runner's choice."
    )
    options: list[str] = Field(
        [], description="Further options of Beam, each as --NAME=VALUE; docs/beam.md has whole command lines."
    )

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if wrong := [option for option in self.options if not option.startswith("--")]:
            raise ValueError(f"options should begin with --; received {wrong[0]!r}")
        if taken := [option for option in self.options if option.partition("=")[0] in _OWN_KEYS]:
            raise ValueError(f"options should not have what has a key of its own; received {taken[0]!r}")
        if self.runner == "portable" and self.job_endpoint is None:
            raise ValueError("job_endpoint should be set with runner portable")
        elsewhere = {name: getattr(self, name) for name in ("job_endpoint", "environment", "image", "parallelism")}
        given = [name for name, value in elsewhere.items() if value]
        if self.runner == "in_memory" and given:
            raise ValueError(f"{given[0]} should go with another runner than in_memory")
        needs_config = self.environment in ("process", "external")
        if needs_config != (self.environment_config is not None):
            raise ValueError("environment_config should be set with environment process or external, and only then")
        if self.environment == "docker" and self.image is None:
            raise ValueError("image should be set with environment docker")
        if self.image and self.runner != "dataflow" and self.environment != "docker":
            raise ValueError("image should go with environment docker, or with runner dataflow")
        if self.runner == "dataflow":
            if self.environment is not None:
                raise ValueError("environment should be null with runner dataflow, whose workers are always containers")
            key, is_given = "image", self.image is not None
        else:
            key, is_given = "environment", self.environment is not None or self.runner in ("in_memory", "prism")
        if not (is_given or self._packages):
            on_this_machine = "" if key == "image" else "; where they are on this one, environment is loopback"
            raise ValueError(
                f"{key} should be set with runner {self.runner}, or options should give workers the project's wheel "
                f"with --extra_package: on another machine they have neither it nor TFX{on_this_machine}"
            )
        return self

    @property
    def _packages(self) -> list[str]:
        """The options that say how workers get code."""
        return [option for option in self.options if option.partition("=")[0] in _PACKAGES]

    def args(self) -> list[str]:
        """Flags for Beam, for the components that process data with it."""
        args = [f"--runner={_FLAGS[self.runner]}"]
        if self.image or not self._packages:
            # Where no flag says how workers get TFX, TFX packs itself into an archive for each component, which takes
            # seconds. An image counts as an answer; workers in this process, or on this machine, need none.
            args.append(f"--sdk_container_image={self.image or 'none'}")
        # Type checks of a graph as large as Transform's take seconds; TFX's own graphs have passed them.
        args.append("--no_pipeline_type_check")
        if self.runner == "in_memory":
            args += [f"--direct_running_mode={self.direct_running_mode}"]
            args += [f"--direct_num_workers={self.direct_num_workers}"]
        if self.job_endpoint:
            args.append(f"--job_endpoint={self.job_endpoint}")
        if self.environment:
            args.append(f"--environment_type={self.environment.upper()}")
        config = self.image if self.environment == "docker" else self.environment_config
        if config:
            args.append(f"--environment_config={config}")
        if self.parallelism:
            # Flink's workers are its own; the other runners start as many of Beam's as they are told.
            flag = "parallelism" if self.runner == "flink" else "sdk_worker_parallelism"
            args.append(f"--{flag}={self.parallelism}")
        return [*args, *self.options]
