"""What every chapter does with its runs: replay the recorded ones, or train them here, and say which are missing."""

from collections.abc import Iterable
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from .. import data
from ..files import words
from ..recipes import Recipe
from ..record import Record, command, named, recorded
from ..trainer import train
from . import plan, rules
from .audit import load_audits
from .comparison import Runs
from .sweep import run_parallel


def say(text: str) -> None:
    """Show Markdown as the output of a cell."""
    from IPython.display import Markdown, display

    display(Markdown(text))


def scale_of_runs(scale: str, retrain: bool) -> str:
    """The scale of a chapter's runs. At `demo`, where nothing is recorded, the pocket runs are replayed."""
    return "pocket" if scale == "demo" and not retrain else scale


def gather(planned: list[Recipe], retrain: bool = False, out_dir: str | Path = "runs") -> tuple[list[Record], list[Recipe]]:
    """The runs of a chapter, and the planned recipes that have no record.

    retrain: carry all of them out into `out_dir`, the longest first; otherwise replay the recorded ones. Raises
    FileNotFoundError, with the command that makes a run, if none is recorded, and RuntimeError, saying why, if a run fails.
    """
    if not retrain:
        return recorded(planned)
    data.images(planned[0], train=True)
    if failed := run_parallel(sorted(planned, key=plan.work, reverse=True), out=out_dir):
        raise RuntimeError("; ".join(failed))
    return [train(recipe, out_dir=out_dir) for recipe in planned], []  # finished: they are only read


def report(runs: Iterable[Record], missing: list[Recipe]) -> None:
    """Print where each run comes from, then the commands that make the missing ones."""
    runs = list(runs)
    print(*(run.provenance() for run in runs), sep="\n")
    if not missing:
        print(f"All {len(runs)} planned runs are there.")
        return
    print(f"{len(missing)} of {len(runs) + len(missing)} planned runs are not recorded. What makes them:")
    groups = {recipe.id: group.name for group, recipe in plan.planned() if recipe in missing}
    sweep, out = partial(words, "python", "-m", "reslib", "sweep", "--plan"), named()
    makes = [sweep(groups[r.id], "--scale", r.scale, "--out", out) if r.id in groups else command(r) for r in missing]
    print(*dict.fromkeys(makes), sep="\n")


def by_scale(nets: dict, runs: pd.DataFrame, scales: Iterable[str] = ("pocket", "night", "paper")) -> dict[tuple, list[Record]]:
    """The planned runs that are recorded, by net and scale. nets: CIFAR recipes by name; runs: rows of `reslib.records()`."""
    return {(name, at): list(Runs(at, runs).find(net).values()) for name, net in nets.items() for at in scales}


def gradient_ratios(recorded: dict[tuple[str, str], list[Record]]) -> pd.DataFrame:
    """The gradient in the first third of the layers over that in the last: before training, after 1 % of it, and at its end.

    recorded: as `by_scale` gives it. Geometric means over layers and seeds; one row a net, kind of runs and their number n. The
    trained public nets of the same names are added, of which only the end is known.
    """
    rows = {}
    for (net, at), runs in recorded.items():
        if runs:
            log10 = pd.DataFrame(list(map(rules.backward_ratio, runs))).mean()
            steps = runs[0].recipe.steps
            rows[net, f"ours, {at}", len(runs)] = (10 ** log10[[0, steps // 100, steps]]).tolist()
    for one in load_audits():
        net, third = f"{'ResNet' if one['shortcut'] else 'plain'}-{one['depth']}", (one["depth"] - 1) // 3
        if one["source"] == "a-martyn/resnet" and (net, "paper") in recorded:
            log10 = np.log10(one["probes"]["response_gradient"])
            rows[net, "public, paper", 1] = [np.nan, np.nan, 10 ** (log10[:third].mean() - log10[-third:].mean())]
    frame = pd.DataFrame(rows, index=["before", "after 1 %", "end"]).T.sort_index()
    return frame.rename_axis(["net", "runs, scale", "n"])
