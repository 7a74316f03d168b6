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
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch.utils.data import Dataset

from . import bench, data, ffcv_backend
from .files import renamed
from .machine import environment
from .recipes import CIFAR, IMAGENET, Recipe
from .record import folder as records_folder

SCHEMA = 1
FILES = {"raw 480": ("raw", 480), "jpg 480": ("jpg", 480), "raw 256": ("raw", 256)}  # mode, shorter side of photographs
Contenders = dict[tuple, Callable[[], Iterator]]  # (set, loader, workers) -> an epoch of batches


class _Photographs(Dataset):
    """The usual script for photographs: decode, resize (to a random scale or to 256), crop, mirror, normalise."""

    def __init__(self, tree, scales: tuple[int, int]):
        from torchvision.transforms import v2

        self.tree, self.scales = tree, scales
        self.rest = v2.Compose([
            v2.RandomCrop(224), v2.RandomHorizontalFlip(), v2.ToDtype(torch.float32, scale=True),
            v2.Normalize([0.485, 0.456, 0.406], [1.0, 1.0, 1.0]),
        ])  # fmt: skip

    def __len__(self) -> int:
        return len(self.tree.names)

    def __getitem__(self, i: int):
        from torchvision.io import ImageReadMode, decode_jpeg, read_file
        from torchvision.transforms.v2.functional import resize

        with warnings.catch_warnings(action="ignore"):  # torchvision announces that it will drop its decoders
            image = decode_jpeg(read_file(str(self.tree.folder / self.tree.names[i])), ImageReadMode.RGB)
        side = int(torch.randint(self.scales[0], self.scales[1] + 1, ()))
        return self.rest(resize(image, [side], antialias=True)), int(self.tree.labels[i])


def _ours(recipe: Recipe, **where) -> Iterator:
    epoch = 0
    while True:
        yield from data.loader(recipe, "train", epoch=epoch, **where)
        epoch += 1


def cifar_contenders(data_dir, workers: list[int], device: str) -> Contenders:
    """torchvision's usual script, and ours at 32 and 16 pixels; batches of 128."""
    dataset = bench.usual_cifar(data_dir)
    usual = partial(bench.usual_batches, dataset, 128, device=device)
    found = {("CIFAR-10, 32 px", "torchvision", w): partial(usual, workers=w) for w in (0, *workers)}
    for recipe in (CIFAR, CIFAR.at("pocket")):
        part = f"CIFAR-10, {recipe.size} px"
        where = dict(recipe=recipe, data_dir=data_dir, device=device)
        found[part, "array", 2 if device == "cpu" else 0] = lambda where=where: _ours(**where, backend="array")
        if ffcv_backend.available() and device == "cpu":
            found |= {(part, "ffcv", w): lambda w=w, where=where: _ours(**where, backend="ffcv", workers=w) for w in workers}
    found["CIFAR-10, 32 px", "torch", 0] = lambda: _ours(CIFAR, data_dir=data_dir, device=device, backend="torch", workers=0)
    return found


def photograph_contenders(tree, folder: Path, workers: list[int], device: str, batch: int) -> Contenders:
    """torchvision's usual script with random scales and at 256 pixels, and ours from the FILES in `folder`."""
    found, sets = {}, {"photographs, scales 256 to 480": (256, 480), "photographs, 256": (256, 256)}
    for part, scales in sets.items():
        usual = partial(bench.usual_batches, _Photographs(tree, scales), batch, device=device)
        found |= {(part, "torchvision", w): partial(usual, workers=w) for w in (0, *workers)}
        recipe = replace(IMAGENET, batch=batch, short_side=scales if scales[1] > scales[0] else None)
        for name, (_, side) in FILES.items():
            if side >= scales[1] and (side == 480) == (scales[1] == 480):
                found |= {
                    (part, f"ffcv {name}", w): lambda w=w, r=recipe, n=name: _ours(
                        r, data_dir=folder / n, device=device, backend="ffcv", workers=w
                    )
                    for w in workers
                }
    return found


def images_per_second(make: Callable[[], Iterator], seconds: float, device: str) -> float:
    """Images a second after the first batch, over `seconds`; on a GPU until they lie there."""
    with closing(make()) as batches:
        next(batches)
        count, tick = 0, time.perf_counter()
        while time.perf_counter() < tick + seconds:
            count += len(next(batches)[1])
        if device != "cpu":
            torch.cuda.synchronize()
        return count / (time.perf_counter() - tick)


