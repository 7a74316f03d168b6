"""FFCV's file format for photographs of any size, and how such a file is verified: wholly at its head, image by image later.

A file may be larger than memory, so opening it checks the sidecar, its size, and header, fields and tables byte by byte
against the rows beside it (and those by their hash); an image's bytes are checked when it is read, by a checksum, from
memory of ours: what happens to the file meanwhile is refused too.
"""

import hashlib
import json
import os
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np

SCHEMA = 1  # of the sidecar
MODES = ("jpg", "raw")  # FFCV's numbers for them: 0 and 1
PAGE = 1 << 24  # bytes: FFCV's unit of allocation; no stored image may be larger
ROW = np.dtype([("mode", "u1"), ("width", "<u2"), ("height", "<u2"), ("label", "<i8"), ("ptr", "<u8"), ("size", "<u8"),
                ("room", "<u8"), ("checksum", "<u8"), ("source_width", "<u2"), ("source_height", "<u2")])  # fmt: skip
"""A sample: as stored, its size and the room it has up to the next (bytes), the checksum of that room; its source's pixels."""


def _types() -> tuple[np.dtype, np.dtype, np.dtype, np.dtype]:
    from ffcv.fields import IntField, RGBImageField
    from ffcv.types import ALLOC_TABLE_TYPE, FieldDescType, HeaderType, get_metadata_type

    return HeaderType, FieldDescType, get_metadata_type([RGBImageField(), IntField()]), ALLOC_TABLE_TYPE


def head_size(count: int) -> int:
    """Bytes before the first page: header, two fields, `count` samples, rounded up to whole pages."""
    header, field, sample, _ = _types()
    size = header.itemsize + 2 * field.itemsize + count * sample.itemsize
    return size + -size % PAGE


def frame(rows: np.ndarray) -> tuple[bytes, bytes]:
    """What a file of `rows` (ROW) holds before and after its pages: ffcv/types.py, version 2."""
    header, field, sample, entry = _types()
    fields, samples, table = np.zeros(2, field), np.zeros(len(rows), sample), np.zeros(len(rows), entry)
    fields["type_id"] = 2, 1  # RGBImageField, IntField
    for target, name in zip(fields["name"], (b"image", b"label"), strict=True):
        target[:5] = list(name)
    image, label = samples.dtype.names
    for name, source in (("mode", "mode"), ("width", "width"), ("height", "height"), ("data_ptr", "ptr")):
        samples[image][name] = rows[source]
    samples[label] = rows["label"]
    table["sample_id"], table["ptr"], table["size"] = np.arange(len(rows)), rows["ptr"], rows["size"]
    start = head_size(len(rows))
    end = start + int(rows["room"].sum())
    head = np.array((2, 2, PAGE, len(rows), end), header).tobytes() + fields.tobytes() + samples.tobytes()
    return head.ljust(start, b"\0"), table.tobytes()


def weighted_sum(words):
    """The sum of uint64 words (n,), each times its own odd number, modulo 2**64: no change of one word keeps it."""
    total, weight = np.uint64(0), np.uint64(0x9E3779B97F4A7C15)
    for word in words:
        total += word * weight
        weight += np.uint64(2)
    return total


@cache
def checksum() -> Callable:
    """`weighted_sum`, compiled (cached on disk): several times as fast as zlib.crc32, and run for every image read."""
    from numba import njit

    return njit(cache=True, nogil=True)(weighted_sum)


def damaged(path: Path, what: str) -> ValueError:
    return ValueError(f"{path} is damaged ({what}): delete it and {path.name}.json, and run `python -m reslib data imagenet`.")


def sidecar(path: Path) -> dict:
    """A file's sidecar. Raises ValueError where there is none, or one that cannot be read."""
    try:
        values = json.loads(Path(f"{path}.json").read_bytes())
        for name, kind in (("schema", int), ("source", str), ("size", int), ("count", int), ("sha256", str), ("report", dict),
                           ("classes", list), ("from", str)):  # fmt: skip
            if not isinstance(values[name], kind):
                raise TypeError
        if values["schema"] != SCHEMA:
            raise ValueError
    except OSError:
        raise damaged(path, "it has no sidecar: its writing was never finished") from None
    except (ValueError, KeyError, TypeError):
        raise damaged(path, "its sidecar cannot be read") from None
    return values


_verified: dict[Path, tuple[tuple, np.ndarray]] = {}  # path -> (time, size, inode) of its files, rows


def opened(path: Path) -> np.ndarray:
    """The rows (ROW) of a file, verified: sidecar, size, header, fields and tables. ValueError names what is damaged."""
    note = sidecar(path)
    try:
        stats = [os.stat(name) for name in (path, f"{path}.rows", f"{path}.json")]
        state = tuple((stat.st_mtime_ns, stat.st_size, stat.st_ino) for stat in stats)
        if path in _verified and _verified[path][0] == state:
            return _verified[path][1]
        if stats[0].st_size != note["size"]:
            raise damaged(path, f"its {stats[0].st_size} bytes are not as many as its sidecar says")
        raw = Path(f"{path}.rows").read_bytes()
        if len(raw) != note["count"] * ROW.itemsize or hashlib.sha256(raw).hexdigest() != note["sha256"]:
            raise damaged(path, "the rows beside it are not those that its sidecar says")
        rows = np.frombuffer(raw, ROW)
        before, after = frame(rows)
        with open(path, "rb") as file:
            head = file.read(len(before))
            file.seek(-len(after), os.SEEK_END)
            if head != before or file.read() != after:
                raise damaged(path, "its header or tables are not those of its rows")
    except OSError as error:
        raise damaged(path, f"{error}") from None
    if time.time() - max(stat.st_mtime for stat in stats) > 1:  # a younger one could change within the same tick of the clock
        _verified[path] = state, rows
    return rows


def read(file: int, path: Path, row: np.void, memory: np.ndarray) -> np.ndarray:
    """The stored bytes of a sample, read into `memory` (uint8) and checked there. ValueError if they are not as written."""
    room = memory[: int(row["room"])]
    if os.preadv(file, [room], int(row["ptr"])) != len(room):
        raise damaged(path, "it ends early")
    if checksum()(room.view(np.uint64)) != row["checksum"]:
        raise damaged(path, f"the image at byte {row['ptr']} is not what was written")
    return room[: int(row["size"])]
