"""FFCV's DatasetWriter, in a process of its own that is watched: its file is whole, with a sidecar, or not there at all.

path.beton        what FFCV reads, written beside and renamed
path.beton.json   its sidecar: size, sha256 of all of it, and of its header and tables alone; source, versions
"""

import contextlib
import hashlib
import json
import multiprocessing
import os
import pickle
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace

import numpy as np
from tqdm.auto import tqdm

from ..files import alone, renamed
from . import fast

PAGE = 1 << 21  # bytes: FFCV's unit of allocation, its smallest; no sample may be larger


def apart(work: Callable, *args, total: int, desc: str | None = None):
    """`work(*args, tell)` in a fresh process, which may fork as it has no threads of ours.

    `tell(n)` moves a progress bar, `tell(line)` prints a line. Raises what `work` raises as a ValueError, and OSError, with the
    reason if one was left, if it or a process that it started is killed or fails. All of them end with this call. Not by
    multiprocessing: that would run the main module again.
    """
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-c", "from reslib.data import writer; writer._apart()"]
    pipes = dict(stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True)
    with tempfile.TemporaryFile() as said, subprocess.Popen(command, env=environ, stderr=said, **pipes) as child:
        try:
            pickle.dump((work, args), child.stdin, protocol=5)
            child.stdin.close()
            with tqdm(total=total, desc=desc, unit="image") if desc else contextlib.nullcontext() as bar:
                while not isinstance(news := pickle.load(child.stdout), tuple):
                    print(news) if isinstance(news, str) else bar and bar.update(news)
            result, error = news
            if error:
                raise error
            return result
        except BaseException as error:  # Ctrl-C too
            os.killpg(child.pid, signal.SIGTERM)  # what tracks shared memory ignores it, and cleans up
            with contextlib.suppress(OSError):
                child.stdin.close()  # what it could not be given
            if not isinstance(error, (EOFError, OSError, pickle.UnpicklingError)):
                raise
            child.wait()
            said.seek(0)
            reasons = re.findall(r"^\w*Error: (.+)$", said.read().decode(errors="replace"), re.MULTILINE)
            raise OSError(reasons[-1] if reasons else "a process that wrote it was killed") from None


def _apart() -> None:
    """The other end of `apart`: work comes by stdin, news go to stdout."""
    out, parent = os.fdopen(os.dup(1), "wb"), os.getppid()
    os.dup2(2, 1)

    def tell(news) -> None:
        pickle.dump(news, out)
        out.flush()

    os.register_at_fork(after_in_child=out.close)  # so that the other end hears of this process's death
    multiprocessing.set_start_method("fork", force=True)
    _end_when(lambda: os.getppid() != parent)
    fast.available()
    work, args = pickle.load(sys.stdin.buffer)
    try:
        tell((work(*args, tell), None))
    except ValueError as error:
        tell((None, error))
    except OSError as error:  # a disk that is full has no room for a traceback
        sys.exit(f"OSError: {error}")


def _end_when(lost: Callable[[], bool]) -> None:
    """From a thread, end all processes of this group where one of them is lost: the others would wait for it for ever."""

    def watch() -> None:
        while not lost():
            time.sleep(0.1)
        os.killpg(0, signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()


def dataset(samples, fields: dict, page: int, workers: int, path: str, tell: Callable) -> dict:
    """FFCV's DatasetWriter, watched, for `apart`: samples[i] is a value for each of `fields`. Returns how many."""
    from ffcv import writer

    def encode(usual: Callable, destination, image, malloc) -> None:
        """A field's encode that keeps a JPEG's own (bytes, height, width)."""
        if not isinstance(image, tuple):
            return usual(destination, image, malloc)
        data, destination["height"], destination["width"] = image
        destination["mode"], (destination["data_ptr"], room) = 0, malloc(len(data))
        room[:] = data

    _end_when(lambda: any(process.exitcode for process in list(multiprocessing.process._children)))
    writer.tqdm = lambda total: SimpleNamespace(update=tell, close=lambda: None)
    fields["image"].encode = partial(encode, fields["image"].encode)
    writer.DatasetWriter(path, fields, page, workers).from_indexed_dataset(samples)
    return {"count": len(samples)}


def write(path: Path, make: Callable, about: dict, *, total: int, desc: str | None = None) -> None:
    """A .beton file and its sidecar, which says `about` and what `make` returns, who makes the file, of (name, tell), `apart`.

    Raises ValueError as `make`, and OSError, naming the file, where it cannot be written or a process is killed: nothing stays.
    """
    try:
        with alone(path.parent, path.name):
            if fast.is_of(path, about):  # another process's, while this one waited
                return
            for left in path.parent.glob(f"{path.name}*.part"):  # a killed process's: one that is alive holds the lock
                left.unlink(missing_ok=True)
            with renamed(Path(f"{path}.json")) as note, renamed(path) as file:
                found = apart(make, file.name, total=total, desc=desc)
                note.write(json.dumps(sidecar_of(file) | found | about, indent=1).encode() + b"\n")
    except OSError as error:
        raise OSError(f"{path} could not be written, and no part of it is kept: {error.strerror or error}.") from error


def sidecar_of(file) -> dict:
    """What the sidecar says of a whole file's bytes."""
    from ffcv.reader import Reader

    reader, data = Reader(file.name), np.memmap(file.name, np.uint8, "r")
    head = sum(part.nbytes for part in (reader.header, reader.field_descriptors, reader.metadata))
    table = int(reader.header["alloc_table_ptr"])
    return {
        "schema": fast.SCHEMA, "size": len(data), "fields": reader.field_names, "head": head, "table": table,
        "sha256": hashlib.file_digest(file, "sha256").hexdigest(), "tables": fast.tables_sha256(data, head, table),
        "versions": {"ffcv": version("ffcv"), "numpy": np.__version__},
    }  # fmt: skip
