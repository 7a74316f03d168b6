"""What public reruns of the paper found at its own scale, on CIFAR-10 and on ImageNet, and what they say of its claims.

reruns.csv holds a row for each published result, with its source, commit and locator; an author counts once. A claim about two
nets is judged by their difference *within* a source (same recipe, same training set, same way of reporting), so most of what
sources do differently cancels. RULE says when sources agree. It was written when the numbers had been collected and summarised
once: it gives the summary a form, and is no prediction. Chapter 9 says why its interval is a t interval over authors.
"""

from dataclasses import dataclass
from functools import cache
from importlib.resources import files

import numpy as np
import pandas as pd

from ..record import folder
from .audit import load_audits
from .comparison import Part, interval
from .reported import claim_of, paper
from .rules import LEVEL, REACHED

FEWEST, SHARE = 3, 2 / 3
RULE = """An author counts once: by the recipe closest to the paper's, and of that by final errors where there are. *Agrees*: at
least two thirds of the authors have the claim's sign, and the 95 % t interval of the mean over authors, far recipes left out,
lies on the claim's side. *Disagrees*: that interval lies on the other side. *Too few*: fewer than three authors, far recipes
left out, or those that there are do not decide. That two nets are the same (C7b) agrees where two thirds of the authors, and
the 90 % interval, lie within 0.5 points of zero (two one-sided tests), and disagrees where the 95 % interval lies beyond. A
claim with parts agrees where all parts do, and disagrees where one does; "k of m sources", which counts authors, those of far
recipes too, is said of its weakest part."""

RECIPES = ("paper", "near", "unknown", "far")  # the paper's own; small departures; not stated; what only tells an order
REPORTS = ("final", "unclear", "best")  # the last iteration; not said which; the best of all test errors
TEST = ("yes", "best", "unclear", "order-only")  # in_meta: whose test errors can be compared within the source
FORKS = dict.fromkeys(("jayroxis", "yangyang0611", "AngelG23", "m-shahbaz-kharal"), "a-martyn")  # authors, by what they forked
CIFAR, IMAGENET = "CIFAR-10", "ImageNet (1-crop, top-1)"  # data sets
NAMES = {"author_cluster": "author", "recipe_class": "recipe", "test_error_percent": "test_error", "seeds_n": "seeds",
         "train_error_percent": "train_error"}  # fmt: skip
NUMBERS = ["depth", "seeds_n", "test_error_percent", "train_error_percent", "sd"]
TOLD = ["author", "source", "url", "recipe", "train_set", "report", "seeds", "shown"]


QUANTITIES = {
    "test_error": ("test error", "points"), "train_error": ("training error", "points"), "response": ("responses", "%"),
    "steps": (f"log2 of iterations to {REACHED['paper']:.0f} % training error", ""),
}  # fmt: skip
"""What is compared, in words, and the unit of its difference."""


@dataclass(frozen=True)
class Comparison:
    """A net minus another (or minus a number): on the claim's side if the difference has the sign `side`; 0: within LEVEL."""

    claim: str
    first: tuple[str, int]  # kind of net, depth
    second: tuple[str, int] | float
    quantity: str  # "test_error", "train_error" (percent), "response" (standard deviation, the median layer; in percent),
    # "steps" (log2 of the iterations to a logged training error of 30 %)
    side: int
    dataset: str = CIFAR

    @property
    def what(self) -> str:
        """In words: "plain-56 − plain-20, training error"."""
        quantity = "ImageNet top-1 error" if self.dataset == IMAGENET else QUANTITIES[self.quantity][0]
        second = f"Highway's {self.second:.2f}" if isinstance(self.second, float) else name(*self.second)
        return f"{name(*self.first)} − {second}, {quantity}"


def name(net: str, depth: int) -> str:
    """As the book writes it: plain-56, ResNet-56."""
    return f"{'plain' if net == 'plain' else 'ResNet'}-{depth}"


