"""The benchmark of answers asks one recommender, or two in turns."""

import re

import pytest
import typer
from typer.testing import CliRunner

from benchmarks import answers
from components.recommender.two_stage_model import save
from tests.components.recommender.fake_models import fake_recommender

pytestmark = pytest.mark.component


@pytest.fixture(scope="module")
def versions(tmp_path_factory):
    folder = tmp_path_factory.mktemp("recommender")
    for version in (1, 2):
        save(fake_recommender(), str(folder / str(version)))
    return folder


@pytest.mark.parametrize(("compared", "history"), [(False, 0), (True, 0), (False, 4)])
def test_it_prints_times_of_one_answer_and_of_a_batch_and_the_memory_of_a_large_one(versions, compared, history):
    app = typer.Typer()
    app.command()(answers.main)
    options = ["--models", str(versions), "--batch", "8", "--rounds", "3", "--history", str(history)]
    result = CliRunner().invoke(app, [*options, *(["--before", str(versions)] if compared else [])])
    assert result.exit_code == 0, result.output
    rows = re.findall(
        r"\| (now|before) +\| ([\d.]+) ms +\| ([\d.]+) ms +\| ([\d.]+) ms +\| ([\d.]+) +\|", result.output
    )
    assert [row[0] for row in rows] == (["now", "before"] if compared else ["now"])
    for _, median, high, of_batch, times in rows:
        assert 0 < float(median) <= float(high)
        # Eight people in the time of `times` single answers; what is printed is rounded.
        one, many = float(median), float(of_batch)
        assert 8 * (one - 0.005) / (many + 0.05) - 0.05 <= float(times) <= 8 * (one + 0.005) / (many - 0.05) + 0.05
    assert ("of the time before" in result.output) == compared
    assert re.search(r"A batch of 1000 takes \d+ MB at most beside what was held, of which -?\d+ MB", result.output)
