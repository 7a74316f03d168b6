"""Figures as SVG inside a page: light and dark, wide and for a telephone, described in words, with the data they show.

While the book runs its chapters, `html` is how matplotlib figures are displayed (figures.py). An SVG that stands in the page
itself, not behind <img>, has the page's letters and takes part in its dark mode: every colour gets a twin that stands out from
a dark page as much as itself from a white one. A narrow drawing, its panels one below the other, stands beside the wide one;
the book's figures.css shows the one that fits.
"""

import hashlib
import html as markup
import io
import re
import textwrap
from base64 import b64decode, b64encode
from collections import Counter
from functools import partial

import charts
import matplotlib.pyplot as plt
from matplotlib.collections import QuadMesh
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.gridspec import GridSpec
from PIL import Image

from reslib.evidence.plots import NARROW

DARK_PAGE = 0.0091  # relative luminance of #14181e, the book's dark background
SEEN = 0.298  # luminance of lines: 3 to 1 on white
READABLE = 0.18  # luminance of letters: 4.6 to 1 on white, and their dark twins on the dark page


def _linear(colour) -> list[float]:
    return [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(colour)]


def luminance(colour) -> float:
    """Relative luminance, 0 (black) to 1 (white), as WCAG 2 defines it."""
    return sum(w * c for w, c in zip((0.2126, 0.7152, 0.0722), _linear(colour), strict=True))


def tinted(colour, wanted: float) -> str:
    """The colour at another luminance: dimmed or brightened, or mixed with white where that is not enough."""
    channels, now = _linear(colour), luminance(colour)
    if now:
        factor = min(wanted / now, 1 / max(channels))
        channels, now = [c * factor for c in channels], now * factor
    if wanted > now:
        channels = [c + (1 - c) * (wanted - now) / (1 - now) for c in channels]
    return to_hex([12.92 * c if c <= 0.0031308 else 1.055 * min(c, 1) ** (1 / 2.4) - 0.055 for c in channels])


def contrast(a: float, b: float) -> float:
    """Of two luminances, 1 to 21 (WCAG 2)."""
    return (max(a, b) + 0.05) / (min(a, b) + 0.05)


def dark(colour) -> str:
    """What stands out from the dark page as much as the colour does from white."""
    return tinted(colour, min(1, contrast(luminance(colour), 1) * (DARK_PAGE + 0.05) - 0.05))


def html(figure: Figure) -> str:
    """The figure for a page: its SVG, a narrow one where it has lines or several panels, the data of its lines as JSON."""
    parts = [svg(figure, "plot-wide")]
    if apart := getattr(figure, "apart", None):  # a diagram knows how to draw itself in parts
        parts += [svg(part, "plot-narrow") for part in apart()]
    elif figure.get_size_inches()[0] > NARROW + 1 and any(ax.axison and not ax.images for ax in figure.axes):
        parts.append(svg(figure, "plot-narrow", narrow=True))
    return f'<div class="drawn">{"".join(parts)}{charts.script(charts.panels(figure, dark))}</div>'


def told(figure: Figure) -> str:
    """What the figure shows, for the reader who cannot see it, where its author does not say so: its label, or its axes."""
    panels = [f"{ax.get_title()} {charts.label(ax, 'y')} over {charts.label(ax, 'x')}".strip() for ax in figure.axes]
    return figure.get_label() or f"A figure of {len(panels)} panel{'s' * (len(panels) != 1)}: {'; '.join(panels)}"


def svg(figure: Figure, kind: str, narrow: bool = False) -> str:
    """The figure as an <svg> element with a description for those who cannot see it; the figure is left as it was."""
    alt, undo = told(figure), _narrowed(figure) if narrow else []
    for ax in figure.axes:
        undo += _direct_labels(ax)
        meshes = [mesh for mesh in ax.collections if isinstance(mesh, QuadMesh)]
        for mesh in meshes:  # a picture, as its colour bar is
            undo.append(partial(mesh.set_rasterized, mesh.get_rasterized()))
            mesh.set_rasterized(True)
        for artist in [*ax.lines, *ax.patches, *ax.texts] if ax.images or meshes else []:  # the same over it on any page
            undo.append(partial(artist.set_gid, artist.get_gid()))
            artist.set_gid("over")
    file = io.StringIO()
    with plt.rc_context({"svg.fonttype": "none", "svg.hashsalt": "reslib", "path.simplify_threshold": 0.3}):
        figure.savefig(file, format="svg", dpi=160, facecolor="none", bbox_inches="tight", metadata={"Date": None})
    for restore in reversed(undo):
        restore()
    text = file.getvalue()
    width = float(re.search(r'<svg[^>]*width="([\d.]+)pt"', text)[1]) * 4 / 3
    view, body = re.search(r'viewBox="([^"]+)"', text)[1], text[text.index("</metadata>") + 11 : text.rindex("</svg>")]
    body = _lighter(body)
    key = "f" + hashlib.sha256((kind + body).encode()).hexdigest()[:6]  # no two drawings of a page share an id
    body = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{key}", body)
    body = _classes(body, key)
    hidden = "display:none;" if kind == "plot-narrow" else ""  # where there is no style sheet: in JupyterLab
    look = f"{hidden}width:100%;max-width:{width:.0f}px;height:auto;fill:currentColor"
    return (
        f'<svg class="{kind}" role="img" aria-label="{markup.escape(alt)}" viewBox="{view}" style="{look}" '
        f'xmlns:xlink="http://www.w3.org/1999/xlink">{body}</svg>'
    )


