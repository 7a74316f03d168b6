"""Batches of photographs as section 3.4 says: scale from [256, 480], a 224x224 crop, mirror, minus the mean image, colour.

    ffcv    a .beton file (convert.py writes it): FFCV's decoder and its INTER_AREA resizing of the crop alone
    torch   torchvision's transforms on the ImageFolder tree itself, step by step: the readable reference

Both use the same rectangles and colour vectors; their pixels differ by how they resize, which `bench load` measures. FFCV's
own Loader is not used: it lays out tables of all samples in Python, and its threads hang (ffcv_backend.py).
"""

import os
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from . import beton, ffcv_backend
from .draws import photo_draws
from .ffcv_backend import _first
from .files import renamed
from .photos import CENTRE, Tree, components, decoded, tree
from .recipes import Recipe

SAMPLE = 10_000  # photographs, evenly spread, that the mean image is of where no .beton file was written


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


# --- finding ---------------------------------------------------------------------------------------------------------


def folder_of(data_dir: str | Path | None = None) -> Path:
    """Where ImageNet is looked for: `data_dir`, else $RESLIB_DATA, else ./data."""
    return Path(data_dir or os.environ.get("RESLIB_DATA") or "data")


def stored(folder: Path, part: str, short: int) -> Path:
    """The .beton file of a part whose images are large enough for a shorter side of `short`: raw before jpg, then the smallest.

    Raises FileNotFoundError, with the command that makes one, if there is none.
    """
    found = [(p.name.split("-")[2] != "raw", int(p.stem.split("-")[3]), p)
             for p in (folder / "beton").glob(f"imagenet-{part}-*-*.beton")]  # fmt: skip
    found = [entry for entry in found if entry[1] >= short]
    if not found:
        raise FileNotFoundError(
            f"{folder / 'beton'} holds no imagenet-{part} file with a shorter side of {short} pixels: make it with `python "
            f"-m reslib data imagenet --from DIR --dir {folder}`, or read the photographs themselves with backend='torch'."
        )
    return min(found)[2]


def source(folder: Path, part: str) -> Tree:
    """The photographs of a part: the tree at `folder`, or the one that its .beton files were made from, less what was skipped.

    Raises as `photos.tree`, and ValueError if the tree is no longer the one that was converted.
    """
    files = sorted((folder / "beton").glob(f"imagenet-{part}-*.beton"))
    if not files:
        return tree(folder, part)
    note = beton.sidecar(files[0])
    top = Path(note["from"])
    images = tree(top.parent if top.name == part else top, part)
    if images.sha256 != note["source"]:
        raise ValueError(f"{top} is not as it was when {files[0]} was made of it: run `python -m reslib data imagenet` again.")
    skipped = set(note["report"]["unreadable"])
    keep = [i for i, name in enumerate(images.names) if name not in skipped]
    return images._replace(names=[images.names[i] for i in keep], labels=images.labels[keep])


