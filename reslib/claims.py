"""The paper's claims C1-C22, and the rules that judge them, fixed before the runs that they judge.

A claim is judged at each scale separately, from the recorded runs of the recipes named here, with the seeds fixed here.
Runs are paired by seed; an estimate comes with the two-sided 95 % t interval over seeds. A rule says "supported"
("replicated" at paper scale) only where the whole interval lies on the claim's side, "contradicted" only where it lies on
the other side, else "undecided"; with fewer than three seeds nothing is decided. Where a rule has parts, all must hold.
"""

import csv
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from importlib.resources import files

import numpy as np
import pandas as pd
from scipy import stats

from .recipes import CIFAR, Recipe
from .records import Record, records

SEEDS = {"pocket": (0, 1, 2), "night": (0, 1, 2), "paper": (0, 1, 2, 3, 4)}
"""The seeds of the evidence, fixed beforehand. Pilots use 1000 and above; `demo` runs are demonstrations, never judged."""

LEAST_SEEDS = 3
VANISHED = 0.01  # C3: a signal's standard deviation, or its gradient relative to the last layers', counts as vanished below


@dataclass(frozen=True)
class Claim:
    """One claim of the paper: where it stands, what it says, what would show it."""

    id: str
    where: str
    text: str
    would_show: str


CLAIMS = (
    Claim(
        "C1",
        "§1, Fig. 1",
        "A deeper plain net has a higher training error (CIFAR-10, 56 against 20 layers): not overfitting",
        "training error of plain-56 above plain-20, paired over seeds",
    ),
    Claim(
        "C2",
        "§4.1, Fig. 4 left, Table 2",
        "The same on ImageNet: plain-34 is worse than plain-18, its training error higher throughout",
        "as C1, at ImageNet scale",
    ),
    Claim(
        "C3",
        "§4.1",
        "It is not vanishing gradients: with BN, forward signals keep a non-zero variance and backward gradients do not vanish",
        "standard deviation of responses and norm of gradients, layer by layer, through training",
    ),
    Claim(
        "C4",
        "§4.1, footnote 3",
        "Three times the iterations do not cure it",
        "plain-20 and -56 at three times the steps",
    ),
    Claim(
        "C5",
        "§4.1, Fig. 4 right, Table 2",
        "Residual nets reverse it: the deeper one is better, its training error lower",
        "the sign of the effect of depth flips with the shortcut",
    ),
    Claim(
        "C6",
        "§4.1, Table 2",
        "The 34-layer ResNet beats its plain twin by a wide margin",
        "paired difference",
    ),
    Claim(
        "C7",
        "§4.1, Table 2",
        "At 18 layers both are as accurate, but the ResNet converges faster",
        "steps to a given training error, and a test of equivalence",
    ),
    Claim(
        "C8",
        "§4.1, Table 3",
        "Options A, B and C all beat the plain net; C is slightly better than B, and B than A: projections are not essential",
        "A, B, C with intervals",
    ),
    Claim(
        "C9",
        "§4.1, Tables 1, 3",
        "Bottleneck nets of 50, 101, 152 layers are more accurate than 34: no degradation",
        "the series over depth",
    ),
    Claim(
        "C10",
        "§4.1, Table 1",
        "ResNet-152 is cheaper than VGG-16 and VGG-19",
        "counted multiply-adds",
    ),
    Claim(
        "C11",
        "§3.2",
        "Identity shortcuts add neither parameters nor computation",
        "plain and option A counted: equal",
    ),
    Claim(
        "C12",
        "§3.2",
        "A single-layer F is like a linear layer, y = W x + x: no advantage",
        "one-layer blocks",
    ),
    Claim(
        "C13",
        "§4.2, Table 6, Fig. 6",
        "CIFAR-10 ResNets improve from 20 to 110 layers, plain nets get worse",
        "the series over depth, both families",
    ),
    Claim(
        "C14",
        "§4.2",
        "ResNet-110 starts slowly at a learning rate of 0.1; a warm-up at 0.01 helps; without it (footnote 5) it converges too",
        "both schedules",
    ),
    Claim(
        "C15",
        "§4.2, Fig. 7",
        "Responses of ResNets are smaller than those of plain nets, and smaller the deeper the net",
        "standard deviation of each layer's response",
    ),
    Claim(
        "C16",
        "§4.2",
        "A 1202-layer net trains without difficulty but tests worse than 110: overfitting",
        "ResNet-1202",
    ),
    Claim(
        "C17",
        "§3.3",
        "Plain-34 costs a small part of VGG-19",
        "counted multiply-adds",
    ),
    Claim(
        "C18",
        "§4.1",
        "A projection on a bottleneck's shortcut would double its time and size",
        "counted",
    ),
    Claim(
        "C19",
        "§4.2, Table 6",
        "ResNet-110 has fewer parameters than FitNet and Highway, yet is among the best",
        "counted, with C13",
    ),
    Claim(
        "C20",
        "§4.1, Tables 4, 5",
        "A single ResNet-152 beats all earlier ensembles",
        "needs ImageNet",
    ),
    Claim(
        "C21",
        "§1",
        "A deeper net that is no worse exists by construction: added layers that are the identity",
        "a trained plain-20 extended to 56 layers by identity layers has the same training error; plain-56 "
        "trained from scratch does not find it",
    ),
    Claim(
        "C22",
        "§1",
        "Vanishing and exploding gradients are largely dealt with by normalised initialisation and BN",
        "signals and gradients at the start, by initialisation and depth, without and with BN",
    ),
)


