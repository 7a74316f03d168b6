"""Photographs in an ImageFolder tree: which there are, whether they can be read, what is kept of them, their colours."""

import hashlib
import io
import os
import warnings
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image
from torch import Tensor

from .beton import PAGE

IMAGENET_TRAIN = 1_281_167  # photographs in ILSVRC 2012's training set
QUALITY = 90  # of a JPEG that has to be made anew, FFCV's default
CENTRE = (256, 224)  # pixels: the shorter side and the centre crop of it that the mean image is of


PUBLISHED = np.array([[-0.5675, 0.7192, 0.4009], [-0.5808, -0.0045, -0.8140], [-0.5836, -0.6948, 0.4203]])
"""Colour components of ImageNet as they are passed on (in columns): AlexNet's code, by way of facebook/fb.resnet.torch."""


PUBLISHED_VALUES = np.array([0.2175, 0.0188, 0.0045])
"""And their eigenvalues, for pixels in [0, 1]."""


class Tree(NamedTuple):
    """An ImageFolder tree. A sample's id is its index here."""

    folder: Path  # holds a folder for each class
    names: list[str]  # "n01440764/n01440764_10026.JPEG", in order
    labels: np.ndarray  # int64 (N,): index of the class
    classes: list[str]
    sha256: str  # of names and sizes in bytes


def tree(folder: str | Path, part: str) -> Tree:
    """The part "train" or "val" of an ImageFolder tree; a tree without these two folders is both.

    Classes are numbered by the training part's folders. Raises FileNotFoundError for no tree, ValueError for a class of
    "val" that "train" lacks.
    """
    folder = Path(folder)
    split = any((folder / name).is_dir() for name in ("train", "val"))
    top = folder / part if split else folder
    if not top.is_dir():
        raise FileNotFoundError(f"{top} is no folder: give an ImageFolder tree, DIR/train/<class>/*.JPEG and DIR/val/....")
    reference = folder / "train" if (folder / "train").is_dir() else top
    classes = sorted(f.name for f in os.scandir(reference) if f.is_dir() and f.name != "beton")
    found = sorted(f.name for f in os.scandir(top) if f.is_dir() and f.name != "beton")
    if alien := sorted(set(found) - set(classes)):
        raise ValueError(f"{top / alien[0]} is a class that {reference} does not have: the parts need the same classes.")
    number = {name: i for i, name in enumerate(classes)}
    digest, names, labels = hashlib.sha256(), [], []
    for name in found:
        files = (f for f in os.scandir(top / name) if f.name.lower().endswith((".jpeg", ".jpg", ".png")))
        for file in sorted(files, key=lambda f: f.name):
            names.append(f"{name}/{file.name}")
            labels.append(number[name])
            digest.update(f"{names[-1]} {file.stat().st_size if os.path.exists(file) else 0}\n".encode())
    if not names:
        raise FileNotFoundError(f"{top} holds no photographs: give an ImageFolder tree, DIR/train/<class>/*.JPEG.")
    return Tree(top, names, np.array(labels, np.int64), classes, digest.hexdigest())


def reduced(height: int, width: int, side: int) -> tuple[int, int]:
    """Height and width with the shorter one reduced to at most `side`, the aspect ratio kept."""
    short = max(side, min(height, width))
    return max(1, round(height * side / short)), max(1, round(width * side / short))


