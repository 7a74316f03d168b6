"""FFCV behind guards: a .beton file written, verified and read so that nothing hangs, leaks, crashes or lies.

    folder/beton/cifar10-16px-train.beton        bytes and labels in FFCV's format; sample i of the file is sample id i
    folder/beton/cifar10-16px-train.beton.json   its sidecar: size, sha256, count, shape, fields, source, versions

Written here, not by FFCV's writer, which hangs when one of its processes dies: the same file, byte for byte. It is read
into memory and verified before FFCV sees it. Damage is refused, never silently repaired; a file whose source has
changed is written anew. FFCV (1.0.2) decodes, in as many threads as there are workers; in each, data.py's fused kernel
crops, flips and subtracts the mean into fresh memory. numba's own threads are not used: their layer does not matter.
"""

import contextlib
import hashlib
import json
import threading
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import replace
from functools import cache
from importlib.metadata import version
from itertools import chain
from pathlib import Path
from unittest.mock import patch

import numpy as np
import torch
from torch import Tensor

from .files import renamed

SCHEMA = 1  # of the sidecar; with another number the file is written anew
PAGE = 1 << 21  # bytes: FFCV's unit of allocation, its smallest
PATIENCE = 60.0  # seconds without a batch before giving up


_one = threading.Lock()  # FFCV numbers the parts of its pipelines in a global


@contextlib.contextmanager
def _as_before() -> Iterator[None]:
    """FFCV sets torch's and numba's threads, on import too, and warns of its old age: none of it gets out."""
    import numba

    with _one, warnings.catch_warnings(action="ignore"):
        threads = torch.get_num_threads(), numba.get_num_threads()
        try:
            yield
        finally:
            torch.set_num_threads(threads[0])
            numba.set_num_threads(threads[1])


@cache
def available() -> bool:
    """Whether FFCV can be imported, its extension and the libraries under it too."""
    try:
        with _as_before(), patch("numba.typed.Dict", dict):  # FFCV makes one with two entries: 3 s of compiling
            import ffcv.loader  # noqa: F401
    except (ImportError, OSError):
        return False
    return True


# --- writing and verifying -------------------------------------------------------------------------------------------


def _frame(shape: tuple[int, ...], labels: np.ndarray) -> tuple[bytes, bytes]:
    """What a file of images of `shape` (N, H, W, 3) holds before and after its pages: ffcv/types.py, version 2.

    Before: header, fields, each sample's pointer and label; zeros up to a whole page. After: the allocation table.
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
    samples["image"], samples["label"] = start + page * PAGE + place * size, labels
    table["sample_id"], table["ptr"], table["size"] = np.arange(count), samples["image"], size
    header = np.array((CURRENT_VERSION, len(fields), PAGE, count, start + (page[-1] + 1) * PAGE), HeaderType)
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
    fit = pixels.dtype == np.uint8 and pixels.ndim == 4 and pixels.shape[3] == 3 and 0 < pixels[:1].size <= PAGE
    if not fit or labels.dtype != np.int64 or labels.shape != pixels.shape[:1]:
        got = f"{pixels.dtype} {pixels.shape} and {labels.dtype} {labels.shape}"
        raise ValueError(f"{path} is not written: images and labels are uint8 (N, H, W, 3) and int64 (N,), not {got}.")
    sidecar = _sidecar(path)
    if path.exists() and sidecar and (sidecar["schema"], sidecar["source"]) == (SCHEMA, images.sha256):
        return path
    before, after = _frame(pixels.shape, labels)
    held = PAGE // pixels[0].size  # images in a page
    pages = (pixels[i : i + held].tobytes().ljust(PAGE, b"\0") for i in range(0, len(pixels), held))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        for left in path.parent.glob(f"{path.name}.*.part"):
            if time.time() - left.stat().st_mtime > 3600:  # a killed process's
                left.unlink(missing_ok=True)
        with renamed(Path(f"{path}.json")) as note, renamed(path) as file:
            file.writelines(chain((before,), pages, (after,)))
            file.seek(0)
            sidecar = {
                "schema": SCHEMA, "sha256": hashlib.file_digest(file, "sha256").hexdigest(), "size": file.tell(),
                "count": len(labels), "shape": pixels.shape[1:], "fields": ["image", "label"], "source": images.sha256,
                "versions": {"ffcv": version("ffcv"), "numpy": np.__version__},
            }  # fmt: skip
            note.write(json.dumps(sidecar, indent=1).encode() + b"\n")
            note.flush()
    except OSError as error:
        raise OSError(f"{path} could not be written, and no part of it is kept: {error.strerror or error}.") from error
    return path


def _damaged(path: Path, what: str) -> ValueError:
    return ValueError(f"{path} is damaged ({what}): delete it and {path.name}.json, they are made again from the data.")


def _sidecar(path: Path) -> dict | None:
    """A .beton's sidecar; None where there is none, as beside a file never finished. ValueError if unreadable."""
    try:
        sidecar = json.loads(Path(f"{path}.json").read_bytes())
        return {key: sidecar[key] for key in ("schema", "size", "sha256", "count", "shape", "fields", "source")}
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (ValueError, KeyError, TypeError):
        raise _damaged(path, "its sidecar cannot be read") from None


