"""What a figure shows, as data, for the reader who wants values.

The book's figures.js puts a chart of the data over the drawing when a reader asks for it: nets and seeds can be left out, the
scale can be logarithmic, the value under the cursor is read out. Without JavaScript the drawing stays.
"""

import json

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

LEAST = 8  # points: a shorter line is read off the drawing
MOST = 200  # points of a line that are kept: more than a chart of this width can show


def panels(figure: Figure, dark) -> list[dict]:
    """The panels that have named lines of `LEAST` points or more: title, axis labels, whether they are logarithmic, lines.

    A line: net (its name), seed ("" for a mean), colour, dark (its colour on a dark page), dash, y (numbers), and x: which
    of the panel's "xs" (lists of numbers) it has. dark: gives a colour's twin on a dark page.
    """
    found = []
    for ax in figure.axes:
        lines = [line for line in (_line(line, dark) for line in ax.lines) if line]
        if sum(not line["seed"] for line in lines) > 1:
            xs = [list(x) for x in dict.fromkeys(tuple(line["x"]) for line in lines)]
            lines = [line | {"x": xs.index(line["x"])} for line in lines]
            found.append({
                "title": ax.get_title(),
                "x": label(ax, "x"),
                "y": label(ax, "y"),
                "log": ax.get_yscale() == "log",
                "logx": ax.get_xscale() == "log",
                "xs": xs,
                "lines": lines,
            })  # fmt: skip
    return found


def _line(line: Line2D, dark) -> dict | None:
    """A line as data; None for what is not named, too short, or no line. Single seeds are named "_net, seed"."""
    name, x = line.get_label(), np.ravel(line.get_xdata())
    net, _, seed = name.removeprefix("_").partition(", ")
    unnamed, no_line = name.startswith("_") and not seed, line.get_linestyle() == "None"
    if unnamed or no_line or len(x) < LEAST or x.dtype.kind not in "iuf":
        return None
    kept = np.unique(np.linspace(0, len(x) - 1, min(MOST, len(x))).round().astype(int))
    x, y = x[kept].astype(float), np.asarray(line.get_ydata(orig=False), float)[kept]
    return {
        "net": net if name.startswith("_") else name,
        "seed": seed if name.startswith("_") else "",
        "colour": to_hex(line.get_color()),
        "dark": dark(line.get_color()),
        "dash": line.get_linestyle() != "-",
        "x": [float(f"{v:.6g}") for v in x],
        "y": [float(f"{v:.3g}") if np.isfinite(v) else None for v in y],
    }


def script(found: list[dict]) -> str:
    """The panels as JSON that a page carries along; nothing where there are none."""
    if not found:
        return ""
    data = json.dumps(found, separators=(",", ":")).replace("<", "\\u003c")  # no tag can begin in it
    return f'<script type="application/json">{data}</script>'


def label(ax: Axes, which: str) -> str:
    """An axis's label, or where panels share one that of the panel which has it."""
    own = getattr(ax, f"get_{which}label")()
    group = getattr(ax, f"get_shared_{which}_axes")()
    shared = (getattr(other, f"get_{which}label")() for other in ax.figure.axes if group.joined(ax, other))
    return own or next(filter(None, shared), "")
