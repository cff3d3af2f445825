"""`movielens withdraw` takes a model back, and says what is served then."""

import logging
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime, tzinfo
from pathlib import Path
from typing import Self

import ml_metadata as mlmd
import pytest
from typer.testing import CliRunner

from components.pushing.pushed_models import pushes, refusal, withdrawals
from components.pushing.versions import take_out
from pipeline import cli
from pipeline.local import withdrawing
from pipeline.local.output import OutputFolder
from pipeline.local.store import metadata_config
from tests.components.pushing.recorded import Recorded, write_version

TODAY = "2026-03-01"


class ThatDay(datetime):
    """A clock that stands still: tests that run at midnight know what day it is, too."""

    @classmethod
    def now(cls, tz: tzinfo | None = None) -> Self:
        return cls(2026, 3, 1, 23, 59, 59, tzinfo=UTC).astimezone(tz)


class Runs(Recorded):
    """The output folder of runs that pushed three rankers and two recommenders; the second ranker is bad."""

    def __init__(self, root: Path):
        self.root = root
        self.output = OutputFolder(root)
        root.mkdir()
        super().__init__(mlmd.MetadataStore(metadata_config(self.output.metadata)))
        self.retrieval = self.model()
        self.good, self.bad = self.model(), self.model()
        self.recommenders = [
            self.model(retrieval_model=self.retrieval, ranking_model=ranking) for ranking in (self.good, self.bad)
        ]
        self.pushed("retrieval", 10, self.retrieval)
        self.pushed("ranking", 11, self.good)
        self.pushed("recommender", 12, self.recommenders[0])
        self.pushed("ranking", 21, self.bad)
        self.pushed("recommender", 22, self.recommenders[1])

    def pushed(self, name: str, version: int, model: int) -> None:
        self.push(model, write_version(self.output.serving / name / str(version)))

    def served(self) -> list[str]:
        return sorted(str(path.relative_to(self.output.serving)) for path in self.output.serving.glob("*/*"))


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    """Keeps logs from the output: once a test has imported Airflow, they go there in the whole process."""
    logging.disable(logging.INFO)
    yield
    logging.disable(logging.NOTSET)


