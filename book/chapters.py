"""The chapters: which notebooks they are, and running each of them once for everything that it depends on.

A chapter is not run again while its source, its parameters, the installed packages, and the files of reslib and the records
that its last run has read are the same.
"""

import hashlib
import html
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from importlib import metadata
from pathlib import Path

import pages
import yaml

BOOK = Path(__file__).resolve().parent
ROOT = BOOK.parent
VERBOSE = os.environ.get("V", "0") not in ("", "0")  # make book V=1: all that the tools say


def listed(folder):
    """The chapters in `folder`: the notebooks that the table of contents takes in, without Jupyter's copies of them.

    Raises SystemExit if there is none.
    """
    toc = yaml.safe_load((BOOK / "_toc.yml").read_text(encoding="utf-8"))
    pattern = next(entry["glob"] for part in toc["parts"] for entry in part["chapters"] if "glob" in entry)
    found = sorted(p for p in folder.glob(pattern.removeprefix("notebooks/") + ".ipynb") if "-Copy" not in p.stem)
    if not found:
        raise SystemExit(f"{folder} holds no chapter: one is called NN_name.ipynb.")
    return found


def follow(notebook):
    """Bring a pair in line where its .py and its .ipynb differ: the younger one is taken. Says so."""
    import jupytext

    script = notebook.with_suffix(".py")
    if not script.exists():
        return
    if jupytext.writes(jupytext.read(notebook), "py:percent").strip() == script.read_text(encoding="utf-8").strip():
        return
    young, old = sorted((script, notebook), key=lambda path: path.stat().st_mtime, reverse=True)
    print(f"{young.name} is younger than {old.name}, which now follows it", flush=True)
    call("-m", "jupytext", "--quiet", "--sync", young, failure=f"jupytext cannot bring {script.name} and its .ipynb in line")


def run(source, folder, scale=None, place="chapter"):
    """Run a notebook into `folder` and return the result's path; beside it a .json says when, how long, from what."""
    import papermill

    out, sidecar = folder / source.name, folder / f"{source.stem}.json"
    folder.mkdir(parents=True, exist_ok=True)
    defaults = {name: parameter["default"] for name, parameter in papermill.inspect_notebook(str(source)).items()}
    changed = {"scale": scale} if scale and "scale" in defaults else {}
    key, last = fingerprint(source, changed), json.loads(sidecar.read_text()) if out.exists() and sidecar.exists() else {}
    if last.get("key") == key and last["read"] == hashes(last["read"]):
        print(f"{place}, {source.stem}: unchanged, its last run stands", flush=True)
        return out
    print(f"{place}, {source.stem}: running{about(last.get('seconds'))}", flush=True)
    part = out.with_suffix(".part.ipynb")
    start, (commit, clean) = time.time(), pages.revision()
    given = [word for name, value in changed.items() for word in ("-p", name, value)]
    with tempfile.TemporaryDirectory() as shell:
        startup, note = Path(shell, "profile_default", "startup"), Path(shell, "read")
        startup.mkdir(parents=True)
        shutil.copy(BOOK / "_trace" / "figures.py", startup)
        used = call("-m", "papermill", source, part, "--cwd", source.parent, "--progress-bar", *given, note=note, shell=shell,
                    failure=lambda: f"{source.name} failed: {error_in(part) or 'papermill says why above'}")  # fmt: skip
        read = closed(note.read_text().splitlines() if note.exists() else [])
    os.replace(part, out)
    sidecar.write_text(json.dumps({
        "key": key, "commit": commit, "clean": clean, "start": start, "seconds": time.time() - start, "peak_mb": used,
        "parameters": {**defaults, **changed}, "read": hashes(read),
    }, indent=1))  # fmt: skip
    return out


def about(seconds):
    """How long the last run took, for the reader who waits."""
    return (
        "" if seconds is None else f", about {seconds / 60:.0f} minutes" if seconds > 90 else f", about {seconds:.0f} seconds"
    )


def fingerprint(source, changed):
    """A hash of what a run depends on apart from the files that it reads."""
    where = [sys.version, str(records()), os.environ.get("RESLIB_DATA")]
    digest = hashlib.sha256(json.dumps([changed, *where]).encode() + source.read_bytes())
    digest.update("\n".join(sorted(f"{d.name}=={d.version}" for d in metadata.distributions())).encode())
    return digest.hexdigest()


