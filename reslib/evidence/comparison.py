"""How recorded runs are compared: one comparison and its statistics (Part), and the runs that may take part in it (Runs)."""

import math
import re
import warnings
from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import compress
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import stats
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.power import TTestIndPower, TTestPower

from ..recipes import Recipe
from ..record import Record
from .plan import PHOTOGRAPHS, planned_seeds, residual

STARTED = 80.0  # percent; a net has started when its running training error is below (section 4.2's own mark)
SLACK = 0.2  # points of error on the wrong side that contradict nothing: Table 6's smallest step
CONFIDENCE, POWER = 0.95, 0.80
ALPHA = (1 - CONFIDENCE) / 2  # of one-sided tests


def train_error(record: Record) -> float:
    """Percent, of a clean pass over all training images at the last step."""
    return record.final["train_error"]


def test_error(record: Record) -> float:
    """Percent, at the last step."""
    return record.final["test_error"]


def steps_to(record: Record, error: float) -> float:
    """Iterations until the running training error is below `error` percent; all of the run's if it never is."""
    curve = record.frame()
    below = curve.step[curve.train_error < error]
    return float(below.min()) if len(below) else float(record.recipe.steps)


def started(record: Record) -> bool:
    """Whether the running training error was ever below STARTED."""
    return bool((record.frame().train_error < STARTED).any())


def unstarted(runs: Iterable[Record]) -> str:
    """Nets with runs that never start, for prose: "plain-56 (2 of 3)"; "none" if there are none."""
    by_net = {}
    for run in runs:
        by_net.setdefault(run.recipe.told, []).append(not started(run))
    return ", ".join(f"{net} ({sum(never)} of {len(never)})" for net, never in by_net.items() if any(never)) or "none"


