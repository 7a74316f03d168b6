"""The small data sets as bytes: CIFAR-10 (looked for, downloaded, checked), and the embedded digits."""

import os
from pathlib import Path

import numpy as np


def data_folder(data_dir: str | Path | None = None) -> Path:
    """Where data are looked for: `data_dir`, else $RESLIB_DATA, else ./data, else data/ of the checkout."""
    if data_dir is not None:
        return Path(data_dir)
    places = [os.environ.get("RESLIB_DATA"), "data", Path(__file__).parents[1] / "data"]
    places = [Path(p) for p in places if p]
    return next((p for p in places if (p / "cifar-10-batches-py").is_dir()), places[0])


def read_cifar10(folder: Path, train: bool) -> tuple[np.ndarray, np.ndarray]:
    """CIFAR-10's (N, 32, 32, 3) bytes and labels; downloaded by torchvision where `folder` does not hold it.

    Raises FileNotFoundError if it is neither there nor to be had, ValueError naming a missing or damaged file.
    """
    from torchvision.datasets import CIFAR10
    from torchvision.datasets.utils import check_integrity

    base = folder / CIFAR10.base_folder
    if not base.is_dir():
        try:
            folder.mkdir(parents=True, exist_ok=True)
            CIFAR10(folder, download=True)
        except (OSError, RuntimeError) as error:
            raise FileNotFoundError(
                f"CIFAR-10 is not in {folder.absolute()} and could not be downloaded ({error}): set RESLIB_DATA to a folder "
                "that holds cifar-10-batches-py, or run `python -m reslib data` where there is a network."
            ) from None
    try:
        part = CIFAR10(folder, train=train)
    except RuntimeError:  # torchvision has checked every file's MD5; say which it was
        md5s = dict([*CIFAR10.train_list, *CIFAR10.test_list, (CIFAR10.meta["filename"], CIFAR10.meta["md5"])])
        bad = next((name for name, md5 in md5s.items() if not check_integrity(base / name, md5)), "batches.meta")
        what = "is damaged (its MD5 is not CIFAR-10's)" if (base / bad).is_file() else "is missing"
        raise ValueError(f"{base / bad} {what}: delete {base} and run `python -m reslib data` to fetch it anew.") from None
    return part.data, np.asarray(part.targets, dtype=np.int64)


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
