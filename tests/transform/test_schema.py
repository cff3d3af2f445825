"""The schema in the repository matches the declared features, and gives each environment the features of its rows."""

import pytest

from transform.features import FEATURES, Role
from transform.schema import MOVIES, PATH, SERVING, TRAINING, curated_schema, schema_text


def names_in(environment):
    return {each.name for each in curated_schema().feature if environment not in each.not_in_environment}


def test_the_file_matches_the_declared_features():
    assert PATH.read_text() == schema_text(), "python -m transform.schema should be run after a change of features"


def test_environments_have_the_features_that_their_rows_can_have():
    roles = {feature.name: feature.role for feature in FEATURES}
    assert names_in(TRAINING) == set(roles)
    assert names_in(MOVIES) == {name for name, role in roles.items() if role is Role.MOVIE}
    assert set(roles) - names_in(SERVING) == {"rating", "seen_movie_ids", "place"}


@pytest.mark.parametrize("name", ["director", "star", "history_movie_ids", "history_ratings", "seen_movie_ids"])
def test_features_that_rows_may_lack_have_no_minimum_presence(name):
    (feature,) = (each for each in curated_schema().feature if each.name == name)
    assert not feature.HasField("presence")
