"""The paper's claims C1-C22 (claims.csv) and the verdicts on them, by the rules of rules.py from the recorded runs.

Each kind of evidence is judged apart and has its own words (WORDS): runs at the paper's scale, at night scale, and short
training, which is never more than a direction. What contradicts must do so by a margin, after Holm's correction over the
parts of a claim, and with the power to have seen the paper's effect.
"""

from collections.abc import Iterable

import pandas as pd
from statsmodels.stats.multitest import multipletests

from ..record import records
from . import counted, reruns, rules_imagenet, start
from .comparison import CONFIDENCE, POWER, Part, Runs
from .plan import SEEDS
from .reported import CLAIMS, Claim, paper
from .rules import RULES

SPLIT = {
    "C7a": "converges faster", "C7b": "as accurate", "C8a": "shortcuts help", "C8b": "the order of A, B, C",
    "C8c": "projections are not essential", "C13a": "residual nets improve", "C13b": "plain nets get worse",
    "C14a": "a slow start", "C14b": "it converges all the same",
}  # fmt: skip
"""What the parts of a claim that says several things are about."""


def paper_says(rule: str) -> str:
    """The paper's number beside a verdict, where it gives one."""
    p, claim = paper(), rule.rstrip("abc")
    return {
        "C1": "higher (Fig. 1)",
        "C3": "verified, no number",
        "C4": "still observed, no number",
        "C5": f"ResNet-34 {p['s41.resnet34.depth_gain']} points better than ResNet-18 (ImageNet); CIFAR-10 test error "
              f"{p['table6.resnet20.test_error']:.2f} -> {p['table6.resnet56.test_error']:.2f}",
        "C8": f"plain {p['table3.plain34.top1_error']:.2f}, A {p['table3.resnet34A.top1_error']:.2f}, "
              f"B {p['table3.resnet34B.top1_error']:.2f}, C {p['table3.resnet34C.top1_error']:.2f} (ImageNet, 34 layers)",
        "C2": f"plain-18 {p['table2.plain18.top1_error']:.2f}, plain-34 {p['table2.plain34.top1_error']:.2f} (ImageNet)",
        "C9": f"ResNet-34 A {p['table3.resnet34A.top1_error']:.2f}, ResNet-50 {p['table3.resnet50.top1_error']:.2f} (ImageNet)",
        "C12": "no advantage, no number",
        "C13": f"test error {p['table6.resnet20.test_error']:.2f} -> {p['table6.resnet110.test_error']:.2f}; plain-110 above "
               f"{p['fig6.plain110.error_above']:.0f} %",
        "C14": f"starts slowly; the warm-up ends after about {p['s42.resnet110.warmup_iterations']:.0f} iterations",
        "C15": "generally smaller (Fig. 7), no number",
        "C16": f"training error below {p['s42.resnet1202.training_error_below']} %; test error "
               f"{p['table6.resnet1202.test_error']:.2f} against {p['table6.resnet110.test_error']:.2f}",
        "C6": f"plain-34 less ResNet-34: {p['s41.resnet34.gain_over_plain34']} points of top-1 error (ImageNet)",
        "C7": f"plain-18 {p['table2.plain18.top1_error']:.2f}, ResNet-18 {p['table2.resnet18.top1_error']:.2f} (ImageNet)",
        "C19": f"ResNet-110 {p['table6.resnet110.test_error']:.2f}, Highway {p['table6.highway19.test_error']:.2f}",
        "C21": "argued",
    }[claim]  # fmt: skip


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
"""What kind of evidence a scale is."""

ALPHA = (1 - CONFIDENCE) / 2  # one-sided, of all parts of a claim together (Holm), for a contradiction


def decide(parts: list[Part]) -> tuple[int, list[str]]:
    """The place in WORDS of a verdict on a rule's judged parts, and why it is not a stronger one.

    All must be borne out. One that is not, by a one-sided test with Holm's correction over the parts, contradicts; but only
    where these runs would have borne out the paper's effect with a power of 80 %.
    """
    if all(part.outcome == "for" for part in parts):
        return 0, []
    p_values = [part.p_against for part in parts]
    if min(p_values) >= ALPHA:
        return 2, []
    against = multipletests(p_values, ALPHA, method="holm")[0] if len(parts) > 1 else [True]
    against = [part for part, is_against in zip(parts, against, strict=True) if is_against]
    weak = [part for part in against if part.power() < POWER]
    if len(weak) < len(against):
        return 1, []
    return 2, [f"{part.what.rstrip(':')}: power {part.power():.0%}, {part.needed()} runs a net would decide" for part in weak]