@pytest.fixture(autouse=True)
def _that_day(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(withdrawing, "datetime", ThatDay)


@pytest.fixture
def runs(tmp_path: Path) -> Runs:
    return Runs(tmp_path / "output")


def withdraw(output: Path, name: str, version: int | str, why: str = "it loves sequels") -> tuple[int, str, str]:
    arguments = ["withdraw", name, str(version), "--output", str(output), "--why", why]
    result = CliRunner().invoke(cli.app, arguments, env={"COLUMNS": "200", "TERM": "dumb"})
    return result.exit_code, result.stdout, result.stderr


def test_a_recommender_is_withdrawn_and_the_one_before_is_served(runs: Runs) -> None:
    code, out, err = withdraw(runs.root, "recommender", 22)
    assert (code, err) == (0, "")
    assert out.splitlines() == [
        "recommender 22 is withdrawn; no later run pushes it again.",
        "Taken out of serving: recommender 22.",
        "Served as recommender from now on: 12.",
    ]
    assert runs.served() == ["ranking/11", "ranking/21", "recommender/12", "retrieval/10"]
    # Its parts are not.
    assert set(withdrawals(runs.store, [runs.retrieval, runs.bad, *runs.recommenders])) == {runs.recommenders[1]}
    assert refusal(runs.store, runs.recommenders[1]) == f"withdrawn on {TODAY}: it loves sequels"


def test_what_is_made_of_a_withdrawn_model_is_withdrawn_with_it(runs: Runs) -> None:
    code, out, _ = withdraw(runs.root, "ranking", 21)
    assert code == 0
    assert out.splitlines() == [
        "ranking 21 is withdrawn; no later run pushes it again.",
        "Taken out of serving: ranking 21.",
        "Taken out of serving: recommender 22, made of ranking 21.",
        "Served as ranking from now on: 11.",
        "Served as recommender from now on: 12.",
    ]
    assert runs.served() == ["ranking/11", "recommender/12", "retrieval/10"]
    assert set(withdrawals(runs.store, [runs.retrieval, runs.good, runs.bad, *runs.recommenders])) == {
        runs.bad,
        runs.recommenders[1],
    }
    # Also what is made of it in future.
    later = runs.model(retrieval_model=runs.retrieval, ranking_model=runs.bad)
    assert refusal(runs.store, later) == f"it is made of ranking 21, withdrawn on {TODAY}: it loves sequels"


def test_all_versions_of_the_model_are_taken_out(runs: Runs) -> None:
    # Measured once more, the first recommender was pushed again.
    runs.pushed("recommender", 32, runs.recommenders[0])
    _, out, _ = withdraw(runs.root, "recommender", 12)
    assert out.splitlines()[1:] == [
        "Taken out of serving: recommender 12.",
        "Taken out of serving: recommender 32.",
        "Served as recommender from now on: 22.",
    ]


def test_where_there_was_no_version_before_nothing_is_served(runs: Runs) -> None:
    code, out, _ = withdraw(runs.root, "retrieval", 10)
    assert code == 0
    assert out.splitlines()[-2:] == [
        "Served as retrieval from now on: nothing.",
        "Served as recommender from now on: nothing.",
    ]
    assert runs.served() == ["ranking/11", "ranking/21"]


def test_a_version_put_there_by_hand_stays_and_is_named_as_such(runs: Runs) -> None:
    by_hand = runs.output.serving / "recommender" / "99"
    shutil.copytree(runs.output.serving / "recommender" / "12", by_hand)
    _, out, _ = withdraw(runs.root, "recommender", 22)
    assert out.splitlines()[-1] == "Served as recommender from now on: 99, which was put there by hand."
    code, _, err = withdraw(runs.root, "recommender", 99)
    assert (code, err) == (
        2,
        "Error: VERSION should be one of recommender that a run pushed: 12, 22; received 99, which was put there by "
        "hand, and is to be deleted by hand.\n",
    )
    assert by_hand.is_dir()


def test_a_second_withdrawal_changes_nothing_and_keeps_the_first_reason(runs: Runs) -> None:
    withdraw(runs.root, "recommender", 22, "it loves\n  sequels")
    before = [push.withdrawal for push in pushes(runs.store)]
    code, out, _ = withdraw(runs.root, "recommender", 22, "another reason")
    assert code == 0
    assert out.splitlines() == [
        f"recommender 22 was already withdrawn on {TODAY}: it loves sequels.",
        "recommender 22 was no longer in serving.",
        "Served as recommender from now on: 12.",
    ]
    assert [push.withdrawal for push in pushes(runs.store)] == before


def test_a_withdrawal_that_was_cut_off_is_finished_by_the_next(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    def cut_off(version: Path) -> None:
        version.rename(version.with_name(f".{version.name}-removed"))
        raise KeyboardInterrupt

    monkeypatch.setattr("pipeline.local.withdrawing.take_out", cut_off)
    code, _, _ = withdraw(runs.root, "ranking", 21)
    assert code == cli.INTERRUPTED
    assert refusal(runs.store, runs.bad) is not None
    monkeypatch.setattr("pipeline.local.withdrawing.take_out", take_out)
    code, out, _ = withdraw(runs.root, "ranking", 21)
    assert code == 0
    assert "Taken out of serving: recommender 22, made of ranking 21." in out
    assert runs.served() == ["ranking/11", "recommender/12", "retrieval/10"]


def test_a_version_that_was_deleted_by_hand_can_be_withdrawn(runs: Runs) -> None:
    shutil.rmtree(runs.output.serving / "recommender" / "22")
    code, out, _ = withdraw(runs.root, "recommender", 22)
    assert code == 0
    assert "recommender 22 was no longer in serving." in out
    assert refusal(runs.store, runs.recommenders[1]) == f"withdrawn on {TODAY}: it loves sequels"


@pytest.mark.parametrize(
    ("name", "version", "message"),
    [
        ("rankin", 21, "MODEL should be one that was pushed: ranking, recommender, retrieval; received 'rankin'."),
        ("dcn", 21, "MODEL should be one that was pushed: ranking, recommender, retrieval; received 'dcn'."),
        ("ranking", 22, "VERSION should be one of ranking that a run pushed: 11, 21; received 22."),
    ],
)
def test_unknown_models_and_versions_are_refused(runs: Runs, name: str, version: int, message: str) -> None:
    before = runs.served()
    assert withdraw(runs.root, name, version) == (2, "", f"Error: {message}\n")
    assert runs.served() == before
    assert all(push.withdrawal is None for push in pushes(runs.store))


def test_a_folder_without_runs_is_refused_and_stays_as_it_is(tmp_path: Path) -> None:
    code, _, err = withdraw(tmp_path, "ranking", 21)
    assert code == 2
    assert (
        f"--output should be a folder that `movielens run` wrote to; {tmp_path} has no metadata, which would be" in err
    )
    assert list(tmp_path.iterdir()) == []


def test_a_folder_whose_runs_pushed_nothing_is_refused(tmp_path: Path) -> None:
    Recorded(mlmd.MetadataStore(metadata_config(tmp_path / "metadata.sqlite"))).model()
    code, _, err = withdraw(tmp_path, "ranking", 21)
    assert code == 2
    assert err.endswith("should be the output folder of a run that pushed models; none were pushed.\n")


def test_a_folder_that_was_moved_is_found_again(runs: Runs, tmp_path: Path) -> None:
    moved = runs.root.rename(tmp_path / "moved")
    code, out, err = withdraw(moved, "ranking", 21)
    assert (code, err) == (0, "")
    assert "Served as ranking from now on: 11." in out
    assert not (moved / "serving" / "ranking" / "21").exists()
    assert (moved / "serving" / "ranking" / "11").is_dir()


def test_a_copy_is_refused_while_the_folder_that_it_was_made_of_is_there(runs: Runs, tmp_path: Path) -> None:
    copy = shutil.copytree(runs.root, tmp_path / "copy")
    code, _, err = withdraw(copy, "ranking", 21)
    assert code == 2
    assert f"it is a copy, since its models were pushed to {runs.output.serving}." in err
    assert (copy / "serving" / "ranking" / "21").is_dir()
    assert (runs.root / "serving" / "ranking" / "21").is_dir()


def test_the_folder_may_be_named_by_another_path(runs: Runs, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(runs.root)
    code, out, _ = withdraw(tmp_path / "link", "ranking", 21)
    assert code == 0
    assert "Taken out of serving: ranking 21." in out


def test_nothing_is_withdrawn_while_a_run_is_in_progress(runs: Runs) -> None:
    before = runs.served()
    with runs.output.locked():
        code, _, err = withdraw(runs.root, "ranking", 21)
    assert code == 1
    assert "another run (process " in err
    assert err.endswith("is writing here; wait for it to end.\n")
    assert runs.served() == before


@pytest.mark.parametrize(("version", "why"), [("latest", "bad"), ("-1", "bad"), (21, " ")])
def test_arguments_are_checked(runs: Runs, version: int | str, why: str) -> None:
    code, _, _ = withdraw(runs.root, "ranking", version, why)
    assert code == 2
    assert all(push.withdrawal is None for push in pushes(runs.store))
