"""A small pipeline with the real resolver, Evaluator and Pusher of two models, and stand-ins for data and training.

A model is as good as it is told to be, so that a test knows what the gates have to find. Nothing is learnt, because
training until a model is 2 % worse than another would take hours, and could not be told how much worse.
"""

from pathlib import Path
from typing import cast

import numpy as np
import pandas as pd
import tensorflow as tf
from ml_metadata.proto import metadata_store_pb2
from tfx import v1 as tfx
from tfx.types import artifact_utils, standard_artifacts
from tfx.utils import path_utils

from components.ingestion.row_keys import write_row_keys
from components.ingestion.splits import TEST, TRAIN
from pipeline.cache_keys import add_source_keys
from pipeline.config import EvaluationConfig, load_config
from pipeline.gates import eval_config
from pipeline.launcher import compile_pipeline, new_run_id, node_ids
from pipeline.local.compiled import Compiled
from pipeline.local.output import OutputFolder
from pipeline.local.runner import RunnerName, run_pipeline
from pipeline.local.single_node import run_node, why_nothing_came_of_it
from pipeline.model_stage import evaluated, latest_blessed, pusher
from tests.pipeline.silent import Silent
from trainers.export.situations import SITUATIONS
from trainers.hyperparameters import Task

NAME = "nightly"

# The models, and what each is measured by.
TASKS = {"retrieval": Task.RETRIEVAL, "ranking": Task.RATING}

# About those of MovieLens 1M: the champion's filtered recall@10, that of popularity, its RMSE and that of the biases.
RECALL, POPULARITY_RECALL = 0.33, 0.05
RMSE, BIAS_RMSE = 0.85, 0.91

# MovieLens 1M has 250,000 test rows, and measuring so many takes minutes. What decides is the standard error of the
# mean difference, which is the root of the share of rows in which one model finds the movie and the other does not,
# divided by the number of rows. If that share is an eighth, as may be for two retrievers that mostly find the same
# movies, 250,000 rows have an error of .0007. With 10,000 rows the models have to differ in fewer of them to come near
# that: in 1 %, which has an error of .001, so that the gate's task is no easier here. Two thirds of that are the 2 % of
# hits that the worse model lacks; the rest is in rows that each model decides on its own, whose share this is.
ROWS = 10_000
OWN_SHARE = 0.004
# What is each rating model's own in its error, in stars: predictions of two models are then a fifth of a star apart.
# The number of rows needs no allowance here, since 2 % of an RMSE are many times the tolerance.
OWN_ERROR = 0.15

MOST_MODELS = 3


@tfx.dsl.components.component
def Data(
    night: tfx.dsl.components.Parameter[int],
    seed: tfx.dsl.components.Parameter[int],
    rows: tfx.dsl.components.Parameter[int],
    examples: tfx.dsl.components.OutputArtifact[standard_artifacts.Examples],
) -> None:
    """Stands in for MovieLensExampleGen: test rows and keys of people who are there in this night only.

    Chance is in the rows, as features that only the models of this module read: what all models have in common about a
    row, and what each has of its own.
    """
    rng = np.random.default_rng([seed, night])
    people = np.arange(2 * rows) + night * 10**6
    ratings = pd.DataFrame({"user_id": people, "movie_id": 1, "timestamp": 1})
    ratings["split"] = np.where(np.arange(2 * rows) < rows, TRAIN, TEST)
    write_row_keys(examples.uri, ratings)
    examples.split_names = artifact_utils.encode_split_names(["test"])
    folder = Path(examples.uri, "Split-test")
    folder.mkdir()
    stars = rng.integers(1, 6, rows)
    ease, error = rng.uniform(size=(rows, 1 + MOST_MODELS)), rng.normal(size=(rows, 1 + MOST_MODELS))
    with tf.io.TFRecordWriter(str(folder / "data_tfrecord-00000-of-00001.gz"), "GZIP") as writer:
        for row in range(rows):
            example = tf.train.Example()
            example.features.feature["gender"].bytes_list.value.append(b"FM"[row % 2 :][:1])
            example.features.feature["rating"].float_list.value.append(stars[row])
            example.features.feature["ease"].float_list.value.extend(ease[row])
            example.features.feature["error"].float_list.value.extend(error[row])
            writer.write(example.SerializeToString())


@tfx.dsl.components.component
def Gate(schema: tfx.dsl.components.OutputArtifact[standard_artifacts.Schema]) -> None:
    """Stands in for the data gate: the schema of the rows of `Data`."""
    features = {"gender": ("BYTES", 1), "rating": ("FLOAT", 1)}
    features |= dict.fromkeys(("ease", "error"), ("FLOAT", 1 + MOST_MODELS))
    lines = [
        f'feature {{ name: "{name}" type: {kind} shape {{ dim {{ size: {size} }} }} presence {{ min_fraction: 1 }} }}'
        for name, (kind, size) in features.items()
    ]
    Path(schema.uri, "schema.pbtxt").write_text("\n".join(lines))


