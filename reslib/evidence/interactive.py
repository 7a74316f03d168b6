"""What a figure shows, as data and in words: for the reader who wants values, and for the one who cannot see it.

The book's figures.js puts a chart of the data over the drawing when a reader asks for it: nets and seeds can be left out, the
scale can be logarithmic, the value under the cursor is read out. Without JavaScript the drawing stays.
"""

import json
import re

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

LEAST = 8  # points: a shorter line is read off the drawing
MOST = 200  # points of a line that are kept: more than a chart of this width can show


def panels(figure: Figure) -> list[dict]:
    """The panels that have named lines of `LEAST` points or more: title, axis labels, whether they are logarithmic, lines.

    A line: net (its name), seed ("" for a mean), colour, dark (its colour on a dark page), dash, y (numbers), and x: which
    of the panel's "xs" (lists of numbers) it has.
    """
    found = []
    for ax in figure.axes:
        lines = [line for line in map(_line, ax.lines) if line]
        if sum(not line["seed"] for line in lines) > 1:
            xs = [list(x) for x in dict.fromkeys(tuple(line["x"]) for line in lines)]
            lines = [line | {"x": xs.index(line["x"])} for line in lines]
            found.append({
                "title": ax.get_title(),
                "x": _label(ax, "x"),
                "y": _label(ax, "y"),
                "log": ax.get_yscale() == "log",
                "logx": ax.get_xscale() == "log",
                "xs": xs,
                "lines": lines,
            })  # fmt: skip
    return found


def _line(line: Line2D) -> dict | None:
    """A line as data; None for what is not named, too short, or no line. Single seeds are named "_net, seed"."""
    from .svg import dark

    name, x = line.get_label(), np.ravel(line.get_xdata())
    net, _, seed = name.removeprefix("_").partition(", ")
    if (
        (name.startswith("_") and not seed)
        or line.get_linestyle() == "None"
        or not LEAST <= len(x)
        or x.dtype.kind not in "iuf"
    ):
        return None
    kept = np.unique(np.linspace(0, len(x) - 1, min(MOST, len(x))).round().astype(int))
    x, y = x[kept].astype(float), np.asarray(line.get_ydata(), float)[kept]
    return {
        "net": net if name.startswith("_") else name,
        "seed": seed if name.startswith("_") else "",
        "colour": to_hex(line.get_color()),
        "dark": dark(line.get_color()),
        "dash": line.get_linestyle() != "-",
        "x": [float(f"{v:.6g}") for v in x],
        "y": [float(f"{v:.3g}") if np.isfinite(v) else None for v in y],
    }


def _label(ax: Axes, which: str) -> str:
    """An axis's label, or where panels share one that of the panel which has it."""
    own = getattr(ax, f"get_{which}label")()
    shared = (getattr(other, f"get_{which}label")() for other in ax.figure.axes)
    return own or next(filter(None, shared), "")


def script(found: list[dict]) -> str:
    """The panels as JSON that a page carries along; nothing where there are none."""
    if not found:
        return ""
    data = json.dumps(found, separators=(",", ":")).replace("<", "\\u003c")  # no tag can begin in it
    return f'<script type="application/json">{data}</script>'


def describe(figure: Figure) -> str:
    """The figure in words and numbers: what its panels show, from where to where each line goes. Or its own label."""
    if len(figure.get_label()) >= 40:
        return figure.get_label()
    axes = [ax for ax in figure.axes if ax.get_label() != "<colorbar>"]
    told = [figure.get_suptitle(), f"{len(axes)} panels" if len(axes) > 1 else "", *map(_panel, axes)]
    text = ". ".join(part for part in told if part)
    return text if len(text) <= 900 else text[:900].rsplit(";", 1)[0] + "; and more"


def _panel(ax: Axes) -> str:
    words = "; ".join(text.get_text().replace("\n", " ") for text in ax.texts if text.get_text())
    if not ax.axison and not ax.images:
        return f"Diagram with {len(ax.patches)} boxes and arrows: {words}"
    title = f"{ax.get_title()}: " if ax.get_title() else ""
    axes = " over ".join(filter(None, (_label(ax, "y"), _label(ax, "x"))))
    named = [line for line in ax.lines if not line.get_label().startswith("_") and len(line.get_xdata())]
    rows = any(re.match("[a-zA-Z]", tick.get_text()) for tick in ax.get_yticklabels())  # one a name: the values lie along x
    parts = [f"{line.get_label()} {_span(line.get_xdata() if rows else line.get_ydata(), line)}" for line in named]
    rest = [line for line in ax.lines if line not in named and line.get_linestyle() == "None" and len(line.get_xdata())]
    if not parts and rest:
        points = np.concatenate([np.ravel(line.get_xdata()).astype(float) for line in rest])
        parts = [f"{len(points)} points from {points.min():.3g} to {points.max():.3g}"]
    bars = [patch.get_height() for container in ax.containers for patch in getattr(container, "patches", ())]
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
