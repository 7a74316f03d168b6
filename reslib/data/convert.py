"""An ImageFolder tree of photographs into .beton files, FFCV's format; every photograph is checked.

    OUT/beton/imagenet-train.beton         images, labels, and each source's height and width
    OUT/beton/imagenet-train.beton.json    its sidecar: size, sha256, classes, what it was made of
    OUT/beton/imagenet-train.npz           the mean image and the covariance of colours

The shorter side of an image is reduced to at most 480 pixels (INTER_AREA), never enlarged, so that a scale drawn from
[256, 480] means what section 3.4 means. mode "jpg" keeps a JPEG's own bytes wherever nothing has to be changed.
"""

import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path

import numpy as np
from tqdm.auto import tqdm

from . import fast, writer
from .batches import ahead
from .photographs import statistics_of
from .sources import data_folder
from .tree import Tree, beton, read, tree

PAGE = 1 << 25  # bytes: FFCV's unit of allocation, and so the most that an image may take


def reduced(height: int, width: int, side: int) -> tuple[int, int]:
    """Height and width with the shorter one reduced to at most `side`, the aspect ratio kept."""
    short = max(side, min(height, width))
    return max(1, round(height * side / short)), max(1, round(width * side / short))


def stored_form(path: Path, mode: str, side: int) -> tuple | ValueError:
    """(pixels, or a JPEG's own bytes with height and width; the source's height; its width), or what is wrong with it.

    A JPEG is damaged if its decoder complains, though it makes an image of it.
    """
    import cv2
    from ffcv.libffcv import imdecode

    try:
        pixels, kind, data = read(path)
    except ValueError as error:
        return error
    (height, width), raw = pixels.shape[:2], np.frombuffer(data, np.uint8)
    jpeg, small = kind in ("JPEG RGB", "JPEG L"), reduced(height, width, side)
    if jpeg and imdecode(raw, np.empty_like(pixels), height, width, height, width, 0, 0, 1, 1, False, False):
        return ValueError(f"{path} cannot be decoded (its JPEG data are damaged): mend or remove it.")
    if max(small) >= 1 << 16 or max(3 * small[0] * small[1], len(raw)) > PAGE:
        return ValueError(f"{path} cannot be stored ({width}x{height} pixels are more than the format holds): remove it.")
    if small != (height, width):
        pixels = cv2.resize(pixels, small[::-1], interpolation=cv2.INTER_AREA)
    elif mode == "jpg" and jpeg:
        pixels = raw, height, width
    return pixels, height, width


def samples_of(images: Tree, mode: str, side: int, jobs: int, skip_unreadable: bool, bad: list[int]) -> Iterator[tuple]:
    """What FFCV's writer asks for: (pixels or a JPEG's own bytes, label, the source's height and width), of all that is sound.

    The others are listed on stdout, and added to `bad`. Raises ValueError at the end if they are not to be skipped.
    """
    paths = [images.folder / name for name in images.names]
    found = ahead(partial(stored_form, mode=mode, side=side), paths, jobs)
    for i, one in enumerate(tqdm(found, total=len(paths), desc=f"{images.folder.name} photographs", unit="image")):
        if isinstance(one, ValueError):
            bad.append(i)
            print(f"unreadable: {one}".encode(errors="backslashreplace").decode())
        else:
            pixels, height, width = one
            yield pixels, images.labels[i], height, width
    if len(bad) == len(paths) or (bad and not skip_unreadable):
        raise ValueError(f"{len(bad)} of {len(paths):,} files cannot be read, {paths[bad[0]]} first: mend or remove them, or "
                         "leave them out with --skip-unreadable.")  # fmt: skip


def encode(usual: Callable, destination, image, malloc) -> None:
    """FFCV's encode of an image, which keeps a JPEG's own (bytes, height, width)."""
    if not isinstance(image, tuple):
        return usual(destination, image, malloc)
    data, destination["height"], destination["width"] = image
    destination["mode"], (destination["data_ptr"], room) = 0, malloc(len(data))
    room[:] = data


def convert(source: str | Path, out: str | Path, part: str, mode: str = "jpg", side: int = 480, jobs: int | None = None,
            skip_unreadable: bool = False) -> Path:  # fmt: skip
    """The .beton file of a part, "train" or "val", of an ImageFolder tree: out/beton/imagenet-<part>.beton.

    Written unless it is there, in place of one of another mode or side. jobs: threads. Raises ValueError for unreadable or
    damaged photographs, all of them listed on stdout. Whatever is raised names the file, and nothing is kept.
    """
    if mode not in ("jpg", "raw") or not 224 <= side <= 480 or (jobs or 1) < 1:
        raise ValueError(f"mode {mode!r} is not raw or jpg, or short side {side} not between 224 and 480, or jobs {jobs} < 1.")
    folder, images, bad = data_folder(out), tree(source, part), []
    path = beton(folder, part)
    fast.needed(path, "torch")
    about = {"source": images.state, "mode": mode, "side": side, "classes": images.classes}
    if fast.is_of(path, about):
        return path
    from ffcv.fields import IntField, RGBImageField

    fields = {"image": RGBImageField(mode), "label": IntField(), "height": IntField(), "width": IntField()}
    fields["image"].encode = partial(encode, fields["image"].encode)
    samples = samples_of(images, mode, side, jobs or os.cpu_count() or 1, skip_unreadable, bad)
    with closing(samples), warnings.catch_warnings(action="ignore"):  # PIL warns of odd EXIF data
        writer.write(path, samples, len(images.names), fields, about, PAGE)
    if part == "train":
        sound = [images.names[i] for i in sorted({*range(len(images.names))} - {*bad})]
        statistics_of(images._replace(names=sound), folder)
    return path
