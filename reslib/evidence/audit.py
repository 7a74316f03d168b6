"""An audit of published CIFAR-10 nets: the weights of others in reslib's own nets, measured anew on the exact images.

    python -m reslib audit DIR      # DIR/<owner>+<repo>/: weights, logs, and what describes them (published.py)

One JSON a net in notebooks/records/audits, written beside and renamed; `audits()` gives one row a net.
"""

import hashlib
import json
import math
import re
import time
import zlib
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor, nn

from .. import data, evaluation, probes
from ..files import listed, renamed
from ..machine import environment
from ..recipes import CIFAR
from ..record import folder as records_folder
from ..record import pack, refuse_constant, short, unpack
from ..weights import SUFFIXES, read_weights
from .published import describe, name_of, reported
from .weights import departures, readings

KIND, SCHEMA = "audit", 1
TOLERANCE = 0.005  # percent: half an image of 10,000, so a report with two decimals is met exactly or not at all
MEASURED = (
    "train_error", "train_loss", "test_error", "test_loss", "test_error_recomputed_bn", "test_loss_recomputed_bn",
)  # fmt: skip
"""Errors in percent, losses in nats, over all images, not augmented. recomputed_bn: statistics over the training images, as for
reslib's own nets; nets that were trained on crops with a black border lose by that."""


def agreement(reported: dict[str, float], measured: float) -> str | None:
    """Which reported test error is the measured one: "final", "best" or "stated", the first that is; None: no one."""
    return next((k for k in ("final", "best", "stated") if abs(reported.get(k, math.inf) - measured) <= TOLERANCE), None)


def batches(images: data.Images, source: dict, data_dir=None) -> Iterator[tuple[Tensor, Tensor]]:
    """All images in their order, (x - mean) / std, x in [0, 1]: float32 (B, 3, H, W) channels_last; labels int64 (B,)."""
    mean = data.mean_image(CIFAR, data_dir) if source["mean"] == "image" else source["mean"]
    mean, std = (torch.tensor(a, dtype=torch.float32) for a in (mean, source["std"]))
    for i in range(0, len(images.labels), CIFAR.batch):
        x = torch.from_numpy(data.BYTE[images.pixels[i : i + CIFAR.batch]])
        yield ((x - mean) / std).permute(0, 3, 1, 2), torch.from_numpy(images.labels[i : i + CIFAR.batch])


def choose(path: str, tensors: dict, few: list) -> tuple[str | None, str | None, nn.Module]:
    """The reading of the weights that fits the training batches `few` best: (shortcut, zero channels, net).

    If all are wrong about half of the images or more, the first that agrees with the path. Raises ValueError if there is no
    reading, or if a net that reslib does not have fits better than the best.
    """
    names = re.findall("plain|resnet|residual", path.lower())
    found = sorted(readings(tensors), key=lambda reading: bool(names) and (reading[0] is None) != (names[-1] == "plain"))
    scores = [evaluation.evaluate(net, few) for _, _, net in found]
    best = min(range(len(found)), key=lambda i: scores[i]["loss"])
    if scores[best]["top1_error"] >= 50:
        return found[0]
    loss, what = min((evaluation.evaluate(net, few)["loss"], what) for what, net in departures(found[best][2]))
    if loss < scores[best]["loss"]:
        raise ValueError(f"fits the training images better with {what}: such nets, or such pixels, are not audited")
    return found[best]


def measure(path: Path, folder: Path, source: dict, data_dir=None) -> dict:
    """The audit of the weights `path` of the source in `folder`. Raises ValueError, naming the file, if they cannot be read or
    fit no net of reslib; as `data.images`."""
    start, began = datetime.now(UTC).isoformat(timespec="seconds"), time.monotonic()
    train, test = (data.images(CIFAR, train=part, data_dir=data_dir) for part in (True, False))
    tensors, best = read_weights(path)
    said = ({} if best is None else {"best": best}) | reported(source, folder, path)
    name, few = path.relative_to(folder).as_posix(), list(islice(batches(train, source, data_dir), 8))
    try:
        shortcut, zeros, net = choose(name, tensors, few)
    except ValueError as error:
        raise ValueError(f"{path} {error}.") from None
    net = net.to(memory_format=torch.channels_last)
    depth = 6 * len(net.layer1) + 2
    logits, labels = evaluation.predict(net, batches(test, source, data_dir))
    recomputed = evaluation.recomputed_bn(net, batches(train, source, data_dir))
    scores = (
        evaluation.evaluate(net, batches(train, source, data_dir)),
        evaluation.score(logits, labels),
        evaluation.evaluate(recomputed, batches(test, source, data_dir)),
    )
    measured = dict(zip(MEASURED, [short(s[key]) for s in scores for key in ("top1_error", "loss")], strict=True))
    images, labels = few[0]
    n = probes.PIXELS // CIFAR.size**2
    return {
        "kind": KIND, "schema": SCHEMA, "source": name_of(folder), "commit": source["commit"], "licence": source["licence"],
        "path": name, "weights_sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "net": replace(CIFAR, depth=depth, shortcut=shortcut).net_name, "depth": depth, "shortcut": shortcut,
        "zero_channels": zeros,  # of option A in the source's own code: "last" or "around"
        "preprocessing": {"mean": source["mean"], "std": source["std"]},
        "reported": said,  # test error in percent: see `published.reported`
        "measured": measured,
        "agrees_with": agreement(said, measured["test_error"]), "tolerance": TOLERANCE,
        "probes": short(probes.probe(net, images[:n], labels[:n])),  # of the first 64 training images, not augmented
        "test_predictions": pack(logits.argmax(1).numpy()),  # with moving BN statistics, as in a record
        "data": data.contents(CIFAR, data_dir=data_dir),
        "environment": environment(torch.device("cpu"), torch.get_num_threads()),
        "time": {"start": start, "seconds": round(time.monotonic() - began, 1)},
    }  # fmt: skip