def direction(parts: list[Part]) -> tuple[int, list[str]]:
    """As `decide`, where a scale may say directions only: the same, the opposite, or, where parts differ, unclear."""
    found = {part.outcome for part in parts}
    return (0 if found == {"for"} else 1 if found == {"against"} else 2), []


def judge(rule: str, scale: str, runs: pd.DataFrame) -> dict:
    """A rule applied to the runs of a scale: scale, claim, paper, ours, n (runs a net), verdict, why. n = 0: no evidence.

    Nothing is decided before all planned runs are there. A scale that does not pass its gate (`Runs.gate`) says directions.
    """
    chosen = Runs(scale, runs)
    parts = rules_at(scale)[rule](chosen)
    judged = [part for part in parts if part.judged]
    recorded = min((planned for _, _, planned, _ in chosen.asked), default=0) and sum(len(r) for _, r, *_ in chosen.asked)
    row = {"scale": scale, "claim": rule, "paper": paper_says(rule), "ours": "", "n": 0, "verdict": "no evidence", "why": ""}
    if not recorded:
        return row
    reasons, outcomes = [], [""] * len(parts)
    if not judged:
        verdict = "shown, not judged"
    elif chosen.missing:
        verdict, reasons = "incomplete", [f"{recorded} of {chosen.planned} planned runs are recorded"]
    else:
        gate = chosen.gate()
        words = WORDS["direction" if gate else "night" if claim_of(rule).on_imagenet else scale]
        place, reasons = (direction if gate else decide)(judged)
        verdict, reasons = words[place], reasons + ["only a direction, because " + ", ".join(gate)] * bool(gate)
        if len(judged) > 1:
            by_outcome = dict(zip(("for", "against", "open"), words, strict=True))
            outcomes = [by_outcome[part.outcome] if part.judged else "shown" for part in parts]
    told = [f"{part}: {outcome}" if outcome else f"{part}" for part, outcome in zip(parts, outcomes, strict=True)]
    n = min((len(found) for _, found, *_ in chosen.asked), default=0)
    return row | {"ours": "; ".join(told), "n": n, "verdict": verdict, "why": "; ".join(reasons)}


def claim_of(rule: str) -> Claim:
    """The claim that a rule, C8a, belongs to."""
    return next(claim for claim in CLAIMS if claim.id == rule.rstrip("abc"))


def title(rule: str) -> str:
    """C8a, and what it is about."""
    return f"{rule} ({SPLIT[rule]})" if rule in SPLIT else rule


def rules_at(scale: str) -> dict:
    """The rules that judge the runs of a scale."""
    return rules_imagenet.RULES if scale == "extension" else RULES


def rules_of(claim: str, scale: str = "paper") -> list[str]:
    """The rules of a claim: C8a, C8b, C8c of C8."""
    return [rule for rule in rules_at(scale) if claim_of(rule).id == claim]


def sentence(claim: str, scale: str, runs: pd.DataFrame) -> str:
    """The verdicts on a claim with their rules and numbers, as Markdown, a paragraph a rule."""
    return "\n\n".join(paragraph(rule, scale, runs) for rule in rules_of(claim, scale))


def paragraph(rule: str, scale: str, runs: pd.DataFrame) -> str:
    """The verdict by one rule, with the rule and its numbers."""
    row = judge(rule, scale, runs)
    told = f"Rule: {' '.join(rules_at(scale)[rule].__doc__.split())}"
    if not row["ours"]:
        seeds = ", ".join(map(str, SEEDS.get(scale, ()))) or "none: never judged"
        return (
            f"**{title(rule)} at {scale} scale: not judged.** {told} None of the runs that it needs is among these: from "
            f"committed code, with the seeds fixed beforehand ({seeds})."
        )
    why = f" ({row['why']})" * bool(row["why"])
    return f"**{title(rule)} at {scale} scale: {row['verdict']}**{why}. {told} Found: {row['ours']}. Paper: {row['paper']}."


