"""What FFCV's DatasetWriter makes, by one process: its file is whole, with a sidecar, or not there at all.

path.beton        what FFCV reads, written beside and renamed
path.beton.json   its sidecar: size, sha256 of all of it, and of its header and tables alone; what it was made of

FFCV's own processes wait for ever for one of theirs that has failed, and leave shared memory behind.
"""

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import patch

import numpy as np

from ..files import alone, renamed
from . import fast

PAGE = 1 << 21  # bytes: FFCV's unit of allocation, its smallest; no image may be larger


def write(path: Path, samples: Iterable[tuple], total: int, fields: dict, about: dict, page: int = PAGE) -> None:
    """A .beton file and its sidecar, which holds `about` too. samples: at most `total`, a value for each of `fields`, FFCV's.

    Raises OSError, naming it, where it cannot be written, and what `samples` raises: then nothing of it stays.
    """
    try:
        with alone(path.parent, path.name):
            if fast.is_of(path, about):  # another process's, while this one waited
                return
            for left in path.parent.glob(f"{path.name}*.part"):  # of a killed process
                left.unlink()
            with renamed(Path(f"{path}.json")) as note, renamed(path) as file:
                count, head, table = _written(file.name, samples, total, fields, page)
                raw = np.memmap(file.name, np.uint8, "r")
                found = {"schema": fast.SCHEMA, "size": len(raw), "count": count, "fields": list(fields), "head": head,
                         "table": table, "sha256": hashlib.sha256(raw).hexdigest(),
                         "tables": fast.tables_sha256(raw, head, table)}  # fmt: skip
                note.write(json.dumps(found | about, indent=1).encode())
    except OSError as error:
        raise OSError(f"{path} could not be written, and no part of it is kept: {error.strerror or error}.") from error


def _written(name: str, samples: Iterable[tuple], total: int, fields: dict, page: int) -> tuple[int, int, int]:
    """FFCV's file, by its own writer's parts. Returns how many samples it holds, and where images begin and end."""
    from ffcv import writer

    private = SimpleNamespace(SharedMemory=lambda create, size: SimpleNamespace(buf=bytearray(size)))
    beton, count = writer.DatasetWriter(name, fields, page), 0
    beton.num_samples = total
    with patch.object(writer, "shared_memory", private):
        beton.prepare()
    rows = np.frombuffer(beton.metadata_sm.buf, beton.metadata_type)
    allocator = writer.MemoryAllocator(name, beton.data_region_start, page)
    with open(name, "ab", buffering=0) as allocator.fp:  # its own __exit__ leaves the file open where a disk is full
        for sample in samples:
            writer.handle_sample(sample, count, rows.dtype.names, rows, allocator, fields)
            count += 1
        allocator.flush_page()
    beton.header["num_samples"] = count
    beton.finalize(allocator.allocations)
    return count, beton.metadata_start + count * rows.dtype.itemsize, int(beton.header["alloc_table_ptr"])
