"""What the book's pages ask for: `{{ kind:name }}` in a page is replaced by a value computed here when it is built."""

import base64
import csv
import hashlib
import json
import os
import platform
import re
import subprocess
from datetime import UTC, datetime
from html import escape
from importlib import metadata
from pathlib import Path

import board
import live
import sections

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("reslib torch torchvision ffcv numpy scipy pandas scikit-learn numba matplotlib seaborn jupyterlab "
            "jupytext papermill jupyter-book sphinx myst-nb").split()  # fmt: skip
SCALES = {  # what the steps of a scale are done on
    "demo": "scikit-learn's digits, 16 × 16",
    "pocket": "CIFAR-10, averaged to 16 × 16",
    "night": "CIFAR-10 as published, 32 × 32",
    "paper": "CIFAR-10 as published, 32 × 32",
}


def fill(text, known):
    """The text with its values. Raises SystemExit for one that is not known."""

    def value(match):
        if match[1] not in known:
            raise SystemExit(f"book: nothing is known of {{{{ {match[1]} }}}}")
        return str(known[match[1]])

    return re.sub(r"\{\{\s*(\w+:[\w.]+)\s*\}\}", value, text)


def values(notebooks, kept=None):
    """All values, given the executed notebooks (each with its .json beside it). kept: where judgements are kept (a file)."""
    known = paper() | judged(judgements(kept)) | recipes() | chapters(notebooks) | evidence() | machine() | gpu() | cite()
    known |= live.values() | {"html:cards": cards(notebooks), "link:first": f"notebooks/{notebooks[0].stem}.html"}
    known["text:sections"] = sections.table(notebooks)
    return known


def judgements(kept):
    """`board.judgements`, made anew only if the package's code or a record has changed: it takes up to a minute."""
    from reslib.record import folder

    files = [
        *(ROOT / "reslib").rglob("*.py"),
        *(ROOT / "reslib").rglob("*.csv"),
        *folder().rglob("*.json"),
        *folder().rglob("*.xz"),
        Path(board.__file__),
    ]
    key = hashlib.sha256(b"".join(path.name.encode() + path.read_bytes() for path in sorted(files))).hexdigest()
    if kept and kept.exists() and (last := json.loads(kept.read_text()))["key"] == key:
        return last["judged"]
    made = board.judgements()
    if kept:
        kept.parent.mkdir(parents=True, exist_ok=True)
        part = kept.with_suffix(".part")
        part.write_text(json.dumps({"key": key, "judged": made}))
        os.replace(part, kept)
    return made


