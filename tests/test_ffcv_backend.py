"""The ffcv backend gives the batches it is asked for, bit for bit, or an error in seconds: never a hang, leak or lie."""

import gc
import hashlib
import json
import os
import resource
import signal
import subprocess
import sys
import textwrap
import threading
import time

import numpy as np
import pytest
import torch

from reslib import data, ffcv_backend

pytestmark = pytest.mark.skipif(not ffcv_backend.available(), reason="FFCV is not installed here")

COUNT, SIZE, PAD = 3000, 16, 2  # two pages of 2 MiB: 2,730 images of 16 x 16 fill one


def make_images(folder, count=COUNT, size=SIZE, seed=0) -> data.Images:
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 256, (count, size, size, 3), dtype=np.uint8)
    labels = rng.integers(0, 10, count)
    sha256 = hashlib.sha256(pixels.tobytes() + labels.tobytes()).hexdigest()
    return data.Images(f"noise-{size}px-train", pixels, labels, sha256, folder)


def make_plan(images: data.Images, seed=0, n=None) -> data.Plan:
    rng = np.random.default_rng(seed)
    ids = rng.permutation(len(images.labels))[:n]
    dy, dx = rng.integers(0, 2 * PAD + 1, (2, len(ids)), dtype=np.uint8)
    return data.Plan(ids, dy, dx, rng.integers(0, 2, len(ids), dtype=np.uint8))


MEAN = np.random.default_rng(9).random((SIZE, SIZE, 3), dtype=np.float32)


def batches(images, plan=None, batch_size=128, workers=1):
    return ffcv_backend.batches(images, plan or make_plan(images), MEAN, PAD, batch_size, workers)


def reference(images: data.Images, plan: data.Plan) -> np.ndarray:
    """(n, H, W, 3) in plain numpy: subtract the mean, lay zeros round it, crop, mirror."""
    whole = np.pad(data.BYTE[images.pixels[plan.ids]] - MEAN, ((0, 0), (PAD, PAD), (PAD, PAD), (0, 0)))
    crops = [image[y : y + SIZE, x : x + SIZE] for image, y, x in zip(whole, plan.dy, plan.dx, strict=True)]
    return np.stack([crop[:, ::-1] if flip else crop for crop, flip in zip(crops, plan.flip, strict=True)])


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> data.Images:
    images = make_images(tmp_path_factory.mktemp("data"))
    for _ in batches(images, workers=2):
        pass  # compiled, and warm, for all that follows
    return images


@pytest.fixture
def broken(monkeypatch):
    """A kernel that fails at its third batch."""
    kernel, calls = data.kernel(), []

    def fails(*args):
        calls.append(1)
        if len(calls) == 3:
            raise ZeroDivisionError("the third batch")
        kernel(*args)

    monkeypatch.setattr(data, "kernel", lambda: fails)


# --- what comes out --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [0, 1, 2, 5, 40])
@pytest.mark.parametrize(("n", "batch_size"), [(COUNT, 128), (256, 128), (1, 128), (0, 128), (70, 1)])
def test_batches_are_the_reference_bit_for_bit(images, workers, n, batch_size):
    plan = make_plan(images, seed=n, n=n)
    got = list(batches(images, plan, batch_size, workers))
    assert [len(y) for _, y in got] == [min(batch_size, n - i) for i in range(0, n, batch_size)]
    for x, y in got:
        assert x.dtype == torch.float32 and y.dtype == torch.int64
        assert x.shape[1:] == (3, SIZE, SIZE) and x.is_contiguous(memory_format=torch.channels_last)
    if n:  # kept until here: memory is fresh
        assert torch.equal(torch.cat([y for _, y in got]), torch.from_numpy(images.labels[plan.ids]))
        expected = torch.from_numpy(reference(images, plan)).permute(0, 3, 1, 2)
        assert torch.equal(torch.cat([x for x, _ in got]), expected)


def test_other_backends_give_the_same(images):
    plan = make_plan(images)
    got = batches(images, plan, workers=2)
    for (x, y), (x2, y2) in zip(got, data.array_batches(images, plan, MEAN, PAD, 128, "cpu"), strict=True):
        assert torch.equal(x, x2) and torch.equal(y, y2) and x.stride() == x2.stride()


def test_two_live_iterators_do_not_meet(images):
    plans = make_plan(images, seed=1), make_plan(images, seed=2)
    both = zip(batches(images, plans[0], workers=2), batches(images, plans[1], workers=2), strict=True)
    pairs = list(both)
    for k, plan in enumerate(plans):
        got = torch.cat([pair[k][0] for pair in pairs]).permute(0, 2, 3, 1).numpy()
        assert np.array_equal(got, reference(images, plan))


