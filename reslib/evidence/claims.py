"""The verdicts on the paper's claims C1-C22 (claims.csv), each kind of evidence apart and in its own words."""

import re
from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from ..files import renamed
from ..record import records
from . import counted, reruns, rules_imagenet, start
from .comparison import Runs, decide, direction
from .plan import SEEDS
from .reported import CLAIMS, claim_of, paper
from .rules import RULES

SPLIT = {
    "C7a": "converges faster", "C7b": "as accurate", "C8a": "shortcuts help", "C8b": "the order of A, B, C",
    "C8c": "projections are not essential", "C13a": "residual nets improve", "C13b": "plain nets get worse",
    "C14a": "a slow start", "C14b": "it converges all the same",
}  # fmt: skip
"""What the parts of a claim that says several things are about."""

WORDS = {
    "paper": ("replicated", "not replicated", "inconclusive"),
    "night": ("supported", "contradicted", "undecided"),
    "direction": ("same direction", "opposite direction", "unclear"),
}
"""What may be said where all parts of a rule hold, where one is contradicted, and else."""

KINDS = {
    "paper": "our runs, paper's scale", "public": "public runs, paper's scale", "counted": "counted",
    "start": "untrained nets", "night": "our runs, a quarter of the schedule", "pocket": "our runs, short training",
    "extension": "our runs, other photographs",
}  # fmt: skip
"""What kind of evidence a scale is, the strongest first."""


def rules_at(scale: str) -> dict:
    """The rules that judge the evidence of a scale."""
    others = {"public": dict.fromkeys(reruns.CLAIMS), "counted": counted.COUNTED, "start": {"C22": start.judge}}
    return ({"extension": rules_imagenet.RULES} | others).get(scale, RULES)


def rules_of(claim: str, scale: str = "paper") -> list[str]:
    """The rules of a claim: C8a, C8b, C8c of C8."""
    return [rule for rule in rules_at(scale) if claim_of(rule).id == claim]


def analogue(rule: str, scale: str) -> bool:
    """Whether this evidence is from CIFAR-10, and the claim about ImageNet."""
    here = {one.dataset for one in reruns.COMPARISONS if one.claim == rule} if scale == "public" else {reruns.CIFAR}
    return claim_of(rule).on_imagenet and scale in ("paper", "public", "night", "pocket") and here == {reruns.CIFAR}


def title(rule: str) -> str:
    """C8a, and what it is about."""
    return f"{rule} ({SPLIT[rule]})" if rule in SPLIT else rule


def judge(rule: str, scale: str, runs: pd.DataFrame | None) -> dict:
    """A rule applied to the runs of a scale: scale, claim, paper, ours, n (runs a net), verdict, why. n = 0: no evidence.

    Nothing is decided before all planned runs are there. A scale that does not pass its gate (`Runs.gate`) says directions.
    """
    row = dict(scale=scale, claim=rule, paper=claim_of(rule).paper, ours="", n=0, verdict="no evidence", why="")
    if scale == "public":
        return row | reruns.judge(rule)
    if scale == "counted":
        return row | counted.judge(rule, paper())
    if scale == "start":
        return row | start.judge()
    if scale not in SEEDS:
        return row
    chosen = Runs(scale, runs)
    parts = rules_at(scale)[rule](chosen)
    judged = [part for part in parts if part.judged]
    asked = chosen.asked.values()
    recorded = sum(len(one.found) for one in asked)
    if not recorded or not all(one.planned for one in asked):
        return row
    reasons, told = [], list(map(str, parts))
    if not judged:
        verdict = "shown, not judged"
    elif chosen.missing:
        verdict, reasons = "incomplete", [f"{recorded} of {recorded + chosen.missing} planned runs are recorded"]
    else:
        gate = chosen.gate()
        words = WORDS["direction" if gate else "night" if claim_of(rule).on_imagenet else scale]
        place, reasons = (direction if gate else decide)(judged)
        verdict, reasons = words[place], reasons + ["only a direction, because " + ", ".join(gate)] * bool(gate)
        if len(judged) > 1:
            by_outcome = dict(zip(("for", "against", "open"), words, strict=True))
            told = [f"{part}: {by_outcome[part.outcome] if part.judged else 'shown'}" for part in parts]
    n = min(len(one.found) for one in asked)
    return row | {"ours": "; ".join(told), "n": n, "verdict": verdict, "why": "; ".join(reasons)}


def verdicts(
    runs: pd.DataFrame | None = None, of: Iterable[str] | None = None, scales: Iterable[str] | None = None
) -> pd.DataFrame:
    """One row a rule and kind of evidence that says something, claim by claim, the strongest evidence first.

    Columns: kind, and those of `judge`; n is "exact" of what is counted. runs: rows of `reslib.records()`; of: claims ("C8");
    scales: keys of KINDS. All where None.
    """
    if runs is None and set(SEEDS) & set(scales or SEEDS):  # what is counted needs none
        runs = records()
    chosen = [(claim.id, scale) for claim in CLAIMS for scale in KINDS
              if (of is None or claim.id in of) and (scales is None or scale in scales)]  # fmt: skip
    rows = [judge(rule, scale, runs) for claim, scale in chosen for rule in rules_of(claim, scale)]
    rows = [{"kind": KINDS[row["scale"]]} | row for row in rows if row["ours"]]
    return pd.DataFrame(rows, columns=["kind", "scale", "claim", "paper", "ours", "n", "verdict", "why"])


