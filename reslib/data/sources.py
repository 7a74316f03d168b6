"""The small data sets as bytes: CIFAR-10 (looked for, downloaded, checked), and the embedded digits."""

import os
import shutil
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from ..files import alone, path_of, words

FOLDER = "cifar-10-batches-py"  # as it comes out of CIFAR-10's archive


def data_folder(data_dir: str | Path | None = None, holds: str = FOLDER) -> Path:
    """Where data are looked for: `data_dir`, else $RESLIB_DATA, else ./data, else data/ of the checkout. Paths as `path_of`."""
    if data_dir is not None:
        return path_of(data_dir).absolute()
    places = [os.environ.get("RESLIB_DATA"), "data", Path(__file__).parents[2] / "data"]
    places = [path_of(p).absolute() for p in places if p]
    return next((p for p in places if (p / holds).is_dir()), places[0])


def fetches(folder: Path) -> str:
    """The command that fetches CIFAR-10 into a folder."""
    return words("python", "-m", "reslib", "data", "--dir", folder)


def fetch(folder: Path) -> None:
    """Have torchvision download CIFAR-10 into `folder` (made if missing): aside, and renamed when whole. Not if it is there.

    An archive that lies in `folder` is unpacked instead.
    """
    if (folder / FOLDER).is_dir():
        return
    from torchvision.datasets import CIFAR10  # slow to import: only where it is needed

    try:
        with alone(folder, "cifar10"), TemporaryDirectory(prefix=".cifar10-", dir=folder) as aside:
            if (folder / FOLDER).is_dir():  # another process's
                return
            if (archive := folder / CIFAR10.filename).is_file():
                shutil.copy(archive, aside)
            CIFAR10(aside, download=True)
            os.replace(Path(aside, FOLDER), folder / FOLDER)
    except (OSError, RuntimeError) as error:
        raise FileNotFoundError(
            f"CIFAR-10 is not in {folder} and could not be downloaded ({error}): set RESLIB_DATA to a folder that holds "
            f"{FOLDER}, or run `{fetches(folder)}` where there is a network."
        ) from None


def read_cifar10(folder: Path, train: bool) -> tuple[np.ndarray, np.ndarray]:
    """CIFAR-10's (N, 32, 32, 3) bytes and labels; downloaded where `folder`, or the default ./data, does not hold it."""
    from torchvision.datasets import CIFAR10
    from torchvision.datasets.utils import check_integrity

    if not folder.is_dir() and folder != Path("data").absolute():
        raise FileNotFoundError(f"{folder} is no folder: name the one that holds CIFAR-10, or run `{fetches(folder)}`.")
    fetch(folder)
    try:
        part = CIFAR10(folder, train)
    except RuntimeError:  # which names no file
        files = [*CIFAR10.train_list, *CIFAR10.test_list, (CIFAR10.meta["filename"], CIFAR10.meta["md5"])]
        wrong = next(path for name, md5 in files if not check_integrity(path := folder / FOLDER / name, md5))
        raise ValueError(f"{wrong} is {'damaged' if wrong.exists() else 'missing'}: delete {wrong.parent} and run "
                         f"`{fetches(folder)}` to fetch it anew.") from None  # fmt: skip
    return part.data, np.array(part.targets, np.int64)


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
