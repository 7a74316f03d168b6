"""An ImageFolder tree of photographs into .beton files that FFCV can read, in parallel, checked, resumable.

    OUT/beton/imagenet-train-raw-480.beton         images and labels in FFCV's format; sample i is the i-th file by name
    OUT/beton/imagenet-train-raw-480.beton.rows    one row a sample (beton.ROW): where it lies, its sizes, its checksum
    OUT/beton/imagenet-train-raw-480.beton.json    the sidecar: size, sha256 of the rows, counts, classes, source, versions
    OUT/beton/imagenet-train.npz                   the mean image and the covariance of colours

The shorter side of an image is reduced to at most 480 pixels (INTER_AREA), never enlarged, so that a scale drawn from
[256, 480] means what section 3.4 means. mode "jpg" keeps a JPEG's own bytes wherever nothing has to be changed. FFCV's
writer is not used: it hangs when one of its processes dies. Every file is decoded once before anything is written.
"""

import contextlib
import hashlib
import json
import multiprocessing
import os
import shutil
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from importlib.metadata import version
from itertools import chain
from pathlib import Path

import numpy as np
import PIL
from tqdm.auto import tqdm

from . import beton, ffcv_backend
from .beton import MODES, PAGE, ROW, SCHEMA
from .checkpoint import locked
from .files import renamed
from .photos import CENTRE, Tree, centre, look, to_store, tree

SHARD = 500  # images that a worker converts at a time
PATIENCE = 300.0  # seconds in which no worker finishes a shard, before giving up


# --- what the worker processes do ------------------------------------------------------------------------------------


def _shard(folder: Path, names: list[str], labels: np.ndarray, mode: str, side: int, target: Path) -> None:
    """Converts a few images: target.pages, whole pages of a .beton, and then target.npz: rows and sums for statistics."""
    rows, place = np.zeros(len(names), ROW), 0
    total, moments = np.zeros((CENTRE[1], CENTRE[1], 3), np.uint32), np.zeros((3, 3))
    with renamed(target.with_suffix(".pages")) as file:
        for row, name, label in zip(rows, names, labels, strict=True):
            stored, pixels, source = to_store(folder / name, mode, side)
            if place % PAGE + len(stored) > PAGE:
                place += -place % PAGE
            row["mode"], row["label"], row["ptr"], row["size"] = MODES.index(mode), label, place, len(stored)
            (row["height"], row["width"]), (row["source_height"], row["source_width"]) = pixels.shape[:2], source
            file.seek(place)
            room = stored.tobytes().ljust(len(stored) + -len(stored) % 8, b"\0")
            file.write(room)
            row["checksum"] = beton.checksum()(np.frombuffer(room, np.uint64))  # zeros after it would not change it
            place += len(room)
            crop = centre(pixels)
            total += crop
            colours = crop.reshape(-1, 3) / np.float32(255)
            moments += colours.T @ colours
        place += -place % PAGE
        file.truncate(place)
        rows["room"] = np.diff(np.append(rows["ptr"], np.uint64(place)))
    with renamed(target.with_suffix(".npz")) as file:
        np.savez(file, rows=rows, total=total, moments=moments)


# --- what the watching process does ----------------------------------------------------------------------------------


