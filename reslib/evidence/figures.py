"""The figures of public reruns: DataFrames in, matplotlib Axes out; a point is an author.

Plain nets are orange squares, residual nets blue circles, in every figure; hollow where the recipe is not the paper's own.
"""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from .comparison import interval
from .plots import colour as shade
from .reruns import FEWEST, RECIPES, curves, name, told

KINDS = {"plain": (shade(56, True), "s"), "resnet": (shade(56), "o")}  # colour and marker
POINTS = "percentage points"
HEADINGS = ("the paper's recipe", "near recipes", "recipe not stated", "far recipes")


def strips(rows: dict[str, tuple], ax: Axes) -> None:
    """Differences found by many sources, a row a comparison: points, and a bar for the mean and its 95 % interval.

    rows: by label, (kind of net, rows of `reruns.effects`, the paper's own difference or None: a diamond). Far recipes, which
    do not make the mean, are hollow.
    """
    for y, (kind, table, paper) in enumerate(rows.values()):
        place = y + 0.1 + 0.11 * ((table.effect.rank(method="first") - 1) % 3 - 1)
        points(table.effect, place, kind, table.sized, ax)
        if table.sized.sum() >= FEWEST:
            mean, low, high = interval(table.effect[table.sized])
            ax.plot([low, high], [y - 0.28] * 2, color="black", lw=2.2, solid_capstyle="butt")
            ax.plot(mean, y - 0.28, "|", color="black", ms=9, mew=2.2)
        if paper is not None:
            ax.plot(paper, y - 0.28, "D", color="black", mfc="white", ms=6, zorder=3)
    ax.axvline(0, color="black", lw=0.8)
    ax.set_yticks(range(len(rows)), rows)
    ax.set(ylim=(len(rows) - 0.5, -0.6), xlabel=f"difference of errors ({POINTS})")
    ax.grid(axis="y", visible=False)


def points(x: pd.Series, y: pd.Series, kind: str, filled: pd.Series, ax: Axes) -> None:
    """A point a source, in its kind's colour and with its marker; hollow where it is not `filled`."""
    colour, marker = KINDS[kind]
    for chosen, fill in ((filled.astype(bool), colour), (~filled.astype(bool), "none")):
        ax.plot(x[chosen], y[chosen], marker, ms=5, mec=colour, mfc=fill, alpha=0.8, ls="none")


def strips_table(rows: dict[str, tuple]) -> pd.DataFrame:
    """The numbers of `strips`: the paper's, the mean over authors with its interval, and how many have the claim's sign."""
    found = {
        what: ("" if printed is None else f"{printed:.1f}".replace("-", "−"), told(table.effect[table.sized]),
               f"{table.agrees.sum()} of {len(table)}")
        for what, (_, table, printed) in rows.items()
    }  # fmt: skip
    return pd.DataFrame(found, ["the paper (points)", "public reruns (points)", "sign as claimed"]).T


def forest(kinds: dict[str, pd.DataFrame], paper: dict[str, float], ax: Axes) -> None:
    """Each author's differences on a line of its own, named, by recipe: the plain pair and the residual one.

    kinds: by kind of net, rows of `reruns.effects`; paper: by kind, its own difference, on the first line. An author with two
    recipes has two lines.
    """
    lines = pd.concat(kinds.values()).groupby(["recipe", "author"]).effect.min().sort_values()
    y, place = 1.0, {("", "the paper"): 0.0}
    for recipe, heading in zip(RECIPES, HEADINGS, strict=True):
        keys = [key for key in lines.index if key[0] == recipe]
        if keys:
            ax.text(0.99, y + 0.2, heading, transform=ax.get_yaxis_transform(), ha="right", va="center", style="italic")
            place |= {key: y + i + 1 for i, key in enumerate(keys)}
            y += len(keys) + 1.4
    for kind, table in kinds.items():
        colour, marker = KINDS[kind]
        at = [place.get(key) for key in zip(table.recipe, table.author, strict=True)]
        look = dict(ms=6, ls="none", label=f"{name(kind, 56)} − {name(kind, 20)}")
        ax.plot(table.effect, pd.Series(at, table.index, dtype=float), marker, color=colour, **look)
        ax.plot(paper[kind], 0, marker, mec=colour, mfc="white", ms=8, mew=1.8, ls="none")
    ax.axvline(0, color="black", lw=0.8)
    ax.set_yticks(list(place.values()), [author for _, author in place], fontsize=8.5)
    ax.set(ylim=(y - 0.2, -0.8), xlabel=f"56 layers minus 20 layers, test error ({POINTS})")
    ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1), ncols=2, fontsize="small")


