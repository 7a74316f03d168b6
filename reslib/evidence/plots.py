"""The book's figures: DataFrames in, matplotlib Axes out.

Plain nets are dashed and orange, residual nets solid and blue, the darker the deeper (on a dark page: the lighter), so that
figures can be read in greyscale and by the colour-blind.
"""

import sys

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch
from matplotlib.path import Path

from ..recipes import Recipe

NARROW = 4.1  # inches: on a telephone of 360 pixels, letters keep their size
DEPTHS = (8, 14, 20, 32, 44, 56, 110, 1202)
OTHER = "#555555"
RESIDUAL_HUE, PLAIN_HUE = "#1c6fd1", "#d95f02"


# Light to dark in equal ratios of contrast: each 3 to 1 or more from a white page, and its twin from a dark one.
BLUES = ("#4390ff", "#2280ef", "#1d71d4", "#1862bb", "#1355a2", "#0f478a", "#0a3a72", "#062b58")
ORANGES = ("#ee6902", "#d55d02", "#bd5201", "#a64701", "#903d01", "#7a3201", "#652800", "#4e1d00")
PALETTE, PLAIN = (dict(zip(DEPTHS, colours, strict=True)) for colours in (BLUES, ORANGES))  # residual and plain nets, by depth


def colour(depth: int, plain: bool = False) -> str:
    """The colour of a net of this depth in every figure; a depth that the paper does not have is grey."""
    return (PLAIN if plain else PALETTE).get(depth, OTHER)


def style() -> None:
    """Set the look of all figures of a notebook."""
    sns.set_theme(context="notebook", style="whitegrid", font_scale=0.85)
    plt.rcParams.update({"figure.figsize": (8, 3.6), "figure.dpi": 110, "figure.constrained_layout.use": True,
                         "figure.facecolor": "none", "axes.facecolor": "none", "legend.frameon": False})  # fmt: skip
    if (ipython := sys.modules.get("IPython")) and (shell := ipython.get_ipython()):
        from matplotlib_inline.config import InlineBackend

        InlineBackend.instance(parent=shell).figure_formats = {"svg"}


def about(recipe: Recipe, n: int) -> str:
    """What a figure must say of its runs: "pocket scale: CIFAR-10 at 16x16, 1,600 steps; n = 3 seeds"."""
    what = {"cifar10": "CIFAR-10", "digits": "digits", "imagenet": "ImageNet"}[recipe.data]
    kind = "demonstration on" if recipe.scale == "demo" else f"{recipe.scale} scale:"
    return f"{kind} {what} at {recipe.size}x{recipe.size}, {recipe.steps:,} steps; n = {n} seed{'s' * (n != 1)}"


def learning_curve(curves: pd.DataFrame, column: str, ax: Axes) -> None:
    """Error over iterations, a thin line a seed and a bold one for their mean (Fig. 1, 4, 6).

    curves: rows as `reslib.curves()` gives them; column: "train_error" (percent) or "test_error".
    """
    for (shortcut, depth), group in curves.dropna(subset=column).groupby(["shortcut", "depth"], sort=True):
        line = "--" if shortcut == "none" else "-"
        look, name = colour(depth, shortcut == "none"), f"{'plain' if shortcut == 'none' else 'ResNet'}-{depth}"
        for seed, run in group.groupby("seed"):
            ax.plot(run.step, run[column], line, color=look, alpha=0.35, lw=0.7, label=f"_{name}, {seed}")
        mean = group.groupby("step")[column].mean()
        ax.plot(mean.index, mean, line, color=look, lw=1.8, label=name)
    ax.set(xlabel="iterations", ylabel=f"{'running training' if column == 'train_error' else 'test'} error (%)")
    ax.set_ylim(bottom=0)
    ax.locator_params(axis="x", nbins=6)
    if len(curves):  # else there is nothing to name
        ax.legend(fontsize="small")


def depth_effect(runs: pd.DataFrame, column: str, ax: Axes) -> None:
    """Final error over depth, plain against residual (C1, C5): see `family`. runs: rows as `reslib.records()` gives them."""
    for shortcut, group in runs.groupby("shortcut"):
        plain = shortcut == "none"
        name, look = "plain" if plain else f"residual, {shortcut}", "s--" if plain else "o-"
        family(group.depth, group[column], ax, look, color=colour(56, plain), label=name)
    ax.set(xlabel="depth (layers)", xticks=sorted(runs.depth.unique()))


def by_option(runs: pd.DataFrame, column: str, ax: Axes) -> None:
    """Final error by shortcut option, a line a depth (Table 3): see `family`. runs: rows as `reslib.records()` gives them."""
    options = [option for option in ("none", "A", "B", "C") if option in set(runs.shortcut)]
    for (depth, group), marker in zip(runs.groupby("depth"), "os^D" * 9, strict=False):
        at = group.shortcut.map(options.index)
        family(at, group[column], ax, f"{marker}-", color=colour(depth), label=f"{depth} layers")
    ax.set_xticks(range(len(options)), options)
    ax.set(xlabel="shortcut option")


