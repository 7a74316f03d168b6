"""Build the book: run every chapter, fill the pages with computed numbers, call jupyter-book, finish and check the result.

    python book/build.py        # what `make book` does; the book is then book/_build/html/index.html

A chapter that depends on nothing that has changed since its last run is not run again (chapters.py).
"""

import argparse
import json
import os
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import chapters
import finish
import pages

BOOK = Path(__file__).resolve().parent
ROOT = BOOK.parent
ASSETS = ("references.bib", "_static")
AT_ONCE = min(2, os.cpu_count() or 1)  # chapters that run at the same time: each takes a core and a gigabyte or two


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--notebooks", type=Path, default=ROOT / "notebooks", help="the chapters' folder")
    parser.add_argument("--out", type=Path, default=BOOK, help="the folder in which _build is made")
    parser.add_argument("--scale", help="run the notebooks at this scale instead of their own default")
    options = parser.parse_args()
    print(f"The book: {build(options.notebooks.resolve(), options.out.resolve(), options.scale)}")


def build(folder, out, scale=None):
    """Make the book of the notebooks in `folder` and return its first page. Raises SystemExit, saying what failed."""
    stage, site, started = out / "_build" / "stage", out / "_build" / "html", time.time()
    notebooks = chapters.listed(folder)
    for notebook in notebooks:
        chapters.follow(notebook)
    with ThreadPoolExecutor(AT_ONCE) as pool:
        running = [
            pool.submit(chapters.run, notebook, out / "_build" / "executed", scale, f"chapter {number} of {len(notebooks)}")
            for number, notebook in enumerate(notebooks, 1)
        ]
        try:
            done = [one.result() for one in running]
        finally:  # where one has failed, those that wait are not begun
            pool.shutdown(cancel_futures=True)
    print("the pages: their numbers, then jupyter-book", flush=True)
    shutil.rmtree(stage, ignore_errors=True)
    (stage / "notebooks").mkdir(parents=True)
    for notebook in done:
        (stage / "notebooks" / notebook.name).write_text(json.dumps(chapters.still(chapters.read(notebook))))
    for name in ASSETS:
        (shutil.copytree if (BOOK / name).is_dir() else shutil.copy)(BOOK / name, stage / name)
    (stage / "_static" / "thumbs").mkdir()
    for notebook in done:
        if found := pages.thumbnail(notebook):
            (stage / "_static" / "thumbs" / f"{notebook.stem}.{found[0]}").write_bytes(found[1])
    known = pages.values(done, BOOK / "_build" / "judged.json")
    for page in sorted(BOOK.glob("*.md")):
        (stage / page.name).write_text(pages.fill(page.read_text(encoding="utf-8"), known), encoding="utf-8")

    shutil.rmtree(site, ignore_errors=True)  # no page of a chapter that is gone
    chapters.call("-c", "from jupyter_book.cli.main import main; main()", "build", "-W", "-n", "--keep-going", "--all",
                  "--config", BOOK / "_config.yml", "--toc", BOOK / "_toc.yml", "--path-output", out, stage,
                  failure="the book was not built: jupyter-book says why above")  # fmt: skip
    finish.finish(site, [notebook.with_suffix(".py") for notebook in notebooks], done)
    print(f"built in {time.time() - started:.0f} seconds", flush=True)
    return site / "index.html"


if __name__ == "__main__":
    main()