def test_from_several_threads_at_once(images):
    plans, got = [make_plan(images, seed=s) for s in range(4)], {}

    def load(s):
        got[s] = torch.cat([x for x, _ in batches(images, plans[s], workers=2)]).permute(0, 2, 3, 1).numpy()

    threads = [threading.Thread(target=load, args=(s,)) for s in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert all(np.array_equal(got[s], reference(images, plans[s])) for s in range(4))


@pytest.mark.parametrize("ids", [[-1, 0], [0, COUNT], [5, 5]])
def test_ids_out_of_range_or_twice(images, ids):
    draw = np.zeros(2, np.uint8)
    with pytest.raises(ValueError, match=f"from 0 to {COUNT - 1}"):
        batches(images, data.Plan(np.array(ids), draw, draw, draw))


@pytest.mark.parametrize(("batch_size", "workers"), [(0, 1), (128, -1)])
def test_bad_numbers(images, batch_size, workers):
    with pytest.raises(ValueError, match=f"batch_size {batch_size} .* workers {workers} "):
        batches(images, batch_size=batch_size, workers=workers)


def test_unequal_columns(images):
    with pytest.raises(ValueError, match="unequal columns"):
        batches(images, make_plan(images)._replace(dy=np.zeros(3, np.uint8)))


# --- how it ends -----------------------------------------------------------------------------------------------------


def test_past_the_end(images):
    got = batches(images, make_plan(images, n=100))
    next(got)
    for _ in range(3):
        with pytest.raises(StopIteration):
            next(got)


@pytest.mark.parametrize("workers", [1, 2])
def test_an_error_in_a_thread_reaches_the_caller(images, broken, workers):
    threads, start = threading.active_count(), time.monotonic()
    with pytest.raises(ZeroDivisionError, match="the third batch"):
        list(batches(images, workers=workers))
    assert time.monotonic() - start < 10 and threading.active_count() == threads


def test_a_stuck_thread_is_given_up(images, monkeypatch):
    release = threading.Event()
    monkeypatch.setattr(data, "kernel", lambda: lambda *_: release.wait(30))
    monkeypatch.setattr(ffcv_backend, "PATIENCE", 1.0)
    start = time.monotonic()
    with pytest.raises(TimeoutError, match=r"noise-16px-train\.beton"):
        next(batches(images))
    assert time.monotonic() - start < 10
    release.set()


def resident() -> float:
    """MB of this process."""
    gc.collect()
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


@pytest.mark.parametrize("how", ["break", "error", "close", "unused"])
def test_a_hundred_epochs_left_early_leave_nothing(images, how):
    plan = make_plan(images)
    next(batches(images, plan, workers=2))
    threads, memory = len(os.listdir("/proc/self/task")), resident()
    for _ in range(100):
        if how == "break":
            for _ in batches(images, plan, workers=2):
                break
        elif how == "error":
            with pytest.raises(KeyError):
                for _ in batches(images, plan, workers=2):
                    raise KeyError
        elif how == "close":
            got = batches(images, plan, workers=2)
            next(got)
            got.close()
        else:
            batches(images, plan, workers=2)
    until = time.monotonic() + 5  # a thread that has been joined still has to leave the kernel
    while len(os.listdir("/proc/self/task")) > threads and time.monotonic() < until:
        time.sleep(0.01)
    assert len(os.listdir("/proc/self/task")) <= threads
    assert resident() - memory < 30


def test_threads_of_torch_and_numba_stay_as_they_were(tmp_path):
    import numba

    before = torch.get_num_threads(), numba.get_num_threads()
    for workers in (1, 2, 9):
        for k, _ in enumerate(batches(make_images(tmp_path, 500), workers=workers)):
            assert k > 4 or (torch.get_num_threads(), numba.get_num_threads()) == before
    assert (torch.get_num_threads(), numba.get_num_threads()) == before


def python(code: str, **options) -> subprocess.CompletedProcess:
    """Runs a small program that has this file's helpers."""
    here = os.path.dirname(os.path.abspath(__file__))
    code = f"import sys; sys.path[:0] = {[here, os.path.dirname(here)]}\n" + textwrap.dedent(code)
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, **options)


def test_interrupted_and_left_open(tmp_path):
    """Ctrl-C while a batch is awaited; then the interpreter ends with another iterator alive."""
    run = python(f"""
        import pathlib, signal, threading, time, os
        from test_ffcv_backend import *
        images = make_images(pathlib.Path({str(tmp_path)!r}), 500)
        list(batches(images))
        quick = data.kernel()
        data.kernel = lambda: lambda *args: (time.sleep(1), quick(*args))
        signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
        threading.Timer(0.5, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
        start = time.monotonic()
        try:
            for _ in batches(images, workers=2):
                pass
        except KeyboardInterrupt:
            alive = [thread for thread in threading.enumerate() if thread.name.startswith("ffcv")]
            print(time.monotonic() - start < 10, alive)
        data.kernel = lambda: quick
        got = batches(images, batch_size=2, workers=2)
        next(got), next(got)
    """)
    assert (run.returncode, run.stdout, run.stderr) == (0, "True []\n", "")


