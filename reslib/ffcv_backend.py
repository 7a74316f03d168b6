"""FFCV behind guards: a .beton file written, verified and read so that nothing hangs, leaks, crashes or lies.

    folder/beton/cifar10-16px-train.beton        bytes and labels in FFCV's format; sample i of the file is sample id i
    folder/beton/cifar10-16px-train.beton.json   its sidecar: size, sha256, count, shape, fields, source, versions

Written here, not by FFCV's writer, which hangs when one of its processes dies: the format is a header, two tables and
pages of bytes, and the file is the same byte for byte. It is read into memory and verified before FFCV sees it. Damage
is refused, never silently repaired; a file whose source has changed is written anew.

FFCV (1.0.2) decodes, in as many threads as there are workers, and in each data.py's fused kernel crops, flips and
subtracts the mean into fresh memory. numba's own threads are not used: their number and layer do not matter.
"""

import contextlib
import hashlib
import json
import os
import platform
import queue
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from functools import cache
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

SCHEMA = 1  # of the sidecar; with another number the file is written anew
PAGE = 1 << 21  # bytes: FFCV's unit of allocation, its smallest
PATIENCE = 60.0  # seconds without a batch before giving up
STALE = 3600.0  # seconds after which a temporary file is a killed process's


@contextlib.contextmanager
def _as_before() -> Iterator[None]:
    """FFCV sets torch's and numba's threads, on import too, and warns of its old age: none of it gets out."""
    import numba

    torch_threads, numba_threads = torch.get_num_threads(), numba.get_num_threads()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        torch.set_num_threads(torch_threads)
        numba.set_num_threads(numba_threads)


@cache
def available() -> bool:
    """Whether FFCV can be imported, its extension and the libraries under it too. Takes seconds, once."""
    try:
        with _as_before():
            import ffcv.loader  # noqa: F401
    except (ImportError, OSError):
        return False
    return True


# --- writing and verifying -------------------------------------------------------------------------------------------


