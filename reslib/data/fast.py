"""FFCV's files and decoders (1.0.2) in threads of our own, so that nothing hangs, leaks, crashes or lies.

FFCV's loader never ends a thread that is left early, and waits for ever for one that has failed. So of FFCV we take the
file, its reader, and its decoders, compiled as it compiles them; a file is verified before FFCV sees it. Orders, crops and
colours are decided elsewhere (draws.py); writer.py makes the files.
"""

import hashlib
import json
import time
import warnings
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import NamedTuple
from unittest.mock import patch

import numpy as np
import torch

from ..files import words

SCHEMA = 2  # of the sidecar; a file with another is written anew
CONVERT = ("python", "-m", "reslib", "data", "imagenet", "--from")
CROP = [("mode", "u1"), ("height", "<u2"), ("width", "<u2"), ("data_ptr", "<u8"),
        ("top", "<i8"), ("bottom", "<i8"), ("left", "<i8"), ("right", "<i8")]  # fmt: skip
"""What `photograph_decoder` reads of a sample: how it is stored, and the rectangle to cut out of it, in stored pixels."""


@cache
def available() -> bool:
    """Whether FFCV can be imported, its extension and the libraries under it too."""
    threads = torch.get_num_threads()
    try:
        # FFCV warns of its old age, and makes a numba dictionary with two entries: 3 s of compiling
        with warnings.catch_warnings(action="ignore"), patch("numba.typed.Dict", dict):
            import ffcv.loader  # noqa: F401
    except (ImportError, OSError):
        return False
    finally:
        torch.set_num_threads(threads)  # which FFCV sets on import
    return True


def needed(path: Path, instead: str) -> None:
    """Raises ImportError where FFCV is missing."""
    if not available():
        raise ImportError(f"{path} needs FFCV, which is not installed or lacks its libraries: use backend='{instead}'.")


# --- verifying -------------------------------------------------------------------------------------------------------


def damaged(path: Path, what: str) -> ValueError:
    imagenet = path.name.startswith("imagenet")
    again = f"run `{words(*CONVERT, 'DIR', '--dir', path.parents[1])}`" if imagenet else "they are made again"
    return ValueError(f"{path} is damaged ({what}): delete it and {path.name}.json, and {again}.")


def tables_sha256(raw: np.ndarray, head: int, table: int) -> str:
    """Of all that is no image in a file's bytes: header, fields and samples lie before `head`, allocations from `table` on."""
    digest = hashlib.sha256(raw[:head])
    digest.update(raw[table:])
    return digest.hexdigest()


def sidecar(path: Path) -> dict | None:
    """A .beton's sidecar; None where there is none of this version. ValueError if it cannot be read."""
    try:
        note = json.loads(Path(f"{path}.json").read_bytes())
        if note["schema"] == SCHEMA and not {"size", "head", "table", "sha256", "tables", "source"} <= note.keys():
            raise KeyError
        return note if note["schema"] == SCHEMA else None
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError, KeyError, TypeError):
        raise damaged(path, "its sidecar cannot be read") from None


def is_of(path: Path, about: dict) -> bool:
    """Whether there is a finished file of what `about` says. Raises ValueError as `sidecar`."""
    note = sidecar(path)
    return note is not None and path.exists() and about.items() <= note.items()


# --- reading ---------------------------------------------------------------------------------------------------------


class File(NamedTuple):
    """A verified .beton file, and what decodes its images."""

    samples: np.ndarray  # FFCV's table: f0, of the image; f1, its label; of photographs f2, f3: the source's height and width
    decode: Callable  # (ids, out, rows, storage): the images `ids` of `rows`, a column of samples, into uint8 (B, H, W, 3)
    storage: tuple  # the file's bytes, and where in them images begin and how long they are


_opened: dict[tuple, tuple] = {}  # (path, decoder) -> time, size and inode of a file, and the File


def opened(path: Path, decoder: Callable, whole: bool) -> File:
    """A .beton file, verified and compiled once in a process; its images are decoded by what `decoder(reader, read)` makes.

    whole: every byte is verified, and kept in memory, so that nothing that happens to the file afterwards reaches a batch.
    Else header and tables are, and the file is mapped. Raises ValueError if it is damaged.
    """
    note = sidecar(path)
    if note is None:
        raise damaged(path, "it has no sidecar of this version: its writing was never finished")
    try:
        stat = path.stat()
        state = stat.st_mtime_ns, stat.st_size, stat.st_ino
        if stat.st_size != note["size"]:
            raise damaged(path, f"its {stat.st_size} bytes are not as many as its sidecar says")
        known = _opened.get((path, decoder))
        if known and known[0] == state:
            return known[1]
        raw = np.fromfile(path, np.uint8) if whole else np.memmap(path, np.uint8, "r")
    except OSError as error:
        raise damaged(path, error.strerror) from None
    found = hashlib.sha256(raw).hexdigest() if whole else tables_sha256(raw, note["head"], note["table"])
    if found != note["sha256" if whole else "tables"]:
        raise damaged(path, "its sha256 is not what its sidecar says")
    raw.flags.writeable = False
    file = _file(path, decoder, raw)
    if time.time() - stat.st_mtime > 1:  # a younger file could change within the same tick of the clock
        _opened[path, decoder] = state, file
    return file


def _file(path: Path, decoder: Callable, raw: np.ndarray) -> File:
    from ffcv.pipeline.compiler import Compiler
    from ffcv.reader import Reader

    def read(address, storage):  # as FFCV's OSCacheManager, which makes a dictionary of all images: 14 s for ImageNet
        return storage[0][address : address + storage[2][np.searchsorted(storage[1], address)]]

    reader = Reader(str(path))
    table = np.sort(reader.alloc_table, order="ptr")
    storage = raw, np.ascontiguousarray(table["ptr"]), np.ascontiguousarray(table["size"])
    return File(reader.metadata, Compiler.compile(decoder(reader, Compiler.compile(read))), storage)


def image_decoder(reader, read: Callable) -> Callable:
    """FFCV's decoder of images of one size."""
    from ffcv.fields.decoders import NDArrayDecoder

    decoder = NDArrayDecoder()
    decoder.accept_field(reader.handlers["image"])
    decoder.accept_globals(reader.metadata["f0"], read)
    return decoder.generate_code()


def photograph_decoder(reader, read: Callable) -> Callable:
    """FFCV's decoder of resized crops, told the rectangle with each sample (CROP), which draws.py decides.

    A rectangle that is not within the stored photograph would abort the process.
    """
    from ffcv.libffcv import imdecode, resize_crop
    from ffcv.pipeline.compiler import Compiler

    decode_jpeg, resize = Compiler.compile(imdecode), Compiler.compile(resize_crop)

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

    return decode
