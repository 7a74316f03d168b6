"""What the book's pages ask for: `{{ kind:name }}` in a page is replaced by a value computed here when it is built."""

import csv
import json
import os
import platform
import re
import subprocess
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("reslib torch torchvision ffcv numpy scipy pandas scikit-learn numba matplotlib seaborn jupyterlab "
            "jupytext papermill jupyter-book sphinx myst-nb sphinx-mathjax-offline").split()  # fmt: skip
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


def values(notebooks):
    """All values, given the executed notebooks (each with its .json beside it)."""
    return paper() | judged() | recipes() | chapters(notebooks) | evidence() | machine() | gpu()


def paper():
    """paper:QUANTITY, as printed in the paper; 11.3e9 reads 11.3 billion."""
    with (ROOT / "reslib" / "evidence" / "paper.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    return {f"paper:{r['quantity']}": r["value"].replace("e9", " billion").replace("e6", " million") for r in rows}


def judged():
    """What reslib.evidence.claims says of each claim, and of all of them in short."""
    from reslib.evidence import reruns, start
    from reslib.evidence.claims import CLAIMS, KINDS, SPLIT, all_verdicts, claim_of, state, title
    from reslib.evidence.counted import COUNTED
    from reslib.evidence.rules import RULES

    rows = all_verdicts()
    rows["of"] = [claim_of(rule).id for rule in rows.claim]
    found = {claim.id: rows[rows.of == claim.id].to_dict("records") for claim in CLAIMS}
    known = {
        "count:claims": len(CLAIMS),
        "text:state": state(rows),
        "text:rerun_rule": " ".join(reruns.RULE.split()),
        "table:overview": markdown(
            ["claim", "what it says", *KINDS.values()],
            [
                [f"[{c.id}](#{c.id.lower()})", c.text, *(in_short(found[c.id], scale, SPLIT) for scale in KINDS)]
                for c in CLAIMS
            ],
        ),
        "table:public": markdown(
            ["claim", "found, mean [95 % interval]", "verdict"],
            [[f"[{r['of']}](#{r['of'].lower()})", minus(r["ours"]), r["verdict"]] for c in CLAIMS for r in found[c.id]
             if r["scale"] == "public"],
        ),
    }  # fmt: skip
    rules = [*RULES.items(), *COUNTED.items(), ("C22", start.judge)]
    for claim in CLAIMS:
        told = {"What would show it": [sentence(claim.would_show)]}
        own = [(name, rule) for name, rule in rules if claim_of(name).id == claim.id]
        if own:
            told["Rules"] = [f"{title(name)}: {sentence(' '.join(rule.__doc__.split()))}" for name, rule in own]
        told["Verdicts"] = [verdict(row, title) for row in found[claim.id]] or ["not judged yet"]
        known[f"where:{claim.id}"] = claim.where
        known[f"judged:{claim.id}"] = "\n\n".join(f"{term}\n: " + "\n: ".join(lines) for term, lines in told.items())
        for row in found[claim.id]:
            known[f"ours:{row['scale']}.{row['claim']}"] = minus(row["ours"])
            known |= said(row)
    return known


def said(row):
    """says:SCALE.RULE.VERDICT, for prose that fits one verdict alone: the build fails where the verdict is another."""
    word = re.sub(r" \(.*", "", row["verdict"]).replace(" ", "_")
    return {f"says:{row['scale']}.{row['claim']}.{word}": f"[{row['of']}](#{row['of'].lower()})"}


def minus(text):
    """Hyphens before numbers and between nets as minus signs."""
    return re.sub(r"(?<![\w)])-(?=\d)| - ", lambda m: "−" if m[0] == "-" else " − ", text)


def sentence(text):
    return text[0].upper() + text[1:] + "." * (not text.endswith((".", ".)")))


def verdict(row, title):
    n = "" if row["n"] == "exact" else f", n = {row['n']}"
    why = f" ({row['why']})" if row["why"] else ""
    return f"**{row['verdict']}** ({title(row['claim'])}; {row['kind']}{n}){why}: {minus(row['ours'])}"


def in_short(rows, scale, split):
    rows = [row for row in rows if row["scale"] == scale]
    return "; ".join(row["verdict"] + f" ({split.get(row['claim'])})" * (row["claim"] in split) for row in rows)


def key_figure(path):
    """The front page's figure, as SVG: the differences between deep and shallow nets that public reruns found."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    from reslib.evidence import figures, plots, reruns

    plots.style()
    plt.rcParams.update({"svg.hashsalt": "reslib", "svg.fonttype": "none"})
    chosen = {"C1": "plain", "C13": "plain", "C5": "resnet"}
    rows = {}
    for claim, net in chosen.items():
        for what, table in reruns.effects(claim).groupby("comparison", sort=False):
            if what.startswith(("plain-56", "ResNet-56")):
                rows[what] = (net, table, None)
    figure, ax = plt.subplots(figsize=(8, 2.6))
    figures.strips(rows, ax)
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


def recipes():
    from reslib import CIFAR
    from reslib.recipes import DEPARTURES
    from reslib.record import records

    minutes = {scale: runs.seconds / 60 for scale, runs in records().groupby("scale")}
    cost = {scale: f"{of.min():.0f} to {of.max():.0f} minutes, as recorded" for scale, of in minutes.items()}
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
    planned = table(rows)
    done = planned.groupby(["plan", "scale"])[["recorded", "runs"]].sum()
    planned["all"] = planned.runs * planned.hours
    cost = planned.groupby("scale", sort=False)[["runs", "recorded", "all"]].sum().itertuples()
    plan = [
        [
            group.name,
            group.why,
            group.claims,
            *(" of ".join(map(str, done.loc[group.name, s])) if s in group.scales else "" for s in SEEDS),
        ]
        for group in PLAN
    ]
    rows["with"] = [changes(record.recipe) for record in rows["record"]]
    lines = [
        [*names, ", ".join(map(str, sorted(runs["seed"]))), between(runs["date"]), between(runs["device"]),
         ", ".join(sorted({code(c[:10], not dirty) for c, dirty in zip(runs["commit"], runs["dirty"], strict=True)}))]
        for names, runs in (rows.groupby(["data", "net", "with", "scale"], sort=False) if len(rows) else ())
    ]  # fmt: skip
    return {
        "table:records": markdown(["data", "net", "with", "scale", "seeds", "recorded", "on", "commit"], lines),
        "table:plan": markdown(["group", "runs", "for", *SEEDS], plan),
        "table:cost": markdown(["scale", "runs", "recorded", "hours of all"], [[*row[:3], f"{row[3]:,.0f}"] for row in cost]),
        "count:paper_runs": (rows.scale == "paper").sum(),
        "text:never": unstarted(deep.sort_values("depth").record),
    }


def between(values):
    found = sorted(set(values))
    return found[0] if len(found) == 1 else f"{found[0]} to {found[-1]}"


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
