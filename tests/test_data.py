"""Batches: the three backends agree bit for bit on real images, the pixels are what section 4.2 says, bad files are named."""

import importlib
import os
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

import reslib
from reslib import CIFAR, data
from reslib.data import cifar as cifar_module
from reslib.data import fast, sources

POCKET = replace(CIFAR, seed=5).at("pocket")
DIGITS = CIFAR.at("demo")


def batches(recipe, split="train", n=None, **arguments):
    source = iter(reslib.loader(recipe, split, **arguments))
    return [batch for batch, _ in zip(source, range(n or 10**9), strict=False)]


def same(one, other):
    return len(one) == len(other) and all(
        torch.equal(x, a) and torch.equal(y, b) for (x, y), (a, b) in zip(one, other, strict=True)
    )


@pytest.mark.parametrize("recipe", [POCKET, replace(CIFAR, seed=5), replace(CIFAR, split="45k/5k")], ids=["16", "32", "45k"])
def test_backends_agree_on_real_images(cifar, recipe, monkeypatch):
    where = dict(data_dir=cifar, epoch=3)
    length = len(reslib.loader(recipe, "train", **where))
    end = dict(start_batch=length - 6, **where)
    reference = batches(recipe, backend="torch", workers=0, **end)
    assert len(reference) == 6
    assert same(reference, batches(recipe, backend="torch", workers=2, **end))
    assert same(reference, batches(recipe, backend="array", **end))
    if fast.available():
        assert all(same(reference, batches(recipe, backend="ffcv", workers=w, **end)) for w in (1, 2))
    monkeypatch.setattr(cifar_module, "kernel", lambda: None)  # where numba is missing, and on a GPU: one indexed gather
    assert same(reference, batches(recipe, backend="array", **end))


@pytest.mark.parametrize("split", ["train", "test"])
def test_backends_agree_on_images_as_they_are(cifar, split):
    where = dict(data_dir=cifar, augment=False)
    last = dict(start_batch=len(reslib.loader(POCKET, split, **where)) - 2, **where)
    reference = batches(POCKET, split, backend="torch", workers=0, **last)
    assert same(reference, batches(POCKET, split, backend="array", **last))
    assert reference[-1][0].shape[0] == {"train": 50_000, "test": 10_000}[split] % 128
    if fast.available():
        assert same(reference, batches(POCKET, split, backend="ffcv", **last))


@pytest.mark.parametrize("border", ["mean", "black"])
def test_pixels_are_what_the_paper_says(border, cifar):
    """A crop of the mean-subtracted image in a border of zeros, or its mirror image, computed here from scratch.

    black: a crop of the image in a black border, or its mirror image, minus the mean image."""
    part = data.images(CIFAR, train=True, data_dir=cifar)
    mean = (part.pixels.astype(np.float64) / 255).mean(0)
    before, after = (mean, 0) if border == "mean" else (0, mean)
    draws = data.epoch_draws(0, 0, 50_000, 4)
    recipe = replace(CIFAR, border=border)
    found = batches(recipe, n=1, data_dir=cifar)
    x, y = found[0]
    assert x.dtype == torch.float32 and x.is_contiguous(memory_format=torch.channels_last) and y.dtype == torch.int64
    for i in (0, 1, 2, 63, 127):
        sample = draws.order[i]
        padded = np.pad(part.pixels[sample] / 255 - before, ((4, 4), (4, 4), (0, 0)))
        crop = padded[draws.dy[sample] : draws.dy[sample] + 32, draws.dx[sample] : draws.dx[sample] + 32]
        crop = (crop[:, ::-1] if draws.flip[sample] else crop) - after
        assert np.allclose(x[i].permute(1, 2, 0), crop, atol=1e-6) and y[i] == part.labels[sample]
    for backend in ("array", "torch"):
        assert same(found, batches(recipe, n=1, data_dir=cifar, backend=backend))
    still = dict(split="test", n=1, data_dir=cifar, augment=False)
    assert same(batches(recipe, **still), batches(CIFAR, **still))


