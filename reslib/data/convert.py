"""An ImageFolder tree of photographs into .beton files that FFCV's own writer makes; every photograph is decoded before.

    OUT/beton/imagenet-train-raw-480.beton         images, labels, and each source's height and width
    OUT/beton/imagenet-train-raw-480.beton.json    its sidecar: size, sha256, classes, source, what was left out
    OUT/beton/imagenet-train.npz                   the mean image and the covariance of colours

The shorter side of an image is reduced to at most 480 pixels (INTER_AREA), never enlarged, so that a scale drawn from
[256, 480] means what section 3.4 means. mode "jpg" keeps a JPEG's own bytes wherever nothing has to be changed.
"""

import os
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..machine import cores
from . import fast, writer
from .photographs import CENTRE, keep_statistics
from .sources import data_folder
from .tree import Tree, read, tree, without

MODES = ("jpg", "raw")
PAGE = 1 << 24  # bytes: FFCV's unit of allocation, larger where an image is
CHUNK = 100  # photographs that a worker looks at at a time


def reduced(height: int, width: int, side: int) -> tuple[int, int]:
    """Height and width with the shorter one reduced to at most `side`, the aspect ratio kept."""
    short = max(side, min(height, width))
    return max(1, round(height * side / short)), max(1, round(width * side / short))


def centre(pixels: np.ndarray) -> np.ndarray:
    """The 224x224 centre of an image whose shorter side is resized to 256: (h, w, 3) -> (224, 224, 3), bytes."""
    import cv2

    side, crop = CENTRE
    height, width = (n * side // min(pixels.shape[:2]) for n in pixels.shape[:2])
    small = cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA)
    top, left = (height - crop) // 2, (width - crop) // 2
    return small[top : top + crop, left : left + crop]


def look(folder: Path, names: list[str]) -> tuple[list[tuple[str, str, int]], np.ndarray, np.ndarray]:
    """Each photograph's format and mode, what is wrong with it ("": nothing), bytes; sums over centre crops of those in order.

    A JPEG is damaged if its decoder complains, though it makes an image of it.
    """
    from ffcv.libffcv import imdecode

    found, total, moments = [], np.zeros((CENTRE[1], CENTRE[1], 3)), np.zeros((3, 3))
    for name in names:
        kind, wrong, size = "", "", 0
        try:
            pixels, kind, data = read(folder / name)
            height, width = pixels.shape[:2]
            size = max(3 * int(np.prod(reduced(height, width, 480))), len(data))
            if max(reduced(height, width, 480)) >= 1 << 16:
                wrong = f"{width}x{height} pixels are more than the format holds"
            elif kind in ("JPEG RGB", "JPEG L"):
                raw = np.frombuffer(data, np.uint8)
                if imdecode(raw, np.empty_like(pixels), height, width, height, width, 0, 0, 1, 1, False, False):
                    wrong = "its JPEG data are damaged"
        except ValueError as error:
            wrong = f"{error}".removeprefix(f"{folder / name} ").removesuffix(": mend or remove it.")
        found.append((kind, wrong, size))
        if not wrong:
            crop = centre(pixels) / np.float32(255)
            total += crop
            moments += crop.reshape(-1, 3).T @ crop.reshape(-1, 3)
    return found, total, moments


class Samples(NamedTuple):
    """What FFCV's writer asks for: (pixels or a JPEG's own bytes, label, the source's height and width)."""

    images: Tree
    mode: str
    side: int

    def __len__(self) -> int:
        return len(self.images.names)

    def __getitem__(self, i: int) -> tuple:
        import cv2

        pixels, kind, data = read(self.images.folder / self.images.names[i])
        height, width = pixels.shape[:2]
        small = reduced(height, width, self.side)
        if small != (height, width):
            pixels = cv2.resize(pixels, small[::-1], interpolation=cv2.INTER_AREA)
        elif self.mode == "jpg" and kind in ("JPEG RGB", "JPEG L"):
            pixels = np.frombuffer(data, np.uint8), height, width
        return pixels, self.images.labels[i], height, width


