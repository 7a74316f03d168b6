"""The run plan: every run that a claim or a table needs. `python -m reslib plan` lists it.

It was fixed when the runs of `core` had been made at pocket scale, and grew seven times since: book/claims.md tells when, by
commit. Groups are ordered by worth, the most valuable first; within a group the first seed of every net comes before the
second of any.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from itertools import product
from pathlib import Path

import pandas as pd

from ..recipes import CIFAR, IMAGENET, Recipe
from ..record import folder, read
from ..resnet import imagenet_resnet
from .counts import multiply_adds, shape_of

SEEDS = {"extension": (0, 1, 2), "pocket": (0, 1, 2), "night": (0, 1, 2), "paper": (0, 1, 2, 3, 4)}
"""The seeds of the evidence, fixed beforehand. Pilots use 1000 and above; `demo` runs are demonstrations, never judged."""


PHOTOGRAPHS = "3e09ab3231be735fad596ad92af8524de719d7ee9e331f217c275592bcf73a1c"
"""Of the group `photographs`, the sha256 of its tree's classes and file names: 450 + 150 photographs of each of Imagenette's
ten classes, at 224x224. Runs on others may not be mixed with these."""


def plain(depth: int, **changes) -> Recipe:
    return replace(CIFAR, depth=depth, shortcut=None, **changes)


def residual(depth: int, **changes) -> Recipe:
    """Section 4.2's nets; the 110 layers start at a learning rate of 0.01, unless `changes` say otherwise."""
    warm = {"warmup_lr": 0.01} if depth == 110 else {}
    return replace(CIFAR, **{"depth": depth, **warm, **changes})


def photographs(depth: int, shortcut: str | None = "A") -> Recipe:
    """Section 3.4's nets; bottlenecks with option B, as in Table 3."""
    return replace(IMAGENET, depth=depth, shortcut=shortcut)


@dataclass(frozen=True)
class Group:
    """Runs made for the same reason, with the seeds of SEEDS where it names none."""

    name: str
    claims: str
    why: str
    recipes: tuple[Recipe, ...]
    scales: tuple[str, ...] = ("pocket", "paper")
    times: int = 1  # the scale's iterations
    extra: int = 0  # iterations before the scale's own
    seeds: tuple[int, ...] | None = None
    precision: str | None = None  # where it is not the scale's own


PLAN = (
    Group("core", "C1 C3 C5 C21", "plain and residual nets of 20 and 56 layers",
          tuple(net(depth) for depth in (20, 56) for net in (plain, residual)), scales=("pocket", "night", "paper")),
    Group("depth", "C13 C15 C19", "the series over depth, Table 6 and Fig. 6",
          tuple(net(depth) for depth in (32, 44, 110) for net in (plain, residual))),
    Group("precision", "a check", "does bfloat16 change what a run ends with? The nets of 20 layers in float32",
          (plain(20), residual(20)), scales=("night",), seeds=(0,), precision="tf32"),
    Group("options", "C8", "projections: Table 3's options, on CIFAR-10",
          tuple(residual(depth, shortcut=option) for depth in (20, 56) for option in "BC")),
    Group("one-layer", "C12", "one-layer blocks; their plain twins are plain-20 and -56",
          tuple(residual(depth, layers=1) for depth in (20, 56))),
    Group("warm-up", "C14", "110 layers straight at 0.1 (footnote 5)", (residual(110, warmup_lr=None),)),
    Group("start", "explores C13", "20 and 56 layers with the warm-up too: the series over depth mixes two schedules",
          tuple(residual(depth, warmup_lr=0.01) for depth in (20, 56)), scales=("pocket",)),
    Group("explosion", "explores C3", "do exploding gradients spoil the start? With the warm-up (residual: in start), with "
          "gradients clipped at a norm of 1, with a small classifier",
          tuple(plain(depth, warmup_lr=0.01) for depth in (20, 56))
          + tuple(net(depth, **change) for depth in (20, 56) for net in (plain, residual)
                  for change in ({"clip": 1.0}, {"fc_std": 0.01})), scales=("pocket",)),
    Group("longer", "C4", "three times the iterations (footnote 3)", (plain(20), plain(56)), times=3),
    Group("shallow", "C13", "does accuracy saturate before it degrades?",
          tuple(net(depth) for depth in (8, 14) for net in (plain, residual))),
    Group("split", "Table 6", "45k/5k, on which the paper chose its 64k iterations",
          tuple(residual(depth, split="45k/5k") for depth in (20, 56))),
    Group("ambiguities", "Table 6", "what the paper leaves open: each differs from ResNet-20 of core in one thing",
          tuple(residual(20, **change) for change in ({"init": "fan_out"}, {"decay_bn": False}, {"momentum_form": "caffe"},
                                                      {"bn_batch": 64}, {"border": "black"}, {"init": "fan_out_conv"},
                                                      {"init": "fan_out_fc"}))),
    Group("count", "Table 6", "the 400 iterations of the paper's warm-up on top of its 64k, not among them", (residual(110),),
          scales=("paper",), extra=400),
    Group("more", "C13 C19", "ResNet-110 against 20 and 56 layers needs nine runs of each",
          tuple(residual(depth) for depth in (20, 56, 110)), scales=("paper",), seeds=(5, 6, 7, 8)),
    Group("1202", "C16", "1202 layers: a run costs as much as 70 of ResNet-20", (residual(1202),), scales=("paper",),
          seeds=(0, 1, 2)),
    Group("photographs", "extends C2 C5 C6 C7 C9", "Fig. 4's nets, and ResNet-50, on ten classes of photographs (Imagenette)",
          (*(photographs(depth, option) for depth in (18, 34) for option in (None, "A")), photographs(50, "B")),
          scales=("extension",)),
)  # fmt: skip


