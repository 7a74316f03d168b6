"""The small data sets as bytes: CIFAR-10 (looked for, downloaded, checked), and the embedded digits."""

import hashlib
import os
import pickle
from functools import lru_cache, partial
from pathlib import Path

import numpy as np

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
    """Where data are looked for: `data_dir`, else $RESLIB_DATA, else ./data, else data/ of the checkout. A ~ is expanded."""
    if data_dir is not None:
        return Path(data_dir).expanduser()
    places = [os.environ.get("RESLIB_DATA"), "data", Path(__file__).parents[2] / "data"]
    places = [Path(p).expanduser() for p in places if p]
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
        fetch = f"python -m reslib data --dir {base.parent}"
        raise ValueError(f"{base / name} {what}: delete {base} and run `{fetch}` to fetch it anew.")


def read_cifar10(folder: Path, train: bool) -> tuple[np.ndarray, np.ndarray]:
    """CIFAR-10's (N, 32, 32, 3) bytes and labels; downloaded by torchvision where `folder` does not hold it.

    Raises FileNotFoundError if it is neither there nor to be had, ValueError naming a missing or damaged file.
    """
    base = folder / FOLDER
    if not base.is_dir():
        from torchvision.datasets import CIFAR10  # a second and a half to import: only where it is needed

        try:
            folder.mkdir(parents=True, exist_ok=True)
            CIFAR10(folder, download=True)
        except (OSError, RuntimeError) as error:
            raise FileNotFoundError(
                f"CIFAR-10 is not in {folder.absolute()} and could not be downloaded ({error}): set RESLIB_DATA to a folder "
                f"that holds {FOLDER}, or run `python -m reslib data` where there is a network."
            ) from None
    check_cifar10(base)
    parts = [pickle.loads((base / name).read_bytes(), encoding="latin1") for name in MD5 if name.startswith(PARTS[train])]
    pixels = np.concatenate([part["data"] for part in parts]).reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    return pixels, np.concatenate([part["labels"] for part in parts]).astype(np.int64)


def read_digits(train: bool) -> tuple[np.ndarray, np.ndarray]:
    """scikit-learn's 1,797 handwritten digits, 8x8 scans enlarged to (N, 16, 16, 3) bytes; every fifth is a test image."""
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
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
