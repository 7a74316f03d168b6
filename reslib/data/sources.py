"""The small data sets as bytes: CIFAR-10 (looked for, downloaded, checked), and the embedded digits."""

import hashlib
import os
import pickle
import shutil
from functools import lru_cache, partial
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from ..files import alone, path_of, words

FOLDER = "cifar-10-batches-py"  # as it comes out of CIFAR-10's archive
PARTS = {True: "data_batch", False: "test_batch"}
MD5 = {
    "data_batch_1": "c99cafc152244af753f735de768cd75f",
    "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
    "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
    "data_batch_4": "634d18415352ddfa80567beed471001a",
    "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
    "test_batch": "40351d587109b95175f43aff81a1287e",
    "batches.meta": "5ff9c542aee3614f3951f8cda6e48888",
}
"""Of CIFAR-10's files: the five of the training part, the test part, the names of the classes."""


def data_folder(data_dir: str | Path | None = None, holds: str = FOLDER) -> Path:
    """Where data are looked for: `data_dir`, else $RESLIB_DATA, else ./data, else data/ of the checkout. Paths as `path_of`."""
    if data_dir is not None:
        return path_of(data_dir).absolute()
    places = [os.environ.get("RESLIB_DATA"), "data", Path(__file__).parents[2] / "data"]
    places = [path_of(p).absolute() for p in places if p]
    return next((p for p in places if (p / holds).is_dir()), places[0])


@lru_cache
def check_cifar10(base: Path) -> None:
    """Raises ValueError, naming the first file of CIFAR-10's folder that is missing or damaged."""
    for name, md5 in MD5.items():
        try:
            with open(base / name, "rb") as file:
                if hashlib.file_digest(file, partial(hashlib.md5, usedforsecurity=False)).hexdigest() == md5:
                    continue
            what = "is damaged (its MD5 is not CIFAR-10's)"
        except FileNotFoundError:
            what = "is missing"
        raise ValueError(f"{base / name} {what}: delete {base} and run `{fetches(base.parent)}` to fetch it anew.")


def fetches(folder: Path) -> str:
    """The command that fetches CIFAR-10 into a folder."""
    return words("python", "-m", "reslib", "data", "--dir", folder)


def fetch(folder: Path) -> None:
    """Have torchvision download CIFAR-10 into `folder` (made if missing): aside, and renamed when whole. Not if it is there.

    An archive that lies in `folder` is unpacked instead. Raises FileNotFoundError if it is not to be had.
    """
    if (folder / FOLDER).is_dir():
        return
    from torchvision.datasets import CIFAR10  # a second and a half to import: only where it is needed

    aside = folder / ".cifar10.part"
    try:
        with alone(folder, "cifar10"):
            if (folder / FOLDER).is_dir():  # another process's
                return
            try:
                shutil.rmtree(aside, ignore_errors=True)  # of a killed process
                aside.mkdir()
                if (archive := folder / CIFAR10.filename).is_file():
                    shutil.copy(archive, aside)
                CIFAR10(aside, download=True)
                os.replace(aside / FOLDER, folder / FOLDER)
            finally:
                shutil.rmtree(aside, ignore_errors=True)
    except (OSError, RuntimeError) as error:
        raise FileNotFoundError(
            f"CIFAR-10 is not in {folder} and could not be downloaded ({error}): set RESLIB_DATA to a folder that holds "
            f"{FOLDER}, or run `{fetches(folder)}` where there is a network."
        ) from None


def read_cifar10(folder: Path, train: bool) -> tuple[np.ndarray, np.ndarray]:
    """CIFAR-10's (N, 32, 32, 3) bytes and labels; downloaded where `folder`, or the default ./data, does not hold it.

    Raises FileNotFoundError for another folder that is not there, and as `fetch`; ValueError naming a missing or damaged file.
    """
    if not folder.is_dir() and folder != Path("data").absolute():
        raise FileNotFoundError(f"{folder} is no folder: name the one that holds CIFAR-10, or run `{fetches(folder)}`.")
    fetch(folder)
    check_cifar10(base := folder / FOLDER)
    parts = [pickle.loads((base / name).read_bytes(), encoding="latin1") for name in MD5 if name.startswith(PARTS[train])]
    pixels = np.concatenate([part["data"] for part in parts]).reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    return pixels, np.concatenate([part["labels"] for part in parts]).astype(np.int64)


def read_digits(train: bool) -> tuple[np.ndarray, np.ndarray]:
    """scikit-learn's 1,797 handwritten digits, 8x8 scans enlarged to (N, 16, 16, 3) bytes; every fifth is a test image."""
    package = Path(find_spec("sklearn").origin).parent  # its file alone: to import it takes two seconds
    table = np.loadtxt(package / "datasets" / "data" / "digits.csv.gz", delimiter=",")
    pixels, labels = table[:, :-1], table[:, -1]
    pixels = np.round(pixels.reshape(-1, 8, 8, 1) * (255 / 16)).astype(np.uint8)
    pixels = pixels.repeat(2, 1).repeat(2, 2).repeat(3, 3)
    part = (np.arange(len(labels)) % 5 == 4) != train
    return pixels[part], labels[part].astype(np.int64)


def pool(pixels: np.ndarray, size: int) -> np.ndarray:
    """Average-pooled to size x size and rounded to bytes: (N, H, W, 3) -> (N, size, size, 3)."""
    n, h = pixels.shape[:2]
    k = h // size
    if k * size != h:
        raise ValueError(f"size {size} does not divide the images' {h} pixels.")
    if k == 1:
        return pixels
    sums = pixels.reshape(n, size, k, size, k, 3).sum((2, 4), dtype=np.uint16)
    return ((sums + k * k // 2) // (k * k)).astype(np.uint8)