def family(at: pd.Series, errors: pd.Series, ax: Axes, look: str, color: str, label: str) -> None:
    """Final errors (percent), "train_error" or "test_error", at some places: a point a run, a line through the means."""
    mean = errors.groupby(at).mean()
    ax.plot(mean.index, mean, look[1:], color=color, lw=1.6)
    ax.plot(at, errors, look[0], color=color, ms=5, alpha=0.8, label=label)
    ax.set(ylabel=f"final {'training' if errors.name == 'train_error' else 'test'} error (%)")
    ax.legend(fontsize="small")


def gradient_map(runs, ax: Axes, steps=None, **axes):
    """The gradient at every layer and probed step, in decades above its level in the last third of the layers; mean of runs.

    runs: records of one net; steps: which, all of the records if None; what is missing is grey. Returns the mappable, for a
    colour bar of four decades either way.
    """
    logs = [np.log10(run.probe_frame().pivot_table("response_gradient", "depth", "step")) for run in runs]
    above = [log10 - log10[log10.index > len(log10) * 2 / 3].mean() for log10 in logs]
    profile = pd.concat(above or [pd.DataFrame()]).groupby(level=0).mean()
    profile = profile if steps is None else profile.reindex(columns=steps)
    ax.set_facecolor("0.85")
    ax.grid(False)
    sns.heatmap(profile, vmin=-4, vmax=4, cmap="RdBu_r", cbar=False, yticklabels=10, rasterized=True, ax=ax)
    ax.invert_yaxis()
    ax.set(**axes)
    return ax.collections[0]


def slopes(frame: pd.DataFrame, axes) -> None:
    """Rows of `start.table()`, of one initialisation, over depth, forward and backward: means, and the range of all draws."""
    kinds = {
        ("none", True, "zeros"): "plain, with BN",
        ("A", True, "zeros"): "residual, with BN",
        ("none", False, "zeros"): "plain, without BN",
        ("none", False, "circular"): "the same, circular padding",
        ("A", False, "zeros"): "residual, without BN",
    }
    keys = zip(frame.shortcut, frame.bn, frame.padding, strict=True)
    frame = frame.assign(net=[kinds.get(key) for key in keys]).dropna(subset="net")
    names = list(kinds.values())
    look = dict(x="depth", hue="net", hue_order=names, style="net", style_order=names, markers=["s", "o", "^", "v", "D"],
                palette=[colour(56, True), colour(56), "#555555", "#009e73", colour(20)], errorbar=("pi", 100),
                err_style="bars")  # fmt: skip
    for ax, way in zip(axes, ("forward", "backward"), strict=True):
        sns.lineplot(frame, y=way, ax=ax, **look)
        ax.set(title=way, xlabel="depth (layers)", ylabel="decades a layer", xticks=sorted(frame.depth.unique()))


MAPS = {224: "#f7f7f7", 112: "#e4e4e4", 56: "#d9c8e6", 28: "#cfe8cf", 14: "#f6d3c3", 7: "#c6dbef"}  # a box, by its map's size
LAYERS = ("conv", "max pool", "avg pool", "fc")


