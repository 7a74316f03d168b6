"""The page "The paper, section by section": where the book treats each part of the paper, made from anchors in the chapters.

An anchor is a line `(paper-3-2-free)=` before a heading of a chapter. What of the paper it stands for is said in sections.csv;
the claims have anchors of their own, `(paper-c8)=`. An anchor that is lost, or in two places, stops the build.
"""

import csv
import json
import re
from itertools import groupby
from pathlib import Path

from reslib.evidence.reported import CLAIMS

TABLE = Path(__file__).with_suffix(".csv")
LABEL, HEADING = re.compile(r"\((paper-[\w-]+)\)="), re.compile(r"#+ (.+)")


def items():
    """The parts of the paper, in its order: (where, what it says, anchors, a note where it is left out)."""
    with TABLE.open(encoding="utf-8", newline="") as file:
        rows = [(row["where"], row["what"], row["anchors"].split(), row["note"]) for row in csv.DictReader(file)]
    return rows + [("Claims", f"[{c.id}](#{c.id.lower()}): {c.text}", [f"paper-{c.id.lower()}"], "") for c in CLAIMS]


def places(notebooks):
    """Where the anchors stand, as links: "Residual learning: Why depth". Raises SystemExit for one that stands twice."""
    found = {}
    for notebook in notebooks:
        cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
        lines = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown").splitlines()
        title, waiting = next(filter(None, map(HEADING.fullmatch, lines)))[1], []
        for line in lines:
            if label := LABEL.fullmatch(line.strip()):
                if label[1] in found or label[1] in waiting:
                    raise SystemExit(f"{notebook.name}: the anchor ({label[1]})= stands in a second place.")
                waiting.append(label[1])
            elif heading := HEADING.fullmatch(line):
                found |= {name: f"[{title}: {heading[1]}](#{name})" for name in waiting}
                waiting = []
    return found


def table(notebooks):
    """The page's tables, as Markdown. Raises SystemExit for an anchor that no chapter has, or that sections.csv does not."""
    rows, found = items(), places(notebooks)
    asked = dict.fromkeys(name for _, _, anchors, _ in rows for name in anchors)
    if lost := [name for name in asked if name not in found]:
        raise SystemExit(f"no chapter has ({lost[0]})= before a heading, which sections.csv asks for.")
    if strange := [name for name in found if name not in asked]:
        raise SystemExit(f"a chapter has the anchor ({strange[0]})=, which sections.csv does not have.")
    lines = []
    for where, of in groupby(rows, key=lambda row: row[0]):
        lines += [f"\n## {where}\n", "| the paper | this book |", "| --- | --- |"]
        lines += [
            f"| {what} | {'; '.join(dict.fromkeys([found[name] for name in anchors] + [note] * bool(note)))} |"
            for _, what, anchors, note in of
        ]
    return "\n".join(lines)
