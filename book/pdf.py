"""The whole book as one PDF: all pages of the built site in one, printed by Chromium. Collapsed code is left out.

python book/pdf.py          # what `make pdf` does, after `make book`: book/_build/html/reslib.pdf
"""

import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import yaml
from bs4 import BeautifulSoup

BOOK = Path(__file__).resolve().parent
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = """--headless --no-sandbox --disable-gpu --no-first-run --disable-background-networking --disable-component-update
    --disable-sync --no-pdf-header-footer --run-all-compositor-stages-before-draw --virtual-time-budget=60000""".split()
LINK = '<a href="reslib.pdf">The whole book as PDF</a>'


def main(site=BOOK / "_build" / "html"):
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        raise SystemExit("make pdf: printing needs Chromium or Google Chrome, and there is none in PATH.")
    if not (site / "index.html").exists():
        raise SystemExit(f"make pdf: {site} holds no book; make it first with `make book`.")
    whole, made = site / "whole.html", site / "reslib.pdf"
    whole.write_text(str(joined(site)), encoding="utf-8")
    with tempfile.TemporaryDirectory() as home:
        done = subprocess.run([browser, *FLAGS, f"--user-data-dir={home}", f"--print-to-pdf={made}.part", whole.as_uri()],
                              capture_output=True, text=True)  # fmt: skip
    whole.unlink()
    part = made.with_name(f"{made.name}.part")
    if done.returncode or not part.exists():
        sys.stderr.write(done.stderr[-4000:])
        raise SystemExit("make pdf: the browser did not print; what it said stands above.")
    part.replace(made)
    for page in (site / "index.html", site / "cite.html"):
        text = re.sub(r'(<p class="whole">).*?(</p>)', rf"\1{LINK}\2", page.read_text(encoding="utf-8"))
        page.write_text(text, encoding="utf-8")
    print(f"The book: {made}")


def order(site):
    """The pages of the table of contents that are built, in its order."""
    toc = yaml.safe_load((BOOK / "_toc.yml").read_text(encoding="utf-8"))
    names = [toc["root"], *(one.get("file") or one["glob"] for part in toc["parts"] for one in part["chapters"])]
    return [page for name in names for page in sorted(site.glob(f"{name}.html"))]


def joined(site):
    """One page of all pages' articles: identifiers told apart by page, links between pages made links within it."""
    pages = order(site)
    names = {str(page.relative_to(site)): page.stem for page in pages}
    whole = BeautifulSoup((site / "index.html").read_text(encoding="utf-8"), "html.parser")
    body = whole.new_tag("main", attrs={"class": "bd-content"})
    for page in pages:
        article = BeautifulSoup(page.read_text(encoding="utf-8"), "html.parser").find("article")
        article["id"] = page.stem
        for one in article.find_all(lambda tag: tag.get("id") and not tag.find_parent("svg")):  # a drawing names its own parts
            one["id"] = f"{page.stem}.{one['id']}"
        for one in article.find_all(["a", "img"]):
            name = "href" if one.name == "a" else "src"
            if one.get(name):
                one[name] = moved(one[name], page, site, names)
        for left_out in article.select("button, div.cell_input:has(> details.hide), details.hide"):
            left_out.decompose()  # code that only draws is on the pages; on paper stands what teaches
        for details in article.find_all("details"):
            details["open"] = ""
        body.append(article)
    sheets = whole.find_all("link", rel="stylesheet")
    if not any("katex" in link["href"] for link in sheets):
        whole.head.append(whole.new_tag("link", rel="stylesheet", href="_static/vendored/katex/katex.min.css"))
    for script in whole.find_all("script"):
        script.decompose()
    for script in ("vendored/katex/katex.min.js", "book.js"):
        whole.head.append(whole.new_tag("script", src=f"_static/{script}"))
    whole.html["data-theme"] = "light"
    whole.body.clear()
    whole.body.append(body)
    return whole


def moved(address, page, site, names):
    """An address on a page, as it is from the top of the site; of another page, its place in the whole."""
    if re.match(r"[a-z]+:|//", address):
        return address
    path, _, anchor = address.partition("#")
    target = (page.parent / path).resolve() if path else page
    where = str(target.relative_to(site.resolve())) if target.is_relative_to(site.resolve()) else path
    if where in names:
        return f"#{names[where]}.{anchor}" if anchor else f"#{names[where]}"
    return where


if __name__ == "__main__":
    main()
