"""What is done to the built pages: vendored mathematics and few icons put in, data and records copied, no network used."""

import html.parser
import json
import re
import shutil
from pathlib import Path

import links
import pages

BOOK = Path(__file__).resolve().parent
ICON = re.compile(r"\bfa-([a-z0-9-]+)")


def finish(site, scripts, done):
    """Finish the book in `site`; done: the executed chapters. Raises SystemExit where a page would use the network."""
    from reslib.record import folder

    shutil.copytree(BOOK / "_vendor", site / "_static" / "vendored", dirs_exist_ok=True)  # jupyter-book loads all of _static
    shutil.copytree(BOOK / "_live", site / "_static" / "live", dirs_exist_ok=True)  # for one page
    for script in scripts:  # the script form, for the download menu
        if script.exists():
            shutil.copy(script, site / "_sources" / "notebooks")
    if folder().is_dir():
        shutil.copytree(folder(), site / "records", dirs_exist_ok=True)
    links.tie(site, {path.stem: evidence(site, path) for path in done})
    icons(site)
    thin(site)
    if fetched := network(site):
        raise SystemExit("the book would use the network:\n" + "\n".join(fetched))
    if silent := untold(site):
        raise SystemExit("the book has figures that are not told in words (40 characters at least):\n" + "\n".join(silent))


def evidence(site, notebook):
    """Write what a chapter shows as CSV and SVG, and what it has read as JSON; returns (CSV by figure's name, its sidecar)."""
    from reslib.record import folder

    sidecar = json.loads(notebook.with_suffix(".json").read_text())
    read = [
        Path(path) for path in sidecar.get("read", ()) if Path(path).is_file() and Path(path).is_relative_to(folder().resolve())
    ]
    listed = {"chapter": notebook.stem, "commit": sidecar["commit"], "parameters": sidecar["parameters"],
              "records": [str(path.relative_to(folder().resolve())) for path in read]}  # fmt: skip
    (site / "records").mkdir(exist_ok=True)
    (site / "records" / f"{notebook.stem}.json").write_text(json.dumps(listed, indent=1), encoding="utf-8")
    data, target = {}, site / "_data" / notebook.stem
    target.mkdir(parents=True, exist_ok=True)
    for cell in json.loads(notebook.read_text(encoding="utf-8"))["cells"]:
        name = cell["metadata"].get("mystnb", {}).get("figure", {}).get("name", "")
        for output in cell.get("outputs", ()):
            if name and (drawn := pages.alone("".join(output.get("data", {}).get("text/html", "")))):
                (target / f"{name}.svg").write_text(drawn, encoding="utf-8")
            if name and "text/csv" in output.get("data", {}):
                (target / f"{name}.csv").write_text("".join(output["data"]["text/csv"]), encoding="utf-8")
                data[name] = f"_data/{notebook.stem}/{name}.csv"
    return data, sidecar


def icons(site):
    """Replace the theme's script of 2,000 icons (1.5 MB a page) by a style sheet of those that the pages use."""
    script = site / "_static" / "scripts" / "fontawesome.js"
    found = re.findall(
        r'"?([a-z0-9-]+)"?:\[(\d+),(\d+),(\[[^\]]*\]),"[0-9a-f]+","([^"]+)"\]', script.read_text(encoding="utf-8")
    )
    shapes = {}
    for name, width, height, others, path in found:
        for called in (name, *re.findall(r'"([a-z0-9-]+)"', others)):
            shapes[called] = (width, height, path)
    used = {name for page in site.rglob("*.html") for name in ICON.findall(page.read_text(encoding="utf-8"))}
    rules = []
    for name in sorted(used & set(shapes)):
        width, height, path = shapes[name]
        svg = f"%3Csvg xmlns='http:%2F%2Fwww.w3.org/2000/svg' viewBox='0 0 {width} {height}'%3E%3Cpath d='{path}'/%3E%3C/svg%3E"
        rules.append(f'.fa-{name}{{--icon:url("data:image/svg+xml,{svg}")}}')
    (site / "_static" / "icons.css").write_text("\n".join([LOOK, *rules]) + "\n", encoding="utf-8")
    style = site / "_static" / "styles" / "pydata-sphinx-theme.css"
    text = re.sub(r"@font-face\{[^}]*Font ?\\? ?Awesome[^}]*\}", "", style.read_text(encoding="utf-8"))
    text = re.sub(r'\.fa-[a-z0-9-]+:before(,\.fa-[a-z0-9-]+:before)*\{content:"[^"]*"\}', "", text)
    style.write_text(text, encoding="utf-8")
    shutil.rmtree(site / "_static" / "vendor" / "fontawesome", ignore_errors=True)
    for old in script.parent.glob("fontawesome*"):
        old.unlink()