def test_an_epoch_is_a_permutation_cut_into_full_batches(cifar):
    loader = reslib.loader(POCKET, "train", data_dir=cifar, augment=None)
    assert len(loader) == 390
    everything = data.images(POCKET, train=True, data_dir=cifar)
    seen = np.concatenate([y.numpy() for _, y in loader])
    order = data.epoch_draws(5, 0, 50_000, 2).order[: 390 * 128]
    assert np.array_equal(seen, everything.labels[order]) and len(set(order)) == 390 * 128


def test_resuming_at_a_batch_continues_the_epoch(cifar):
    whole = batches(POCKET, n=9, data_dir=cifar, epoch=1, backend="array")
    assert same(whole[4:], batches(POCKET, n=5, data_dir=cifar, epoch=1, start_batch=4, backend="array"))
    assert not torch.equal(whole[0][0], batches(POCKET, n=1, data_dir=cifar, epoch=2, backend="array")[0][0])


def test_splits(cifar):
    held = replace(CIFAR, split="45k/5k").at("pocket")
    sizes = {s: sum(len(y) for _, y in reslib.loader(held, s, data_dir=cifar, augment=False)) for s in ("train", "val", "test")}
    assert sizes == {"train": 45_000, "val": 5_000, "test": 10_000}
    assert len(reslib.loader(held, "train", data_dir=cifar)) == 351
    mean = data.mean_image(held, cifar)
    assert np.allclose(mean, data.images(held, train=True, data_dir=cifar).pixels[:45_000].mean(0) / 255, atol=1e-6)
    with pytest.raises(ValueError, match="'val' is empty"):
        reslib.loader(POCKET, "val", data_dir=cifar)


def test_pooling(cifar):
    big, small = (data.images(r, train=False, data_dir=cifar).pixels for r in (CIFAR, POCKET))
    average = torch.nn.functional.avg_pool2d(torch.from_numpy(big[:100]).permute(0, 3, 1, 2).float(), 2)
    assert (average.permute(0, 2, 3, 1).numpy() - small[:100]).__abs__().max() <= 0.5


def test_digits_need_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RESLIB_DATA", raising=False)
    train, test = (data.images(DIGITS, train=part) for part in (True, False))
    assert len(train.labels) + len(test.labels) == 1797 and train.pixels.shape[1:] == (16, 16, 3)
    x, _ = batches(DIGITS, n=1, backend="array")[0]
    assert torch.equal(x[:, 0], x[:, 1]) and same(batches(DIGITS, backend="torch", workers=0), batches(DIGITS))
    assert not list(tmp_path.iterdir())
    theirs = load_digits()
    first = test.pixels[0, ::2, ::2, 0]  # the fifth
    assert test.labels.tolist() == theirs.target[4::5].tolist() and np.array_equal(first, np.round(theirs.images[4] * 255 / 16))


def test_reading_is_torchvisions(cifar):
    from torchvision.datasets import CIFAR10

    known = [*CIFAR10.train_list, *CIFAR10.test_list, (CIFAR10.meta["filename"], CIFAR10.meta["md5"])]
    assert list(sources.MD5.items()) == [tuple(pair) for pair in known]
    for train in (True, False):
        pixels, labels = sources.read_cifar10(cifar, train)
        theirs = CIFAR10(cifar, train=train)
        assert np.array_equal(pixels, theirs.data) and labels.tolist() == theirs.targets


def copy_of(cifar, folder):
    base = folder / "cifar-10-batches-py"
    base.mkdir()
    for file in (cifar / "cifar-10-batches-py").iterdir():
        (base / file.name).symlink_to(file)
    return base