COMPARISONS = (
    Comparison("C1", ("plain", 56), ("plain", 20), "train_error", 1),
    Comparison("C5", ("resnet", 56), ("resnet", 20), "test_error", -1),
    Comparison("C5", ("resnet", 56), ("resnet", 20), "train_error", -1),
    Comparison("C6", ("plain", 56), ("resnet", 56), "test_error", 1),
    Comparison("C7a", ("plain", 20), ("resnet", 20), "steps", 1),
    Comparison("C7b", ("plain", 20), ("resnet", 20), "test_error", 0),
    *(Comparison("C9", ("resnet", depth), ("resnet", 34), "test_error", -1, IMAGENET) for depth in (50, 101, 152)),
    Comparison("C13", ("resnet", 110), ("resnet", 20), "test_error", -1),
    Comparison("C13", ("resnet", 110), ("resnet", 56), "test_error", -1),
    Comparison("C13", ("plain", 56), ("plain", 20), "test_error", 1),
    Comparison("C15", ("resnet", 56), ("plain", 56), "response", -1),
    Comparison("C15", ("resnet", 56), ("resnet", 20), "response", -1),
    Comparison("C16", ("resnet", 1202), ("resnet", 110), "test_error", 1),
    Comparison("C19", ("resnet", 110), paper()["table6.highway19.test_error"], "test_error", -1),
)
CLAIMS = tuple(dict.fromkeys(comparison.claim for comparison in COMPARISONS))


@cache
def _read() -> pd.DataFrame:
    with files(__package__).joinpath("reruns.csv").open(encoding="utf-8") as lines:
        frame = pd.read_csv(lines, dtype=str, keep_default_na=False)
    frame[NUMBERS] = frame[NUMBERS].apply(lambda column: pd.to_numeric(column.replace("", np.nan)))
    return frame.rename(columns=NAMES).assign(shown=(frame.has_log != "") | (frame.has_weights != ""))


def reruns() -> pd.DataFrame:
    """All published results, one a row: test_error, train_error, sd (percent), depth, seeds, author, recipe, report, url ...

    `sd` is over the seeds of a source; `shown`: a log or weights are published.
    """
    return _read().copy()


def curves() -> pd.DataFrame:
    """Learning curves that sources published: source, author, net, depth, run, iteration; train_error, test_error, val_error
    (percent). Sources that log epochs have 128 images a batch.
    """
    frame = pd.read_csv(folder() / "reruns" / "curves.csv.xz")
    known = _read().drop_duplicates("source").set_index("source")
    images = frame.source.map(known.train_set).map({"45k": 45_000, "50k": 50_000})
    frame["iteration"] = frame.step.fillna(frame.epoch * images / 128)
    frame["net"] = frame.net.str.replace("-[AB]$", "", regex=True)
    return frame.assign(author=frame.source.map(known.author))


def levels(frame: pd.DataFrame | None = None) -> pd.DataFrame:
    """Final CIFAR-10 test errors (percent), one an author, net and depth: of the recipe nearest the paper's, no far one."""
    frame = reruns() if frame is None else frame
    rows = frame[(frame.dataset == CIFAR) & (frame.in_meta == "yes") & (frame.report == "final") & frame.test_error.notna()]
    return _first(rows, ["author", "net", "depth"])


def _first(rows: pd.DataFrame, keys: list[str]) -> pd.DataFrame:
    """Of rows with the same keys, that with the recipe closest to the paper's, and of these with the final error."""
    rank = {"recipe": RECIPES, "report": REPORTS}
    order = [*rank, "shortcut"]
    return rows.sort_values(order, key=lambda c: c.map(rank[c.name].index) if c.name in rank else c).drop_duplicates(keys)


def _cell(frame: pd.DataFrame, net: str, depth: int, quantity: str) -> pd.DataFrame:
    usable = frame.in_meta.isin(TEST if quantity == "test_error" else (*TEST, "train-only")) & frame.report.ne("")
    rows = frame[usable & (frame.net == net) & (frame.depth == depth) & frame[quantity].notna()]
    return rows.groupby([*TOLD[:-2], "shortcut"], as_index=False).agg({quantity: "mean", "seeds": "min", "shown": "min"})


