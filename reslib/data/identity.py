"""What a run's data hold: named and counted, and refused in one sentence, before any work, where they do not fit."""

import hashlib
import json
from pathlib import Path

import numpy as np

from ..recipes import Recipe
from .cifar import images, split_ids


def contents(recipe: Recipe, backend: str = "array", data_dir=None) -> dict:
    """Name, sha256, counts of train, val and test images; of photographs, the number of classes too.

    sha256: of CIFAR-10's bytes; of the .beton files; or of an ImageFolder tree's classes and file names, so that a copy is the
    same. Photographs of the part "val" are the test images. Raises ValueError where they cannot be trained and tested on.
    """
    if recipe.data == "imagenet":
        return photographs_contents(recipe, backend, data_dir)
    train, test = (images(recipe, train=part, data_dir=data_dir) for part in (True, False))
    n = len(split_ids(recipe, "train", len(train.labels)))
    if n < recipe.batch:
        raise ValueError(f"a batch of {recipe.batch} is more than the training set holds.")
    sha256 = hashlib.sha256((train.sha256 + test.sha256).encode()).hexdigest()
    name = train.name.removesuffix("-train")
    return {"name": name, "sha256": sha256, "train": n, "val": len(train.labels) - n, "test": len(test.labels)}


def same(began: dict, here: dict, path: Path) -> dict:
    """What a run's data are now. Raises ValueError if they are not those that it began with: path, its checkpoint."""
    if began and began != here:
        raise ValueError(f"{path} is of a run on {began}, and here are {here}: give the same photographs and backend, or "
                         "delete it to start the run anew.")  # fmt: skip
    return here


def photographs_contents(recipe: Recipe, backend: str, data_dir) -> dict:
    """`contents` of photographs; their mean image and colours are made, and kept, where they are not yet."""
    from . import photographs

    folder = photographs.folder_of(data_dir)
    parts = {part: part_of(recipe, backend, folder, part) for part in ("train", "val")}
    places, labels, classes, digests = zip(*parts.values(), strict=True)
    if places[0] == places[1]:
        raise ValueError(f"{folder} holds no val: give photographs to test on, in DIR/train/<class>/ and DIR/val/<class>/.")
    if len(labels[0]) < recipe.batch:
        raise ValueError(f"a batch of {recipe.batch} is more than the {len(labels[0])} photographs of {places[0]}: set a "
                         "smaller batch.")  # fmt: skip
    for place, found in zip(places, labels, strict=True):
        if (lacking := np.flatnonzero(np.bincount(found, minlength=len(classes[0])) == 0)).size:
            raise ValueError(f"{place} holds no photographs of the class {classes[0][lacking[0]]!r}: both parts need some of "
                             "each class.")  # fmt: skip
    photographs.statistics(folder)
    sha256 = hashlib.sha256("".join(digests).encode()).hexdigest()
    name, (train, test) = f"imagenet-{recipe.size}px", map(len, labels)
    return {"name": name, "sha256": sha256, "train": train, "val": 0, "test": test, "classes": len(classes[0])}


def part_of(recipe: Recipe, backend: str, folder: Path, part: str) -> tuple[Path, np.ndarray, list[str], str]:
    """Where the photographs of a part lie, their labels, the names of the classes, and a sha256."""
    from . import fast, photographs

    if backend == "ffcv":
        path = photographs.stored(folder, part, photographs.scales_of(recipe, part == "train")[1])
        note = fast.sidecar(path)
        return path, photographs.opened(path, recipe.size).reader.metadata["f1"], note["classes"], note["sha256"]
    tree = photographs.source(folder, part)
    return tree.folder, tree.labels, tree.classes, hashlib.sha256(json.dumps([tree.classes, tree.names]).encode()).hexdigest()