@cache
def paper() -> dict[str, float]:
    """What the paper reports, by quantity: `paper()["table6.resnet20.test_error"]` is in the unit that paper.csv gives."""
    with files("reslib").joinpath("paper.csv").open(encoding="utf-8", newline="") as lines:
        return {row["quantity"]: float(row["value"]) for row in csv.DictReader(lines)}


def interval(values) -> tuple[float, float, float]:
    """Mean and two-sided 95 % t interval: (mean, low, high); low and high are infinite for fewer than two values."""
    values = np.asarray(values, float)
    mean = float(values.mean())
    if len(values) < 2:
        return mean, -math.inf, math.inf
    half = float(stats.t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / math.sqrt(len(values)))
    return mean, mean - half, mean + half


@dataclass(frozen=True)
class Part:
    """One statistic of a rule: its values by seed must lie above (side=1) or below (side=-1) a threshold."""

    what: str
    values: tuple[float, ...]
    threshold: float
    side: int = 1
    unit: str = "points"

    @property
    def verdict(self) -> str:
        _, low, high = interval(self.values)
        if len(self.values) < LEAST_SEEDS:
            return "undecided"
        near, far = (low, high) if self.side > 0 else (-high, -low)
        bound = self.side * self.threshold
        return "supported" if near > bound else "contradicted" if far < bound else "undecided"

    def __str__(self) -> str:
        mean, low, high = interval(self.values)
        spread = f" [{low:.3g}, {high:.3g}]" if math.isfinite(low) else ""
        return f"{self.what} {mean:.3g}{spread}{' ' + self.unit if self.unit else ''}"


def evidence(recipe: Recipe, scale: str, runs: pd.DataFrame) -> dict[int, Record]:
    """The recorded runs of a recipe at a scale, by seed: only the seeds fixed above, only from committed code."""
    ids = {replace(recipe, seed=seed).at(scale).id: seed for seed in SEEDS.get(scale, ())}
    rows = runs[runs.recipe_id.isin(list(ids)) & (runs.dirty == False)]  # noqa: E712 (None: unknown, not accepted)
    return {ids[i]: record for i, record in zip(rows.recipe_id, rows.record, strict=True)}


def nets(scale: str, runs: pd.DataFrame) -> dict[str, dict[int, Record]]:
    """The four nets of chapter 1, by name and seed."""
    made = [replace(CIFAR, depth=depth, shortcut=shortcut) for shortcut in (None, "A") for depth in (20, 56)]
    return {recipe.net_name.removesuffix("-A"): evidence(recipe, scale, runs) for recipe in made}


def paired(of: Callable[[Record], float], *families: dict[int, Record]) -> list[tuple[float, ...]]:
    """A value of each family's run, for every seed that all of them have."""
    common = sorted(set.intersection(*(set(family) for family in families)))
    return [tuple(of(family[seed]) for family in families) for seed in common]


def train_error(record: Record) -> float:
    """Percent, of a clean pass over all training images at the last step."""
    return record.final["train_error"]


def test_error(record: Record) -> float:
    """Percent, at the last step."""
    return record.final["test_error"]


def c1(scale: str, runs: pd.DataFrame) -> list[Part]:
    """plain-56 - plain-20 in training error, paired by seed, above 0."""
    n = nets(scale, runs)
    pairs = paired(train_error, n["plain20"], n["plain56"])
    return [Part("plain-56 - plain-20, training error:", tuple(deep - shallow for shallow, deep in pairs), 0)]


def backward_ratio(record: Record) -> pd.Series:
    """By probed step: log10 of the gradient reaching the first third of the layers over that of the last third.

    Geometric means of the L2 norms of d loss / d response: far below 0 where gradients vanish, far above where they explode.
    """
    frame = record.probe_frame()
    third = frame.depth.max() // 3
    logs = np.log10(frame.response_gradient)
    first = logs[frame.depth <= third].groupby(frame.step).mean()
    last = logs[frame.depth > frame.depth.max() - third].groupby(frame.step).mean()
    return first - last