# --- writing ---------------------------------------------------------------------------------------------------------


def test_the_file_is_what_ffcv_writes(tmp_path, images):
    run = python(f"""
        import pathlib
        from test_ffcv_backend import *
        from ffcv.fields import IntField, NDArrayField
        from ffcv.writer import DatasetWriter
        images = make_images(pathlib.Path({str(tmp_path)!r}))
        fields = {{"image": NDArrayField(np.dtype("u1"), (SIZE, SIZE, 3)), "label": IntField()}}
        writer = DatasetWriter({str(tmp_path / "theirs")!r}, fields, page_size=1 << 21, num_workers=1)
        writer.from_indexed_dataset(list(zip(images.pixels, images.labels)))
    """)
    assert run.returncode == 0, run.stderr
    assert (tmp_path / "theirs").read_bytes() == ffcv_backend.write(images).read_bytes()


def test_the_sidecar(images):
    path = ffcv_backend.write(images)
    sidecar = json.loads(path.with_name(path.name + ".json").read_bytes())
    assert sidecar["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert (sidecar["size"], sidecar["count"], sidecar["shape"]) == (path.stat().st_size, COUNT, [SIZE, SIZE, 3])
    assert sidecar["source"] == images.sha256 and sidecar["versions"]["ffcv"] == "1.0.2"


def test_written_once_and_anew_when_the_source_changes(tmp_path):
    images = make_images(tmp_path, 300)
    path = ffcv_backend.write(images)
    first = path.stat()
    assert ffcv_backend.write(images).stat() == first
    others = make_images(tmp_path, 300, seed=1)
    plan = make_plan(others)
    got = torch.cat([x for x, _ in batches(others, plan)]).permute(0, 2, 3, 1).numpy()
    assert np.array_equal(got, reference(others, plan))
    assert path.stat().st_ino != first.st_ino
    assert sorted(os.listdir(path.parent)) == [path.name, path.name + ".json"]


@pytest.mark.parametrize("name", ["", ".json"])
def test_one_of_the_two_is_missing(tmp_path, name):
    images = make_images(tmp_path, 300)
    path = ffcv_backend.write(images)
    path.with_name(path.name + name).unlink()
    assert len(list(batches(images))) == 3


@pytest.mark.parametrize(
    "bad",
    [
        {"pixels": np.zeros((3, 8, 8, 3), np.float32)},
        {"pixels": np.zeros((3, 8, 8, 1), np.uint8)},
        {"pixels": np.zeros((0, 8, 8, 3), np.uint8)},
        {"labels": np.zeros(2, np.int64)},
        {"labels": np.zeros(3, np.int32)},
    ],
)
def test_bad_samples(tmp_path, bad):
    good = {"pixels": np.zeros((3, 8, 8, 3), np.uint8), "labels": np.zeros(3, np.int64)}
    with pytest.raises(ValueError, match=r"x\.beton is not written"):
        ffcv_backend.write(data.Images("x", **(good | bad), sha256="", folder=tmp_path))
    assert not os.listdir(tmp_path)


@pytest.mark.parametrize("limit", [1000, 3 << 20, (6 << 20) + 100])
def test_full_disk(tmp_path, limit):
    images, before = make_images(tmp_path), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))  # bytes in a file; Python ignores the signal
    try:
        with pytest.raises(OSError, match=r"noise-16px-train\.beton could not be written, and no part .*: File too large"):
            ffcv_backend.write(images)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert os.listdir(tmp_path / "beton") == []
    assert ffcv_backend.write(images).exists()


def test_no_folder_to_write_to(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match=r"noise-16px-train\.beton could not be written.*Not a directory"):
        ffcv_backend.write(make_images(tmp_path / "file"))


def test_killed_while_writing(tmp_path):
    run = python(f"""
        import pathlib
        from test_ffcv_backend import *
        os.fsync = lambda _: os.kill(os.getpid(), signal.SIGKILL)
        ffcv_backend.write(make_images(pathlib.Path({str(tmp_path)!r})))
    """)
    assert run.returncode == -signal.SIGKILL
    left = list((tmp_path / "beton").iterdir())
    assert left and all(file.suffix == ".part" for file in left)
    for file in left:
        os.utime(file, (1, 1))  # long ago
    images = make_images(tmp_path)
    path = ffcv_backend.write(images)
    assert sorted(os.listdir(path.parent)) == [path.name, path.name + ".json"]
    assert len(list(batches(images))) == 24


