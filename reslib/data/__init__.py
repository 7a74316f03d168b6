"""Batches: one door, three backends that yield the same samples with the same crops (of CIFAR-10 bit for bit).

ffcv    a .beton file through FFCV's loader (fast.py; writer.py makes it)
array   the whole set in memory, on the CPU (the same kernel) or resident on the GPU (one indexed gather)
torch   a Dataset and DataLoader, sample by sample: the readable reference
"""

import hashlib
from collections.abc import Callable, Iterator
from numbers import Integral

import torch
from torch import Tensor

from ..files import say
from ..machine import device_of
from ..recipes import Recipe, needed
from . import cifar, draws, fast, photographs
from .cifar import BYTE, Images, Plan, augmented, centring, crop_flip_subtract, gather, images, mean_image, resident, split_ids
from .draws import epoch_draws
from .sources import data_folder

__all__ = [
    "BYTE", "Images", "Loader", "Plan", "augmented", "centring", "contents", "crop_flip_subtract", "data_folder", "draws",
    "epoch_draws", "gather", "images", "loader", "mean_image", "prepared", "resident", "split_ids", "stream",
]  # fmt: skip
BACKENDS = ("auto", "ffcv", "array", "torch")


def stream(recipe: Recipe, step: int, **where) -> Iterator[tuple[Tensor, Tensor]]:
    """Training batches from iteration `step` on, epoch after epoch, without end. Arguments as `loader`."""
    per_epoch = len(loader(recipe, "train", **where))
    while True:
        epoch, start = divmod(step, per_epoch)
        for batch in loader(recipe, "train", epoch=epoch, start_batch=start, **where):
            yield batch
            step += 1


class Loader:
    """One epoch's batches, minus `offset`; iterate as often as you like. `len()` is the number of batches."""

    def __init__(self, batches: int, make: Callable[[], Iterator], device, offset: Tensor | None = None):
        self.batches, self.make, self.device, self.offset = batches, make, torch.device(device), offset

    def __len__(self) -> int:
        return self.batches

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        source = self.make()
        try:
            for x, labels in source:
                x, labels = (t.to(self.device, non_blocking=True) for t in (x, labels))
                yield (x if self.offset is None else x - self.offset), labels
        finally:
            source.close()


def loader(recipe: Recipe, split: str, *, data_dir=None, epoch: int = 0, start_batch: int = 0, augment: bool | None = None,
           backend: str = "auto", device="cpu", workers: int = 1, shard: tuple[int, int] = (0, 1)) -> Loader:  # fmt: skip
    """Batches of "train", "val" or "test": images float32 (B, 3, H, W) channels_last, labels int64 (B,).

    An augmented training epoch is one permutation cut into full batches (390 of 128 for 50,000), the remainder left out;
    otherwise come all images in their order. augment=None: augmented if "train". start_batch: skip so many. shard:
    rank and number of processes that share the images: the parts of a training batch make up the whole one.
    backend="auto": ffcv where it is installed and reads a file for the CPU, else array; of photographs, where there are .beton
    files, else torch. Raises ValueError for an unknown split, backend or device, a batch that is more than the training set
    holds, and as `images`; ImportError where ffcv is asked for and not installed.
    """
    if split not in ("train", "val", "test"):
        raise ValueError(f"split {split!r} is unknown: use 'train', 'val' or 'test'.")
    for name, number in {"epoch": epoch, "start_batch": start_batch, "workers": workers}.items():
        if not isinstance(number, Integral) or number < 0:
            raise ValueError(f"{name} is {number!r}: it must be a whole number of at least 0.")
    device, of_imagenet = device_of(device), needed(recipe).data == "imagenet"
    backend = prepared(recipe, backend, device, data_dir, train=split == "train" if of_imagenet else split != "test")
    augment = split == "train" if augment is None else augment
    epoch_of = photographs.planned if of_imagenet else cifar.planned
    plan, offset, make = epoch_of(recipe, split, epoch, augment, backend, data_dir, device, workers)
    whole_batches = augment and split == "train"
    if whole_batches and not len(plan.ids):
        raise ValueError(f"a batch of {recipe.batch} is more than the training set holds.")
    plan = type(plan)(*(column[start_batch * recipe.batch :] for column in plan))
    plan, batch = draws.share(plan, recipe.batch, *shard, cut=whole_batches)
    return Loader(-(-len(plan.ids) // batch), lambda: make(plan, batch), device, offset)


def prepared(recipe: Recipe, backend: str, device, data_dir=None, *, train: bool | None = None) -> str:
    """The backend that "auto" means, once the files that FFCV reads for it are there.

    On the CPU ffcv, where it is installed; else, for digits, and, with a word, where its files cannot be written, array. Of
    photographs ffcv, where it is installed and .beton files are there that are large enough; else torch. train: the training
    or the test part alone; None: both. Raises ValueError for an unknown backend, and array with ImageNet; and as `images`.
    """
    if backend not in BACKENDS:
        raise ValueError(f"backend {backend!r} is unknown: use one of {', '.join(map(repr, BACKENDS))}.")
    if recipe.data == "imagenet" and backend == "array":
        raise ValueError("backend 'array' holds the whole set in memory, which ImageNet does not fit: use 'ffcv' or 'torch'.")
    if backend != "auto":
        return backend
    parts = (True, False) if train is None else (train,)
    if recipe.data == "imagenet":
        folder = photographs.folder_of(data_dir)
        try:
            for part in parts if fast.available() else ():
                photographs.stored(folder, "train" if part else "val", photographs.scales_of(recipe, part)[1])
        except FileNotFoundError:
            return "torch"
        return "ffcv" if fast.available() else "torch"
    if recipe.data == "digits" or torch.device(device).type != "cpu" or not fast.available():
        return "array"
    of_parts = [images(recipe, train=part, data_dir=data_dir) for part in parts]
    try:
        for part in of_parts:
            cifar.stored(part)
    except OSError as error:
        say(f"{error} Images are read from memory instead (backend 'array').")
        return "array"
    return "ffcv"


def contents(recipe: Recipe, backend: str = "array", data_dir=None) -> dict:
    """Name, sha256, counts of train, val and test images; of photographs, the number of classes and their names too.

    sha256: of CIFAR-10's bytes; of the .beton files; or of an ImageFolder tree's classes and file names, so that a copy is the
    same. Photographs of the part "val" are the test images. Raises ValueError where they cannot be trained and tested on.
    """
    if recipe.data == "imagenet":
        return photographs.contents(recipe, backend, data_dir)
    train, test = (images(recipe, train=part, data_dir=data_dir) for part in (True, False))
    n = len(split_ids(recipe, "train", len(train.labels)))
    if n < recipe.batch:
        raise ValueError(f"a batch of {recipe.batch} is more than the training set holds.")
    sha256 = hashlib.sha256((train.sha256 + test.sha256).encode()).hexdigest()
    name = train.name.removesuffix("-train")
    return {"name": name, "sha256": sha256, "train": n, "val": len(train.labels) - n, "test": len(test.labels)}