def _frame(shape: tuple[int, ...], labels: np.ndarray) -> tuple[bytes, bytes]:
    """What stands before and after the pages of a file of images of `shape` (N, H, W, 3): ffcv/types.py, version 2.

    A page holds as many whole images as fit. Before: header, fields, each sample's pointer and label; zeros up to the
    first page. After: the allocation table.
    """
    from ffcv.fields import IntField, NDArrayField
    from ffcv.types import ALLOC_TABLE_TYPE, CURRENT_VERSION, TYPE_ID_HANDLER, FieldDescType, HeaderType

    count, size = shape[0], int(np.prod(shape[1:]))
    fields = np.zeros(2, FieldDescType)
    for i, (name, field) in enumerate(((b"image", NDArrayField(np.dtype("u1"), shape[1:])), (b"label", IntField()))):
        fields[i]["type_id"] = next(number for number, kind in TYPE_ID_HANDLER.items() if kind is type(field))
        fields[i]["name"][:5], fields[i]["arguments"][:] = list(name), field.to_binary()[0]
    samples, table = np.zeros(count, [("image", "<u8"), ("label", "<i8")]), np.zeros(count, ALLOC_TABLE_TYPE)
    start = HeaderType.itemsize + fields.nbytes + samples.nbytes
    start += -start % PAGE
    page, place = np.divmod(np.arange(count), PAGE // size)
    end = start + int(page[-1] + 1) * PAGE
    samples["image"], samples["label"] = start + page * PAGE + place * size, labels
    table["sample_id"], table["ptr"], table["size"] = np.arange(count), samples["image"], size
    header = np.array((CURRENT_VERSION, len(fields), PAGE, count, end), HeaderType)
    return (header.tobytes() + fields.tobytes() + samples.tobytes()).ljust(start, b"\0"), table.tobytes()


def write(images) -> Path:
    """The .beton file of `images` (data.Images): images.folder/beton/<name>.beton, written unless it is there.

    Raises ImportError without FFCV, ValueError for images that are none and for an unreadable sidecar, OSError if the
    file cannot be written (a full disk). Each names the file; nothing half-written stays.
    """
    pixels, labels = images.pixels, images.labels
    path = Path(images.folder) / "beton" / f"{images.name}.beton"
    if not available():
        raise ImportError(f"{path} needs FFCV, which is not installed or lacks its libraries: use backend='array'.")
    if pixels.dtype != np.uint8 or pixels.ndim != 4 or pixels.shape[3] != 3 or not 0 < pixels[:1].size <= PAGE:
        raise ValueError(f"{path} is not written: {pixels.dtype} {pixels.shape} are not images, uint8 (N, H, W, 3).")
    if labels.dtype != np.int64 or labels.shape != pixels.shape[:1] or labels.min() < 0:
        raise ValueError(f"{path} is not written: its labels are not {len(pixels)} int64 numbers from 0 on.")
    sidecar = _sidecar(path)
    if path.exists() and sidecar and (sidecar["schema"], sidecar["source"]) == (SCHEMA, images.sha256):
        return path
    before, after = _frame(pixels.shape, labels)
    a_page = PAGE // pixels[0].size  # images
    pages = (pixels[i : i + a_page].tobytes().ljust(PAGE, b"\0") for i in range(0, len(pixels), a_page))
    digest, size = hashlib.sha256(), 0
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        for left in path.parent.glob(f"{path.name}.*.part"):
            if time.time() - left.stat().st_mtime > STALE:
                left.unlink(missing_ok=True)
        with _renamed(path) as file:
            for chunk in (before, *pages, after):
                digest.update(chunk)
                size += file.write(chunk)
        sidecar = {
            "schema": SCHEMA, "size": size, "sha256": digest.hexdigest(), "count": len(labels),
            "shape": pixels.shape[1:], "fields": ["image", "label"], "source": images.sha256,
            "versions": {"ffcv": version("ffcv"), "numpy": np.__version__, "python": platform.python_version()},
        }  # fmt: skip
        with _renamed(Path(f"{path}.json")) as file:
            file.write(json.dumps(sidecar, indent=1).encode() + b"\n")
    except OSError as error:
        raise OSError(f"{path} could not be written, and no part of it is kept: {error.strerror or error}.") from error
    return path


@contextlib.contextmanager
def _renamed(path: Path) -> Iterator:
    """A temporary file beside `path` to write into; on the disk and renamed when done, gone when not."""
    with tempfile.NamedTemporaryFile(prefix=f"{path.name}.", suffix=".part", dir=path.parent, delete=False) as file:
        try:
            yield file
            file.flush()
            os.fsync(file.fileno())
            os.chmod(file.name, 0o644)
            os.replace(file.name, path)
        except BaseException:
            os.unlink(file.name)
            raise


def _damaged(path: Path, what: str) -> ValueError:
    return ValueError(f"{path} is damaged ({what}): delete it and {path.name}.json, they are made again from the data.")


def _sidecar(path: Path) -> dict | None:
    """A .beton's sidecar; None where there is none, as beside a file never finished. ValueError if unreadable."""
    try:
        sidecar = json.loads(Path(f"{path}.json").read_bytes())
        [sidecar[key] for key in ("schema", "size", "sha256", "count", "shape", "fields", "source")]
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError):
        raise _damaged(path, "its sidecar cannot be read") from None
    return sidecar


_verified: dict[Path, tuple[tuple, str, np.ndarray]] = {}  # path -> (time, size, inode), sha256 and bytes of the file


