"""Lists in the options of benchmarks are read as a whole or refused."""

import pytest
import typer

from benchmarks.options import parse_names, parse_seeds

KNOWN = {"dcn": 1, "joint": 2}


def test_seeds_are_those_that_models_take():
    assert parse_seeds("0,7,4294967295") == [0, 7, 4294967295]


@pytest.mark.parametrize("text", ["", "a", "-1", "1,1", "4294967296"])
def test_other_seeds_are_refused(text):
    with pytest.raises(typer.BadParameter, match=r"different numbers from 0 to 4294967295, .*; received"):
        parse_seeds(text)


def test_names_are_known_and_there_once():
    assert parse_names("joint,dcn", KNOWN) == ["joint", "dcn"]
    with pytest.raises(typer.BadParameter, match="should be among dcn, joint; received 'ranker'"):
        parse_names("dcn,ranker", KNOWN)
    with pytest.raises(typer.BadParameter, match="should name each once; received 'dcn,dcn'"):
        parse_names("dcn,dcn", KNOWN)