_verified: dict[Path, tuple[tuple, str, np.ndarray]] = {}  # path -> (time, size, inode), sha256 and bytes of the file


def _verify(path: Path, images) -> tuple[str, np.ndarray]:
    """The file's sha256 and bytes, read once in a process; ValueError unless they fit sidecar, format and images.

    FFCV is given these bytes, so that nothing that happens to the file afterwards can reach a batch.
    """
    sidecar, stat = _sidecar(path), path.stat()
    state = stat.st_mtime_ns, stat.st_size, stat.st_ino
    if sidecar is None or sidecar["size"] != stat.st_size:
        raise _damaged(path, f"its {stat.st_size} bytes are not as many as its sidecar says")
    if path in _verified and _verified[path][:2] == (state, sidecar["sha256"]):
        return _verified[path][1:]
    raw = np.fromfile(path, np.uint8)
    raw.flags.writeable = False
    if hashlib.sha256(raw).hexdigest() != sidecar["sha256"]:
        raise _damaged(path, "its sha256 is not what its sidecar says")
    if not _within(raw, *_frame(images.pixels.shape, images.labels)):
        raise _damaged(path, "its header or tables are not those of these images")
    if time.time() - stat.st_mtime > 1:  # a younger file could change again within the same tick of the clock
        _verified[path] = state, sidecar["sha256"], raw
    return sidecar["sha256"], raw


def _within(raw: np.ndarray, before: bytes, after: bytes) -> bool:
    return raw[: len(before)].tobytes() == before and raw[-len(after) :].tobytes() == after


# --- reading ---------------------------------------------------------------------------------------------------------


@cache
def _ffcv() -> tuple[type, type]:
    """Our operation and our epoch: they inherit from FFCV, which is imported only here."""
    from ffcv.loader.epoch_iterator import EpochIterator
    from ffcv.pipeline.operation import Operation

    class Augment(Operation):
        """Decoded bytes (B, H, W, 3) and their ids -> float32 (B, 3, H, W) in fresh memory, by data.py's kernel."""

        def declare_state_and_memory(self, previous_state):
            return replace(previous_state, jit_mode=False), None  # called from Python: the kernel is compiled already

        def aim(self, ids: np.ndarray, draws: tuple, mean: np.ndarray, pad: int) -> None:
            """One epoch's crops, laid out by sample id: an operation is told ids, not positions."""
            self.draws, self.mean, self.pad = np.zeros((3, len(self.metadata)), np.uint8), mean, pad
            self.draws[:, ids] = draws

        def generate_code(self) -> Callable:
            from . import data

            def augment(pixels: np.ndarray, _, ids: np.ndarray) -> Tensor:
                out = np.empty(pixels.shape, np.float32)
                draws = self.draws.take(ids, axis=1)
                data.kernel()(pixels, np.arange(len(ids)), *draws, self.mean, self.pad, out)
                return torch.from_numpy(out).permute(0, 3, 1, 2)

            augment.with_indices = True
            return augment

    class Epoch(EpochIterator):
        """FFCV's epoch without its thread, which hangs, leaks and swallows errors: ours call `batch`."""

        def start(self) -> None:
            pass

        def batch(self, ids: np.ndarray, slot: int) -> tuple[Tensor, Tensor]:
            """slot: the piece of FFCV's memory to decode into. No part of the batch lies in it."""
            images, labels = self.run_pipeline(0, ids, slot, None)
            return images, torch.from_numpy(labels[:, 0].copy())

    return Augment, Epoch