def architecture(nets: dict[str, pd.DataFrame], source: str = "image", kinds=LAYERS, ax: Axes | None = None) -> Axes:
    """Nets side by side, a box a layer, top to bottom, level where their maps are of one size (Fig. 3, Fig. 5).

    nets: by title, rows as `counts.layers` gives them; kinds: which of these get a box. A shortcut is drawn from where its way
    branches off to where the net adds: solid for the identity, dotted for zero padding or a projection, which is named.
    """
    ax = ax or plt.gca()
    drawn = {title: (frame, *_boxes(frame, kinds)) for title, frame in nets.items()}
    sizes = sorted({size for _, boxes, _ in drawn.values() for _, _, size in boxes}, reverse=True)
    rows = [max(sum(s == size for _, _, s in boxes) for _, boxes, _ in drawn.values()) for size in sizes]
    top = {size: 1 + sum(rows[:i]) + 0.5 * i for i, size in enumerate(sizes)}
    arrow = dict(arrowstyle="-|>", mutation_scale=7, color="black", lw=0.8, shrinkA=0, shrinkB=0)
    for x, (title, (frame, boxes, shortcuts)) in enumerate(drawn.items()):
        ax.text(x, -0.8, title, ha="center", va="bottom", weight="bold", fontsize=9)
        ax.text(x, -0.2, source, ha="center", va="bottom", fontsize=8.5)
        used, y, last = dict.fromkeys(sizes, 0), {"": -0.4}, ""
        for name, text, size in boxes:
            y[name] = top[size] + used[size]
            used[size] += 1
            ax.add_patch(FancyArrowPatch((x, y[last] + 0.3), (x, y[name] - 0.3), **arrow))
            look = dict(boxstyle="round,pad=0,rounding_size=0.08", fc=MAPS.get(size, "white"), ec="0.25", lw=0.7)
            box = ax.add_patch(FancyBboxPatch((x - 0.34, y[name] - 0.3), 0.68, 0.6, **look))
            box.set_gid(f"layer: {title}: {_told(frame, name)}")
            ax.text(x, y[name] + 0.02, text, ha="center", va="center", fontsize=8.5)
            last = name
        for start, end, identity, projection in shortcuts:
            a = y[start] + 0.42
            b, tip = (y[end], x + 0.34) if "add" in kinds else (y[end] + 0.42, x)
            side = x + 0.43
            turns = [(x, a), (x + 0.36, a), (side, a), (side, a + 0.3), (side, b - 0.3), (side, b), (x + 0.36, b), (tip, b)]
            ax.text(x + 0.47, (a + b) / 2, projection, rotation=90, ha="center", va="center", fontsize=7.5)
            path = Path(turns, [1, 2, 3, 3, 2, 3, 3, 2])  # lines with round corners
            ax.add_patch(FancyArrowPatch(path=path, linestyle="-" if identity else (0, (1.5, 1.5)), **arrow | dict(lw=1.1)))
    if len(nets) > 1:
        height = ax.figure.get_figheight()
        ax.figure.apart = lambda: [_alone(title, frame, source, kinds, height) for title, frame in nets.items()]
    told = [f"{title}, {len(boxes)} layers and {len(cuts)} shortcuts" for title, (_, boxes, cuts) in drawn.items()]
    ax.figure.set_label(f"Nets side by side, a box a layer, from maps of {sizes[0]} to {sizes[-1]} pixels: {'; '.join(told)}.")
    for size in sizes:
        ax.text(-0.95, top[size], f"{size} x {size}", va="center", fontsize=8.5, color=OTHER)
        ax.plot([-1, len(nets) - 0.5], [top[size] - 0.72] * 2, color="0.85", lw=0.8, zorder=0)
    ax.text(-0.95, -0.2, "output", va="bottom", fontsize=8.5, color=OTHER)
    ax.set(xlim=(-1, len(nets) - 0.5), ylim=(top[size] + rows[-1] - 0.5, -1.5))
    ax.set_axis_off()
    return ax


def _alone(title: str, frame: pd.DataFrame, source: str, kinds: tuple[str, ...], height: float) -> Figure:
    """One net of an architecture, for a page too narrow for two."""
    figure = Figure(figsize=(NARROW, height))
    architecture({title: frame}, source, kinds, figure.add_subplot())
    return figure


def _told(frame: pd.DataFrame, name: str) -> str:
    """What the page says of a layer when it is chosen."""
    row = frame.set_index("name").loc[name]
    shape = f"{row.channels} x {row['size']} x {row['size']}"
    return f"{name}, output {shape}, {row.parameters:,} parameters, {row.multiply_adds:,} multiply-adds"


def _boxes(frame: pd.DataFrame, kinds: tuple[str, ...]) -> tuple[list, list]:
    """What is drawn of a net: boxes (name, label, map size), shortcuts (from and to which box, identity?, projection)."""
    rows, above, boxes, shortcuts, projections = frame.set_index("name", drop=False).to_dict("index"), {}, [], [], {}
    for name, row in rows.items():
        ways = sorted(row["inputs"], key=lambda n: "downsample" in n)  # the block's own way, then the shortcut
        above[name] = above[ways[0]] if ways else ""  # the last box before here
        kind, width, kernel = row["kind"], row["channels"], row["kernel"]
        halved = ", /2" if row["stride"] == 2 else ""
        convolution = f"{kernel}x{kernel} conv, {width}{halved}"
        if "downsample" in name and ways:  # a projection is named on its shortcut, past its normalisation
            projections[name] = convolution if kind == "projection" else projections.get(ways[0], "")
        special = {"conv": convolution, "max pool": f"max pool{halved}", "fc": f"fc, {width}"}
        label = (special | {"avg pool": "average pool", "bn": "BN", "relu": "ReLU", "add": "+"}).get(kind, kind)
        if kind == "add":
            end = name if "add" in kinds else above[ways[0]]
            shortcuts.append((above[ways[1]], end, rows[ways[1]]["kind"] == "identity", projections.get(ways[1], "")))
        same = kind == "avg pool" and rows[ways[0]]["size"] == row["size"]  # VGG's, at 224 pixels, does nothing
        if kind in kinds and "downsample" not in name and not same:
            boxes.append((name, label, row["size"]))
            above[name] = name
    return boxes, shortcuts
