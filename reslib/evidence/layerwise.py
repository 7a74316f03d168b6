"""The figures of what goes on inside nets, layer by layer: recorded gradients, and signals before any training."""

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes

from .plots import colour


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
