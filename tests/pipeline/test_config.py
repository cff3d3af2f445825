"""The typed configuration: what it accepts, and what it says about the rest."""

import subprocess
import sys
import types
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from components.ingestion.splits import Strategy, assign_splits
from pipeline.config import Config, ConfigError, load_config, preset_names
from trainers.hyperparameters import MAX_SEED, DCNHyperparameters
from trainers.registry import MODELS

MISSING = object()


def fields(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, str | None]]:
    """Every key of the tree, by its dotted name, with its description."""
    for name, field in model.model_fields.items():
        yield prefix + name, field.description
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from fields(field.annotation, f"{prefix}{name}.")


def write(folder: Path, text: str) -> str:
    path = folder / "config.yaml"
    path.write_text(text)
    return str(path)


def message(source: str, *overrides: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load_config(source, list(overrides))
    return str(caught.value)


def test_every_preset_loads_and_is_named_after_its_file():
    assert {"ml1m", "sample"} <= set(preset_names())
    for name in preset_names():
        assert load_config(name).name == name


def test_every_key_is_described():
    undescribed = [key for key, description in fields(Config) if not (description or "").strip().endswith(".")]
    assert undescribed == []


def test_the_keys_that_others_rely_on_exist():
    keys = {key for key, _ in fields(Config)}
    assert {"data.split.strategy", "data.split.seed"} <= keys
    assert {f"data.split.fractions.{split}" for split in ("train", "eval", "test")} <= keys


def test_a_file_sets_only_what_it_names(tmp_path):
    config = load_config(write(tmp_path, "name: mine\nmodels:\n  ranking:\n    epochs: 3\n"))
    assert (config.name, config.models.ranking.epochs) == ("mine", 3)
    assert config.models.dcn == DCNHyperparameters()


def test_overrides_replace_what_the_file_says_and_the_last_one_wins(tmp_path):
    source = write(tmp_path, "name: mine\nmodels: {ranking: {epochs: 3, patience: 1}}\n")
    ranking = load_config(source, ["models.ranking.epochs=4", "models.ranking.epochs=5"]).models.ranking
    assert (ranking.epochs, ranking.patience) == (5, 1)


@pytest.mark.parametrize(
    ("override", "read", "expected"),
    [
        ("models.ranking.learning_rate=1e-3", lambda c: c.models.ranking.learning_rate, 1e-3),
        ("models.ranking.learning_rate=1", lambda c: c.models.ranking.learning_rate, 1.0),
        ("data.split.strategy=leave_last_out", lambda c: c.data.split.strategy, Strategy.LEAVE_LAST_OUT),
        ("models.dcn.hidden_units=[8, 4]", lambda c: c.models.dcn.hidden_units, [8, 4]),
        ("models.dcn.projection_dim=null", lambda c: c.models.dcn.projection_dim, None),
        ("evaluation.slices=[[gender, age]]", lambda c: c.evaluation.slices, [["gender", "age"]]),
        ("recommender.parts=joint", lambda c: c.recommender.part_names, ("joint", "joint")),
        ("recommender.parts=separate", lambda c: c.recommender.part_names, ("retrieval", "ranking")),
        (
            "data.split.fractions={train: 0.5, eval: 0.25, test: 0.25}",
            lambda c: c.data.split.fractions.model_dump(),
            {"train": 0.5, "eval": 0.25, "test": 0.25},
        ),
    ],
)
def test_override_values_are_yaml(override, read, expected):
    assert read(load_config("sample", [override])) == expected


def test_an_unknown_key_is_named_with_the_keys_that_there_are(tmp_path):
    text = message(write(tmp_path, "name: mine\ntrainr: {}\n"))
    assert "config.yaml" in text
    assert "'trainr'" in text
    assert all(key in text for key in Config.model_fields)


def test_an_unknown_nested_key_is_named_with_its_siblings():
    text = message("sample", "data.splt.seed=1")
    assert "'data.splt'" in text
    assert "expected one of: split, " in text
    assert "retrieval" not in text


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("models.ranking.epochs=yes", "valid integer"),
        ("models.ranking.epochs='3'", "valid integer"),
        ("models.ranking.epochs=2.5", "valid integer"),
        ("models.ranking.learning_rate=false", "valid number"),
        ("models.ranking.learning_rate=fast", "valid number"),
        ("models.ranking=3", "object"),
        ("models.dcn.hidden_units=8", "array"),
        ("models.ranking=null", "object"),
    ],
)
def test_a_wrong_type_names_key_expectation_and_value(override, expected):
    key, _, value = override.partition("=")
    text = message("sample", override)
    assert f"{key}: " in text
    assert expected in text
    received = {"yes": "True", "false": "False", "null": "None", "fast": "'fast'"}.get(value, value)
    assert f"received {received}" in text


