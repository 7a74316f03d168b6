"""Files that are never half-written: made beside and renamed, so that a crash leaves the old one or the new one."""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


@contextmanager
def renamed(path: Path) -> Iterator[BinaryIO]:
    """A temporary file beside `path` to write bytes into: flushed to the disk and renamed when done, gone when not."""
    part = path.with_name(f"{path.name}.{os.getpid()}-{threading.get_ident()}.part")
    try:
        with open(part, "w+b") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