def _lighter(body: str) -> str:
    """The drawing with fewer decimals, the page's letters, colours in pairs, small pictures, nothing that changes nothing."""
    body = re.sub(r"<!--.*?-->|\n *", lambda m: "" if m[0][0] == "<" else " ", body, flags=re.S)
    body = re.sub(r' d="([^"]*)"', _path, body)
    body = re.sub(r' (x|y|width|height)="([-+.\de]+)"', lambda m: f' {m[1]}="{round(float(m[2]), 1):g}"', body)
    body = re.sub(r" font-family: 'Arial'[^;\"]*;| transform=\"rotate\(-0 [^\"]*\"", "", body)
    body = re.sub(r' id="layer: ([^"]*)">', r' class="layer"><title>\1</title>', body)  # see `plots.architecture`
    body = re.sub(r' id="[a-zA-Z0-9.]+_\d+"', "", body)
    body = re.sub(r'<g id="over">(.*?)</g>|(fill|stroke): (#[0-9a-f]{6})', _pair, body, flags=re.S)
    body = re.sub(r' clip-path="([^"]*)" style="', r' style="clip-path: \1; ', body)  # a class may hold it
    while (fewer := re.sub(r"<g>((?:[^<]|<(?!/?g\b))*)</g>", r"\1", body)) != body:  # groups of no consequence, innermost first
        body = fewer
    body = re.sub(r" *([<>]|(?<=/)>) *", r"\1", body)
    body = body.replace("*{", ".drawn *{").replace("\ue232", "\u2131")  # matplotlib's own place for a script F
    return re.sub(r"data:image/png;base64,\s*([\w+/=\s]+)", _picture, body)


def _path(match) -> str:
    """A path in tenths of a point, each place by its distance from the last: half the bytes."""
    made, at, start, last = "", (0, 0), (0, 0), ""
    for command, numbers in re.findall(r"([MLCQz])([^MLCQz]*)", match[1]):
        if command == "z":
            made, at, last = made + "z", start, "z"
            continue
        places = [round(10 * float(number)) for number in numbers.split()]
        moved = [place - at[i % 2] for i, place in enumerate(places)]
        at = tuple(places[-2:])
        start = at if command == "M" else start
        command = command.lower()
        if command == "l" and 0 in moved:
            command, moved = ("h", moved[:1]) if moved[1] == 0 else ("v", moved[1:])
        words = " ".join(f"{number / 10:g}".replace("0.", ".") if abs(number) < 10 else f"{number / 10:g}" for number in moved)
        made += (" " if command == last != "m" else command) + words.replace(" -", "-")
        last = command
    return f' d="{made.replace(" -", "-")}"'


def _classes(body: str, key: str) -> str:
    """A style that stands more than twice becomes a class of this drawing."""
    often = [style for style, n in Counter(re.findall(r' style="([^"]*)"', body)).items() if n > 2]
    rules = "".join(f".{key}{i}{{{style}}}" for i, style in enumerate(often))
    number = {style: f' class="{key}{i}"' for i, style in enumerate(often)}
    return f"<style>{rules}</style>" + re.sub(r' style="([^"]*)"', lambda m: number.get(m[1], m[0]), body)


def _pair(match) -> str:
    over, name, colour = match.groups()
    if over:
        return f"<g>{over}</g>"
    if (
        name == "stroke" and max(to_rgb(colour)) - min(to_rgb(colour)) > 0.35
    ):  # a colour that says something, no grey and no pastel ground
        colour = tinted(colour, min(SEEN, luminance(colour)))
    return f"{name}: {colour}; {name}: light-dark({colour}, {dark(colour)})"  # a browser that knows no pairs keeps the first


def _picture(match) -> str:
    """A PNG inside the drawing, as WebP where that is smaller by half: photographs."""
    png, small = b64decode(match[1]), io.BytesIO()
    Image.open(io.BytesIO(png)).save(small, "WEBP", quality=85)
    if small.tell() * 2 < len(png):
        return "data:image/webp;base64," + b64encode(small.getvalue()).decode()
    return "data:image/png;base64," + re.sub(r"\s", "", match[1])