def _verify(path: Path, images) -> tuple[str, np.ndarray]:
    """The file's sha256 and bytes, read once in a process; ValueError unless they fit sidecar, format and images.

    FFCV is given these bytes, so that nothing that happens to the file afterwards can reach a batch.
    """
    sidecar, stat = _sidecar(path), path.stat()
    state = stat.st_mtime_ns, stat.st_size, stat.st_ino
    if sidecar is None or sidecar["size"] != stat.st_size:
        raise _damaged(path, f"its {stat.st_size} bytes are not as many as its sidecar says")
    known, sha256, raw = _verified.get(path, (None, None, None))
    if (known, sha256) == (state, sidecar["sha256"]):
        return sha256, raw
    raw = np.fromfile(path, np.uint8)
    raw.flags.writeable = False
    sha256 = hashlib.sha256(raw).hexdigest()
    if sha256 != sidecar["sha256"]:
        raise _damaged(path, "its sha256 is not what its sidecar says")
    before, after = _frame(images.pixels.shape, images.labels)
    if raw[: len(before)].tobytes() != before or raw[-len(after) :].tobytes() != after:
        raise _damaged(path, "its header or tables are not those of these images")
    if time.time() - stat.st_mtime > 1:  # a younger file could change again within the same tick of the clock
        _verified[path] = state, sha256, raw
    return sha256, raw


# --- reading ---------------------------------------------------------------------------------------------------------


@cache
def _ffcv() -> tuple[type, type]:
    """Our operation and our epoch thread: they inherit from FFCV, which is imported only here."""
    from dataclasses import replace

    from ffcv.loader.epoch_iterator import EpochIterator
    from ffcv.pipeline.operation import Operation

    class Augment(Operation):
        """Decoded bytes (B, H, W, 3) and their ids -> float32 (B, 3, H, W) in fresh memory, by data.py's kernel."""

        def declare_state_and_memory(self, previous_state):
            return replace(previous_state, jit_mode=False), None  # called from Python: the kernel is compiled already

        def aim(self, plan, mean: np.ndarray, pad: int, count: int) -> None:
            """One epoch's crops, laid out by sample id: an operation is told ids, not positions."""
            self.draws = np.zeros((3, count), np.uint8)
            self.draws[:, plan.ids] = plan.dy, plan.dx, plan.flip
            self.mean, self.pad = np.ascontiguousarray(mean, np.float32), int(pad)

        def generate_code(self) -> Callable:
            from . import data

            kernel = data.kernel()

            def augment(pixels, _, ids):
                dy, dx, flip = self.draws[:, ids]
                out = np.empty(pixels.shape, np.float32)
                kernel(pixels, np.arange(len(ids)), dy, dx, flip, self.mean, self.pad, data.BYTE, out)
                return torch.from_numpy(out).permute(0, 3, 1, 2)

            augment.with_indices = True
            return augment

    class Worker(EpochIterator):
        """FFCV's epoch thread, with a loop that ends when told to and that hands over its exceptions."""

        def run(self) -> None:
            for number, ids in enumerate(self.iter_ixes):
                try:
                    images, labels = self.run_pipeline(number, ids, 0, None)  # slot 0: nothing in it leaves this line
                    result = images, torch.from_numpy(labels[:, 0].copy())
                except BaseException as error:
                    error.add_note(f"(while loading {self.loader.fname})")
                    result = error
                while not self.terminate_event.is_set():
                    with contextlib.suppress(queue.Full):
                        self.output_queue.put(result, timeout=0.1)
                        break
                if self.terminate_event.is_set() or isinstance(result, BaseException):
                    return

    return Augment, Worker


_idle: dict[str, list] = {}  # sha256 of a file -> compiled FFCV loaders of it that serve no iterator at present
_compiling = threading.Lock()  # FFCV numbers its nodes and counts its threads in globals