_idle: dict[str, list] = {}  # sha256 of a file -> compiled FFCV loaders of it that serve no iterator at present


def _loader(path: Path, sha256: str, raw: np.ndarray):
    """An FFCV loader that serves no one else: a used one, compiled, else a new one. It reads `raw`, not the file."""
    with contextlib.suppress(KeyError, IndexError):
        return _idle[sha256].pop()
    from ffcv.fields.decoders import IntDecoder, NDArrayDecoder
    from ffcv.loader import Loader

    augment = _ffcv()[0]()
    pipelines = {"image": [NDArrayDecoder(), augment], "label": [IntDecoder()]}
    with _as_before():
        loader = Loader(str(path), 1, num_workers=1, os_cache=True, pipelines=pipelines)
    tables = loader.reader.header, loader.reader.field_descriptors, loader.reader.metadata
    if not _within(raw, b"".join(table.tobytes() for table in tables), loader.reader.alloc_table.tobytes()):
        raise _damaged(path, "it changed while it was opened")
    loader.memory_manager.context.mmap, loader.augment = raw, augment
    return loader


def batches(images, plan, mean: np.ndarray, pad: int, batch_size: int, workers: int) -> Iterator[tuple[Tensor, Tensor]]:
    """The plan's samples in its order: float32 (B, 3, H, W) channels_last and int64 (B,), in fresh memory.

    images, plan: data.Images, data.Plan. mean: float32 (H, W, 3). pad: pixels. The last batch may be smaller. workers:
    threads (0 counts as 1), which end with the iterator, when it is closed or dropped. Raises ImportError and OSError
    as `write`, ValueError for a bad plan or a damaged file; later, as it runs, whatever one of its threads raised.
    """
    ids = np.array(plan.ids, np.int64)
    if ids.ndim != 1 or any(np.shape(draw) != ids.shape for draw in plan) or batch_size < 1 or workers < 0:
        raise ValueError(f"a plan of unequal columns, or batch_size {batch_size} < 1, or workers {workers} < 0.")
    if ids.size and (ids.min() < 0 or ids.max() >= len(images.labels) or np.bincount(ids).max() > 1):
        raise ValueError(f"a plan's ids have to be different ones from 0 to {len(images.labels) - 1}.")
    path = write(images)
    sha256, raw = _verify(path, images)

    def stream() -> Iterator[tuple[Tensor, Tensor]]:
        loader, pending, slots = _loader(path, sha256, raw), deque(), max(1, workers) + 2
        pool = ThreadPoolExecutor(max(1, workers), "ffcv")
        try:
            loader.batch_size, loader.batches_ahead = batch_size, slots - 2
            loader.augment.aim(ids, plan[1:], mean, pad)
            epoch = _ffcv()[1](loader, ids)
            for number, part in enumerate(epoch.iter_ixes):
                pending.append(pool.submit(epoch.batch, part, number % slots))
                if len(pending) == slots:
                    yield _first(pending, path)
            while pending:
                yield _first(pending, path)
        finally:
            stuck = wait([future for future in pending if not future.cancel()], PATIENCE / 6).not_done
            pool.shutdown(wait=not stuck)
            if not stuck:
                _idle.setdefault(sha256, []).append(loader)

    return stream()


def _first(pending: deque, path: Path) -> tuple[Tensor, Tensor]:
    """The first pending batch, or what its thread raised; TimeoutError if that is stuck (time suspended not counted)."""
    for _ in range(int(PATIENCE / 0.5)):
        if wait([pending[0]], 0.5).done:
            return pending.popleft().result()
    raise TimeoutError(f"no batch of {path} came for {PATIENCE:.0f} s.")
