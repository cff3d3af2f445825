"""The pipeline's configuration: one typed tree, read from YAML and overridden from the command line."""

import copy
import json
import re
from importlib import resources
from pathlib import Path
from typing import Any, Literal, Self, get_args, get_origin

import yaml
from pydantic import Field, ValidationError, field_validator, model_validator

from components.data.places import without_password
from components.evaluation.names import LIKED
from components.ingestion.splits import SplitConfig, Strategy
from pipeline.beam_config import BeamConfig
from pipeline.config_section import ConfigSection
from pipeline.kubeflow_config import KubeflowConfig
from pipeline.model_settings import ModelsConfig, TuningConfig
from pipeline.paths import PathError, check_local
from pipeline.storage_config import StorageConfig
from transform.features import FEATURES

# The largest values that are accepted; larger ones would end a run late, with another error. Synthetic data are made,
# and histories kept, in memory: smaller values, too, may need more of it than there is.
_MAX_RATINGS, _MAX_SAMPLE_MOVIES, _MAX_HISTORY = 10**8, 10**6, 10_000
_MAX_SAMPLE_SEED = 2**64 - 1  # The seed is part of a folder's name, which cannot have any length.
_MAX_SPANS = 2**31 - 1  # TFX keeps the number in 64 bits; this is more than there can be folders.
_MAX_CANDIDATES = 2**31 - 1  # TensorFlow counts the best movies in 32 bits.
_LONGEST_SEQUENCE = 300  # The memory and time of a training window grow with its square.
_LONGEST_QUOTE = 200  # Characters of a value in a message.


class ConfigError(ValueError):
    """A configuration that cannot be used; the message names the key and what was expected."""


class SampleConfig(ConfigSection):
    """Size of the synthetic data that are generated for a run without a data folder."""

    users: int = Field(600, ge=10, le=_MAX_RATINGS, description="Number of users.")
    movies: int = Field(400, ge=20, le=_MAX_SAMPLE_MOVIES, description="Number of movies.")
    ratings: int = Field(40_000, ge=200, le=_MAX_RATINGS, description="Number of ratings.")
    seed: int = Field(0, ge=0, le=_MAX_SAMPLE_SEED, description="Seed of the generator.")

    @model_validator(mode="after")
    def _ratings_are_possible(self) -> Self:
        most = self.users * self.movies
        if not self.users <= self.ratings <= most:
            raise ValueError(
                f"ratings should be from {self.users} (one a user) to {most} (users x movies); received {self.ratings}"
            )
        return self


