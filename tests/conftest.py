"""What all tests share: figures without a screen, and the real CIFAR-10 where it can be had without a download."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

os.environ["MPLBACKEND"] = "Agg"

ROOT = Path(__file__).resolve().parents[1]
PART = "cifar-10-batches-py/data_batch_1"  # there: the set is there


@pytest.fixture(scope="session")
def root() -> Path:
    """The top of the checkout."""
    return ROOT


@pytest.fixture(scope="session")
def cifar(request) -> Path:
    """The folder that holds the real CIFAR-10: RESLIB_DATA, ./data, or unpacked once from ../shared/data; else skip."""
    for folder in (os.environ.get("RESLIB_DATA"), ROOT / "data"):
        if folder and (Path(folder) / PART).is_file():
            return Path(folder).resolve()
    unpack = ROOT.parent / "shared" / "data" / "unpack"
    if not unpack.is_file():
        pytest.skip("the real CIFAR-10 is not here: set RESLIB_DATA, or run `python -m reslib data`")
    folder = Path(request.config.cache.mkdir("cifar10"))
    subprocess.run([sys.executable, unpack, folder], check=True)
    return folder
