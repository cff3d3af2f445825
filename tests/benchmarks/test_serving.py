"""The benchmark of the server asks over both protocols, and watches what waits while a version loads."""

import pytest

from benchmarks.serving import main, paired_seconds, ratio
from tests.serving.toy_models import save_ranker, save_recommender


def test_calls_are_timed_in_turns_without_the_first_round():
    order = []
    seconds = paired_seconds([lambda: order.append("a"), lambda: order.append("b")], rounds=3)
    assert order == ["a", "b"] * 4
    assert [len(times) for times in seconds] == [3, 3]


def test_several_calls_in_a_row_are_a_turn():
    order = []
    calls = [lambda: order.append("a"), lambda: order.append("b")]
    seconds = paired_seconds(calls, rounds=3, in_a_row=2)
    assert order == ["a", "a", "b", "b"] * 3
    assert [len(times) for times in seconds] == [4, 4]


def test_the_ratio_is_that_of_the_median_round():
    assert ratio([1.0, 9.0, 4.0], [1.0, 1.0, 2.0]) == 2.0


@pytest.mark.serving
def test_a_server_is_measured(tmp_path, capsys):
    save_recommender(tmp_path / "recommender" / "1")
    save_ranker(tmp_path / "ranking" / "7")
    main(tmp_path, people="1,2", rounds=2)
    printed = capsys.readouterr().out
    for title in ("REST / gRPC", "longest wait over gRPC", "ranking", "recommender"):
        assert title in printed
    assert sorted(path.name for path in (tmp_path / "ranking").iterdir()) == ["7"]