def depth(levels: pd.DataFrame, paper: dict[str, dict[int, float]], ax: Axes) -> None:
    """Final test error over depth (Table 6): a point an author, a line through the means, diamonds for the paper.

    levels: rows of `reruns.levels`; paper: by kind of net, its test errors (percent) by depth.
    """
    for kind, printed in paper.items():
        nets = levels[(levels.net == kind) & levels.depth.isin(list(printed))]
        place = np.log2(nets.depth) + 0.05 * (nets.groupby("depth").test_error.rank(method="first") % 5 - 2)
        points(place, nets.test_error, kind, nets.recipe == "paper", ax)
        mean, label = nets.groupby("depth").test_error.mean(), "plain" if kind == "plain" else "residual"
        ax.plot(np.log2(mean.index.to_numpy(float)), mean, color=KINDS[kind][0], lw=1.6, label=f"{label}, mean over authors")
        ax.plot(np.log2(list(printed)), printed.values(), "D-", color="black", mfc="white", ms=7, lw=0.8, zorder=3)
    ax.plot([], [], "D-", color="black", mfc="white", label="the paper")
    shown = sorted({d for printed in paper.values() for d in printed})
    ax.set_xticks(np.log2(shown), shown)
    ax.set(xlabel="depth (layers)", ylabel="final test error (%)")
    ax.legend(fontsize="small")


def responses(layers: pd.DataFrame, axes) -> None:
    """Each layer's response of published nets (Fig. 7), in order and ranked: rows of `reruns.responses`; two Axes."""
    for (_, kind, depth_), part in layers.groupby(["source", "net", "depth"]):
        look = dict(color=shade(depth_, kind == "plain"), ls="--" if kind == "plain" else "-", lw=1.3, label=name(kind, depth_))
        axes[0].plot(part.layer, part.response_std, **look)
        axes[1].plot(range(1, len(part) + 1), part.response_std.sort_values(ascending=False), **look)
    for ax, order in zip(axes, ("in its order", "sorted by magnitude"), strict=True):
        ax.set(xlabel=f"layer, {order}", ylabel="std", ylim=(0, None))
    labelled = dict(zip(*axes[0].get_legend_handles_labels()[::-1], strict=True))  # one entry a net, whatever the sources
    axes[0].legend(labelled.values(), labelled, fontsize="small", ncols=3)


def learning(own: pd.DataFrame, paper: dict[str, float], axes) -> None:
    """Training and test error over iterations (Fig. 1, 6): a public rerun thin, our means bold, the paper's ends as diamonds.

    own: rows as `reslib.curves()` gives them, averaged here over 400 iterations, as public logs are; paper: test errors
    (percent) by net, "plain-20"; axes: two Axes.
    """
    public = curves().query("source == 'a-martyn/resnet'")
    public = public.assign(net=[name(*key) for key in zip(public.net, public.depth, strict=True)])
    kinds = own.shortcut.map(lambda shortcut: "plain" if shortcut == "none" else "resnet")
    own = own.assign(net=[name(*key) for key in zip(kinds, own.depth, strict=True)], iteration=np.ceil(own.step / 400) * 400)
    errors = {"train_error": "training error (%)", "test_error": "test error (%)"}
    for ax, (column, title) in zip(axes, errors.items(), strict=True):
        for net in paper:
            kind, depth = net.split("-")
            look = dict(color=shade(int(depth), kind == "plain"), ls="--" if kind == "plain" else "-")
            for frame, width, whose in ((public, 0.9, "public"), (own, 1.9, "ours")):
                curve = frame[frame.net == net].dropna(subset=column).groupby("iteration")[column].mean()
                if len(curve):
                    ax.plot(curve.index, curve, lw=width, label=f"{net} ({whose})", **look)
        ax.set(ylim=(0, 25), title=title, xlabel="iterations")
        ax.set_xticks(range(0, 64_001, 16_000), ["0", "16k", "32k", "48k", "64k"])
    for net, error in paper.items():
        kind, depth = net.split("-")
        axes[1].plot(65_500, error, "D", color=shade(int(depth), kind == "plain"), mfc="white", ms=6, clip_on=False)
    legend_below(axes, ncols=3)


def legend_below(axes, ncols: int = 4) -> None:
    """One legend for all Axes of a figure, under it, instead of one in each."""
    shown = {}
    for ax in axes:
        shown |= dict(zip(*ax.get_legend_handles_labels()[::-1], strict=True))
        if ax.get_legend():
            ax.get_legend().remove()
    axes[0].figure.legend(shown.values(), shown, loc="outside lower center", ncols=ncols, fontsize="small")