def audit_folder(folder: Path, data_dir=None) -> Iterator[dict | ValueError]:
    """Audits of the nets of the sources in a folder, or of the one source that it is; what is wrong with one is yielded too.
    Raises ValueError if there is no source in it; as `data.images`."""
    sources = [folder] if "+" in folder.name else sorted(p for p in folder.glob("*+*") if p.is_dir())
    if not sources or not folder.is_dir():
        raise ValueError(f"{folder} holds no sources: a source is a folder <owner>+<repo> with weights in it.")
    data.images(CIFAR, train=True, data_dir=data_dir)
    for one in sources:
        try:
            source, found = describe(one), [p for p in listed(one, "**/*") if p.suffix in SUFFIXES]
            if not found:
                raise ValueError(f"{one} holds no weights ({', '.join(SUFFIXES)}).")
        except ValueError as error:
            yield error
            continue
        for path in found:
            try:
                yield measure(path, one, source, data_dir)
            except ValueError as error:
                yield error


# --- records ---------------------------------------------------------------------------------------------------------


def name(audit: dict) -> str:
    """Of an audit's file."""
    return f"{audit['source'].replace('/', '+')}-{audit['net']}-{audit['weights_sha256'][:8]}"


def write_audit(audit: dict, folder: str | Path) -> Path:
    """Write an audit under its name into `folder`. Raises ValueError if it holds NaN or infinity."""
    path = Path(folder) / f"{name(audit)}.json"
    try:
        lines = [f" {json.dumps(k)}: {json.dumps(v, allow_nan=False)}" for k, v in audit.items()]
    except ValueError:
        raise ValueError(f"{path.name}: the audit holds NaN or infinity and was not written.") from None
    with renamed(path) as file:
        file.write(("{\n" + ",\n".join(lines) + "\n}\n").encode())
    return path


def read_audit(path: str | Path) -> dict:
    """Read one audit. Raises ValueError, naming the file, if it is none, or one that was changed or damaged."""
    path = Path(path)
    try:
        audit = json.loads(path.read_text(encoding="utf-8"), parse_constant=refuse_constant)
        if not isinstance(audit, dict) or (audit.get("kind"), audit.get("schema")) != (KIND, SCHEMA):
            raise ValueError(f"its kind and schema are not {KIND!r} and {SCHEMA}, which this version of reslib reads")
        numbers = [audit["measured"].get(key) for key in MEASURED]
        must = {
            "its name is that of its net and weights": path.stem == name(audit),
            "what was measured is numbers": all(isinstance(number, int | float) for number in numbers),
            "its agrees_with follows from what is reported and measured":
                audit["agrees_with"] == agreement(audit["reported"], audit["measured"].get("test_error", math.nan)),
            "its predictions are as many as its test images": len(unpack(audit["test_predictions"])) == audit["data"]["test"],
            "its probes are one a convolution": len(audit["probes"]["layer"]) == audit["depth"] - 1,
            "its environment has a commit": {"commit", "dirty"} <= set(audit["environment"]),
        }  # fmt: skip
        if broken := [what for what, holds in must.items() if not holds]:
            raise ValueError(f"it does not hold that {broken[0]}")
    except (AttributeError, KeyError, TypeError, ValueError, zlib.error) as error:
        raise ValueError(f"{path} is not a readable audit: {error}.") from None
    return audit


def load_audits(where=None) -> list[dict]:
    """Every audit in a folder (default: audits/ beside the records), by name."""
    return [read_audit(p) for p in listed(Path(where or records_folder() / "audits"), "*.json")]


def audits(where=None) -> pd.DataFrame:
    """One row a published net: source, net, depth, shortcut ("none": plain), agrees_with, MEASURED, audit (all of it)."""
    rows = [a | a["measured"] | {"shortcut": a["shortcut"] or "none", "audit": a} for a in load_audits(where)]
    return pd.DataFrame(rows, columns=["source", "net", "depth", "shortcut", "agrees_with", *MEASURED, "audit"])