def statistics(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """The mean image, float32 (224, 224, 3) in [0, 1], and the covariance of colours (3, 3), of centre crops of `train`.

    convert.py made them from all images; else they are computed here from 10,000 and kept beside. ValueError if damaged.
    """
    path = folder / "beton" / "imagenet-train.npz"
    try:
        with open(path, "rb") as raw, np.load(raw) as file:
            return file["mean"], file["covariance"]
    except FileNotFoundError:
        pass
    except Exception as error:  # a broken zip file has many ways to fail
        raise ValueError(f"{path} is damaged ({error}): delete it, it is made again from the photographs.") from None
    images = source(folder, "train")
    ids = np.linspace(0, len(images.names) - 1, min(SAMPLE, len(images.names))).astype(np.int64)
    total, moments = torch.zeros(CENTRE[1], CENTRE[1], 3, dtype=torch.double), torch.zeros(3, 3, dtype=torch.double)
    for i in tqdm(ids, desc="mean image", unit="image"):
        crop = view(images.folder / images.names[i], CENTRE[0], *2 * [MIDDLE], CENTRE[1]).permute(1, 2, 0) / 255
        total += crop
        moments += crop.reshape(-1, 3).T @ crop.reshape(-1, 3)
    mean, average = (total / len(ids)).float().numpy(), (total.mean((0, 1)) / len(ids)).numpy()
    covariance = moments.numpy() / (len(ids) * CENTRE[1] ** 2) - np.outer(average, average)
    path.parent.mkdir(exist_ok=True)
    with renamed(path) as file:
        np.savez(file, mean=mean, covariance=covariance, n=len(ids), source=images.sha256)
    return mean, covariance


# --- batches ---------------------------------------------------------------------------------------------------------

MIDDLE = 2**31 - 1


def loader(recipe: Recipe, split: str, *, data_dir, epoch: int, start_batch: int, augment: bool, backend: str, device,
           workers: int):  # fmt: skip
    """As `data.loader`: "train", or ImageNet's 50,000 validation images as both "val" and "test".

    Images that are not augmented are 224x224 centre crops at a shorter side of 256. Without recipe.short_side that is the
    scale of training crops too, and smaller .beton files serve.
    """
    from .data import Loader

    if recipe.size != CENTRE[1]:
        raise ValueError(f"size is {recipe.size}: crops of ImageNet are {CENTRE[1]} pixels wide, as is its mean image.")
    folder, part = folder_of(data_dir), "train" if split == "train" else "val"
    scales = recipe.short_side if augment and recipe.short_side else (CENTRE[0], CENTRE[0])
    if backend == "ffcv":
        path = stored(folder, part, scales[1])
        files = beton.opened(path)
        count = len(files)
    else:
        files = source(folder, part)
        count = len(files.names)
    mean, covariance = statistics(folder)
    ids = np.arange(count)
    if augment:
        draws = photo_draws(recipe.seed, epoch, count, scales, recipe.colour)
        if split == "train":
            ids = draws.order[: count // recipe.batch * recipe.batch]
        ids = ids[start_batch * recipe.batch :]
        values, vectors = components(covariance)
        shift = ((draws.colour[ids] * values) @ vectors.T).astype(np.float32)  # AlexNet: [p1 p2 p3] [a1 l1, a2 l2, a3 l3]
        plan = Plan(ids, draws.scale[ids], draws.top[ids], draws.left[ids], draws.flip[ids] * np.uint8(recipe.flip), shift)
    else:
        ids = ids[start_batch * recipe.batch :]
        middle, zero = np.full(len(ids), MIDDLE, np.uint32), np.zeros(len(ids), np.uint8)
        plan = Plan(ids, np.full(len(ids), CENTRE[0], np.uint16), middle, middle, zero, np.zeros((len(ids), 3), np.float32))
    make = {
        "ffcv": lambda: ffcv_batches(path, files, plan, mean, recipe.batch, workers),
        "torch": lambda: torch_batches(files, plan, mean, recipe.batch, workers),
    }[backend]
    return Loader(-(-len(ids) // recipe.batch), make, device)


def flip_subtract_tint(pixels, flip, mean, shift, out):
    """out = pixels / 255 - mean, mirrored where flip is 1, + shift: uint8 (B, H, W, 3) to float32, compiled by `kernel()`."""
    n, height, width = pixels.shape[:3]
    rows, target, centre = (
        pixels.reshape(n, height, 3 * width),
        out.reshape(n, height, 3 * width),
        mean.reshape(height, 3 * width),
    )
    tint = np.empty(3 * width, np.float32)
    for b in range(n):
        for x in range(width):
            tint[3 * x : 3 * x + 3] = shift[b]
        for y in range(height):
            to, source, minus = target[b, y], rows[b, y], centre[y]
            for k in range(3 * width):
                to[k] = np.float32(source[k]) / np.float32(255) - minus[k] + tint[k]
            if flip[b]:
                for x in range(width // 2):
                    for c in range(3):
                        to[3 * x + c], to[3 * (width - 1 - x) + c] = to[3 * (width - 1 - x) + c], to[3 * x + c]


@cache
def kernel():
    """`flip_subtract_tint`, compiled, cached on disk."""
    from numba import njit

    return njit(cache=True, nogil=True)(flip_subtract_tint)


def crops(file: int, path: Path, rows: np.ndarray, plan: Plan, size: int) -> np.ndarray:
    """A batch's crops out of a .beton file: uint8 (B, size, size, 3). ValueError for an image that is not as written."""
    from ffcv.libffcv import imdecode, resize_crop

    place = rectangle(plan.scale, plan.top, plan.left, rows["source_height"], rows["source_width"], size)
    # the rectangle in the pixels of the stored image, to whole ones
    top, bottom = (np.rint(y * rows["height"] / place.height).astype(int) for y in (place.top, place.top + size))
    left, right = (np.rint(x * rows["width"] / place.width).astype(int) for x in (place.left, place.left + size))
    out = np.empty((len(rows), size, size, 3), np.uint8)
    memory, scratch = (
        np.empty(n.max(initial=0), np.uint8) for n in (rows["room"], rows["height"] * 3 * rows["width"].astype(int))
    )
    for b, row in enumerate(rows):
        height, width = int(row["height"]), int(row["width"])
        data = beton.read(file, path, row, memory)
        image = data if row["mode"] else scratch[: height * width * 3]
        image = image.reshape(height, width, 3)
        if not row["mode"] and imdecode(data, image, height, width, height, width, 0, 0, 1, 1, False, False):
            raise beton.damaged(path, f"the JPEG at byte {row['ptr']} cannot be decoded")
        y, x = min(top[b], height - 1), min(left[b], width - 1)
        resize_crop(image, y, max(bottom[b], y + 1), x, max(right[b], x + 1), out[b])
    return out


def ffcv_batches(path: Path, rows: np.ndarray, plan: Plan, mean: np.ndarray, batch: int, workers: int) -> Iterator:
    """The plan's samples out of a .beton file, in fresh memory, by as many threads as workers (0 counts as 1).

    What a thread raises reaches the caller; the threads end with the iterator.
    """
    if not ffcv_backend.available():
        raise ImportError(f"{path} needs FFCV, which is not installed or lacks its libraries: use backend='torch'.")
    if workers < 0 or (len(plan.ids) and not 0 <= plan.ids.min() <= plan.ids.max() < len(rows)):
        raise ValueError(f"workers is {workers}, below 0, or a plan's ids are not from 0 to {len(rows) - 1}.")

    def one(start: int) -> tuple[Tensor, Tensor]:
        part = Plan(*(a[start : start + batch] for a in plan))
        pixels = crops(file, path, rows[part.ids], part, len(mean))
        out = np.empty(pixels.shape, np.float32)
        kernel()(pixels, part.flip, mean, part.shift, out)
        return torch.from_numpy(out).permute(0, 3, 1, 2), torch.from_numpy(rows["label"][part.ids])

    pool, pending, stuck = ThreadPoolExecutor(max(1, workers), "ffcv"), deque(), True
    file = os.open(path, os.O_RDONLY)
    try:
        for start in range(0, len(plan.ids), batch):
            pending.append(pool.submit(one, start))
            if len(pending) == max(1, workers) + 2:
                yield _first(pending, path)
        while pending:
            yield _first(pending, path)
    finally:
        stuck = wait([future for future in pending if not future.cancel()], ffcv_backend.PATIENCE / 6).not_done
        pool.shutdown(wait=not stuck)
        if not stuck:
            os.close(file)


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


def torch_batches(images: Tree, plan: Plan, mean: np.ndarray, batch: int, workers: int) -> Iterator:
    """The plan's samples through a torch Dataset and DataLoader."""
    for x, labels in torch.utils.data.DataLoader(_Photos(images, plan, mean), batch, num_workers=workers):
        yield x.contiguous(memory_format=torch.channels_last), labels