class DataConfig(ConfigSection):
    """Which data are read, and how they are split."""

    split: SplitConfig = Field(default_factory=SplitConfig, description="The split of the ratings.")
    history_length: int = Field(
        50,
        ge=1,
        le=_MAX_HISTORY,
        description="Number of the user's latest earlier ratings in each row. These are train ratings; with the split "
        "strategy temporal_rolling, eval and test rows have those of every split, and with leave_last_out, a test row "
        "also has the user's eval rating.",
    )
    on_bad_rows: Literal["fail", "quarantine"] = Field(
        "fail",
        description="fail: a single bad row ends the run. quarantine: bad rows, and the ratings that refer to them, "
        "are left out and listed in ExampleGen's output `quarantine`.",
    )
    bad_rows_tolerance: float = Field(
        0.01,
        ge=0,
        le=1,
        description="Share of the rows of a file that may be quarantined; with more, the file is taken for one in "
        "another format, and the run fails. Not used with on_bad_rows: fail.",
    )
    spans: int | None = Field(
        None,
        ge=1,
        le=_MAX_SPANS,
        description="Number of newest spans to train on; the data folder then holds span-1/, span-2/ and so on. Each "
        "run reads whatever spans are there, and is measured on the newest. null: the data folder holds the files.",
    )
    keep_spans: int | None = Field(
        None,
        ge=1,
        le=_MAX_SPANS,
        description="Number of newest spans that a run reads at all, missing ones included; at least `spans`. Earlier "
        "ones are not looked at, and need not be there. Histories and the recommender's memory hold no rating from "
        "before: somebody who rated nothing since is new to it, and may be recommended a movie that they rated then. "
        "With 1, the newest span is compared with none before it. null: all spans are read.",
    )
    missing_spans: Literal["stop", "skip"] = Field(
        "stop",
        description="stop: a number that is missing among the newest spans ends the run, since their data may be late. "
        "skip: the run does without them, and says so.",
    )
    versions: bool = Field(
        False,
        description="Each span may be delivered anew: span-1/ holds version-1/, version-2/ and so on, of which the "
        "latest counts.",
    )
    sample: SampleConfig = Field(default_factory=SampleConfig, description="Synthetic data, used without --data.")

    @model_validator(mode="after")
    def _spans_are_possible(self) -> Self:
        if self.versions and self.spans is None:
            raise ValueError("versions should go with spans; spans is null")
        if self.keep_spans is not None and self.spans is None:
            raise ValueError("keep_spans should go with spans; spans is null")
        if self.keep_spans is not None and self.spans is not None and self.keep_spans < self.spans:
            raise ValueError(
                f"keep_spans should be at least spans; received keep_spans {self.keep_spans} and spans {self.spans}"
            )
        if self.missing_spans == "skip" and self.spans is None:
            raise ValueError("missing_spans: skip should go with spans; spans is null")
        if self.spans is not None and self.split.strategy is Strategy.LEAVE_LAST_OUT:
            # A user's last rating of one span would be held out, and be an ordinary one once the next span is there.
            raise ValueError("spans should go with a split strategy other than leave_last_out")
        return self

    @property
    def tolerance(self) -> float:
        """Share of the rows of a file that may be bad."""
        return self.bad_rows_tolerance if self.on_bad_rows == "quarantine" else 0.0


class EvaluationConfig(ConfigSection):
    """Thresholds on the test split that a model must meet before it is pushed."""

    recall_margin: float = Field(
        0.005, ge=0, description="Filtered recall@10 that a retriever adds to popularity's, at least."
    )
    mse_margin: float = Field(
        0.005,
        ge=0,
        description="Mean squared error that a rating model takes off the user+item bias model's, at least.",
    )
    log_loss_margin: float = Field(
        0.001, ge=0, description="Log-loss that a model of likes takes off the user+item bias model's, at least."
    )
    recall_tolerance: float = Field(
        0.002, ge=0, description="Filtered recall@10 that may be lost against the champion, the latest blessed model."
    )
    mse_tolerance: float = Field(0.002, ge=0, description="Mean squared error that may be added to the champion's.")
    log_loss_tolerance: float = Field(0.002, ge=0, description="Log-loss that may be added to the champion's.")
    confidence: float = Field(
        0.95,
        gt=0.5,
        lt=1,
        description="How sure it must be that a model is worse than another by more than a tolerance, or that it is "
        "not: the probability with which the bounds of the difference hold.",
    )
    undecided: Literal["bless", "refuse"] = Field(
        "bless",
        description="What becomes of a model if there are too few test rows to tell, with the wanted confidence, "
        "whether it is worse than the champion, or the recommender's list than the retriever's own order, by more than "
        "the tolerance.",
    )
    retrieval_tolerance: float = Field(
        0.002, ge=0, description="Recall@10 that the recommender's list may have less than the retriever's own order."
    )
    liked_margin: float = Field(
        0.0,
        ge=0,
        description="NDCG@10 of movies rated 4 or 5 that the recommender adds to the retriever's own order, at least.",
    )
    popularity_margin: float = Field(
        0.005,
        ge=0,
        description="Recall@10, and NDCG@10 of liked movies, that the recommender adds to popularity's, at least.",
    )
    liked_tolerance: float = Field(
        0.002, ge=0, description="NDCG@10 of liked movies that may be lost against the champion."
    )
    share_kept_later: float = Field(
        0.95,
        ge=0,
        le=1,
        description="Share of its quality that every model keeps when it is asked 30 days, a year or 25 years later. A "
        "model is refused if it keeps less even with two standard errors more.",
    )
    slices: list[list[str]] = Field(
        [["gender"]], description="Features by which the test metrics are sliced, beside the overall figure."
    )

    @field_validator("slices")
    @classmethod
    def _are_features(cls, slices: list[list[str]]) -> list[list[str]]:
        names = [feature.name for feature in FEATURES]
        unknown = sorted({name for names_of_slice in slices for name in names_of_slice} - set(names))
        if unknown or not all(slices):
            raise ValueError(f"each should list one or more of {', '.join(names)}; unknown: {unknown}")
        combinations = [tuple(sorted(set(names_of_slice))) for names_of_slice in slices]
        if len(set(combinations)) < len(slices) or any(len(set(each)) < len(each) for each in slices):
            raise ValueError("each combination of features should be there once, and name a feature once")
        return slices

    @property
    def tolerances(self) -> dict[str, float]:
        """By how much each metric that is compared with the champion's may be worse, by output."""
        return {
            "recall_at_10_filtered": self.recall_tolerance,
            "squared_error": self.mse_tolerance,
            "log_loss": self.log_loss_tolerance,
            "recall_at_10": self.recall_tolerance,
            f"{LIKED}ndcg_at_10": self.liked_tolerance,
        }