def _loader(path: Path, sha256: str, raw: np.ndarray):
    """An FFCV loader that serves no one else: a used one, compiled, else a new one. It reads `raw`, not the file."""
    with contextlib.suppress(KeyError, IndexError):
        return _idle[sha256].pop()
    from ffcv.fields.basics import IntDecoder
    from ffcv.fields.ndarray import NDArrayDecoder
    from ffcv.loader import Loader

    augment = _ffcv()[0]()
    pipelines = {"image": [NDArrayDecoder(), augment], "label": [IntDecoder()]}
    with _compiling, _as_before():
        loader = Loader(str(path), 1, num_workers=1, os_cache=True, batches_ahead=2, pipelines=pipelines)
    read = loader.reader
    before = b"".join(part.tobytes() for part in (read.header, read.field_descriptors, read.metadata))
    after = read.alloc_table.tobytes()
    if raw[: len(before)].tobytes() != before or raw[-len(after) :].tobytes() != after:
        raise _damaged(path, "it changed while it was opened")
    loader.memory_manager.context.mmap = raw
    loader.augment = augment
    return loader


def _next(worker, path: Path) -> tuple[Tensor, Tensor]:
    """A worker's next batch. Raises what it raised; RuntimeError if it is dead, TimeoutError if nothing comes."""
    for _ in range(int(PATIENCE / 0.2)):
        alive = worker.is_alive()
        with contextlib.suppress(queue.Empty):
            result = worker.output_queue.get(timeout=0.2)
            if isinstance(result, BaseException):
                raise result
            return result
        if not alive:
            raise RuntimeError(f"a loading thread of {path} ended without a word.")
    raise TimeoutError(f"no batch of {path} came for {PATIENCE:.0f} s.")


def _dismiss(crew: list) -> bool:
    """Ends the workers, and says whether all of them have ended (within ten seconds)."""
    for worker in crew:
        worker.close()
    until = time.monotonic() + 10
    for worker in crew:
        while worker.is_alive() and time.monotonic() < until:
            with contextlib.suppress(queue.Empty):  # make room for what it wants to hand over
                worker.output_queue.get_nowait()
            worker.join(0.01)
    return not any(worker.is_alive() for worker in crew)


def batches(images, plan, mean: np.ndarray, pad: int, batch_size: int, workers: int) -> Iterator[tuple[Tensor, Tensor]]:
    """The plan's samples in its order: float32 (B, 3, H, W) channels_last and int64 (B,), in fresh memory.

    images, plan: data.Images, data.Plan. mean: float32 (H, W, 3). pad: pixels. The last batch may be smaller. workers:
    threads (0 counts as 1), which end with the iterator, when it is closed or dropped. Raises ImportError and OSError
    as `write`, ValueError for a bad plan or a damaged file; later, as it runs, whatever one of its threads raised.
    """
    count, ids = len(images.labels), np.array(plan.ids, np.int64)
    if ids.ndim != 1 or any(np.shape(draw) != ids.shape for draw in plan) or batch_size < 1 or workers < 0:
        raise ValueError(f"unequal columns of a plan, or batch_size {batch_size} < 1, or workers {workers} < 0.")
    if ids.size and (ids.min() < 0 or ids.max() >= count or np.bincount(ids).max() > 1):
        raise ValueError(f"a plan's ids have to be different ones from 0 to {count - 1}.")
    path = write(images)
    return _stream(path, *_verify(path, images), ids, plan, mean, pad, batch_size, max(workers, 1))


def _stream(path, sha256, raw, ids, plan, mean, pad, batch_size, workers) -> Iterator[tuple[Tensor, Tensor]]:
    """`batches`, once all has been checked: every worker makes every workers-th batch."""
    cut = [ids[i : i + batch_size] for i in range(0, len(ids), batch_size)]
    loader, crew = _loader(path, sha256, raw), []
    try:
        loader.batch_size = batch_size
        loader.augment.aim(plan, mean, pad, loader.reader.num_samples)
        for first in range(min(workers, len(cut))):
            crew.append(_ffcv()[1](loader, np.concatenate(cut[first::workers])))
        for i in range(len(cut)):
            yield _next(crew[i % workers], path)
    finally:
        if _dismiss(crew):
            _idle.setdefault(sha256, []).append(loader)