def _end_with_parent() -> None:
    """A worker whose parent was killed ends too; Ctrl-C is the parent's to answer."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    multiprocessing.set_start_method("fork", force=True)  # of numba's lock: else Python warns of it when a worker is killed
    parent = multiprocessing.parent_process()
    threading.Thread(target=lambda: (parent.join(), os._exit(1)), daemon=True).start()


def _parallel(work: Callable, tasks: dict[int, tuple], jobs: int, describe: Callable[[int], str]) -> Iterator[tuple]:
    """(key, work(*tasks[key])) as they are finished, in `jobs` processes. OSError, in words of `describe`, if one dies."""
    if jobs == 1:
        yield from ((key, work(*task)) for key, task in tasks.items())
        return
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    pool, pending = ProcessPoolExecutor(jobs, context, _end_with_parent), {}
    try:
        pending = {pool.submit(work, *task): key for key, task in tasks.items()}
        while pending:
            done = wait(pending, PATIENCE, FIRST_COMPLETED).done
            if not done:
                raise _Worker(f"no worker came to an end for {PATIENCE:.0f} s near {describe(min(pending.values()))}")
            for future in done:
                result = future.result()
                yield pending.pop(future), result
    except BrokenProcessPool:
        raise _Worker(f"a worker died (killed, or out of memory) near {describe(min(pending.values()))}") from None
    finally:
        if pending:
            for process in list((pool._processes or {}).values()):
                process.kill()
        pool.shutdown(cancel_futures=True)


class _Worker(OSError):
    """A worker process died or hung: finished parts are worth keeping."""


def check(images: Tree, part: str, folder: Path, jobs: int) -> list[tuple[int, int, str, str]]:
    """What `look` says of every file, in order; kept in a file if all are readable, so that it is done once."""
    note = folder / f"imagenet-{part}.checked.json"
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        kept = json.loads(note.read_bytes())
        if (kept["schema"], kept["source"]) == (SCHEMA, images.sha256):
            return kept["images"]
    tasks = {i: (images.folder, images.names[i : i + SHARD]) for i in range(0, len(images.names), SHARD)}
    found = {}
    done = contextlib.closing(_parallel(look, tasks, jobs, lambda i: str(images.folder / images.names[i])))
    with done as done, tqdm(total=len(images.names), desc=f"checking {part}", unit="image") as bar:
        for key, result in done:
            found[key] = result
            bar.update(len(result))
    checked = [row for key in sorted(found) for row in found[key]]
    if not any(row[3] for row in checked):
        with contextlib.suppress(OSError):  # a full disk is met, and named, soon enough
            folder.mkdir(parents=True, exist_ok=True)
            with renamed(note) as file:
                file.write(json.dumps({"schema": SCHEMA, "source": images.sha256, "images": checked}).encode())
    return checked


def convert(source: str | Path, out: str | Path, part: str, mode: str = "jpg", side: int = 480, jobs: int | None = None,
            skip_unreadable: bool = False) -> Path:  # fmt: skip
    """The .beton file of a part, "train" or "val", of an ImageFolder tree: out/beton/imagenet-<part>-<mode>-<side>.beton.

    Written unless it is there. A killed process's finished parts are taken up again. Raises ImportError without FFCV;
    FileNotFoundError for no tree; ValueError for unreadable files (all listed on stdout) and bad arguments; OSError if a
    worker dies (finished parts are kept) or the disk is full (nothing is kept). Each names the file.
    """
    if mode not in MODES or not CENTRE[1] <= side <= 480 or (jobs or 1) < 1:
        raise ValueError(
            f"mode {mode!r} is not raw or jpg, or short side {side} not between {CENTRE[1]} and 480, or jobs {jobs} < 1."
        )
    path = Path(out) / "beton" / f"imagenet-{part}-{mode}-{side}.beton"
    if not ffcv_backend.available():
        raise ImportError(f"{path} needs FFCV, which is not installed or lacks its libraries: use backend='torch'.")
    images, jobs = tree(source, part), jobs or os.cpu_count() or 1
    checked = check(images, part, path.parent, jobs)
    bad = [i for i, row in enumerate(checked) if row[3]]
    for i in bad:
        print(f"unreadable: {images.folder / images.names[i]} ({checked[i][3]})")
    if len(bad) == len(checked) or (bad and not skip_unreadable):
        raise ValueError(f"{len(bad)} of {len(checked):,} files cannot be read, {images.folder / images.names[bad[0]]} first: "
                         "mend or remove them, or leave them out with --skip-unreadable.")  # fmt: skip
    keep = np.array([i for i, row in enumerate(checked) if not row[3]], np.int64)
    kinds = [checked[i][2] for i in keep]
    report = {"unreadable": [images.names[i] for i in bad], "cmyk": kinds.count("CMYK"),
              "greyscale": sum(kind in ("1", "L", "LA", "I", "I;16") for kind in kinds)}  # fmt: skip
    key = {"schema": SCHEMA, "source": images.sha256, "shard": SHARD, "count": len(keep), "side": side, "mode": mode}

    def finished() -> bool:
        with contextlib.suppress(OSError, ValueError, AttributeError):
            return path.exists() and key.items() <= json.loads(Path(f"{path}.json").read_bytes()).items()
        return False

    if finished():
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    with locked(path.with_suffix(".lock")):  # another process may be at it, and finish it meanwhile
        if finished():
            return path
        parts = path.with_suffix(".parts")
        try:
            _write(images, keep, key, report, path, parts, jobs)
        except _Worker as error:
            raise OSError(f"{path} is not finished: {error}; its finished parts are kept, the same command goes on.") from None
        except (OSError, ValueError) as error:
            shutil.rmtree(parts, ignore_errors=True)
            if isinstance(error, ValueError):
                raise
            raise OSError(f"{path} could not be written, and no part of it is kept: {error.strerror or error}.") from error
        finally:
            for left in parts.glob("*.part"):
                left.unlink(missing_ok=True)
    return path


def _write(images: Tree, keep: np.ndarray, key: dict, report: dict, path: Path, parts: Path, jobs: int) -> None:
    """Shards, made in parallel, appended in their order to parts/whole; then its head and tables, its name, its sidecar."""
    shards = [keep[i : i + SHARD] for i in range(0, len(keep), SHARD)]
    pages, notes = ([parts / f"{k:05}.{kind}" for k in range(len(shards))] for kind in ("pages", "npz"))
    if not (parts / "key.json").exists() or json.loads((parts / "key.json").read_bytes()) != key:
        shutil.rmtree(parts, ignore_errors=True)
        parts.mkdir(parents=True)
        with renamed(parts / "key.json") as file:
            file.write(json.dumps(key).encode())
    with open(parts / "whole", "r+b" if (parts / "whole").exists() else "w+b") as whole:
        length, place, made = whole.seek(0, 2), beton.head_size(len(keep)), 0
        while made < len(shards) and notes[made].exists() and not pages[made].exists():  # appended by a killed process
            with np.load(notes[made]) as note:
                size = int(note["rows"]["room"].sum())
            if place + size > length:
                break
            place, made = place + size, made + 1
        todo = {k: (images.folder, [images.names[i] for i in shards[k]], images.labels[shards[k]], key["mode"], key["side"],
                    notes[k]) for k in range(made, len(shards)) if not (notes[k].exists() and pages[k].exists())}  # fmt: skip
        for k in todo:
            notes[k].unlink(missing_ok=True)
        finished = contextlib.closing(_parallel(_shard, todo, jobs, lambda k: str(images.folder / images.names[shards[k][0]])))
        with finished as finished, tqdm(total=len(keep), desc=path.name, unit="image") as bar:
            for _ in chain([None], finished):
                while made < len(shards) and notes[made].exists() and pages[made].exists():
                    whole.seek(place)
                    with open(pages[made], "rb") as shard:
                        shutil.copyfileobj(shard, whole, PAGE)
                    place = whole.tell()
                    whole.flush()
                    os.fsync(whole.fileno())
                    pages[made].unlink()
                    made += 1
                bar.update(sum(len(shards[k]) for k in range(made)) - bar.n)
        rows, total, moments = [], 0, 0
        for note in map(np.load, notes):
            with note:
                rows.append(note["rows"])
                total, moments = total + note["total"].astype(np.uint64), moments + note["moments"]
        starts = np.cumsum([beton.head_size(len(keep)), *(part["room"].sum() for part in rows)]).astype(np.uint64)
        for part, start in zip(rows, starts, strict=False):
            part["ptr"] += start
        rows = np.concatenate(rows)
        before, after = beton.frame(rows)
        whole.seek(0)
        whole.write(before)
        whole.seek(place)
        whole.write(after)
        whole.truncate()
        whole.flush()
        os.fsync(whole.fileno())
    if "-train-" in path.name:
        with renamed(path.parent / "imagenet-train.npz") as file:
            pixels = len(rows) * CENTRE[1] ** 2
            average = total.sum((0, 1)) / (255 * pixels)
            np.savez(file, mean=(total / (255 * len(rows))).astype(np.float32), n=len(rows), source=images.sha256,
                     covariance=moments / pixels - np.outer(average, average))  # fmt: skip
    Path(f"{path}.json").unlink(missing_ok=True)  # without it the others count as never finished
    with renamed(Path(f"{path}.rows")) as file:
        file.write(rows.tobytes())
    os.replace(parts / "whole", path)
    sidecar = key | {
        "sha256": hashlib.sha256(rows).hexdigest(), "size": place + len(after), "fields": ["image", "label"],
        "classes": images.classes, "from": str(images.folder.absolute()), "report": report,
        "versions": {"ffcv": version("ffcv"), "numpy": np.__version__, "pillow": PIL.__version__},
    }  # fmt: skip
    with renamed(Path(f"{path}.json")) as file:
        file.write(json.dumps(sidecar, indent=1).encode())
    shutil.rmtree(parts)
