"""The ffcv backend gives the batches it is asked for, bit for bit, or an error in seconds: never a hang, leak or lie."""

import errno
import gc
import hashlib
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from reslib import data
from reslib.data import cifar, fast, writer

pytestmark = pytest.mark.skipif(not fast.available(), reason="FFCV is not installed here")

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
    return cifar.ffcv_batches(images, plan or make_plan(images), MEAN, PAD, batch_size, workers)


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


def test_a_default_device_that_a_caller_has_set_does_not_matter(images):
    expected, _ = next(batches(images))
    with torch.device("meta"):
        found, _ = next(batches(images))
    assert torch.equal(found, expected)


@pytest.fixture
def broken(monkeypatch):
    """A kernel that fails at its third batch."""
    kernel, calls = cifar.kernel(), []

    def fails(*args):
        calls.append(1)
        if len(calls) == 3:
            raise ZeroDivisionError("the third batch")
        kernel(*args)

    monkeypatch.setattr(cifar, "kernel", lambda: fails)


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
    for (x, y), (x2, y2) in zip(got, cifar.array_batches(images, plan, MEAN, PAD, 128, "cpu"), strict=True):
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


@pytest.mark.parametrize("ids", [[-1, 0], [0, COUNT]])
def test_ids_out_of_range(images, ids):
    draw = np.zeros(2, np.uint8)
    with pytest.raises(ValueError, match=f"from 0 to {COUNT - 1}"):
        batches(images, data.Plan(np.array(ids), draw, draw, draw))


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


