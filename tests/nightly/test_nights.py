"""Night after night, what is trained on, measured against, blessed, pushed and refused is what the ledger says."""

import shutil
from pathlib import Path

import pytest

from tests.nightly.deliveries import Deliveries
from tests.nightly.ledger import Made
from tests.nightly.nights import WINDOW, Nights

RATINGS = 2500


@pytest.mark.nightly
@pytest.mark.timeout(3600)
def test_a_bad_night_changes_nothing_that_is_served(tmp_path: Path) -> None:
    nights = Nights(tmp_path, Deliveries(tmp_path / "raw", WINDOW + 1, RATINGS, seed=1))
    for span in range(1, WINDOW + 1):
        nights.deliver(span)
    first = nights.night()
    assert all(entry["blessed"] for entry in first["models"].values())
    # A join went wrong, and the run is killed, too. Nothing that comes of these data replaces what is served.
    before = nights.served()
    nights.deliver(WINDOW + 1, shuffled=True)
    nights.run_until("Trainer.dcn")
    shuffled = nights.night()
    assert not any(entry["blessed"] for entry in (*shuffled["models"].values(), shuffled["recommender"]))
    assert all(entry["champion"]["model"] is not None for entry in shuffled["models"].values())
    assert nights.served() == before


@pytest.mark.nightly
@pytest.mark.timeout(6 * 3600)
def test_thirty_nights(tmp_path: Path) -> None:
    team = Team(tmp_path)
    for night, step in enumerate(SCRIPT, start=1):
        print(f"night {night}: {step.__name__}", flush=True)  # noqa: T201 (what takes hours shows how far it got)
        step(team)


class Team(Nights):
    """Thirty nights, in which much goes wrong that does."""

    def __init__(self, folder: Path):
        super().__init__(folder, Deliveries(folder / "raw", WINDOW + 30, RATINGS, seed=1))
        for span in range(1, WINDOW + 1):
            self.deliver(span)
        self.span = WINDOW

    def next(self, **how: bool) -> int:
        """Delivers the next span; returns its number."""
        self.span += 1
        self.deliver(self.span, **how)
        return self.span

    def latest(self, name: str) -> Made:
        """The model that was made last, of a name."""
        return [made for made in self.ledger.made if made.name == name][-1]


def an_ordinary_night(team: Team) -> None:
    team.next()
    team.night()


def the_first_night(team: Team) -> None:
    summary = team.night()
    assert all(entry["blessed"] for entry in summary["models"].values())


def a_night_that_is_killed_in_training(team: Team) -> None:
    team.next()
    team.run_until("Trainer.dcn")
    team.night()


def a_night_that_is_killed_before_training(team: Team) -> None:
    team.next()
    team.run_until("DataGate")
    team.night()


def a_night_that_is_killed_when_models_are_pushed(team: Team) -> None:
    team.next()
    team.run_until("Pusher.dcn")
    team.night()


def a_night_of_shuffled_labels(team: Team) -> None:
    before = team.served()
    team.next(shuffled=True)
    summary = team.night()
    assert not any(entry["blessed"] for entry in (*summary["models"].values(), summary["recommender"]))
    assert team.served() == before


def the_shuffled_span_comes_again_in_order(team: Team) -> None:
    team.deliver(team.span)
    an_ordinary_night(team)


def a_night_without_a_span(team: Team) -> None:
    summary = team.night()
    assert {node["state"] for node in summary["components"]} == {"cached", "resolved"}


def a_span_is_missing(team: Team) -> None:
    team.span += 1
    late = team.span
    team.next()
    team.nothing_happens(f"there is no span {late}")


def the_missing_span_comes_late(team: Team) -> None:
    team.deliver(team.span - 1)
    team.night()


def a_broken_credits_file(team: Team) -> None:
    team.span += 1
    folder = team.deliver(team.span)
    (folder / "credits.csv").write_text('movie_id,director,star\n1,"no end of the quote')
    team.nothing_happens("credits.csv")


def the_credits_come_again_and_another_span(team: Team) -> None:
    team.deliver(team.span)
    an_ordinary_night(team)


def an_older_span_is_corrected(team: Team) -> None:
    team.deliver(team.span - 3, corrected=True)
    team.night()


def the_ranker_is_withdrawn(team: Team) -> None:
    withdrawn = team.withdraw("ranking")
    summary = team.night()
    if withdrawn is team.latest("ranking"):
        assert summary["models"]["ranking"]["pushed"] is None
        assert "withdrawn" in summary["models"]["ranking"]["reasons"][0]


def the_split_is_another_one(team: Team) -> None:
    team.change_split(seed=7)
    summary = team.night()
    # The latest models were fitted to rows of the newest span that are test rows now.
    champions = [entry["champion"] for entry in summary["models"].values()]
    assert any("of this run's" in champion["why"] for champion in champions)


def the_data_are_moved(team: Team) -> None:
    team.data = team.data.rename(team.data.with_name("data-elsewhere"))
    an_ordinary_night(team)


def the_output_folder_is_moved(team: Team) -> None:
    team.output = team.output.rename(team.output.with_name("output-elsewhere"))
    team.next()
    summary = team.night()
    assert all(entry["champion"]["model"] is not None for entry in summary["models"].values())


def a_version_is_deleted_by_hand(team: Team) -> None:
    deleted = team.delete_by_hand("dcn")
    summary = team.night()
    if deleted is team.latest("dcn"):
        assert "is no longer there" in summary["models"]["dcn"]["reasons"][0]


def another_ranker_is_tried_on_the_same_data(team: Team) -> None:
    team.night("models.ranking.epochs=1")


def the_disk_is_freed(team: Team) -> None:
    team.prune()
    an_ordinary_night(team)


def a_version_is_put_there_by_hand(team: Team) -> None:
    versions = team.output / "serving" / "retrieval"
    by_hand = versions / str(int(team.served()["retrieval"][-1]) + 1)
    shutil.copytree(versions / team.served()["retrieval"][0], by_hand)
    an_ordinary_night(team)
    assert by_hand.is_dir()


def a_span_that_never_comes_is_skipped(team: Team) -> None:
    team.span += 1
    team.settings.append("data.missing_spans=skip")
    team.next()
    team.night()


SCRIPT = (
    the_first_night,
    another_ranker_is_tried_on_the_same_data,
    a_night_that_is_killed_in_training,
    a_night_of_shuffled_labels,
    the_shuffled_span_comes_again_in_order,
    a_night_without_a_span,
    an_ordinary_night,
    a_span_is_missing,
    the_missing_span_comes_late,
    a_broken_credits_file,
    the_credits_come_again_and_another_span,
    an_older_span_is_corrected,
    a_night_that_is_killed_when_models_are_pushed,
    the_ranker_is_withdrawn,
    an_ordinary_night,
    the_split_is_another_one,
    an_ordinary_night,
    the_data_are_moved,
    an_ordinary_night,
    the_output_folder_is_moved,
    a_night_that_is_killed_before_training,
    a_version_is_deleted_by_hand,
    an_ordinary_night,
    a_version_is_put_there_by_hand,
    an_ordinary_night,
    a_span_that_never_comes_is_skipped,
    the_disk_is_freed,
    an_older_span_is_corrected,
    a_night_without_a_span,
    an_ordinary_night,
)
