"""Public reruns: small cases by hand, effects recomputed from the file, every row's locator, and what an interval covers."""

import csv
from importlib.resources import files

import numpy as np
import pandas as pd
import pytest

from reslib.evidence import reruns as public
from reslib.evidence.audit import load_audits, write_audit
from reslib.evidence.comparison import interval, prediction
from reslib.evidence.reported import paper
from reslib.record import folder

ROWS = list(csv.DictReader(files("reslib.evidence").joinpath("reruns.csv").read_text(encoding="utf-8").splitlines()))


def made(*results, **columns):
    """Rows as `reruns()` gives them: (author, net, depth, test error)."""
    frame = pd.DataFrame(results, columns=["author", "net", "depth", "test_error"])
    about = dict(recipe="paper", train_set="50k", report="final", seeds=1.0, shown=True, shortcut="", in_meta="yes", url="")
    about |= dict(dataset=public.CIFAR)
    return frame.assign(source=frame.author, train_error=frame.test_error / 10, **about | columns)


FIVE = made(*[(author, "resnet", depth, error) for author, gain in zip("abcde", (1.0, 1.2, 1.4, 1.6, 1.8), strict=True)
              for depth, error in ((20, 8.5), (56, 8.5 - gain))])  # fmt: skip


def test_every_row_has_a_source_and_a_locator_and_errors_are_percent():
    for row in ROWS:
        assert row["source"] and row["locator"], row
        assert row["recipe_class"] in ("", *public.RECIPES) and row["report"] in ("", *public.REPORTS)
        assert not row["test_error_percent"] or 0 < float(row["test_error_percent"]) < 100
        assert row["in_meta"] not in ("yes", "best", "unclear") or (
            row["author_cluster"] and row["report"] and row["recipe_class"]
        )
    frame = public.reruns()
    assert len(frame) == len(ROWS) and frame.url.str.startswith("https://").sum() > 0.9 * len(frame)
    assert not frame[["source", "locator", "net", "depth", "shortcut", "stat"]].duplicated().any()


def test_the_second_search_lists_what_it_took_in():
    screened = pd.read_csv(folder() / "reruns" / "screened.csv", keep_default_na=False)
    assert (screened[["found_by", "decision", "reason"]] != "").all(axis=None)
    taken = {row["source"] for row in ROWS if row["search"] == "2"}
    assert taken == set(screened.repository[screened.decision == "included"]) and len(screened) > 5 * len(taken)


def test_a_best_test_error_is_never_above_the_final_one_of_the_same_net():
    frame = public.reruns().query("in_meta in ('yes', 'best') and report in ('final', 'best')")
    both = frame.pivot_table(index=["source", "net", "depth", "shortcut"], columns="report", values="test_error").dropna()
    assert len(both) >= 30 and (both.best <= both.final).all()


def test_effects_are_the_differences_that_the_file_gives():
    """Recomputed from the file row by row: same source, recipe, training set, report and shortcut."""
    keys = ("source", "recipe_class", "train_set", "report", "shortcut")
    cells = {}
    for row in ROWS:
        if row["net"] == "resnet" and row["in_meta"] in ("yes", "best", "unclear", "order-only") and row["test_error_percent"]:
            cell = cells.setdefault((row["author_cluster"], *(row[key] for key in keys)), {})
            cell.setdefault(int(row["depth"]), []).append(float(row["test_error_percent"]))
    possible = {}
    for (author, *_), cell in cells.items():
        if {20, 56} <= set(cell):
            possible.setdefault(author, []).append(np.mean(cell[56]) - np.mean(cell[20]))
    found = public.effects("C5").query("comparison == 'ResNet-56 − ResNet-20, test error'").set_index("author").effect
    assert set(found.index) == set(possible) and found.index.is_unique
    assert all(min(abs(found[author] - gap) for gap in gaps) < 1e-9 for author, gaps in possible.items())


def test_the_paper_s_recipe_and_final_errors_come_first():
    frame = pd.concat([made(("a", "resnet", 20, 9.0), ("a", "resnet", 56, 8.0), recipe="near"), FIVE])
    frame = pd.concat([made(("a", "resnet", 20, 9.0), ("a", "resnet", 56, 5.0), report="best", in_meta="best"), frame])
    assert public.effects("C5", frame).query("author == 'a' and comparison.str.contains('test')").effect.round(9).tolist() == [
        -1.0
    ]


