"""The paper's claims C1-C22 (claims.csv) and the verdicts on them, by the rules of rules.py from the recorded runs.

A claim is judged at each scale separately. A rule says "supported" only where the whole interval lies on the claim's side,
"contradicted" only where it lies on the other side, else "undecided"; with fewer than three seeds nothing is decided, and
before all planned seeds are there a verdict is "interim". Where a rule has parts, all must hold, and one that is contradicted
contradicts the claim: no correction is made for their number. "replicated" is said at paper scale only, and not of a claim
that the paper makes about ImageNet, which CIFAR-10 runs extend.
"""

import csv
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

import pandas as pd

from . import counted
from .plan import SEEDS
from .records import records
from .rules import RULES, WEAKER


@dataclass(frozen=True)
class Claim:
    """One claim of the paper: where it stands, what it says, what would show it."""

    id: str
    where: str
    text: str
    would_show: str

    @property
    def on_imagenet(self) -> bool:
        """Whether the paper states it for ImageNet."""
        return self.where.startswith("§4.1")


def _table(name: str) -> list[dict[str, str]]:
    with files("reslib").joinpath(name).open(encoding="utf-8", newline="") as lines:
        return list(csv.DictReader(lines))


CLAIMS = tuple(Claim(**row) for row in _table("claims.csv"))


@cache
def paper() -> dict[str, float]:
    """What the paper reports, by quantity: `paper()["table6.resnet20.test_error"]` is in the unit that paper.csv gives."""
    return {row["quantity"]: float(row["value"]) for row in _table("paper.csv")}


def paper_says(claim: str) -> str:
    """The paper's number beside a verdict, where it gives one."""
    p = paper()
    return {
        "C1": "higher (Fig. 1)",
        "C3": "verified, no number",
        "C4": "still observed, no number",
        "C5": f"ResNet-34 {p['s41.resnet34.depth_gain']} points better than ResNet-18 (ImageNet); CIFAR-10 test error "
              f"{p['table6.resnet20.test_error']:.2f} -> {p['table6.resnet56.test_error']:.2f}",
        "C8": f"plain {p['table3.plain34.top1_error']:.2f}, A {p['table3.resnet34A.top1_error']:.2f}, "
              f"B {p['table3.resnet34B.top1_error']:.2f}, C {p['table3.resnet34C.top1_error']:.2f} (ImageNet, 34 layers)",
        "C12": "no advantage, no number",
        "C13": f"test error {p['table6.resnet20.test_error']:.2f} -> {p['table6.resnet110.test_error']:.2f}; plain-110 above "
               f"{p['fig6.plain110.error_above']:.0f} %",
        "C14": f"starts slowly; the warm-up ends after about {p['s42.resnet110.warmup_iterations']:.0f} iterations",
        "C15": "generally smaller (Fig. 7), no number",
        "C16": f"training error below {p['s42.resnet1202.training_error_below']} %; test error "
               f"{p['table6.resnet1202.test_error']:.2f} against {p['table6.resnet110.test_error']:.2f}",
        "C21": "argued",
    }[claim]  # fmt: skip


def judge(claim: str, scale: str, runs: pd.DataFrame) -> dict:
    """A claim's rule applied to the runs of a scale: scale, claim, paper, ours, n (seeds), verdict. n = 0: no evidence."""
    parts = [part for part in RULES[claim](scale, runs) if part.judged or part.values]
    judged = [part for part in parts if part.judged]
    n = min(len(part.values) for part in judged)
    row = {"scale": scale, "claim": claim, "paper": paper_says(claim), "ours": "", "n": n, "verdict": "no evidence"}
    if n:
        found = {part.verdict for part in judged}
        verdict = next(v for v in ("contradicted", "undecided", "supported") if v in found)
        told = [f"{part}" if len(found) == 1 else f"{part} ({part.verdict})" for part in judged]
        told += [f"{part} (shown, not judged)" for part in parts if not part.judged]
        if verdict == "supported" and (scale, claim) in WEAKER:
            verdict = "weaker form supported"
        elif verdict == "supported" and scale == "paper" and not next(c for c in CLAIMS if c.id == claim).on_imagenet:
            verdict = "replicated"
        if verdict != "undecided" and n < len(SEEDS[scale]):
            verdict += ", interim"
        row |= {"ours": "; ".join(told), "verdict": verdict}
    return row


def sentence(claim: str, scale: str, runs: pd.DataFrame) -> str:
    """The verdict with its rule and its numbers, as Markdown."""
    row = judge(claim, scale, runs)
    rule = f"Rule: {' '.join(RULES[claim].__doc__.split())}"
    if not row["n"]:
        seeds = ", ".join(map(str, SEEDS.get(scale, ()))) or "none: never judged"
        return (
            f"**{claim} at {scale} scale: not judged.** {rule} Not all the runs that it needs are among "
            f"these: from committed code, with the seeds fixed beforehand ({seeds})."
        )
    return (
        f"**{claim} at {scale} scale: {row['verdict']}** (n = {row['n']}). {rule} Found: {row['ours']}. Paper: {row['paper']}."
    )


def verdicts(runs: pd.DataFrame | None = None) -> pd.DataFrame:
    """One row a judged claim and scale that has evidence: scale, claim, paper, ours, n (seeds), verdict."""
    runs = records() if runs is None else runs
    rows = [judge(claim, scale, runs) for scale in SEEDS for claim in RULES]
    return pd.DataFrame(rows).query("n > 0").reset_index(drop=True)


def all_verdicts(runs: pd.DataFrame | None = None) -> pd.DataFrame:
    """`verdicts`, and after them the claims that are counted (counted.py): scale "counted", n "exact"."""
    exact = [counted.row(claim, paper()) for claim in counted.COUNTED]
    return pd.concat([verdicts(runs).astype({"n": object}), pd.DataFrame(exact)], ignore_index=True)


def table(runs: pd.DataFrame | None = None) -> str:
    """`all_verdicts` as a Markdown table, for the README and the book's index."""
    return all_verdicts(runs).to_markdown(index=False)
