"""The rules that judge: intervals, thresholds and sides on made-up runs; and what the README says is what the records say."""

import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy import stats

import reslib
from reslib import CIFAR, claims, counted, rules
from reslib.plan import SEEDS
from reslib.rules import Part


def test_the_interval_is_the_t_interval():
    values = [1.0, 2.0, 4.0]
    mean, low, high = rules.interval(values)
    assert (low, high) == pytest.approx(stats.ttest_1samp(values, 0).confidence_interval(0.95))
    assert rules.interval([5.0]) == (5.0, -np.inf, np.inf) and mean == pytest.approx(7 / 3)


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


def fake_runs(errors, scale="pocket", times=1, changes=None, **environment):
    """Runs with given training errors: {(depth, shortcut): errors by seed}; test errors are 2 points higher."""
    rows = []
    for (depth, shortcut), by_seed in errors.items():
        for seed, error in enumerate(by_seed):
            warm = {"warmup_lr": 0.01} if depth == 110 and shortcut else {}
            recipe = (
                replace(CIFAR, depth=depth, shortcut=shortcut, seed=seed, **(warm | (changes or {}))).at(scale).longer(times)
            )
            final = {"train_error": error, "test_error": error + 2, "identity_extension": {"train_error": error}}
            if depth == 56:
                del final["identity_extension"]
            layers = [f"layer{i}" for i in range(depth - 1)]
            probe = {"step": 0, "layer": layers, "response_std": [1.0] * (depth - 1)}
            probe |= {"response_gradient": list(np.geomspace(1e-6 if shortcut is None else 1, 1, depth - 1))}
            steps = [recipe.steps // 4, recipe.steps // 2, recipe.steps]
            curve = dict.fromkeys(reslib.records.__globals__["COLUMNS"], [error] * 3)
            curve |= {"step": steps, "train_error": [95, error, error] if warm else [95, 95, error]}
            record = reslib.Record(
                recipe, {}, {}, "array", {}, final, {}, [probe | {"weight_gradient": [1.0] * (depth - 1)}], "", curve, ""
            )
            rows.append({"recipe_id": recipe.id, "dirty": False, "record": record} | environment)
    return pd.DataFrame(rows)


FOUR = {(20, None): (50, 51, 52), (56, None): (80, 82, 81), (20, "A"): (40, 41, 40), (56, "A"): (58, 60, 58)}


def test_rules_on_made_up_runs():
    runs = fake_runs(FOUR)
    found = {row.claim: row for row in claims.verdicts(runs).itertuples()}
    assert {name: row.verdict for name, row in found.items()} == {
        "C1": "supported", "C3": "contradicted", "C5": "weaker form supported", "C21": "supported",
    }  # fmt: skip
    assert all(row.n == 3 and row.scale == "pocket" for row in found.values())
    assert "30 [27.5, 32.5]" in found["C1"].ours
    assert "ResNet-56 - ResNet-20, training error: 18.3 [16.9, 19.8] points (shown, not judged)" in found["C5"].ours
    assert f"{-37 * 6 / 54:.3g}" in found["C3"].ours  # 55 layers: the thirds' centres are 37 layers apart, 6 decades over 54


def verdict(claim, *runs):
    return claims.judge(claim, runs[0].record.iloc[0].recipe.scale, pd.concat(runs))


def test_longer_training():
    three = fake_runs({net: errors for net, errors in FOUR.items() if net[1] is None}, times=3)
    assert verdict("C4", three)["verdict"] == "supported" and verdict("C4", fake_runs(FOUR))["n"] == 0


def test_options():
    nets = {(56, None): (80, 82, 81), (56, "A"): (58, 60, 58), (56, "B"): (57, 59, 57), (56, "C"): (55, 56.5, 55.2)}
    assert verdict("C8", fake_runs(nets))["verdict"] == "supported"
    assert verdict("C8", fake_runs(nets | {(56, "C"): (59, 61, 59.1)}))["verdict"] == "contradicted"
    assert verdict("C8", fake_runs({net: nets[net] for net in list(nets)[:3]}))["verdict"] == "no evidence"


def test_one_layer_blocks():
    twins, depths = {net: FOUR[net] for net in ((20, None), (56, None))}, (20, 56)
    level = fake_runs({(d, "A"): [e - 0.1 for e in twins[d, None]] for d in depths}, changes={"layers": 1})
    ahead = fake_runs({(d, "A"): [e - 9 for e in twins[d, None]] for d in depths}, changes={"layers": 1})
    assert verdict("C12", fake_runs(twins), level)["verdict"] == "supported"
    assert verdict("C12", fake_runs(twins), ahead)["verdict"] == "contradicted"


def test_the_series_over_depth():
    series = {(d, None): (d, d + 1, d + 2) for d in rules.DEPTHS} | {
        (d, "A"): (20 - d / 9, 20 - d / 8, 21) for d in rules.DEPTHS
    }
    row = verdict("C13", fake_runs(series))
    assert row["verdict"] == "weaker form supported" and row["n"] == 3
    assert row["ours"].count("not judged") == 1  # the residual nets' own slope; none of 110 layers was run straight
    slope = np.polyfit(np.log2(rules.DEPTHS), rules.DEPTHS, 1)[0]
    found = rules.slopes(rules.train_error, "pocket", fake_runs(series), rules.plain, rules.residual)
    assert found[:, 0] == pytest.approx([slope] * 3) and found.shape == (3, 2) and found[2, 1] == pytest.approx(0)
    partial = fake_runs(series)
    partial = partial[[(r.recipe.depth, r.recipe.shortcut, r.recipe.seed) != (44, "A", 0) for r in partial.record]]
    assert rules.slopes(rules.train_error, "pocket", partial, rules.plain, rules.residual) == pytest.approx(found[1:])
    assert verdict("C13", fake_runs(series, "paper"))["verdict"] == "undecided"  # the third seed's slope is 0
    del series[44, "A"]
    assert verdict("C13", fake_runs(series))["n"] == 0


def test_the_warm_up():
    warm, straight = ({(110, "A"): errors} for errors in ((60, 61, 60), (60.2, 60.9, 60.1)))
    runs = fake_runs(warm), fake_runs(straight, changes={"warmup_lr": None})
    runs[1].record.map(lambda record: record.curve.update(train_error=[95, 95, 60]))
    assert verdict("C14", *runs)["verdict"] == "supported" and "800 [800, 800]" in verdict("C14", *runs)["ours"]
    assert verdict("C14", *runs[::-1]) == verdict("C14", *runs)


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
    assert reversal.verdict.item() == "contradicted, interim"  # ResNet-56 is worse here
    of_paper = rows[rows.scale == "paper"].set_index("claim").verdict
    assert of_paper["C1"] == "replicated, interim" and of_paper["C21"] == "replicated, interim"  # three of five seeds


def test_what_the_paper_says_of_imagenet_is_not_replicated_on_cifar():
    longer = {net: (*errors, *errors[:2]) for net, errors in FOUR.items()}
    assert verdict("C4", fake_runs(longer, "paper", times=3))["verdict"] == "supported"
    assert verdict("C1", fake_runs(longer, "paper"))["verdict"] == "replicated"
    assert [c.id for c in claims.CLAIMS if c.on_imagenet and c.id in rules.RULES] == ["C3", "C4", "C5", "C8"]


def test_thresholds_that_are_the_papers():
    paper = claims.paper()
    assert rules.FITTED == paper["s42.resnet1202.training_error_below"]
    assert rules.STARTED == CIFAR.warmup_until == paper["s42.resnet110.warmup_until_training_error"]
    assert "above 60 %" in " ".join(rules.c13.__doc__.split()) and paper["fig6.plain110.error_above"] == 60


def test_demonstrations_are_never_judged():
    assert "demo" not in SEEDS
    assert "not judged" in claims.sentence("C1", "demo", fake_runs(FOUR))


def test_counted_claims_follow_the_judged_ones():
    rows = claims.all_verdicts(fake_runs(FOUR))
    assert list(rows.claim[rows.n == "exact"]) == list(counted.COUNTED) and list(rows.claim[:4]) == ["C1", "C3", "C5", "C21"]
    assert not set(counted.COUNTED) & set(rules.RULES)


def test_every_claim_is_listed():
    assert [claim.id for claim in claims.CLAIMS] == [f"C{i}" for i in range(1, 23)]
    assert set(rules.RULES) <= {claim.id for claim in claims.CLAIMS}
    assert all(rule.__doc__ and claims.paper_says(name) for name, rule in rules.RULES.items())
    for rule, name in ((rules.c3, "VANISHED"), (rules.c12, "ADVANTAGE"), (rules.c14, "SAME")):
        assert f"{getattr(rules, name)}" in rule.__doc__


def test_the_readme_shows_the_verdicts_of_the_records(root):
    text = (root / "README.md").read_text()
    between = text.split("<!-- claims -->\n")[1].split("\n<!-- /claims -->")[0]
    assert between == claims.table(), "run `python -m reslib claims --write README.md`"
    found = {(row.claim, row.verdict) for row in claims.all_verdicts().query("scale in ('pocket', 'counted')").itertuples()}
    told = re.findall(r"((?:C\d+, )*C\d+): ([a-z ]+)[;)]", text)
    said = {(claim, verdict) for group, verdict in told for claim in group.split(", ")}
    assert len(said) > 9 and said <= found, "its summary in words"


def test_the_layers_responses():
    stds = {(20, None): 1.0, (56, None): 0.9, (20, "A"): 0.8, (56, "A"): 0.6, (110, "A"): 0.5}

    def with_responses(stds):
        runs = fake_runs(dict.fromkeys(stds, (60, 61, 62)))
        for record in runs.record:
            std = stds[record.recipe.depth, record.recipe.shortcut] + 0.0001 * record.recipe.seed * record.recipe.depth
            record.probes[0]["response_std"] = [std - 0.1, *[std] * (record.recipe.depth - 3), std + 0.1]
        return runs

    row = verdict("C15", with_responses(stds))
    assert row["verdict"] == "supported" and row["n"] == 3 and "plain-20 - ResNet-20, mean response std: 0.2 " in row["ours"]
    assert verdict("C15", with_responses(stds | {(110, "A"): 0.9}))["verdict"] == "contradicted"
    assert verdict("C15", with_responses({net: std for net, std in stds.items() if net[0] < 110}))["n"] == 0


def test_1202_layers():
    nets = {(110, "A"): (4, 4.5, 5), (1202, "A"): (0.02, 0.03, 0.02)}
    runs = fake_runs(nets, "paper")
    assert verdict("C16", runs)["verdict"] == "contradicted, interim"  # its test errors are lower too
    for record in runs.record[3:]:
        record.final["test_error"] = 8.0 + 0.1 * record.recipe.seed
    assert verdict("C16", runs)["verdict"] == "replicated, interim" and verdict("C16", runs[:3])["n"] == 0