@dataclass(frozen=True)
class Part:
    """One comparison of a rule: `values`, minus `other` if there is one (by Welch), lies beyond `threshold` on the claim's
    side. Of pairs, `values` are the differences.

    side: 1 above, -1 below, 0 within +-threshold (equivalence). margin: how far on the wrong side of the threshold the whole
    interval must lie to contradict. effect: the distance from the threshold that the claim speaks of, by the paper's numbers
    or, where it gives none, the smallest that would matter; with less than 80 % power for it nothing is contradicted.
    """

    what: str
    values: tuple[float, ...]
    other: tuple[float, ...] | None = None
    threshold: float = 0.0
    side: int = 1
    margin: float = SLACK
    effect: float = 1.0
    unit: str = "points"
    judged: bool = True  # False: shown beside the verdict, and no part of it

    @property
    def samples(self) -> list[tuple[float, ...]]:
        """One, or two to be compared."""
        return [self.values] if self.other is None else [self.values, self.other]

    @property
    def n(self) -> int:
        """Runs, of the smaller of two samples."""
        return min(map(len, self.samples))

    def test(self, at: float = 0.0, alternative: str = "two-sided"):
        """scipy's t test that the difference is `at`."""
        with warnings.catch_warnings():  # runs of one net may well reach an error at the same iteration; or there are none
            warnings.simplefilter("ignore", RuntimeWarning)
            if self.other is None:
                return stats.ttest_1samp(self.values, at, alternative=alternative)
            return stats.ttest_ind(np.subtract(self.values, at), self.other, equal_var=False, alternative=alternative)

    @property
    def estimate(self) -> float:
        return float(np.mean(self.values) - (0.0 if self.other is None else np.mean(self.other)))

    def interval(self, confidence: float = CONFIDENCE) -> tuple[float, float]:
        """Two-sided t interval of the estimate; infinite for fewer than two runs."""
        return tuple(map(float, self.test().confidence_interval(confidence))) if self.n > 1 else (-math.inf, math.inf)

    @property
    def spread(self) -> float:
        """Standard deviation over seeds, pooled over both samples."""
        return math.sqrt(np.mean([np.var(sample, ddof=1) for sample in self.samples]))

    def p_beyond(self, at: float, side: int) -> float:
        """Of a one-sided test: the chance of values so far above `at` (side 1), or below it (-1), if the truth lay there."""
        p = self.test(at, "greater" if side > 0 else "less").pvalue if self.n > 1 else 1.0
        return 1.0 if math.isnan(p) else float(p)  # no run differs from another, and all lie at `at`

    @property
    def p_for(self) -> float:
        """That the difference lies on the claim's side; of an equivalence, the larger of two one-sided tests."""
        if self.side == 0:
            return max(self.p_beyond(-self.threshold, 1), self.p_beyond(self.threshold, -1))
        return self.p_beyond(self.threshold, self.side)

    @property
    def p_against(self) -> float:
        """That it lies on the wrong side, beyond the margin."""
        if self.side == 0:
            edge = self.threshold + self.margin
            return min(self.p_beyond(edge, 1), self.p_beyond(-edge, -1))
        return self.p_beyond(self.threshold - self.side * self.margin, -self.side)

    @property
    def outcome(self) -> str:
        """ "for", "against" or "open", by one-sided tests at 2.5 %; an equivalence is "for" by two at 5 %."""
        if self.p_for < (2 * ALPHA if self.side == 0 else ALPHA):
            return "for"
        return "against" if self.p_against < ALPHA else "open"

    def power(self, n: int | None = None, spread: float | None = None) -> float:
        """The chance that n runs a net (default: these) would bear out the paper's effect, with this `spread` (default: the
        one seen here). Of an equivalence: if the truth is no difference.
        """
        if spread is None:
            if self.n < 2 or self.spread == 0:
                return float(self.n >= 2)
            spread = self.spread
        n, sides = n or self.n, len(self.samples)
        if self.side == 0:  # both tests at 5 % at once
            freedom, error = sides * (n - 1), spread * math.sqrt(sides / n)
            seen = np.sqrt(stats.chi2.ppf(np.arange(0.5, 1_000) / 1_000, freedom) / freedom)  # spreads that n runs may show
            room = self.threshold / error - stats.t.ppf(1 - 2 * ALPHA, freedom) * seen  # for the mean, either way
            return float(np.clip(2 * stats.norm.cdf(room) - 1, 0, None).mean())
        test = TTestPower() if sides == 1 else TTestIndPower()
        power = float(test.power(self.effect / spread, n, ALPHA, alternative="larger"))
        return 1.0 if math.isnan(power) else power  # scipy's noncentral t has gaps far out, where the power is 1

    def needed(self, spread: float | None = None, power: float = POWER) -> int:
        """Runs a net that would have this power, as `power` tells it; at most 1,000."""
        return next((n for n in range(2, 1_000) if self.power(n, spread) >= power), 1_000)

    def __str__(self) -> str:
        if not self.n:  # what is there, all the same
            told = [f"{np.mean(sample):.3g} (n = {len(sample)})" if len(sample) else "no run yet" for sample in self.samples]
            return minus(f"{self.what} {' less '.join(told)}")
        mean, low, high = (f"{x:,.0f}" if abs(x) >= 1000 else f"{x:.3g}" for x in (self.estimate, *self.interval()))
        spread = f" [{low}, {high}]" if self.n > 1 else ""
        return minus(f"{self.what} {mean}{spread}{' ' + self.unit if self.unit else ''} (n = {self.n})")


def minus(text: str) -> str:
    """With minus signs instead of hyphens, before numbers and between nets: "plain-56 − plain-20: −1.5"."""
    return re.sub(r"(?<![\w)])-(?=\d)| - ", lambda found: found[0].replace("-", "−"), text)


def decide(parts: list[Part]) -> tuple[int, list[str]]:
    """The place in claims.WORDS of a verdict on a rule's judged parts, and why it is not a stronger one.

    All must be borne out. One that is not, by a one-sided test with Holm's correction over the parts, contradicts; but only
    where these runs would have borne out the paper's effect with a power of 80 %.
    """
    if all(part.outcome == "for" for part in parts):
        return 0, []
    against = list(compress(parts, multipletests([part.p_against for part in parts], ALPHA, "holm")[0]))
    weak = [part for part in against if part.power() < POWER]
    if len(weak) < len(against):
        return 1, []
    why = "{}: power {:.0%}, {} runs a net would decide"
    return 2, [why.format(minus(part.what.rstrip(":")), part.power(), part.needed()) for part in weak]


def direction(parts: list[Part]) -> tuple[int, list[str]]:
    """As `decide`, where a scale may say directions only: the same, the opposite, or, where parts differ, unclear."""
    found = {part.outcome for part in parts}
    return (0 if found == {"for"} else 1 if found == {"against"} else 2), []