def paper():
    """paper:QUANTITY, as printed in the paper; 11.3e9 reads 11.3 billion."""
    with (ROOT / "reslib" / "evidence" / "paper.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    return {f"paper:{r['quantity']}": r["value"].replace("e9", " billion").replace("e6", " million") for r in rows}


def judged(made):
    """What the rules say of each claim, and of all of them in short. made: `board.judgements`."""
    import pandas as pd

    from reslib.evidence import reruns, rules_imagenet, start
    from reslib.evidence.claims import CLAIMS, KINDS, SPLIT, claim_of, decided, state, title
    from reslib.evidence.counted import COUNTED
    from reslib.evidence.rules import RULES

    rows = pd.DataFrame(made["rows"])
    titles, themes = headings()
    titles = {claim: fill(text, paper()) for claim, text in titles.items()}
    known = {
        "count:claims": len(CLAIMS),
        "count:paper_judged": decided(rows)["paper"],
        "text:state": state(rows),
        "text:rerun_rule": " ".join(reruns.RULE.split()),
        "html:matrix": board.matrix(
            made, themes, titles, {s: kind for s, kind in KINDS.items() if s in set(rows.scale)}, SPLIT
        ),
        "html:hero": board.hero(made),
        "html:tally": board.tiles(tally(rows)),
    }
    rules = [*RULES.items(), *rules_imagenet.RULES.items(), *COUNTED.items(), ("C22", start.judge)]
    for claim in CLAIMS:
        told = {"What would show it": [board.sentence(claim.would_show)]}
        own = [(name, rule) for name, rule in rules if claim_of(name).id == claim.id]
        if own:
            told["Rules"] = [f"{title(name)}: {board.sentence(' '.join(rule.__doc__.split()))}" for name, rule in own]
        known[f"where:{claim.id}"] = claim.where
        known[f"judged:{claim.id}"] = "\n\n".join([
            html(board.forest(claim.id, made, KINDS, SPLIT)),
            html(f'<p class="treated" data-claim="{claim.id.lower()}"></p>' + run_links(made["runs"].get(claim.id, ()))),
            ":::{dropdown} Its rules",
            "\n\n".join(f"{term}\n: " + "\n: ".join(lines) for term, lines in told.items()),
            ":::",
        ])  # fmt: skip
    for row in made["rows"]:
        known[f"ours:{row['scale']}.{row['claim']}"] = row["ours"]
        known |= said(row)
    for part in made["parts"]:  # part:SCALE.RULE is the first part, part:SCALE.RULE.2 the second
        key, text = f"part:{part['scale']}.{part['rule']}", re.sub("<[^>]*>", "", board.told(part))
        known[f"{key}.{1 + sum(k.startswith(f'{key}.') for k in known)}"] = text
        known.setdefault(key, text)
    return known | public_words()


def public_words():
    """What public reruns say of C1 and of C7, in numbers that are not in the table of parts."""
    from reslib.evidence import reruns
    from reslib.evidence.comparison import interval

    faster = reruns.effects("C7a").query("sized").effect
    mean, low, high = (f"{2**end:.1f}" for end in interval(faster))
    level = reruns.effects("C7b").query("sized").effect
    assert not level.mean() <= 0  # the word below
    return {
        "text:public_c1": reruns.figure_1(),
        "text:public_c7": f"plain-20 needs {mean} [{low}, {high}] times the iterations of ResNet-20, and tests "
        f"{reruns.told(level)} points worse",
    }


def html(text):
    """As a block of its own in a page."""
    return f"```{{raw}} html\n{text}\n```"


def headings():
    """The claims' titles by id, and their ids by theme, as the claims page has them."""
    titles, themes, theme = {}, {}, ""
    for line in (ROOT / "book" / "claims.md").read_text(encoding="utf-8").splitlines():
        if found := re.match(r"### (C\d+) · (.+)", line):
            titles[found[1]] = found[2]
            themes.setdefault(theme, []).append(found[1])
        elif line.startswith("## "):
            theme = line[3:]
    return titles, themes


def run_links(names):
    """The records that a claim's rules have read, as links into the book's copy of them."""
    links = " ".join(f'<a href="records/{name}.json">{name}</a>' for name in names)
    return f'<details class="runs"><summary>{len(names)} recorded runs (JSON)</summary>{links}</details>' if names else ""


def tally(rows):
    """How many claims each kind of evidence has decided, for the tiles of the first page and of the status page."""
    from reslib.evidence.claims import CLAIMS, decided

    count = decided(rows)
    words = {
        "paper": "claims tested by our own runs at the paper's scale",
        "public": "judged by public runs at the paper's scale",
        "counted": "counted, exactly",
        "pocket": "shown by short training: directions only",
    }
    return [(f"{count[scale]} of {len(CLAIMS)}", what, "claims.html") for scale, what in words.items()]


def said(row):
    """says:SCALE.RULE.VERDICT, for prose that fits one verdict alone: the build fails where the verdict is another."""
    word = re.sub(r" \(.*", "", row["verdict"]).replace(" ", "_")
    return {f"says:{row['scale']}.{row['claim']}.{word}": row["of"]}


def cards(notebooks):
    """The chapters as cards: number, title, what the paper says, and the first figure in small (build.py has put it there)."""
    made = []
    for number, path in enumerate(notebooks, 1):
        prose = "\n".join("".join(c["source"]) for c in json.loads(path.read_text())["cells"] if c["cell_type"] == "markdown")
        found = re.search(r"\*\*The paper says:\*\*\s*(.+?)(?=\n>\s*\n|\n\n|\Z)", prose, re.S)
        says = re.sub(r"[*_`$\\]|\{[^}]*\}", "", re.sub(r"\s*\n>?\s*", " ", found[1])) if found else ""
        says = says if len(says) < 170 else says[:160].rsplit(" ", 1)[0] + " …"
        says, small = f"The paper says: {says}", thumbnail(path)
        image = f'<img src="_static/thumbs/{path.stem}.{small[0]}" alt="" loading="lazy">' if small else ""
        text = f"<span><b>{number} · {escape(title(path))}</b> {escape(says)}</span>"
        made.append(f'<a class="chapter" href="notebooks/{path.stem}.html">{image}{text}</a>')
    return html(f'<div class="chapters">{"".join(made)}</div>')


def thumbnail(notebook):
    """The first figure of an executed notebook: its file's ending and its bytes; None where it has none."""
    for cell in json.loads(notebook.read_text(encoding="utf-8"))["cells"]:
        if "figure" in cell["metadata"].get("mystnb", {}):
            for output in cell.get("outputs", []):
                data = {
                    kind: value if isinstance(value, str) else "".join(value) for kind, value in output.get("data", {}).items()
                }
                if drawn := alone(data.get("text/html", "")):
                    return "svg", drawn.encode()
                if "image/svg+xml" in data:
                    return "svg", data["image/svg+xml"].encode()
                if "image/png" in data:
                    return "png", base64.b64decode(data["image/png"])
    return None


def alone(page):
    """The first drawing in a piece of a page, as a file of its own on a white ground; None where there is none."""
    if found := re.search(r'<svg class="(plot-wide" .*?style=")(.*?</svg>)', page, re.S):
        look = "color-scheme:light;font-family:sans-serif;"
        return f'<svg xmlns="http://www.w3.org/2000/svg" class="drawn {found[1]}{look}{found[2]}'
    return None


def cite():
    """How to cite: BibTeX of the book, from CITATION.cff, and the address of the repository where there is one."""
    import yaml

    about = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    authors = " and ".join(one.get("name") or f"{one['family-names']}, {one['given-names']}" for one in about["authors"])
    fields = {"title": "{" + about["title"] + "}", "author": "{" + authors + "}", "version": about.get("version"),
              "year": str(about.get("date-released", ""))[:4], "url": about.get("repository-code")}  # fmt: skip
    lines = [f"  {name} = {{{value}}}" for name, value in fields.items() if value]
    return {"text:bibtex": "@software{reslib,\n" + ",\n".join(lines) + "\n}"}


def recipes():
    from reslib import CIFAR
    from reslib.recipes import DEPARTURES
    from reslib.record import records

    minutes = {scale: runs.seconds / 60 for scale, runs in records().groupby("scale")}
    cost = {scale: f"{between([round(of.min()), round(of.max())])} minutes, as recorded" for scale, of in minutes.items()}
    cost = {"demo": "seconds, in every build", "paper": "not run yet"} | cost
    rows = [[f"**{name}**", data, f"{CIFAR.at(name).steps:,}", cost.get(name, "not run yet")] for name, data in SCALES.items()]
    return {
        "table:scales": markdown(["scale", "data", "steps", "a run takes"], rows),
        "hours:pocket": f"{minutes['pocket'].sum() / 60:.0f}" if "pocket" in minutes else "no",
        "table:departures": markdown(["what", "the question", "done here"], DEPARTURES),
    }


def chapters(notebooks):
    runs = {path.stem: json.loads(path.with_suffix(".json").read_text()) for path in notebooks}
    link = {path.stem: f"[{title(path)}](notebooks/{path.name})" for path in notebooks}
    times = [
        [link[stem], date(r["start"]), f"{r['seconds']:.0f} s", megabytes(r["peak_mb"]), code(r["commit"], r["clean"])]
        for stem, r in runs.items()
    ]
    given = [[link[stem], ", ".join(f"`{n} = {v}`" for n, v in r["parameters"].items())] for stem, r in runs.items()]
    return {
        "list:chapters": "\n".join(f"1. {line}" for line in link.values()),
        "table:runs": markdown(["chapter", "run on", "time", "peak memory", "commit"], times),
        "table:parameters": markdown(["chapter", "parameters"], given),
    }


def megabytes(amount):
    return f"{amount:,} MB" if amount else "not measured"


def title(notebook):
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    prose = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")
    return re.search(r"^# (.+)", prose, re.M)[1]


def evidence():
    from reslib import CIFAR
    from reslib.evidence.comparison import unstarted
    from reslib.evidence.plan import PLAN, SEEDS, changes, table
    from reslib.record import records

    rows = records()
    deep = rows[(rows.scale == "pocket") & (rows.shortcut == "none") & (rows.steps == CIFAR.at("pocket").steps)]
    deep = deep[[not changes(record.recipe) for record in deep.record]]  # without the treatments of chapter 1
    planned = table(rows)
    done = planned.groupby(["plan", "scale"])[["recorded", "runs"]].sum()
    planned["all"] = planned.runs * planned.hours
    cost = planned.groupby("scale", sort=False)[["runs", "recorded", "all"]].sum().itertuples()
    cost = [tuple(row) for row in cost]
    plan = [
        [
            group.name,
            group.why,
            group.claims,
            *(" of ".join(map(str, done.loc[group.name, s])) if s in group.scales else "" for s in SEEDS),
        ]
        for group in PLAN
    ]
    rows.loc[rows.scale == "extension", "data"] = "Imagenette"
    rows["with"] = [changes(record.recipe) for record in rows["record"]]
    rows["net"] = [record.recipe.told for record in rows["record"]]
    lines = [
        [*names, seeds(runs), between(runs["date"]), between(runs["device"]),
         ", ".join(sorted({code(c[:10], not dirty) for c, dirty in zip(runs["commit"], runs["dirty"], strict=True)}))]
        for names, runs in (rows.groupby(["data", "net", "with", "scale"], sort=False) if len(rows) else ())
    ]  # fmt: skip
    where = {"extension": "on other photographs"}
    totals = [(f"{row[2]} of {row[1]}", f"planned runs {where.get(row[0], f'at {row[0]} scale')} are recorded", "rerun.html")
              for row in cost]  # fmt: skip
    paper = next((row for row in cost if row[0] == "paper"), ("paper", 0, 0, 0))
    return {
        "html:board": board.tiles(totals),
        "count:paper_planned": paper[1],
        "table:changes": changed(),
        "table:records": markdown(["data", "net", "with", "scale", "seeds", "recorded", "on", "commit"], lines),
        "table:plan": markdown(["group", "runs", "for", *SEEDS], plan),
        "table:cost": markdown(["scale", "runs", "recorded", "hours of all"], [[*row[:3], f"{row[3]:,.0f}"] for row in cost]),
        "table:precision": precision(rows),
        "count:paper_runs": (rows.scale == "paper").sum(),
        "text:never": unstarted(deep.sort_values("depth").record),
    }


def precision(rows):
    """The night runs that are recorded in both precisions, from the same seed: their errors side by side."""
    night = rows[rows.scale == "night"]
    night = night.assign(precision=[record.recipe.precision for record in night.record])
    errors = ["train_error", "test_error"]
    pairs = night.pivot(index=["net", "seed"], columns="precision", values=errors) if len(night) else night
    lines = [[*of, *(f"{pair[error][kind]:.2f}" for error in errors for kind in ("tf32", "bf16"))]
             for of, pair in (pairs.dropna().iterrows() if "bf16" in set(night.precision) else ())]  # fmt: skip
    said = [f"{kind} error (%), {what}" for kind in ("training", "test") for what in ("float32", "bfloat16")]
    return markdown(["net", "seed", *said], lines) if lines else "*No such pair is recorded yet.*"


def seeds(runs):
    """The seeds of some runs, each a link to the record."""
    found = sorted(zip(runs["seed"], runs["name"], strict=True))
    return ", ".join(f'<a href="records/{name}.json">{seed}</a>' for seed, name in found)


def changed():
    """The commits that changed the evidence, as a table; a word where there is no git."""
    paths = [
        "notebooks/records",
        *(f"reslib/evidence/{name}" for name in ("rules.py", "counted.py", "paper.csv", "reruns.csv")),
    ]
    try:
        done = subprocess.run(["git", "-C", str(ROOT), "log", "--format=%cs|%h|%s", "-n", "60", "--no-merges", "--", *paths],
                              capture_output=True, text=True, check=True)  # fmt: skip
    except (OSError, subprocess.CalledProcessError):
        return "*Not known: this copy was built outside a git checkout.*"
    rows = [line.split("|", 2) for line in done.stdout.splitlines()]
    return markdown(["date", "commit", "what"], [[day, f"`{commit}`", what] for day, commit, what in rows])


def between(values):
    found = sorted(set(values))
    return f"{found[0]}" if len(found) == 1 else f"{found[0]} to {found[-1]}"


def machine():
    import torch

    info = Path("/proc/cpuinfo")
    model = re.search(r"model name\s*: (.+)", info.read_text()) if info.exists() else None
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30 if hasattr(os, "sysconf") else 0
    what = {
        "processor": model[1] if model else platform.processor(),
        "cores": os.cpu_count(),
        "memory": f"{memory:.0f} GiB" if memory else "unknown",
        "system": system(),
        "Python": platform.python_version(),
    }
    return {
        "table:machine": markdown(["what", "value"], what.items()),
        "table:packages": markdown(["package", "version"], [[name, version(name)] for name in PACKAGES]),
        "build:date": date(datetime.now().timestamp()),
        "build:commit": code(*revision()),
        "build:cuda": torch.version.cuda or "no GPU here",
    }


def gpu():
    """What was measured on a GPU, by the newest of its benchmarks."""
    from reslib.record import folder

    found = json.loads(max((folder() / "bench").glob("gpu-*.json"), key=lambda path: path.stem[-10:]).read_text())
    rate = [row.get("iterations_per_second") or 1e3 / row["ms"] for row in found["rows"]]
    lines = [
        [row["net"], row["how"], row["runs"], f"{1e3 * row['runs'] / each:.2f}", "" if "part" in row else f"{each:,.0f}"]
        for row, each in zip(found["rows"], rate, strict=True)
    ]
    apart = found["largest_relative_difference_of_the_first_ten_losses"]
    on = f"{found['device']}, {found['date']}, batches of {found['batch']}"
    return {
        "table:gpu": markdown([on, "how", "runs at once", "ms an iteration", "iterations a second, together"], lines),
        "gpu:graph": f"{apart['graph against plain loop']:.1%}",
        "gpu:compiled": f"{apart['compiled graph against plain loop']:.1%}",
        "gpu:loop": f"{apart['plain loop against itself']:.1%}",
    }


def system():
    try:
        return f"{platform.freedesktop_os_release()['PRETTY_NAME']}, {platform.machine()}"
    except OSError:
        return platform.platform()


def version(package):
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


def revision():
    """The commit in short, and whether nothing beside it is in the tree."""

    def git(*words):
        done = subprocess.run(["git", "-C", str(ROOT), *words], capture_output=True, text=True, check=True)
        return done.stdout.strip()

    try:
        return git("rev-parse", "--short=10", "HEAD"), not git("status", "--porcelain")
    except (OSError, subprocess.CalledProcessError):  # no git, or no repository
        return "unknown", True


def code(commit, clean):
    return f"`{commit}`" + ("" if clean else " with uncommitted changes")


def date(seconds):
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M UTC")


def markdown(header, rows):
    """A Markdown table, or a word where there is nothing to put into it."""
    rows = list(rows)
    if not rows:
        return "*None yet.*"
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |" for line in lines)
