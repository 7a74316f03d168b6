"""Loading speed: the backends and plain torchvision + DataLoader side by side, in turn, in one run.

A round gives every contender a second or two, so that whatever else the machine does meets all of them; a ratio is taken
within a round, to the best of torchvision's worker counts in that round, and its median over the rounds is reported.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from itertools import count
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from .. import data
from ..data import convert, fast, tree
from ..files import renamed, words
from ..machine import environment
from ..recipes import CIFAR, IMAGENET
from ..record import folder as records_folder
from . import step as bench

SCHEMA = 1
SETS = {"photographs, scales 256 to 480": ((256, 480), ("raw 480", "jpg 480")), "photographs, 256": ((256, 256), ("raw 256",))}
"""The range of shorter sides, and the files that serve it: mode and shorter side."""


def usual_photographs(folder: Path, scales: tuple[int, int]):
    """The usual script's: decode, resize (to a random scale or to 256), crop, mirror, normalise."""
    from torchvision.datasets import ImageFolder
    from torchvision.io import ImageReadMode, decode_jpeg, read_file
    from torchvision.transforms import v2

    def decode(path: str) -> torch.Tensor:
        with warnings.catch_warnings(action="ignore"):  # torchvision announces that it will drop its decoders
            return decode_jpeg(read_file(path), ImageReadMode.RGB)

    as_floats, mean = v2.ToDtype(torch.float32, scale=True), v2.Normalize([0.485, 0.456, 0.406], [1.0, 1.0, 1.0])
    steps = [v2.RandomResize(*scales) if scales[1] > scales[0] else v2.Resize(scales[0])]
    return ImageFolder(
        folder, v2.Compose([*steps, v2.RandomCrop(224), v2.RandomHorizontalFlip(), as_floats, mean]), loader=decode
    )


