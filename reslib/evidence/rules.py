"""The rules that judge claims from recorded runs: statistic, side, threshold and margin, committed before the runs they judge.

A rule is a function of the runs of one scale; it returns its parts, and its docstring is the rule in words: where it names no
margin of contradiction, that is 0.2 (points of error), and where no effect, that is 1 (point). Nets of different
architecture are compared by Welch's t test (their seeds share nothing that matters), nets that differ in one setting by a
paired one; an estimate comes with its two-sided 95 % t interval over seeds. What a scale may say is told in `claims.judge`.
"""

from collections.abc import Callable

import numpy as np
import pandas as pd

from ..recipes import Recipe
from ..record import Record
from .comparison import STARTED, Part, Runs, steps_to, test_error, train_error
from .plan import plain, planned_seeds, residual

HEALTHY = 2.0  # C3: decades, either way, within which the gradient of the first layers counts as healthy
ADVANTAGE = 1.0  # C12: points of training error below which an advantage counts as none
REACHED = {"pocket": 60.0, "night": 30.0, "paper": 30.0}  # C7: percent of running training error to be reached
ESSENTIAL = 0.5  # C8: points of test error within which A counts as good as C
LEVEL = 0.5  # C7: points of test error within which plain-20 and ResNet-20 count as equally accurate
SIMILAR = 1.0  # C14: points of test error within which two schedules count as similar
FITTED = 0.1  # C16: percent of training error below which a net has been trained without difficulty
HIGHWAY = 7.54  # C19: test error (percent) of the best earlier net of comparable size in Table 6


def of(measure: Callable[[Record], float], family: dict[int, Record]) -> tuple[float, ...]:
    """A value of each run."""
    return tuple(float(measure(record)) for record in family.values())


def paired(measure: Callable[[Record], float], one: dict[int, Record], two: dict[int, Record]) -> tuple[float, ...]:
    """The difference of two families' runs for each seed that both have."""
    return tuple(float(measure(one[seed]) - measure(two[seed])) for seed in sorted(set(one) & set(two)))


def errors(runs: Runs, which: str, one: Recipe, other: Recipe, told: str = "", times: int = 1, extra=False, **about) -> Part:
    """One net minus another in its "training" or "test" error, by Welch. told: the two in words, where not their names."""
    measure = {"training": train_error, "test": test_error}[which]
    values, others = (of(measure, runs(net, times=times, extra=extra)) for net in (one, other))
    return Part(f"{told or f'{one.told} - {other.told}'}, {which} error:", values, others, **about)


def log_steps(runs: Runs, error: float, one: Recipe, other: Recipe, **about) -> Part:
    """log2 of the ratio of two nets' iterations to a running training error (percent), by Welch."""
    values, others = (of(lambda run: np.log2(steps_to(run, error)), runs(net)) for net in (one, other))
    what = f"log2 of iterations to {error:.0f} % training error, {one.told} - {other.told}:"
    return Part(what, values, others, margin=0.1, unit="", **about)


def backward_ratio(record: Record) -> pd.Series:
    """By probed step: log10 of the gradient reaching the first third of the layers over that of the last third.

    Geometric means of the L2 norms of d loss / d response: far below 0 where gradients vanish, far above where they explode.
    """
    log10 = np.log10(record.probe_frame().pivot_table("response_gradient", "depth", "step"))
    third = len(log10) // 3
    return log10[:third].mean() - log10[-third:].mean()


def response(record: Record) -> float:
    """log2 of the standard deviation of the median layer's response at the last step (Fig. 7)."""
    frame = record.probe_frame()
    return float(np.log2(frame.response_std[frame.step == frame.step.max()].median()))


def c1(runs: Runs) -> list[Part]:
    """plain-56 minus plain-20 in training error, Welch, is above 0. (Effect: 2.6 points, of a public rerun.)"""
    return [errors(runs, "training", plain(56), plain(20), effect=2.6)]


def c3(runs: Runs) -> list[Part]:
    """In plain-56 and plain-110 the gradient in the first third of the layers is within a factor of 100 of that in the last
    third, either way: at the start, and at every probed step after it (the largest departure in decades, below 2; margin: 0.5,
    effect: 1).

    The forward part of the claim is batch normalisation's own doing: it sets every response's standard deviation.
    """
    parts = []
    for depth in (56, 110):
        family = runs(plain(depth), must_start=False)
        for when, choose in (("at the start", lambda s: s[s.index == 0]), ("in training", lambda s: s[s.index > 0])):
            farthest = of(lambda r, choose=choose: choose(backward_ratio(r)).abs().max(), family)
            parts.append(Part(f"plain-{depth}, largest |log10 of gradient, first / last third|, {when}:", farthest,
                              threshold=HEALTHY, side=-1, margin=0.5, unit=""))  # fmt: skip
    return parts