def test_damaged_and_missing_files_are_named(cifar, tmp_path):
    base = copy_of(cifar, tmp_path)
    content = bytearray((base / "data_batch_3").read_bytes())
    content[1_000_000] ^= 1
    (base / "data_batch_3").unlink()
    (base / "data_batch_3").write_bytes(content)
    with pytest.raises(ValueError, match=r"data_batch_3 is damaged.*python -m reslib data"):
        reslib.loader(CIFAR, "train", data_dir=tmp_path)
    (base / "data_batch_3").unlink()
    with pytest.raises(ValueError, match=r"data_batch_3 is missing.*python -m reslib data"):
        reslib.loader(CIFAR, "train", data_dir=tmp_path)


def test_no_data_and_no_network_is_one_sentence(tmp_path, monkeypatch):
    datasets = importlib.import_module("torchvision.datasets.cifar")

    def offline(*_, **__):
        raise OSError("no network")

    monkeypatch.setattr(datasets, "download_and_extract_archive", offline)
    with pytest.raises(FileNotFoundError, match="could not be downloaded.*set RESLIB_DATA"):
        reslib.loader(CIFAR, "train", data_dir=tmp_path)
    with pytest.raises(FileNotFoundError, match=r"nowhere is no folder: .*python -m reslib data --dir .*nowhere`"):
        reslib.loader(CIFAR, "train", data_dir=tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match="could not be downloaded"):
        sources.fetch(tmp_path / "nowhere" / "data")
    assert not list(tmp_path.iterdir())  # nothing empty stays


def test_two_downloads_at_once(cifar, tmp_path, monkeypatch):
    """The second waits for the first, and nobody sees half of the set; one that is broken off leaves nothing behind."""
    datasets, calls = importlib.import_module("torchvision.datasets.cifar"), []
    base = tmp_path / "my data" / sources.FOLDER

    def download(url, root, **_):
        calls.append(url)
        part = Path(root) / sources.FOLDER
        part.mkdir()
        for file in (cifar / sources.FOLDER).iterdir():
            (part / file.name).symlink_to(file)
            if len(calls) == 1:
                raise KeyboardInterrupt
            time.sleep(0.2)
            assert not base.exists()

    monkeypatch.setattr(datasets, "download_and_extract_archive", download)
    with pytest.raises(KeyboardInterrupt):
        sources.fetch(base.parent)
    assert not base.parent.exists()
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(sources.fetch, [base.parent] * 2))
    assert len(calls) == 2 and [path.name for path in base.parent.iterdir()] == [sources.FOLDER]
    assert len(sources.read_cifar10(base.parent, train=False)[1]) == 10_000