@tfx.dsl.components.component
def Training(
    examples: tfx.dsl.components.InputArtifact[standard_artifacts.Examples],
    task: tfx.dsl.components.Parameter[str],
    night: tfx.dsl.components.Parameter[int],
    factor: tfx.dsl.components.Parameter[float],
    model: tfx.dsl.components.OutputArtifact[standard_artifacts.Model],
) -> None:
    """Stands in for a Trainer: a model whose recall, or RMSE, is the champion's times `factor`."""
    outputs = {Task.RETRIEVAL: _retrieval, Task.RATING: _rating}[Task(task)]
    shapes = {"rating": [], "ease": [1 + MOST_MODELS], "error": [1 + MOST_MODELS]}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="examples")])
    def evaluate(examples):
        spec = {name: tf.io.FixedLenFeature(shape, tf.float32) for name, shape in shapes.items()}
        return outputs(tf.io.parse_example(examples, spec), night, factor)

    tf.saved_model.save(tf.Module(), path_utils.serving_model_dir(model.uri), signatures={"evaluate": evaluate})


def _retrieval(features, number, factor):
    """Hits of the retriever with a number: a few rows are its own luck, the others are as easy for every model."""
    ease, luck = features["ease"][:, 0], features["ease"][:, number]
    recall = RECALL * factor
    found = tf.where(luck < OWN_SHARE, luck < OWN_SHARE * recall, ease < recall)
    hit, popular = tf.cast(found, tf.float32), tf.cast(ease < POPULARITY_RECALL, tf.float32)
    main = "recall_at_10_filtered"
    return {main: hit, f"popularity_{main}": popular, f"{main}_gain": hit - popular} | {
        f"{main}_{situation}": hit for situation in SITUATIONS
    }


def _rating(features, number, factor):
    """Errors of the rating model with a number: what is hard to predict is so for every model."""
    common, own = features["error"][:, 0], features["error"][:, number]
    error = factor * ((RMSE**2 - OWN_ERROR**2) ** 0.5 * common + OWN_ERROR * own)
    predicted, bias = features["rating"] + error, features["rating"] + BIAS_RMSE * common
    squared = error**2
    return {
        "predicted_rating": predicted,
        "bias_predicted_rating": bias,
        "squared_error": squared,
        "squared_error_gain": (BIAS_RMSE * common) ** 2 - squared,
    } | {f"squared_error_{situation}": squared for situation in SITUATIONS}


def night_pipeline(
    folder: Path, night: int, factors: dict[str, float], seed: int, whole_history: bool = False
) -> tfx.dsl.Pipeline:
    """The pipeline of a night, on other rows than those of any other night.

    Args:
      folder: for artifacts, the metadata store and what is pushed; the same for all nights of a history.
      night: its number, from 1 to `MOST_MODELS`.
      factors: by model, its recall or RMSE as a part of the first night's.
      seed: of chance.
      whole_history: give the resolvers all models that the candidate's node ever made, in place of this run's.
    """
    data = Data(night=night, seed=seed, rows=ROWS).with_id("MovieLensExampleGen")
    gate = Gate().with_id("DataGate")
    nodes = [data, gate]
    for name, factor in factors.items():
        task = TASKS[name]
        trainer = Training(examples=data.outputs["examples"], task=task.value, night=night, factor=factor)
        trainer = trainer.with_id(f"Trainer.{name}")
        candidate = trainer.outputs["model"]
        if whole_history:
            # A channel that is no output of this pipeline's node, although it names it, is not bound to the run.
            candidate = tfx.dsl.Channel(candidate.type, producer_component_id=trainer.id, output_key="model")
        resolver = latest_blessed(name, candidate)
        resolver.add_upstream_node(trainer)
        model = trainer.outputs["model"]
        evaluator = evaluated(name, model, resolver, data, gate, eval_config([task], EvaluationConfig()))
        push = pusher(name, model, evaluator.outputs["blessing"], str(folder / "serving"))
        nodes += [trainer, resolver, evaluator, push]
    add_source_keys(nodes)
    return tfx.dsl.Pipeline(
        pipeline_name=NAME,
        pipeline_root=str(folder / "pipeline"),
        components=nodes,
        enable_cache=True,
        metadata_connection_config=store_config(folder),
        beam_pipeline_args=load_config("sample").beam.args(),
    )


def store_config(folder: Path) -> metadata_store_pb2.ConnectionConfig:
    return tfx.orchestration.metadata.sqlite_metadata_connection_config(str(folder / "metadata.sqlite"))


def run_on(runner: str, pipeline: tfx.dsl.Pipeline) -> dict[str, str]:
    """Runs a pipeline to its end.

    Args:
      runner: `local` or `beam`, those of `movielens run`, of which the second is TFX's BeamDagRunner; `tfx_local`, that
        is TFX's LocalDagRunner; or `nodes`, one after the other as `movielens run-node` does it.
      pipeline: what to run.

    Returns:
      Of `nodes`, why nothing came of a node, by node; else nothing.
    """
    if runner == "nodes":
        return _run_node_by_node(pipeline)
    if runner == "tfx_local":
        tfx.orchestration.LocalDagRunner().run(pipeline)
    else:
        run_pipeline(pipeline, cast(RunnerName, runner), Silent())
    return {}


def _run_node_by_node(pipeline: tfx.dsl.Pipeline) -> dict[str, str]:
    output = OutputFolder(Path(pipeline.pipeline_info.pipeline_root).parent)
    compiled = Compiled(compile_pipeline(pipeline), load_config("sample"), output.data, output)
    run_id, reasons = new_run_id(), {}
    for node_id in node_ids(compiled.ir):
        node = run_node(compiled, node_id, run_id)
        reasons[node_id] = why_nothing_came_of_it(compiled, node, run_id)
    return {node_id: reason for node_id, reason in reasons.items() if reason}
