"""What chapters do with their runs: the recorded ones are replayed, those of `retrain` are made, the missing ones are named."""

from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np
import pytest

import reslib
from reslib import CIFAR
from reslib.evidence import chapter, figures, plan, plots, reruns


def test_recorded_runs_are_replayed_and_missing_ones_named(capsys):
    planned = [replace(CIFAR, shortcut=None, seed=seed).at("pocket") for seed in (0, 77)]
    runs, missing = chapter.gather(planned)
    assert [run.recipe for run in runs] == planned[:1] and missing == planned[1:]
    chapter.report(runs, missing)
    said = capsys.readouterr().out
    assert "1 of 2 planned runs are not recorded" in said and "--seed 77" in said and runs[0].name in said


def test_a_planned_run_that_is_missing_is_named_by_its_sweep(capsys):
    chapter.report([], [replace(CIFAR, depth=1202, seed=2)])
    assert "python -m reslib sweep --plan 1202 --scale paper" in capsys.readouterr().out


def test_retraining_makes_the_runs_and_keeps_finished_ones(tmp_path):
    planned = [replace(CIFAR, depth=8, seed=1).at(chapter.scale_of_runs("demo", True))]
    made, missing = chapter.gather(planned, True, tmp_path)
    assert [run.recipe for run in made] == planned and not missing
    (again,), _ = chapter.gather(planned, True, tmp_path)
    assert again.time == made[0].time


def test_gradient_ratios_are_geometric_means_of_thirds():
    recorded = chapter.by_scale({"plain-20": plan.plain(20)}, reslib.records(), ("pocket", "paper"))
    runs = recorded["plain-20", "pocket"]
    assert [run.recipe.seed for run in runs] == list(plan.SEEDS["pocket"])
    gradients = np.array([run.probes[0]["response_gradient"] for run in runs])  # before training, 19 layers: thirds of 6
    expected = 10 ** (np.log10(gradients[:, :6]).mean() - np.log10(gradients[:, -6:]).mean())
    ratios = chapter.gradient_ratios(recorded)
    assert ratios.before["plain-20", "ours, pocket", 3] == pytest.approx(expected)
    assert np.isnan(ratios.before["plain-20", "public, paper", 1]) and ratios.end["plain-20", "public, paper", 1] > 0


def test_the_gradient_map_is_level_where_it_is_measured_from():
    runs = chapter.by_scale({"plain-56": plan.plain(56)}, reslib.records(), ("pocket",))["plain-56", "pocket"]
    image = plots.gradient_map(runs, plt.figure().gca(), steps=[0, 3, 16])
    decades = image.get_array().reshape(55, 3)  # layers from the first, steps
    assert decades[36:, 0].mean() == pytest.approx(0, abs=1e-6) and decades[0, 0] > 3
    assert np.ma.getmaskarray(decades)[:, 1].all()  # not probed in these runs


def test_key_figure_and_table_hold_what_the_paper_and_authors_found():
    pairs = reruns.depth_pairs({"plain-20": 9.5, "plain-56": 13.5, "ResNet-20": 8.75, "ResNet-56": 6.97})
    table = figures.strips_table(pairs)
    assert list(table["the paper (points)"]) == ["", "4.0", "−1.8", ""] and len(pairs) == 4
    _, axes = plt.subplots(1, 2)
    figures.learning(reslib.curves([reslib.replay(CIFAR)]), {"plain-56": 13.5, "ResNet-20": 8.75}, axes)
    assert [line.get_ydata()[0] for line in axes[1].lines[-2:]] == [13.5, 8.75]