def interval(values) -> tuple[float, float, float]:
    """Mean and two-sided 95 % t interval of some values: (mean, low, high); infinite for fewer than two."""
    part = Part("", tuple(values))
    return part.estimate, *part.interval()


def prediction(values, runs: int = 1) -> tuple[float, float]:
    """Where one more value like these, or the mean of so many `runs`, is expected: the two-sided 95 % t prediction interval.

    Infinite for fewer than two values.
    """
    values = np.asarray(values, float)
    if len(values) < 2:
        return -math.inf, math.inf
    spread = values.std(ddof=1) * math.sqrt(1 / len(values) + 1 / runs)
    return tuple(map(float, stats.t.interval(CONFIDENCE, len(values) - 1, values.mean(), spread)))


def pooled(spreads: Iterable[float], runs: Iterable[int]) -> tuple[float, int]:
    """Standard deviation over seeds, pooled over nets, and its degrees of freedom; `runs`: of each net, two or more."""
    spreads, freedom = np.asarray([*spreads], float), np.asarray([*runs]) - 1
    return math.sqrt((spreads**2 * freedom).sum() / freedom.sum()), int(freedom.sum())


class Asked(NamedTuple):
    """A recipe that a rule has asked for: its runs by seed, how many are planned, and whether all must have started."""

    found: dict[int, Record]
    planned: int
    must_start: bool


class Runs:
    """The recorded runs of one scale that may judge: of the seeds fixed beforehand, from committed code, on planned images.

    Remembers which recipes a rule has asked for: those must be complete, and trained well enough, before it decides.
    """

    def __init__(self, scale: str, runs: pd.DataFrame):
        self.scale, self.asked = scale, {}
        accepted = [dirty is False and (record.recipe.data != "imagenet" or record.data["sha256"] == PHOTOGRAPHS)
                    for dirty, record in zip(runs.dirty, runs.record, strict=True)]  # fmt: skip
        self.rows = runs[np.array(accepted, bool)]

    def find(self, recipe: Recipe, times: int = 1, extra: bool = False) -> dict[int, Record]:
        """The runs of a recipe at this scale, by seed. extra: with the seeds that only C13 and C19 take."""
        base = recipe.at(self.scale).longer(times)
        ids = {replace(base, seed=seed).id: seed for seed in planned_seeds(base, extra)}
        rows = self.rows[self.rows.recipe_id.isin(list(ids))]
        return dict(sorted((ids[i], record) for i, record in zip(rows.recipe_id, rows.record, strict=True)))

    def __call__(self, recipe: Recipe, times: int = 1, extra: bool = False, must_start: bool = True) -> dict[int, Record]:
        """`find`, for a net of the comparison. must_start: one that never starts may not be compared with others."""
        base = recipe.at(self.scale).longer(times)
        if base not in self.asked:
            planned = len(planned_seeds(base, extra))
            self.asked[base] = Asked(self.find(recipe, times, extra), planned, must_start)
        return self.asked[base].found

    @property
    def missing(self) -> int:
        """Planned runs of the recipes asked for that are not recorded."""
        return sum(one.planned - len(one.found) for one in self.asked.values())

    def gate(self) -> list[str]:
        """Why this scale may only say directions, for the recipes asked for; empty if it may judge.

        Every net of the comparison has been below 80 % running training error, the images are 32x32, and ResNet-56 is below
        ResNet-20 in training error (means over at least three seeds of each).
        """
        if self.scale == "extension":
            return ["it is an extension: other photographs than ImageNet's, in crops of 64 pixels"]
        reasons = []
        for base, (found, _, must_start) in self.asked.items():
            never = [run for run in found.values() if must_start and not started(run)]
            reasons += [f"{len(never)} of {len(found)} runs of {base.told} never start"] if never else []
        if any(base.size != 32 for base in self.asked):
            reasons.append("its images are not 32x32")
        shallow, deep = (list(map(train_error, self.find(residual(depth)).values())) for depth in (20, 56))
        if min(len(shallow), len(deep)) < 3:
            reasons.append("its control, ResNet-56 against ResNet-20 in training error, has fewer than three seeds")
        elif np.mean(deep) >= np.mean(shallow):
            reasons.append("it fails its control: ResNet-56 is not below ResNet-20 in training error")
        return reasons
