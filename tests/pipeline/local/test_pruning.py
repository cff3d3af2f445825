"""`movielens prune` frees the disk of what earlier runs have left, and of nothing else."""

import logging
import shutil
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import ml_metadata as mlmd
import pytest
from ml_metadata.proto.metadata_store_pb2 import Artifact
from typer.testing import CliRunner

from components.pushing.pushed_models import Withdrawal, mark_pruned, mark_withdrawn, refusal
from components.pushing.versions import take_out
from pipeline import cli
from pipeline.local import pruning
from pipeline.local.output import OutputFolder
from pipeline.local.store import metadata_config
from tests.components.pushing.recorded import Recorded
from tests.pipeline.local.small_pipeline import Nights

pytestmark = pytest.mark.component

KEYS = ["row_keys.npz"]
MODEL = ["Format-Serving/saved_model.pb", "Format-Serving/variables/data"]
COPY = ["saved_model.pb", "variables/data"]
CACHED = {
    "Ingest": "cached",
    "Transform": "cached",
    "Trainer.ranking": "cached",
    "Resolver.ranking": "resolved",
    "Evaluator.ranking": "cached",
    "FeatureImportance": "cached",
    "Pusher.ranking": "cached",
}
ALL_RAN = {node: "complete" if state == "cached" else state for node, state in CACHED.items()}


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    """Keeps logs from the output: once a test has imported Airflow, they go there in the whole process."""
    logging.disable(logging.WARNING)
    yield
    logging.disable(logging.NOTSET)


@pytest.fixture
def nights(tmp_path: Path) -> Nights:
    return Nights(tmp_path / "output")