def effects(claim: str, frame: pd.DataFrame | None = None) -> pd.DataFrame:
    """One row an author and comparison of a claim: `effect` (percentage points; of responses, percent), and of what source.

    frame: rows of `reruns()`, all if None. `sized` is False for a far recipe, whose sign counts and whose size does not;
    `agrees` says whether the effect has the claim's sign.
    """
    frame = reruns() if frame is None else frame
    tables = [_effects(comparison, frame) for comparison in COMPARISONS if comparison.claim == claim]
    return pd.concat([table for table in tables if len(table)] or tables, ignore_index=True)


def depth_pairs(paper: dict[str, float]) -> dict[str, tuple]:
    """What 56 layers instead of 20 change: by comparison, (kind of net, rows of `effects`, the paper's own difference or None).

    paper: its test errors (percent) by net, "plain-20"; rows for `figures.strips`.
    """
    pairs = {}
    for claim, kind in (("C1", "plain"), ("C13", "plain"), ("C5", "resnet")):
        for what, table in effects(claim).groupby("comparison", sort=False):
            if what.startswith(f"{name(kind, 56)} − {name(kind, 20)}"):
                printed = paper[name(kind, 56)] - paper[name(kind, 20)] if what.endswith("test error") else None
                pairs[what] = (kind, table, printed)
    return pairs


def responses() -> pd.DataFrame:
    """What audits of published weights measured, a row a layer: source, net, depth (of the net), layer, response_std.

    A response is what a convolution puts out after batch normalisation, before the addition or the ReLU. No audits: no rows.
    """
    rows = []
    for audit in load_audits():
        kind = "resnet" if audit["shortcut"] else "plain"
        layers = enumerate(audit["probes"]["response_std"], 1)
        rows += [(audit["source"], kind, audit["depth"], layer, std) for layer, std in layers]
    return pd.DataFrame(rows, columns=["source", "net", "depth", "layer", "response_std"])


def iterations(error: float = REACHED["paper"]) -> pd.DataFrame:
    """A row a source, net and depth with a logged curve: `steps`, log2 of the iterations to a logged training error (percent),
    interpolated between the logged ones; the mean over runs."""
    rows = []
    for about, run in curves().dropna(subset="train_error").groupby(["source", "net", "depth", "run"]):
        run = run.sort_values("iteration")
        after = int((run.train_error < error).to_numpy().argmax())
        if after:  # it is reached, and not before the first row
            before, (high, low) = run.iteration.iloc[after - 1], run.train_error.iloc[[after - 1, after]]
            passed = (high - error) / (high - low)
            rows.append((*about[:3], np.log2(before + passed * (run.iteration.iloc[after] - before))))
    frame = pd.DataFrame(rows, columns=["source", "net", "depth", "steps"])
    return frame.groupby(["source", "net", "depth"], as_index=False).steps.mean()


def _of_sources(measured: pd.DataFrame, frame: pd.DataFrame) -> pd.DataFrame:
    """What was measured of nets, a row each, as rows of `reruns` whose source is in the frame."""
    about = frame.drop_duplicates("source")[["source", "author", "url", "recipe", "train_set", "shown"]]
    return measured.merge(about, on="source").assign(report="final", in_meta="yes", shortcut="", seeds=1.0)


def _effects(comparison: Comparison, frame: pd.DataFrame) -> pd.DataFrame:
    frame, quantity, (net, depth) = frame[frame.dataset == comparison.dataset], comparison.quantity, comparison.first
    if quantity == "response":
        nets = responses().groupby(["source", "net", "depth"], as_index=False)
        frame = _of_sources(nets.agg(response=("response_std", "median")), frame)
    if quantity == "steps":
        frame = _of_sources(iterations(), frame)
    if isinstance(comparison.second, float):  # a level, not a difference
        table = levels(frame).query("net == @net and depth == @depth")
        table = table.assign(effect=table[quantity] - comparison.second)
    else:
        by = [*TOLD[:-2], *(["shortcut"] if net == comparison.second[0] else [])]
        pair = (_cell(frame, net, depth, quantity), _cell(frame, *comparison.second, quantity))
        table = pair[0].merge(pair[1], on=by, suffixes=("", "_y"))
        first, second = table[quantity], table[f"{quantity}_y"]
        table["effect"] = 100 * (first / second - 1) if quantity == "response" else first - second
        table["seeds"], table["shown"] = table[["seeds", "seeds_y"]].min(axis=1), table.shown & table.shown_y
        table = _first(table, ["author"])
    table = table[[*TOLD, "effect"]].assign(claim=comparison.claim, comparison=comparison.what)
    agrees = table.effect * comparison.side > 0 if comparison.side else table.effect.abs() < LEVEL
    return table.assign(sized=table.recipe != "far", agrees=agrees)


