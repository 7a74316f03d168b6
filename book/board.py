"""The verdicts as a reader sees them: chips, the matrix of claims by kinds of evidence, and forest plots, all as HTML and SVG.

A plot's horizontal places are percentages of its width, so that its letters keep their size on any screen; its colours are the
page's (book.css). Everything drawn is said in words beside it.
"""

import math
import re
from html import escape

GLYPHS = {"good": "✓", "bad": "✗", "open": "≈", "waiting": "…", "same": "→", "opposite": "←"}
WORDS = {
    "good": ("holds", "replicated", "agrees", "supported"),
    "bad": ("does not hold", "not replicated", "disagrees", "contradicted"),
    "same": ("same direction",),  # a direction judges nothing: neither a tick nor a cross
    "opposite": ("opposite direction",),
    "waiting": ("incomplete", "shown"),
}


def judgements():
    """What all rules say, as plain data: rows (a verdict each), parts (an interval each), runs (record names by claim)."""
    from reslib.evidence import reruns, start
    from reslib.evidence.claims import claim_of, rules_at, verdicts
    from reslib.evidence.comparison import Runs
    from reslib.evidence.plan import SEEDS
    from reslib.record import records

    recorded = records()
    rows = verdicts(recorded)
    rows["of"] = [claim_of(rule).id for rule in rows.claim]
    rows["n"] = rows.n.map(str)
    parts, runs = [], {}
    for row in rows.to_dict("records"):
        if row["scale"] in SEEDS:
            chosen = Runs(row["scale"], recorded)
            parts += [interval(row, part) for part in rules_at(row["scale"])[row["claim"]](chosen)]
            runs.setdefault(row["of"], []).extend(r.name for one in chosen.asked.values() for r in one.found.values())
        elif row["scale"] == "public":
            parts += public(row, reruns)
        elif row["scale"] == "start":
            parts += [interval(row, part) for part in start.parts(start.table())]
    return {"rows": rows.to_dict("records"), "parts": parts, "runs": {c: sorted(set(names)) for c, names in runs.items()}}


def interval(row, part):
    """A rule's part as plain data; None for an end that is not known."""
    from reslib.evidence.comparison import minus

    values = (part.estimate, *part.interval()) if part.n else (None, None, None)
    mean, low, high = (float(x) if x is not None and math.isfinite(x) else None for x in values)
    return {"of": row["of"], "rule": row["claim"], "scale": row["scale"], "kind": row["kind"],
            "what": minus(part.what.rstrip(":")), "mean": mean, "low": low, "high": high, "threshold": part.threshold,
            "side": part.side, "unit": part.unit, "n": f"n = {part.n}", "told": str(part)}  # fmt: skip


def public(row, reruns):
    """The comparisons of public reruns as such parts, with every author's own value."""
    from reslib.evidence.comparison import interval as mean_of
    from reslib.evidence.rules import LEVEL

    found, table = [], reruns.effects(row["claim"])
    for one in (one for one in reruns.COMPARISONS if one.claim == row["claim"]):
        own = table[table.comparison == one.what]
        sized = own.effect[own.sized].tolist()
        mean, low, high = mean_of(sized) if len(sized) > 1 else (sized[0] if sized else None, None, None)
        found.append({
            "of": row["of"], "rule": row["claim"], "scale": "public", "kind": row["kind"], "what": one.what, "mean": mean,
            "low": low, "high": high, "threshold": 0.0 if one.side else LEVEL, "side": one.side,
            "unit": reruns.QUANTITIES[one.quantity][1],
            "n": f"{len(sized)} authors" if len(sized) != 1 else "1 author", "told": "", "net": one.first[0],
            "points": own[["author", "effect", "sized"]].values.tolist(),
        })  # fmt: skip
    return found


def look(verdict):
    """How a verdict's word is shown: a name of GLYPHS."""
    word = re.sub(r" \(.*| at initialisation|, not judged", "", verdict)
    return next((name for name, words in WORDS.items() if word in words), "open")


def chip(verdict, link="", about=""):
    """A verdict as a chip of word, glyph and colour; linked where there is a link."""
    kind = look(verdict)
    text = f'<span aria-hidden="true">{GLYPHS[kind]}</span> {escape(verdict)}' + (
        f" <small>{escape(about)}</small>" if about else ""
    )
    tag = f'a href="{link}"' if link else "span"
    return f'<{tag} class="chip chip-{kind}">{text}</{tag[:1] if link else tag}>'