def prune(output: Path, *arguments: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(
        cli.app, ["prune", "--output", str(output), *arguments], env={"COLUMNS": "200", "TERM": "dumb"}
    )
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stdout, result.stderr


def pruned(nights: Nights, *arguments: str) -> list[str]:
    code, out, err = prune(nights.root, "--yes", *arguments)
    assert (code, err) == (0, "")
    return out.splitlines()


def withdraw(nights: Nights, night: int) -> None:
    """Withdraws the model that was pushed in a night, and takes out its version."""
    push = nights.pushes()[night - 1]
    mark_withdrawn(nights.store, push, Withdrawal(datetime(2026, 3, 1, tzinfo=UTC), "it loves sequels"))
    take_out(push.destination)


def wait_for_the_next_version(nights: Nights) -> None:
    """Several pushes in one second have the numbers of the seconds that follow."""
    time.sleep(max(0.0, nights.pushes()[-1].version + 1 - time.time()))


def test_of_an_earlier_run_stay_the_blessed_model_its_blessing_its_graph_and_the_keys_of_its_rows(nights):
    for night in (1, 2, 3):
        nights.run(night)
    lines = pruned(nights, "--keep-runs", "1")
    raw = ["Split-train/rows", *KEYS]
    assert nights.files("Examples") == [KEYS, [], KEYS, [], sorted(raw), ["Split-train/rows"]]
    assert nights.live("Examples") == [False, False, False, False, True, True]
    assert nights.files("Model") == [MODEL, MODEL, MODEL]
    assert nights.files("ModelBlessing") == [["BLESSED"]] * 3
    assert nights.files("TransformGraph") == [["graph"]] * 3
    for kind in ("Model", "ModelBlessing", "TransformGraph"):
        assert all(nights.live(kind))
    # These are for nobody any more: the versions that stay have copies.
    assert nights.files("ModelRun") == [[], [], ["events"]]
    assert nights.files("ModelEvaluation") == [[], [], [], [], ["report"], ["metrics"]]
    assert nights.files("PushedModel") == [[], COPY, COPY]
    assert nights.live("PushedModel") == [False, True, True]
    assert nights.served() == ["model of night 2", "model of night 3"]
    # The folders of what was removed are gone, too, and so is what TFX noted down of them, and the logs.
    assert len(list(nights.root.glob("pipeline/Trainer.ranking/model_run/*"))) == 1
    assert len(list(nights.root.glob("pipeline/*/.system/executor_execution/*"))) == len(ALL_RAN) - 1
    assert [log.read_text() for log in nights.output.logs.glob("*")] == ["log of night 3"]
    newest = nights.store.get_contexts_by_type("pipeline_run")[-1]
    since = datetime.fromtimestamp(newest.create_time_since_epoch / 1000, UTC)
    first, second, third = (push.version for push in nights.pushes())
    assert lines[:4] == [
        "Removed 11 artifacts of 2 earlier runs: 4 Examples, 4 ModelEvaluation, 2 ModelRun, 1 PushedModel.",
        "Of 2 of the Examples the keys of their rows stay, since models that stay were made of them.",
        f"Removed from serving ranking {first}; their models may be pushed again.",
        "Removed 2 logs and 12 records of TFX.",
    ]
    assert lines[4].startswith("Freed 0.")
    assert lines[5:] == [
        f"Kept: the newest run and all that was begun since {since:%Y-%m-%d %H:%M:%S} UTC.",
        "Kept: 2 earlier models that may be a champion, since blessed and not withdrawn.",
        f"Kept in serving: ranking {third}, {second}, and 1 earlier copy of these.",
    ]
    assert pruned(nights, "--keep-runs", "1")[0] == "There is nothing to remove."


@pytest.mark.parametrize("arguments", [(), ("--dry-run",), ("--yes", "--dry-run"), ("--dry-run", "--yes")])
def test_unless_asked_to_it_only_says_what_it_would_remove(nights, arguments):
    for night in (1, 2, 3):
        nights.run(night)
    before = nights.contents()
    code, out, err = prune(nights.root, "--keep-runs", "1", *arguments)
    assert (code, err) == (0, "")
    assert nights.contents() == before
    would = out.splitlines()
    assert would[0].startswith("Would remove 11 artifacts of 2 earlier runs: ")
    assert would[4].startswith("That would free 0.")
    assert would[4].endswith(" MB; --yes does it.")
    done = pruned(nights, "--keep-runs", "1")
    assert [line.replace("Removed", "Would remove") for line in done[:4]] == would[:4]
    assert done[5:] == would[5:]


def test_what_is_said_to_be_freed_is_freed(nights):
    for night in (1, 2, 3, 4):
        nights.run(night)

    def size() -> int:
        files = [file for file in nights.root.rglob("*") if file.is_file() and file.name != "metadata.sqlite"]
        return sum(file.stat().st_size for file in files if file.name != ".lock")

    found, before = pruning.find(nights.output, keep_runs=2, keep_versions=1), size()
    pruning.carry_out(nights.output, found)
    assert before - size() == found.size > 0


def test_the_newest_run_comes_from_the_cache_and_an_earlier_one_runs_anew(nights):
    for night in (1, 2, 3):
        nights.run(night)
    pruned(nights, "--keep-runs", "1", "--keep-versions", "3")
    assert nights.run(3) == CACHED
    assert nights.served() == ["model of night 1", "model of night 2", "model of night 3"]
    # Though its model is still there, and is what it was.
    assert nights.run(1) == ALL_RAN
    assert nights.run(1) == CACHED


def test_what_the_newest_run_took_from_the_cache_stays(nights):
    nights.run(1)
    nights.run(2)
    assert nights.run(1, content="another model") == ALL_RAN | {"Ingest": "cached", "Transform": "cached"}
    assert nights.run(1, content="another model") == CACHED
    pruned(nights, "--keep-runs", "1")
    assert nights.live("Examples") == [True, True, False, False]
    assert nights.run(1, content="another model") == CACHED


def test_a_champion_whose_later_candidates_were_refused_stays_and_is_met(nights):
    nights.run(1)
    for night in (2, 3, 4):
        nights.run(night, blessed=0)
    pruned(nights, "--keep-runs", "1")
    # Of refused models nothing stays, nor of their rows.
    assert nights.files("Model") == [MODEL, [], [], MODEL]
    assert nights.files("ModelBlessing") == [["BLESSED"], [], [], ["NOT_BLESSED"]]
    assert nights.files("TransformGraph") == [["graph"], [], [], ["graph"]]
    assert nights.files("Examples")[:6] == [KEYS, [], [], [], [], []]
    assert nights.served() == ["model of night 1"]
    nights.run(5)
    assert nights.champions[5].model == nights.artifacts("Model")[0].id
    assert nights.champions[5].why == ""


def test_a_withdrawn_model_goes_with_its_rows_and_the_one_before_is_met(nights):
    for night in (1, 2, 3):
        nights.run(night)
    withdraw(nights, 2)
    pruned(nights, "--keep-runs", "1")
    first, second, third = nights.artifacts("Model")
    assert [first.state, second.state, third.state] == [Artifact.LIVE, Artifact.DELETED, Artifact.LIVE]
    assert nights.files("Examples")[:4] == [KEYS, [], [], []]
    assert refusal(nights.store, second.id) == "withdrawn on 2026-03-01: it loves sequels"
    withdraw(nights, 3)
    nights.run(4)
    assert nights.champions[4].model == first.id
    # A model that is withdrawn later than its run was pruned goes with the keys that were left of its rows.
    withdraw(nights, 1)
    pruned(nights, "--keep-runs", "1")
    assert nights.files("Model") == [[], [], [], MODEL]
    assert nights.files("Examples")[:6] == [[]] * 6


def test_a_pruned_model_may_be_pushed_again_unlike_one_that_was_deleted_by_hand(nights):
    for content in ("a", "b", "c"):
        nights.run(1, content=content)
    first, second, third = nights.pushes()
    pruned(nights, "--keep-runs", "3", "--keep-versions", "1")
    assert nights.served() == ["c"]
    assert [refusal(nights.store, push.model) for push in (first, second, third)] == [None] * 3
    wait_for_the_next_version(nights)
    assert nights.run(1, content="a") == CACHED | {"Pusher.ranking": "complete"}
    assert nights.served() == ["c", "a"]
    assert nights.run(1, content="a") == CACHED
    assert pruned(nights, "--keep-runs", "9", "--keep-versions", "2")[0] == "There is nothing to remove."
    # The copy of the version that is deleted by hand is pruned, so the message names the model itself.
    shutil.rmtree(third.destination)
    pruned(nights, "--keep-runs", "1", "--keep-versions", "1")
    refused = refusal(nights.store, third.model)
    assert refused is not None
    assert f"version {third.version} of ranking was pushed on " in refused
    copy = Path(refused.removesuffix(f" to {third.destination}").split("To serve it, copy ")[1])
    assert (copy / "saved_model.pb").read_text() == "c"
    # Put back, it is there by hand, so that the next prune leaves it alone.
    shutil.copytree(copy, third.destination)
    assert refusal(nights.store, third.model) is None
    lines = pruned(nights, "--keep-runs", "1", "--keep-versions", "1")
    assert lines[-1] == f"Left alone, since no run put them there: ranking {third.version}."
    assert nights.served() == ["c", "a"]


def test_versions_that_were_put_there_by_hand_are_neither_counted_nor_touched(nights):
    for night in (1, 2, 3):
        nights.run(night)
    versions = [push.version for push in nights.pushes()]
    for number in (1, 2, 9_999_999_999):
        shutil.copytree(nights.pushes()[0].destination, nights.output.serving / "ranking" / str(number))
    other = nights.output.serving / "own_model" / "4"
    shutil.copytree(nights.pushes()[0].destination, other)
    lines = pruned(nights, "--keep-versions", "2")
    assert f"Removed from serving ranking {versions[0]}; their models may be pushed again." in lines
    assert lines[-1] == "Left alone, since no run put them there: own_model 4; ranking 9999999999, 2, 1."
    assert len(nights.served()) == 5
    assert other.is_dir()


def test_the_version_that_is_served_stays_whatever_lies_beside_it(nights):
    for night in (1, 2, 3):
        nights.run(night)
    first, second, third = nights.pushes()
    # No server takes a folder without a model for a version, and a withdrawn one is about to go.
    (second.destination / "saved_model.pb").unlink()
    mark_withdrawn(nights.store, third, Withdrawal(datetime(2026, 3, 1, tzinfo=UTC), "it loves sequels"))
    pruned(nights, "--keep-versions", "1", "--keep-runs", "1")
    assert first.is_there
    assert third.is_there


def test_runs_that_failed_and_searches_do_not_count_and_stay_if_they_are_new(nights):
    nights.run(1)
    nights.run(2, content="fails")
    nights.run(3, search=True)
    nights.run(4, report_fails=1)
    nights.run(5, content="fails")
    nights.run(6, search=True)
    lines = pruned(nights, "--keep-runs", "1")
    assert lines[0] == (
        "Removed 11 artifacts of 3 earlier runs: 6 Examples, 2 ModelEvaluation, 1 ModelRun, 2 TransformGraph."
    )
    rows = ["Split-train/rows"]
    raw = sorted([*rows, *KEYS])
    assert nights.files("Examples") == [KEYS, [], [], [], [], [], raw, rows, raw, rows, raw, rows]
    # The failed run goes on where it stopped.
    assert nights.run(5)["Transform"] == "cached"
    assert len(list(nights.output.logs.glob("*"))) == 4


def test_before_enough_runs_have_come_to_their_end_they_all_stay(nights):
    nights.run(1)
    nights.run(2, content="fails")
    nights.run(3, content="fails")
    before = nights.contents()
    assert pruned(nights)[:2] == ["There is nothing to remove.", "Kept: all runs, since only 1 came to an end."]
    assert nights.contents() == before


class Interrupted(KeyboardInterrupt):
    pass


def test_a_prune_that_is_cut_off_leaves_nothing_that_a_run_trusts_and_the_next_finishes_it(nights, monkeypatch):
    for night in (1, 2, 3):
        nights.run(night)
    whole = {artifact.id: sorted(Path(artifact.uri).rglob("*")) for artifact in nights.store.get_artifacts()}
    steps = {
        (pruning, "mark_pruned"): mark_pruned,
        (pruning, "_set_state"): pruning._set_state,
        (pruning, "take_out"): take_out,
        (pruning, "_remove"): pruning._remove,
        (shutil, "rmtree"): shutil.rmtree,
    }
    left = 0

    def cut_off(step):
        def instead(*arguments, **options):
            nonlocal left
            left -= 1
            if left == 0:
                raise Interrupted
            done = step(*arguments, **options)
            if left == -1:
                raise Interrupted
            return done

        return instead

    # The first prune is cut off in its first step, the second in its second, and so on, until one comes to its end.
    for moment in range(1, 100):
        left = moment
        with monkeypatch.context() as patch:
            for (module, name), step in steps.items():
                patch.setattr(module, name, cut_off(step))
            code, _, _ = prune(nights.root, "--yes", "--keep-runs", "1")
        for artifact in nights.store.get_artifacts():
            if artifact.state == Artifact.LIVE:
                assert sorted(Path(artifact.uri).rglob("*")) == whole.get(
                    artifact.id, sorted(Path(artifact.uri).rglob("*"))
                )
        assert "model of night 3" in nights.served()
        assert refusal(nights.store, nights.pushes()[0].model) is None
        if code == 0:
            break
        assert code == cli.INTERRUPTED
    assert moment > 5
    assert pruned(nights, "--keep-runs", "1")[0] == "There is nothing to remove."
    assert {artifact.state for artifact in nights.store.get_artifacts()} == {Artifact.LIVE, Artifact.DELETED}
    assert nights.files("ModelRun") == [[], [], ["events"]]
    assert nights.files("Examples")[:4] == [KEYS, [], KEYS, []]
    assert nights.served() == ["model of night 2", "model of night 3"]
    assert sorted(path.name for path in (nights.output.serving / "ranking").iterdir()) == [
        str(push.version) for push in nights.pushes()[1:]
    ]
    assert nights.run(3) == CACHED


def test_after_a_prune_that_was_cut_off_a_run_trusts_nothing_of_what_is_going(nights, monkeypatch):
    nights.run(1, content="a")
    nights.run(1, content="b")
    nights.run(2)

    def cut_off(folder: Path, but: str) -> None:
        raise Interrupted

    # Everything is marked, and nothing is gone yet but a version.
    with monkeypatch.context() as patch:
        patch.setattr(pruning, "_remove", cut_off)
        assert prune(nights.root, "--yes", "--keep-runs", "1")[0] == cli.INTERRUPTED
    assert nights.served() == ["b", "model of night 2"]
    wait_for_the_next_version(nights)
    assert nights.run(1, content="a") == ALL_RAN
    assert nights.served() == ["b", "model of night 2", "a"]
    # Nor does the second prune take what the run has made anew.
    pruned(nights, "--keep-runs", "1")
    assert nights.run(1, content="a") == CACHED
    assert nights.served() == ["model of night 2", "a"]


def test_what_cannot_be_removed_is_named_and_the_next_prune_goes_on(nights, monkeypatch):
    for night in (1, 2):
        nights.run(night)
    graph = Path(nights.artifacts("ModelRun")[0].uri)

    def refuse(folder: Path, but: str) -> None:
        raise PermissionError(13, "Permission denied", str(graph))

    with monkeypatch.context() as patch:
        patch.setattr(pruning, "_remove", refuse)
        code, out, err = prune(nights.root, "--yes", "--keep-runs", "1")
    assert (code, out) == (1, "")
    assert err == f"Error: {graph} could not be removed; Permission denied; another prune goes on from here.\n"
    pruned(nights, "--keep-runs", "1")
    assert not graph.exists()


def test_a_copy_of_the_folder_is_refused_and_nothing_outside_of_it_is_touched(nights, tmp_path):
    for night in (1, 2, 3):
        nights.run(night)
    copy = shutil.copytree(nights.root, tmp_path / "copy")
    before = nights.contents()
    code, _, err = prune(copy, "--yes", "--keep-runs", "1")
    assert code == 2
    assert f"it is a copy, since their artifacts lie in {nights.output.artifacts}." in err
    # What runs have then written to the copy can be pruned.
    later = Nights(copy)
    for night in (4, 5):
        later.run(night)
    lines = pruned(later, "--keep-runs", "1")
    assert lines[0].startswith("Removed 5 artifacts of 1 earlier run: 2 Examples, ")
    assert lines[-2].startswith("Left alone, since no run put them there: ranking ")
    assert lines[-1] == "Left alone: 27 artifacts outside of the folder, which is a copy."
    assert nights.contents() == before
    assert len(later.served()) == 5


def test_a_folder_that_was_moved_is_pruned_where_it_is(nights, tmp_path):
    for night in (1, 2, 3):
        nights.run(night)
    (tmp_path / "elsewhere").mkdir()
    moved = Nights(nights.root.rename(tmp_path / "elsewhere" / "output"))
    before = moved.contents()
    assert prune(moved.root, "--keep-runs", "1")[1].startswith("Would remove 11 artifacts of 2 earlier runs: ")
    assert moved.contents() == before
    lines = pruned(moved, "--keep-runs", "1")
    assert lines[0].startswith("Removed 11 artifacts of 2 earlier runs: ")
    assert moved.files("ModelRun") == [[], [], ["events"]]
    assert moved.files("Model") == [MODEL] * 3
    assert moved.served() == ["model of night 2", "model of night 3"]
    moved.run(4)
    assert moved.champions[4].model == moved.artifacts("Model")[2].id


def test_of_a_model_that_was_measured_again_the_last_verdict_counts(nights):
    nights.run(1, content="a")
    nights.run(1, content="a", blessed=0)
    nights.run(1, content="b")
    nights.run(1, content="b", blessed=0)
    # The gates are what they were: from the cache, the first verdict on the second model is its last.
    assert nights.run(1, content="b") == CACHED
    nights.run(2)
    second = nights.artifacts("Model")[1].id
    assert nights.champions[2].model == second
    pruned(nights, "--keep-runs", "2")
    # Refused in the end, the first model goes with its verdicts; with the second one both of its own stay.
    assert nights.live("ModelBlessing") == [False, False, True, True, True]
    nights.run(3, blessed=0)
    assert nights.champions[3].model == nights.artifacts("Model")[2].id
    withdraw(nights, len(nights.pushes()))
    nights.run(4, blessed=0)
    assert nights.champions[4].model == second
    pruned(nights, "--keep-runs", "1")
    assert nights.files("Model")[:2] == [[], MODEL]
    assert nights.files("ModelBlessing")[:4] == [[], [], ["BLESSED"], ["NOT_BLESSED"]]


def test_the_folder_may_be_named_by_another_path(nights, tmp_path):
    for night in (1, 2):
        nights.run(night)
    (tmp_path / "link").symlink_to(nights.root)
    code, out, _ = prune(tmp_path / "link", "--yes", "--keep-runs", "1", "--keep-versions", "1")
    assert code == 0
    assert "Removed from serving ranking " in out
    assert nights.files("ModelRun") == [[], ["events"]]
    assert nights.served() == ["model of night 2"]


def test_a_folder_without_runs_is_refused_and_stays_as_it_is(tmp_path):
    code, _, err = prune(tmp_path, "--yes")
    assert code == 2
    assert (
        f"--output should be a folder that `movielens run` wrote to; {tmp_path} has no metadata, which would be" in err
    )
    assert list(tmp_path.iterdir()) == []
    Recorded(mlmd.MetadataStore(metadata_config(tmp_path / "metadata.sqlite"))).model()
    code, _, err = prune(tmp_path, "--yes")
    assert code == 2
    assert err.endswith("should be the output folder of a run; its metadata know of none.\n")


def test_nothing_is_pruned_while_a_run_is_in_progress(nights):
    for night in (1, 2, 3):
        nights.run(night)
    before = nights.contents()
    with OutputFolder(nights.root).locked():
        for arguments in ((), ("--yes",)):
            code, _, err = prune(nights.root, *arguments)
            assert code == 1
            assert "another run (process " in err
            assert err.endswith("is writing here; wait for it to end.\n")
    assert nights.contents() == before


@pytest.mark.parametrize("option", ["--keep-runs", "--keep-versions"])
def test_the_newest_always_stays(nights, option):
    nights.run(1)
    before = nights.contents()
    code, _, err = prune(nights.root, "--yes", option, "0")
    assert code == 2
    assert option in err
    assert nights.contents() == before
