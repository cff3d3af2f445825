"""Thousands of requests that nobody should send neither stop the server nor make others wait."""

import re

import pytest

from tests.serving.malformed import attack

pytestmark = pytest.mark.serving


@pytest.fixture(scope="module", params=[2_000, pytest.param(10_000, marks=pytest.mark.nightly)])
def requests(request):
    """How many of them are sent, twice."""
    return request.param


@pytest.fixture(scope="module")
def result(toy_models, requests):
    return attack(toy_models, requests, seed=0)


def test_every_request_gets_a_status_and_a_message_as_from_tensorflow_serving(result, requests):
    assert sum(result["outcomes"].values()) == 2 * requests
    assert result["wrong"] == []


def test_others_are_answered_within_a_second_all_the_time(result):
    assert result["failures"] == []
    assert result["answers"] > 100
    assert result["longest"] < 1


def test_the_log_has_no_traceback_and_the_server_stops_in_order(result):
    assert "Traceback" not in result["log"]
    assert re.findall(r"^.*,\d+ ERROR .*$", result["log"], re.MULTILINE) == []
    assert result["exit"] == 0


def test_the_memory_does_not_grow(result):
    before, first, second = result["megabytes"]
    assert second <= 1.05 * first
    # Buffers of the largest requests stay; with real models this is less than a twentieth of the memory.
    assert second - before < 100
