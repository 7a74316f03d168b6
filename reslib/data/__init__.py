"""Batches: one door, three backends that yield the same samples with the same crops (of CIFAR-10 bit for bit).

ffcv    a .beton file through FFCV's loader (fast.py; writer.py makes it)
array   the whole set in memory, on the CPU (the same kernel) or resident on the GPU (one indexed gather)
torch   a Dataset and DataLoader, sample by sample: the readable reference
"""

from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor

from ..files import say
from ..machine import device_of
from ..recipes import Recipe, needed
from . import cifar, draws, fast
from .cifar import BYTE, Images, Plan, augmented, centring, crop_flip_subtract, gather, images, mean_image, resident, split_ids
from .draws import epoch_draws
from .identity import contents, same
from .sources import data_folder

__all__ = [
    "BYTE", "Images", "Loader", "Plan", "augmented", "centring", "choose_backend", "contents", "crop_flip_subtract",
    "data_folder", "draws", "epoch_draws", "gather", "images", "loader", "mean_image", "prepared", "resident", "same",
    "split_ids", "stream",
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
    if workers < 0:
        raise ValueError(f"workers is {workers}: it must be at least 0.")
    device, train = device_of(device), split == "train" if needed(recipe).data == "imagenet" else split != "test"
    backend = prepared(recipe, backend, device, data_dir, train=train)
    augment = split == "train" if augment is None else augment
    if recipe.data == "imagenet":
        from . import photographs

        return photographs.loader(recipe, split, data_dir=data_dir, epoch=epoch, start_batch=start_batch, augment=augment,
                                  backend=backend, device=device, workers=workers, shard=shard)  # fmt: skip
    part = images(recipe, train=split != "test", data_dir=data_dir)
    mean, offset = centring(recipe, data_dir, device)
    ids = split_ids(recipe, split, len(part.labels))
    if augment:
        plan = augmented(recipe, ids, epoch, len(part.labels), shuffled=split == "train")
        if not len(plan.ids):
            raise ValueError(f"a batch of {recipe.batch} is more than the training set holds.")
    else:
        centre = np.full(len(ids), recipe.pad, np.uint8)
        plan = Plan(ids, centre, centre, np.zeros(len(ids), np.uint8))
    plan = Plan(*(column[start_batch * recipe.batch :] for column in plan))
    plan, batch = draws.share(plan, recipe.batch, *shard, cut=augment and split == "train")
    make = {
        "ffcv": lambda: cifar.ffcv_batches(part, plan, mean, recipe.pad, batch, workers),
        "array": lambda: cifar.array_batches(part, plan, mean, recipe.pad, batch, device),
        "torch": lambda: cifar.torch_batches(part, plan, mean, recipe.pad, batch, workers),
    }[backend]
    return Loader(-(-len(plan.ids) // batch), make, device, offset)


def choose_backend(recipe: Recipe, backend: str, device) -> str:
    """What "auto" means: ffcv where it is installed, for data that lie in files and go to the CPU; else array.

    ImageNet: ffcv, else torch. Raises ValueError for an unknown backend, and for array with ImageNet.
    """
    if backend not in BACKENDS:
        raise ValueError(f"backend {backend!r} is unknown: use one of {', '.join(map(repr, BACKENDS))}.")
    if recipe.data == "imagenet" and backend == "array":
        raise ValueError("backend 'array' holds the whole set in memory, which ImageNet does not fit: use 'ffcv' or 'torch'.")
    if backend != "auto":
        return backend
    if recipe.data == "imagenet":
        return "ffcv" if fast.available() else "torch"
    on_cpu = torch.device(device).type == "cpu"
    return "ffcv" if on_cpu and recipe.data != "digits" and fast.available() else "array"


def prepared(recipe: Recipe, backend: str, device, data_dir=None, *, train: bool | None = None) -> str:
    """`choose_backend`, once the files that "auto" would read through FFCV are there: array, and a word, if they cannot be.

    Of photographs these are .beton files of the right size: torch, if there are none. train: the training or the test part
    alone; None: both. Raises as `choose_backend` and `images`.
    """
    chosen = choose_backend(recipe, backend, device)
    if (backend, chosen) == ("auto", "ffcv") and recipe.data == "imagenet":
        from . import photographs

        folder = photographs.folder_of(data_dir)
        try:
            for part in (True, False) if train is None else (train,):
                photographs.stored(folder, "train" if part else "val", photographs.scales_of(recipe, part)[1])
        except FileNotFoundError:
            return "torch"
    elif (backend, chosen) == ("auto", "ffcv"):
        parts = [images(recipe, train=part, data_dir=data_dir) for part in ((True, False) if train is None else (train,))]
        try:
            for part in parts:
                cifar.stored(part)
        except OSError as error:
            say(f"{error} Images are read from memory instead (backend 'array').")
            return "array"
    return chosen
