"""What all tests share: figures without a screen, the command line, and the real CIFAR-10 where it is here."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from filelock import FileLock

os.environ["MPLBACKEND"] = "Agg"
if workers := int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", 0)):  # before torch is loaded: they share the cores
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // workers)))

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
    with FileLock(folder / ".lock"):  # of several workers one
        subprocess.run([sys.executable, unpack, folder], check=True)
    return folder


@pytest.fixture
def reslib_main(monkeypatch, capsys):
    """`python -m reslib WORDS` in this process, which has torch already: as subprocess.run would tell of it."""
    import torch

    from reslib.__main__ import main

    def call(*words) -> subprocess.CompletedProcess:
        capsys.readouterr()
        monkeypatch.setattr(sys, "argv", ["reslib", *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            main()
        code, (out, err) = ended.value.code, capsys.readouterr()
        if isinstance(code, str):
            code, err = 1, f"{err}{code}\n"
        return subprocess.CompletedProcess(words, code, out, err)

    threads = torch.get_num_threads()
    yield call
    torch.set_num_threads(threads)
