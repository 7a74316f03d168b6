"""FFCV's own loader (1.0.2), mended so that nothing hangs, leaks, crashes or lies; writer.py makes the files.

A file is verified before FFCV sees it. A Loader is compiled once a file; each worker is one of FFCV's EpochIterators, a thread
that makes every k-th batch, passes on what it raises, and ends when it is told to. Orders, crops and colours are decided
elsewhere (draws.py). numba's own threads are not used, so that their layer does not matter.
"""

import atexit
import contextlib
import hashlib
import json
import queue
import threading
import warnings
import weakref
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from unittest.mock import patch

import numpy as np
import torch

from ..files import words

SCHEMA = 2  # of the sidecar; a file with another is written anew
CROP = [("mode", "u1"), ("height", "<u2"), ("width", "<u2"), ("data_ptr", "<u8"),
        ("top", "<i8"), ("bottom", "<i8"), ("left", "<i8"), ("right", "<i8")]  # fmt: skip
"""What `photograph_decoder` reads of a sample: how it is stored, and the rectangle to cut out of it, in stored pixels."""

_one = threading.RLock()  # FFCV numbers the parts of its pipelines in a global


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


def needed(path: Path, instead: str) -> None:
    """Raises ImportError where FFCV is missing."""
    if not available():
        raise ImportError(f"{path} needs FFCV, which is not installed or lacks its libraries: use backend='{instead}'.")


# --- verifying -------------------------------------------------------------------------------------------------------


def damaged(path: Path, what: str) -> ValueError:
    again = words("python", "-m", "reslib", "data", "imagenet", "--from", "DIR", "--dir", path.parents[1])
    again = f"run `{again}`" if path.name.startswith("imagenet") else "they are made again"
    return ValueError(f"{path} is damaged ({what}): delete it and {path.name}.json, and {again}.")


def sidecar(path: Path) -> dict | None:
    """A .beton's sidecar; None where there is none of this version. ValueError if it is damaged, OSError if not readable."""
    try:
        note = json.loads(Path(f"{path}.json").read_bytes())
        if note["schema"] == SCHEMA and not {"size", "head", "table", "sha256", "tables", "source", "fields"} <= note.keys():
            raise ValueError
        return note if note["schema"] == SCHEMA else None
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (IsADirectoryError, ValueError, KeyError, TypeError):
        raise damaged(path, "its sidecar cannot be read") from None


def is_of(path: Path, about: dict) -> bool:
    """Whether there is a finished file of what `about` says. Raises ValueError as `sidecar`."""
    note = sidecar(path)
    return note is not None and path.exists() and about.items() <= note.items()


def tables_sha256(data: np.ndarray, head: int, table: int) -> str:
    """Of a file's bytes: those before `head` (header, fields, samples) and those from `table` on (allocations)."""
    digest = hashlib.sha256(data[:head])
    digest.update(data[table:])
    return digest.hexdigest()


def check(path: Path) -> dict:
    """The sidecar of a file every byte of which is as it was written; ValueError if not. Reads it all."""
    note = sidecar(path)
    try:
        with open(path, "rb") as file:
            if note and hashlib.file_digest(file, "sha256").hexdigest() == note["sha256"]:
                return note
    except (FileNotFoundError, IsADirectoryError) as error:
        raise damaged(path, error.strerror) from None
    raise damaged(path, "its sha256 is not what its sidecar says")


# --- reading ---------------------------------------------------------------------------------------------------------

_verified: set[tuple] = set()  # (path, time, size and inode of a file; the key of its Loader)
_loaders: dict[tuple, object] = {}  # FFCV's Loaders, compiled


def opened(path: Path, size: int | None = None):
    """An FFCV Loader of a verified file, compiled once in a process. Raises ValueError if it is damaged.

    size: pixels of the crops to make of photographs; header and tables are verified, and FFCV maps the file. None: images of
    one size; every byte is verified, and FFCV is given them from memory: nothing that happens to the file later is seen.
    """
    if (note := sidecar(path)) is None:
        raise damaged(path, "it has no sidecar of this version: its writing was never finished")
    try:
        stat = path.stat()
        if stat.st_size != note["size"]:
            raise damaged(path, f"its {stat.st_size} bytes are not as many as its sidecar says")
        state = path, stat.st_mtime_ns, stat.st_size, stat.st_ino
        key = note["sha256"], size and state, size
        if (state, key) in _verified:
            return _loaders[key]
        raw = np.memmap(path, np.uint8, "r") if size else np.fromfile(path, np.uint8)
    except (FileNotFoundError, IsADirectoryError) as error:
        raise damaged(path, error.strerror) from None
    if size and tables_sha256(raw, note["head"], note["table"]) != note["tables"]:
        raise damaged(path, "its header and tables: their sha256 is not what its sidecar says")
    if not size and hashlib.sha256(raw).hexdigest() != note["sha256"]:
        raise damaged(path, "its sha256 is not what its sidecar says")
    with _as_before():
        if key not in _loaders:
            _loaders[key] = _loader(path, note["fields"], size, raw)
    _verified.add((state, key))
    return _loaders[key]


