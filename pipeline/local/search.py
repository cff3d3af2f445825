"""Results of a search for hyper-parameters: a table of its trials, and the best trial as a configuration file."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from rich.markup import escape
from rich.table import Table

from components.storage.paths import write_whole
from pipeline.config import Config

_RESULTS_FILE = "tuner_results.json"
_NOT_HYPERPARAMETERS = ("trial_id", "score")  # Keys of a trial in that file that are not its hyper-parameters.


@dataclass(frozen=True)
class Trial:
    """A trial that finished.

    Attributes:
      number: the trial's position, from 1, in the order in which the trials ran.
      tried: the hyper-parameters that the trial set.
      value: the value of the objective on the eval split.
      seconds: how long the trial took; None if keras-tuner's record of it is missing.
    """

    number: int
    tried: Mapping[str, Any]
    value: float
    seconds: float | None


@dataclass(frozen=True)
class Search:
    """The results of a search.

    Attributes:
      model: the name of the model whose hyper-parameters were searched.
      objective: the name of the metric, measured on the eval split.
      sign: 1 if larger values are better, -1 if smaller ones are.
      trials: the trials that finished, best first.
    """

    model: str
    objective: str
    sign: int
    trials: list[Trial]

    @property
    def best(self) -> Trial:
        """The best trial."""
        return self.trials[0]

    @property
    def direction(self) -> str:
        """Says in words which values of the objective are better."""
        return "larger is better" if self.sign > 0 else "smaller is better"


def read_trials(results: Path, records: Path) -> list[Trial]:
    """Reads the trials of a Tuner, best first.

    Args:
      results: folder of the Tuner's output `tuner_results`.
      records: folder of keras-tuner's own records; only these say how long a trial took.
    """
    from trainers.loop.search_spaces import from_choices
    from trainers.loop.tuning import SECONDS

    trials = []
    for row in json.loads((results / _RESULTS_FILE).read_text()):
        tried = from_choices({name: value for name, value in row.items() if name not in _NOT_HYPERPARAMETERS})
        record = records / f"trial_{row['trial_id']}" / "trial.json"
        seconds = None
        if record.is_file():
            metrics = json.loads(record.read_text())["metrics"]["metrics"]
            (seconds,) = metrics[SECONDS]["observations"][0]["value"]
        trials.append(Trial(int(row["trial_id"]) + 1, tried, row["score"], seconds))
    return trials


def trials_table(search: Search) -> Table:
    """Returns a table of the trials of a search, best first."""
    table = Table(title=f"Trials of {search.model}, by eval {search.objective}: {search.direction}")
    table.title_justify = "left"
    for column in ("trial", search.objective, "seconds"):
        table.add_column(column, justify="right", no_wrap=True)
    # All hyper-parameters share one column, which wraps: a column for each would soon be too narrow for its values.
    table.add_column("hyper-parameters", overflow="fold")
    for trial in search.trials:
        tried = ", ".join(f"{name} {json.dumps(value)}" for name, value in trial.tried.items())
        seconds = "" if trial.seconds is None else f"{trial.seconds:.1f}"
        style = "bold" if trial is search.best else None
        table.add_row(str(trial.number), f"{trial.value:.4f}", seconds, escape(tried), style=style)
    return table


def write_tuned(config: Config, search: Search, command: str, path: Path) -> None:
    """Writes a configuration with the best hyper-parameters, below a comment that says which search found them.

    The file sets what the configuration of the search set, with the best hyper-parameters in place of its own. It is
    replaced atomically: a reader finds either the old content or the new.

    Args:
      config: the configuration of the search.
      search: the results of the search.
      command: the command line of the search.
      path: the file to write.
    """
    # The first trial uses the settings of the configuration unchanged.
    first_value = [trial.value for trial in search.trials if trial.number == 1]
    comparison = f"; {first_value[0]:.6g} with the settings as they were" if first_value else ""
    if search.best.number == 1:
        comparison = ", which is that of the settings as they were"
    comment = [
        *f"Found by: {command}".splitlines(),
        f"Best of {len(search.trials)} trials by {search.objective} on the eval split ({search.direction}): "
        f"{search.best.value:.6g}{comparison}.",
    ]
    text = yaml.dump(tuned_tree(config, search.model, search.best.tried), Dumper=_InlineListDumper, sort_keys=False)
    write_whole(path, "".join(f"# {line}\n" for line in comment) + text)


def tuned_tree(config: Config, model: str, best: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the values that a configuration sets explicitly, with the best hyper-parameters of a model.

    The model is taken out of `tuning.models`, so that a run with the result does not tune it again.

    Args:
      config: the configuration of the search.
      model: the name of the model.
      best: its best hyper-parameters.
    """
    tree = config.model_dump(mode="json", exclude_unset=True)
    tree.setdefault("models", {}).setdefault(model, {}).update(best)
    tuning = tree.get("tuning", {})
    if model in tuning.get("models", ()):
        tuning["models"].remove(model)
    return tree


class _InlineListDumper(yaml.SafeDumper):
    """Writes YAML with each list on a single line."""


def _represent_list(dumper: yaml.SafeDumper, values: Iterable[Any]) -> yaml.Node:
    return dumper.represent_sequence("tag:yaml.org,2002:seq", values, flow_style=True)


_InlineListDumper.add_representer(list, _represent_list)
