"""Photographs in an ImageFolder tree, and the .beton files made of it: which there are, and what is in them."""

import hashlib
import io
import json
import os
import warnings
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..files import say, words
from . import fast
from .sources import data_folder

SUFFIXES = (".jpeg", ".jpg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".ppm", ".pgm", ".gif")  # that PIL reads
PARTS = {"train", "val"}


class Tree(NamedTuple):
    """An ImageFolder tree. A sample's id is its index here."""

    folder: Path  # holds a folder for each class
    names: list[str]  # "n01440764/n01440764_10026.JPEG", in order
    labels: np.ndarray  # int64 (N,): index of the class
    classes: list[str]
    sha256: str  # of classes and names, so that a copy is the same
    state: str  # sha256 of these, sizes in bytes and times of change


def folder_of(data_dir: str | Path | None = None) -> Path:
    """Where ImageNet is looked for: `data_dir`, else $RESLIB_DATA, else ./data."""
    return data_folder(data_dir, holds=".")


def _classes(folder: Path) -> list[str]:
    """Hidden folders are no classes, nor is that of our own files."""
    found = sorted(f.name for f in os.scandir(folder) if f.is_dir() and not f.name.startswith("."))
    return [name for name in found if name != "beton" or not any((folder / name).glob("imagenet-*"))]


def _files(folder: Path, without: set[str]) -> Iterator[str]:
    """All files below a folder, but for hidden ones, and for what lies in folders there of the names `without`."""
    for place, folders, files in os.walk(folder):
        if place == str(folder):
            folders[:] = [name for name in folders if name not in without]
        yield from (os.path.join(place, name) for name in files if not name.startswith("."))


def tree(folder: str | Path, part: str) -> Tree:
    """The part "train" or "val" of an ImageFolder tree; a tree without these two folders is both.

    Classes are numbered by the training part's folders. What is left out is said on stderr. A tree is looked through once in a
    process, as long as no file comes or goes. Raises FileNotFoundError for no tree, ValueError for a class of "val" that
    "train" lacks.
    """
    folder = data_folder(folder)
    split = any((folder / name).is_dir() for name in PARTS)
    top = folder / part if split else folder
    if not top.is_dir():
        there = f" ({folder} holds {', '.join(_classes(folder))})" if split else ""
        raise FileNotFoundError(f"{top} is no folder{there}: give an ImageFolder tree, DIR/{{train,val}}/<class>/*.JPEG.")
    reference = folder / "train" if (folder / "train").is_dir() else top
    classes, found = _classes(reference), _classes(top)
    if alien := sorted(set(found) - set(classes)):
        raise ValueError(f"{top / alien[0]} is a class that {reference} does not have: the parts need the same classes.")
    changed = tuple((top / name).stat().st_mtime_ns for name in found)
    return _looked_through(folder, top, tuple(classes), tuple(found), changed)


@lru_cache(maxsize=16)
def _looked_through(folder: Path, top: Path, classes: tuple[str, ...], found: tuple[str, ...], changed: tuple) -> Tree:
    of_each = [[f for f in sorted(os.listdir(top / name)) if f[0] != "." and f.lower().endswith(SUFFIXES)] for name in found]
    names = [f"{name}/{file}" for name, files in zip(found, of_each, strict=True) for file in files]
    labels = np.repeat(np.array([classes.index(name) for name in found], np.int64), list(map(len, of_each)))
    used = {str(top / name) for name in names}
    left = [file for file in _files(folder, {"beton", *PARTS} - {top.name}) if file not in used]
    left = [file for file in left if file.startswith(f"{top}{os.sep}") or file.lower().endswith(SUFFIXES)]
    said = f"{len(left)} files are not used, {os.path.relpath(min(left), top)!r} first" if left else ""
    if not names:
        raise FileNotFoundError(f"{top} holds no photographs in folders of classes{said and f' ({said})'}: give an ImageFolder "
                                "tree, DIR/train/<class>/*.JPEG.")  # fmt: skip
    if said:
        say(f"{top}: {said}.")
    sha256 = hashlib.sha256(json.dumps([classes, names]).encode())
    state = sha256.copy()
    for name in names:
        stat = os.stat(top / name) if os.path.exists(top / name) else None  # a link to nothing is found out where it is read
        state.update(f"{stat and (stat.st_size, stat.st_mtime_ns)}\n".encode())
    return Tree(top, names, labels, list(classes), sha256.hexdigest(), state.hexdigest())


# --- .beton files ----------------------------------------------------------------------------------------------------


def beton(folder: Path, part: str) -> Path:
    """Where the .beton file of a part lies."""
    return folder / "beton" / f"imagenet-{part}.beton"


def stored(folder: Path, part: str, short: int) -> Path:
    """The .beton file of a part. Raises FileNotFoundError unless its images are large enough for a shorter side of `short`."""
    note, other = (fast.sidecar(beton(folder, one)) for one in (part, *PARTS - {part}))
    if note is None or note["side"] < short:
        raise FileNotFoundError(
            f"{folder / 'beton'} holds no imagenet-{part} file with a shorter side of {short} pixels: make it with "
            f"`{words(*fast.CONVERT, 'DIR', '--dir', folder)}`, or read the photographs themselves with backend='torch'."
        )
    if other and other["classes"] != note["classes"]:
        raise ValueError(f"the .beton files in {folder / 'beton'} are of different classes: convert both parts again.")
    return beton(folder, part)


# --- pixels ----------------------------------------------------------------------------------------------------------


def read(path: Path) -> tuple[np.ndarray, str, bytes]:
    """A photograph's pixels, uint8 (H, W, 3), RGB whatever the file has; its format and mode, "JPEG RGB"; its bytes.

    Raises ValueError, naming the file, if it cannot be decoded.
    """
    try:
        data = path.read_bytes()
        with Image.open(io.BytesIO(data)) as image:
            kind = f"{image.format} {image.mode}"
            if image.mode[0] in "IF":  # PIL would cut them off at 255
                raise ValueError("its pixels have more than 8 bits")
            return np.array(image.convert("RGB")), kind, data
    except Exception as error:  # PIL raises many kinds for broken files
        raise ValueError(f"{path} cannot be decoded ({error}): mend or remove it.") from None


def decoded(path: Path) -> Tensor:
    """A photograph's pixels, uint8 (3, H, W). Raises ValueError, naming the file, if it cannot be decoded."""
    with warnings.catch_warnings(action="ignore"):  # PIL warns of odd EXIF data
        return torch.from_numpy(read(path)[0]).permute(2, 0, 1).contiguous()
