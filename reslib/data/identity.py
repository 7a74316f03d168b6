"""What a run's data hold: named and counted, and refused in one sentence, before any work, where they do not fit."""

import hashlib
import json

import numpy as np

from ..recipes import Recipe
from . import fast, photographs
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


def photographs_contents(recipe: Recipe, backend: str, data_dir) -> dict:
    """`contents` of photographs; their mean image and colours are made, and kept, where they are not yet."""
    folder = photographs.folder_of(data_dir)
    parts = [photographs.part_of(recipe, backend, folder, part, part == "train") for part in ("train", "val")]
    places, labels, found = zip(*parts, strict=True)
    if backend == "ffcv":
        notes = [fast.sidecar(path) for path in places]
        classes, digests = notes[0]["classes"], [note["sha256"] for note in notes]
    else:
        classes, names = found[0].classes, [json.dumps([tree.classes, tree.names]) for tree in found]
        digests = [hashlib.sha256(name.encode()).hexdigest() for name in names]
    if places[0] == places[1]:
        raise ValueError(f"{folder} holds no val: give photographs to test on, in DIR/train/<class>/ and DIR/val/<class>/.")
    if len(labels[0]) < recipe.batch:
        raise ValueError(f"a batch of {recipe.batch} is more than the {len(labels[0])} photographs of {places[0]}: set a "
                         "smaller batch.")  # fmt: skip
    for place, of in zip(places, labels, strict=True):
        if (lacking := np.flatnonzero(np.bincount(of, minlength=len(classes)) == 0)).size:
            raise ValueError(f"{place} holds no photographs of the class {classes[lacking[0]]!r}: both parts need some of "
                             "each class.")  # fmt: skip
    photographs.statistics(folder)
    sha256 = hashlib.sha256("".join(digests).encode()).hexdigest()
    counts = {"train": len(labels[0]), "val": 0, "test": len(labels[1]), "classes": len(classes)}
    return {"name": f"imagenet-{recipe.size}px", "sha256": sha256, **counts}