def matrix(judged, themes, titles, kinds, split):
    """The table of claims by kinds of evidence. themes: by heading, claim ids; titles: by id; kinds: by scale."""
    heads = "".join(f'<th scope="col">{escape(kind)}</th>' for kind in kinds.values())
    lines = [f'<thead><tr><th scope="col">claim</th>{heads}</tr></thead>']
    for theme, claims in themes.items():
        lines.append(f'<tbody><tr class="theme"><th scope="rowgroup" colspan="{len(kinds) + 1}">{escape(theme)}</th></tr>')
        for claim in claims:
            cells = []
            for scale, kind in kinds.items():
                rows = [r for r in judged["rows"] if r["of"] == claim and r["scale"] == scale]
                found = " ".join(
                    chip(r["verdict"], f"claims.html#{claim.lower()}-{scale}", split.get(r["claim"], "")) for r in rows
                )
                cells.append(f'<td data-kind="{escape(kind)}">{found}</td>')
            name = f'<a href="claims.html#{claim.lower()}"><b>{claim}</b> {titles[claim]}</a>'
            lines.append(f'<tr><th scope="row">{name}</th>{"".join(cells)}</tr>')
        lines.append("</tbody>")
    caption = "<caption>The claims, and what each kind of evidence says of them. Every chip leads to its intervals.</caption>"
    around = '<div class="scrolls" tabindex="0" role="region" aria-label="Claims by kind of evidence">'
    return f'{around}<table class="matrix">{caption}{"".join(lines)}</table></div>'


def number(value, width):
    """Rounded to what an interval of this width supports, with a real minus sign."""
    digits = 0 if width >= 10 else 1 if width >= 1 else 2 if width >= 0.1 else 3
    return f"{value:,.{digits}f}".replace("-", "−")


def told(part, unit=True):
    """Mean [interval], unit and n of a part, as HTML."""
    if part["mean"] is None:
        return "no run yet" if "no run yet" in part["told"] or not part["told"] else escape(part["told"].split(":", 1)[-1])
    unit = f" {part['unit']}" if part["unit"] and unit else ""
    if part["low"] is None:
        return f"{number(part['mean'], abs(part['mean']))}{unit} ({part['n']})"
    width = part["high"] - part["low"]
    mean, low, high = (number(part[name], width) for name in ("mean", "low", "high"))
    return f"<b>{mean}</b> [{low}, {high}]{unit} ({part['n']})"


def domain(parts):
    """The ends of an axis that shows all these parts and their thresholds."""
    values = [0.0] if all(part["threshold"] == 0 for part in parts) else []
    for part in parts:
        bounds = [part["threshold"], -part["threshold"]] if part["side"] == 0 else [part["threshold"]]
        values += bounds + [x for x in (part["mean"], part["low"], part["high"]) if x is not None]
        values += [effect for _, effect, _ in part.get("points", ())]
    low, high = min(values), max(values)
    pad = 0.08 * (high - low or 1)
    return low - pad, high + pad


def plot(part, ends, axis=True):
    """One part as SVG: the claim's side shaded, the threshold, points, the mean and its interval."""
    low, high = ends

    def at(x):
        return f"{100 * min(max((x - low) / (high - low), 0), 1):.2f}%"

    edge, y = part["threshold"], 13
    inside = (-edge, edge) if part["side"] == 0 else (edge, high) if part["side"] > 0 else (low, edge)
    share = 100 * (inside[1] - inside[0]) / (high - low)
    drawn = [f'<rect class="side" x="{at(inside[0])}" width="{share:.2f}%" y="0" height="26"/>']
    drawn += [f'<line class="edge" x1="{at(x)}" x2="{at(x)}" y1="0" y2="26"/>' for x in inside if low < x < high]
    for i, (_, effect, sized) in enumerate(sorted(part.get("points", ()), key=lambda p: p[1])):
        drawn.append(f'<circle class="point{"" if sized else " hollow"}" cx="{at(effect)}" cy="{5 + 8 * (i % 3)}" r="3"/>')
    if part["low"] is not None:
        drawn.append(f'<line class="bar" x1="{at(part["low"])}" x2="{at(part["high"])}" y1="{y}" y2="{y}"/>')
    if part["mean"] is not None:
        drawn.append(f'<circle class="mean" cx="{at(part["mean"])}" cy="{y}" r="4.5"/>')
    marks = dict.fromkeys([*(x for x in inside if low < x < high), *nice(low, high)]) if axis else ()
    drawn += [f'<text x="{at(x)}" y="38">{x:g}</text>'.replace(">-", ">−") for x in marks]
    said = re.sub("<[^>]*>", "", f"{part['what']}: {told(part)}; the claim's side is {side(part)}")
    kind = " ".join(filter(None, ("forest-plot", part.get("net"))))
    size = f'width="100%" height="{40 if axis else 26}"'
    return f'<svg class="{kind}" {size} role="img" aria-label="{escape(said)}">{"".join(drawn)}</svg>'


