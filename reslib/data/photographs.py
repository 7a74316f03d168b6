"""Photographs as section 3.4 says: scale from [256, 480], a 224x224 crop, mirror, minus the mean image, colour.

    ffcv    a .beton file (convert.py makes it): FFCV's decoder and its INTER_AREA resizing of the crop alone
    torch   torchvision's transforms on the ImageFolder tree itself, step by step: the readable reference

Both use the same rectangles and colour vectors; their pixels differ by how they resize, which `bench load` measures.
"""

import contextlib
import hashlib
from collections.abc import Callable, Iterator
from functools import lru_cache, partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from ..files import renamed
from ..recipes import Recipe
from . import cifar, fast
from .batches import ahead, batches_of, from_dataset
from .draws import photo_draws
from .tree import Tree, beton, decoded, folder_of, stored, tree

CENTRE = (256, 224)  # pixels: the shorter side and the centre crop of it that the mean image is of
MIDDLE = 2**31 - 1  # in a Plan's fractions
SAMPLE = 10_000  # photographs, evenly spread, that the mean image is of


class Plan(NamedTuple):
    """Which samples come in which order, and how each is cropped, mirrored and tinted: the same for all backends."""

    ids: np.ndarray  # int64 (n,): sample ids
    scale: np.ndarray  # uint16 (n,): pixels of the shorter side
    top: np.ndarray  # uint32 (n,): where the crop begins, in 2**-32 of the places there are
    left: np.ndarray  # uint32 (n,)
    flip: np.ndarray  # uint8 (n,): 1: mirrored
    shift: np.ndarray  # float32 (n, 3): added to each channel of a pixel in [0, 1]


def rectangle(scale, top, left, height, width, size: int) -> tuple[np.ndarray, ...]:
    """The size x size crop of a height x width photograph whose shorter side is resized to `scale`; numbers or arrays.

    top, left: fractions of 2**32, as in a Plan; 2**31 - 1 is the middle. Returns the crop's top and left, and the resized
    photograph's height and width.
    """
    scale, top, left, height, width = (np.asarray(a, np.int64) for a in (scale, top, left, height, width))
    short = np.minimum(height, width)
    tall, wide = height * scale // short, width * scale // short
    return (top * (tall - size + 1)) >> 32, (left * (wide - size + 1)) >> 32, tall, wide


# --- what is subtracted and added ------------------------------------------------------------------------------------


