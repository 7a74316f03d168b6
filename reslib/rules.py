"""The rules that judge claims from recorded runs: statistic, side and threshold, written down before the runs were complete.

When each was written, and what was mended after, is told in book/claims.md. Runs are paired by seed; an estimate comes with
the two-sided 95 % t interval over seeds.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import pandas as pd
from scipy import stats

from .plan import SEEDS, plain, residual
from .recipes import Recipe
from .records import Record

LEAST_SEEDS = 3
VANISHED = 0.01  # C3: a signal's standard deviation, or its gradient relative to the last layers', counts as vanished below
ADVANTAGE = 1.0  # C12: points of training error below which an advantage counts as none
SAME = 1.0  # C14: points of test error within which two schedules count as similar
DEPTHS = (20, 32, 44, 56, 110)  # C13
FITTED = 0.1  # C16: percent of training error below which a net has been trained without difficulty
STARTED = 80.0  # C14: percent; a net has started when its running training error is below
UNCHANGED = 0.01  # C21: points of training error, either way: one image in ten thousand
WEAKER = {("pocket", "C5"), ("pocket", "C13")}  # where a rule asks for less than the claim says


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
    judged: bool = True  # False: shown beside the verdict, and no part of it

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
        mean, low, high = (f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}" for value in (mean, low, high))
        spread = f" [{low}, {high}]" if len(self.values) > 1 else ""
        return f"{self.what} {mean}{spread}{' ' + self.unit if self.unit else ''}"


def evidence(recipe: Recipe, scale: str, runs: pd.DataFrame, times: int = 1) -> dict[int, Record]:
    """The recorded runs of a recipe at a scale, by seed: only the planned seeds, only from committed code."""
    base = recipe.at(scale).longer(times)
    ids = {replace(base, seed=seed).id: seed for seed in SEEDS.get(scale, ())}
    rows = runs[runs.recipe_id.isin(list(ids)) & (runs.dirty == False)]  # noqa: E712 (None: unknown, not accepted)
    return {ids[i]: record for i, record in zip(rows.recipe_id, rows.record, strict=True)}


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
    pairs = paired(train_error, *(evidence(plain(depth), scale, runs) for depth in (20, 56)))
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
    """In plain-56, at every probed step: no response's standard deviation and no backward ratio is below 0.01.

    Shown, not judged: the backward ratio in plain-110.
    """
    deep, deepest = (evidence(plain(depth), scale, runs).values() for depth in (56, 110))
    smallest_std = tuple(float(r.probe_frame().response_std.min()) for r in deep)
    ratios, deepest_ratios = (tuple(float(backward_ratio(r).min()) for r in nets) for nets in (deep, deepest))
    vanished = math.log10(VANISHED)
    return [
        Part("plain-56, smallest response std:", smallest_std, VANISHED, unit=""),
        Part("smallest log10 of gradient, first / last third of the layers:", ratios, vanished, unit=""),
        Part("the same in plain-110:", deepest_ratios, vanished, unit="", judged=False),
    ]


def c4(scale: str, runs: pd.DataFrame) -> list[Part]:
    """With three times the iterations, plain-56 - plain-20 in training error, paired by seed, is still above 0."""
    pairs = paired(train_error, *(evidence(plain(depth), scale, runs, times=3) for depth in (20, 56)))
    return [Part("three times the iterations, plain-56 - plain-20, training error:", tuple(b - a for a, b in pairs), 0)]


def c5(scale: str, runs: pd.DataFrame) -> list[Part]:
    """At pocket scale, a weaker form: depth costs less with shortcuts, and they help at 56 layers (training error).

    In so short a training ResNet-56 is still behind ResNet-20, so the reversal itself, ResNet-56 below ResNet-20 in training
    and in test error, is shown there and judged where nets are trained: at `night` and `paper`.
    """
    four = [evidence(net(depth), scale, runs) for net in (plain, residual) for depth in (20, 56)]
    reversal = [
        Part(f"ResNet-56 - ResNet-20, {what} error:", tuple(b - a for a, b in paired(of, *four[2:])), 0, side=-1,
             judged=scale != "pocket")
        for what, of in (("training", train_error), ("test", test_error))
    ]  # fmt: skip
    if scale == "pocket":
        rows = paired(train_error, *four)
        return [
            Part("cost of depth, plain less residual, training error:", tuple(b - a - (d - c) for a, b, c, d in rows), 0),
            Part("plain-56 - ResNet-56, training error:", tuple(b - d for _, b, _, d in rows), 0),
            *reversal,
        ]
    return reversal


def c8(scale: str, runs: pd.DataFrame) -> list[Part]:
    """At 56 layers, in test error: A, B, C each below the plain net; C below A; A's gain over plain above A's distance from C.

    Shown, not judged: B's place.
    """
    families = [plain(56), *(residual(56, shortcut=option) for option in "ABC")]
    rows = paired(test_error, *(evidence(recipe, scale, runs) for recipe in families))
    return [
        *(Part(f"plain - {name}, test error:", tuple(r[0] - r[i] for r in rows), 0) for i, name in enumerate("ABC", 1)),
        Part("A - C:", tuple(a - c for _, a, _, c in rows), 0),
        Part("(plain - A) - distance of A from C:", tuple(p - a - abs(a - c) for p, a, _, c in rows), 0),
        Part("A - B:", tuple(a - b for _, a, b, _ in rows), 0, judged=False),
        Part("B - C:", tuple(b - c for _, _, b, c in rows), 0, judged=False),
    ]


def c12(scale: str, runs: pd.DataFrame) -> list[Part]:
    """At 20 and at 56 layers, one-layer blocks with shortcuts are less than 1.0 points ahead in training error.

    Their plain twins are plain-20 and plain-56: without shortcuts, blocks of one layer and of two are the same net.
    """
    parts = []
    for depth in (20, 56):
        pairs = paired(train_error, evidence(plain(depth), scale, runs), evidence(residual(depth, layers=1), scale, runs))
        gains = tuple(a - b for a, b in pairs)
        parts.append(Part(f"plain-{depth} - one-layer ResNet-{depth}, training error:", gains, ADVANTAGE, side=-1))
    return parts


def slopes(of: Callable[[Record], float], scale: str, runs: pd.DataFrame, *nets: Callable[[int], Recipe]) -> np.ndarray:
    """(seeds, nets): the least-squares slope of a value over log2(depth), for DEPTHS; seeds that all of the nets have."""
    rows = paired(of, *(evidence(net(depth), scale, runs) for net in nets for depth in DEPTHS))
    values = np.array(rows, float).reshape(-1, len(DEPTHS)).T  # a column a seed and net
    return np.polyfit(np.log2(DEPTHS), values, 1)[0].reshape(-1, len(nets)) if rows else np.empty((0, len(nets)))


def c13(scale: str, runs: pd.DataFrame) -> list[Part]:
    """Slopes of error over log2(depth), 20 to 110 layers: plain nets' above 0 (training); residual nets' below 0 (test).

    And the test error of plain-110 is above 60 %. At pocket scale, where ResNet-56 is still behind ResNet-20, a weaker form:
    the second part is that the slope of the plain nets is above that of the residual ones (training). Shown, not judged: that
    second part with 110 layers straight at 0.1, as all other nets are, and at pocket scale the residual nets' own slope.
    """
    unit = "points per doubling"

    def part(what: str, values, **options) -> Part:
        return Part(what, tuple(map(float, values)), 0, unit=unit, **options)

    def second(net: Callable[[int], Recipe], told: str, judged: bool) -> Part:
        if scale == "pocket":
            worse, better = slopes(train_error, scale, runs, plain, net).T
            return part(f"less that of residual nets{told}:", worse - better, judged=judged)
        return part(f"residual nets, test error{told}:", slopes(test_error, scale, runs, net)[:, 0], side=-1, judged=judged)

    parts = [
        part("plain nets, training error:", slopes(train_error, scale, runs, plain)[:, 0]),
        second(residual, "", judged=True),
        Part("plain-110, test error:", tuple(map(test_error, evidence(plain(110), scale, runs).values())), 60, unit="%"),
        second(partial(residual, warmup_lr=None), ", all straight at 0.1", judged=False),
    ]
    if scale == "pocket":
        parts.append(part("residual nets, test error:", slopes(test_error, scale, runs, residual)[:, 0], side=-1, judged=False))
    return parts


def started(record: Record) -> bool:
    """Whether the running training error was ever below STARTED."""
    return bool((record.frame().train_error < STARTED).any())


def start(record: Record) -> float:
    """Iterations until the running training error is below STARTED; all of them if it never is."""
    curve = record.frame()
    return float(curve.step[curve.train_error < STARTED].min()) if started(record) else record.recipe.steps


def unstarted(runs: Iterable[Record]) -> str:
    """Nets with runs that never start, for prose: "plain56 (2 of 3)"; empty if there are none."""
    by_net = {}
    for run in runs:
        by_net.setdefault(run.recipe.net_name, []).append(not started(run))
    return ", ".join(f"{net} ({sum(never)} of {len(never)})" for net, never in by_net.items() if any(never))


def c14(scale: str, runs: pd.DataFrame) -> list[Part]:
    """ResNet-110 at a learning rate of 0.1 needs more iterations to a running training error below 80 % than with the warm-up.

    A run that never gets there counts with all of its own. At paper scale, both also end within 1.0 points of test error.
    Shown, not judged: when the warm-up ended, and at other scales the difference of test error.
    """
    families = [evidence(residual(110, warmup_lr=lr), scale, runs) for lr in (None, 0.01)]
    lag, gap = (tuple(straight - warm for straight, warm in paired(of, *families)) for of in (start, test_error))
    ended = tuple(float(step) for run in families[1].values() if (step := run.final.get("warmup_steps")))
    parts = [
        Part("iterations to 80 % training error, straight - warm-up:", lag, 0, unit=""),
        Part("the warm-up ended after", ended, 0, unit="iterations", judged=False),
    ]
    if scale == "paper":
        return [*parts, Part("straight - warm-up, test error:", gap, SAME, side=-1), Part("the same:", gap, -SAME)]
    return [*parts, Part("straight - warm-up, test error:", gap, 0, judged=False)]


def response(record: Record) -> float:
    """The standard deviation of a layer's response at the last step, averaged over the layers (Fig. 7)."""
    frame = record.probe_frame()
    return float(frame.response_std[frame.step == frame.step.max()].mean())