def look(folder: Path, names: list[str]) -> list[tuple[int, int, str, str]]:
    """Each file's height, width, colour mode ("RGB", "L", "CMYK", ...) and what is wrong with it ("": nothing)."""
    found = []
    for name in names:
        try:
            with warnings.catch_warnings(action="ignore"), Image.open(folder / name) as image:
                kind, (width, height) = image.mode, image.size
                image.draft("RGB", (width // 8, height // 8))  # every byte is parsed, but few pixels made
                image.load()
            size = np.prod(reduced(height, width, 480)) * 3
            found.append((height, width, kind, "" if size <= PAGE and max(height, width) < 1 << 16 else "too long"))
        except Exception as error:  # PIL raises many kinds for broken files
            found.append((0, 0, "", f"{error}" or type(error).__name__))
    return found


def to_store(path: Path, mode: str, side: int) -> tuple[np.ndarray, np.ndarray, tuple[int, int]]:
    """The bytes to store, the pixels they hold (h, w, 3), and the source's height and width. ValueError names the file."""
    import cv2
    from ffcv.libffcv import imdecode

    try:
        data = path.read_bytes()
        with warnings.catch_warnings(action="ignore"), Image.open(io.BytesIO(data)) as image:
            width, height = image.size
            small = reduced(height, width, side)
            own = mode == "jpg" and image.format == "JPEG" and image.mode in ("RGB", "L") and small == (height, width)
            pixels = np.empty((height, width, 3), np.uint8) if own else np.array(image.convert("RGB"))
    except Exception as error:
        raise ValueError(f"{path} cannot be decoded ({error}): mend or remove it.") from None
    encoded = np.frombuffer(data, np.uint8)
    if own and imdecode(encoded, pixels, height, width, height, width, 0, 0, 1, 1, False, False) == 0:
        return encoded, pixels, (height, width)
    if own:  # turbojpeg complains where PIL does not
        pixels = np.array(Image.open(io.BytesIO(data)).convert("RGB"))
    if small != (height, width):
        pixels = cv2.resize(pixels, small[::-1], interpolation=cv2.INTER_AREA)
    if mode == "raw":
        return pixels.reshape(-1), pixels, (height, width)
    encoded = cv2.imencode(".jpg", pixels[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, QUALITY])[1].reshape(-1)
    return encoded, pixels, (height, width)


def centre(pixels: np.ndarray) -> np.ndarray:
    """The 224x224 centre of an image whose shorter side is resized to 256: (h, w, 3) -> (224, 224, 3), bytes."""
    import cv2

    (side, crop), (height, width) = CENTRE, pixels.shape[:2]
    short = min(height, width)
    size = width * side // short, height * side // short
    small = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
    top, left = (size[1] - crop) // 2, (size[0] - crop) // 2
    return small[top : top + crop, left : left + crop]


def components(covariance: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Eigenvalues (3,), the largest first, and unit eigenvectors in columns (3, 3), of the covariance of RGB in [0, 1]."""
    values, vectors = np.linalg.eigh(covariance)
    values, vectors = values[::-1], vectors[:, ::-1]
    return values, vectors * np.sign(vectors.sum(0))


def decoded(path: Path) -> Tensor:
    """A photograph's pixels, uint8 (3, H, W), RGB whatever the file has. ValueError, naming it, if it cannot be decoded."""
    from torchvision.transforms.v2.functional import pil_to_tensor

    try:
        with warnings.catch_warnings(action="ignore"), Image.open(path) as image:  # PIL warns of odd EXIF data
            return pil_to_tensor(image.convert("RGB"))
    except Exception as error:  # PIL raises many kinds for broken files
        raise ValueError(f"{path} cannot be decoded ({error}): mend or remove it.") from None


def disk_sizes(images: Tree, modes=(("jpg", 480), ("jpg", 256), ("raw", 480), ("raw", 256))) -> list[tuple]:
    """(mode, side, mean bytes an image, GB for all of ImageNet's training set), by up to 64 of the tree's images."""
    spread = np.linspace(0, len(images.names) - 1, min(64, len(images.names))).astype(int)
    paths = [images.folder / images.names[i] for i in spread]
    paths = [
        path for path, found in zip(paths, look(images.folder, [images.names[i] for i in spread]), strict=True) if not found[3]
    ]
    means = [float(np.mean([len(to_store(path, mode, side)[0]) for path in paths])) for mode, side in modes]
    return [(*kind, mean, mean * IMAGENET_TRAIN / 1e9) for kind, mean in zip(modes, means, strict=True)]
