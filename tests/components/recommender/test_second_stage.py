"""The second stage recovers the choices that people make, measures orders as plain counting does, and loses nothing."""

import numpy as np
import pytest

from components.recommender import second_stage
from components.recommender.second_stage import FEATURES, RATING_ORDER, RETRIEVAL_ORDER, Candidates, Quality

WIDTH = 12
WEIGHTS = np.array([0.7, 1.1, -0.4, 0.5, -0.8])


def drawn(rows, seed, weights=WEIGHTS, width=WIDTH, users=50, some_missing=True):
    """People who choose among their candidates, each with the probability of a conditional logit model.

    The rows' candidates stand in the order of their scores. Where `some_missing`, a few lists have fewer movies than
    places, and a tenth of the rows is of a movie that is not among them.
    """
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(rows, width, len(FEATURES)))
    features[..., 0] = -np.sort(-features[..., 0], axis=1)
    features[..., 2] = features[..., 1] ** 2
    if some_missing:
        lengths = rng.integers(width // 2, width + 1, rows)
        features[..., 0][np.arange(width) >= lengths[:, None]] = -np.inf
    logits = np.where(np.isfinite(features[..., 0]), np.nan_to_num(features, neginf=0) @ weights, -np.inf)
    # The largest logit with Gumbel noise is a draw from the softmax.
    target = (logits + rng.gumbel(size=logits.shape)).argmax(axis=1)
    if some_missing:
        target[rng.random(rows) < 0.1] = -1
    return Candidates(features, target, rng.integers(1, 6, rows).astype(float), rng.integers(1, users + 1, rows))


def with_stars(rows, stars):
    return Candidates(rows.features, rows.target, np.broadcast_to(stars, rows.target.shape), rows.users)


class TestFit:
    @pytest.mark.parametrize("seed", range(3))
    @pytest.mark.parametrize("share", [1.0, 0.25])
    def test_it_recovers_the_weights_by_which_people_choose(self, seed, share):
        rows = drawn(6000, seed)
        np.testing.assert_allclose(second_stage._fit_share(rows, share), WEIGHTS, atol=0.15)

    @pytest.mark.parametrize("seed", range(3))
    def test_the_whole_recovers_them_where_they_find_more_of_what_is_liked(self, seed):
        rows = drawn(3000, seed, width=40)
        np.testing.assert_allclose(second_stage.fit(rows, tolerance=0.0), WEIGHTS, atol=0.2)

    @pytest.mark.parametrize("seed", range(3))
    def test_rows_that_are_not_liked_count_as_much_less_as_asked_for(self, seed):
        # Whoever likes the movie chose by one set of weights, the others by the opposite of its rating.
        liked = with_stars(drawn(4000, seed, RATING_ORDER), 5.0)
        others = with_stars(drawn(4000, seed + 100, -RATING_ORDER), 2.0)
        both = Candidates(
            *(
                np.concatenate([getattr(liked, name), getattr(others, name)])
                for name in ("features", "target", "stars", "users")
            )
        )
        of_rating = [second_stage._fit_share(both, share)[1] for share in (1.0, 0.5, 0.125, 0.0)]
        assert of_rating == sorted(of_rating)
        assert of_rating[0] == pytest.approx(0, abs=0.1)
        assert of_rating[-1] == pytest.approx(1, abs=0.1)

    @pytest.mark.parametrize("seed", range(3))
    def test_where_recall_must_not_fall_rows_that_are_not_liked_count_in_full(self, seed):
        # With the others left out, the order turns round, and what the others watched is lost.
        liked = with_stars(drawn(800, seed, RATING_ORDER * 3, width=40), 5.0)
        others = with_stars(drawn(3200, seed + 100, -RATING_ORDER * 3, width=40), 2.0)
        both = Candidates(
            *(
                np.concatenate([getattr(liked, name), getattr(others, name)])
                for name in ("features", "target", "stars", "users")
            )
        )
        strict, generous = (second_stage.fit(both, tolerance) for tolerance in (0.0, 1.0))
        own = second_stage.quality(second_stage.values(both, RETRIEVAL_ORDER), both)
        assert second_stage.quality(second_stage.values(both, strict), both).loses(own, errors=1) <= 0.0
        assert generous[1] > 1
        assert second_stage.quality(second_stage.values(both, generous), both).loses(own, errors=1) > 0.05

    @pytest.mark.parametrize("seed", range(3))
    def test_an_order_that_is_known_to_lose_recall_is_not_taken_for_what_it_gains(self, seed):
        # A fifth of the rows is of movies that are liked, far from the first ten, and rated highest; the others are
        # found by the retriever. Every fit puts some of the former before the latter.
        rows = drawn(1000, seed, width=60, some_missing=False)
        features, rng = rows.features.copy(), np.random.default_rng(seed)
        is_liked = rng.random(1000) < 0.2
        target = np.where(is_liked, 25, rng.integers(0, 10, 1000))
        features[is_liked, 25, 1] = 2.6
        torn = Candidates(features, target, np.where(is_liked, 5.0, 2.0), rows.users)

        weights = second_stage.fit(torn, tolerance=0.002)

        np.testing.assert_array_equal(weights, RETRIEVAL_ORDER)
        own = second_stage.quality(second_stage.values(torn, RETRIEVAL_ORDER), torn)
        lost = second_stage.quality(second_stage._held_out_values(torn, 1.0), torn)
        assert lost.liked_ndcg > own.liked_ndcg
        assert lost.loses(own, errors=-1) > 0.002

    @pytest.mark.parametrize("seed", range(5))
    def test_where_there_is_nothing_to_gain_the_second_stage_keeps_close_to_the_retrievers_order(self, seed):
        rows = drawn(3000, seed, RETRIEVAL_ORDER)
        weights = second_stage.fit(rows, tolerance=0.0)
        np.testing.assert_allclose(weights, RETRIEVAL_ORDER, atol=0.15)

    def test_where_nothing_is_better_the_retrievers_order_stays(self):
        # Everybody takes the movie that the retriever puts first, so that no order can be better.
        rows = drawn(200, seed=0, some_missing=False)
        first = Candidates(rows.features, np.zeros(200, int), rows.stars, rows.users)
        np.testing.assert_array_equal(second_stage.fit(first, tolerance=0.0), RETRIEVAL_ORDER)

    def test_without_a_movie_that_is_liked_or_found_the_retrievers_order_stays(self):
        rows = drawn(200, seed=0)
        np.testing.assert_array_equal(second_stage.fit(with_stars(rows, 2.0), 0.0), RETRIEVAL_ORDER)
        nowhere = Candidates(rows.features, np.full(200, -1), rows.stars, rows.users)
        np.testing.assert_array_equal(second_stage.fit(nowhere, 0.0), RETRIEVAL_ORDER)

    @pytest.mark.parametrize("rows", [1, 2, 5, 20])
    @pytest.mark.parametrize("seed", range(5))
    def test_few_rows_give_the_retrievers_order_or_that_of_all_rows_alike(self, rows, seed):
        few = drawn(rows, seed)
        weights = second_stage.fit(few, tolerance=0.0)
        all_alike = second_stage._fit_share(few, 1.0)
        kept, fitted = (np.allclose(weights, others) for others in (RETRIEVAL_ORDER, all_alike))
        if not (kept or fitted):
            # Another share is allowed only if no row at all is lost on the other half of the users.
            own = second_stage.quality(second_stage.values(few, RETRIEVAL_ORDER), few)
            shares = [
                s for s in second_stage._SHARES_OF_OTHERS if np.allclose(second_stage._fit_share(few, s), weights)
            ]
            held_out = second_stage.quality(second_stage._held_out_values(few, shares[0]), few)
            assert held_out.loses(own, errors=1) <= 0

    def test_one_user_alone_leaves_nothing_to_compare_with(self):
        rows = drawn(50, seed=0, users=1)
        np.testing.assert_array_equal(second_stage.fit(rows, tolerance=0.0), RETRIEVAL_ORDER)

    def test_the_prior_pulls_few_rows_to_the_retrievers_order(self):
        away = [
            np.abs(second_stage._fit_share(drawn(rows, 0), 1.0) - RETRIEVAL_ORDER).max() for rows in (3, 30, 300, 3000)
        ]
        assert away == sorted(away)
        assert away[0] < 0.3

    @pytest.mark.parametrize("share", [1.0, 0.25])
    def test_the_fit_has_the_smallest_loss(self, share):
        rows = drawn(400, seed=3)
        fitted = second_stage._fit_share(rows, share)
        losses = [slow_loss(rows, fitted + step, share) for step in np.vstack([np.eye(5), -np.eye(5)]) * 0.01]
        assert slow_loss(rows, fitted, share) < min(losses)


def slow_loss(rows, weights, share):
    total = 5.0 * ((weights - RETRIEVAL_ORDER) ** 2).sum()
    for features, target, stars in zip(rows.features, rows.target, rows.stars, strict=True):
        if target >= 0:
            odds = [np.exp(movie @ weights) for movie in features if np.isfinite(movie[0])]
            total -= (1.0 if stars >= 4 else share) * np.log(np.exp(features[target] @ weights) / sum(odds))
    return total


def slow_quality(values, rows):
    hits, gains = [], []
    for row, target in enumerate(rows.target):
        order = sorted(range(values.shape[1]), key=lambda place: -values[row, place])
        rank = order.index(target) + 1 if target >= 0 else 10**6
        hits.append(rank <= 10)
        if rows.stars[row] >= 4:
            gains.append(1 / np.log2(1 + rank) if rank <= 10 else 0.0)
    return hits, np.mean(gains) if gains else 0.0


class TestQuality:
    @pytest.mark.parametrize("seed", range(5))
    def test_it_is_that_of_sorting_with_ties_in_the_retrievers_order(self, seed):
        rows = drawn(300, seed, width=25)
        # There are few distinct values, so that many are tied.
        values = np.where(np.isfinite(rows.features[..., 0]), np.round(rows.features[..., 1]), -np.inf)
        found = second_stage.quality(values, rows)
        hits, liked_ndcg = slow_quality(values, rows)
        np.testing.assert_array_equal(found.hits, hits)
        assert found.liked_ndcg == pytest.approx(liked_ndcg)
        assert 0.1 < found.hits.mean() < 0.9
        assert not found.hits[rows.target < 0].any()

    def test_without_liked_rows_their_ndcg_is_0(self):
        rows = with_stars(drawn(20, seed=0), 3.0)
        assert second_stage.quality(second_stage.values(rows, WEIGHTS), rows).liked_ndcg == 0

    @pytest.mark.parametrize("seed", range(3))
    def test_what_is_lost_is_the_mean_difference_and_some_standard_errors(self, seed):
        rng = np.random.default_rng(seed)
        mine, other = rng.random((2, 500)) < 0.4
        lost = np.array([int(b) - int(a) for a, b in zip(mine, other, strict=True)])
        error = np.sqrt(((lost - lost.mean()) ** 2).mean() / 500)
        for errors in (-1, 0, 1):
            assert Quality(mine, 0.0).loses(Quality(other, 0.0), errors) == pytest.approx(lost.mean() + errors * error)
            assert Quality(mine, 0.0).loses(Quality(mine, 0.0), errors) == 0


class TestValues:
    @pytest.mark.parametrize("seed", range(3))
    @pytest.mark.parametrize("weights", [RETRIEVAL_ORDER, RATING_ORDER, WEIGHTS, -WEIGHTS, np.zeros(5)])
    def test_they_are_weighted_sums_and_what_is_no_movie_never_wins(self, seed, weights):
        rows = drawn(50, seed)
        values = second_stage.values(rows, weights)
        for row in range(50):
            for place in range(WIDTH):
                features = rows.features[row, place]
                expected = features @ weights if np.isfinite(features[0]) else -np.inf
                assert values[row, place] == pytest.approx(expected)
        is_movie = np.isfinite(rows.features[..., 0])
        assert is_movie[np.arange(50), values.argmax(axis=1)].all()
        assert not is_movie.all()


class TestFolds:
    @pytest.mark.parametrize("seed", range(3))
    def test_no_user_is_in_two_folds_and_both_have_many(self, seed):
        users = np.random.default_rng(seed).choice([3, 4, 10, 12, 600, 6040, 7, 8], 300)
        folds = second_stage._folds(users)
        assert all(len(set(folds[users == user])) == 1 for user in set(users))
        assert len({user for user in users if (folds[users == user] == 0).all()}) == 4

    def test_a_user_is_valued_by_weights_that_were_fitted_to_others(self):
        rows = drawn(400, seed=0, some_missing=False)
        before = second_stage._held_out_values(rows, 1.0)
        # Somebody else's choices change no value of the same fold, which is half of the users.
        target = rows.target.copy()
        target[rows.users == 1] = (target[rows.users == 1] + 1) % WIDTH
        after = second_stage._held_out_values(Candidates(rows.features, target, rows.stars, rows.users), 1.0)
        folds = second_stage._folds(rows.users)
        same = folds == folds[rows.users == 1][0]
        np.testing.assert_array_equal(before[same], after[same])
        assert np.abs(before[~same] - after[~same]).max() > 1e-6
