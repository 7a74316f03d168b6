"""Build the book: run every notebook, fill the pages with computed numbers, call jupyter-book, check the result.

    python book/build.py        # what `make book` does; the book is then book/_build/html/index.html

A notebook is not run again while its source, reslib, the records and the installed packages are those of its last run.
"""

import argparse
import hashlib
import html
import html.parser
import json
import os
import re
import shutil
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path

import pages

BOOK = Path(__file__).resolve().parent
ROOT = BOOK.parent
ASSETS = ("references.bib", "_static")
MATHJAX = "d4295dc33744836935c1399feece5159577b34c5c8ffb9f1c6324cd82e03a882"  # sha256 of es5/tex-svg.js, 3.2.2


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--notebooks", type=Path, default=ROOT / "notebooks", help="the chapters' folder")
    parser.add_argument("--out", type=Path, default=BOOK, help="the folder in which _build is made")
    parser.add_argument("--scale", help="run the notebooks at this scale instead of their own default")
    options = parser.parse_args()
    print(f"The book: {build(options.notebooks.resolve(), options.out.resolve(), options.scale)}")


def build(folder, out, scale=None):
    """Make the book of the notebooks in `folder` and return its first page. Raises SystemExit, saying what failed."""
    stage, site = out / "_build" / "stage", out / "_build" / "html"
    notebooks = sorted(folder.glob("*.ipynb"))
    done = [run(notebook, out / "_build" / "executed", scale) for notebook in notebooks]

    shutil.rmtree(stage, ignore_errors=True)
    (stage / "notebooks").mkdir(parents=True)
    for notebook in done:
        (stage / "notebooks" / notebook.name).write_text(json.dumps(still(read(notebook))))
    for name in ASSETS:
        (shutil.copytree if (BOOK / name).is_dir() else shutil.copy)(BOOK / name, stage / name)
    pages.key_figure(stage / "_static" / "key.svg")
    known = pages.values(done)
    for page in sorted(BOOK.glob("*.md")):
        (stage / page.name).write_text(pages.fill(page.read_text(encoding="utf-8"), known), encoding="utf-8")

    shutil.rmtree(site, ignore_errors=True)  # no page of a chapter that is gone
    call("-c", "from jupyter_book.cli.main import main; main()", "build", "-W", "-n", "--keep-going", "--all",
         "--config", BOOK / "_config.yml", "--toc", BOOK / "_toc.yml", "--path-output", out, stage,
         failure="the book was not built: jupyter-book says why above")  # fmt: skip
    copy_mathjax(site / "_static" / "mathjax")  # now: jupyter-book loads every script that it finds in _static
    for notebook in notebooks:  # the script form, for the download menu
        if notebook.with_suffix(".py").exists():
            shutil.copy(notebook.with_suffix(".py"), site / "_sources" / "notebooks")
    if fetched := network(site):
        raise SystemExit("the book would use the network:\n" + "\n".join(fetched))
    return site / "index.html"


def run(source, folder, scale=None):
    """Run a notebook into `folder` and return the result's path; beside it a .json says when, how long, from what."""
    import papermill

    out, sidecar = folder / source.name, folder / f"{source.stem}.json"
    folder.mkdir(parents=True, exist_ok=True)
    defaults = {name: parameter["default"] for name, parameter in papermill.inspect_notebook(str(source)).items()}
    changed = {"scale": scale} if scale and "scale" in defaults else {}
    key = fingerprint(source, changed)
    if out.exists() and sidecar.exists() and json.loads(sidecar.read_text())["key"] == key:
        print(f"{source.name}: nothing it depends on has changed, its last run stands", flush=True)
        return out
    print(f"{source.name}: running", flush=True)
    sidecar.unlink(missing_ok=True)
    start, (commit, clean) = time.time(), pages.revision()
    given = [word for name, value in changed.items() for word in ("-p", name, value)]
    used = call("-m", "papermill", source, out, "--cwd", source.parent, "--progress-bar", *given,
                failure=lambda: f"{source.name} failed: {error_in(out) or 'papermill says why above'}")  # fmt: skip
    sidecar.write_text(json.dumps({
        "key": key, "commit": commit, "clean": clean, "start": start, "seconds": time.time() - start, "peak_mb": used,
        "parameters": {**defaults, **changed},
    }, indent=1))  # fmt: skip
    return out