def measure(contenders: Contenders, rounds: int, seconds: float, device: str) -> list[dict]:
    """One row a contender: set, loader, workers, and images a second in each round."""
    from tqdm.auto import tqdm

    rows = [dict(zip(("set", "loader", "workers"), key, strict=True), images_per_second=[]) for key in contenders]
    with tqdm(total=rounds * len(rows), desc="bench load") as bar:
        for _ in range(rounds):
            for row, make in zip(rows, contenders.values(), strict=True):
                row["images_per_second"].append(round(images_per_second(make, seconds, device), 1))
                bar.update()
    return rows


def first_batch(backend: str, data_dir: str, imagenet: bool) -> dict:
    """In this process: seconds from constructing a loader to its first batch, and the largest resident memory in GB by
    the end of at most 400 batches."""
    recipe, tick = replace(IMAGENET, batch=16) if imagenet else CIFAR, time.perf_counter()
    batches = iter(data.loader(recipe, "train", data_dir=data_dir, backend=backend, workers=2))
    next(batches)
    seconds = time.perf_counter() - tick
    for _ in zip(range(400), batches, strict=False):
        pass
    return {"first_batch": round(seconds, 2), "memory": round(bench.peak_memory(), 2)}


def first_batches(backend: str, data_dir: Path, imagenet: bool = False) -> list[dict]:
    """`first_batch` in two fresh processes: with nothing compiled before, and with the kernels cached by the first."""
    call = f"first_batch({backend!r}, {str(data_dir)!r}, {imagenet})"
    code = f"import json; from reslib import bench_load; print(json.dumps(bench_load.{call}))"
    with tempfile.TemporaryDirectory() as cache:
        environ = {**os.environ, "NUMBA_CACHE_DIR": cache, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        rows = []
        for process in ("first", "second"):
            run = subprocess.run([sys.executable, "-c", code], env=environ, capture_output=True, text=True, check=False)
            if run.returncode:
                raise OSError(f"the {process} process that loads by {backend} failed: {run.stderr.strip().splitlines()[-1]}")
            name = "photographs" if imagenet else "CIFAR-10, 32 px"
            rows.append({"set": name, "loader": backend, "process": process, **json.loads(run.stdout.splitlines()[-1])})
    return rows


def differences(folder: Path, name: str) -> dict:
    """How far ffcv's crops, from the file `name`, are from torchvision's, in 255ths: the same rectangles, other pixels."""
    recipe = replace(IMAGENET, batch=1, colour=0.0)
    pairs = zip(*(data.loader(recipe, "train", data_dir=folder / name, backend=b, workers=1) for b in ("ffcv", "torch")),
                strict=True)  # fmt: skip
    return described(name, [(x - u).abs().numpy() * 255 for (x, _), (u, _) in pairs])


def described(name: str, gaps: list[np.ndarray]) -> dict:
    """Mean, median and 99th percentile of absolute differences, in 255ths, over so many images."""
    flat = np.concatenate([gap.ravel() for gap in gaps])
    return {"file": name, "mean": round(float(flat.mean()), 2), "median": round(float(np.median(flat)), 2),
            "p99": round(float(np.quantile(flat, 0.99)), 1), "crops": len(gaps)}  # fmt: skip


def causes(tree, most: int = 100) -> list[dict]:
    """What `differences` is made of, each alone: FFCV's JPEG decoder against PIL's, whole photographs; and, on the same pixels,
    INTER_AREA against antialiased bilinear, the centre of 224 pixels at a shorter side of 256."""
    from torchvision.transforms.v2.functional import crop, resize

    from .photos import CENTRE, centre, decoded, to_store

    decoding, resizing, (side, size) = [], [], CENTRE
    for name in tree.names[:most]:
        reference = decoded(tree.folder / name)  # (3, H, W)
        pixels = reference.permute(1, 2, 0).numpy()
        own = to_store(tree.folder / name, "jpg", 1 << 16)[1]
        decoding.append(np.abs(own.astype(np.int16) - pixels)[::4, ::4])  # one pixel in 16: enough, in less memory
        height, width = (n * side // min(pixels.shape[:2]) for n in pixels.shape[:2])
        small = crop(resize(reference, [height, width], antialias=True), (height - size) // 2, (width - size) // 2, size, size)
        resizing.append(np.abs(small.permute(1, 2, 0).numpy().astype(np.int16) - centre(pixels)))
    return [described("decoding alone", decoding), described("resizing alone", resizing)]


def run(data_dir=None, photographs: Path | None = None, rounds: int = 5, seconds: float = 1.5, workers=(1, 2),
        device: str = "cpu") -> dict:  # fmt: skip
    """The whole benchmark as one record. Raises as `data.loader` and `convert.convert`."""
    workers, start = list(workers), datetime.now(UTC).isoformat(timespec="seconds")
    with tempfile.TemporaryDirectory() as folder:
        contenders, folder = cifar_contenders(data_dir, workers, device), Path(folder)
        fresh, gaps, sizes, colours = [], [], [], None
        backends = ["array", "ffcv"] if ffcv_backend.available() else ["array"]
        for backend in backends:
            fresh += first_batches(backend, data.data_folder(data_dir).absolute())
        if photographs is not None:
            from . import convert, imagenet, photos

            tree = photos.tree(photographs, "train")
            for name, kind in FILES.items():
                convert.convert(photographs, folder / name, "train", *kind, jobs=min(2, os.cpu_count() or 1))
            batch = max(1, min(64, len(tree.names) // 8))  # so that an epoch of few photographs has batches to overlap
            contenders |= photograph_contenders(tree, folder, workers, device, batch)
            fresh += first_batches("ffcv", folder / "raw 480", imagenet=True)
            gaps = [differences(folder, name) for name in ("raw 480", "jpg 480")] + causes(tree)
            values, vectors = photos.components(imagenet.statistics(folder / "raw 480")[1])
            cosines = np.abs((vectors * photos.PUBLISHED).sum(0)).round(4)
            colours = dict(eigenvalues=values.round(4).tolist(), cosines_to_published=cosines.tolist())
            sizes = [dict(zip(("mode", "side", "bytes", "GB"), row, strict=True)) for row in photos.disk_sizes(tree)]
        rows = measure(contenders, rounds, seconds, device)
    machine = environment(torch.device(device), torch.get_num_threads()) | {"cores": os.cpu_count()}
    about = dict(schema=SCHEMA, kind="bench load", start=start, rounds=rounds, seconds=seconds, environment=machine)
    about |= dict(photographs=photographs and len(tree.names), colours=colours, disk=sizes)
    return about | dict(rows=rows, fresh=fresh, pixel_differences=gaps)


def write(record: dict, folder: str | Path) -> Path:
    """Into `folder`, written beside and renamed: load-<device>-<date>.json."""
    device = "".join(c if c.isalnum() else "-" for c in record["environment"]["device"].split(",")[0].lower())
    path = Path(folder) / f"load-{device}-{record['start'][:10]}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    with renamed(path) as file:
        file.write(json.dumps(record, indent=1).encode() + b"\n")
    return path


def newest() -> Path:
    """The newest recorded benchmark. Raises FileNotFoundError, with the command that makes one, if there is none."""
    where = records_folder() / "bench"
    found = sorted(where.glob("load-*.json"), key=lambda p: (p.stem[-10:], p.name))
    if not found:
        raise FileNotFoundError(f"no benchmark in {where}: make one with `python -m reslib bench load --write {where}`.")
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
    best = {
        part: speeds[(rows["set"] == part) & (rows["loader"] == "torchvision")].max(0, initial=0) for part in set(rows["set"])
    }
    best["CIFAR-10, 16 px"] = best["CIFAR-10, 32 px"]
    ratios = speeds / np.array([best[part] for part in rows["set"]])
    return rows[["set", "loader", "workers"]].assign(
        median=np.median(speeds, 1), lowest=speeds.min(1), highest=speeds.max(1), ratio=np.median(ratios, 1),
        ratio_lowest=ratios.min(1), ratio_highest=ratios.max(1),
    )  # fmt: skip


def table(record: dict) -> str:
    """The record as Markdown: speeds and ratios, first batches and memory, pixel differences, sizes on disk."""
    lines = ["| images | loader | workers | images/s (lowest to highest) | times the best torchvision (lowest to highest) |",
             "|---|---|---|---|---|"]  # fmt: skip
    for row in frame(record).itertuples():
        speed = f"{row.median:,.0f} ({row.lowest:,.0f} to {row.highest:,.0f})"
        lines.append(f"| {row.set} | {row.loader} | {row.workers} | {speed} "
                     f"| {row.ratio:.1f} ({row.ratio_lowest:.1f} to {row.ratio_highest:.1f}) |")  # fmt: skip
    lines += ["", "| images | loader | process | first batch, s | resident memory, GB |", "|---|---|---|---|---|"]
    lines += [f"| {r['set']} | {r['loader']} | {r['process']} | {r['first_batch']} | {r['memory']} |" for r in record["fresh"]]
    if record["pixel_differences"]:
        lines += ["", "| ffcv against torch, 255ths | mean | median | 99 % below | images |", "|---|---|---|---|---|"]
        lines += [
            f"| {r['file']} | {r['mean']} | {r['median']} | {r['p99']} | {r['crops']} |" for r in record["pixel_differences"]
        ]
        lines += ["", "| stored as | kB an image | GB for all of ImageNet |", "|---|---|---|"]
        lines += [f"| {r['mode']} {r['side']} | {r['bytes'] / 1e3:.0f} | {r['GB']:,.0f} |" for r in record["disk"]]
    return "\n".join(lines)
