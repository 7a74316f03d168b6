"""The statistics of one comparison, against scipy and by simulation: what the rules say about how often they err."""

import numpy as np
import pytest
from scipy import stats

from reslib.evidence.comparison import POWER, Part, decide, direction, interval, pooled, prediction

RNG = np.random.default_rng(20151210)


def test_the_interval_is_the_t_interval():
    values = [1.0, 2.0, 4.0]
    mean, low, high = interval(values)
    assert (low, high) == pytest.approx(stats.ttest_1samp(values, 0).confidence_interval(0.95))
    assert interval([5.0]) == (5.0, -np.inf, np.inf) and mean == pytest.approx(7 / 3)


def test_nets_of_different_architecture_are_compared_by_welch():
    one, two = (3.0, 5.0, 9.0), (1.0, 1.2, 1.1, 1.3)
    part = Part("x", one, two)
    welch = stats.ttest_ind(one, two, equal_var=False)
    assert part.interval() == pytest.approx(tuple(welch.confidence_interval(0.95)))
    assert part.estimate == pytest.approx(np.mean(one) - np.mean(two)) and part.n == 3
    pair = Part("x", tuple(np.subtract(one, two[:3])))
    assert pair.interval() == pytest.approx(tuple(stats.ttest_rel(one, two[:3]).confidence_interval(0.95)))


def test_equal_values_of_one_net_are_compared_without_a_warning():
    part = Part("x", (1000.0, 1000.0), (1400.0, 1200.0), side=-1)
    assert part.outcome == "open" and part.interval()[0] < part.estimate < part.interval()[1]


@pytest.mark.parametrize(
    ("values", "side", "outcome"),
    [
        ((5, 6, 7), 1, "for"),
        ((-5, -6, -7), 1, "against"),
        ((-1, 0, 2), 1, "open"),
        ((5, 6, 7), -1, "against"),
        ((-5, -6, -7), -1, "for"),
        ((5,), 1, "open"),
        ((0, 0, 0), 1, "against"),
        ((0.45, 0.46, 0.47), 1, "open"),  # below the threshold, but not by the margin
        ((0.1, -0.1, 0.0), 0, "for"),  # within half a point, either way
        ((0.9, 1.0, 1.1), 0, "against"),
        ((0.0, 1.0, -1.0), 0, "open"),
        ((), 1, "open"),
    ],
)
def test_outcomes(values, side, outcome):
    threshold = {1: 0.5, -1: -0.5, 0: 0.5}[side]
    assert Part("x", values, threshold=threshold, side=side, margin=0.1).outcome == outcome


def test_power_is_what_simulation_finds():
    part = Part("x", (0.0, 1.0, 2.0), (0.0, 1.0, 2.0), effect=3.0)  # both spreads are 1
    made = RNG.normal(3.0, 1, (2, 4_000, 5))
    made[1] -= 3.0
    found = stats.ttest_ind(made[0], made[1], axis=1).confidence_interval(0.95).low > 0
    assert part.power(5) == pytest.approx(found.mean(), abs=0.03)
    assert part.power(part.needed()) >= POWER > part.power(part.needed() - 1)


def test_power_has_no_gaps_for_large_effects():
    for other, n in (((), 3), ((), 5), (None, 9)):
        assert all(Part("x", (), other, effect=effect).power(n, 1.0) > 0.99 for effect in np.geomspace(13, 60, 300))


@pytest.mark.parametrize(("compare", "n", "spread"), [("paired", 3, 0.4), ("paired", 5, 0.4), ("welch", 5, 0.3)])
def test_power_of_an_equivalence_is_what_simulation_finds(compare, n, spread):
    """Also where it is small, and the two one-sided tests often fail together."""
    one, two = RNG.normal(0, spread, (2, 20_000, n))
    tests = stats.ttest_1samp(one, 0, axis=1) if compare == "paired" else stats.ttest_ind(one, two, axis=1, equal_var=False)
    low, high = tests.confidence_interval(0.90)
    part = Part("x", (), None if compare == "paired" else (), threshold=0.5, side=0)
    assert part.power(n, spread) == pytest.approx(((low > -0.5) & (high < 0.5)).mean(), abs=0.04)


