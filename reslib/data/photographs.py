"""Photographs as section 3.4 says: scale from [256, 480], a 224x224 crop, mirror, minus the mean image, colour.

    ffcv    a .beton file (convert.py makes it): FFCV's decoder and its INTER_AREA resizing of the crop alone
    torch   torchvision's transforms on the ImageFolder tree itself, step by step: the readable reference

Both use the same rectangles and colour vectors; their pixels differ by how they resize, which `bench load` measures.
"""

import hashlib
import json
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from ..files import renamed
from ..recipes import Recipe
from . import fast
from .cifar import cropped, torch_batches
from .draws import photo_draws
from .tree import Tree, decoded, folder_of, sidecars, source, stored, tree

CENTRE = (256, 224)  # pixels: the shorter side and the centre crop of it that the mean image is of
MIDDLE = 2**31 - 1  # in a Plan's fractions
SAMPLE = 10_000  # photographs, evenly spread, that the mean image is of where none were converted


class Plan(NamedTuple):
    """Which samples come in which order, and how each is cropped, mirrored and tinted: the same for all backends."""

    ids: np.ndarray  # int64 (n,): sample ids
    scale: np.ndarray  # uint16 (n,): pixels of the shorter side
    top: np.ndarray  # uint32 (n,): where the crop begins, in 2**-32 of the places there are
    left: np.ndarray  # uint32 (n,)
    flip: np.ndarray  # uint8 (n,): 1: mirrored
    shift: np.ndarray  # float32 (n, 3): added to each channel of a pixel in [0, 1]


class Rectangle(NamedTuple):
    """A crop, in the pixels of the resized image."""

    top: np.ndarray
    left: np.ndarray
    height: np.ndarray  # of the resized image
    width: np.ndarray


def rectangle(scale, top, left, height, width, size: int) -> Rectangle:
    """The size x size crop of a height x width photograph whose shorter side is resized to `scale`; numbers or arrays.

    top, left: fractions of 2**32, as in a Plan; 2**31 - 1 is the middle.
    """
    scale, top, left, height, width = (np.asarray(a, np.int64) for a in (scale, top, left, height, width))
    short = np.minimum(height, width)
    tall, wide = height * scale // short, width * scale // short
    return Rectangle((top * (tall - size + 1)) >> 32, (left * (wide - size + 1)) >> 32, tall, wide)


# --- what is subtracted and added ------------------------------------------------------------------------------------