def c15(scale: str, runs: pd.DataFrame) -> list[Part]:
    """Mean std of the layers' responses: plain-20, -56 above ResNet-20, -56; ResNet-20 above -56, that above -110."""
    nets = {"plain-20": plain(20), "plain-56": plain(56)} | {f"ResNet-{depth}": residual(depth) for depth in (20, 56, 110)}
    found = {name: evidence(recipe, scale, runs) for name, recipe in nets.items()}
    pairs = (("plain-20", "ResNet-20"), ("plain-56", "ResNet-56"), ("ResNet-20", "ResNet-56"), ("ResNet-56", "ResNet-110"))
    return [
        Part(f"{a} - {b}, mean response std:", tuple(x - y for x, y in paired(response, found[a], found[b])), 0, unit="")
        for a, b in pairs
    ]


def c16(scale: str, runs: pd.DataFrame) -> list[Part]:
    """ResNet-1202's training error is below 0.1 %, and its test error above that of ResNet-110, paired by seed."""
    deepest, deep = (evidence(residual(depth), scale, runs) for depth in (1202, 110))
    gap = tuple(a - b for a, b in paired(test_error, deepest, deep))
    return [
        Part("ResNet-1202, training error:", tuple(train_error(r) for r in deepest.values()), FITTED, side=-1, unit="%"),
        Part("ResNet-1202 - ResNet-110, test error:", gap, 0),
    ]


def c21(scale: str, runs: pd.DataFrame) -> list[Part]:
    """plain-20 extended to 56 layers by identities: training error unchanged (within 0.01 points), below plain-56's own."""
    shallow, deep = (evidence(plain(depth), scale, runs) for depth in (20, 56))
    built = tuple(r.final["identity_extension"]["train_error"] - train_error(r) for r in shallow.values())
    pairs = paired(lambda r: r.final.get("identity_extension", r.final)["train_error"], shallow, deep)
    return [
        Part("extended plain-20 - plain-20, training error:", built, UNCHANGED, side=-1),
        Part("the same:", built, -UNCHANGED),
        Part("plain-56 - extended plain-20, training error:", tuple(b - a for a, b in pairs), 0),
    ]


RULES: dict[str, Callable[[str, pd.DataFrame], list[Part]]] = {
    "C1": c1, "C3": c3, "C4": c4, "C5": c5, "C8": c8, "C12": c12, "C13": c13, "C14": c14, "C15": c15, "C16": c16,
    "C21": c21,
}  # fmt: skip
