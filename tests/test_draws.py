"""The random decisions: reproducible by definition, and distributed as published. Tests of distribution use fixed seeds."""

import numpy as np
from scipy import stats

from reslib.data.draws import epoch_draws, photo_draws


def test_fixed_values():
    """Philox's raw words must stay what they are: every recorded run depends on them."""
    words = np.random.Philox(key=np.array([0, 0], np.uint64)).random_raw(3)
    assert words.tolist() == [0x2F4BA6408E4D89B, 0x3DD62B0B9CA8C5B2, 0x1C8667A55D902E79]
    draws = epoch_draws(0, 0, 10, 4)
    assert [a.tolist() for a in draws] == [
        [0, 6, 9, 1, 3, 2, 8, 5, 4, 7],
        [2, 2, 2, 7, 2, 6, 2, 0, 2, 7],
        [1, 7, 5, 0, 8, 2, 8, 3, 3, 5],
        [1, 1, 1, 0, 1, 1, 0, 1, 1, 0],
    ]


def test_seeds_and_epochs_are_told_apart():
    orders = {epoch_draws(seed, epoch, 1000, 4).order.tobytes() for seed in range(4) for epoch in range(4)}
    assert len(orders) == 16


def test_offsets_and_flips_are_uniform():
    draws = epoch_draws(1, 2, 50_000, 4)
    for offsets in (draws.dy, draws.dx):
        assert stats.chisquare(np.bincount(offsets, minlength=9)).pvalue > 1e-4 and offsets.max() == 8
    together = np.bincount(draws.dy.astype(int) * 9 + draws.dx, minlength=81)
    assert stats.chisquare(together).pvalue > 1e-4
    assert stats.binomtest(int(draws.flip.sum()), 50_000).pvalue > 1e-4


def test_orders_are_uncorrelated():
    a, b = epoch_draws(0, 0, 50_000, 4).order, epoch_draws(0, 1, 50_000, 4).order
    assert stats.spearmanr(a, b).pvalue > 1e-4
    assert stats.spearmanr(a, np.arange(50_000)).pvalue > 1e-4


def test_fixed_values_of_photographs():
    draws = photo_draws(0, 0, 4, (256, 480), 0.1)
    assert draws.scale.tolist() == [369, 318, 352, 446] and draws.order.tolist() == [0, 1, 3, 2]
    assert np.allclose(draws.colour[0], [0.15115138, -0.05276683, -0.00040233], atol=1e-8)


def test_scale_is_uniform_over_256_to_480_and_independent_of_the_crop():
    draws = photo_draws(1, 2, 200_000, (256, 480), 0.1)
    assert (draws.scale.min(), draws.scale.max()) == (256, 480)
    assert stats.chisquare(np.bincount(draws.scale - 256, minlength=225)).pvalue > 1e-4
    for fractions in (draws.top, draws.left):
        assert stats.kstest(fractions / 2**32, "uniform").pvalue > 1e-4
        assert abs(stats.spearmanr(fractions, draws.scale).statistic) < 4 / np.sqrt(200_000)
    assert stats.binomtest(int(draws.flip.sum()), 200_000).pvalue > 1e-4


def test_colours_are_independent_normal_numbers():
    draws = photo_draws(5, 7, 100_000, (256, 480), 0.1)
    assert draws.colour.shape == (100_000, 3) and np.isfinite(draws.colour).all()
    for column in draws.colour.T:
        assert stats.kstest(column, "norm", (0, 0.1)).pvalue > 1e-4
    assert np.abs(np.corrcoef(draws.colour.T)[np.triu_indices(3, 1)]).max() < 4 / np.sqrt(100_000)
    squares = np.corrcoef(draws.colour.T**2)[np.triu_indices(3, 1)]  # two of them share a radius: independent all the same
    assert np.abs(squares).max() < 4 / np.sqrt(100_000)
    assert not np.array_equal(photo_draws(6, 7, 9, (256, 480), 0.1).colour, photo_draws(5, 8, 9, (256, 480), 0.1).colour)
    assert not photo_draws(5, 7, 10, (256, 480), 0.0).colour.any()
