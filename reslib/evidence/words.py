"""What a figure shows, in words and numbers, for the reader who cannot see it."""

import re

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D


def describe(figure: Figure) -> str:
    """The figure in words and numbers: what its panels show, from where to where each line goes. Or its own label."""
    if len(figure.get_label()) >= 40:
        return figure.get_label()
    axes = [ax for ax in figure.axes if ax.get_label() != "<colorbar>"]
    told = [figure.get_suptitle(), f"{len(axes)} panels" if len(axes) > 1 else "", *map(_panel, axes)]
    text = ". ".join(part for part in told if part)
    text = text if len(text) >= 40 else f"A figure of {len(axes)} panel{'s' * (len(axes) != 1)}, which shows: {text}"
    return text if len(text) <= 900 else text[:900].rsplit(";", 1)[0] + "; and more"


def _panel(ax: Axes) -> str:
    words = "; ".join(text.get_text().replace("\n", " ") for text in ax.texts if text.get_text())
    if not ax.axison and not ax.images:
        return f"Diagram with {len(ax.patches)} boxes and arrows: {words}"
    title = f"{ax.get_title()}: " if ax.get_title() else ""
    axes = " over ".join(filter(None, (label(ax, "y"), label(ax, "x"))))
    named = [line for line in ax.lines if not line.get_label().startswith("_") and len(line.get_xdata(orig=False))]
    rows = any(re.match("[a-zA-Z]", tick.get_text()) for tick in ax.get_yticklabels())  # one a name: the values lie along x
    parts = [
        f"{line.get_label()} {_span(line.get_xdata(orig=False) if rows else line.get_ydata(orig=False), line)}"
        for line in named
    ]
    rest = [
        line for line in ax.lines if line not in named and line.get_linestyle() == "None" and len(line.get_xdata(orig=False))
    ]
    drawn = [
        line.get_ydata(orig=False) for line in ax.lines if line not in named + rest and len(line.get_xdata(orig=False)) > 2
    ]
    if not parts and drawn:
        ends = [float(y[-1]) for y in drawn]
        parts = [f"{len(drawn)} lines, which end at {min(ends):.3g} to {max(ends):.3g}"]
    if not parts and rest:
        points = np.concatenate(
            [np.ravel(line.get_xdata(orig=False) if rows else line.get_ydata(orig=False)).astype(float) for line in rest]
        )
        parts = [f"{len(points)} points from {points.min():.3g} to {points.max():.3g}"]
    bars = [
        patch.get_width() if container.orientation == "horizontal" else patch.get_height()
        for container in ax.containers
        for patch in getattr(container, "patches", ())
    ]
    parts += [f"{len(bars)} bars from {min(bars):.3g} to {max(bars):.3g}"] if bars else []
    for image in ax.images:
        shape = image.get_array().shape
        parts.append(f"a picture of {shape[0]} by {shape[1]} pixels")
    dots = [c.get_offsets()[:, int(not rows)] for c in ax.collections if c.get_array() is None and len(c.get_offsets()) > 1]
    if dots and not named:
        parts.append(f"{sum(map(len, dots))} points from {min(map(min, dots)):.3g} to {max(map(max, dots)):.3g}")
    meshes = [c for c in ax.collections if c.get_array() is not None]
    parts += [
        f"a map of {c.get_array().size} values from {c.get_array().min():.3g} to {c.get_array().max():.3g}" for c in meshes
    ]
    return f"{title}{axes}{': ' if axes and parts else ''}{'; '.join(parts)}"


def _span(values, line: Line2D) -> str:
    y = np.asarray(values, float)
    y = y[np.isfinite(y)]
    if not len(y):
        return "without values"
    if line.get_linestyle() == "None" and len(y) > 1:
        return f"{len(y)} points from {y.min():.3g} to {y.max():.3g}"
    ends = f"from {y[0]:.3g} to {y[-1]:.3g}" if len(y) > 1 else f"at {y[0]:.3g}"
    return ends + (f", lowest {y.min():.3g}" if len(y) > 2 and y.min() < min(y[0], y[-1]) else "")


def label(ax: Axes, which: str) -> str:
    """An axis's label, or where panels share one that of the panel which has it."""
    own = getattr(ax, f"get_{which}label")()
    group = getattr(ax, f"get_shared_{which}_axes")()
    shared = (getattr(other, f"get_{which}label")() for other in ax.figure.axes if group.joined(ax, other))
    return own or next(filter(None, shared), "")
