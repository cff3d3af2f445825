r"""Compiles the pipeline to a Kubeflow Pipelines v2 pipeline spec, which `kfp` or Vertex AI can run.

Example:
    python kubeflow/compile.py --config ml1m --image REGISTRY/movielens-tfx:latest \
        --data gs://BUCKET/ml-1m --root gs://BUCKET/pipeline --serving gs://BUCKET/serving --output movielens.json

The cache goes by the code of this checkout, so the image should be built from it; docs/cache.md says how to check that.
"""

from pathlib import Path
from typing import Annotated

import typer

from pipeline.config import ConfigError, load_config
from pipeline.paths import PathError, check_no_pattern, local_path


def compile_pipeline(
    config: str, overrides: list[str], image: str, data: str, root: str, serving: str, output: Path
) -> None:
    """Writes the pipeline spec as a JSON file.

    Args:
      config: a preset or a YAML file.
      overrides: `key=value` settings that replace those of the configuration.
      image: container image with this project; every component runs in it.
      data: folder of the raw files, as the containers see it, a path or a URI.
      root: pipeline root, under which the components write their artifacts, a path or a URI.
      serving: folder to which blessed models are pushed, a path or a URI.
      output: the file to write.

    Raises:
      ConfigError: the configuration is invalid, or uses a setting that Kubeflow Pipelines does not support.
      PathError: a folder is empty or reads as a pattern, or the file cannot be written.
    """
    if not image.strip():
        raise ConfigError(f"--image: should be the name of a container image; received {image!r}.")
    # On Kubeflow Pipelines TFX's own driver looks for the raw files, with a pattern; elsewhere the project's does not.
    for option, folder in (("--data", data), ("--root", root), ("--serving", serving)):
        if not folder.strip():
            raise PathError(f"{option}: should be the path or the URI of a folder; received {folder!r}.")
        check_no_pattern(option, folder)
    in_the_way = [output] if output.is_dir() else [path for path in output.absolute().parents if path.is_file()]
    if in_the_way:
        kind = "folder" if output.is_dir() else "file"
        raise PathError(
            f"--output: should be a file in a folder; received {str(output)!r}, and {in_the_way[0]} is a {kind}."
        )
    settings = load_config(config, overrides)
    if settings.data.spans is not None:
        # TFX's runner for Kubeflow supports only two resolver strategies, LatestArtifactStrategy and
        # LatestBlessedModelStrategy; neither of them resolves a window of spans.
        raise ConfigError(
            f"{config}: data.spans should be null for Kubeflow Pipelines; received {settings.data.spans}."
        )
    warm = [name for name, hyperparameters in settings.models if hyperparameters.warm_start]
    if warm:
        # Neither of the two strategies can tell one Trainer's models from another's.
        raise ConfigError(
            f"{config}: models.{warm[0]}.warm_start should be false for Kubeflow Pipelines; received true."
        )

    import tensorflow as tf
    from tfx.dsl.input_resolution.strategies.latest_blessed_model_strategy import LatestBlessedModelStrategy
    from tfx.orchestration.kubeflow.v2 import kubeflow_v2_dag_runner

    from pipeline.graph import create_pipeline

    pipeline = create_pipeline(
        config=settings,
        data_dir=data,
        pipeline_root=root,
        serving_dir=serving,
        # Kubeflow Pipelines resolves artifacts itself, and cannot run the project's own strategy.
        resolver_strategy=LatestBlessedModelStrategy,
    )
    try:
        # The runner already makes the folder of the file.
        runner = kubeflow_v2_dag_runner.KubeflowV2DagRunner(
            config=kubeflow_v2_dag_runner.KubeflowV2DagRunnerConfig(
                display_name="MovieLens recommender", default_image=image
            ),
            output_dir=str(output.parent),
            output_filename=output.name,
        )
        runner.run(pipeline, write_out=True)
    except (OSError, tf.errors.OpError) as error:
        raise PathError(f"--output: should be a file that can be written; {error}.") from error


def main(
    image: Annotated[str, typer.Option(help="Container image with this project.")],
    data: Annotated[str, typer.Option(help="Folder of the raw files, as the containers see it.")],
    root: Annotated[str, typer.Option(help="Pipeline root, under which artifacts are written.")],
    serving: Annotated[str, typer.Option(help="Folder to which blessed models are pushed.")],
    config: Annotated[str, typer.Option(help="A preset (sample, ml1m) or a YAML file.")] = "ml1m",
    overrides: Annotated[
        list[str] | None, typer.Option("--set", help="Replace one setting: KEY=VALUE. Can be repeated.")
    ] = None,
    output: Annotated[Path, typer.Option(help="The file to write.", metavar="FILE", parser=local_path)] = Path(
        "movielens.json"
    ),
) -> None:
    """Compile the pipeline for Kubeflow Pipelines v2."""
    try:
        compile_pipeline(config, overrides or [], image, data, root, serving, output)
    except (ConfigError, PathError, OSError, UnicodeError) as error:
        typer.echo(f"Error: {error}", err=True)
        raise typer.Exit(2) from error


if __name__ == "__main__":
    typer.run(main)