class RecommenderConfig(ConfigSection):
    """The two-stage recommender."""

    candidates: int = Field(
        100, ge=1, le=_MAX_CANDIDATES, description="Movies that the retriever hands to the second stage."
    )
    parts: Literal["separate", "joint"] = Field(
        "separate",
        description="separate: the model `retrieval` retrieves and the model `ranking` predicts ratings. joint: the "
        "joint model does both.",
    )
    order: Literal["blend", "rating", "retrieval"] = Field(
        "blend",
        description="How the second stage orders what was retrieved. blend: by retrieval score, predicted rating, "
        "popularity and bias of a movie, with weights that are fitted to the eval split. rating: by predicted rating "
        "alone, which loses most of what was found. retrieval: as the retriever does.",
    )
    max_batch: int = Field(
        1024, ge=1, le=_MAX_CANDIDATES, description="Largest number of people in a request; larger ones are refused."
    )
    max_history: int = Field(
        10_000,
        ge=1,
        le=_MAX_CANDIDATES,
        description="Largest number of movies in the history of a request, and among those not to recommend.",
    )

    @property
    def part_names(self) -> tuple[str, str]:
        """The names of the model that retrieves and of the one that predicts ratings; they may be the same."""
        return ("joint", "joint") if self.parts == "joint" else ("retrieval", "ranking")


class MetadataConfig(ConfigSection):
    """Where ML Metadata keeps what runs have made of what."""

    backend: Literal["sqlite", "mysql"] = Field(
        "sqlite",
        description="sqlite: in a file of the output folder, for runs on one machine. mysql: in a database on a MySQL "
        "or MariaDB server, which environment variables name (MOVIELENS_METADATA_HOST, _PORT, _DATABASE, _USER, "
        "_PASSWORD and _TLS_CA, or each with _FILE for a file that holds it); needed where nodes run on several "
        "machines. An output folder keeps to what its first run had.",
    )

    @field_validator("backend", mode="before")
    @classmethod
    def _postgresql_is_refused_with_the_reason(cls, value: object) -> object:
        if str(value).lower() in ("postgres", "postgresql"):
            raise ValueError(
                f"backend should be 'sqlite' or 'mysql'; received {value!r}. On PostgreSQL, ML Metadata fails to "
                "store texts with a backslash, which TFX writes, too"
            )
        return value