def verdicts(runs: pd.DataFrame | None = None) -> pd.DataFrame:
    """One row a rule and scale that has evidence, the longest training first: the columns of `judge`."""
    runs = records() if runs is None else runs
    rows = [judge(rule, scale, runs) for scale in reversed(SEEDS) for rule in rules_at(scale)]
    return pd.DataFrame(rows).query("ours != ''").reset_index(drop=True)


def all_verdicts(runs: pd.DataFrame | None = None) -> pd.DataFrame:
    """`verdicts`, and what public reruns say, what is counted (n "exact") and what untrained nets show: claim by claim."""
    others = [reruns.judge(claim) | {"scale": "public"} for claim in reruns.CLAIMS]
    others += [counted.row(claim, paper()) for claim in counted.COUNTED] + [start.judge()]
    others = pd.DataFrame([row for row in others if row["ours"]]).drop(columns="kind")
    rows = pd.concat([verdicts(runs).astype({"n": object}), others], ignore_index=True).fillna({"why": ""})
    rows.insert(0, "kind", rows.scale.map(KINDS))
    order = [(int(claim_of(row.claim).id[1:]), list(KINDS).index(row.scale)) for row in rows.itertuples()]
    return rows.iloc[sorted(range(len(rows)), key=order.__getitem__)].reset_index(drop=True)


def listed(names: Iterable[str], scale: str, runs: pd.DataFrame) -> str:
    """What a chapter ends with: the verdicts on these claims at a scale, and of the counted ones, as a Markdown table."""
    rows = [judge(rule, scale, runs) for claim in names for rule in rules_of(claim, scale)]
    rows += [counted.row(claim, paper()) for claim in names if claim in counted.COUNTED]
    frame = pd.DataFrame(rows).assign(claim=lambda f: f.claim.map(title))
    return frame[["claim", "scale", "n", "verdict", "ours"]].to_markdown(index=False)


def state(rows: pd.DataFrame) -> str:
    """What stands behind the claims, in one line. rows: `all_verdicts`."""
    told = {
        kind: {claim_of(rule).id for rule in of.claim[~of.verdict.isin(["incomplete", "too few"])]}
        for kind, of in rows.groupby("kind")
    }
    count = {scale: len(told.get(kind, ())) for scale, kind in KINDS.items()}
    return (
        f"Of the paper's {len(CLAIMS)} claims, {count['paper']} have been tested at the paper's scale by our own runs and "
        f"{count['public']} by public runs; {count['counted']} are counted; {count['night']} are judged by our runs with a "
        f"quarter of the schedule; of {count['pocket']} a short training shows directions, which judge nothing"
        + f", and so of {count['extension']} do nets trained on other photographs"
        * bool(count["extension"])
        + ". Fig. 1 at the "
        f"paper's scale, by public runs: {reruns.judge('C1')['ours']}."
    )


def summary(runs: pd.DataFrame | None = None) -> str:
    """`state`, a Markdown table of a row for each kind of evidence: which claims came out how, and what the claims are."""
    rows = all_verdicts(runs)
    lines = []
    for kind in KINDS.values():
        of = rows[rows.kind == kind]
        words = of.verdict.str.replace(r" \(\d+ of \d+ sources\)| at initialisation", "", regex=True)
        found = "; ".join(f"{verdict}: {', '.join(ids)}" for verdict, ids in of.claim.groupby(words, sort=False))
        lines.append({"evidence": kind, "what it says of which claims": found or "no run yet"})
    said = pd.DataFrame([{"claim": claim.id, "the paper says": claim.text} for claim in CLAIMS])
    return "\n\n".join([state(rows), *(frame.to_markdown(index=False) for frame in (pd.DataFrame(lines), said))])


def table(runs: pd.DataFrame | None = None) -> str:
    """`all_verdicts` in short as a Markdown table: claim, kind of evidence, n, verdict."""
    rows = all_verdicts(runs)
    rows["claim"] = rows.claim.map(title)
    return rows[["claim", "kind", "n", "verdict"]].to_markdown(index=False)