def c3(scale: str, runs: pd.DataFrame) -> list[Part]:
    """In plain-56, at every probed step: no response's standard deviation and no backward ratio is below 0.01 (VANISHED)."""
    deep = nets(scale, runs)["plain56"].values()
    smallest_std = tuple(float(r.probe_frame().response_std.min()) for r in deep)
    ratios = tuple(float(backward_ratio(r).min()) for r in deep)
    return [
        Part("plain-56, smallest response std:", smallest_std, VANISHED, unit=""),
        Part("smallest log10 of gradient, first / last third of the layers:", ratios, math.log10(VANISHED), unit=""),
    ]


def c5(scale: str, runs: pd.DataFrame) -> list[Part]:
    """At pocket scale: the cost of depth is smaller with shortcuts, and they help at 56 layers (training error).

    A deeper residual net is still behind a shallower one in so short a training, so the reversal itself, ResNet-56 below
    ResNet-20 in training and in test error, is judged where nets are trained: at `night` and `paper`.
    """
    n = nets(scale, runs)
    four = n["plain20"], n["plain56"], n["resnet20"], n["resnet56"]
    if scale == "pocket":
        rows = paired(train_error, *four)
        return [
            Part(
                "cost of depth, plain less residual, training error:",
                tuple((b - a) - (d - c) for a, b, c, d in rows),
                0,
            ),
            Part("plain-56 - ResNet-56, training error:", tuple(b - d for _, b, _, d in rows), 0),
        ]
    return [
        Part(f"ResNet-56 - ResNet-20, {what} error:", tuple(b - a for a, b in paired(of, *four[2:])), 0, side=-1)
        for what, of in (("training", train_error), ("test", test_error))
    ]


def c21(scale: str, runs: pd.DataFrame) -> list[Part]:
    """plain-20 extended to 56 layers by identity layers: training error unchanged, and below that of plain-56 from scratch."""
    n = nets(scale, runs)
    shallow, deep = n["plain20"], n["plain56"]
    built = [r.final["identity_extension"]["train_error"] - train_error(r) for r in shallow.values()]
    pairs = paired(lambda r: r.final.get("identity_extension", r.final)["train_error"], shallow, deep)
    return [
        Part("extended plain-20 - plain-20, training error:", tuple(built), 0.01, side=-1),
        Part("plain-56 - extended plain-20, training error:", tuple(b - a for a, b in pairs), 0),
    ]


RULES: dict[str, Callable[[str, pd.DataFrame], list[Part]]] = {"C1": c1, "C3": c3, "C5": c5, "C21": c21}


def paper_says(claim: str) -> str:
    """The paper's number beside a verdict, where it gives one."""
    if claim == "C5":
        p = paper()
        return (f"ResNet-34 {p['s41.resnet34.depth_gain']} points better than ResNet-18 (ImageNet); CIFAR-10 test error "
                f"{p['table6.resnet20.test_error']:.2f} -> {p['table6.resnet56.test_error']:.2f}")  # fmt: skip
    return {"C1": "higher (Fig. 1)", "C3": "verified, no number", "C21": "argued"}[claim]


def judge(claim: str, scale: str, runs: pd.DataFrame) -> dict:
    """A claim's rule applied to the runs of a scale: scale, claim, paper, ours, n (seeds), verdict. n = 0: no evidence."""
    parts = RULES[claim](scale, runs)
    n = min(len(part.values) for part in parts)
    row = {"scale": scale, "claim": claim, "paper": paper_says(claim), "ours": "", "n": n, "verdict": "no evidence"}
    if n:
        found = {part.verdict for part in parts}
        verdict = next(v for v in ("contradicted", "undecided", "supported") if v in found)
        verdict = "replicated" if scale == "paper" and verdict == "supported" else verdict
        row |= {"ours": "; ".join(map(str, parts)), "verdict": verdict}
    return row


def sentence(claim: str, scale: str, runs: pd.DataFrame) -> str:
    """The verdict with its rule and its numbers, as Markdown."""
    row = judge(claim, scale, runs)
    rule = f"Rule: {RULES[claim].__doc__.splitlines()[0]}"
    if not row["n"]:
        seeds = ", ".join(map(str, SEEDS.get(scale, ()))) or "none: never judged"
        return (
            f"**{claim} at {scale} scale: not judged.** {rule} It needs runs of 20 and 56 layers from committed code, with "
            f"the seeds fixed beforehand ({seeds})."
        )
    return (
        f"**{claim} at {scale} scale: {row['verdict']}** (n = {row['n']}). {rule} Found: {row['ours']}. Paper: {row['paper']}."
    )


def verdicts(runs: pd.DataFrame | None = None) -> pd.DataFrame:
    """One row a judged claim and scale that has evidence: scale, claim, paper, ours, n (seeds), verdict."""
    runs = records() if runs is None else runs
    rows = [judge(claim, scale, runs) for scale in SEEDS for claim in RULES]
    return pd.DataFrame(rows).query("n > 0").reset_index(drop=True)


def table(runs: pd.DataFrame | None = None) -> str:
    """`verdicts` as a Markdown table, for the README and the book's index."""
    return verdicts(runs).to_markdown(index=False)
