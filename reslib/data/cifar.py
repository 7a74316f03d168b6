"""CIFAR-10 and the embedded digits: their bytes, the mean image, and three ways to the same batches, bit for bit.

Pixels are in [0, 1] minus the mean image of the training part (per pixel, no division); crops are taken out of a border of
zeros round the subtracted image (border "black": out of the image itself, the mean goes last); half of them are mirrored.
"""

import hashlib
import pickle
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache, lru_cache, partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..checkpoint import undisturbed
from ..machine import in_a_line
from ..recipes import Recipe
from . import fast
from .draws import epoch_draws
from .sources import data_folder, pool, read_cifar10, read_digits

BYTE = np.arange(256, dtype=np.float32) / np.float32(255)  # a pixel's value by its byte: the same bits everywhere
AHEAD = 512  # images that a thread of the array backend makes at a time


class Images(NamedTuple):
    """One whole part of a data set, as bytes. A sample's id is its index here."""

    name: str  # "cifar10-16px-train"
    pixels: np.ndarray  # uint8 (N, H, W, 3)
    labels: np.ndarray  # int64 (N,)
    sha256: str  # of pixels and labels
    folder: Path  # the data directory, where cache files may be written


class Plan(NamedTuple):
    """Which samples come in which order, and how each is cropped."""

    ids: np.ndarray  # int64 (n,): sample ids
    dy: np.ndarray  # uint8 (n,): top of the crop in the padded image
    dx: np.ndarray  # uint8 (n,): its left
    flip: np.ndarray  # uint8 (n,): 1: mirrored


@lru_cache(maxsize=8)
def _images(data: str, size: int, train: bool, folder: Path) -> Images:
    pixels, labels = read_digits(train) if data == "digits" else read_cifar10(folder, train)
    pixels = np.ascontiguousarray(pool(pixels, size))
    digest = hashlib.sha256(pixels)
    digest.update(labels)
    return Images(f"{data}-{size}px-{'train' if train else 'test'}", pixels, labels, digest.hexdigest(), folder)


def images(recipe: Recipe, *, train: bool, data_dir=None) -> Images:
    """The training or test part that a recipe uses, whole. Raises as `read_cifar10`; ValueError for ImageNet."""
    if recipe.data == "imagenet":
        raise ValueError("ImageNet is not held in memory as a whole: `reslib.loader` gives its batches.")
    return _images(recipe.data, recipe.size, train, data_folder(data_dir))


def split_ids(recipe: Recipe, split: str, n: int) -> np.ndarray:
    """The sample ids of "train", "val" or "test", given the number of samples of their part."""
    held_out = n // 10 if recipe.split == "45k/5k" else 0
    if split == "val" and not held_out:
        raise ValueError("split 'val' is empty: only recipes with split='45k/5k' hold images out of the training set.")
    return {"train": np.arange(n - held_out), "val": np.arange(n - held_out, n), "test": np.arange(n)}[split]


@lru_cache(maxsize=8)
def _mean(data: str, size: int, folder: Path, n: int) -> np.ndarray:
    pixels = _images(data, size, True, folder).pixels[:n]
    return (pixels.sum(0, dtype=np.int64) / (255 * n)).astype(np.float32)


def mean_image(recipe: Recipe, data_dir=None) -> np.ndarray:
    """The training part's mean, per pixel, in [0, 1]: float32 (H, W, 3)."""
    n = len(split_ids(recipe, "train", len(images(recipe, train=True, data_dir=data_dir).labels)))
    return _mean(recipe.data, recipe.size, data_folder(data_dir), n)


def centring(recipe: Recipe, data_dir, device) -> tuple[np.ndarray, Tensor | None]:
    """What is subtracted from an image (H, W, 3), and what from the crop (3, H, W): the mean image is one of the two."""
    mean = mean_image(recipe, data_dir)
    if recipe.border == "mean":
        return mean, None
    return np.zeros_like(mean), torch.from_numpy(mean).permute(2, 0, 1).to(device)


# --- batches ---------------------------------------------------------------------------------------------------------


