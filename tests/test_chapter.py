"""What chapters do with their runs: the recorded ones are replayed, those of `retrain` are made, the missing ones are named."""

from dataclasses import replace

from reslib import CIFAR
from reslib.evidence import chapter


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