def c4(runs: Runs) -> list[Part]:
    """With three times the iterations, plain-56 minus plain-20 in training error, Welch, is still above 0. (Effect: as C1's,
    2.6 points.)"""
    told = "three times the iterations, plain-56 - plain-20"
    return [errors(runs, "training", plain(56), plain(20), told, times=3, effect=2.6)]


def c5(runs: Runs) -> list[Part]:
    """ResNet-56 minus ResNet-20, Welch, is below 0 in training error and in test error. (Effects: 0.3 points of training error,
    a public rerun; 1.78 of test error, Table 6; margins: 0.1.)"""
    effects = {"training": 0.3, "test": 1.78}
    nets = residual(56), residual(20)
    return [errors(runs, which, *nets, side=-1, effect=effect, margin=0.1) for which, effect in effects.items()]


def c6(runs: Runs) -> list[Part]:
    """On CIFAR-10, an analogue: plain-56 minus ResNet-56 in test error, Welch, is above 0. (Effect: 3.5 points, §4.1.)"""
    return [errors(runs, "test", plain(56), residual(56), effect=3.5)]


def c7a(runs: Runs) -> list[Part]:
    """On CIFAR-10, an analogue: plain-20 needs more iterations than ResNet-20 to a running training error of 30 % (60 % at
    pocket scale); log2 of the ratio, Welch, is above 0. (Effect: 0.5, margin: 0.1.)"""
    return [log_steps(runs, REACHED[runs.scale], plain(20), residual(20), effect=0.5)]


def c7b(runs: Runs) -> list[Part]:
    """On CIFAR-10, an analogue: plain-20 and ResNet-20 are equally accurate, within 0.5 points of test error (two one-sided
    Welch tests)."""
    return [errors(runs, "test", plain(20), residual(20), threshold=LEVEL, side=0)]


def c8a(runs: Runs) -> list[Part]:
    """At 56 layers, in test error, options A, B and C are each below the plain net (Welch). (Effect: 3.5 points, §4.1.)"""
    nets = {f"plain-56 - option {option}": residual(56, shortcut=option) for option in "ABC"}
    return [errors(runs, "test", plain(56), net, told, effect=3.5) for told, net in nets.items()]


def c8b(runs: Runs) -> list[Part]:
    """The order C, B, A at 56 layers is shown and never judged: the paper's steps, 0.3 points, would need many more pairs."""
    found = {option: runs(residual(56, shortcut=option)) for option in "ABC"}
    return [Part(f"{a} - {b}, test error:", paired(test_error, found[a], found[b]), judged=False) for a, b in ("AB", "BC")]


def c8c(runs: Runs) -> list[Part]:
    """Projections are not essential: at 56 layers A and C are within 0.5 points of test error (two one-sided tests, paired by
    seed: the nets differ in their projections alone)."""
    found = paired(test_error, *(runs(residual(56, shortcut=option)) for option in "AC"))
    return [Part("A - C, test error:", found, threshold=ESSENTIAL, side=0)]


def c12(runs: Runs) -> list[Part]:
    """At 56 layers, one-layer blocks with shortcuts are less than 1.0 points ahead of the plain net in training error (Welch).

    The plain twin of one-layer blocks is the plain net: without shortcuts, blocks of one layer and of two are the same.
    """
    one_layer, told = residual(56, layers=1), "plain-56 - one-layer ResNet-56"
    return [errors(runs, "training", plain(56), one_layer, told, threshold=ADVANTAGE, side=-1)]


def c13a(runs: Runs) -> list[Part]:
    """Residual nets improve with depth: test error of ResNet-110 minus that of ResNet-20, and of ResNet-56, below 0 (Welch).

    Neighbours in Table 6 are shown in its chapter: 44 against 56 layers would need many more runs of each. (Effects: 2.14
    and 0.36 points, Table 6 with the mean of five runs, 6.61, for ResNet-110.)
    """
    effects = {20: 2.14, 56: 0.36}
    return [errors(runs, "test", residual(110), residual(depth), extra=True, side=-1, effect=effect)
            for depth, effect in effects.items()]  # fmt: skip