def simulated(difference, n=5, spread=0.3, parts=1, trials=300, **options):
    """Shares of verdicts (claim holds, contradicted, else) where the true difference in each part is this."""
    found = []
    for _ in range(trials):
        made = [Part("x", tuple(RNG.normal(difference, spread, n)), tuple(RNG.normal(0, spread, n)), **options)
                for _ in range(parts)]  # fmt: skip
        found.append(decide(made)[0])
    return np.bincount(found, minlength=3) / trials


def test_errors_are_as_rare_as_the_rules_say():
    """No difference: supported in 2.5 %. A truth at the margin's edge: contradicted in 2.5 %, also over three parts."""
    noise = 0.027  # three standard errors of 2.5 % in 300 trials
    assert simulated(0.0)[0] < 0.025 + noise
    edge = dict(margin=0.2, effect=1.5)
    assert simulated(-0.2, **edge)[1] < 0.025 + noise
    assert simulated(-0.2, parts=3, **edge)[1] < 0.025 + noise
    assert simulated(0.0, parts=3, **edge)[1] < 0.01  # without any difference hardly ever
    assert simulated(0.5, side=0, threshold=0.5)[0] < 0.05 + noise  # equivalence: two one-sided tests at 5 %


def test_the_papers_effects_are_found():
    assert simulated(2.6, effect=2.6)[0] > 0.95  # C1, five runs of each
    assert simulated(1.78, n=3, effect=1.78)[0] > 0.8  # C5's test error, three runs of each
    assert simulated(-1.0, margin=0.2, effect=1.5)[1] > 0.8  # what is so far off is contradicted


def test_nothing_is_contradicted_without_the_power_to_have_seen_it():
    part = Part("a - b:", (-1.0, -2.5, -4.0), (0.1, 0.0, 0.2), margin=0.0, effect=0.1)
    strong = Part("a - b:", (-1.0, -1.2, -1.1), (0.1, 0.0, 0.2), margin=0.0, effect=2.0)
    assert strong.outcome == "against" and decide([strong]) == (1, [])
    weak = Part("a - b:", strong.values, strong.other, margin=0.0, effect=0.05)
    place, why = decide([weak])
    assert place == 2 and "runs a net would decide" in why[0] and part.power() < POWER
    assert direction([strong])[0] == 1 and direction([strong, part])[0] == 2


def test_prediction_intervals_hold_what_they_say():
    """95 % of single further values, and of means of five, lie within; one value predicts nothing."""
    assert prediction([6.0]) == (-np.inf, np.inf)
    for runs in (1, 5):
        made = RNG.normal(6.6, 0.2, (2_000, 5 + runs))
        ends = np.array([prediction(row[:5], runs) for row in made])
        further = made[:, 5:].mean(1)
        assert ((ends[:, 0] < further) & (further < ends[:, 1])).mean() == pytest.approx(0.95, abs=0.02)


def test_power_at_another_spread_is_that_of_runs_with_that_spread():
    plan = Part("", (), (), effect=0.5)  # nothing run yet
    run = Part("", (1.0, 2.0, 3.0), (7.0, 8.0, 9.0), effect=0.5)  # standard deviation 1
    assert plan.power(9, spread=1.0) == run.power(9) and plan.needed(1.0) == run.needed()
    assert plan.power(9, spread=0.5) > run.power(9) and plan.needed(1.0, power=0.9) > plan.needed(1.0)


def test_spreads_are_pooled_by_their_degrees_of_freedom():
    rng = np.random.default_rng(0)
    nets = [rng.normal(10 * i, 2.0, n) for i, n in enumerate((3, 5, 9))]
    left = np.concatenate([net - net.mean() for net in nets])
    spread, freedom = pooled([net.std(ddof=1) for net in nets], [len(net) for net in nets])
    assert freedom == 14 and spread == pytest.approx(np.sqrt((left**2).sum() / 14))
