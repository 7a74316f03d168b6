"""Photographs in an ImageFolder tree and the .beton files made of it: which there are, and what is in them."""

import errno
import hashlib
import io
import json
import os
import unicodedata
import warnings
from functools import partial
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from ..files import say, words
from . import fast
from .sources import data_folder

SUFFIXES = (".jpeg", ".jpg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".ppm", ".pgm", ".gif")  # that PIL reads

CONVERT = ("python", "-m", "reslib", "data", "imagenet", "--from")


class Tree(NamedTuple):
    """An ImageFolder tree. A sample's id is its index here."""

    folder: Path  # holds a folder for each class
    names: list[str]  # "n01440764/n01440764_10026.JPEG", in order
    labels: np.ndarray  # int64 (N,): index of the class
    classes: list[str]
    sha256: str  # of classes, names, sizes in bytes and times of change


def _folders(folder: Path) -> list[str]:
    """Hidden ones are no classes, nor is the folder of our own files."""
    found = sorted(f.name for f in os.scandir(folder) if f.is_dir() and not f.name.startswith("."))
    return [name for name in found if name != "beton" or not any((folder / name).glob("imagenet-*"))]


def _unused(folder: Path, used: list[str]) -> list[str]:
    """The photographs in a folder, and the folders there, hidden ones too, that hold some and are not `used`."""
    found = [f for f in sorted(folder.iterdir()) if f.name not in used]
    shown = [f for f in found if any(g.name.lower().endswith(SUFFIXES) for g in chain([f], f.glob("*"), f.glob("*/*")))]
    return [f.name + "/" * f.is_dir() for f in shown]


def tree(folder: str | Path, part: str) -> Tree:
    """The part "train" or "val" of an ImageFolder tree; a tree without these two folders is both.

    Classes are numbered by the training part's folders. What is left out is said on stderr. Raises FileNotFoundError for no
    tree, ValueError for a class of "val" that "train" lacks.
    """
    folder = data_folder(folder)
    split = any((folder / name).is_dir() for name in ("train", "val"))
    top = folder / part if split else folder
    if not top.is_dir():
        there = f" ({folder} holds {', '.join(_folders(folder))})" if split else ""
        raise FileNotFoundError(f"{top} is no folder{there}: give an ImageFolder tree, DIR/train/<class>/*.JPEG and "
                                "DIR/val/....")  # fmt: skip
    reference = folder / "train" if (folder / "train").is_dir() else top
    classes, found = _folders(reference), _folders(top)
    if alien := sorted(set(found) - set(classes)):
        composed = partial(unicodedata.normalize, "NFC")
        alike = " but for how its accents are encoded (NFC, NFD)" * (composed(alien[0]) in map(composed, classes))
        raise ValueError(f"{top / alien[0]} is a class that {reference} does not have{alike}: the parts need the same classes.")
    digest, names, labels, left_out = hashlib.sha256(json.dumps(classes).encode()), [], [], []
    for name in found:
        files = sorted((f for f in os.scandir(top / name) if not f.name.startswith(".")), key=lambda f: f.name)
        used = {f.name: f for f in files if f.name.lower().endswith(SUFFIXES) and (f.is_file() or not os.path.exists(f))}
        left_out += [f"{name}/{f.name}" for f in files if f.name not in used]
        left_out += [] if used else [f"{name}/ (a class without photographs)"]
        for file in used.values():
            stat = file.stat() if os.path.exists(file) else None  # a link may lead nowhere
            digest.update(os.fsencode(f"{name}/{file.name} {stat and (stat.st_size, stat.st_mtime_ns)}\n"))
        names += [f"{name}/{file}" for file in used]
        labels += [classes.index(name)] * len(used)
    left_out += _unused(top, found) + [f"../{name}" for name in (_unused(folder, ["train", "val"]) if split else [])]
    left = f"{top}: {len(left_out)} entries are not used, {left_out[0]!r} first" if left_out else ""
    if not names:
        left = left and f" ({left})"
        raise FileNotFoundError(f"{top} holds no photographs in folders of classes{left}: give an ImageFolder tree, "
                                "DIR/train/<class>/*.JPEG.")  # fmt: skip
    if left:
        say(f"{left}.")
    return Tree(top, names, np.array(labels, np.int64), classes, digest.hexdigest())


# --- .beton files ----------------------------------------------------------------------------------------------------


def folder_of(data_dir: str | Path | None = None) -> Path:
    """Where ImageNet is looked for: `data_dir`, else $RESLIB_DATA, else ./data."""
    return data_folder(data_dir, holds=".")


def again(folder: Path, note: dict) -> str:
    """The command that makes a .beton file, whose sidecar this is, anew."""
    skip = ["--skip-unreadable"] * bool(note["unreadable"])
    return words(*CONVERT, note["from"], "--dir", folder, "--mode", note["mode"], "--short-side", note["side"], *skip)


def sidecars(folder: Path, part: str) -> dict[Path, dict]:
    """The .beton files of a part, each with its sidecar: all of the same photographs, and of the same classes as the others.

    Raises ValueError if they are not, or if one is damaged.
    """
    notes = {}
    for path in sorted((folder / "beton").glob("imagenet-*.beton")):
        if (note := fast.sidecar(path)) is None or not {"classes", "part", "side", "mode", "from", "unreadable"} <= note.keys():
            raise fast.damaged(path, "it has no sidecar of this version: its writing was never finished")
        for other, known in notes.items():
            same = known["part"] != note["part"] or known["source"] == note["source"]
            if not same or known["classes"] != note["classes"]:
                raise ValueError(f"{other} and {path.name} are of different {'classes' if same else 'photographs'}: delete the "
                                 f"older one, and run `{again(folder, note)}`.")  # fmt: skip
        notes[path] = note
    return {path: note for path, note in notes.items() if note["part"] == part}


def stored(folder: Path, part: str, short: int) -> Path:
    """The .beton file of a part whose images are large enough for a shorter side of `short`: raw before jpg, then the smallest.

    Raises as `sidecars`; FileNotFoundError, with the command that makes one, if there is none.
    """
    notes = sidecars(folder, part).items()
    found = [(note["mode"] != "raw", note["side"], path) for path, note in notes if note["side"] >= short]
    if not found:
        raise FileNotFoundError(f"{folder / 'beton'} holds no imagenet-{part} file with a shorter side of {short} pixels: make "
                                f"it with `{words(*CONVERT, 'DIR', '--dir', folder)}`, or read the photographs themselves with "
                                "backend='torch'.")  # fmt: skip
    return min(found)[2]


def source(folder: Path, part: str) -> Tree:
    """The photographs of a part: the tree at `folder`, or the one that its .beton files were made from, less what was skipped.

    Raises as `tree` and `sidecars`, and ValueError if the tree is no longer the one that was converted.
    """
    notes = sidecars(folder, part)
    if not notes:
        return tree(folder, part)
    path, note = next(iter(notes.items()))
    images = tree(note["from"], part)
    if images.sha256 != note["source"]:
        raise ValueError(f"{images.folder} is not as it was when {path} was made of it: run `{again(folder, note)}`.")
    return without(images, note["unreadable"])


def without(images: Tree, skipped: list[str]) -> Tree:
    """The photographs less those of these names."""
    skipped = set(skipped)
    keep = [i for i, name in enumerate(images.names) if name not in skipped]
    return images._replace(names=[images.names[i] for i in keep], labels=images.labels[keep])


# --- pixels ----------------------------------------------------------------------------------------------------------


def read(path: Path) -> tuple[np.ndarray, str, bytes]:
    """A photograph's pixels, uint8 (H, W, 3), RGB whatever the file has; its format and mode, "JPEG RGB"; its bytes.

    16 bits of grey become 8. A JPEG's EXIF orientation is not applied, as in torchvision's ImageFolder and by FFCV's decoder.
    Raises ValueError, naming the file, if it cannot be decoded; OSError for too little memory, and where a disk fails.
    """
    try:
        data = path.read_bytes()
        with warnings.catch_warnings(action="ignore"), Image.open(io.BytesIO(data)) as image:  # PIL warns of odd EXIF data
            kind = f"{image.format} {image.mode}"
            if image.mode == "F" or kind == "TIFF I":
                raise ValueError("its pixels are floating-point numbers, or of 32 bits: what is white is not known")
            if image.mode.startswith("I"):
                grey = np.asarray(image).astype(np.int64)
                if grey.min(initial=0) < 0 or grey.max(initial=0) > 65535:
                    raise ValueError("its pixels have more than 16 bits")
                return np.repeat(np.rint(grey / 257).astype(np.uint8)[:, :, None], 3, 2), kind, data
            return np.array(image.convert("RGB")), kind, data
    except MemoryError:
        raise OSError(f"{path} could not be decoded: there is too little memory.") from None
    except Exception as error:  # PIL raises many kinds for broken files
        if isinstance(error, OSError) and error.errno not in (None, errno.ENOENT, errno.EACCES):
            raise  # the disk's or the network's: the photograph may be sound
        why = "it is no image" if isinstance(error, UnidentifiedImageError) else error
        raise ValueError(f"{path} cannot be decoded ({why}): mend or remove it.") from None


def decoded(path: Path) -> Tensor:
    """A photograph's pixels, uint8 (3, H, W). Raises ValueError, naming the file, if it cannot be decoded."""
    return torch.from_numpy(read(path)[0]).permute(2, 0, 1).contiguous()
