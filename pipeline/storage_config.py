"""Settings of the places, other than the output folder, where artifacts and pushed models lie."""

from typing import Self
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from components.data.places import is_uri, refuse_password
from components.storage.paths import stored_path
from pipeline.config_section import ConfigSection
from pipeline.paths import PathError, check_no_pattern

_LONGEST_URI = 500  # Characters; names of artifacts are added, and object stores take 1,024 bytes for the whole.


class StorageConfig(ConfigSection):
    """Where artifacts and pushed models lie, if not in the output folder."""

    artifacts: str | None = Field(
        None,
        max_length=_LONGEST_URI,
        description="URI of the pipeline root, where artifacts go, such as gs://bucket/movielens/pipeline; null for "
        "the folder `pipeline` of the output folder. It belongs to one output folder, which keeps to it.",
    )
    serving: str | None = Field(
        None,
        max_length=_LONGEST_URI,
        description="URI of the folder where models are pushed to, such as gs://bucket/movielens/serving; null for the "
        "folder `serving` of the output folder. It belongs to one output folder, which keeps to it.",
    )

    @field_validator("artifacts", "serving")
    @classmethod
    def _is_a_uri(cls, uri: str | None) -> str | None:
        if uri is None:
            return None
        if not is_uri(uri):
            raise ValueError("should be a URI such as gs://bucket/folder, or null for the output folder")
        refuse_password(uri)
        parts = urlsplit(uri)
        if "@" in uri or (":" in parts.netloc and not parts.netloc.rpartition(":")[2].isdigit()):
            # Names and keys in URIs would be printed, logged, and kept in metadata.
            raise ValueError("should have no name or key of a user, which the environment has")
        if not uri.startswith(f"{parts.scheme}://"):
            raise ValueError(f"should have its scheme in small letters, {parts.scheme}://")
        if parts.scheme == "file":
            raise ValueError("should be in another place than on this machine, where --output names the folder")
        if parts.query or parts.fragment:
            # Some stores take keys there, and names of places are printed, logged, and kept in metadata.
            raise ValueError("should have no ? and no #")
        try:
            check_no_pattern("", uri)
        except PathError as error:
            raise ValueError(str(error).removeprefix(": ").partition("; received")[0]) from error
        uri = uri.rstrip("/")
        if not parts.netloc or ".." in stored_path(uri).parts or str(stored_path(uri)) != uri or not uri.isprintable():
            raise ValueError("should name a bucket or a host, and folders that have names")
        return uri

    @model_validator(mode="after")
    def _are_apart(self) -> Self:
        if self.artifacts and self.serving:
            artifacts, serving = stored_path(self.artifacts), stored_path(self.serving)
            if artifacts.is_relative_to(serving) or serving.is_relative_to(artifacts):
                # Nodes and models would lie beside each other, and servers would take one for the other.
                raise ValueError("artifacts and serving should be two folders, neither in the other")
        return self
