r"""Writes the pipeline for Kubeflow Pipelines 2, as a YAML file for `movielens submit`, kfp or Kubeflow's pages.

Example:
    python kubeflow/compile.py --config ml1m --image REGISTRY/movielens-tfx@sha256:DIGEST \
        --data /data/ml-1m --root /data/output/ml1m --output movielens.yaml

Each node runs in a container of the image, which calls `movielens run-node`; the first one compiles the pipeline there,
so that nothing in the file depends on the machine that writes it but the names of the nodes.
"""

import re
from pathlib import Path, PurePosixPath
from typing import Annotated

import typer

from components.data.places import is_uri
from pipeline.config import Config, ConfigError, load_config
from pipeline.paths import PathError, check_no_pattern, local_path

_IMAGE = re.compile(r"\S+@sha256:[0-9a-f]{64}")


def compile_pipeline(config: str, overrides: list[str], image: str, data: str, root: str, output: Path) -> None:
    """Writes the file.

    Args:
      config: a preset or a YAML file.
      overrides: `key=value` settings that replace those of the configuration.
      image: container image with this project, by its digest.
      data: folder of the raw files, as the containers see it, or a URI.
      root: folder that the runs write to, as the containers see it.
      output: the file to write.

    Raises:
      ConfigError: the configuration is invalid, or not for Kubeflow Pipelines; or the image has no digest.
      PathError: a folder is not on the volume, or the file cannot be written.
    """
    if not _IMAGE.fullmatch(image):
        # What a tag means may change between two nodes of a run.
        raise ConfigError(f"--image: should name an image by its digest, as in NAME@sha256:…; received {image!r}.")
    settings = load_config(config, overrides)
    mount = PurePosixPath(settings.kubeflow.mount_path)
    for option, folder in (("--data", data), ("--root", root)):
        if option == "--data" and is_uri(folder):
            continue
        if not PurePosixPath(folder).is_relative_to(mount) or ".." in PurePosixPath(folder).parts:
            raise PathError(
                f"{option}: should be a folder on the volume, which containers see at {mount} (kubeflow.mount_path); "
                f"received {folder!r}."
            )
        check_no_pattern(option, folder)
    if settings.metadata.backend == "sqlite":
        raise ConfigError(
            f"{config}: metadata.backend should be mysql for Kubeflow Pipelines, whose nodes may run on several "
            "machines; received sqlite."
        )
    if output.is_dir() or output.suffix != ".yaml":
        raise PathError(f"--output: should be a file such as movielens.yaml; received {str(output)!r}.")
    try:
        from pipeline.kubeflow_spec import write_spec
    except ImportError as error:
        raise ConfigError(f"kfp should be installed, as `scripts/setup.sh --all-extras` does it; {error}.") from error
    nodes = _nodes(settings, data, root)
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        text = settings.model_dump_json()
        write_spec(nodes, settings.name, text, settings.kubeflow, image, data, root, output)
    except OSError as error:
        raise PathError(f"--output: {output} should be a file that can be written; {error.strerror}.") from error


def _nodes(config: Config, data: str, root: str) -> dict[str, list[str]]:
    """The nodes of the pipeline, each with those that it waits for."""
    from pipeline.graph import create_pipeline
    from pipeline.launcher import compile_pipeline, upstream_of_nodes

    pipeline = create_pipeline(config=config, data_dir=data, pipeline_root=root, serving_dir=root)
    return upstream_of_nodes(compile_pipeline(pipeline))


def main(
    image: Annotated[
        str, typer.Option(help="Container image with this project, by its digest.", metavar="NAME@sha256:DIGEST")
    ],
    data: Annotated[
        str, typer.Option(help="Folder of the raw files, as the containers see it, or a URI.", metavar="DIR|URI")
    ] = "/data/ml-1m",
    root: Annotated[
        str, typer.Option(help="Folder for everything that runs write, as the containers see it.", metavar="DIR")
    ] = "/data/output",
    config: Annotated[
        str, typer.Option(help="A preset (sample, ml1m) or a YAML file.", metavar="NAME|FILE.yaml")
    ] = "ml1m",
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", help="Replace one setting. Can be repeated.", metavar="KEY=VALUE", show_default=False),
    ] = None,
    output: Annotated[Path, typer.Option(help="The file to write.", metavar="FILE.yaml", parser=local_path)] = Path(
        "movielens.yaml"
    ),
) -> None:
    """Write the pipeline for Kubeflow Pipelines 2: a container for each node.

    The section `kubeflow` of the configuration has the volume, the Secret, resources and retries. Metadata are kept on
    a server: metadata.backend is mysql unless the configuration or --set says otherwise.

    Exits with 2 if something is invalid, or the file cannot be written.
    """
    try:
        compile_pipeline(config, ["metadata.backend=mysql", *(overrides or [])], image, data, root, output)
    except (ConfigError, PathError, OSError, UnicodeError) as error:
        typer.echo(f"Error: {error}", err=True)
        raise typer.Exit(2) from error
    typer.echo(f"{output}: start it with `movielens submit --spec {output} --host URL`.")


if __name__ == "__main__":
    typer.run(main)
