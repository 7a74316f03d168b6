"""The rules that judge: intervals, thresholds and sides on made-up runs; and what the README says is what the records say."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy import stats

import reslib
from reslib import CIFAR, claims
from reslib.claims import Part


def test_the_interval_is_the_t_interval():
    values = [1.0, 2.0, 4.0]
    mean, low, high = claims.interval(values)
    assert (low, high) == pytest.approx(stats.ttest_1samp(values, 0).confidence_interval(0.95))
    assert claims.interval([5.0]) == (5.0, -np.inf, np.inf) and mean == pytest.approx(7 / 3)


@pytest.mark.parametrize(
    ("values", "side", "verdict"),
    [
        ((5, 6, 7), 1, "supported"),
        ((-5, -6, -7), 1, "contradicted"),
        ((-1, 0, 2), 1, "undecided"),
        ((5, 6, 7), -1, "contradicted"),
        ((-5, -6, -7), -1, "supported"),
        ((5, 6), 1, "undecided"),
        ((0, 0, 0), 1, "contradicted"),
    ],
)
def test_parts(values, side, verdict):
    assert Part("x", values, 0.5 if side == 1 else -0.5, side).verdict == verdict


def fake_runs(errors, scale="pocket", **environment):
    """Runs with given training errors: {(depth, shortcut): errors by seed}."""
    rows = []
    for (depth, shortcut), by_seed in errors.items():
        for seed, error in enumerate(by_seed):
            recipe = replace(CIFAR, depth=depth, shortcut=shortcut, seed=seed).at(scale)
            final = {"train_error": error, "test_error": error + 2, "identity_extension": {"train_error": error}}
            if depth == 56:
                del final["identity_extension"]
            layers = [f"layer{i}" for i in range(depth - 1)]
            probe = {"step": 0, "layer": layers, "response_std": [1.0] * (depth - 1)}
            probe |= {"response_gradient": list(np.geomspace(1e-6 if shortcut is None else 1, 1, depth - 1))}
            record = reslib.Record(
                recipe, {}, {}, "array", {}, final, {}, [probe | {"weight_gradient": [1.0] * (depth - 1)}], "", {}, ""
            )
            rows.append({"recipe_id": recipe.id, "dirty": False, "record": record} | environment)
    return pd.DataFrame(rows)


FOUR = {(20, None): (50, 51, 52), (56, None): (80, 82, 81), (20, "A"): (40, 41, 40), (56, "A"): (58, 60, 58)}


def test_rules_on_made_up_runs():
    runs = fake_runs(FOUR)
    found = {row.claim: row for row in claims.verdicts(runs).itertuples()}
    assert {name: row.verdict for name, row in found.items()} == {
        "C1": "supported", "C3": "contradicted", "C5": "supported", "C21": "supported",
    }  # fmt: skip
    assert all(row.n == 3 and row.scale == "pocket" for row in found.values())
    assert "30 [27.5, 32.5]" in found["C1"].ours
    assert f"{-37 * 6 / 54:.3g}" in found["C3"].ours  # 55 layers: the thirds' centres are 37 layers apart, 6 decades over 54


def test_verdicts_need_the_fixed_seeds_and_committed_code():
    two = fake_runs({net: errors[:2] for net, errors in FOUR.items()})
    assert set(claims.verdicts(two).verdict) == {"undecided"}
    for dirty in (True, None):
        assert claims.verdicts(fake_runs(FOUR, dirty=dirty)).empty
    assert "not judged" in claims.sentence("C1", "pocket", fake_runs(FOUR, dirty=True))


def test_scales_are_never_mixed():
    both = pd.concat([fake_runs(FOUR), fake_runs(FOUR, "paper")])
    rows = claims.verdicts(both)
    assert set(rows.scale) == {"pocket", "paper"} and len(rows) == 8
    reversal = rows[(rows.scale == "paper") & (rows.claim == "C5")]
    assert reversal.verdict.item() == "contradicted"  # ResNet-56 is worse here
    assert rows[(rows.scale == "paper") & (rows.claim == "C1")].verdict.item() == "replicated"


def test_demonstrations_are_never_judged():
    assert "demo" not in claims.SEEDS
    assert "not judged" in claims.sentence("C1", "demo", fake_runs(FOUR))


def test_every_claim_is_listed():
    assert [claim.id for claim in claims.CLAIMS] == [f"C{i}" for i in range(1, 23)]
    assert set(claims.RULES) <= {claim.id for claim in claims.CLAIMS}
    assert all(claims.RULES[name].__doc__ for name in claims.RULES)
    assert f"{claims.VANISHED} (VANISHED)" in claims.c3.__doc__


def test_the_readme_shows_the_verdicts_of_the_records(root):
    text = (root / "README.md").read_text()
    between = text.split("<!-- claims -->\n")[1].split("\n<!-- /claims -->")[0]
    assert between == claims.table(), "run `python -m reslib claims --write README.md`"