def test_an_option_is_compared_with_itself():
    rows = [
        made(("a", "resnet", 20, 9.0), ("a", "resnet", 56, 8.0), shortcut="A"),
        made(("a", "resnet", 20, 7.0), shortcut="B"),
    ]
    assert public.effects("C5", pd.concat(rows)).effect.round(9).tolist() == [-1.0, -0.1]


def test_a_verdict_by_hand():
    row = public.judge("C5", FIVE)
    # mean 1.4, sd sqrt(0.1), t(0.975, 4) = 2.776: half of the interval is 2.776 * sqrt(0.1 / 5) = 0.393
    assert row["ours"].startswith("ResNet-56 − ResNet-20, test error: −1.40 [−1.79, −1.01] points over 5 authors; 5 of 5")
    assert (row["n"], row["verdict"]) == (5, "agrees (5 of 5 sources)")
    low, high = prediction([1.0, 1.2, 1.4, 1.6, 1.8])
    assert (low, high) == pytest.approx((1.4 - 2.776 * (0.1 * 6 / 5) ** 0.5, 1.4 + 2.776 * (0.1 * 6 / 5) ** 0.5), abs=1e-3)


def test_removing_sources_changes_the_verdict_to_what_is_left():
    assert public.judge("C5", FIVE[FIVE.author.isin(["a", "b", "c"])])["verdict"] == "agrees (3 of 3 sources)"
    assert public.judge("C5", FIVE[FIVE.author.isin(["a", "b"])])["verdict"] == "too few"
    nothing = public.judge("C5", FIVE[:0])
    assert nothing["verdict"] == "too few" and nothing["n"] == 0
    turned = FIVE.assign(test_error=-FIVE.test_error, train_error=-FIVE.train_error)
    assert public.judge("C5", turned)["verdict"] == "disagrees (5 of 5 sources)"
    everything = public.reruns()
    for claim in ("C1", "C5", "C6", "C7a", "C9", "C19"):
        authors = sorted(set(public.effects(claim).author))
        left = everything[everything.author.isin(authors[:2])]
        assert public.judge(claim)["verdict"].startswith("agrees") and public.judge(claim, left)["verdict"] == "too few"


def test_a_far_recipe_tells_an_order_and_no_size():
    far = made(("f", "resnet", 20, 20.0), ("f", "resnet", 56, 30.0), recipe="far", in_meta="order-only")
    row = public.judge("C5", pd.concat([FIVE, far]))
    assert "−1.40 [−1.79, −1.01] points over 5 authors; 5 of 6" in row["ours"] and row["verdict"] == "agrees (5 of 6 sources)"
    assert public.judge("C5", pd.concat([FIVE[:4], far]))["verdict"] == "too few"  # of the sized, two


def test_photographs_are_compared_apart_and_by_one_crop():
    nets = [(author, "resnet", depth, error) for author in "abc" for depth, error in ((34, 26.0), (50, 24.0), (101, 23.0))]
    frame = made(*nets, ("a", "resnet", 152, 22.0), dataset=public.IMAGENET)
    ten = made(("d", "resnet", 34, 25.0), ("d", "resnet", 50, 29.0), dataset="ImageNet (10-crop, top-1)")
    small = made(("e", "resnet", 34, 7.0), ("e", "resnet", 50, 9.0))
    found = public.effects("C9", pd.concat([frame, ten, small]))
    assert found.effect.tolist() == [-2.0] * 3 + [-3.0] * 3 + [-4.0] and set(found.author) == set("abc")
    assert public.judge("C9", frame)["verdict"] == "too few"  # one author for ResNet-152
    assert not len(public.levels(frame)) and not len(public.effects("C5", frame))


def test_one_part_that_does_not_agree_decides():
    flat = FIVE.assign(train_error=[1.0, 1.1, 1.0, 0.9, 1.0, 1.1, 1.0, 0.9, 1.0, 1.0])
    assert public.judge("C5", flat)["verdict"] == "too few"


