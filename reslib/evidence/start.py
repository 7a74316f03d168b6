"""C22, before any training: what a layer does to signals on their way forward and to gradients on their way back.

`python -m reslib start --write notebooks/records/start` computes it, with a forward and a backward pass of 64 training images
of CIFAR-10 at 32x32 for each net: about ten minutes on one core. Evidence: start/slopes.json, ten draws of each net's weights.
"""

import json
import time
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from .. import data, probes
from ..files import renamed, words
from ..machine import environment
from ..recipes import CIFAR
from ..record import folder
from .comparison import Part, decide, minus

DEPTHS = (20, 32, 44, 56, 110)
SEEDS = tuple(range(100, 110))  # of the weights; each also takes its own 64 images
IMAGES = 64
NAIVE = 0.01  # standard deviation of all weights, as was the custom before
MARGIN = 0.01  # decades a layer, either way, within which a signal counts as kept: a factor of 3.5 over 55 layers
NAMES = ("init", "bn", "shortcut", "padding")
SETTINGS = (*product(("naive", "He"), (False, True), (None, "A"), ("zeros",)), ("He", False, None, "circular"),
            ("He", True, None, "circular"))  # fmt: skip
"""By NAMES: initialisation, BN, shortcut (None: a plain net), what 3x3 convolutions are padded with."""


def untrained(depth: int, init: str, bn: bool, shortcut: str | None, padding: str, seed: int) -> nn.Module:
    """A net of the paper's CIFAR series; "naive" and "He" weights are the same draws, scaled otherwise."""
    net = replace(CIFAR, depth=depth, shortcut=shortcut, seed=seed).net()
    generator = torch.Generator().manual_seed(seed)
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            module.padding_mode = padding
        if isinstance(module, nn.Conv2d | nn.Linear) and init == "naive":
            nn.init.normal_(module.weight, std=NAIVE, generator=generator)
    return net if bn else probes.without_bn(net)


def slopes(net: nn.Module, images: Tensor, labels: Tensor) -> tuple[float, float]:
    """Decades a layer by which a signal grows (above 0) or shrinks (below): (forward, backward).

    images (B, 3, H, W), labels (B,). Forward: the least-squares slope of log10 of a response's standard deviation over the
    layers, from the stem on; backward: that of log10 of the L2 norm of its gradient, from the last layer to the stem.
    """
    found = probes.probe(net, images, labels)
    logs = np.log10([found["response_std"], found["response_gradient"][::-1]])
    return tuple(float(np.polyfit(np.arange(logs.shape[1]), row, 1)[0]) for row in logs)


def compute(data_dir=None, depths=DEPTHS, seeds=SEEDS, settings=SETTINGS) -> dict:
    """All slopes, ready for JSON. Raises as `data.loader` where CIFAR-10 is not found."""
    began, rows, recipe = time.monotonic(), [], replace(CIFAR, batch=IMAGES)
    batches = data.loader(recipe, "train", data_dir=data_dir, augment=False, backend="array")
    batches = dict(zip(SEEDS, batches, strict=False))  # the first images of the training set
    for depth, setting in product(depths, settings):
        kind = torch.float64 if setting[:3] == ("naive", False, None) else torch.float32  # 10^-104 at 110 layers
        nets = ((seed, untrained(depth, *setting, seed).to(kind)) for seed in seeds)
        found = [slopes(net, batches[seed][0].to(kind), batches[seed][1]) for seed, net in nets]
        forward, backward = ([float(f"{x:.6g}") for x in values] for values in zip(*found, strict=True))
        rows.append({"depth": depth, **dict(zip(NAMES, setting, strict=True)), "forward": forward, "backward": backward})
    machine = environment(torch.device("cpu"), torch.get_num_threads())
    return {"schema": 1, "unit": "decades a layer", "images": IMAGES, "environment": machine,
            "data": data.images(recipe, train=True, data_dir=data_dir).sha256,
            "seconds": round(time.monotonic() - began, 1), "seeds": list(seeds), "rows": rows}  # fmt: skip