class Config(ConfigSection):
    """The configuration of a pipeline."""

    name: str = Field(
        pattern=r"^[a-z][a-z0-9-]{0,62}$",
        description="Name of the pipeline; metadata is kept under it. A lower-case letter, and up to 62 lower-case "
        "letters, digits and hyphens: what every orchestrator takes.",
    )
    data: DataConfig = Field(default_factory=DataConfig, description="Which data are read, and how they are split.")
    models: ModelsConfig = Field(default_factory=ModelsConfig, description="Hyper-parameters of the models.")
    tuning: TuningConfig = Field(default_factory=TuningConfig, description="The search for hyper-parameters.")
    evaluation: EvaluationConfig = Field(default_factory=EvaluationConfig, description="The gates.")
    recommender: RecommenderConfig = Field(default_factory=RecommenderConfig, description="The two-stage recommender.")
    metadata: MetadataConfig = Field(default_factory=MetadataConfig, description="Where ML Metadata keeps its records.")
    storage: StorageConfig = Field(default_factory=StorageConfig, description="Where artifacts and pushed models lie.")
    beam: BeamConfig = Field(default_factory=BeamConfig, description="How Apache Beam runs.")
    kubeflow: KubeflowConfig = Field(
        default_factory=KubeflowConfig, description="The containers in which Kubeflow Pipelines runs the nodes."
    )

    @model_validator(mode="after")
    def _sequences_are_not_too_long(self) -> Self:
        history = self.data.history_length
        for name, towers in {"retrieval": self.models.retrieval, "joint": self.models.joint}.items():
            if towers.query == "sequence" and history > _LONGEST_SEQUENCE:
                raise ValueError(
                    f"data.history_length should be at most {_LONGEST_SEQUENCE} with models.{name}.query sequence; "
                    f"received {history}"
                )
        return self


