"""Every random decision about images, as a function of (seed, epoch, sample): order, crop, flip.

One counter-based Philox generator for each (seed, epoch); its raw 64-bit words are laid out by sample, a fixed number each,
so a decision does not depend on the backend, the number of workers, the batch, or where a run was resumed. Raw words are
used because NumPy may change the streams of its Generator methods between releases. Cost: 9 ms for 50,000 samples.
"""

from typing import NamedTuple

import numpy as np

WORDS = 12  # of 64 bits for each sample: order, dy, dx, flip; the rest is kept for scale and colour


class Draws(NamedTuple):
    """One epoch's decisions, indexed by sample id (its index in the full training set)."""

    order: np.ndarray  # int64 (n,): the sample ids in the order of this epoch
    dy: np.ndarray  # uint8 (n,): top of the crop in the padded image, 0 .. 2 pad
    dx: np.ndarray  # uint8 (n,): its left
    flip: np.ndarray  # uint8 (n,): 1 where the crop is mirrored


def below(words: np.ndarray, limit: int) -> np.ndarray:
    """Integers 0 .. limit - 1 from 64-bit words, uniform to within limit / 2**32."""
    return ((words >> np.uint64(32)) * np.uint64(limit)) >> np.uint64(32)


def epoch_draws(seed: int, epoch: int, n: int, pad: int) -> Draws:
    """The decisions of one epoch over n samples: a permutation, crop offsets (pixels) and flips (section 4.2)."""
    key = np.array([seed, epoch], dtype=np.uint64)
    words = np.random.Philox(key=key).random_raw(n * WORDS).reshape(n, WORDS)
    return Draws(
        order=np.argsort(words[:, 0], kind="stable"),
        dy=below(words[:, 1], 2 * pad + 1).astype(np.uint8),
        dx=below(words[:, 2], 2 * pad + 1).astype(np.uint8),
        flip=(words[:, 3] >> np.uint64(63)).astype(np.uint8),
    )