def test_threads_of_torch_and_numba_stay_as_they_were(images):
    import numba

    before = torch.get_num_threads(), numba.get_num_threads()
    fast._loaders.clear()
    fast._verified.clear()
    for workers in (1, 2, 9):
        for k, _ in enumerate(batches(images, workers=workers)):
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
        from test_fast import *
        images = make_images(pathlib.Path({str(tmp_path)!r}), 500)
        list(batches(images))
        quick = cifar.kernel()
        cifar.kernel = lambda: lambda *args: (time.sleep(1), quick(*args))
        signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
        threading.Timer(0.5, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
        start = time.monotonic()
        try:
            for _ in batches(images, workers=2):
                pass
        except KeyboardInterrupt:
            print(time.monotonic() - start < 10, threading.active_count())
        cifar.kernel = lambda: quick
        got = batches(images, batch_size=2, workers=2)
        next(got), next(got)
    """)
    assert (run.returncode, run.stdout, run.stderr) == (0, "True 1\n", "")


# --- writing ---------------------------------------------------------------------------------------------------------


def test_the_sidecar_and_the_files_left(images):
    path = cifar.stored(images)
    note = json.loads(path.with_name(path.name + ".json").read_bytes())
    assert note["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert (note["size"], note["count"], note["fields"]) == (path.stat().st_size, COUNT, ["image", "label"])
    assert note["source"] == images.sha256 and note["versions"]["ffcv"] == "1.0.2"
    assert fast.check(path) == note and sorted(os.listdir(path.parent)) == [path.name, path.name + ".json"]


def test_written_once_and_anew_when_the_source_changes(small):
    path = cifar.stored(small)
    first = path.stat()
    assert cifar.stored(small).stat() == first
    others = make_images(small.folder, 300, seed=1)
    plan = make_plan(others)
    got = torch.cat([x for x, _ in batches(others, plan)]).permute(0, 2, 3, 1).numpy()
    assert np.array_equal(got, reference(others, plan)) and path.stat().st_ino != first.st_ino
    path.with_name(path.name + ".json").unlink()  # as beside a file never finished
    assert len(list(batches(others))) == 3


def test_full_disk(tmp_path):
    images, before = make_images(tmp_path), resource.getrlimit(resource.RLIMIT_FSIZE)
    shared = set(os.listdir("/dev/shm"))
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))  # bytes in a file; Python ignores the signal
    try:
        with pytest.raises(OSError, match=r"noise-16px-train\.beton could not be written, and no part .*File too large"):
            cifar.stored(images)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not (tmp_path / "beton").exists()
    wait_until_gone(shared)


def wait_until_gone(before: set) -> None:
    """What is new in shared memory goes within seconds; other tests beside this one may go on making more."""
    new = {name for name in set(os.listdir("/dev/shm")) - before if name.startswith("psm_")}
    until = time.monotonic() + 20
    while left := new & set(os.listdir("/dev/shm")):
        assert time.monotonic() < until, left
        time.sleep(0.1)


def test_no_folder_to_write_to(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match=r"noise-16px-train\.beton could not be written.*Not a directory"):
        cifar.stored(make_images(tmp_path / "file"))


def descendants(pid: int) -> list[int]:
    """Processes, and theirs, that are still there."""
    try:
        found = [int(p) for p in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []
    return found + [q for p in found for q in descendants(p)]


def apart() -> list[int]:
    """The process in which files are written, and those that it has forked."""
    names = {p: Path(f"/proc/{p}/cmdline") for p in descendants(os.getpid())}
    return [p for p, name in names.items() if name.exists() and b"writer._apart" in name.read_bytes()]


def kill_one_of_two(which: int) -> None:
    while len(apart()) < 2:
        time.sleep(0.5)
    time.sleep(0.5)
    os.kill(apart()[which], signal.SIGKILL)


class Waiting(list):
    """Samples the third of which never comes."""

    def __getitem__(self, i):
        time.sleep(1000 if i == 2 else 0)
        return super().__getitem__(i)


@pytest.mark.parametrize("who", ["the writer", "its worker"])
def test_a_killed_process_is_an_error_in_seconds(tmp_path, who):
    """And nothing is left, of files, processes or shared memory."""
    from ffcv.fields import IntField, NDArrayField

    shared, killed = set(os.listdir("/dev/shm")), []

    def kill():
        kill_one_of_two(who == "its worker")
        killed.append(time.monotonic())

    threading.Thread(target=kill, daemon=True).start()
    fields = {"image": NDArrayField(np.dtype("u1"), (4,)), "label": IntField()}
    with pytest.raises(OSError, match=r"x\.beton could not be written, and no part of it is kept: a process .* was killed"):
        make = partial(writer.dataset, Waiting([(np.zeros(4, np.uint8), 0)] * 5), fields, writer.PAGE, 1)
        writer.write(tmp_path / "x.beton", make, {"source": ""}, total=5)
    assert time.monotonic() - killed[0] < 30 and os.listdir(tmp_path) == [] and apart() == []
    wait_until_gone(shared)


def test_what_a_killed_process_left_goes_with_the_next(small):
    path = cifar.stored(small)
    part = path.with_name(f"{path.name}.elsewhere-1-1.part")
    part.touch()
    os.utime(part, (1, 1))
    os.unlink(path)
    cifar.stored(small)
    assert sorted(os.listdir(path.parent)) == [path.name, path.name + ".json"]


# --- damage ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> data.Images:
    images = make_images(tmp_path_factory.mktemp("small"), 50)
    list(batches(images))
    return images


@pytest.fixture
def small(written, tmp_path) -> data.Images:
    shutil.copytree(written.folder / "beton", tmp_path / "beton")
    return written._replace(folder=tmp_path)


def refused(images: data.Images, says: str = "") -> bool:
    with pytest.raises(ValueError, match=rf"{images.name}.beton is damaged \(.*{says}.*\): delete it"):
        list(batches(images))
    return True


def test_every_flipped_byte_is_refused(small):
    path, rng = cifar.stored(small), np.random.default_rng(0)
    size, tables = path.stat().st_size, 2106 + 50 * 16
    parts = [(0, 24), (24, 2106), (2106, tables), (tables, 1 << 21), (1 << 21, (1 << 21) + 50 * 768), (size - 50 * 24, size)]
    with open(path, "r+b", buffering=0) as file:
        for start, end in parts:
            for place in rng.integers(start, end, 30):
                file.seek(place)
                was = file.read(1)[0]
                file.seek(place)
                file.write(bytes([was ^ int(rng.integers(1, 256))]))
                assert refused(small, "sha256")
                file.seek(place)
                file.write(bytes([was]))
    assert len(list(batches(small))) == 1


def test_every_truncation_and_other_things_in_its_place_are_refused(small):
    path = cifar.stored(small)
    good = path.read_bytes()
    for size in [0, 1, 23, 24, 2106, 1 << 21, len(good) - 1, *np.random.default_rng(0).integers(0, len(good), 50)]:
        path.write_bytes(good[:size])
        assert refused(small, f"its {size} bytes are not as many")
    path.write_bytes(good + b"\0")
    assert refused(small, "bytes are not as many")
    path.write_bytes(bytes(len(good)))
    assert refused(small, "sha256")
    path.unlink()
    path.mkdir()
    assert refused(small)


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", "null", '{"schema": 2}', "\x00\xff"])
def test_an_unreadable_sidecar_is_refused(small, text):
    path = cifar.stored(small)
    path.with_name(path.name + ".json").write_text(text)
    assert refused(small, "its sidecar cannot be read")


def test_damage_after_opening_reaches_no_batch(images, tmp_path):
    shutil.copytree(images.folder / "beton", tmp_path / "beton")
    images = images._replace(folder=tmp_path)
    path, plan = cifar.stored(images), make_plan(images)
    got = batches(images, plan, batch_size=100, workers=2)
    first, _ = next(got)
    with open(path, "r+b") as file:
        file.write(bytes(1 << 21))
        file.truncate(3 << 20)
    whole = torch.cat([first, *(x for x, _ in got)]).permute(0, 2, 3, 1).numpy()
    assert np.array_equal(whole, reference(images, plan))
    assert refused(images)


def test_an_old_file_is_hashed_once(small, monkeypatch):
    path = cifar.stored(small)
    os.utime(path, (1e9, 1e9))
    list(batches(small))
    monkeypatch.setattr(hashlib, "sha256", None)
    assert len(list(batches(small))) == 1


# --- without it ------------------------------------------------------------------------------------------------------


def test_reslib_works_without(tmp_path):
    run = python(f"""
        import pathlib, numpy as np
        import reslib
        from reslib import data
        from reslib.data import cifar, fast
        print([name for name in ("ffcv", "numba", "cv2") if name in sys.modules])
        for absent in ("cv2", "numba", "ffcv"):
            sys.modules[absent] = None
            print(fast.available.__wrapped__())
            del sys.modules[absent]
        sys.modules["ffcv"] = None
        pixels, labels = np.zeros((1, 8, 8, 3), np.uint8), np.zeros(1, int)
        cifar.stored(data.Images("x", pixels, labels, "", pathlib.Path({str(tmp_path)!r})))
    """)
    assert run.stdout == "[]\nFalse\nFalse\nFalse\n"
    assert run.stderr.splitlines()[-1].startswith(f"ImportError: {tmp_path}/beton/x.beton needs FFCV")


def test_what_may_not_be_read_is_not_called_damaged(tmp_path, monkeypatch):
    """As where another user of a shared folder made it: to delete it, as a damaged one, would lose the work."""
    path = tmp_path / "imagenet-train-raw-480.beton"
    path.touch()
    note = dict.fromkeys(("size", "head", "table", "sha256", "tables", "source", "fields"), 0) | {"schema": fast.SCHEMA}
    Path(f"{path}.json").write_text(json.dumps(note))

    def denied(*_, **__):
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    for name, reads in (("read_bytes", fast.sidecar), ("stat", fast.opened)):
        with monkeypatch.context() as patched, pytest.raises(PermissionError, match=path.name):
            patched.setattr(Path, name, denied)
            reads(path)
