"""Files that are never half-written: made beside and renamed, so that a crash leaves the old one or the new one.

And how often a progress bar is drawn: where it ends up in a file, a job's log, each drawing stays.
"""

import os
import platform
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import BinaryIO

from tqdm.auto import tqdm


@contextmanager
def renamed(path: Path) -> Iterator[BinaryIO]:
    """A temporary file beside `path` to write bytes into: flushed to the disk and renamed when done, gone when not."""
    part = path.with_name(f"{path.name}.{platform.node()}-{os.getpid()}-{threading.get_ident()}.part")
    try:
        with open(part, "w+b") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def writable(folder: Path) -> None:
    """Make a folder where it is missing. Raises OSError, naming it, if nothing can be written into it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise OSError(f"nothing can be written to {folder} ({error.strerror}): use another folder.") from None


def drawing_seconds() -> int:
    """Seconds between two drawings of a progress bar: 1 on a terminal or in a notebook, else 60."""
    return 1 if sys.stderr.isatty() or "ipykernel" in sys.modules else 60


@cache
def say(text: str) -> None:
    """A remark on stderr, beside a progress bar, once in a process."""
    tqdm.write(text, file=sys.stderr)