LOOK = """/* icons: the shapes of Font Awesome Free (CC BY 4.0), as masks of the text's colour */
:is(.fa-solid, .fa-regular, .fa-brands, .fas, .far, .fab, .fa) { display: inline-block; width: 1.1em; height: 1em;
  vertical-align: -0.125em; background: currentColor; mask: var(--icon) center / contain no-repeat;
  -webkit-mask: var(--icon) center / contain no-repeat; forced-color-adjust: none; }
:is(.fa-solid, .fa-regular, .fa-brands, .fas, .far, .fab, .fa)::before { content: none !important; }
/* and what the theme writes in Font Awesome's own letters */
:root { --pst-icon-external-link: ""; --pst-icon-download: ""; --pst-icon-search-minus: ""; --pst-breadcrumb-divider: "/"; }
:is(.admonition-title, .versionmodified, .onthispage)::after { content: none !important; }
.fa-lg { font-size: 1.25em; vertical-align: -0.075em; }"""


def thin(site):
    """Drop from the styles the rules for classes and ids that no page and no script names: half of their bytes."""
    texts = [path.read_text(encoding="utf-8") for path in site.rglob("*") if path.suffix in (".html", ".js")]
    words = {word for text in texts for word in re.findall(r"-?[A-Za-z][\w-]*", text)}
    words |= {word.lstrip("-") for word in words}
    for style in (path for path in (site / "_static").rglob("*.css") if "vendored" not in path.parts):
        text = re.sub(r"/\*.*?\*/|\s+", " ", style.read_text(encoding="utf-8"), flags=re.S)
        text = re.sub(r"([^{};]+)\{([^{}]*)\}", lambda rule: matching(rule, words), text)
        style.write_text(re.sub(r"@media[^{};]*\{\s*\}", "", text), encoding="utf-8")


def matching(rule, words):
    """A rule of a style with those of its selectors whose classes and ids are among the words; nothing where none is."""

    def may(selector):
        if selector.lstrip().startswith("@") or re.search(r":(is|where|has)\(", selector):
            return True
        while (shorter := re.sub(r":not\([^()]*\)|\[[^\]]*\]", "", selector)) != selector:
            selector = shorter
        named = re.findall(r"[.#](-?[A-Za-z][\w-]*)", selector)
        return all(name in words or name.startswith("bs-") for name in named)  # Bootstrap puts these together itself

    kept = [selector for selector in re.split(r",(?![^()]*\))", rule[1]) if may(selector)]
    return f"{','.join(kept)}{{{rule[2]}}}" if kept else ""


def untold(site):
    """Figures of the chapters whose text alternative is missing, a file's name or shorter than 40 characters: "page: text"."""
    found = []
    for page in sorted((site / "notebooks").glob("*.html")):
        figures = re.findall(r"<figure.*?</figure>", page.read_text(encoding="utf-8"), re.S)
        for drawn in (tag for figure in figures for tag in re.findall(r"<img [^>]*>|<svg [^>]*>", figure)):
            told = re.search(r'(?:alt|aria-label)="([^"]*)"', drawn)
            if not told or len(told[1]) < 40 or "_images/" in told[1]:
                found.append(f"{page.name}: {told[1] if told else drawn[:200]}")
    return found


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