def _loader(path: Path, fields: list[str], size: int | None, raw: np.ndarray):
    from ffcv.fields.decoders import NDArrayDecoder
    from ffcv.loader import Loader

    decoder = photograph_decoder(size) if size else NDArrayDecoder()
    pipelines = {name: [decoder] if name == "image" else None for name in fields}
    loader = Loader(str(path), 1, num_workers=1, os_cache=True, seed=0, pipelines=pipelines, batches_ahead=2)
    raw.flags.writeable = False
    loader.memory_manager.context.mmap = raw
    return loader


def photograph_decoder(size: int):
    """FFCV's decoder of crops resized to (size, size), told the rectangle with each sample (CROP): an epoch compiles nothing.

    A rectangle that is not within the stored photograph would abort the process.
    """
    from ffcv.fields.rgb_image import ResizedCropRGBImageDecoder
    from ffcv.libffcv import imdecode, resize_crop
    from ffcv.pipeline.allocation_query import AllocationQuery
    from ffcv.pipeline.compiler import Compiler

    class Crop(ResizedCropRGBImageDecoder):
        get_crop_generator = None

        def declare_state_and_memory(self, previous_state):
            shape, kind = (size, size, 3), np.dtype("u1")
            return replace(previous_state, jit_mode=True, shape=shape, dtype=kind), AllocationQuery(shape, kind)

        def generate_code(self) -> Callable:
            read, decode_jpeg, resize = self.memory_read, Compiler.compile(imdecode), Compiler.compile(resize_crop)

            def decode(ids, out, rows, storage):
                for b in range(len(ids)):
                    row = rows[ids[b]]
                    data, height, width = read(row["data_ptr"], storage), np.uint32(row["height"]), np.uint32(row["width"])
                    if row["mode"] == 0:
                        image = np.empty((height, width, 3), np.uint8)
                        if decode_jpeg(data, image, height, width, height, width, 0, 0, 1, 1, False, False):
                            raise ValueError("a JPEG in the file cannot be decoded")
                    else:
                        image = data.reshape(height, width, 3)
                    resize(image, row["top"], row["bottom"], row["left"], row["right"], out[b])
                return out[: len(ids)]

            return decode

    return Crop((size, size))


_alive: weakref.WeakSet = weakref.WeakSet()
atexit.register(lambda: [epoch.close() for epoch in list(_alive)])  # before the interpreter takes their memory away


@cache
def _epoch() -> type:
    from ffcv.loader.epoch_iterator import EpochIterator

    class Epoch(EpochIterator):
        """FFCV's epoch, whose thread raises in its caller, and ends."""

        def __init__(self, loader, order: np.ndarray, finish: Callable):
            self.finish = finish
            super().__init__(loader, order)
            _alive.add(self)

        def run(self) -> None:
            try:
                for where in self.iter_ixes:
                    if self.terminate_event.is_set():
                        return
                    self.output_queue.put(self.finish(self.decode, where))
            except BaseException as error:
                self.output_queue.put(error)

        def decode(self, ids: np.ndarray, rows: np.ndarray | None = None) -> np.ndarray:
            """Images (B, H, W, 3) by id, of the file's samples or of `rows` (CROP), in memory that the next call overwrites."""
            if rows is not None:
                self.metadata = {"f0": rows}
            return self.run_pipeline(0, ids, 0, None)[0]

        def __next__(self):
            batch = self.output_queue.get()
            if isinstance(batch, BaseException):
                raise batch
            return batch

        def close(self) -> None:
            self.terminate_event.set()
            while self.is_alive():  # it may wait for room to put a batch
                with contextlib.suppress(queue.Empty):
                    self.output_queue.get(timeout=0.02)
            super().close()

    return Epoch


def batches(loader, ids: np.ndarray, batch: int, workers: int, finish: Callable) -> Iterator:
    """`finish(decode, where)` for every batch of positions `where` in `ids`, in order, each in fresh memory.

    decode: see Epoch. workers: threads (0 counts as 1), which end with the iterator, when it is closed or dropped. What one
    raises reaches the caller. Raises ValueError for ids that the file does not have.
    """
    if len(ids) and not 0 <= ids.min() <= ids.max() < len(loader.reader.metadata):
        raise ValueError(f"a plan's ids are not from 0 to {len(loader.reader.metadata) - 1}.")
    return _batches(loader, len(ids), batch, min(max(1, workers), -(-len(ids) // batch)), finish)


def _batches(loader, length: int, batch: int, workers: int, finish: Callable) -> Iterator:
    starts, epochs = range(0, length, batch), []
    try:
        with _one, torch.device("cpu"):  # FFCV makes its memory with torch, wherever a caller has its default
            loader.batch_size = batch
            for k in range(workers):
                order = np.concatenate([np.arange(start, min(start + batch, length)) for start in starts[k::workers]])
                epochs.append(_epoch()(loader, order, finish))
        for number in range(len(starts)):
            yield next(epochs[number % workers])
    finally:
        for epoch in epochs:
            epoch.terminate_event.set()
        for epoch in epochs:
            epoch.close()