def at(group: Group, recipe: Recipe, scale: str) -> Recipe:
    """A recipe of a group at a scale, with the group's iterations and precision."""
    made = recipe.at(scale).longer(group.times).delayed(group.extra)
    return replace(made, precision=group.precision or made.precision)


def planned(scale: str | None = None, name: str | None = None) -> Iterator[tuple[Group, Recipe]]:
    """Every planned run, the most valuable first: all scales and groups, or one. ValueError for an unknown name or scale."""
    names = [group.name for group in PLAN]
    if name not in (None, *names):
        raise ValueError(f"plan {name!r} is unknown: use one of {', '.join(names)}.")
    if scale not in (None, *SEEDS):
        raise ValueError(f"scale {scale!r} is not planned: use one of {', '.join(SEEDS)}.")
    for where in SEEDS if scale is None else (scale,):
        for group in PLAN:
            if where in group.scales and name in (None, group.name):
                for seed, recipe in product(group.seeds or SEEDS[where], group.recipes):
                    yield group, replace(at(group, recipe, where), seed=seed)


def missing(scale: str, name: str | None, out: Path) -> list[Recipe]:
    """The planned runs that have no record, neither among the evidence nor in `out`. Raises as `planned` and `on_record`."""
    return [r for _, r in planned(scale, name) if not on_record(r, folder()) and not on_record(r, out)]


def on_record(recipe: Recipe, where: Path) -> bool:
    """Whether a folder holds a run's record. Raises ValueError where it holds a file of that name that is none."""
    path = where / f"{recipe.name}.json"
    return path.exists() and bool(read(path))


@cache
def planned_seeds(recipe: Recipe, extra: bool = False) -> tuple[int, ...]:
    """The seeds with which a recipe is planned at its scale, whatever its own; () if it is not. extra: with group `more`."""
    if recipe.scale not in SEEDS:
        return ()
    base = replace(recipe, seed=0)
    found = {r.seed for group, r in planned(recipe.scale) if (extra or group.name != "more") and replace(r, seed=0) == base}
    return tuple(sorted(found))


@cache
def work(recipe: Recipe) -> float:
    """About how much a run computes, in runs of ResNet-20 at paper scale: images, times layers, times area; of photographs,
    whose nets are wider, times multiply-adds."""
    layers = (recipe.depth - 1) * recipe.size**2 / (19 * 32**2)
    if recipe.data == "imagenet":
        layers = multiply_adds(shape_of(imagenet_resnet, recipe.depth, recipe.shortcut), recipe.size) / 40.8e6
    return recipe.steps * recipe.batch * layers / (64_000 * 128)


def changes(recipe: Recipe) -> str:
    """The fields in which a recipe differs from section 4.2's at its scale, its net and its seed aside: "bn_batch=64"."""
    base = replace(IMAGENET if recipe.data == "imagenet" else CIFAR, depth=recipe.depth, layers=recipe.layers)
    base = base.at(recipe.scale).as_dict()
    own = {"shortcut", "seed", "milestones"}  # milestones change with the steps
    return ", ".join(f"{name}={value}" for name, value in recipe.as_dict().items() if name not in own and value != base[name])


def table(runs: pd.DataFrame, scale: str | None = None) -> pd.DataFrame:
    """The plan against the records: one row a scale, group and recipe: runs, recorded, hours (of one run on this kind of
    machine, estimated from the faster quarter of the recorded ones, those in its precision where there are; NaN where none
    was recorded on a CPU)."""
    timed = runs[~runs.device.str.contains("NVIDIA")] if len(runs) else runs
    rates = [(row.record.recipe.precision, row.seconds / work(row.record.recipe)) for row in timed.itertuples()]
    rates = pd.DataFrame(rates, columns=["precision", "rate"]).groupby("precision").rate
    rates = rates.quantile(0.25) if len(rates) else pd.Series(dtype=float)  # many were recorded beside other jobs
    have, by = set(runs.recipe_id), ["scale", "plan", "claims", "net", "with"]
    rows = [
        (r.scale, group.name, group.claims, r.net_name, changes(r), r.id in have, rates.get(r.precision, rates.max()) * work(r))
        for group, r in planned(scale)
    ]
    frame = pd.DataFrame(rows, columns=[*by, "recorded", "hours"])
    frame["hours"] /= 3600
    found = frame.groupby(by, sort=False).agg(runs=("recorded", "size"), recorded=("recorded", "sum"), hours=("hours", "first"))
    return found.reset_index()