@pytest.mark.parametrize(
    ("override", "key", "expected"),
    [
        ("models.ranking.epochs=0", "models.ranking.epochs", "greater than or equal to 1"),
        ("models.ranking.dropout=1.0", "models.ranking.dropout", "less than 1"),
        ("models.ranking.learning_rate=.inf", "models.ranking.learning_rate", "finite"),
        ("models.ranking.hidden_units=[64, 0]", "models.ranking.hidden_units.1", "greater than 0"),
        ("data.split.strategy=sorted", "data.split.strategy", "leave_last_out"),
        ("data.split.fractions.test=0.5", "data.split.fractions", "should be 1; received 1.25"),
        ("evaluation.slices=[[gendr]]", "evaluation.slices", "gendr"),
        ("recommender.order=popularity", "recommender.order", "'blend', 'rating' or 'retrieval'"),
        ("recommender.parts=dcn", "recommender.parts", "'separate' or 'joint'"),
        ("recommender.max_batch=0", "recommender.max_batch", "greater than or equal to 1"),
        ("evaluation.liked_margin=-1", "evaluation.liked_margin", "greater than or equal to 0"),
        ("name=My Run", "name", "pattern"),
        ("name=my_movies", "name", "pattern"),
        (f"name={'a' * 64}", "name", "pattern"),
    ],
)
def test_an_impossible_value_names_the_key_and_what_was_expected(override, key, expected):
    text = message("sample", override)
    assert f"sample: {key}: " in text
    assert expected in text


# Numbers without an upper bound, each of which is compared with others or bounded by another setting only.
UNBOUNDED = {
    "data.split.seed",  # Hashed, whatever its length.
    "tuning.max_trials",
    *(f"models.{name}.patience" for name in MODELS),
    *(f"models.{name}.hard_negatives" for name in ("retrieval", "joint")),  # Less than the batch size.
    *(
        f"evaluation.{name}_{kind}"
        for name in ("recall", "mse", "log_loss", "liked")
        for kind in ("margin", "tolerance")
    ),
    "evaluation.retrieval_tolerance",
    "evaluation.popularity_margin",
}


def largest(annotation: Any, metadata: list[Any]) -> Any:
    """The largest value that a field takes, or nearly, None without a bound; MISSING for one that is no number."""
    options = [each for each in typing.get_args(annotation) if each is not type(None)]
    if typing.get_origin(annotation) is list:
        value = largest(options[0], [])
        return value if value is MISSING else value and [value]
    if typing.get_origin(annotation) is typing.Annotated:
        return largest(options[0], [*metadata, *options[1:]])
    if isinstance(annotation, types.UnionType) or typing.get_origin(annotation) is typing.Union:
        return largest(options[0], metadata)
    if annotation not in (int, float):
        return MISSING
    flat = [each for item in metadata for each in (item.metadata if isinstance(item, FieldInfo) else [item])]
    ends = [each.le for each in flat if hasattr(each, "le")] + [each.lt - 1e-6 for each in flat if hasattr(each, "lt")]
    return min(ends, default=None)