def test_where_data_are_looked_for(cifar, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RESLIB_DATA", str(cifar))
    assert data.data_folder() == cifar
    monkeypatch.setenv("RESLIB_DATA", str(tmp_path / "empty"))
    (tmp_path / "data").symlink_to(cifar)
    assert data.data_folder().resolve() == cifar
    assert data.data_folder(tmp_path) == tmp_path


@pytest.mark.parametrize(
    ("arguments", "says"),
    [(("training",), "split 'training'"), (("train", "numpy"), "backend 'numpy'")],
)
def test_bad_arguments_are_named(arguments, says):
    split, backend = (*arguments, "auto")[:2]
    with pytest.raises(ValueError, match=says):
        reslib.loader(DIGITS, split, backend=backend)
    for name, wrong in (("epoch", -1), ("epoch", "1"), ("start_batch", -1), ("workers", None)):
        with pytest.raises(ValueError, match=f"{name} is {wrong!r}: it must be a whole number"):
            reslib.loader(DIGITS, "train", **{name: wrong})


def test_a_device_or_a_recipe_that_is_none():
    with pytest.raises(ValueError, match="device 'cuda:99' is not there"):
        reslib.loader(DIGITS, "train", device="cuda:99")
    with pytest.raises(ValueError, match="'resnet56' is no recipe: give reslib.CIFAR"):
        reslib.loader("resnet56", "train")
    with pytest.raises(ValueError, match="'resnet56' is no recipe"):
        reslib.replay("resnet56")


@pytest.mark.parametrize("how", ["break", "error"])
def test_a_hundred_array_epochs_left_early_leave_no_thread(how):
    threads = threading.active_count()
    for epoch in range(100):
        try:
            for _ in reslib.loader(DIGITS, "train", epoch=epoch, backend="array"):
                if how == "break":
                    break
                raise KeyError
        except KeyError:
            pass
    assert threading.active_count() == threads


def test_an_error_in_an_array_thread_reaches_the_caller(monkeypatch):
    def fails(*_):
        raise ZeroDivisionError("in the kernel")

    monkeypatch.setattr(cifar_module, "kernel", lambda: fails)
    with pytest.raises(ZeroDivisionError, match="in the kernel"):
        batches(DIGITS, backend="array")


def test_a_resident_set_is_copied_once(monkeypatch):
    monkeypatch.setattr(cifar_module, "kernel", lambda: None)
    monkeypatch.setattr(cifar_module, "_resident", {})
    first = batches(DIGITS, n=2, backend="array")
    there = next(iter(cifar_module._resident.values()))
    assert same(first, batches(DIGITS, n=2, backend="array")) and list(cifar_module._resident.values()) == [there]


@pytest.mark.skipif(not fast.available(), reason="FFCV is not installed here")
def test_a_disk_that_cannot_be_written_to(cifar, tmp_path, capsys):
    """Of our own accord we do without the file; asked for, it is an error."""
    copy_of(cifar, tmp_path)
    (tmp_path / "beton").touch()
    expected = batches(POCKET, n=2, data_dir=cifar, backend="array")
    for _ in range(2):
        assert same(expected, batches(POCKET, n=2, data_dir=tmp_path))
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1 and "could not be written" in said[0] and "backend 'array'" in said[0]
    assert data.prepared(POCKET, "auto", "cpu", tmp_path) == "array"
    with pytest.raises(OSError, match=r"cifar10-16px-train\.beton could not be written"):
        batches(POCKET, n=2, data_dir=tmp_path, backend="ffcv")


KERNELS = []  # kept: numba may complain where a compiled function is dropped


def test_without_a_place_for_its_cache_numba_compiles_all_the_same(monkeypatch):
    caching = pytest.importorskip("numba.core.caching")
    pixels = np.full((1, 2, 2, 3), 255, np.uint8)
    none, mean = np.zeros(1, np.uint8), np.zeros((2, 2, 3), np.float32)

    def cut(*_):  # as a crash leaves it
        raise EOFError("Ran out of input")

    for broken, name, by in ((caching.CompileResultCacheImpl, "_locator_classes", []),
                             (caching.IndexDataCacheFile, "_load_index", cut)):  # fmt: skip
        KERNELS.append(cache(cifar_module.kernel.__wrapped__))
        with monkeypatch.context() as patched:
            patched.setattr(cifar_module, "kernel", KERNELS[-1])
            patched.setattr(broken, name, by)
            assert cifar_module.cropped(pixels, np.zeros(1, np.int64), none, none, none, mean, 0).mean() == 1


def test_more_images_in_a_batch_than_there_are():
    with pytest.raises(ValueError, match="a batch of 5000 is more than the training set holds"):
        reslib.loader(replace(DIGITS, batch=5000), "train")


class Killed(torch.utils.data.Dataset):
    """Its worker ends as where shared memory is too small."""

    def __len__(self):
        return 1

    def __getitem__(self, _):
        os.kill(os.getpid(), signal.SIGBUS)


def test_a_worker_that_is_killed_is_one_sentence():
    with pytest.raises(OSError, match="images could not be read .*worker.*: is there memory left, and room in /dev/shm"):
        list(cifar_module.from_workers(Killed(), 1, 1))