def fingerprint(source, changed):
    """A hash of all that an executed notebook depends on."""
    from reslib.record import folder

    evidence = folder()
    digest = hashlib.sha256(json.dumps([changed, sys.version, str(evidence), os.environ.get("RESLIB_DATA")]).encode())
    digest.update("\n".join(sorted(f"{d.name}=={d.version}" for d in metadata.distributions())).encode())
    code = [path for path in sorted((ROOT / "reslib").rglob("*")) if path.suffix in (".py", ".csv")]
    for path in [source, *code, *(path for path in sorted(evidence.rglob("*")) if path.suffix in (".json", ".xz"))]:
        digest.update(f"\n{path.name}\n".encode() + path.read_bytes())
    return digest.hexdigest()


def call(*words, failure):
    """Run a Python program to its end and return its peak memory in MB (None where the system does not tell)."""
    here = {name: value for name, value in os.environ.items() if name != "MPLBACKEND"}  # figures belong into the page
    process = subprocess.Popen([sys.executable, *map(str, words)], env=here)
    if hasattr(os, "wait4"):
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)  # known now: Popen need not wait
    if process.wait():
        raise SystemExit(failure() if callable(failure) else failure)
    return round(used.ru_maxrss / (1024 if sys.platform == "linux" else 1024**2)) if hasattr(os, "wait4") else None


def error_in(notebook):
    """The error that a notebook stopped at, in one line; papermill leaves it in the file."""
    cells = read(notebook)["cells"] if notebook.exists() else []
    errors = [o for cell in cells for o in cell.get("outputs", []) if o["output_type"] == "error"]
    return f"{errors[-1]['ename']}: {errors[-1]['evalue']}" if errors else ""


def read(notebook):
    return json.loads(notebook.read_text(encoding="utf-8"))


def still(notebook):
    """The notebook without what a page cannot use: progress bars become text, as they stood at the end; other widgets,
    and what the last line of a figure's cell happens to return ("Text(0.5, 0.98, ...)"), are left out."""
    kind = "application/vnd.jupyter.widget-{}+json".format
    widgets = notebook["metadata"].pop("widgets", {}).get(kind("state"), {"state": {}})["state"]
    models = {name: model["state"] for name, model in widgets.items()}
    for cell in notebook["cells"]:
        for output in cell.get("outputs", []):
            if view := output.get("data", {}).pop(kind("view"), None):
                parts = [models.get(name[10:], {}) for name in models.get(view["model_id"], {}).get("children", [])]
                said = " ".join(html.unescape(p["value"]) for p in parts if isinstance(p.get("value"), str))
                said = " ".join(said.replace("\u2007", " ").split())  # tqdm pads with figure spaces
                output["data"] = {"text/plain": said} if len(parts) == 3 and said else {}
            if "figure" in cell["metadata"].get("mystnb", {}) and list(output.get("data", {})) == ["text/plain"]:
                output["data"] = {}
        if "outputs" in cell:
            cell["outputs"] = [output for output in cell["outputs"] if output.get("data") != {}]
    return notebook


def copy_mathjax(target):
    """MathJax 3, one file with its fonts, from the package that carries it."""
    package = metadata.distribution("sphinx-mathjax-offline")
    source = Path(package.locate_file("sphinx-mathjax-offline/static/mathjax/tex-svg.js"))
    if hashlib.sha256(source.read_bytes()).hexdigest() != MATHJAX:
        raise SystemExit(f"{source} is not the tex-svg.js of MathJax 3.2.2.")
    target.mkdir(parents=True)
    shutil.copy(source, target)


class Loads(html.parser.HTMLParser):
    """Collects the addresses that a page makes a browser load. (What a reader may click is not loaded.)"""

    def __init__(self, page):
        super().__init__()
        self.urls, self.open = [], None
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.open, found = tag, dict(attributes)
        if tag in ("a", "area") or found.get("rel") in ("canonical", "author", "license"):
            return
        self.urls += [found[name] for name in ("src", "href", "data", "poster", "xlink:href") if found.get(name)]
        self.urls += [part.split()[0] for part in (found.get("srcset") or "").split(",") if part.strip()]
        self.urls += in_css(found.get("style") or "")

    def handle_data(self, data):
        self.urls += in_css(data) if self.open == "style" else []


def in_css(text):
    return [a or b for a, b in re.findall(r"""url\(\s*['"]?([^'")]+)|@import\s+['"]([^'"]+)""", text)]


def network(site):
    """What the pages and styles of a site would load from the network, as "file: address"."""
    found = []
    for path in sorted(path for path in site.rglob("*") if path.suffix in (".html", ".css")):
        text = path.read_text(encoding="utf-8")
        urls = Loads(text).urls if path.suffix == ".html" else in_css(text)
        found += [f"{path.relative_to(site)}: {u}" for u in urls if re.match(r"\s*(https?:|ftp:|wss?:)?//", u, re.I)]
    return found


if __name__ == "__main__":
    main()
