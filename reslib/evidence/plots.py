"""The book's figures: DataFrames in, matplotlib Axes out. Every figure says at which scale its runs were made.

Plain nets are dashed and orange, residual nets solid and blue, the darker the deeper (on a dark page: the lighter), so that
figures can be read in greyscale and by the colour-blind.
"""

import sys

import matplotlib.pyplot as plt
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


def _label(depth: int, shortcut: str) -> str:
    return f"plain-{depth}" if shortcut == "none" else f"ResNet-{depth}"


def learning_curve(curves: pd.DataFrame, column: str, ax: Axes | None = None) -> Axes:
    """Error over iterations, a thin line a seed and a bold one for their mean (Fig. 1, 4, 6).

    curves: rows as `reslib.curves()` gives them; column: "train_error" (percent) or "test_error".
    """
    ax = ax or plt.gca()
    for (shortcut, depth), group in curves.dropna(subset=column).groupby(["shortcut", "depth"], sort=True):
        line = "--" if shortcut == "none" else "-"
        look, name = colour(depth, shortcut == "none"), _label(depth, shortcut)
        for seed, run in group.groupby("seed"):
            ax.plot(run.step, run[column], line, color=look, alpha=0.35, lw=0.7, label=f"_{name}, {seed}")
        mean = group.groupby("step")[column].mean()
        ax.plot(mean.index, mean, line, color=look, lw=1.8, label=name)
    ax.set(xlabel="iterations", ylabel=f"{'running training' if column == 'train_error' else 'test'} error (%)")
    ax.set_ylim(bottom=0)
    ax.locator_params(axis="x", nbins=6)
    if len(curves):  # else there is nothing to name
        ax.legend(fontsize="small")
    return ax


def depth_effect(runs: pd.DataFrame, column: str, ax: Axes | None = None) -> Axes:
    """Final error over depth, plain against residual: a point a run, a line through the means (C1, C5).

    runs: rows as `reslib.records()` gives them; column: "train_error" or "test_error" (percent).
    """
    ax = ax or plt.gca()
    for shortcut, group in runs.groupby("shortcut"):
        plain = shortcut == "none"
        look, marker = colour(56, plain), "s" if plain else "o"
        name = "plain" if plain else f"residual, {shortcut}"
        mean = group.groupby("depth")[column].mean()
        ax.plot(mean.index, mean, "--" if plain else "-", color=look, lw=1.6)
        ax.plot(group.depth, group[column], marker, color=look, ms=5, alpha=0.8, label=name)
    ax.set(xlabel="depth (layers)", ylabel=f"final {'training' if column[:5] == 'train' else 'test'} error (%)",
           xticks=sorted(runs.depth.unique()))  # fmt: skip
    ax.legend(fontsize="small")
    return ax


def by_option(runs: pd.DataFrame, column: str, ax: Axes | None = None) -> Axes:
    """Final error by shortcut option, a point a run, a line through the means of each depth (Table 3).

    runs: rows as `reslib.records()` gives them; column: "train_error" or "test_error" (percent).
    """
    ax = ax or plt.gca()
    options = [option for option in ("none", "A", "B", "C") if option in set(runs.shortcut)]
    for (depth, group), marker in zip(runs.groupby("depth"), "os^D" * 9, strict=False):
        look, at = colour(depth), group.shortcut.map(options.index)
        ax.plot(at, group[column], marker, color=look, ms=5, alpha=0.8, label=f"{depth} layers")
        mean = group.groupby(at)[column].mean()
        ax.plot(mean.index, mean, color=look, lw=1.4)
    ax.set_xticks(range(len(options)), options)
    ax.set(xlabel="shortcut option", ylabel=f"final {'training' if column[:5] == 'train' else 'test'} error (%)")
    ax.legend(fontsize="small")
    return ax


def residual_block(ax: Axes | None = None) -> Axes:
    """Fig. 2: x goes through two weight layers, F(x), and round them; both are added, then rectified."""
    ax = ax or plt.gca()
    ax.set(xlim=(-3.2, 4.4), ylim=(-0.2, 6.4))
    ax.set_axis_off()
    arrow = dict(arrowstyle="-|>", mutation_scale=13, color="black", lw=1.3)
    ax.plot([0, 2.4, 2.4], [5.5, 5.5, 1.1], color="black", lw=1.3, zorder=1)  # the shortcut
    for y in (4.3, 2.6):
        ax.add_patch(FancyBboxPatch((-1.2, y - 0.35), 2.4, 0.7, boxstyle="round,pad=0.05", fc="#dbe7f3", ec="black", zorder=2))
        ax.text(0, y, "weight layer", ha="center", va="center")
    for start, end in (((0, 6), (0, 4.75)), ((0, 3.9), (0, 3.05)), ((0, 2.2), (0, 1.37)), ((0, 0.83), (0, 0)),
                       ((2.4, 1.1), (0.27, 1.1))):  # fmt: skip
        ax.add_patch(FancyArrowPatch(start, end, **arrow))
    ax.plot(0, 1.1, "o", ms=19, mfc="white", mec="black")
    ax.text(0, 1.08, "+", ha="center", va="center", fontsize=15)
    said = [(0.2, 6.05, r"$\mathbf{x}$"), (0.2, 3.45, "relu"), (0.2, 0.4, "relu"), (2.6, 3.4, "$\\mathbf{x}$\nidentity")]
    said += [(-1.45, 3.45, r"$\mathcal{F}(\mathbf{x})$"), (-0.5, 1.1, r"$\mathcal{F}(\mathbf{x})+\mathbf{x}$")]
    for x, y, text in said:
        ax.text(x, y, text, va="center", ha="left" if x > 0 else "right")
    ax.figure.set_label("A building block: x goes through two weight layers, and round them through the identity; both are "
                        "added, then rectified.")  # fmt: skip
    return ax


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
    """What the page says of a layer when it is chosen: its output, what it learns, what it costs."""
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


def heat_map(table: pd.DataFrame, limit: float, ax: Axes | None = None, **axes):
    """A table of numbers as colours, red above 0, blue below, the first row at the bottom; what is missing is left grey.

    limit: the value of the darkest colour. Returns the mappable, for a colour bar.
    """
    ax = ax or plt.gca()
    ax.set_facecolor("0.85")
    ax.grid(False)
    image = ax.pcolormesh(table.to_numpy(float), cmap="RdBu_r", vmin=-limit, vmax=limit, rasterized=True)
    ax.set_xticks([i + 0.5 for i in range(len(table.columns))], list(table.columns))
    ax.set(**axes)
    return image