def write(values: dict, where: Path) -> Path:
    """Write slopes.json into a folder, a net a line."""
    with renamed(where / "slopes.json") as file:
        file.write((json.dumps(values, allow_nan=False).replace('{"depth"', '\n{"depth"') + "\n").encode())
    return where / "slopes.json"


def table(values: dict | None = None) -> pd.DataFrame:
    """One row a net and seed: depth, NAMES (shortcut "none": plain), seed, forward, backward (decades a layer).

    values: as `compute` gives them; None: the recorded ones, no row where there are none. Raises ValueError where their file is
    damaged.
    """
    path = folder() / "start" / "slopes.json"
    try:
        values = values or (json.loads(path.read_bytes()) if path.is_file() else {"rows": []})
        rows = [row | {"seed": values["seeds"], "shortcut": row["shortcut"] or "none"} for row in values["rows"]]
        frame = pd.DataFrame(rows, columns=["depth", *NAMES, "seed", "forward", "backward"])
        return frame.explode(["seed", "forward", "backward"]).astype({"bn": bool, "forward": float, "backward": float})
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        again = words("python", "-m", "reslib", "start", "--write", path.parent)
        raise ValueError(f"{path} is damaged ({error}): `{again}` makes it again.") from None


def parts(frame: pd.DataFrame) -> list[Part]:
    """The comparisons of the rule, by direction and depth."""
    nets = frame[frame.bn & (frame.init == "He") & (frame.shortcut == "none") & (frame.padding == "zeros")]
    return [Part(f"{way}, {depth} layers:", tuple(group[way]), threshold=MARGIN, side=0, margin=0.0, unit="")
            for way in ("forward", "backward") for depth, group in nets.groupby("depth")]  # fmt: skip


def told(part: Part) -> list[str]:
    """The mean and the ends of its 95 % interval, to a thousandth of a decade."""
    return [minus(f"{round(x, 3) + 0.0:.3f}") for x in (part.estimate, *part.interval())]


def parts_table(frame: pd.DataFrame) -> pd.DataFrame:
    """`parts` as a table: decades a layer, 95 % interval, and whether a layer keeps its signal."""
    kept = {"for": "yes", "against": "no", "open": "undecided"}
    found = {part.what.rstrip(":"): (told(part), kept[part.outcome]) for part in parts(frame)}
    rows = {what: (mean, f"{low} to {high}", word) for what, ((mean, low, high), word) in found.items()}
    return pd.DataFrame(rows, ["decades a layer", "95 % interval", "kept"]).T


def judge(frame: pd.DataFrame | None = None) -> dict:
    """In plain nets of 20 to 110 layers with He's initialisation and BN, before training, a layer changes neither the signal
    on its way forward nor the gradient on its way back by more than 0.01 decades (slopes over the layers, ten draws of the
    weights, two one-sided t tests at 5 % for each direction and each of five depths).

    Supported if all ten parts hold; contradicted if one lies beyond the margin, by one-sided tests at 2.5 % with Holm's
    correction over the ten; else undecided; incomplete where a depth or a draw is missing. The forward parts can hardly fail:
    BN sets each response's standard deviation. When this was written, recorded runs at 16x16 and pilot draws had shown that the
    gradient of plain nets grows backward.
    """
    judged = parts(table() if frame is None else frame)
    if not judged:
        return {"ours": "", "n": 0, "verdict": "no evidence"}
    n = min(part.n for part in judged)
    whole = len(judged) == 2 * len(DEPTHS) and n == len(SEEDS)
    found = "; ".join("{} {} [{}, {}]".format(part.what, *told(part)) for part in judged)
    word = f"{('supported', 'contradicted', 'undecided')[decide(judged)[0]]} at initialisation" if whole else "incomplete"
    return {"ours": f"decades a layer, {found}", "n": n, "verdict": word}