def statistics(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """The mean image, float32 (224, 224, 3) in [0, 1], and the covariance of colours (3, 3), of centre crops of `train`.

    convert.py made them from all images; else, or if the photographs have changed, they are computed here from 10,000 and
    kept beside. Raises ValueError if the file is damaged, and as `source`.
    """
    path, notes = folder / "beton" / "imagenet-train.npz", sidecars(folder, "train")
    of = next(iter(notes.values()))["source"] if notes else tree(folder, "train").sha256
    try:
        with open(path, "rb") as raw, np.load(raw) as file:
            if str(file["source"]) == of:
                return file["mean"], file["covariance"]
    except FileNotFoundError:
        pass
    except PermissionError:
        raise
    except Exception as error:  # a broken zip file has many ways to fail
        raise ValueError(f"{path} is damaged ({error}): delete it, it is made again from the photographs.") from None
    return sampled(folder, of)


@lru_cache(maxsize=4)
def sampled(folder: Path, of: str) -> tuple[np.ndarray, np.ndarray]:
    """`statistics` of 10,000 photographs of the tree whose sha256 is `of`, kept where the folder can be written to."""
    images = source(folder, "train")
    ids = np.linspace(0, len(images.names) - 1, min(SAMPLE, len(images.names))).astype(np.int64)
    total, moments = np.zeros((CENTRE[1], CENTRE[1], 3)), np.zeros((3, 3))
    for i in tqdm(ids, desc="mean image", unit="image"):
        crop = view(images.folder / images.names[i], CENTRE[0], MIDDLE, MIDDLE, CENTRE[1]).permute(1, 2, 0).numpy() / 255
        total += crop
        moments += crop.reshape(-1, 3).T @ crop.reshape(-1, 3)
    return keep_statistics(folder, total, moments, len(ids), of)


def keep_statistics(folder: Path, total: np.ndarray, moments: np.ndarray, n: int, of: str) -> tuple[np.ndarray, np.ndarray]:
    """Mean image and covariance out of sums over n crops with values in [0, 1], written beside the .beton files if possible."""
    average = total.mean((0, 1)) / n
    mean, covariance = (total / n).astype(np.float32), moments / (n * CENTRE[1] ** 2) - np.outer(average, average)
    path = folder / "beton" / "imagenet-train.npz"
    try:
        with renamed(path) as file:
            np.savez(file, mean=mean, covariance=covariance, n=n, source=of)
    except OSError:  # they are made again next time
        pass
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


def part_of(recipe: Recipe, backend: str, folder: Path, part: str, augment: bool) -> tuple:
    """Where the photographs of a part lie; their labels; an FFCV Loader of them, or a Tree.

    Raises ImportError where FFCV is asked for and missing, and as `stored`, `fast.opened` and `source`.
    """
    if backend != "ffcv":
        images = source(folder, part)
        return images.folder, images.labels, images
    path = stored(folder, part, scales_of(recipe, augment)[1])
    fast.needed(path, "torch")
    file = fast.opened(path, recipe.size)
    return path, file.reader.metadata["f1"], file


def planned(recipe: Recipe, split: str, epoch: int, augment: bool, backend: str, data_dir, device, workers: int):
    """An epoch's Plan; None; and how batches are made, of (plan, batch). "val" and "test" are ImageNet's validation images.

    Images that are not augmented are 224x224 centre crops at a shorter side of 256. Without recipe.short_side that is the
    scale of training crops too, and smaller .beton files serve. With another recipe.size all of this is in proportion.
    """
    folder, part = folder_of(data_dir), "train" if split == "train" else "val"
    place, labels, images = part_of(recipe, backend, folder, part, augment)
    mean, covariance = statistics(folder)
    mean = resized(mean, recipe.size)
    plan = drawn(recipe, len(labels), epoch, augment, split == "train", covariance)
    make = {
        "ffcv": lambda plan, batch: ffcv_batches(images, place, plan, mean, batch, workers),
        "torch": lambda plan, batch: torch_batches(_Photos(images, plan, mean), batch, workers),
    }[backend]
    return plan, None, make


def contents(recipe: Recipe, backend: str, data_dir) -> dict:
    """As `data.contents`; the mean image and colours are made, and kept, where they are not yet."""
    folder = folder_of(data_dir)
    parts = [part_of(recipe, backend, folder, part, part == "train") for part in ("train", "val")]
    places, labels, found = zip(*parts, strict=True)
    if backend == "ffcv":
        notes = [fast.sidecar(path) for path in places]
        classes, digests = notes[0]["classes"], [note["sha256"] for note in notes]
    else:
        classes, names = found[0].classes, [json.dumps([tree.classes, tree.names]) for tree in found]
        digests = [hashlib.sha256(name.encode()).hexdigest() for name in names]
    if places[0] == places[1]:
        raise ValueError(f"{folder} holds no val: give photographs to test on, in DIR/train/<class>/ and DIR/val/<class>/.")
    if len(classes) < 2:
        raise ValueError(f"{places[0]} holds one class alone, {classes[0]!r}: there is nothing to tell apart.")
    if len(labels[0]) < recipe.batch:
        raise ValueError(f"a batch of {recipe.batch} is more than the {len(labels[0])} photographs of {places[0]}: set a "
                         "smaller batch.")  # fmt: skip
    for place, of in zip(places, labels, strict=True):
        if (lacking := np.flatnonzero(np.bincount(of, minlength=len(classes)) == 0)).size:
            raise ValueError(f"{place} holds no photographs of the class {classes[lacking[0]]!r}: both parts need some of "
                             "each class.")  # fmt: skip
    statistics(folder)
    sha256 = hashlib.sha256("".join(digests).encode()).hexdigest()
    counts = {"train": len(labels[0]), "val": 0, "test": len(labels[1]), "classes": len(classes), "names": classes}
    return {"name": f"imagenet-{recipe.size}px", "sha256": sha256, **counts}


def identity(contents: dict, backend: str) -> dict:
    """What of `contents` tells photographs from others; not the sha256 of .beton files, which may change when made again."""
    return {name: contents[name] for name in ("train", "test", "classes") + ("sha256",) * (backend == "torch")}


def check_same(path: Path, record, data_dir) -> None:
    """Raises ValueError where a record is of a run on other photographs than lie here, if any do."""
    try:
        here = contents(record.recipe, record.backend, data_dir)
    except (OSError, ImportError, ValueError):  # a record can be read without them
        return
    if identity(here, record.backend) != identity(record.data, record.backend):
        raise ValueError(f"{path} is of a run on other photographs than those of {folder_of(data_dir)}: choose another folder "
                         "for records, or start anew.")  # fmt: skip


def drawn(recipe: Recipe, count: int, epoch: int, augment: bool, shuffled: bool, covariance: np.ndarray) -> Plan:
    """One epoch over `count` photographs: as drawn, or as they are; shuffled: permuted, and only whole batches."""
    ids, scales = np.arange(count), scales_of(recipe, augment)
    if not augment:
        middle, zero = np.full(count, MIDDLE, np.uint32), np.zeros(count, np.uint8)
        return Plan(ids, np.full(count, scales[0], np.uint16), middle, middle, zero, np.zeros((count, 3), np.float32))
    draws = photo_draws(recipe.seed, epoch, count, scales, recipe.colour)
    if shuffled:
        ids = draws.order[: count // recipe.batch * recipe.batch]
    values, vectors = components(covariance)
    shift = ((draws.colour[ids] * values) @ vectors.T).astype(np.float32)  # AlexNet: [p1 p2 p3] [a1 l1, a2 l2, a3 l3]
    return Plan(ids, draws.scale[ids], draws.top[ids], draws.left[ids], draws.flip[ids] * np.uint8(recipe.flip), shift)


def flip_subtract_tint(pixels: np.ndarray, flip: np.ndarray, mean: np.ndarray, shift: np.ndarray) -> Tensor:
    """pixels / 255 - mean, mirrored where flip is 1, + shift: uint8 (B, H, W, 3) -> float32 (B, 3, H, W), channels_last."""
    none = np.zeros(len(pixels), np.uint8)
    return cropped(pixels, np.arange(len(pixels)), none, none, flip, mean, 0, np.tile(shift, pixels.shape[2]))


def placed(samples: np.ndarray, plan: Plan, size: int) -> np.ndarray:
    """fast.CROP of a batch: its rectangles in the pixels of the stored photographs, whole ones, and within them."""
    stored, place = samples["f0"], rectangle(plan.scale, plan.top, plan.left, samples["f2"], samples["f3"], size)
    rows = np.zeros(len(samples), fast.CROP)
    for name in ("mode", "height", "width", "data_ptr"):
        rows[name] = stored[name]
    rows["top"], rows["bottom"] = edges(place.top, size, place.height, stored["height"].astype(int))
    rows["left"], rows["right"] = edges(place.left, size, place.width, stored["width"].astype(int))
    return rows


def edges(begin, size: int, whole, length) -> tuple[np.ndarray, np.ndarray]:
    """First pixel and the one behind the last, of `length` stored ones, for `size` from `begin` of `whole` resized ones."""
    first = np.clip(np.rint(begin * length / whole), 0, length - 1)
    return first, np.clip(np.rint((begin + size) * length / whole), first + 1, length)


def ffcv_batches(file, path: Path, plan: Plan, mean: np.ndarray, batch: int, workers: int) -> Iterator:
    """The plan's samples out of an opened .beton file. Raises ValueError for ids it does not have, or a damaged JPEG in it."""
    samples = file.reader.metadata

    def finish(decode: Callable, where: np.ndarray) -> tuple[Tensor, Tensor]:
        part = Plan(*(column[where] for column in plan))
        rows = samples[part.ids]
        try:
            pixels = decode(np.arange(len(rows)), placed(rows, part, len(mean)))
        except ValueError as error:
            raise fast.damaged(path, f"{error}") from None
        return flip_subtract_tint(pixels, part.flip, mean, part.shift), torch.from_numpy(rows["f1"].copy())

    return fast.batches(file, plan.ids, batch, workers, finish)


def view(path: Path, scale: int, top: int, left: int, size: int) -> Tensor:
    """The reference: a photograph decoded, resized (antialiased bilinear), cropped by `rectangle`: uint8 (3, size, size).

    Raises ValueError, naming the file, if it cannot be decoded.
    """
    from torchvision.transforms.v2 import functional

    image = decoded(path)
    place = rectangle(scale, top, left, *image.shape[1:], size)
    image = functional.resize(image, [int(place.height), int(place.width)], antialias=True)
    return functional.crop(image, int(place.top), int(place.left), size, size)


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