def c13b(runs: Runs) -> list[Part]:
    """Plain nets get worse: plain-110 ends above 60 % test error, whether it starts or not. (Effect: 10 points.)"""
    found = of(test_error, runs(plain(110), must_start=False))
    return [Part("plain-110, test error:", found, threshold=60, effect=10, unit="%")]


def c14a(runs: Runs) -> list[Part]:
    """ResNet-110 straight at a learning rate of 0.1 needs more iterations to a running training error below 80 % than with the
    warm-up: log2 of the ratio, paired by seed, is above 0. A run that never gets there counts with all of its own. (Effect: 1,
    twice the iterations; margin: 0.1.)"""
    families = (runs(residual(110, warmup_lr=lr), must_start=False) for lr in (None, 0.01))
    found = paired(lambda record: np.log2(steps_to(record, STARTED)), *families)
    return [Part("log2 of iterations to 80 % training error, straight - warm-up:", found, margin=0.1, unit="")]


def c14b(runs: Runs) -> list[Part]:
    """Without the warm-up ResNet-110 converges too (footnote 5): both end within 1.0 points of test error (two one-sided tests,
    paired by seed)."""
    found = paired(test_error, *(runs(residual(110, warmup_lr=lr)) for lr in (None, 0.01)))
    return [Part("straight - warm-up, test error:", found, threshold=SIMILAR, side=0)]


def c15(runs: Runs) -> list[Part]:
    """Standard deviation of the median layer's response at the last step, log2, Welch: plain-20, -56 above ResNet-20, -56;
    ResNet-20 above ResNet-56, and that above ResNet-110 where the scale has 110 layers. (Effects: 0.1, margins: 0.05.)"""
    nets = {f"plain-{d}": plain(d) for d in (20, 56)} | {f"ResNet-{d}": residual(d) for d in (20, 56, 110)}
    nets = {name: recipe for name, recipe in nets.items() if planned_seeds(recipe.at(runs.scale))}
    found = {name: of(response, runs(recipe)) for name, recipe in nets.items()}
    pairs = (("plain-20", "ResNet-20"), ("plain-56", "ResNet-56"), ("ResNet-20", "ResNet-56"), ("ResNet-56", "ResNet-110"))
    return [Part(f"log2 of the median response std, {a} - {b}:", found[a], found[b], margin=0.05, effect=0.1, unit="")
            for a, b in pairs if b in found]  # fmt: skip


def c16(runs: Runs) -> list[Part]:
    """ResNet-1202's training error is below 0.1 %, and its test error above that of ResNet-110 (Welch). (Effects: 0.05 points
    of training error, margin 0.1; 1.32 of test error, Table 6 with the mean of ResNet-110's runs.)"""
    fitted = of(train_error, runs(residual(1202)))
    return [
        Part("ResNet-1202, training error:", fitted, threshold=FITTED, side=-1, margin=0.1, effect=0.05, unit="%"),
        errors(runs, "test", residual(1202), residual(110), effect=1.32),
    ]


def c19(runs: Runs) -> list[Part]:
    """The half of the claim that is about errors: at the paper's scale ResNet-110's mean test error is below Highway's 7.54.
    (Effect: 0.93 points, Table 6 with the mean of ResNet-110's runs.)"""
    if runs.scale != "paper":
        return []
    found = of(test_error, runs(residual(110), extra=True))
    return [Part("ResNet-110, test error:", found, threshold=HIGHWAY, side=-1, effect=0.93, unit="%")]


def c21(runs: Runs) -> list[Part]:
    """plain-56 trained from scratch ends above plain-20 extended to 56 layers by identities, in training error (Welch).

    (Effect: as C1's, 2.6 points.) That the extended net has plain-20's training error is an identity: counted, not tested.
    """
    shallow, deep = (runs(plain(depth)) for depth in (20, 56))
    built = of(lambda r: r.final["identity_extension"]["train_error"], shallow)
    return [Part("plain-56 - extended plain-20, training error:", of(train_error, deep), built, effect=2.6)]


RULES: dict[str, Callable[[Runs], list[Part]]] = {
    "C1": c1, "C3": c3, "C4": c4, "C5": c5, "C6": c6, "C7a": c7a, "C7b": c7b, "C8a": c8a, "C8b": c8b, "C8c": c8c, "C12": c12,
    "C13a": c13a, "C13b": c13b, "C14a": c14a, "C14b": c14b, "C15": c15, "C16": c16, "C19": c19, "C21": c21,
}  # fmt: skip
"""A claim that says several things is split: C8a, C8b, C8c."""