def largest_values(model: type[BaseModel] = Config, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from largest_values(field.annotation, f"{prefix}{name}.")
        elif (value := largest(field.annotation, field.metadata)) is not MISSING:
            yield prefix + name, value


def test_every_number_has_an_upper_bound_but_those_that_need_none():
    assert {name for name, value in largest_values() if value is None} == UNBOUNDED


def test_numbers_above_their_bounds_are_refused():
    checked = 0
    for name, value in largest_values():
        if value is not None and not name.startswith("data.split.fractions"):
            above = [each + 1 for each in value] if isinstance(value, list) else value + 1
            text = message("sample", f"{name}={above}")
            assert f"sample: {name}" in text
            assert "less than" in text
            checked += 1
    assert checked > 60


@pytest.mark.component
def test_the_largest_numbers_make_a_pipeline():
    from pipeline.graph import create_pipeline
    from pipeline.launcher import compile_pipeline

    left_out = ("data.split.fractions", "models.retrieval.hard", "models.joint.hard")
    values = {name: value for name, value in largest_values() if not name.startswith(left_out)}
    values |= {
        name: 1e308 if name.startswith("evaluation") else 10**30 for name, each in values.items() if each is None
    }
    overrides = [f"{name}={value}" for name, value in values.items()]
    # The largest number of workers is for a runner that has workers, and a share of a gradient for what has one.
    needed = ["beam.runner=prism", "models.joint.shared_state=true", "tuning.models=[dcn, joint]"]
    config = load_config("sample", [*overrides, *needed])
    pipeline = create_pipeline(config=config, data_dir="/data", pipeline_root="/root", serving_dir="/serving")
    assert compile_pipeline(pipeline).nodes


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("models.dcn.seed=4294967296", "models.dcn.seed: Input should be less than or equal to 4294967295"),
        ("tuning.space.dcn.seed=[4294967296]", "less than or equal to 4294967295"),
        ("tuning.seed=4294967296", "tuning.seed: Input should be less than or equal to 4294967295"),
        ("data.sample.seed=18446744073709551616", "less than or equal to 18446744073709551615"),
        ("tuning.models=[dcn, dcn]", "tuning.models: each model should be named once; received ['dcn', 'dcn']"),
        ("evaluation.slices=[[gender], [gender]]", "each combination of features should be there once"),
        ("evaluation.slices=[[gender, age], [age, gender]]", "each combination of features should be there once"),
        ("evaluation.slices=[[gender, gender]]", "each combination of features should be there once"),
    ],
)
def test_seeds_that_nothing_takes_and_repetitions_are_refused(override, expected):
    assert expected in message("sample", override)


def test_the_largest_seeds_are_taken_by_what_uses_them():
    config = load_config("sample", [f"models.dcn.seed={MAX_SEED}", f"data.split.seed={10**30}"])
    np.random.RandomState(config.models.dcn.seed)
    with pytest.raises(ValueError, match="between 0 and"):
        np.random.RandomState(config.models.dcn.seed + 1)
    ids = np.arange(1, 1001)
    assert set(assign_splits(ids, ids, ids, config.data.split)) == {0, 1, 2}


def test_every_problem_of_a_file_is_reported_at_once(tmp_path):
    text = message(write(tmp_path, "name: mine\ntrainr: 1\nmodels: {ranking: {epochs: 0}}\n"))
    assert "trainr" in text
    assert "models.ranking.epochs" in text


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"name: [", "should be YAML"),
        (b"- name", "mapping of keys to values; received list"),
        (b"", "mapping of keys to values"),
        (b"name: mine\ndata: {}\ndata: {}\n", "'data' is given twice"),
        (b"name: caf\xe9", "UTF-8"),
        (b"data: {}", "name: Field required"),
    ],
)
def test_a_file_that_is_no_configuration_is_named(tmp_path, content, expected):
    path = tmp_path / "config.yaml"
    path.write_bytes(content)
    text = message(str(path))
    assert str(path) in text
    assert expected in text