class _Loader(yaml.SafeLoader):
    """Reads YAML 1.2, in which `1e-3` is a number, and refuses a key that is given twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
            if key.value in seen:
                raise yaml.MarkedYAMLError(problem=f"key {key.value!r} is given twice", problem_mark=key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?\d+(\.\d*)?[eE][-+]?\d+$"), list("-+0123456789")
)


def preset_names() -> list[str]:
    """Names of the configurations that come with the project."""
    folder = resources.files("pipeline") / "configs"
    return sorted(Path(entry.name).stem for entry in folder.iterdir() if entry.name.endswith(".yaml"))


def load_config(source: str, overrides: list[str] | None = None) -> Config:
    """Reads a configuration.

    Args:
      source: the name of a preset (`sample`, `ml1m`), the path of a YAML file or, in braces, what such a file says.
      overrides: `a.b=value` settings, in YAML's notation for the value, that replace what the file says. One that
        begins with a bracket is a JSON list of these, for those who can pass on one text only.

    Raises:
      ConfigError: no such file, a URI, not YAML, an unknown key, a wrong type or an impossible value.
    """
    if source.lstrip().startswith("{"):
        return config_of("--config", _tree("--config", source), overrides)
    try:
        check_local("--config", source)
    except PathError as error:
        raise ConfigError(str(error)) from error
    return config_of(source, _read_tree(source), overrides)


def config_of(source: str, tree: dict[str, Any], overrides: list[str] | None = None) -> Config:
    """Makes a configuration of what a file says.

    Args:
      source: the file, for messages.
      tree: its keys and values.
      overrides: as for `load_config`, whose errors these are, too.
    """
    tree = copy.deepcopy(tree)
    for override in single_settings(overrides):
        _apply_override(tree, override)
    try:
        document = json.dumps(tree, default=str)
    except (TypeError, ValueError, RecursionError) as error:
        raise ConfigError(f"{source}: should have text as keys, and no value that contains itself; {error}.") from error
    try:
        # JSON's types are YAML's; pydantic is strict about them, so that `epochs: yes` is not taken for 1.
        return Config.model_validate_json(document, strict=True)
    except ValidationError as error:
        raise ConfigError(_describe(source, error)) from error


def single_settings(overrides: list[str] | None) -> list[str]:
    """Takes lists of settings apart, and checks that each is KEY=VALUE.

    Args:
      overrides: as for `load_config`.

    Raises:
      ConfigError: one of them is something else.
    """
    single = []
    for override in overrides or []:
        single += _several(override) if override.lstrip().startswith("[") else [override]
    for override in single:
        key, equals, _ = override.partition("=")
        if not equals or not key:
            raise ConfigError(f"--set {override}: should be KEY=VALUE, for example models.ranking.epochs=3.")
    return single


def _read_tree(source: str) -> dict[str, Any]:
    if source in preset_names():
        text = (resources.files("pipeline") / "configs" / f"{source}.yaml").read_text()
    else:
        try:
            if not Path(source).is_file():
                presets = ", ".join(preset_names())
                raise ConfigError(f"{source}: should be a YAML file or one of {presets}; no such file.")
            text = Path(source).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"{source}: should be a readable file of UTF-8 text; {error}") from error
    return _tree(source, text)


def _tree(source: str, text: str) -> dict[str, Any]:
    tree = _parse_yaml(f"{source}: should be YAML", text)
    if not isinstance(tree, dict):
        raise ConfigError(f"{source}: should be a mapping of keys to values; received {type(tree).__name__}.")
    return tree


def _parse_yaml(expected: str, text: str) -> Any:
    try:
        return yaml.load(text, _Loader)
    except Exception as error:
        # Beside its own errors the library raises whatever reading a value raises: ValueError for the date 2024-13-01,
        # KeyError for `!!bool maybe`, RecursionError for thousands of brackets.
        raise ConfigError(f"{expected}; {without_password(str(error)) or type(error).__name__}") from error


def _several(override: str) -> list[str]:
    """The settings of a JSON list."""
    try:
        settings = json.loads(override)
    except (ValueError, RecursionError) as error:
        raise ConfigError(
            f"--set {without_password(override)}: should be a JSON list of KEY=VALUE; {error}."
        ) from error
    if not all(isinstance(setting, str) for setting in settings):
        raise ConfigError(f"--set {without_password(override)}: should be a JSON list of texts KEY=VALUE.")
    return list(settings)


def _apply_override(tree: dict[str, Any], override: str) -> None:
    key, _, text = override.partition("=")
    shown = without_password(override)
    value = _parse_yaml(f"--set {shown}: the value should be YAML", text)
    *parents, leaf = key.split(".")
    node = tree
    for parent in parents:
        node = node.setdefault(parent, {})
        if not isinstance(node, dict):
            raise ConfigError(f"--set {shown}: {parent!r} is a value, not a section.")
    node[leaf] = value


def _describe(source: str, error: ValidationError) -> str:
    lines = []
    for problem in error.errors():
        key = ".".join(str(part) for part in problem["loc"])
        if problem["type"] == "extra_forbidden":
            lines.append(f"{source}: unknown key {key!r}; expected one of: {', '.join(_siblings(problem['loc']))}.")
        else:
            where = f"{source}: {key}" if key else source
            received = _shorten(without_password(repr(problem["input"])))
            lines.append(f"{where}: {problem['msg'].removeprefix('Value error, ')}; received {received}.")
    return "\n".join(lines)


def _shorten(text: str) -> str:
    return text if len(text) <= _LONGEST_QUOTE else f"{text[:_LONGEST_QUOTE]}…"


def _siblings(location: tuple[int | str, ...]) -> list[str]:
    section: Any = Config
    for part in location[:-1]:
        is_by_name = get_origin(section) is dict
        section = get_args(section)[1] if is_by_name else section.model_fields[str(part)].annotation
    return list(section.model_fields)