def records():
    from reslib.record import folder

    return folder().resolve()


def closed(paths):
    """The files behind what was opened, a module's source for its byte code; and the records' folders: one may be added."""
    files = set()
    for path in map(Path, paths):
        if path.parent.name == "__pycache__":
            path = path.parent.parent / f"{path.name.split('.')[0]}.py" if path.suffix == ".pyc" else Path("/dev/null")
        if path.is_file() and path.suffix != ".part":
            files.add(str(path))
    folders = {str(Path(path).parent) for path in files if Path(path).is_relative_to(records())}
    return sorted(files | folders)


def hashes(paths):
    """By path: the hash of a file's bytes, or of the names in a folder; "" where there is nothing."""
    found = {}
    for path in map(Path, paths):
        if path.is_dir():
            content = "\n".join(sorted(one.name for one in path.glob("*.*"))).encode()
        else:
            content = path.read_bytes() if path.exists() else None
        found[str(path)] = "" if content is None else hashlib.sha256(content).hexdigest()
    return found


def call(*words, failure, note=None, shell=None):
    """Run a Python program to its end and return its peak memory in MB (None where the system does not tell).

    What it says is shown if it fails, or with V=1. note: the file that takes the paths that it reads in reslib and the records;
    shell: the folder of IPython's settings.
    """
    here = {name: value for name, value in os.environ.items() if name != "MPLBACKEND"}  # figures belong into the page
    if note:
        roots = (ROOT / "reslib", BOOK / "_trace", records())
        here |= {"BOOK_TRACE": str(note), "BOOK_TRACE_ROOTS": os.pathsep.join(map(str, roots))}
        here["PYTHONPATH"] = os.pathsep.join(filter(None, [str(BOOK / "_trace"), here.get("PYTHONPATH")]))
        here["IPYTHONDIR"] = shell
    with tempfile.TemporaryFile() as said:
        to = {} if VERBOSE else {"stdout": said, "stderr": subprocess.STDOUT}
        process = subprocess.Popen([sys.executable, *map(str, words)], env=here, **to)
        used = None
        if hasattr(os, "wait4"):
            _, status, used = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)  # known now: Popen need not wait
        if process.wait():
            said.seek(0)
            sys.stderr.write(said.read().decode(errors="replace")[-8000:])
            raise SystemExit(failure() if callable(failure) else failure)
    return used and round(used.ru_maxrss / (1024 if sys.platform == "linux" else 1024**2))


def error_in(notebook):
    """The error that a notebook stopped at, in one line; papermill leaves it in the file."""
    cells = read(notebook)["cells"] if notebook.exists() else []
    errors = [o for cell in cells for o in cell.get("outputs", []) if o["output_type"] == "error"]
    return f"{errors[-1]['ename']}: {errors[-1]['evalue']}" if errors else ""


def read(notebook):
    return json.loads(notebook.read_text(encoding="utf-8"))


def still(notebook):
    """The notebook without what a page cannot use: progress bars and other widgets, and what the last line of a figure's
    cell happens to return ("Text(0.5, 0.98, ...)")."""
    kind = "application/vnd.jupyter.widget-{}+json".format
    for name in ("widgets", "papermill"):  # papermill's holds paths of this machine
        notebook["metadata"].pop(name, None)
    for cell in notebook["cells"]:
        for output in cell.get("outputs", []):
            output.get("data", {}).pop("text/csv", None)
            if output.get("data", {}).pop(kind("view"), None):
                output["data"] = {}
            figure = cell["metadata"].get("mystnb", {})
            words, drawn = figure.get("image", {}).get("alt"), "".join(output.get("data", {}).get("text/html", ""))
            if words and drawn:  # its author's words for the reader who cannot see it
                told = f'aria-label="{html.escape(words)}"'
                output["data"]["text/html"] = re.sub('aria-label="[^"]*"', lambda _, told=told: told, drawn)
            if "figure" in figure and list(output.get("data", {})) == ["text/plain"]:
                output["data"] = {}
        if "outputs" in cell:
            cell["outputs"] = [output for output in cell["outputs"] if output.get("data") != {}]
    return notebook
