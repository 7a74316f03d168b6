"""Every random decision about images, as a function of (seed, epoch, sample): order, crop, flip, scale, colour.

One counter-based Philox generator for each (seed, epoch); its raw 64-bit words are laid out by sample, a fixed number each,
so a decision does not depend on the backend, the number of workers, the batch, or where a run was resumed. Raw words are
used because NumPy may change the streams of its Generator methods between releases. Cost: 9 ms for 50,000 samples.
"""

from typing import NamedTuple

import numpy as np

WORDS = 12  # of 64 bits for each sample: order, top, left, flip, scale, four for colour; three are kept


class Draws(NamedTuple):
    """One epoch's decisions, indexed by sample id (its index in the full training set)."""

    order: np.ndarray  # int64 (n,): the sample ids in the order of this epoch
    dy: np.ndarray  # uint8 (n,): top of the crop in the padded image, 0 .. 2 pad
    dx: np.ndarray  # uint8 (n,): its left
    flip: np.ndarray  # uint8 (n,): 1 where the crop is mirrored


class PhotoDraws(NamedTuple):
    """One epoch's decisions about photographs of any size, indexed by sample id (section 3.4)."""

    order: np.ndarray  # int64 (n,): the sample ids in the order of this epoch
    scale: np.ndarray  # uint16 (n,): pixels of the shorter side before the crop
    top: np.ndarray  # uint32 (n,): where the crop begins, in 2**-32 of the places that the resized image has
    left: np.ndarray  # uint32 (n,)
    flip: np.ndarray  # uint8 (n,): 1 where the crop is mirrored
    colour: np.ndarray  # float64 (n, 3): what multiplies each colour component's eigenvalue


def below(words: np.ndarray, limit: int) -> np.ndarray:
    """Integers 0 .. limit - 1 from 64-bit words, uniform to within limit / 2**32."""
    return ((words >> np.uint64(32)) * np.uint64(limit)) >> np.uint64(32)


def epoch_words(seed: int, epoch: int, n: int) -> np.ndarray:
    """The raw words of one epoch: uint64 (n, WORDS)."""
    key = np.array([seed, epoch], dtype=np.uint64)
    return np.random.Philox(key=key).random_raw(n * WORDS).reshape(n, WORDS)


def epoch_draws(seed: int, epoch: int, n: int, pad: int) -> Draws:
    """The decisions of one epoch over n samples: a permutation, crop offsets (pixels) and flips (section 4.2)."""
    words = epoch_words(seed, epoch, n)
    return Draws(
        order=np.argsort(words[:, 0], kind="stable"),
        dy=below(words[:, 1], 2 * pad + 1).astype(np.uint8),
        dx=below(words[:, 2], 2 * pad + 1).astype(np.uint8),
        flip=(words[:, 3] >> np.uint64(63)).astype(np.uint8),
    )


def photo_draws(seed: int, epoch: int, n: int, short_side: tuple[int, int], colour: float) -> PhotoDraws:
    """The decisions of one epoch over n photographs: scale uniform in [short_side], colour from N(0, colour) (section 3.4)."""
    words, (low, high) = epoch_words(seed, epoch, n), short_side
    return PhotoDraws(
        order=np.argsort(words[:, 0], kind="stable"),
        scale=(low + below(words[:, 4], high - low + 1)).astype(np.uint16),
        top=(words[:, 1] >> np.uint64(32)).astype(np.uint32),
        left=(words[:, 2] >> np.uint64(32)).astype(np.uint32),
        flip=(words[:, 3] >> np.uint64(63)).astype(np.uint8),
        colour=colour * normal(words[:, 5:9])[:, :3],
    )


def share(plan, batch: int, rank: int, count: int, cut: bool):
    """A rank's share of a plan, and the images of its batches; samples and decisions stay as they are drawn.

    cut: there are whole batches alone, and each is cut into equal parts, a rank's each; else every count-th image.
    """
    if count == 1:
        return plan, batch
    if not cut:
        return type(plan)(*(column[rank::count] for column in plan)), batch
    part = batch // count
    columns = (c.reshape(-1, count, part, *c.shape[1:])[:, rank].reshape(-1, *c.shape[1:]) for c in plan)
    return type(plan)(*columns), part


def normal(words: np.ndarray) -> np.ndarray:
    """Standard normal numbers, two from each two words (Box and Muller, 1958): uint64 (n, 2k) -> float64 (n, 2k)."""
    uniform = ((words >> np.uint64(11)) + np.uint64(1)) * 2.0**-53  # (0, 1]
    radius, angle = np.sqrt(-2 * np.log(uniform[:, ::2])), 2 * np.pi * uniform[:, 1::2]
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=2).reshape(words.shape)
