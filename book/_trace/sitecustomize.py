"""Notes which files below some folders a program reads. Python loads this by its name, from PYTHONPATH, before anything else.

chapters.py sets BOOK_TRACE to the file that takes the notes, a path a line, and BOOK_TRACE_ROOTS to the folders.
"""

import os
import sys


def watch(note: int, roots: tuple[str, ...]):
    """A hook for sys.addaudithook that writes each path once into the open file `note`."""
    seen = set()

    def hook(event, arguments):
        if event != "open" or not isinstance(arguments[0], str):
            return
        path = os.path.abspath(arguments[0])
        if path.startswith(roots) and path not in seen:
            seen.add(path)
            os.write(note, f"{path}\n".encode())

    return hook


if os.environ.get("BOOK_TRACE"):
    folders = tuple(root + os.sep for root in os.environ["BOOK_TRACE_ROOTS"].split(os.pathsep))
    file = os.open(os.environ["BOOK_TRACE"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    sys.addaudithook(watch(file, folders))