def table(rows: pd.DataFrame, *more: str) -> str:
    """Rows of `verdicts` as a Markdown table: claim, kind of evidence, n, verdict, and `more` of their columns."""
    rows = rows.assign(claim=rows.claim.map(title))
    return rows[["claim", "kind", "n", "verdict", *more]].to_markdown(index=False)


def sentence(claim: str, scale: str, runs: pd.DataFrame | None = None) -> str:
    """The verdicts on a claim with their rules and numbers, as Markdown, a paragraph a rule. What is counted needs no runs."""
    return "\n\n".join(paragraph(rule, scale, runs) for rule in rules_of(claim, scale))


def paragraph(rule: str, scale: str, runs: pd.DataFrame) -> str:
    """The verdict by one rule, with the rule and its numbers."""
    row, told = judge(rule, scale, runs), f"Rule: {' '.join(rules_at(scale)[rule].__doc__.split())}"
    about = f"{title(rule)}, counted" if scale == "counted" else f"{title(rule)} at {scale} scale"
    if not row["ours"]:
        needs = f"of seeds {', '.join(map(str, SEEDS[scale]))}, from committed code" if scale in SEEDS else "at another scale"
        return f"**{about}: not judged.** {told} None of the runs that it needs, {needs}, is among these."
    why = f" ({row['why']})" * bool(row["why"])
    return f"**{about}: {row['verdict']}**{why}. {told} Found: {row['ours']}. Paper: {row['paper']}."


def decided(rows: pd.DataFrame) -> dict[str, int]:
    """Of how many claims the evidence of each scale says something: a verdict, or a direction where its kind says no more.

    rows: `verdicts`. A direction at a scale that could judge is none of its verdicts.
    """
    silent = rows.verdict.str.startswith(("incomplete", "too few", "shown", "unclear"))
    rows = rows[~silent & ~(rows.scale.isin(("paper", "night")) & rows.verdict.isin(WORDS["direction"]))]
    count = rows.claim.map(lambda rule: claim_of(rule).id).groupby(rows.scale).nunique()
    return {scale: int(count.get(scale, 0)) for scale in KINDS}


def state(rows: pd.DataFrame) -> str:
    """What stands behind the claims, in one line. rows: `verdicts`."""
    count = decided(rows)
    on_cifar = decided(rows[list(map(analogue, rows.claim, rows.scale))])
    extension = f", and so of {count['extension']} do nets trained on other photographs" if count["extension"] else ""
    return (
        f"Of the paper's {len(CLAIMS)} claims, {count['paper']} have been tested at the paper's scale by our own runs and "
        f"{count['public']} by public runs ({on_cifar['public']} of them on CIFAR-10 in place of ImageNet); "
        f"{count['counted']} are counted; {count['night']} are judged by our runs with a quarter of the schedule; "
        f"of {count['pocket']} a short training shows directions, which judge nothing{extension}. "
        f"Fig. 1 at the paper's scale, by public runs: {reruns.figure_1()}. In training error the difference is "
        f"{reruns.told(reruns.effects('C1').query('sized').effect)} points, far recipes left out."
    )


def summary(runs: pd.DataFrame | None = None) -> str:
    """`state`, a Markdown table of a row for each kind of evidence: which claims came out how, and what the claims are."""
    rows = verdicts(runs)
    rows["id"] = [rule + "*" * analogue(rule, scale) for rule, scale in zip(rows.claim, rows.scale, strict=True)]
    words = rows.verdict.str.replace(r" \(\d+ of \d+ sources\)", "", regex=True)
    lines = []
    for scale, kind in KINDS.items():
        of = rows[rows.scale == scale]
        found = [f"{word}: {', '.join(ids)}" for word, ids in of.id.groupby(words[of.index], sort=False)]
        lines.append({"evidence": kind, "what it says of which claims": "; ".join(found) or "no run yet"})
    said = pd.DataFrame([{"claim": claim.id, "the paper says": claim.text} for claim in CLAIMS])
    starred = "\\* Stated in section 4.1, on ImageNet; this evidence is from CIFAR-10."
    return "\n\n".join([state(rows), pd.DataFrame(lines).to_markdown(index=False), starred, said.to_markdown(index=False)])


def put_summary(path: Path) -> None:
    """Replace what a page has between its claims marks by `summary`. Raises ValueError, naming the page, if it has none."""
    old = path.read_text(encoding="utf-8") if path.is_file() else ""
    marks = re.compile(r"(<!-- claims -->\n).*?(<!-- /claims -->)", re.DOTALL)
    if not marks.search(old):
        raise ValueError(f"{path} has no claims marks: put <!-- claims --> and <!-- /claims --> where the table belongs.")
    text = summary()
    with renamed(path) as file:
        file.write(marks.sub(lambda m: f"{m[1]}{text}\n{m[2]}", old).encode())