def told(values) -> str:
    """Mean and 95 % t interval, rounded to what it supports: "−1.34 [−1.49, −1.19]", "5.7 [4.8, 6.7]"; the mean alone of fewer
    than three values, "" of none."""
    if len(values) < FEWEST:
        return f"{np.mean(values):.1f}".replace("-", "−") if len(values) else ""
    mean, low, high = interval(values)
    digits = 2 if high - low < 1 else 1 if high - low < 10 else 0
    mean, low, high = (f"{number:.{digits}f}".replace("-", "−") for number in (mean, low, high))
    return f"{mean} [{low}, {high}]"


def figure_1() -> str:
    """How many authors find the effect of Fig. 1 at the paper's scale, and by how many runs, in words."""
    frame, fit = reruns(), effects("C1")
    forked = effects("C1", frame.assign(author=frame.author.replace(FORKS)))
    test = effects("C13").query("comparison == 'plain-56 − plain-20, test error'")
    all_of, own, one, in_test = (f"{t.agrees.sum()} of {len(t)}" for t in (fit, fit[fit.recipe == "paper"], forked, test))
    return (
        f"{all_of} authors who publish the training errors of both nets find plain-56 worse than plain-20 "
        f"({2 * fit.seeds.sum():.0f} runs of the two nets; {own} with the paper's own recipe, {one} if a repository and its "
        f"forks count once); in test error {in_test} do"
    )


VERDICTS = ("disagrees", "too few", "agrees")  # the weakest part's is the claim's


def verdict(table: pd.DataFrame, side: int) -> str:
    """RULE applied to one comparison's rows of `effects`."""
    sized = tuple(table.effect[table.sized])
    outcome = Part("", sized, threshold=0.0 if side else LEVEL, side=side, margin=0.0).outcome
    if len(sized) < FEWEST or outcome == "open":
        return "too few"
    enough = table.agrees.sum() >= SHARE * len(table)
    return "disagrees" if outcome == "against" else "agrees" if enough else "too few"


def judge(claim: str, frame: pd.DataFrame | None = None) -> dict:
    """A claim by RULE, for the table of claims: claim, paper, ours (a sentence), n (authors), verdict.

    frame: rows of `reruns()`, all if None. n is the number of authors of the weakest part, 0 where there is none.
    """
    table, found, said = effects(claim, frame), [], []
    for comparison in (one for one in COMPARISONS if one.claim == claim):
        rows = table[table.comparison == comparison.what]
        k, m = int(rows.agrees.sum()), len(rows)
        found.append((VERDICTS.index(verdict(rows, comparison.side)), k / max(m, 1), m, k))
        unit, size = QUANTITIES[comparison.quantity][1], rows.effect[rows.sized]
        value = f"{told(size)} {unit}".rstrip() + f" over {len(size)} author{'s' * (len(size) != 1)}; " if len(size) else ""
        too = ", far recipes counted" * (len(size) < m)
        said.append(f"{comparison.what}: {value}{k} of {m} sources agree{too}" if m else f"{comparison.what}: no source")
    weakest, _, m, k = min(found)
    of = (f" ({m - k} of {m} sources)", "", f" ({k} of {m} sources)")[weakest]
    return dict(claim=claim, paper=claim_of(claim).paper, ours="; ".join(said), n=m, verdict=VERDICTS[weakest] + of)
