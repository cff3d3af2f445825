"""Runs the command line night after night, and holds what it did against the ledger."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import tensorflow as tf
import yaml

from components.ingestion.splits import SplitConfig
from tests.components.ingestion.examples_oracle import assert_window, read_split
from tests.nightly import ledger
from tests.nightly.deliveries import Deliveries
from tests.nightly.ledger import MODELS, RECOMMENDER, Ledger, Made
from tests.pipeline.command_line import MOVIELENS, ROOT

WINDOW, HISTORY = 8, 10
_PARTS = ("train", "eval", "test", "past", "newest", "previous", "movies")
_SETTINGS: dict[str, Any] = {
    "name": "nights",
    "data": {
        "spans": WINDOW,
        "versions": True,
        "history_length": HISTORY,
        "split": {"fractions": {"train": 0.7, "eval": 0.1, "test": 0.2}},
    },
    # Of 150 movies, as 100 are of MovieLens's thousands.
    "recommender": {"candidates": 30},
    "models": {
        "dcn": {"batch_size": 128, "epochs": 3, "learning_rate": 0.01, "dropout": 0.0, "l2": 0.0, "table_l2": 8.0},
        "retrieval": {"batch_size": 128, "epochs": 8},
        "ranking": {"batch_size": 128, "epochs": 6},
        "joint": {"batch_size": 128, "epochs": 8},
    },
}


def contents(folder: Path) -> dict[Path, bytes]:
    """All files of a folder."""
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@dataclass(frozen=True)
class Outcome:
    """How a run ended."""

    code: int
    stdout: str
    stderr: str


class Nights:
    """A team's folders: what was delivered, what the runs wrote, and the ledger of what must have come of it.

    Attributes:
      data: the folder of the spans.
      output: the output folder of the runs.
      ledger: all models so far.
    """

    def __init__(self, folder: Path, deliveries: Deliveries):
        self.data, self.output = folder / "data", folder / "output"
        self.ledger, self.deliveries = Ledger(), deliveries
        self.settings: list[str] = []
        self._config = folder / "nights.yaml"
        self._config.write_text(yaml.safe_dump(_SETTINGS))
        self._split: dict[str, Any] = _SETTINGS["data"]["split"]
        # The examples that were checked last, and all ratings that count in them.
        self._ratings: tuple[Path, pd.DataFrame] | None = None

    def deliver(self, span: int, **how: bool) -> Path:
        """Delivers a span, for the first time or again; returns its folder."""
        folder = self.data / f"span-{span}"
        version = len(list(folder.glob("version-*"))) + 1 if folder.exists() else 1
        self.deliveries.write(span, folder / f"version-{version}", **how)
        return folder / f"version-{version}"

    def change_split(self, seed: int) -> None:
        """Divides ratings by another seed from now on."""
        self._split = self._split | {"seed": seed}
        self.settings.append(f"data.split.seed={seed}")

    def command(self, *arguments: str) -> Outcome:
        done = subprocess.run(
            [sys.executable, "-c", MOVIELENS, *arguments],
            cwd=ROOT,
            env=os.environ | {"COLUMNS": "200"},
            capture_output=True,
            text=True,
            timeout=1800,
            check=False,
        )
        return Outcome(done.returncode, done.stdout, done.stderr)

    def run(self, *settings: str) -> Outcome:
        """One night's run, whose outcome nobody has looked at yet."""
        return self.command("run", *self._options(*settings))

    def run_until(self, node: str) -> None:
        """One night's run, which is killed a moment after a node has ended."""
        process = subprocess.Popen(
            [sys.executable, "-c", MOVIELENS, "run", *self._options()],
            cwd=ROOT,
            env=os.environ | {"COLUMNS": "200"},
            stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            text=True,
            start_new_session=True,
        )
        assert process.stderr is not None
        for line in process.stderr:
            if re.search(rf"\] {re.escape(node)} … (\d|cached|resolved)", line):
                try:
                    process.wait(timeout=3)
                except subprocess.TimeoutExpired:
                    os.killpg(process.pid, signal.SIGKILL)
                break
        assert process.wait(timeout=60) == -signal.SIGKILL

    def _options(self, *settings: str) -> list[str]:
        every = [option for setting in (*self.settings, *settings) for option in ("--set", setting)]
        return ["--config", str(self._config), "--data", str(self.data), "--output", str(self.output), *every]

    def served(self) -> dict[str, list[str]]:
        """The versions that are there, by model, the oldest first."""
        folder = self.output / "serving"
        return {
            model.name: sorted((path.name for path in model.iterdir() if path.name.isdigit()), key=int)
            for model in sorted(folder.glob("*"))
        }

    def nothing_happens(self, words: str) -> None:
        """Checks that a run ends with 2 and these words, and leaves what is served and known as it was."""
        before, summary = self.served(), (self.output / "summary.json").read_bytes()
        outcome = self.run()
        assert outcome.code == 2, outcome.stderr
        assert words in outcome.stderr
        assert self.served() == before
        assert (self.output / "summary.json").read_bytes() == summary

    def night(self, *settings: str) -> dict[str, Any]:
        """Runs, and checks everything that the run did; returns its summary."""
        before = self.served()
        planned = self.plan(*settings)
        outcome = self.run(*settings)
        assert outcome.code in (0, 3), outcome.stderr
        summary: dict[str, Any] = json.loads((self.output / "summary.json").read_text())
        ratings, records = self._check_examples()
        tested = ledger.pairs(ratings[ratings["part"] == "test"])
        fitted = ledger.pairs(ratings[ratings["part"].isin(["train", "eval"])])
        graph = ledger.place(self._newest("Transform", "transform_graph"))
        own = {
            name: self.ledger.add(Made(name, ledger.place(self._newest(f"Trainer.{name}", "model")), fitted, graph))
            for name in MODELS
        }
        for name in MODELS:
            self._check_model(own[name], summary["models"][name], tested, records)
        own_pair = own["retrieval"], own["ranking"]
        pair = self.ledger.pair(*own_pair, tested)
        entry = summary[RECOMMENDER]
        if pair is None and not all(part.blessed for part in own_pair):
            assert "it was not built" in entry["reasons"][0]
        else:
            assert bool(entry["made_of"]["why"]) == (pair != own_pair)
            pair = pair or own_pair
            parts = {name: ledger.place(uri) for name, (_, uri) in entry["made_of"]["parts"].items()}
            assert parts == {"retrieval": pair[0].place, "ranking": pair[1].place}
            built = self._newest("RecommenderBuilder", RECOMMENDER)
            fitted_too = set.union(fitted, *(part.fitted for part in pair))
            made = self.ledger.add(Made(RECOMMENDER, ledger.place(built), fitted_too, parts=pair))
            own[RECOMMENDER] = made
            self._check_model(made, entry, tested, records)
            ledger.check_memory(built / "Format-Serving", ratings, self._folders()[max(self._folders())])
        self._check_served(before, own, summary)
        self._check_plan(planned, summary)
        assert outcome.code == (0 if len(own) == 5 and all(made.pushed for made in own.values()) else 3), outcome.stderr
        return summary

    def _check_examples(self) -> tuple[pd.DataFrame, list[bytes]]:
        """Checks what was ingested; returns all ratings that count, and the test rows."""
        examples = self._newest("MovieLensExampleGen", "examples")
        if self._ratings is None or self._ratings[0].name != examples.name:
            tables = {part: read_split(str(examples), part) for part in _PARTS}
            split = SplitConfig.model_validate(self._split)
            self._ratings = examples, assert_window(tables, self._folders(), WINDOW, HISTORY, split)
        files = sorted(str(path) for path in (examples / "Split-test").glob("*.gz"))
        return self._ratings[1], list(tf.data.TFRecordDataset(files, "GZIP").as_numpy_iterator())

    def _folders(self) -> dict[int, Path]:
        """The folder of the latest version of each span."""
        return {
            int(span.name.removeprefix("span-")): max(
                span.iterdir(), key=lambda path: int(path.name.rpartition("-")[2])
            )
            for span in self.data.iterdir()
        }

    def _newest(self, component: str, output: str) -> Path:
        return max((self.output / "pipeline" / component / output).iterdir(), key=lambda path: int(path.name))

    def _check_model(
        self, made: Made, entry: dict[str, Any], tested: set[tuple[int, int, int]], records: list[bytes]
    ) -> None:
        champion = self.ledger.champion(made, tested)
        met = entry["champion"]["uri"]
        assert (met and ledger.place(met)) == (champion and champion.place), (made.name, entry["champion"])
        values = ledger.evaluated(self._folder(made), records)
        of_champion = ledger.evaluated(self._folder(champion), records) if champion else None
        refused = ledger.judge(made.name, values, of_champion)
        made.blessed = not refused
        assert entry["blessed"] == made.blessed, (made.name, refused, entry["reasons"])
        if refused:
            assert len(entry["reasons"]) == len(refused), (refused, entry["reasons"])

    def _folder(self, made: Made) -> Path:
        return self.output / "pipeline" / made.place / "Format-Serving"

    def _check_served(self, before: dict[str, list[str]], own: dict[str, Made], summary: dict[str, Any]) -> None:
        """Checks that what was blessed is the newest version, and that everything else stays as it was."""
        for name in (*MODELS, RECOMMENDER):
            made, versions = own.get(name), self.served().get(name, [])
            entry = summary[RECOMMENDER] if name == RECOMMENDER else summary["models"][name]
            if made is None or not made.may_be_used or made.gone:
                assert entry["pushed"] is None, name
                assert versions == before.get(name, []), name
                if made is not None:
                    made.pushed = None
                continue
            version = Path(entry["pushed"])
            assert version.parent == self.output / "serving" / name
            # A run that was killed may have pushed it already.
            assert sorted({*before.get(name, []), version.name}, key=int) == versions, name
            assert contents(version) == contents(self._folder(made)), name
            made.pushed = version.name

    def withdraw(self, name: str) -> Made:
        """Withdraws the model that is served, and returns it."""
        version = self.served()[name][-1]
        outcome = self.command("withdraw", name, version, "--output", str(self.output), "--why", "it loves sequels")
        assert outcome.code == 0, outcome.stderr
        assert version not in self.served()[name]
        made = self._pushed_as(name, version)
        made.withdrawn = True
        return made

    def delete_by_hand(self, name: str) -> Made:
        """Removes the version that is served, as somebody would who does not know of `withdraw`; returns its model."""
        version = self.served()[name][-1]
        shutil.rmtree(self.output / "serving" / name / version)
        made = self._pushed_as(name, version)
        made.gone = True
        return made

    def _pushed_as(self, name: str, version: str) -> Made:
        return next(made for made in self.ledger.made if made.name == name and made.pushed == version)

    def prune(self) -> None:
        """Frees the disk; the newest version of each model stays."""
        newest = {name: versions[-1:] for name, versions in self.served().items()}
        outcome = self.command("prune", "--output", str(self.output), "--yes", "--keep-versions", "1")
        assert outcome.code == 0, outcome.stderr
        assert {name: versions[-1:] for name, versions in self.served().items()} == newest

    def plan(self, *settings: str) -> dict[str, Any]:
        """What `movielens plan` says of the next run."""
        outcome = self.command("plan", "--json", *self._options(*settings))
        assert outcome.code == 0, outcome.stderr
        planned: dict[str, Any] = json.loads(outcome.stdout)
        return planned

    @staticmethod
    def _check_plan(planned: dict[str, Any], summary: dict[str, Any]) -> None:
        """Checks that a run did what was planned."""
        states = {node["id"]: node["state"] for node in summary["components"]}
        did = {"run": {"complete"}, "cached": {"cached"}, "resolve": {"resolved"}, "skip": {"skipped"}}
        for node in planned["nodes"]:
            assert states[node["node"]] in did.get(node["does"], set(states.values())), node
        for name, champion in planned["champions"].items():
            entry = summary["recommender"] if name == "recommender" else summary["models"][name]
            assert entry.get("champion", champion) == champion, name
