"""The rules that judge, on made-up runs: gates, words, completeness; and what the README says is what the records say."""

import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

import reslib
from reslib import CIFAR, IMAGENET
from reslib.evidence import claims, comparison, counted, rules
from reslib.evidence.plan import PHOTOGRAPHS, PLAN, SEEDS, planned_seeds


def fake_runs(errors, scale="pocket", times=1, changes=None, base=CIFAR, data=None, **environment):
    """Runs with given training errors: {(depth, shortcut): errors by seed}; test errors are 2 points higher."""
    rows = []
    for (depth, shortcut), by_seed in errors.items():
        for seed, error in enumerate(by_seed):
            warm = {"warmup_lr": 0.01} if depth == 110 and shortcut else {}
            recipe = (
                replace(base, depth=depth, shortcut=shortcut, seed=seed, **(warm | (changes or {}))).at(scale).longer(times)
            )
            final = {"train_error": error, "test_error": error + 2, "identity_extension": {"train_error": error}}
            if depth == 56:
                del final["identity_extension"]
            layers = [f"layer{i}" for i in range(depth - 1)]
            probe = {"step": 0, "layer": layers, "response_std": [1.0] * (depth - 1)}
            probe |= {"response_gradient": list(np.geomspace(1e-6 if shortcut is None else 1, 1, depth - 1))}
            steps = [recipe.steps // 4, recipe.steps // 2, recipe.steps]
            curve = dict.fromkeys(("step", "lr", "train_error", "train_loss", "test_error", "test_loss"), [error] * 3)
            curve |= {"step": steps, "train_error": [95, error, error] if warm else [95, 95, error]}
            record = reslib.Record(
                recipe,
                data or {},
                {},
                "array",
                {},
                final,
                {},
                [probe | {"weight_gradient": [1.0] * (depth - 1)}],
                "",
                curve,
                "",
            )
            rows.append({"recipe_id": recipe.id, "dirty": False, "record": record} | environment)
    return pd.DataFrame(rows)


FOUR = {(20, None): (50, 51, 52), (56, None): (70, 72, 71), (20, "A"): (40, 41, 40), (56, "A"): (38, 37, 38)}
FAILED = FOUR | {(56, "A"): (58, 60, 58)}  # the control: ResNet-56 is not below ResNet-20


OURS = ("paper", "night", "pocket", "extension")


def verdicts(runs):
    return claims.verdicts(runs, scales=OURS)


def verdict(rule, *runs):
    return claims.judge(rule, runs[0].record.iloc[0].recipe.scale, pd.concat(runs))


def test_night_judges_where_its_control_has_passed():
    rows = verdicts(fake_runs(FOUR, "night")).set_index("claim")
    assert rows.verdict[["C1", "C5", "C6", "C21"]].tolist() == ["supported"] * 4
    assert rows.verdict["C7a"] == rows.verdict["C7b"] == "undecided"  # no power for half a point, with these spreads
    assert set(rows.n) == {3} and set(rows.scale) == {"night"} and "20 [17.7, 22.3] points" in rows.ours["C1"]
    assert "C13a" not in rows.index and "C8a" not in rows.index  # not planned at night


def test_a_scale_that_fails_its_control_says_directions():
    row = verdict("C1", fake_runs(FAILED, "night"))
    assert row["verdict"] == "same direction" and "fails its control" in row["why"]
    assert verdict("C5", fake_runs(FAILED, "night"))["verdict"] == "opposite direction"
    never = fake_runs(FOUR | {(56, None): (70, 72, 89.0)}, "night")
    row = verdict("C1", never)
    assert row["verdict"] in ("same direction", "unclear") and "1 of 3 runs of plain-56 never start" in row["why"]


def test_short_training_is_never_more_than_a_direction():
    for nets in (FOUR, FAILED):
        found = set(verdicts(fake_runs(nets)).verdict)
        assert found <= {"same direction", "opposite direction", "unclear", "incomplete", "shown, not judged"}


def test_only_what_is_said_is_counted():
    """A direction that is unclear says nothing, and one at a scale that failed its gate is no verdict of that scale."""
    rows = verdicts(pd.concat([fake_runs(FAILED, "night"), fake_runs(FOUR | {(20, None): (50, 90, 70)})]))
    assert rows.verdict[rows.claim == "C1"].tolist() == ["same direction", "unclear"]
    count = claims.decided(rows)
    said = set(rows.claim[(rows.scale == "pocket") & rows.verdict.str.endswith("direction")].str.rstrip("abc"))
    assert count["night"] == 0 and count["pocket"] == len(said) and "C1" not in said


def test_a_rule_names_its_margins_and_effects():
    for scale in ("paper", "extension"):
        runs = comparison.Runs(scale, fake_runs(FOUR))
        for rule in claims.rules_at(scale).values():
            for part in (part for part in rule(runs) if part.judged):
                named = [part.margin] * (part.margin != comparison.SLACK) + [part.effect] * (part.effect != 1)
                assert all(f"{value:g}" in rule.__doc__ for value in named), (rule.__name__, part.what)


def test_nothing_is_decided_before_all_planned_runs_are_in():
    two = fake_runs({net: errors[:2] for net, errors in FOUR.items()}, "night")
    rows = verdicts(two)
    assert set(rows.verdict) == {"incomplete"} and set(rows.n) == {2}
    one = verdict("C5", fake_runs({(20, "A"): (40, 41, 40)}, "night"))  # what is there is shown
    assert one["verdict"] == "incomplete" and "3 of 6" in one["why"] and "no run yet" in one["ours"]
    for dirty in (True, None):
        assert verdicts(fake_runs(FOUR, dirty=dirty)).empty
    assert "not judged" in claims.sentence("C1", "pocket", fake_runs(FOUR, dirty=True))


def test_removing_a_record_changes_the_verdict():
    runs = fake_runs(FOUR, "night")
    assert verdict("C1", runs)["verdict"] == "supported" and verdict("C1", runs.iloc[1:])["verdict"] == "incomplete"
    assert verdicts(runs.iloc[:0]).empty


def test_scales_are_never_mixed():
    five = {net: (*errors, *errors[:2]) for net, errors in FOUR.items()}
    rows = verdicts(pd.concat([fake_runs(FOUR), fake_runs(FOUR, "night"), fake_runs(five, "paper")]))
    of_claim = rows[rows.claim == "C1"].set_index("scale").verdict
    assert of_claim.to_dict() == {"pocket": "same direction", "night": "supported", "paper": "replicated"}
    five[56, None] = tuple(error - 40 for error in five[56, None])
    assert verdict("C1", fake_runs(five, "paper"))["verdict"] == "not replicated"


def test_other_photographs_show_directions_once_all_runs_are_on_those_that_are_planned():
    errors = {(18, None): (20, 21, 22), (34, None): (30, 32, 31), (18, "A"): (20, 22, 21), (34, "A"): (10, 11, 12)}
    errors |= {(50, "B"): (16, 17, 18)}
    rows = verdicts(fake_runs(errors, "extension", base=IMAGENET, data={"sha256": PHOTOGRAPHS})).set_index("claim")
    words = ["same direction"] * 3 + ["opposite direction"]
    assert rows.verdict[["C2", "C5", "C6", "C9"]].tolist() == words and set(rows.n) == {3}
    assert rows.verdict["C7b"] == "same direction" and rows.why.str.contains("other photographs").all()
    others = fake_runs({(18, None): (20,)}, "extension", base=IMAGENET, data={"sha256": "another tree"})
    assert verdicts(others).empty


def test_what_the_paper_says_of_imagenet_is_not_replicated_on_cifar():
    five = {net: (*errors, *errors[:2]) for net, errors in FOUR.items()}
    assert verdict("C6", fake_runs(five, "paper"))["verdict"] == "supported"
    assert {c.id for c in claims.CLAIMS if c.on_imagenet and claims.rules_of(c.id)} == {"C3", "C4", "C5", "C6", "C7", "C8"}


def test_longer_training():
    three = fake_runs({net: errors for net, errors in FOUR.items() if net[1] is None}, times=3)
    assert verdict("C4", three)["verdict"] == "same direction" and verdict("C4", fake_runs(FOUR))["n"] == 0


def test_options():
    nets = {(56, None): (80, 82, 81), (56, "A"): (58, 60, 58), (56, "B"): (57, 59, 57), (56, "C"): (58.1, 60, 58.1)}
    runs = pd.concat([fake_runs(nets), fake_runs({(20, "A"): (70, 71, 72)})])
    assert [verdict(rule, runs)["verdict"] for rule in claims.rules_of("C8")] == [
        "same direction", "shown, not judged", "same direction",
    ]  # fmt: skip
    assert verdict("C8c", fake_runs(nets | {(56, "C"): (64, 66, 64.1)}))["verdict"] == "opposite direction"
    assert verdict("C8a", fake_runs({net: nets[net] for net in list(nets)[:3]}))["verdict"] == "incomplete"


def test_one_layer_blocks():
    plain = {(56, None): FOUR[56, None]}
    level = fake_runs({(56, "A"): [e - 0.1 for e in plain[56, None]]}, changes={"layers": 1})
    ahead = fake_runs({(56, "A"): [e - 9 for e in plain[56, None]]}, changes={"layers": 1})
    assert verdict("C12", fake_runs(plain), level)["verdict"] in ("same direction", "unclear")
    assert verdict("C12", fake_runs(plain), ahead)["verdict"] == "opposite direction"


def test_the_series_over_depth():
    """110 layers against 20 and 56: a net that gets worse again is not carried by the step from 20 to 32."""
    nine = np.linspace(-0.1, 0.1, 9)
    better = {(20, "A"): 8.75 - 2 + nine, (56, "A"): 6.97 - 2 + nine, (110, "A"): 6.4 - 2 + nine}
    assert verdict("C13a", fake_runs(better, "paper"))["verdict"] == "replicated"
    worse = better | {(110, "A"): 7.6 - 2 + nine}
    assert verdict("C13a", fake_runs(worse, "paper"))["verdict"] == "not replicated"
    assert verdict("C13a", fake_runs({net: e[:5] for net, e in better.items()}, "paper"))["verdict"] == "incomplete"
    assert verdict("C19", fake_runs(better, "paper"))["verdict"] == "replicated"
    plain = fake_runs({(110, None): (80, 81, 80, 80, 81)}, "paper")
    assert verdict("C13b", pd.concat([plain, fake_runs(better, "paper")]))["verdict"] == "replicated"


def test_the_warm_up():
    warm, straight = ({(110, "A"): errors} for errors in ((60, 61, 60), (60.2, 60.9, 60.1)))
    runs = fake_runs(warm), fake_runs(straight, changes={"warmup_lr": None})
    for record in runs[1].record:
        record.curve.update(train_error=[95, 95, 60])
    assert verdict("C14a", *runs)["verdict"] == "same direction" and "1 [1, 1]" in verdict("C14a", *runs)["ours"]
    assert verdict("C14b", *runs)["verdict"] == "same direction"
    assert verdict("C14a", *runs[::-1]) == verdict("C14a", *runs)


def test_gradients_are_healthy_within_a_factor_of_100_either_way():
    for slope, word in ((1e-6, "opposite direction"), (1e6, "opposite direction"), (1e-1, "same direction")):
        runs = fake_runs({(56, None): (70, 71, 72), (110, None): (70, 71, 72)})
        for record in runs.record:
            layers = record.recipe.depth - 1
            probe = record.probes[0] | {"response_gradient": list(np.geomspace(slope, 1, layers))}
            record.probes[:] = [probe, probe | {"step": 16}]
        assert verdict("C3", runs)["verdict"] == word, slope


def test_the_layers_responses():
    stds = {(20, None): 1.0, (56, None): 0.9, (20, "A"): 0.8, (56, "A"): 0.6}

    def with_responses(stds):
        runs = fake_runs({net: FOUR[net] for net in stds}, "night")
        for record in runs.record:
            std = stds[record.recipe.depth, record.recipe.shortcut] + 0.0001 * record.recipe.seed * record.recipe.depth
            record.probes[0]["response_std"] = [9.0, *[std] * (record.recipe.depth - 2)]  # one large layer changes nothing
        return runs

    row = verdict("C15", with_responses(stds))
    assert row["verdict"] == "supported" and row["n"] == 3 and "plain-20 − ResNet-20: 0.32" in row["ours"]
    assert verdict("C15", with_responses(stds | {(56, "A"): 0.9}))["verdict"] == "contradicted"
    assert verdict("C15", with_responses({net: stds[net] for net in list(stds)[:2]}))["verdict"] == "incomplete"


def test_1202_layers():
    nets = {(110, "A"): (4, 4.5, 5, 4, 5), (1202, "A"): (0.02, 0.03, 0.02), (20, "A"): [7] * 5, (56, "A"): [6] * 5}
    runs = fake_runs(nets, "paper")
    assert verdict("C16", runs)["verdict"] == "not replicated"  # its test errors are lower
    for record in runs.record:
        if record.recipe.depth == 1202:
            record.final["test_error"] = 8.0 + 0.1 * record.recipe.seed
    assert verdict("C16", runs)["verdict"] == "replicated"
    assert verdict("C16", runs[:3])["verdict"] == "incomplete" and verdict("C16", fake_runs(FOUR))["n"] == 0


def test_thresholds_that_are_the_papers():
    paper = claims.paper()
    assert rules.FITTED == paper["s42.resnet1202.training_error_below"]
    assert comparison.STARTED == CIFAR.warmup_until == paper["s42.resnet110.warmup_until_training_error"]
    assert rules.HIGHWAY == paper["table6.highway19.test_error"]
    assert "above 60 %" in " ".join(rules.c13b.__doc__.split()) and paper["fig6.plain110.error_above"] == 60
    mean = paper["table6.resnet110.test_error_mean"]
    chosen = comparison.Runs("paper", fake_runs(FOUR))
    effects = {part.what: part.effect for rule in ("C13a", "C16") for part in rules.RULES[rule](chosen)}
    assert effects["ResNet-110 - ResNet-20, test error:"] == pytest.approx(paper["table6.resnet20.test_error"] - mean)
    assert effects["ResNet-110 - ResNet-56, test error:"] == pytest.approx(paper["table6.resnet56.test_error"] - mean)
    assert effects["ResNet-1202 - ResNet-110, test error:"] == pytest.approx(paper["table6.resnet1202.test_error"] - mean)


def test_demonstrations_are_never_judged():
    assert "demo" not in SEEDS
    for claim in claims.CLAIMS:
        for rule in claims.rules_of(claim.id):
            assert "not judged" in claims.sentence(claim.id, "demo", fake_runs(FOUR))
            assert claims.judge(rule, "demo", fake_runs(FOUR))["verdict"] == "no evidence"


def test_the_numbers_in_short_are_the_papers():
    known = {f"{value:.{digits}f}" for value in claims.paper().values() for digits in (0, 1, 2)}
    known |= {f"{value / unit:.1f}" for value in claims.paper().values() for unit in (1e6, 1e9)}
    for claim in claims.CLAIMS:
        for number in re.findall(r"(?<![-\w(])\d+\.\d+", claim.paper):
            assert number in known, f"{claim.id}: {number}"


def test_the_seeds_are_those_of_the_plan():
    residual = rules.residual(56).at("paper")
    assert planned_seeds(residual) == SEEDS["paper"] and planned_seeds(residual, extra=True) == tuple(range(9))
    assert planned_seeds(rules.residual(1202).at("paper")) == (0, 1, 2) and planned_seeds(residual.at("demo")) == ()
    assert planned_seeds(rules.residual(44).at("night")) == ()
    assert {group.name for group in PLAN if group.seeds} == {"precision", "more", "1202"}


def test_every_claim_is_listed():
    rows = claims.verdicts(fake_runs(FOUR))
    assert set(counted.COUNTED) == set(rows.claim[rows.n == "exact"])
    assert set(claims.verdicts(fake_runs(FOUR), of=["C8", "C19"], scales=["counted"]).claim) == {"C19"}
    assert [claim.id for claim in claims.CLAIMS] == [f"C{i}" for i in range(1, 23)]
    assert all(rule.__doc__ for rule in rules.RULES.values()) and all(claim.paper for claim in claims.CLAIMS)
    assert set(claims.SPLIT) == {rule for rule in rules.RULES if rule != claims.claim_of(rule).id}


def test_the_readme_shows_what_the_records_say(root):
    text = (root / "README.md").read_text()
    between = text.split("<!-- claims -->\n")[1].split("\n<!-- /claims -->")[0]
    assert between == claims.summary(), "run `python -m reslib claims --write README.md`"


def test_no_word_of_support_beside_short_training(root):
    """Supported, contradicted, replicated are words for trained nets: never in what is said of short training."""
    rows = claims.verdicts(scales=["pocket"])
    said = " ".join(rows[["verdict", "ours", "why"]].to_numpy().ravel())
    said += " ".join(claims.sentence(claim.id, "pocket", reslib.records()) for claim in claims.CLAIMS)
    assert not any(word in said for word in ("supported", "contradicted", "replicated"))


def test_claims_without_records_are_an_error(tmp_path, monkeypatch):
    from typer.testing import CliRunner

    from reslib.__main__ import app

    monkeypatch.setenv("RESLIB_RECORDS", str(tmp_path / "typo"))
    (tmp_path / "R.md").write_text("<!-- claims -->\nkept\n<!-- /claims -->\n")
    result = CliRunner().invoke(app, ["claims", "--write", str(tmp_path / "R.md")])
    assert result.exit_code and "is no folder" in str(result.exception) and "kept" in (tmp_path / "R.md").read_text()