def test_a_missing_file_is_named_with_the_presets():
    text = message("nowhere.yaml")
    assert "nowhere.yaml" in text
    assert all(name in text for name in preset_names())


@pytest.mark.parametrize(
    "override",
    [
        "models.ranking.epochs",
        "=3",
        "name.first=x",
        "models.ranking.epochs=[",
        "name=2024-13-01",
        "name=!!timestamp foo",
        "models.dcn.warm_start=!!bool maybe",
        "models.dcn.epochs=!!int ''",
        pytest.param("data=" + "[" * 2000, id="deep"),
        pytest.param("data.split.seed=1" + "0" * 5000, id="long"),
    ],
)
def test_a_malformed_override_is_quoted(override):
    assert override in message("sample", override)


def test_a_configuration_cannot_change_after_it_was_checked():
    config = load_config("sample")
    with pytest.raises(ValueError, match="frozen"):
        config.models.ranking.epochs = 7  # type: ignore[misc]


def test_loading_a_configuration_imports_neither_tensorflow_nor_tfx():
    program = (
        "import sys; from pipeline.config import load_config; load_config('sample');"
        "sys.exit(str({'tensorflow', 'tfx', 'apache_beam'} & set(sys.modules)) if "
        "{'tensorflow', 'tfx', 'apache_beam'} & set(sys.modules) else 0)"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stderr


def test_bad_rows_are_tolerated_in_quarantine_only():
    assert load_config("sample", ["data.bad_rows_tolerance=0.5"]).data.tolerance == 0
    quarantine = "data.on_bad_rows=quarantine"
    assert load_config("sample", [quarantine]).data.tolerance == 0.01
    assert load_config("sample", [quarantine, "data.bad_rows_tolerance=0.5"]).data.tolerance == 0.5
    assert "data.bad_rows_tolerance" in message("sample", "data.bad_rows_tolerance=1.5")


def test_spans_do_not_go_with_leave_last_out():
    assert load_config("sample", ["data.spans=2", "data.split.strategy=temporal"]).data.spans == 2
    assert "leave_last_out" in message("sample", "data.spans=2", "data.split.strategy=leave_last_out")
    assert "data.spans" in message("sample", "data.spans=0")


def test_spans_to_keep_are_at_least_those_of_the_window():
    assert load_config("sample", ["data.spans=3"]).data.keep_spans is None
    assert load_config("sample", ["data.spans=3", "data.keep_spans=3"]).data.keep_spans == 3
    too_few = message("sample", "data.spans=3", "data.keep_spans=2")
    assert "data: keep_spans should be at least spans; received keep_spans 2 and spans 3" in too_few
    assert "data: keep_spans should go with spans; spans is null" in message("sample", "data.keep_spans=2")
    assert "data.keep_spans" in message("sample", "data.spans=1", "data.keep_spans=0")


def test_a_sequence_has_a_length_that_memory_holds():
    sequence = "models.retrieval.query=sequence"
    assert load_config("sample", [sequence]).models.retrieval.query == "sequence"
    too_long = message("sample", sequence, "data.history_length=301")
    assert "data.history_length should be at most 300 with models.retrieval.query sequence; received 301" in too_long
    assert load_config("sample", ["data.history_length=301"]).data.history_length == 301
    assert load_config("sample", [sequence, "data.history_length=300"]).data.history_length == 300
    too_long = message("sample", "models.joint.query=sequence", "data.history_length=301")
    assert "data.history_length should be at most 300 with models.joint.query sequence; received 301" in too_long
    assert "embedding_dim should be a multiple of attention_heads" in message(
        "sample", sequence, "models.retrieval.attention_heads=7"
    )


@pytest.mark.parametrize("override", ["data={2024-01-01: 3}", "data=&a {x: *a}", "data={!!binary aGVsbG8= : 1}"])
def test_what_json_cannot_hold_is_refused(override):
    assert "should have text as keys, and no value that contains itself" in message("sample", override)


def test_a_long_value_is_quoted_in_part():
    assert len(message("sample", f"models.dcn.epochs=1{'0' * 4000}")) < 500


@pytest.mark.parametrize("setting", ["storage.artifacts", "storage.serving"])
@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (
            "/data/out",
            "should be a URI such as gs://bucket/folder, or null for the output folder; received '/data/out'",
        ),
        ("''", "should be a URI such as gs://bucket/folder"),
        ("7", "valid string"),
        ("file:///data/out", "should be in another place than on this machine, where --output names the folder"),
        ("gs://", "should name a bucket or a host, and folders that have names"),
        ("hdfs:///out", "should name a bucket or a host"),
        ("gs://bucket//out", "folders that have names"),
        ("gs://bucket/./out", "folders that have names"),
        ("gs://bucket/../out", "folders that have names"),
        ("gs://bucket/out*", "should have none of the characters [ ] * ? { } \\ in its path"),
        ("gs://bucket/{x}", "should have none of the characters"),
        ("gs://bucket/out?key=1", "should have no ? and no #"),
        ("'gs://bucket/out#1'", "should have no ? and no #"),
        (f"gs://bucket/{'x' * 500}", "at most 500 characters"),
    ],
)
def test_a_place_for_artifacts_is_a_plain_uri(setting, value, expected):
    text = message("sample", f"{setting}={value}")
    assert f"sample: {setting}: " in text
    assert expected in text


