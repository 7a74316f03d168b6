"""Files that are never half-written: made beside and renamed, so that a crash leaves the old one or the new one.

And how often a progress bar is drawn: where it ends up in a file, a job's log, each drawing stays.
"""

import atexit
import contextlib
import os
import platform
import re
import shlex
import shutil
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import BinaryIO

from filelock import FileLock, Timeout
from tqdm.auto import tqdm


def path_of(written: str | Path) -> Path:
    """A path as people write it: ~ and $VARIABLES are expanded. ValueError for an unknown user or variable."""
    path = os.path.expanduser(os.path.expandvars(written))
    if (path.startswith("~") or re.search(r"\$\{?[A-Za-z_]", path)) and not os.path.lexists(path):
        raise ValueError(f"the path {written} cannot be expanded: there is no such user or variable.")
    return Path(path)


def listed(folder: Path, pattern: str) -> list[Path]:
    """The files of a folder, by name, without hidden ones, as ._NAME, which macOS lays beside each on a foreign disk."""
    return sorted(path for path in folder.glob(pattern) if not path.name.startswith("."))


def words(*parts: object) -> str:
    """A command as a shell reads it: what has spaces is quoted."""
    return shlex.join(map(str, parts))


@contextmanager
def alone(folder: Path, name: str, seconds: float | None = None) -> Iterator[None]:
    """Make `folder`, and hold what is made there under this name, while other processes wait. An empty folder does not stay.

    seconds: how long this one waits, until it raises filelock's Timeout; None: as long as it takes. The lock goes too; a disk
    that is slow to tell others so may let two in, which then do the same work twice: what is made has to be renamed into its
    place. Raises OSError where the file system, a cluster's, has no locks.
    """
    new = [place for place in (folder, *folder.parents) if not place.exists()]
    lock = FileLock(folder / f".{name}.lock", mode=0o666, fallback_to_soft=False)  # other users of a shared folder lock it too
    try:
        folder.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=1 if seconds is None else seconds, poll_interval=0.5)
        except Timeout:
            if seconds is not None:
                raise
            say(f"{folder / name} is being made by another process: waiting for it.")
            lock.acquire()
        try:
            yield
        finally:
            with contextlib.suppress(OSError):
                Path(lock.lock_file).unlink()  # while it is held: who waits for it sees that it is gone, and makes another
            lock.release()
    finally:
        for place in new:
            with contextlib.suppress(OSError):
                place.rmdir()


@contextmanager
def renamed(path: Path) -> Iterator[BinaryIO]:
    """A temporary file beside `path` to write bytes into: flushed to the disk and renamed when done, gone when not.

    Its folder is made, also again: what a long run has done is not lost with it.
    """
    part = path.with_name(f"{path.name}.{platform.node()}-{os.getpid()}-{threading.get_ident()}.part")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with open(part, "w+b") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    except OSError as error:
        if error.errno:  # a full disk's error names no file
            error.filename = error.filename or str(path)
        raise
    finally:
        part.unlink(missing_ok=True)


def temporary() -> Path:
    """A new folder that goes with this process."""
    folder = Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def drawing_seconds() -> int:
    """Seconds between two drawings of a progress bar: 1 on a terminal or in a notebook, else 60."""
    return 1 if sys.stderr and sys.stderr.isatty() or "ipykernel" in sys.modules else 60


@cache
def say(text: str) -> None:
    """A remark on stderr, beside a progress bar, once in a process."""
    tqdm.write(text, file=sys.stderr)


def tell(bar) -> None:
    """In a notebook, where a progress bar is, as a line: papermill --log-output shows no bar."""
    if "ipykernel" in sys.modules and not bar.disable:
        print(f"{bar.desc}, {bar.n / bar.total:.0%}: {bar.postfix}", flush=True)