def contenders(data_dir, images: tree.Tree | None, folder: Path, workers: list[int], device: str) -> dict[tuple, Callable]:
    """(set, loader, workers) -> batches without end: torchvision's usual scripts, and ours, photographs from `folder`."""

    def ours(recipe, **where) -> Iterator:
        for epoch in count():
            yield from data.loader(recipe, "train", epoch=epoch, device=device, **where)

    usual = partial(bench.usual_batches, bench.usual_cifar(data_dir), 128, device=device)
    found = {("CIFAR-10, 32 px", "torchvision", w): partial(usual, workers=w) for w in (0, *workers)}
    for recipe in (CIFAR, CIFAR.at("pocket")):
        ways = [("array", 2 if device == "cpu" else 0)] + [("torch", 0)] * (recipe is CIFAR)
        ways += [("ffcv", w) for w in workers if fast.available() and device == "cpu"]
        for way, w in ways:
            make = partial(ours, recipe, data_dir=data_dir, backend=way, workers=w)
            found[f"CIFAR-10, {recipe.size} px", way, w] = make
    for part, (scales, files) in SETS.items() if images else ():
        batch = max(1, min(64, len(images.names) // 8))  # so that an epoch of few photographs has batches to overlap
        usual = partial(bench.usual_batches, usual_photographs(images.folder, scales), batch, device=device)
        found |= {(part, "torchvision", w): partial(usual, workers=w) for w in (0, *workers)}
        recipe = replace(IMAGENET, batch=batch, short_side=scales if scales[1] > scales[0] else None)
        for name, w in [(name, w) for name in files for w in workers]:
            found[part, f"ffcv {name}", w] = partial(ours, recipe, data_dir=folder / name, backend="ffcv", workers=w)
    return found


def images_per_second(make: Callable[[], Iterator], seconds: float, device: str) -> float:
    """Images a second after the first batch, over `seconds`; on a GPU until they lie there."""
    with closing(make()) as batches:
        next(batches)
        images, tick = 0, time.perf_counter()
        while time.perf_counter() < tick + seconds:
            images += len(next(batches)[1])
        if device != "cpu":
            torch.cuda.synchronize()
        return images / (time.perf_counter() - tick)


FIRST = """import sys, time, reslib
tick = time.perf_counter()
next(iter(reslib.loader(reslib.CIFAR, "train", data_dir=sys.argv[1], backend=sys.argv[2], workers=2)))
print(time.perf_counter() - tick)"""


def first_batches(backend: str, data_dir) -> list[dict]:
    """Seconds from constructing CIFAR-10's loader to its first batch, in two fresh processes: the first one compiles."""
    rows = []
    with tempfile.TemporaryDirectory() as cache:
        environ = {**os.environ, "NUMBA_CACHE_DIR": cache, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        command = [sys.executable, "-c", FIRST, str(data_dir), backend]
        for process in ("first", "second"):
            run = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
            if run.returncode:
                raise OSError(f"the {process} process that loads by {backend} failed: {run.stderr.strip().splitlines()[-1]}")
            seconds = round(float(run.stdout), 2)
            rows.append({"set": "CIFAR-10, 32 px", "loader": backend, "process": process, "first_batch": seconds})
    return rows


def differences(folder: Path, name: str) -> dict:
    """Mean, median and 99th percentile of how far ffcv's crops, from the file `name`, are from torchvision's, in 255ths."""
    loaders = (data.loader(replace(IMAGENET, batch=1, colour=0.0), "train", data_dir=folder / name, backend=backend)
               for backend in ("ffcv", "torch"))  # fmt: skip
    gaps = np.stack([255 * (x - u)[0].abs().numpy() for (x, _), (u, _) in zip(*loaders, strict=True)])
    p99 = round(float(np.quantile(gaps, 0.99)), 1)
    return {"file": name, "mean": round(float(gaps.mean()), 2), "median": round(float(np.median(gaps)), 2), "p99": p99,
            "crops": len(gaps)}  # fmt: skip


def run(data_dir=None, photographs: Path | None = None, rounds: int = 5, seconds: float = 1.5, workers=(1, 2),
        device: str = "cpu") -> dict:  # fmt: skip
    """The whole benchmark as one record. Raises as `data.loader` and `convert.convert`."""
    from tqdm.auto import tqdm

    start, fresh, gaps = datetime.now(UTC).isoformat(timespec="seconds"), [], []
    images = tree.tree(photographs, "train") if photographs else None
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        for name in [name for _, files in SETS.values() for name in files] if images else ():
            mode, side = name.split()
            convert.convert(photographs, folder / name, "train", mode, int(side), jobs=min(2, os.cpu_count() or 1))
            gaps += [differences(folder, name)] if side == "480" else []
        for backend in ("array", "ffcv") if fast.available() else ("array",):
            fresh += first_batches(backend, data.data_folder(data_dir))
        made = contenders(data_dir, images, folder, list(workers), device)
        rows = [dict(zip(("set", "loader", "workers"), key, strict=True), images_per_second=[]) for key in made]
        for _ in tqdm(range(rounds), desc="bench load", unit="round"):
            for row, make in zip(rows, made.values(), strict=True):
                row["images_per_second"].append(round(images_per_second(make, seconds, device), 1))
    machine = environment(torch.device(device), torch.get_num_threads()) | {"cores": os.cpu_count()}
    return dict(schema=SCHEMA, kind="bench load", start=start, rounds=rounds, seconds=seconds, environment=machine,
                photographs=images and len(images.names), rows=rows, fresh=fresh, pixel_differences=gaps)  # fmt: skip


def write(record: dict, folder: str | Path) -> Path:
    """Into `folder`, written beside and renamed: load-<device>-<date>.json."""
    device = "".join(c if c.isalnum() else "-" for c in record["environment"]["device"].split(",")[0].lower())
    path = data.data_folder(folder) / f"load-{device}-{record['start'][:10]}.json"
    with renamed(path) as file:
        file.write(json.dumps(record, indent=1).encode() + b"\n")
    return path


def newest() -> Path:
    """The newest recorded benchmark. Raises FileNotFoundError, with the command that makes one, if there is none."""
    where = records_folder() / "bench"
    found = sorted(where.glob("load-*.json"), key=lambda p: (p.stem[-10:], p.name))
    if not found:
        command = words("python", "-m", "reslib", "bench", "load", "--write", where)
        raise FileNotFoundError(f"no benchmark in {where}: make one with `{command}`.")
    return found[-1]


def read(path: str | Path) -> dict:
    """A record of `run`. Raises ValueError, naming the file, if it is none."""
    try:
        record = json.loads(Path(path).read_text())
        if (record["schema"], record["kind"]) != (SCHEMA, "bench load") or not record["rows"]:
            raise ValueError(f"its schema is not {SCHEMA}")
        frame(record)
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is not a record of `python -m reslib bench load`: {error}.") from None
    return record


def frame(record: dict) -> pd.DataFrame:
    """One row a contender: set, loader, workers, median, lowest and highest images a second, and the median ratio to the best
    torchvision of the same round (CIFAR-10 at 16 px: to that at 32, there is no other)."""
    rows = pd.DataFrame(record["rows"])
    speeds = np.array(rows["images_per_second"].tolist())  # (contenders, rounds)
    usual = rows["loader"] == "torchvision"
    best = {part: speeds[usual & (rows["set"] == part)].max(0, initial=0) for part in set(rows["set"])}
    best["CIFAR-10, 16 px"] = best["CIFAR-10, 32 px"]
    ratios = speeds / np.array([best[part] for part in rows["set"]])
    return rows[["set", "loader", "workers"]].assign(
        median=np.median(speeds, 1), lowest=speeds.min(1), highest=speeds.max(1), ratio=np.median(ratios, 1),
        ratio_lowest=ratios.min(1), ratio_highest=ratios.max(1),
    )  # fmt: skip


def table(record: dict) -> str:
    """The record as Markdown: images a second and times the best torchvision, first batches in seconds, pixel differences."""
    parts = frame(record), pd.DataFrame(record["fresh"]), pd.DataFrame(record["pixel_differences"])
    return "\n\n".join(part.to_markdown(index=False, floatfmt=",.1f") for part in parts if len(part))