@pytest.mark.parametrize("value", ["gs://me:s3cret@bucket/x", "hdfs://me:s3cret@host:9000/x", "s3://:s3cret@bucket/[x"])
def test_a_password_in_a_place_is_refused_and_not_repeated(value):
    text = message("sample", f"storage.artifacts='{value}'")
    assert "storage.artifacts: should have no password, which the library of" in text
    assert "s3cret" not in text


@pytest.mark.parametrize(
    "value",
    [
        "s3://AKIA:ab/s3cret@bucket/x",
        "gs://s3cret@bucket/x",
        "gs://u:p@s3cret@bucket/x",
        "gs://u:pass s3cret@bucket/x",
        "gs://bucket/x?key=s3cret",
        "gs://bucket/x#s3cret",
        "gs://bucket:s3cret/x",
    ],
)
def test_nor_is_any_other_secret(value):
    assert "s3cret" not in message("sample", f"storage.artifacts='{value}'").replace("gs://bucket:s3cret/x", "")
    assert "s3cret@" not in message("sample", f"storage.artifacts=['{value}")


def test_a_scheme_has_small_letters():
    assert "should have its scheme in small letters, gs://" in message("sample", "storage.artifacts=GS://bucket/x")


def test_places_for_artifacts_and_models_are_two():
    assert load_config("sample").storage.model_dump() == {"artifacts": None, "serving": None}
    read = load_config("sample", ["storage.artifacts=gs://bucket/pipeline/", "storage.serving=hdfs://host:9000/out"])
    assert read.storage.model_dump() == {"artifacts": "gs://bucket/pipeline", "serving": "hdfs://host:9000/out"}
    for serving in ("gs://bucket/x", "gs://bucket/x/serving", "gs://bucket"):
        text = message("sample", "storage.artifacts=gs://bucket/x", f"storage.serving={serving}")
        assert "storage: artifacts and serving should be two folders, neither in the other" in text


@pytest.mark.parametrize("name", ["postgresql", "postgres"])
def test_postgresql_is_refused_with_the_reason(name):
    with pytest.raises(ConfigError, match=r"backend should be 'sqlite' or 'mysql'; received 'postgres.* a backslash"):
        load_config("sample", [f"metadata.backend={name}"])