# --- damage ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def small(tmp_path) -> data.Images:
    images = make_images(tmp_path, 50)
    list(batches(images))
    return images


def test_every_flipped_byte_is_refused(small):
    path, rng = ffcv_backend.write(small), np.random.default_rng(0)
    size, tables = path.stat().st_size, 2106 + 50 * 16
    parts = [(0, 24), (24, 2106), (2106, tables), (tables, 1 << 21), (1 << 21, (1 << 21) + 50 * 768), (size - 50 * 24, size)]
    with open(path, "r+b", buffering=0) as file:
        for start, end in parts:
            for place in rng.integers(start, end, 60):
                file.seek(place)
                was = file.read(1)[0]
                file.seek(place)
                file.write(bytes([was ^ int(rng.integers(1, 256))]))
                with pytest.raises(ValueError, match=rf"{path.name} is damaged .*delete it"):
                    batches(small)
                file.seek(place)
                file.write(bytes([was]))
    assert len(list(batches(small))) == 1


def test_header_and_tables_are_read_even_if_the_sidecar_agrees(small):
    path, rng = ffcv_backend.write(small), np.random.default_rng(0)
    good, note = path.read_bytes(), path.with_name(path.name + ".json")
    sidecar = json.loads(note.read_bytes())
    for place in [*range(24), *rng.integers(24, 2106 + 50 * 16, 60), *rng.integers(len(good) - 50 * 24, len(good), 60)]:
        bad = bytearray(good)
        bad[place] ^= int(rng.integers(1, 256))
        path.write_bytes(bad)
        note.write_text(json.dumps(sidecar | {"sha256": hashlib.sha256(bad).hexdigest()}))
        with pytest.raises(ValueError, match=r"its header or tables are not"):
            batches(small)


def test_every_truncation_is_refused(small):
    path = ffcv_backend.write(small)
    good = path.read_bytes()
    for size in [0, 1, 23, 24, 2106, 1 << 21, len(good) - 1, *np.random.default_rng(0).integers(0, len(good), 50)]:
        path.write_bytes(good[:size])
        with pytest.raises(ValueError, match=f"its {size} bytes are not as many"):
            batches(small)
    path.write_bytes(good + b"\0")
    with pytest.raises(ValueError, match="bytes are not as many"):
        batches(small)


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", "null", '{"schema": 1}', "\x00\xff"])
def test_an_unreadable_sidecar_is_refused(small, text):
    path = ffcv_backend.write(small)
    path.with_name(path.name + ".json").write_text(text)
    with pytest.raises(ValueError, match=rf"{path.name} is damaged \(its sidecar cannot be read\)"):
        batches(small)


def test_damage_after_opening_reaches_no_batch(images, tmp_path):
    images = images._replace(folder=tmp_path)
    path, plan = ffcv_backend.write(images), make_plan(images)
    got = batches(images, plan, batch_size=100, workers=2)
    first, _ = next(got)
    with open(path, "r+b") as file:
        file.write(bytes(1 << 21))
        file.truncate(3 << 20)
    whole = torch.cat([first, *(x for x, _ in got)]).permute(0, 2, 3, 1).numpy()
    assert np.array_equal(whole, reference(images, plan))
    with pytest.raises(ValueError, match="is damaged"):
        batches(images, plan)


def test_an_old_file_is_hashed_once(small, monkeypatch):
    path = ffcv_backend.write(small)
    os.utime(path, (1e9, 1e9))
    list(batches(small))
    monkeypatch.setattr(hashlib, "sha256", None)
    assert len(list(batches(small))) == 1


# --- without it ------------------------------------------------------------------------------------------------------


def test_reslib_works_without(tmp_path):
    run = python(f"""
        import pathlib, numpy as np
        import reslib
        from reslib import data, ffcv_backend
        print([name for name in ("ffcv", "numba", "cv2") if name in sys.modules])
        for absent in ("cv2", "numba", "ffcv"):
            sys.modules[absent] = None
            print(ffcv_backend.available.__wrapped__())
            del sys.modules[absent]
        sys.modules["ffcv"] = None
        pixels, labels = np.zeros((1, 8, 8, 3), np.uint8), np.zeros(1, int)
        ffcv_backend.write(data.Images("x", pixels, labels, "", pathlib.Path({str(tmp_path)!r})))
    """)
    assert run.stdout == "[]\nFalse\nFalse\nFalse\n"
    assert run.stderr.splitlines()[-1].startswith(f"ImportError: {tmp_path}/beton/x.beton needs FFCV")
