"""Settings of the containers in which Kubeflow Pipelines runs the nodes."""

from typing import Self

from pydantic import Field, model_validator

from pipeline.config_section import ConfigSection

_CORES, _BYTES = r"^\d+(\.\d+)?m?$", r"^\d+(\.\d+)?(Ki|Mi|Gi|Ti)?$"  # How Kubernetes writes these amounts.
_NAME = r"^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$"  # Of something in Kubernetes.
_PATH = r"^(/[A-Za-z0-9._-]+)+$"
_MAX_RETRIES, _MAX_GPUS, _MAX_SECONDS, _MAX_HOURS = 100, 64, 86_400, 10_000


class Resources(ConfigSection):
    """What a container asks for, what it may take, and how often it is tried again."""

    cpu: str = Field("1", pattern=_CORES, description="Cores that are kept for it; it may use more.")
    memory: str = Field("4Gi", pattern=_BYTES, description="Memory that it may take; with more, it is ended.")
    gpu: int = Field(0, ge=0, le=_MAX_GPUS, description="GPUs.")
    retries: int | None = Field(
        None, ge=0, le=_MAX_RETRIES, description="How often it is tried again if it failed; null: as `retries` says."
    )


class KubeflowConfig(ConfigSection):
    """How Kubeflow Pipelines runs the nodes, each in a container of its own."""

    volume_claim: str = Field(
        "movielens",
        pattern=_NAME,
        description="Name of the PersistentVolumeClaim with the data and everything that runs write. Several nodes use "
        "it at once, so it has to be ReadWriteMany, and to know flock, as NFS 4 does.",
    )
    mount_path: str = Field("/data", pattern=_PATH, description="Where the containers see this volume.")
    metadata_secret: str = Field(
        "movielens-metadata",
        pattern=_NAME,
        description="Name of the Secret that says where the metadata are; its keys are host, port, database, user and "
        "password and, with metadata_tls, ca.pem.",
    )
    metadata_tls: bool = Field(False, description="Whether connections to the metadata are encrypted.")
    retries: int = Field(2, ge=0, le=_MAX_RETRIES, description="How often a node is tried again that failed.")
    retry_seconds: int = Field(
        60, ge=1, le=_MAX_SECONDS, description="Seconds before the first of these tries; later ones wait longer."
    )
    node_hours: float = Field(6.0, ge=0.01, le=_MAX_HOURS, description="Hours after which a node is ended.")
    resources: dict[str, Resources] = Field(
        {
            "default": Resources(),
            "Trainer": Resources(cpu="2", memory="8Gi"),
            "Tuner": Resources(cpu="2", memory="8Gi"),
            "Evaluator": Resources(cpu="2", memory="8Gi"),
        },
        description="By node, such as Trainer.dcn, or kind of node, such as Trainer, or `default` for all others.",
    )

    @model_validator(mode="after")
    def _has_a_default(self) -> Self:
        if "default" not in self.resources:
            raise ValueError("resources should have the key `default`")
        return self

    def resources_of(self, node: str) -> Resources:
        """The resources of a node: its own, or those of its kind, or the default."""
        named = (node, node.partition(".")[0], "default")
        return next(self.resources[name] for name in named if name in self.resources)

    def retries_of(self, node: str) -> int:
        """How often a node is tried again that failed."""
        own = self.resources_of(node).retries
        return self.retries if own is None else own