def convert(source: str | Path, out: str | Path, part: str, mode: str = "jpg", side: int = 480, jobs: int | None = None,
            skip_unreadable: bool = False) -> Path:  # fmt: skip
    """The .beton file of a part, "train" or "val", of an ImageFolder tree: out/beton/imagenet-<part>-<mode>-<side>.beton.

    Written unless it is there. Raises ImportError without FFCV; FileNotFoundError for no tree; ValueError for unreadable or
    damaged photographs (all listed on stdout), classes other than another file's, and bad arguments; OSError if a process is
    killed or the disk is full: nothing is kept. Each names the file.
    """
    if mode not in MODES or not CENTRE[1] <= side <= 480 or (jobs or 1) < 1:
        raise ValueError(
            f"mode {mode!r} is not raw or jpg, or short side {side} not between {CENTRE[1]} and 480, or jobs {jobs} < 1."
        )
    path = data_folder(out) / "beton" / f"imagenet-{part}-{mode}-{side}.beton"
    fast.needed(path, "torch")
    images = tree(source, part)
    about = {"source": images.sha256, "part": part, "mode": mode, "side": side, "classes": images.classes}
    if not fast.is_of(path, about):
        places = os.path.abspath(data_folder(source)), path.parents[1]
        make = partial(checked, images, about, *places, jobs or cores(), skip_unreadable)
        writer.write(path, make, about, total=2 * len(images.names), desc=f"{path.name}, checked and written")
    return path


def checked(images: Tree, about: dict, origin: str, out: Path, jobs: int, skip_unreadable: bool, file: str,
            tell: Callable) -> dict:  # fmt: skip
    """Look at all photographs of `origin`, write those that can be read into `file`, and the training part's statistics.

    Returns what the sidecar is to say of them. Raises ValueError, each named on stdout, where some cannot be read.
    """
    found, total, moments = [], 0, 0
    with ProcessPoolExecutor(jobs) as pool:
        try:
            chunks = [images.names[i : i + CHUNK] for i in range(0, len(images.names), CHUNK)]
            for rows, some, more in pool.map(partial(look, images.folder), chunks):
                found, total, moments = found + rows, total + some, moments + more
                tell(len(rows))
        except BrokenProcessPool:
            near = images.folder / images.names[len(found)]
            raise OSError(f"a process that read photographs was killed, or out of memory, near {near}") from None
    bad = {name: wrong for name, (_, wrong, _) in zip(images.names, found, strict=True) if wrong}
    for name, wrong in bad.items():
        tell(f"unreadable: {images.folder / name} ({wrong})".encode(errors="backslashreplace").decode())
    if len(bad) == len(found) or (bad and not skip_unreadable):
        raise ValueError(f"{len(bad)} of {len(found):,} files cannot be read, {images.folder / next(iter(bad))} first: mend "
                         "or remove them, or leave them out with --skip-unreadable.")  # fmt: skip
    tell(len(bad))
    modes, sizes = zip(*((kind.split()[1], size) for kind, wrong, size in found if not wrong), strict=True)
    samples = Samples(without(images, list(bad)), about["mode"], about["side"])
    from ffcv.fields import IntField, RGBImageField

    fields = {"image": RGBImageField(samples.mode), "label": IntField(), "height": IntField(), "width": IntField()}
    written = writer.dataset(samples, fields, max(PAGE, 1 << (max(sizes) - 1).bit_length()), jobs, file, tell)
    if about["part"] == "train":
        keep_statistics(out, total, moments, len(samples), images.sha256)
    greyscale = sum(mode[0] in "1LI" for mode in modes)
    return written | {"from": origin, "unreadable": list(bad), "cmyk": modes.count("CMYK"), "greyscale": greyscale}
