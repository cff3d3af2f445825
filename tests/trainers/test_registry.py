"""A model is an entry of the registry and a module of its own; everything else follows."""

import json

import pytest

from pipeline.config import load_config
from pipeline.model_settings import ModelsConfig, SpacesConfig
from tests.pipeline.command_line import run_code
from tests.pipeline.copied_sources import copy_sources
from tests.trainers.specs import spec_of
from trainers.hyperparameters import DCNHyperparameters, Hyperparameters, Task
from trainers.registry import MODELS


def test_names_and_sections_agree():
    assert list(ModelsConfig.model_fields) == list(SpacesConfig.model_fields) == list(MODELS)
    sections = ModelsConfig()
    for name, model in MODELS.items():
        assert model.name == name
        assert type(sections[name]) is model.hyperparameters
        assert (model.run_fn, model.tuner_fn) == (f"trainers.{name}.run_fn", f"trainers.{name}.tuner_fn")


@pytest.mark.parametrize("name", MODELS)
def test_the_tasks_are_those_of_the_exported_heads(name):
    """What a model is measured by is what its export computes."""
    from trainers.export.like_head import LikeHead
    from trainers.export.signatures import RatingHead, RetrievalHead

    heads = {Task.RETRIEVAL: RetrievalHead, Task.RATING: RatingHead, Task.LIKE: LikeHead}
    hparams = MODELS[name].hyperparameters()
    spec = MODELS[name].spec(hparams)
    assert (spec.name, spec.hyperparameters) == (name, type(hparams))
    exported = [head for head in spec.heads if head in heads.values()]
    assert exported == [heads[task] for task in hparams.tasks]


def test_the_objective_of_the_dcn_decides_its_task_and_its_model():
    from trainers.dcn import DCNModel, LikeModel

    assert DCNHyperparameters().tasks == (Task.RATING,)
    assert DCNHyperparameters(objective="like").tasks == (Task.LIKE,)
    assert spec_of("dcn", {}).build is DCNModel
    assert spec_of("dcn", {"objective": "like"}).build is LikeModel


def test_hyper_parameters_without_tasks_cannot_be_forgotten():
    with pytest.raises(NotImplementedError):
        _ = Hyperparameters().tasks
    for model in MODELS.values():
        assert model.hyperparameters().tasks


FIFTH = """
import json, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from trainers import registry
from trainers.hyperparameters import RankingHyperparameters

# The two things that a new model consists of: an entry, and a module.
registry.MODELS["fifth"] = registry.RegisteredModel(
    name="fifth", description="One more.", hyperparameters=RankingHyperparameters, search_space={"dropout": [0.1, 0.2]}
)
module = Path(sys.argv[2]) / "trainers" / "fifth.py"
module.write_text("from trainers.ranking import run_fn, spec, tuner_fn\\n")

from pipeline.commands.tune import Model
from pipeline.config import load_config
from pipeline.graph import create_pipeline
from pipeline.launcher import compile_pipeline
from pipeline.local.store import metadata_config
from pipeline.local.report import summarise
from pipeline.serving_files import models_config

config = load_config("sample", ["models.fifth.epochs=7", "tuning.models=[fifth]", "tuning.space.fifth.dropout=[0.3]"])
root = Path(sys.argv[1])
ir = compile_pipeline(
    create_pipeline(
        config=config,
        data_dir=str(root),
        pipeline_root=str(root / "pipeline"),
        serving_dir=str(root / "serving"),
        metadata_connection_config=metadata_config(root / "metadata.sqlite"),
    )
)
nodes = {node.pipeline_node.node_info.id: node.pipeline_node for node in ir.nodes}
parameters = nodes["Trainer.fifth"].parameters.parameters
eval_config = nodes["Evaluator.fifth"].parameters.parameters["eval_config"].field_value.string_value
summary = summarise(config, [], {}, {}, None, seconds=0, peak_rss_mb=0, finished="", log=Path("log"))
print("RESULT" + json.dumps({
    "nodes": sorted(node for node in nodes if node.endswith("fifth")),
    "run_fn": parameters["run_fn"].field_value.string_value,
    "epochs": json.loads(parameters["custom_config"].field_value.string_value)["hyperparameters"]["epochs"],
    "gated": "squared_error_gain" in eval_config,
    "tunable": [each.value for each in Model],
    "space": config.tuning.space["fifth"],
    "seed": summary["seeds"]["fifth"],
    "served": '"/models/fifth"' in models_config(),
}))
"""


@pytest.mark.component
def test_a_fifth_model_is_one_entry_and_its_module(tmp_path):
    done = run_code(FIFTH, str(tmp_path), str(copy_sources(tmp_path / "sources")))
    assert done.returncode == 0, done.stderr[-3000:]
    result = json.loads(done.stdout.rsplit("RESULT", 1)[1])
    stages = ("Evaluator", "Pusher", "Resolver", "Trainer", "Tuner")
    assert result["nodes"] == [f"{stage}.fifth" for stage in stages]
    assert (result["run_fn"], result["epochs"], result["gated"]) == ("trainers.fifth.run_fn", 7, True)
    assert result["tunable"] == [*MODELS, "fifth"]
    assert (result["space"], result["seed"], result["served"]) == ({"dropout": [0.3]}, 0, True)


def test_an_unknown_model_is_refused_with_the_names_there_are():
    from pipeline.config import ConfigError

    with pytest.raises(ConfigError, match=r"unknown key 'models\.fifth'; expected one of: dcn, retrieval, ranking"):
        load_config("sample", ["models.fifth.epochs=1"])
