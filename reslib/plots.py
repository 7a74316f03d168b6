"""The book's figures: DataFrames in, matplotlib Axes out. Every figure says at which scale its runs were made.

Plain nets are dashed, residual nets solid, and depths differ in colour and lightness, so figures can be read in greyscale.
"""

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

from .recipes import Recipe

PALETTE = {
    20: "#e69f00",
    32: "#56b4e9",
    44: "#009e73",
    56: "#0b5394",
    110: "#8b1a4f",
}  # by depth; told apart when colour-blind
OTHER = "#555555"


def style() -> None:
    """Set the look of all figures of a notebook."""
    sns.set_theme(context="notebook", style="whitegrid", font_scale=0.85)
    plt.rcParams.update({"figure.figsize": (8, 3.6), "figure.dpi": 110, "figure.constrained_layout.use": True,
                         "savefig.facecolor": "white", "legend.frameon": False})  # fmt: skip


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
        colour = PALETTE.get(depth, OTHER)
        for _, run in group.groupby("seed"):
            ax.plot(run.step, run[column], line, color=colour, alpha=0.35, lw=0.7)
        mean = group.groupby("step")[column].mean()
        ax.plot(mean.index, mean, line, color=colour, lw=1.8, label=_label(depth, shortcut))
    ax.set(xlabel="iterations", ylabel=f"{column.replace('_', 'ing ', 1) if column[:5] == 'train' else 'test error'} (%)")
    ax.set_ylim(bottom=0)
    ax.legend(fontsize="small")
    return ax


def depth_effect(runs: pd.DataFrame, column: str, ax: Axes | None = None) -> Axes:
    """Final error over depth, plain against residual: a point a run, a line through the means (C1, C5).

    runs: rows as `reslib.records()` gives them; column: "train_error" or "test_error" (percent).
    """
    ax = ax or plt.gca()
    for shortcut, group in runs.groupby("shortcut"):
        plain = shortcut == "none"
        colour, marker = ("#b04a00", "s") if plain else ("#0b5394", "o")
        mean = group.groupby("depth")[column].mean()
        ax.plot(mean.index, mean, "--" if plain else "-", color=colour, lw=1.6)
        ax.plot(
            group.depth,
            group[column],
            marker,
            color=colour,
            ms=5,
            alpha=0.8,
            label="plain" if plain else f"residual, {shortcut}",
        )
    ax.set(xlabel="depth (layers)", ylabel=f"final {'training' if column[:5] == 'train' else 'test'} error (%)",
           xticks=sorted(runs.depth.unique()))  # fmt: skip
    ax.legend(fontsize="small")
    return ax


def layers(frame: pd.DataFrame, value: str, by: str, ax: Axes | None = None, **axes) -> Axes:
    """A value of every layer, in their order, one line for each value of `by` (Fig. 7; signals and gradients).

    frame: columns "depth" (the layer, counted from the stem), `value`, `by`. The scale is logarithmic.
    """
    ax = ax or plt.gca()
    groups = list(frame.groupby(by, sort=False))
    lines = ("-", "--", "-.", ":")
    for i, ((name, group), colour) in enumerate(zip(groups, sns.color_palette("viridis", len(groups)), strict=True)):
        mean = group.groupby("depth")[value].mean()
        ax.plot(mean.index, mean, lines[i % 4], color=colour, lw=1.5, label=f"{name}")
    ax.set(yscale="log", xlabel="layer", ylabel=value.replace("_", " "), **axes)
    ax.legend(title=by.replace("_", " "), fontsize="small", title_fontsize="small")
    return ax


def residual_block(ax: Axes | None = None) -> Axes:
    """Fig. 2: x goes through two weight layers, F(x), and round them; both are added, then rectified."""
    ax = ax or plt.gca()
    ax.set(xlim=(-3.2, 4.2), ylim=(-0.2, 6.4))
    ax.set_axis_off()
    arrow = dict(arrowstyle="-|>", mutation_scale=13, color="black", lw=1.3)
    for y, text in ((4.3, "weight layer"), (2.6, "weight layer")):
        ax.add_patch(FancyBboxPatch((-1.2, y - 0.35), 2.4, 0.7, boxstyle="round,pad=0.05", fc="#dbe7f3", ec="black"))
        ax.text(0, y, text, ha="center", va="center")
    for top, bottom in ((6.0, 4.75), (3.9, 3.05), (2.2, 1.37), (0.83, 0.0)):
        ax.add_patch(FancyArrowPatch((0, top), (0, bottom), **arrow))
    ax.plot([0, 2.4, 2.4], [5.5, 5.5, 1.1], color="black", lw=1.3)
    ax.add_patch(FancyArrowPatch((2.4, 1.1), (0.27, 1.1), **arrow))
    ax.plot(0, 1.1, "o", ms=19, mfc="white", mec="black")
    ax.text(0, 1.08, "+", ha="center", va="center", fontsize=15)
    for x, y, text, side in ((0.2, 6.05, r"$\mathbf{x}$", "left"), (0.2, 3.45, "relu", "left"), (0.2, 0.4, "relu", "left"),
                             (2.6, 3.4, "$\\mathbf{x}$\nidentity", "left"),
                             (-1.45, 3.45, r"$\mathcal{F}(\mathbf{x})$", "right"),
                             (-0.5, 1.1, r"$\mathcal{F}(\mathbf{x})+\mathbf{x}$", "right")):  # fmt: skip
        ax.text(x, y, text, ha=side, va="center")
    return ax