def crop_flip_subtract(pixels, ids, dy, dx, flip, mean, pad, out, tint=None):
    """out[b, y, x] = pixel / 255 - mean there, 0 outside the image: the fused kernel, compiled by `kernel`.

    pixels uint8 (N, H, W, 3), ids int64 (B,), dy, dx, flip uint8 (B,), mean float32 (H, W, 3), out float32 (B, H, W, 3); of
    photographs tint float32 (B, 3 W), what is added to each row. Whole rows, so that a compiler vectorises the inner loop.
    """
    n, height, width = pixels.shape[:3]
    rows, centre = pixels.reshape(n, height, width * 3), mean.reshape(height, width * 3)
    target = out.reshape(len(ids), height, width * 3)
    for b in range(len(ids)):
        top, left = np.int64(dy[b]) - pad, np.int64(dx[b]) - pad
        start, stop = max(0, -left), min(width, width - left)  # the columns of the crop that lie inside the image
        for y in range(height):
            to = target[b, y]
            if not 0 <= y + top < height:
                to[:] = 0
                continue
            to[: 3 * start] = 0
            to[3 * stop :] = 0
            source = rows[ids[b], y + top, 3 * (start + left) : 3 * (stop + left)]
            minus = centre[y + top, 3 * (start + left) : 3 * (stop + left)]
            inner = to[3 * start : 3 * stop]
            for k in range(len(inner)):
                inner[k] = np.float32(source[k]) / np.float32(255) - minus[k]
            if flip[b]:
                for x in range(width // 2):
                    for c in range(3):
                        to[3 * x + c], to[3 * (width - 1 - x) + c] = to[3 * (width - 1 - x) + c], to[3 * x + c]
            if tint is not None:
                for k in range(3 * width):
                    to[k] += tint[b, k]


@cache
def kernel(cached: bool = True) -> Callable | None:
    """`crop_flip_subtract`, compiled, and cached on disk where there is a place for it; None where numba is not installed."""
    try:
        from numba import njit
    except ImportError:
        return None
    try:
        return njit(cache=cached, nogil=True)(crop_flip_subtract)
    except RuntimeError:  # neither the code's folder nor the user's can be written to
        return kernel(cached=False)


def cropped(pixels: np.ndarray, ids: np.ndarray, dy, dx, flip, mean: np.ndarray, pad: int, tint=None) -> Tensor:
    """What the kernel makes of a batch, in fresh memory: float32 (B, 3, H, W), channels_last."""
    out = np.empty((len(ids), *pixels.shape[1:]), np.float32)
    arguments = (pixels, ids, dy, dx, flip, mean, pad, out, tint)
    try:
        kernel()(*arguments)
    except (EOFError, pickle.UnpicklingError):  # numba's cache is damaged, as by a crash
        kernel(cached=False)(*arguments)
    return torch.from_numpy(out).permute(0, 3, 1, 2)


def gather(pixels: Tensor, ids: Tensor, dy: Tensor, dx: Tensor, flip: Tensor, mean: Tensor, pad: int, byte: Tensor) -> Tensor:
    """The same as one indexed gather, on any device: uint8 (N, H, W, 3) -> float32 (B, 3, H, W), channels_last."""
    height, width = pixels.shape[1:3]
    y, x = torch.arange(height, device=pixels.device), torch.arange(width, device=pixels.device)
    rows = y + dy[:, None].long() - pad  # (B, H)
    columns = torch.where(flip[:, None].bool(), width - 1 - x, x) + dx[:, None].long() - pad  # (B, W)
    inside = ((rows >= 0) & (rows < height))[:, :, None] & ((columns >= 0) & (columns < width))[:, None, :]
    rows, columns = rows.clamp(0, height - 1)[:, :, None], columns.clamp(0, width - 1)[:, None, :]
    out = byte[pixels[ids[:, None, None], rows, columns].int()] - mean[rows, columns]  # (B, H, W, 3)
    return out.masked_fill(~inside[..., None], 0.0).permute(0, 3, 1, 2)


_resident: dict[tuple[str, str], tuple[Tensor, Tensor]] = {}  # (sha256, device) -> pixels and labels there


def resident(images: Images, device) -> tuple[Tensor, Tensor]:
    """A part's pixels (uint8) and labels on a device, copied there once in a process."""
    key = images.sha256, str(device)
    if key not in _resident:
        _resident[key] = torch.from_numpy(images.pixels).to(device), torch.from_numpy(images.labels).to(device)
    return _resident[key]


def array_batches(images: Images, plan: Plan, mean: np.ndarray, pad: int, batch: int, device) -> Iterator:
    """The whole set in memory: a batch is one gather on a GPU, one kernel call on the CPU, a few batches ahead in two threads.

    The threads end with the iterator, when it is closed or dropped; what one of them raises reaches the caller.
    """
    if torch.device(device).type != "cpu" or kernel() is None:
        pixels, labels = resident(images, device)  # the plan too: a step copies nothing and waits for nothing
        centre, byte, *whole = (torch.from_numpy(a).to(device) for a in (mean, BYTE, *plan))
        for i in range(0, len(plan.ids), batch):
            ids, dy, dx, flip = (a[i : i + batch] for a in whole)
            yield gather(pixels, ids, dy, dx, flip, centre, pad, byte), labels[ids]
        return

    def some(first: int) -> list[tuple[Tensor, Tensor]]:
        made = []
        for i in range(first, min(first + group, len(plan.ids)), batch):
            ids, *draws = (column[i : i + batch] for column in plan)
            made.append((cropped(images.pixels, ids, *draws, mean, pad), torch.from_numpy(images.labels[ids])))
        return made

    group = max(1, AHEAD // batch) * batch
    threads, pending = ThreadPoolExecutor(2, "array"), deque()
    try:
        for first in range(0, len(plan.ids), group):
            pending.append(threads.submit(some, first))
            if len(pending) > 2:
                yield from pending.popleft().result()
        while pending:
            yield from pending.popleft().result()
    finally:
        threads.shutdown(cancel_futures=True)


def stored(images: Images) -> Path:
    """The .beton file of `images`: folder/beton/<name>.beton, written where it is missing or of other images.

    Raises ImportError without FFCV, ValueError for an unreadable sidecar, OSError as `writer.write`.
    """
    path = Path(images.folder) / "beton" / f"{images.name}.beton"
    fast.needed(path, "array")
    if not fast.is_of(path, {"source": images.sha256}):
        from ffcv.fields import IntField, NDArrayField

        from . import writer

        fields = {"image": NDArrayField(images.pixels.dtype, images.pixels.shape[1:]), "label": IntField()}
        pairs = list(zip(images.pixels, images.labels, strict=True))
        make = partial(writer.dataset, pairs, fields, writer.PAGE, 1)
        writer.write(path, make, {"source": images.sha256}, total=len(pairs))
    return path


def ffcv_batches(images: Images, plan: Plan, mean: np.ndarray, pad: int, batch: int, workers: int) -> Iterator:
    """Out of the .beton file, decoded by FFCV, and the kernel. Raises as `stored`, ValueError for a bad plan or file."""
    loader = fast.opened(stored(images))
    labels = loader.reader.metadata["f1"]

    def finish(decode: Callable, where: np.ndarray) -> tuple[Tensor, Tensor]:
        ids, *draws = (column[where] for column in plan)
        return cropped(decode(ids), np.arange(len(ids)), *draws, mean, pad), torch.from_numpy(labels[ids])

    return fast.batches(loader, plan.ids, batch, workers, finish)


class _Samples(torch.utils.data.Dataset):
    """A plan's samples one by one: subtract the mean, pad with zeros, crop, flip."""

    def __init__(self, images: Images, plan: Plan, mean: np.ndarray, pad: int):
        self.images, self.plan, self.mean, self.pad = images, plan, torch.from_numpy(mean), pad

    def __len__(self) -> int:
        return len(self.plan.ids)

    def __getitem__(self, i: int) -> tuple[Tensor, int]:
        sample, dy, dx, flip = (int(a[i]) for a in self.plan)
        image = torch.from_numpy(BYTE[self.images.pixels[sample]]) - self.mean  # (H, W, 3)
        height, width, _ = image.shape
        image = torch.nn.functional.pad(image, (0, 0, self.pad, self.pad, self.pad, self.pad))
        image = image[dy : dy + height, dx : dx + width].permute(2, 0, 1)
        return image.flip(2) if flip else image, int(self.images.labels[sample])


def from_workers(samples: torch.utils.data.Dataset, batch: int, workers: int, **options) -> Iterator:
    """A DataLoader's batches. Raises OSError where a worker is killed, as in a container whose shared memory is too small."""
    try:
        yield from torch.utils.data.DataLoader(samples, batch, num_workers=workers, worker_init_fn=undisturbed, **options)
    except RuntimeError as error:
        raise OSError(f"images could not be read ({in_a_line(error)}): is there memory left, and room in /dev/shm?") from None


def torch_batches(samples: torch.utils.data.Dataset, batch: int, workers: int) -> Iterator:
    """The readable reference: a torch Dataset behind a DataLoader."""
    for x, labels in from_workers(samples, batch, workers):
        yield x.contiguous(memory_format=torch.channels_last), labels


def augmented(recipe: Recipe, ids: np.ndarray, epoch: int, n: int, shuffled: bool) -> Plan:
    """One epoch over the samples `ids` of n, cropped and mirrored as drawn; shuffled: permuted, and only whole batches."""
    draws = epoch_draws(recipe.seed, epoch, n, recipe.pad)
    if shuffled:
        ids = draws.order[draws.order <= ids[-1]]
        ids = ids[: len(ids) // recipe.batch * recipe.batch]
    return Plan(ids, draws.dy[ids], draws.dx[ids], draws.flip[ids] * np.uint8(recipe.flip))


def planned(recipe: Recipe, split: str, epoch: int, augment: bool, backend: str, data_dir, device, workers: int):
    """An epoch's Plan; what is subtracted from its batches, or None; and how batches are made, of (plan, batch)."""
    part = images(recipe, train=split != "test", data_dir=data_dir)
    mean, offset = centring(recipe, data_dir, device)
    ids = split_ids(recipe, split, len(part.labels))
    if augment:
        plan = augmented(recipe, ids, epoch, len(part.labels), shuffled=split == "train")
    else:
        centre = np.full(len(ids), recipe.pad, np.uint8)
        plan = Plan(ids, centre, centre, np.zeros(len(ids), np.uint8))
    make = {
        "ffcv": lambda plan, batch: ffcv_batches(part, plan, mean, recipe.pad, batch, workers),
        "array": lambda plan, batch: array_batches(part, plan, mean, recipe.pad, batch, device),
        "torch": lambda plan, batch: torch_batches(_Samples(part, plan, mean, recipe.pad), batch, workers),
    }[backend]
    return plan, offset, make