def _direct_labels(ax) -> list:
    """A legend of lines that end at the right edge becomes a name at each line's end; returns what undoes it."""
    legend, ends = ax.get_legend(), []
    lines = [line for line in ax.lines if not line.get_label().startswith("_") and len(line.get_xdata()) > 2]
    names = [text.get_text() for text in legend.get_texts()] if legend else []
    if not legend or legend.get_title().get_text() or sorted(names) != sorted(line.get_label() for line in lines):
        return []
    (left, right), (low, high) = ax.get_xlim(), sorted(ax.get_ylim())
    for line in lines:
        x, y = line.get_xdata(orig=False)[-1], line.get_ydata(orig=False)[-1]
        if abs(right - x) > 0.1 * abs(right - left) or not y == y:
            return []
        ends.append(ax.transAxes.inverted().transform(ax.transData.transform((x, min(max(y, low), high))))[1])
    size = 0.8 * plt.rcParams["font.size"]
    height = ax.get_position().height * ax.figure.get_figheight() * 72  # points
    step, order = 1.15 * size / height, sorted(range(len(lines)), key=ends.__getitem__)
    for _ in range(50):  # neighbours push each other apart
        for a, b in zip(order, order[1:], strict=False):
            if (lack := step - (ends[b] - ends[a])) > 0:
                ends[a], ends[b] = ends[a] - lack / 2, ends[b] + lack / 2
    lift = max(0, -min(ends))  # none below the axis, where its numbers are
    legend.set_visible(False)
    legend.set_in_layout(False)
    look = dict(transform=ax.transAxes, va="center", fontsize=size)
    texts = [
        ax.text(
            1.015,
            y + lift,
            line.get_label(),
            color=tinted(line.get_color(), min(READABLE, luminance(line.get_color()))),
            **look,
        )
        for line, y in zip(lines, ends, strict=True)
    ]
    return [partial(legend.set_visible, True), partial(legend.set_in_layout, True), *(text.remove for text in texts)]


def _narrowed(figure: Figure) -> list:
    """Lay the panels out for a telephone: one below the other, each with its own axis labels. Returns what undoes it."""
    size, axes = figure.get_size_inches().copy(), [ax for ax in figure.axes if ax.get_subplotspec()]
    rows, columns = axes[0].get_gridspec().get_geometry() if axes else (1, 1)
    undo, height = [partial(figure.set_size_inches, size)], size[1] / rows
    if len({ax.get_gridspec() for ax in axes}) == 1 and columns > 1:
        wide = columns // 3 + 1 if any(ax.collections and not ax.lines for ax in axes) else 1 + (columns > 3)
        grid = GridSpec(-(-len(axes) // wide), wide, figure)
        undo += [restore for ax in axes for restore in _own_labels(ax, axes)]
        for i, ax in enumerate(axes):
            undo.append(partial(ax.set_subplotspec, ax.get_subplotspec()))
            ax.set_subplotspec(grid[i // wide, i % wide])
        named = max(sum(label.get_text()[:1].isalpha() for label in ax.get_yticklabels()) for ax in axes)
        rows, height = grid.nrows, min(height, max(2.7, 0.4 * named))  # a row that has a name keeps room
    figure.set_size_inches(NARROW, height * rows)
    for legend in filter(None, [*figure.legends, *(ax.get_legend() for ax in figure.axes)]):
        undo.append(partial(legend.set_ncols, legend._ncols))
        legend.set_ncols(min(legend._ncols, 1 + (max(len(text.get_text()) for text in legend.get_texts()) < 24)))
    for title in filter(None, [figure._suptitle, *(ax.title for ax in figure.axes)]):
        undo.append(partial(title.set_text, title.get_text()))
        title.set_text(textwrap.fill(title.get_text(), 44))
    return undo


def _own_labels(ax, axes) -> list:
    """Give a panel the labels that it shared with others; returns what undoes it."""
    spec, undo = ax.get_subplotspec(), []
    for axis, side, line in ((ax.xaxis, "colspan", "bottom"), (ax.yaxis, "rowspan", "left")):
        same = [o for o in axes if getattr(o.get_subplotspec(), side) == getattr(spec, side)]
        shared = next((t for t in (getattr(o, axis.axis_name + "axis").label.get_text() for o in same) if t), "")
        undo.append(partial(axis.set_label_text, axis.label.get_text()))
        undo.append(partial(axis.set_tick_params, **{f"label{line}": axis.get_tick_params()[f"label{line}"]}))
        axis.set_label_text(axis.label.get_text() or shared)
        axis.set_tick_params(**{f"label{line}": True})
    return undo