def test_a_level_is_of_final_errors_alone():
    frame = made(*[(author, "resnet", 110, 6.5) for author in "abc"])
    frame = pd.concat([frame, made(("d", "resnet", 110, 6.0), report="best", in_meta="best")])
    assert public.effects("C19", frame).effect.tolist() == pytest.approx([6.5 - paper()["table6.highway19.test_error"]] * 3)


def test_curves_end_where_the_file_says():
    curves, frame = public.curves(), public.reruns()
    assert set(curves.source) <= set(frame.source) and curves.iteration.notna().all()
    last = curves.sort_values("iteration").groupby(["source", "net", "depth", "run"]).test_error.last().dropna()
    checked = 0
    for (source, net, depth, _), error in last.items():
        rows = frame[(frame.source == source) & (frame.net == net) & (frame.depth == depth) & (frame.report == "final")]
        checked += len(rows) > 0 and (rows.test_error - error).abs().min() < 0.006
    assert checked >= len(last) - 2  # a pre-activation net and another initialisation have no row


def test_responses_are_read_from_audits(tmp_path, monkeypatch):
    (tmp_path / "audits").mkdir()
    medians = {(None, 56): 2.0, ("A", 56): 1.0, ("A", 20): 2.0}
    for audit in load_audits():
        if audit["source"] == "a-martyn/resnet" and (median := medians.get((audit["shortcut"], audit["depth"]))):
            audit["probes"]["response_std"] = [median] * (audit["depth"] - 2) + [9.0]  # a value a convolution
            write_audit(audit, tmp_path / "audits")
    monkeypatch.setenv("RESLIB_RECORDS", str(tmp_path))
    assert public.effects("C15").effect.tolist() == [-50.0, -50.0]  # medians 1 of 2, and 1 of 2
    assert public.judge("C15")["verdict"] == "too few" and "1 of 1 sources agree" in public.judge("C15")["ours"]


def test_iterations_to_an_error_lie_between_the_logged_rows(monkeypatch):
    logs = {("plain", "1"): (80, 50, 20, 40), ("plain", "2"): (80, 60, 50, 20), ("resnet", "1"): (80, 20, 10, 5),
            ("unstarted", "1"): (90, 90, 90, 90), ("late log", "1"): (20, 10, 5, 1)}  # fmt: skip
    rows = [("a", net, 20, run, 1000.0 * (row + 1), float(error))
            for (net, run), errors in logs.items() for row, error in enumerate(errors)]  # fmt: skip
    frame = pd.DataFrame(rows, columns=["source", "net", "depth", "run", "iteration", "train_error"])
    monkeypatch.setattr(public, "curves", lambda: frame)
    steps = public.iterations().set_index("net").steps
    assert set(steps.index) == {"plain", "resnet"}  # else it is not known when
    assert steps["resnet"] == pytest.approx(np.log2(1000 + 1000 * 50 / 60))
    assert steps["plain"] == pytest.approx((np.log2(2000 + 1000 * 20 / 30) + np.log2(3000 + 1000 * 20 / 30)) / 2)


@pytest.mark.parametrize(
    ("gains", "said"),
    [((0.1, -0.2, 0.15, 0.0), "agrees (4 of 4 sources)"), ((1.0, 1.2, 0.9, 0.1), "too few"),
     ((-1.0, -1.2, -0.9, -1.1), "disagrees (4 of 4 sources)"), ((0.45, 0.4, 0.48, 0.3), "too few")],
)  # fmt: skip
def test_two_nets_are_the_same_by_two_one_sided_tests(gains, said):
    nets = [(author, *net) for author, gain in zip("abcd", gains, strict=True)
            for net in (("plain", 20, 9.0 + gain), ("resnet", 20, 9.0))]  # fmt: skip
    assert public.judge("C7b", made(*nets))["verdict"] == said


def test_both_intervals_cover_what_they_promise():
    rng, n, trials = np.random.default_rng(0), 6, 2000
    hits = np.zeros(2)
    for _ in range(trials):
        values, one_more = rng.normal(3, 1, n), rng.normal(3, 1)
        _, low, high = interval(values)
        lowest, highest = prediction(values)
        hits += low < 3 < high, lowest < one_more < highest
    assert np.abs(hits / trials - 0.95).max() < 0.015