def statistics(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """The mean image, float32 (224, 224, 3) in [0, 1], and the covariance of colours (3, 3), of centre crops of `train`.

    Of 10,000 photographs, or all if there are fewer; kept beside the .beton files, and made anew where the photographs change.
    """
    note = fast.sidecar(beton(folder, "train"))
    of, path = note["source"] if note else tree(folder, "train").state, beton(folder, "train").with_suffix(".npz")
    try:
        with open(path, "rb") as raw, np.load(raw) as file:
            if str(file["source"]) == of:
                return file["mean"], file["covariance"]
    except FileNotFoundError:
        pass
    except Exception as error:  # a broken zip file has many ways to fail
        raise ValueError(f"{path} is damaged ({error}): delete it, it is made again from the photographs.") from None
    return kept_statistics(folder, of)


@lru_cache(maxsize=4)
def kept_statistics(folder: Path, of: str) -> tuple[np.ndarray, np.ndarray]:
    """Once in a process where they cannot be kept. of: the state of the tree that they are of."""
    return statistics_of(tree(folder, "train"), folder)


def statistics_of(images: Tree, folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """`statistics` of a tree, made, and kept in `folder` where it can be written to."""
    ids = np.linspace(0, len(images.names) - 1, min(SAMPLE, len(images.names))).astype(np.int64)
    total, moments = np.zeros((CENTRE[1], CENTRE[1], 3)), np.zeros((3, 3))
    for i in tqdm(ids, desc="mean image", unit="image"):
        crop = view(images.folder / images.names[i], CENTRE[0], MIDDLE, MIDDLE, CENTRE[1]).permute(1, 2, 0).numpy() / 255
        total += crop
        moments += crop.reshape(-1, 3).T @ crop.reshape(-1, 3)
    average = total.mean((0, 1)) / len(ids)
    mean, covariance = (total / len(ids)).astype(np.float32), moments / (len(ids) * CENTRE[1] ** 2) - np.outer(average, average)
    with contextlib.suppress(OSError):
        (path := beton(folder, "train").with_suffix(".npz")).parent.mkdir(parents=True, exist_ok=True)
        with renamed(path) as file:
            np.savez(file, mean=mean, covariance=covariance, n=len(ids), source=images.state)
    return mean, covariance


def components(covariance: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Eigenvalues (3,), the largest first, and unit eigenvectors in columns (3, 3), of the covariance of RGB in [0, 1]."""
    values, vectors = np.linalg.eigh(covariance)
    values, vectors = values[::-1], vectors[:, ::-1]
    return values, vectors * np.sign(vectors.sum(0))


def resized(mean: np.ndarray, size: int) -> np.ndarray:
    """The mean image (224, 224, 3) for crops of another size: (size, size, 3)."""
    if size == len(mean):
        return mean
    image = torch.from_numpy(mean).permute(2, 0, 1)[None]
    image = torch.nn.functional.interpolate(image, (size, size), mode="bilinear", antialias=True)
    return image[0].permute(1, 2, 0).contiguous().numpy()


# --- batches ---------------------------------------------------------------------------------------------------------


def scales_of(recipe: Recipe, augment: bool) -> tuple[int, int]:
    """The range of the shorter side, in pixels: the recipe's, or 256 alone; both are for crops of 224, so in proportion."""
    low, high = recipe.short_side if augment and recipe.short_side else (CENTRE[0], CENTRE[0])
    return round(low * recipe.size / CENTRE[1]), round(high * recipe.size / CENTRE[1])


class Part(NamedTuple):
    """The photographs of a part, as a backend reads them."""

    place: Path  # of the .beton file, or the tree
    labels: np.ndarray
    classes: list[str]
    sha256: str  # of the .beton file; of a tree's classes and file names, so that a copy is the same
    batches: Callable  # (plan, mean image, images of a batch, workers)


def part_of(recipe: Recipe, folder: Path, part: str, backend: str, augment: bool) -> Part:
    """Raises as `stored` or `tree`, and as `fast.needed` and `fast.opened`."""
    if backend == "ffcv":
        path = stored(folder, part, scales_of(recipe, augment)[1])
        fast.needed(path, "torch")
        note, file = fast.sidecar(path), fast.opened(path, fast.photograph_decoder, whole=False)
        return Part(path, file.samples["f1"], note["classes"], note["sha256"], partial(ffcv_batches, file, path))
    images = tree(folder, part)

    def batches(plan: Plan, mean: np.ndarray, batch: int, workers: int) -> Iterator:
        return from_dataset(_Photos(images, plan, mean), batch, workers)

    return Part(images.folder, images.labels, images.classes, images.sha256, batches)


def contents(recipe: Recipe, backend: str, data_dir) -> dict:
    """As `data.contents`; the mean image and colours are made, and kept, where they are not yet."""
    folder = folder_of(data_dir)
    train, test = (part_of(recipe, folder, part, backend, part == "train") for part in ("train", "val"))
    if train.place == test.place:
        raise ValueError(f"{folder} holds no val: give photographs to test on, in DIR/train/<class>/ and DIR/val/<class>/.")
    if len(train.labels) < recipe.batch:
        raise ValueError(f"a batch of {recipe.batch} is more than the {len(train.labels)} photographs of {train.place}: set a "
                         "smaller batch.")  # fmt: skip
    for part in (train, test):
        if (lacking := np.flatnonzero(np.bincount(part.labels, minlength=len(train.classes)) == 0)).size:
            raise ValueError(f"{part.place} holds no photographs of the class {train.classes[lacking[0]]!r}: both parts need "
                             "some of each class.")  # fmt: skip
    statistics(folder)
    return {"name": f"imagenet-{recipe.size}px", "sha256": hashlib.sha256((train.sha256 + test.sha256).encode()).hexdigest(),
            "train": len(train.labels), "val": 0, "test": len(test.labels), "classes": len(train.classes)}  # fmt: skip


def epoch_of(recipe: Recipe, split: str, epoch: int, augment: bool, *, data_dir, backend: str, workers: int):
    """An epoch's plan, and what makes batches of it or of a part of it: "train", or the part val as both "val" and "test".

    Images that are not augmented are 224x224 centre crops at a shorter side of 256. Without recipe.short_side that is the
    scale of training crops too, and smaller .beton files serve. With another recipe.size all of this is in proportion.
    """
    folder = folder_of(data_dir)
    part = part_of(recipe, folder, "train" if split == "train" else "val", backend, augment)
    mean, covariance = statistics(folder)
    mean = resized(mean, recipe.size)
    plan = planned(recipe, len(part.labels), epoch, augment, split == "train", scales_of(recipe, augment), covariance)
    return plan, lambda plan, batch: part.batches(plan, mean, batch, workers)


def planned(recipe: Recipe, count: int, epoch: int, augment: bool, shuffled: bool, scales, covariance: np.ndarray) -> Plan:
    """One epoch over `count` photographs: as drawn, or as they are; shuffled: permuted, and only whole batches."""
    ids = np.arange(count)
    if not augment:
        middle, zero = np.full(count, MIDDLE, np.uint32), np.zeros(count, np.uint8)
        return Plan(ids, np.full(count, scales[0], np.uint16), middle, middle, zero, np.zeros((count, 3), np.float32))
    draws = photo_draws(recipe.seed, epoch, count, scales, recipe.colour)
    if shuffled:
        ids = draws.order[: count // recipe.batch * recipe.batch]
    values, vectors = components(covariance)
    shift = ((draws.colour[ids] * values) @ vectors.T).astype(np.float32)  # AlexNet: [p1 p2 p3] [a1 l1, a2 l2, a3 l3]
    return Plan(ids, draws.scale[ids], draws.top[ids], draws.left[ids], draws.flip[ids] * np.uint8(recipe.flip), shift)


def placed(samples: np.ndarray, plan: Plan, size: int) -> np.ndarray:
    """fast.CROP of a batch: its rectangles in the pixels of the stored photographs, whole ones, and within them."""
    image, _, *source = (samples[name] for name in samples.dtype.names)  # image, label, height and width of the source
    top, left, tall, wide = rectangle(plan.scale, plan.top, plan.left, *source, size)
    rows = np.zeros(len(samples), fast.CROP)
    for name in ("mode", "height", "width", "data_ptr"):
        rows[name] = image[name]
    sides = ("top", "bottom", top, tall, "height"), ("left", "right", left, wide, "width")
    for first, last, begin, whole, side in sides:
        length = rows[side].astype(int)
        rows[first] = np.clip(np.rint(begin * length / whole), 0, length - 1)
        rows[last] = np.clip(np.rint((begin + size) * length / whole), rows[first] + 1, length)
    return rows


def mirrored_and_tinted(pixels: np.ndarray, flip: np.ndarray, mean: np.ndarray, shift: np.ndarray) -> Tensor:
    """Crops, uint8 (B, H, W, 3), minus the mean, mirrored where flip is 1, plus the shift: float32 (B, 3, H, W)."""
    corner = np.zeros(len(pixels), np.uint8)
    crops = cifar.cropped(pixels, cifar.Plan(np.arange(len(pixels)), corner, corner, flip), mean, pad=0)
    crops.numpy()[...] += shift[:, :, None, None]
    return crops


def ffcv_batches(file: fast.File, path: Path, plan: Plan, mean: np.ndarray, batch: int, workers: int) -> Iterator:
    """The plan's samples out of an opened .beton file. Raises ValueError for a damaged JPEG in it."""

    def made(where: slice) -> tuple[Tensor, Tensor]:
        part = Plan(*(column[where] for column in plan))
        samples = file.samples[part.ids]
        pixels = np.empty((len(samples), *mean.shape), np.uint8)
        try:
            file.decode(np.arange(len(samples)), pixels, placed(samples, part, len(mean)), file.storage)
        except ValueError as error:
            raise fast.damaged(path, f"{error}") from None
        return mirrored_and_tinted(pixels, part.flip, mean, part.shift), torch.from_numpy(samples["f1"].copy())

    return ahead(made, batches_of(plan, batch), max(1, workers))


def view(path: Path, scale: int, top: int, left: int, size: int) -> Tensor:
    """The reference: a photograph decoded, resized (antialiased bilinear), cropped by `rectangle`: uint8 (3, size, size).

    Raises ValueError, naming the file, if it cannot be decoded.
    """
    from torchvision.transforms.v2 import functional

    image = decoded(path)
    top, left, tall, wide = map(int, rectangle(scale, top, left, *image.shape[1:], size))
    return functional.crop(functional.resize(image, [tall, wide], antialias=True), top, left, size, size)


class _Photos(torch.utils.data.Dataset):
    """A plan's samples one by one, out of the tree: resize, crop, subtract the mean, mirror, tint."""

    def __init__(self, images: Tree, plan: Plan, mean: np.ndarray):
        self.images, self.plan, self.mean = images, plan, torch.from_numpy(mean).permute(2, 0, 1)

    def __len__(self) -> int:
        return len(self.plan.ids)

    def __getitem__(self, i: int) -> tuple[Tensor, int]:
        sample, scale, top, left, flip, shift = (a[i] for a in self.plan)
        image = view(self.images.folder / self.images.names[sample], scale, top, left, self.mean.shape[1])
        image = image / 255 - self.mean
        image = image.flip(2) if flip else image
        return image + torch.from_numpy(shift)[:, None, None], int(self.images.labels[sample])
