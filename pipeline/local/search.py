"""What a search for hyper-parameters came to: a table of its trials, and the best of them as a configuration."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from rich.markup import escape
from rich.table import Table

from pipeline.config import Config
from pipeline.local.output import write_whole

_RESULTS = "tuner_results.json"
_NOT_TRIED = ("trial_id", "score")


@dataclass(frozen=True)
class Trial:
    """A trial that came to its end.

    Attributes:
      number: from 1, in the order in which they ran.
      tried: the hyper-parameters.
      value: the objective on the eval split.
      seconds: how long it took; None where its record is gone.
    """

    number: int
    tried: Mapping[str, Any]
    value: float
    seconds: float | None


@dataclass(frozen=True)
class Search:
    """A search.

    Attributes:
      model: whose hyper-parameters.
      objective: the name of what was measured on the eval split.
      sign: 1 where larger is better, -1 where smaller is.
      trials: those that came to their end, the best first.
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
        """Which values are better."""
        return "larger is better" if self.sign > 0 else "smaller is better"


def read_trials(results: Path, records: Path) -> list[Trial]:
    """The trials of a Tuner, the best first.

    Args:
      results: its output `tuner_results`.
      records: the folder of keras-tuner's own records, which alone tell how long a trial took.
    """
    from trainers.loop.search_spaces import from_choices
    from trainers.loop.tuning import SECONDS

    trials = []
    for row in json.loads((results / _RESULTS).read_text()):
        tried = from_choices({name: value for name, value in row.items() if name not in _NOT_TRIED})
        record = records / f"trial_{row['trial_id']}" / "trial.json"
        seconds = None
        if record.is_file():
            metrics = json.loads(record.read_text())["metrics"]["metrics"]
            (seconds,) = metrics[SECONDS]["observations"][0]["value"]
        trials.append(Trial(int(row["trial_id"]) + 1, tried, row["score"], seconds))
    return trials


def trials_table(search: Search) -> Table:
    """The trials of a search, the best first."""
    table = Table(title=f"Trials of {search.model}, by eval {search.objective}: {search.direction}")
    table.title_justify = "left"
    for column in ("trial", search.objective, "seconds"):
        table.add_column(column, justify="right", no_wrap=True)
    # All in one column, which wraps: beside columns of their own there would soon be no room for the values.
    table.add_column("hyper-parameters", overflow="fold")
    for trial in search.trials:
        tried = ", ".join(f"{name} {json.dumps(value)}" for name, value in trial.tried.items())
        seconds = "" if trial.seconds is None else f"{trial.seconds:.1f}"
        style = "bold" if trial is search.best else None
        table.add_row(str(trial.number), f"{trial.value:.4f}", seconds, escape(tried), style=style)
    return table


def write_tuned(config: Config, search: Search, command: str, path: Path) -> None:
    """Writes the configuration with the best hyper-parameters, under a comment that tells where they come from.

    It sets what the searched configuration set, and the best hyper-parameters. The file is the old one or the new one,
    whole, whenever it is read.

    Args:
      config: what was searched with.
      search: what was found.
      command: that found it.
      path: the file.
    """
    first = [trial.value for trial in search.trials if trial.number == 1]
    before = f"; {first[0]:.6g} with the settings as they were" if first else ""
    if search.best.number == 1:
        before = ", which is that of the settings as they were"
    comment = [
        *f"Found by: {command}".splitlines(),
        f"Best of {len(search.trials)} trials by {search.objective} on the eval split ({search.direction}): "
        f"{search.best.value:.6g}{before}.",
    ]
    text = yaml.dump(tuned_tree(config, search.model, search.best.tried), Dumper=_Dumper, sort_keys=False)
    write_whole(path, "".join(f"# {line}\n" for line in comment) + text)


def tuned_tree(config: Config, model: str, best: Mapping[str, Any]) -> dict[str, Any]:
    """What a configuration sets, with the best hyper-parameters of a model, which is then tuned no more."""
    tree = config.model_dump(mode="json", exclude_unset=True)
    tree.setdefault("models", {}).setdefault(model, {}).update(best)
    tuning = tree.get("tuning", {})
    if model in tuning.get("models", ()):
        tuning["models"].remove(model)
    return tree


class _Dumper(yaml.SafeDumper):
    """YAML with lists in one line."""


def _list(dumper: yaml.SafeDumper, values: Iterable[Any]) -> yaml.Node:
    return dumper.represent_sequence("tag:yaml.org,2002:seq", values, flow_style=True)


_Dumper.add_representer(list, _list)