def side(part):
    edge = f"{part['threshold']:g}".replace("-", "−")
    return f"within ±{edge}" if part["side"] == 0 else f"{'above' if part['side'] > 0 else 'below'} {edge}"


def nice(low, high):
    """Three to six round numbers inside an axis."""
    power = 10 ** math.floor(math.log10((high - low) / 3))
    step = next(power * k for k in (1, 2, 5, 10) if (high - low) / (power * k) <= 6)
    return [round(i * step, 10) for i in range(math.ceil(low / step), math.floor(high / step) + 1)]


def forest(claim, judged, kinds, split):
    """A claim's evidence as a table with a plot a row, kind by kind; what is counted is told in words."""
    lines = []
    for scale, kind in kinds.items():
        rows = [r for r in judged["rows"] if r["of"] == claim and r["scale"] == scale]
        for i, row in enumerate(rows):
            parts = [p for p in judged["parts"] if p["rule"] == row["claim"] and p["scale"] == scale]
            shown = [p for p in parts if p["mean"] is not None]
            ends = domain(shown) if shown else (0, 1)
            about = f": {escape(split[row['claim']])}" if row["claim"] in split else ""
            anchor = f' id="{claim.lower()}-{scale}"' if i == 0 else ""
            why = f"<p>{escape(sentence(row['why']))}</p>" if row["why"] else ""
            ours = f"<p>{escape(row['ours'])}</p>" if not parts else ""
            lines.append(f'<tr class="kind"{anchor}><th scope="rowgroup" colspan="2">{escape(kind)}{about}{why}{ours}</th>'
                         f"<td>{chip(row['verdict'])}</td></tr>")  # fmt: skip
            for part in parts:
                drawn = plot(part, ends) if part["mean"] is not None else ""
                lines.append(f'<tr><th scope="row">{escape(part["what"])}</th><td class="plot">{drawn}</td>'
                             f'<td class="found">{told(part)}</td></tr>')  # fmt: skip
    if not lines:
        return '<p class="none">Not judged yet: no run, no count and no public source that tells.</p>'
    return f'<table class="forest" aria-label="Evidence on {claim}">{"".join(lines)}</table>'


def sentence(text):
    return text[0].upper() + text[1:] + "." * (not text.endswith((".", ".)")))


def hero(judged):
    """The front page's figure: what depth does to plain and residual nets, in public reruns at the paper's scale."""
    depth = ("plain-56 − plain", "ResNet-56 − ResNet")
    rows = [p for p in judged["parts"] if p["scale"] == "public" and p["what"].startswith(depth)
            and p["unit"] == "points"]  # fmt: skip
    rows = sorted(
        {p["what"]: p for p in rows}.values(), key=lambda p: (p["net"] != "plain", "test error" in p["what"], p["what"])
    )
    ends = domain(rows)
    lines = [
        f'<tr><th scope="row">{escape(p["what"])}</th><td class="plot">{plot(p, ends, axis=p is rows[-1])}</td>'
        f'<td class="found">{told(p, unit=False)}</td></tr>'
        for p in rows
    ]
    lines.append('<tr><td class="axis">percentage points</td></tr>')
    return f'<table class="forest hero-plot" aria-label="What 36 more layers change, in public reruns">{"".join(lines)}</table>'


def tiles(counts):
    """Totals as tiles: (number, what it counts, link)."""
    made = "".join(f'<a class="tile" href="{link}"><b>{count}</b> {escape(what)}</a>' for count, what, link in counts)
    return f'<div class="tiles">{made}</div>'
