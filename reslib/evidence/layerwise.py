"""The figures of what goes on inside nets, layer by layer: recorded gradients, and signals before any training."""

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes

from .plots import colour, heat_map


def gradient_map(runs, ax: Axes | None = None, steps=None, limit: float = 4, **axes):
    """The gradient at every layer and probed step, in decades above its level in the last third of the layers; mean of runs.

    runs: records of one net; steps: which, all of the records if None. Returns the mappable, for a colour bar.
    """
    frames = [pd.DataFrame(columns=["decades", "depth", "step"])]
    for run in runs:
        frame = run.probe_frame()
        log10 = np.log10(frame.response_gradient)
        level = log10[frame.depth > frame.depth.max() * 2 / 3].groupby(frame.step).mean()
        frames.append(frame.assign(decades=log10 - frame.step.map(level))[["decades", "depth", "step"]])
    profile = pd.concat(frames[min(1, len(frames) - 1) :]).pivot_table("decades", "depth", "step")
    return heat_map(profile if steps is None else profile.reindex(columns=steps), limit, ax, **axes)


def slopes(frame: pd.DataFrame, axes) -> None:
    """What a layer does before training, forward (left) and backward (right), over depth: means, and the range of all draws.

    frame: rows of `start.table()`, of one initialisation; axes: two Axes.
    """
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
