"""The random decisions: reproducible by definition, and distributed as published. Tests of distribution use fixed seeds."""

import numpy as np
from scipy import stats

from reslib.draws import epoch_draws


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
