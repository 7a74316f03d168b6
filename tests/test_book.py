"""The book, seen through a real browser, opened from a folder: a sample book built here, and the real one where it is built."""

import base64
import html
import json
import os
import re
import shutil
import subprocess
import time
import urllib.parse
import urllib.request
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import jupytext
import nbformat
import pytest

import reslib
from reslib.evidence.plan import planned

pytest.importorskip("jupyter_book", reason="the book's packages are not installed")
websocket = pytest.importorskip("websocket")

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = """--headless --no-sandbox --disable-gpu --no-first-run --disable-background-networking --disable-component-update
    --disable-sync --remote-debugging-port=0 --remote-allow-origins=*""".split()
FIGURE = {
    "figure": {"caption": "Error over steps.", "name": "fig-sample"},
    "image": {"alt": "Two lines of training error over steps. Plain nets fall later."},
}
CURVES = """_, axes = plt.subplots(1, 2, sharey=True)
for ax in axes:
    for depth in (20, 56):
        ax.plot(range(20), [90 - i * 40 / depth for i in range(20)], color=plots.colour(depth), label=f"ResNet-{depth}")
        ax.set(xlabel="iterations", ylabel="error (%)")
    ax.legend()"""
TABLE = {"figure": {"caption": "Runs and their errors.", "name": "tab-sample"}}


@pytest.fixture(scope="module")
def build(root):
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(root / "book"))
        import build

        yield build


def write(path, *cells):
    """A notebook: markdown for a str that starts with "#", else code, with metadata if a pair."""
    made = nbformat.v4.new_notebook(
        metadata={"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    )
    for cell in cells:
        source, metadata = cell if isinstance(cell, tuple) else (cell, {})
        new = nbformat.v4.new_markdown_cell if source.startswith("#") else nbformat.v4.new_code_cell
        made.cells.append(new(source, metadata=metadata))
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(made, path)
    return path


@pytest.fixture(scope="module")
def sample(build, tmp_path_factory):
    """A book with one chapter that has all that chapters have."""
    folder = tmp_path_factory.mktemp("book")
    anchors = {name for _, _, names, _ in build.pages.sections.items() for name in names}
    notebook = write(
        folder / "notebooks" / "01_sample.ipynb",
        "# A sample chapter\n\nThe block computes\n\n$$ y = F(x) + x \\tag{1} $$\n\n## Once more\n\nC8 with $W_s$.",
        "# All of the paper\n\n" + "\n".join(f"({name})=" for name in sorted(anchors)) + "\n## In one place",
        ('scale = "demo"  # demo, pocket\ndepths = "20,56"', {"tags": ["parameters"]}),
        "import matplotlib.pyplot as plt\n\nfrom reslib.evidence import plots\n\nplots.style()",
        (CURVES, {"mystnb": FIGURE}),
        (
            "import pandas as pd\n\npd.DataFrame({f'column {i}': [1, 2] for i in range(12)} | {'final': 'end'})",
            {"mystnb": TABLE, "tags": ["hide-input"]},
        ),
        "x = 'a line as wide as the column of the book is, or a little more: eighty-eight' + 'the_last_word'",
        "from tqdm.auto import tqdm\n\nfor _ in tqdm(range(30), desc='training'):\n    pass",
    )
    jupytext.write(jupytext.read(notebook), notebook.with_suffix(".py"), fmt="py:percent")
    return build.build(notebook.parent, folder).parent


@pytest.fixture(scope="module", params=["sample", "real"])
def site(request, root):
    """The folder of a built book."""
    if request.param == "sample":
        return request.getfixturevalue("sample")
    built = root / "book" / "_build" / "html"
    if not (built / "index.html").exists():
        pytest.skip("the book is not built here: make book")
    return built


def pages(site):
    names = ("index", "live", "claims", "sections", "rerun", "status", "changes", "cite", "glossary", "references")
    return [site / f"{name}.html" for name in names] + chapters(site)


def chapters(site):
    return sorted((site / "notebooks").glob("*.html"))


class Browser:
    """A headless Chromium, driven through its own protocol."""

    def __init__(self, home):
        self.process = subprocess.Popen([CHROMIUM, *FLAGS, f"--user-data-dir={home}", "about:blank"],
                                        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # fmt: skip
        port, until = home / "DevToolsActivePort", time.monotonic() + 60
        while not (port.exists() and port.read_text().strip()):
            if self.process.poll() is not None or time.monotonic() > until:
                pytest.skip(f"{CHROMIUM} does not start here")
            time.sleep(0.05)
        with urllib.request.urlopen(f"http://127.0.0.1:{port.read_text().split()[0]}/json") as answer:
            target = next(one for one in json.load(answer) if one["type"] == "page")
        self.socket = websocket.create_connection(target["webSocketDebuggerUrl"], timeout=60)
        self.number, self.events = 0, []
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.send(f"{domain}.enable")
        self.send("Emulation.setFocusEmulationEnabled", enabled=True)  # a page without a window has no focus to give

    def send(self, method, **parameters):
        self.number += 1
        self.socket.send(json.dumps({"id": self.number, "method": method, "params": parameters}))
        while (answer := json.loads(self.socket.recv())).get("id") != self.number:
            self.events.append(answer)
        assert "error" not in answer, answer
        return answer["result"]

    def run(self, script):
        """The value of a JavaScript expression in the page."""
        answer = self.send("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def open(self, address, width=1280, scheme="light"):
        """Open a page and wait until it is loaded, its equations set."""
        self.events.clear()
        self.send("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=width < 600)
        self.send("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        self.send("Page.navigate", url=address)
        while not any(event["method"] == "Page.loadEventFired" for event in self.events):
            self.events.append(json.loads(self.socket.recv()))

    def complaints(self):
        """Errors and warnings on the console, and uncaught exceptions."""
        kinds = {"Log.entryAdded": lambda p: p["entry"]["level"] in ("error", "warning"),
                 "Runtime.consoleAPICalled": lambda p: p["type"] in ("error", "warning", "assert"),
                 "Runtime.exceptionThrown": lambda p: True}  # fmt: skip
        return [e["params"] for e in self.events if e["method"] in kinds and kinds[e["method"]](e["params"])]

    def requests(self):
        return [e["params"]["request"]["url"] for e in self.events if e["method"] == "Network.requestWillBeSent"]

    def close(self):
        self.socket.close()
        self.process.terminate()
        self.process.wait()


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    if CHROMIUM is None:
        pytest.skip("there is no Chromium here")
    made = Browser(tmp_path_factory.mktemp("chromium"))
    yield made
    made.close()


def test_pages_open_from_a_folder_without_network_or_complaint(site, browser):
    for page in pages(site):
        browser.open(page.as_uri())
        assert browser.run("document.querySelector('h1').innerText").strip(), page
        assert not browser.complaints(), page
        assert browser.requests() and all(url.startswith(("file:", "data:")) for url in browser.requests()), page


def has_equations(site, page):
    """Whether the page's source, Markdown or the Markdown cells of a notebook, holds an equation."""
    source = site / "_sources" / page.relative_to(site)
    text = source.with_suffix(".md").read_text() if source.with_suffix(".md").exists() else None
    if text is None:
        cells = json.loads(source.with_suffix(".ipynb").read_text())["cells"]
        text = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")
    return "$" in re.sub(r"```.*?```", "", text, flags=re.S) or "\\begin{equation}" in text


def test_equations_are_typeset(site, browser, root):
    for page in [site / "index.html", *chapters(site)]:
        browser.open(page.as_uri())
        written = browser.run("document.querySelectorAll('.math').length")
        assert bool(written) == has_equations(site, page), page
        assert browser.run("[...document.querySelectorAll('.math')].every(m => m.querySelector('.katex'))"), page
        assert not browser.run("document.querySelectorAll('.katex-error').length"), page
        if site.is_relative_to(root):
            late = [url for url in browser.requests() if url.endswith("katex.min.js")]
            assert not late, f"{page.name} has an equation that is not set: `node book/katex.cjs`, and `make book` again"


def test_figures_and_tables_are_numbered_and_loaded(site, browser):
    for chapter, page in enumerate(chapters(site), 1):
        browser.open(page.as_uri())
        numbers = browser.run(
            "[...document.querySelectorAll('figure')].map(f => f.querySelector('.caption-number')?.innerText)"
        )
        assert all(re.match(rf"(Figure|Table) {chapter}\.\d+", number or "") for number in numbers), page
        assert numbers, page
        assert browser.run("[...document.querySelectorAll('figure')].every(f => f.querySelector('.caption-text').innerText)")
        assert browser.run("[...document.images].every(i => i.complete && i.naturalWidth)"), page
        assert not browser.run("[...document.querySelectorAll('.cell_output img')].filter(i => !i.closest('figure')).length"), (
            page
        )


def test_the_sample_has_a_figure_and_a_table_and_no_bar(sample, browser):
    browser.open((sample / "notebooks" / "01_sample.html").as_uri())
    captions = browser.run("[...document.querySelectorAll('figcaption')].map(c => c.innerText.replace(/\\s*#?\\s*$/, ''))")
    assert captions == ["Figure 1.1 Error over steps.", "Table 1.1 Runs and their errors."]
    assert "100%" not in browser.run("document.body.innerText")
    assert "widget" not in (sample / "notebooks" / "01_sample.html").read_text()


def test_a_download_holds_no_path_of_the_machine_that_built_it(site, root):
    found = sorted((site / "_sources").rglob("*.ipynb"))
    texts = [path.read_text() for path in found]
    assert found and not [text for text in texts if str(root) in text or str(site.parents[1]) in text]


@pytest.mark.parametrize("word", ["shortcut", "plain", "CIFAR"])
def test_search_finds(site, browser, word):
    browser.open(f"{(site / 'search.html').as_uri()}?q={word}")
    until = time.monotonic() + 20
    while not browser.run("document.querySelectorAll('#search-results li').length") and time.monotonic() < until:
        time.sleep(0.1)
    assert browser.run("document.querySelectorAll('#search-results li a').length"), word
    excerpts = "Anchored content block not found"  # Sphinx warns so where a result is a term of the glossary
    assert not [one for one in browser.complaints() if excerpts not in str(one)]


def test_dark_mode(site, browser):
    luminance = """(() => { const c = getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number);
        return (c[0] + c[1] + c[2]) / 3; })()"""
    for page in [site / "index.html", *chapters(site)]:
        browser.open(page.as_uri(), scheme="light")
        assert browser.run("document.documentElement.dataset.theme") == "light" and browser.run(luminance) > 200
        browser.open(page.as_uri(), scheme="dark")
        assert browser.run("document.documentElement.dataset.theme") == "dark" and browser.run(luminance) < 60
        grounds = "[...document.querySelectorAll('.text_html:has(.drawn)')].map(e => getComputedStyle(e).backgroundColor)"
        assert set(browser.run(grounds)) <= {"rgba(0, 0, 0, 0)"}, page
        letters = "[...document.querySelectorAll('.plot-wide:not(:has(image)) text')].map(t => getComputedStyle(t).fill)"
        assert not {"rgb(0, 0, 0)", "rgb(38, 38, 38)"} & set(browser.run(letters)), page  # they would be lost on dark ground


def test_figures_are_drawn_in_the_page_and_told_in_words(build, site, browser):
    assert build.finish.untold(site) == []
    for page in chapters(site):
        browser.open(page.as_uri())
        told = "[...document.querySelectorAll('svg.plot-wide, .cell_output img')].map(e => e.ariaLabel ?? e.alt)"
        assert all(len(words) >= 40 for words in browser.run(told)), page
        for drawn in (site / "_data" / page.stem).glob("*.svg"):
            assert ElementTree.parse(drawn).getroot().get("viewBox"), drawn
        assert not browser.run("[...document.images].filter(i => i.closest('.cell_output') && i.src.endsWith('.png')).length")


def test_figures_fit_a_telephone(site, browser):
    wide = """[...document.querySelectorAll('figure:has(.drawn)')].filter(f => f.scrollWidth > f.clientWidth
        || [...f.querySelectorAll('svg')].some(s => s.getBoundingClientRect().right > innerWidth)).length"""
    for page in chapters(site):
        browser.open(page.as_uri(), width=360)
        assert browser.run(wide) == 0, page
        shown = "[...document.querySelectorAll('.plot-narrow')].filter(n => n.parentElement.checkVisibility())"
        narrow = f"{shown}.every(n => n.checkVisibility()"
        assert browser.run(f"{narrow} && !n.parentElement.querySelector('.plot-wide').checkVisibility())"), page


def test_the_values_of_a_figure_can_be_read_with_the_keyboard(sample, browser):
    browser.open((sample / "notebooks" / "01_sample.html").as_uri())
    assert "Plain nets fall later." in browser.run("document.querySelector('.drawn svg').ariaLabel")
    browser.run("document.querySelector('.plot-bar button').onclick()")  # whose promise waits for the chart
    assert browser.run("document.querySelectorAll('.plot-chart canvas').length") == 2
    press = """(key => { const place = document.querySelector('.plot-chart [tabindex]'); place.focus();
        place.dispatchEvent(new KeyboardEvent('keydown', {key})); return new Promise(requestAnimationFrame); })"""
    browser.run(f"{press}('End').then(() => 0)")
    until = time.monotonic() + 10
    while "iterations" not in (said := browser.run("document.querySelector('.values').innerText")) and time.monotonic() < until:
        time.sleep(0.05)
    assert said == "iterations 19: ResNet-20 52, ResNet-56 76.4"
    browser.run("document.querySelector('.plot-chart').previousElementSibling.querySelector('input').click()")
    browser.run(f"{press}('End').then(() => 0)")
    assert not browser.complaints()


def test_on_a_telephone_only_wide_things_scroll(site, browser):
    for page in pages(site):
        browser.open(page.as_uri(), width=390)
        assert browser.run("document.documentElement.scrollWidth") <= 390, page


class Links(HTMLParser):
    def __init__(self, page):
        super().__init__()
        self.hrefs, self.ids = [], set()
        self.feed(page.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        self.ids.add(found.get("id"))
        if tag == "a" and found.get("href"):
            self.hrefs.append(found["href"])


def test_every_link_leads_somewhere(site):
    seen = {page.resolve(): Links(page) for page in site.rglob("*.html")}
    for page, links in seen.items():
        for href in links.hrefs:
            where = urllib.parse.urlsplit(href)
            if where.scheme in ("http", "https", "mailto") or href == "#":
                continue
            target = (page.parent / urllib.parse.unquote(where.path)).resolve() if where.path else page
            assert target.exists(), (page, href)
            if where.fragment and target in seen and not href.startswith("#pst-"):
                assert where.fragment in seen[target].ids, (page, href)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_serious_or_critical_is_in_the_way_of_any_reader(site, browser, scheme):
    """By axe-core: contrast, names, roles, keyboard."""
    axe = (Path(__file__).parent / "axe.min.js").read_text(encoding="utf-8")
    for page in [*pages(site), site / "search.html"]:
        browser.open(page.as_uri(), width=1440, scheme=scheme)
        browser.run(f"{axe};0")
        found = browser.run("""axe.run(document, {resultTypes: ["violations"]}).then(r => r.violations
            .filter(v => ["serious", "critical"].includes(v.impact)).map(v => [v.id, v.nodes.slice(0, 3).map(n => n.html)]))""")
        assert not found, page


def test_the_front_page_is_understood_at_a_glance(site, browser):
    browser.open((site / "index.html").as_uri(), width=1440)
    for what in (".hero-text", ".hero-figure svg", ".command", ".tiles", ".ways"):
        last = browser.run(f"Math.max(...[...document.querySelectorAll('{what}')].map(e => e.getBoundingClientRect().bottom))")
        assert 0 < last < 900, what
    assert browser.run("document.querySelectorAll('.matrix a.chip').length") > 20
    assert browser.run("document.querySelectorAll('.matrix tbody tr:not(.theme)').length") == 22
    assert len(chapters(site)) == browser.run("document.querySelectorAll('a.chapter').length")


def test_the_command_is_copied(site, browser):
    browser.open((site / "index.html").as_uri())
    browser.run(
        "navigator.clipboard.writeText = async text => { window.copied = text }; document.querySelector('.copy').click()"
    )
    assert browser.run("window.copied") == "make book"


def test_no_page_is_heavy(site, browser):
    """All that is loaded for a page, in bytes: a chapter has its figures in it, and one page a net's weights."""
    for page in pages(site):
        browser.open(page.as_uri(), width=1440)
        files = {Path(urllib.parse.unquote(urllib.parse.urlsplit(u).path)) for u in browser.requests() if u.startswith("file:")}
        assert sum(file.stat().st_size for file in files) <= 1_200_000, page


def test_no_open_code_is_clipped_and_no_page_scrolls_sideways(site, browser):
    for page in pages(site):
        browser.open(page.as_uri(), width=1440)
        clipped = browser.run("""[...document.querySelectorAll(".cell_input pre")].filter(pre => pre.offsetParent &&
            !pre.closest("details:not([open])") && pre.scrollWidth > pre.clientWidth + 1).map(pre => pre.innerText.slice(0, 60))
        """)
        assert not clipped, page
        browser.open(page.as_uri(), width=360)
        assert browser.run("document.documentElement.scrollWidth") <= 360, page
        wide = browser.run("""[...document.querySelectorAll("figure:not(.table-figure)")]
            .filter(f => f.scrollWidth > f.clientWidth + 1).map(f => f.id)""")
        assert not wide, page


def test_all_code_is_shown_by_one_button(sample, browser):
    browser.open((sample / "notebooks" / "01_sample.html").as_uri())
    closed = "document.querySelectorAll('details.hide:not([open])').length"
    assert browser.run(closed) == 1
    assert browser.run("document.querySelector('details.hide .collapsed').innerText") == "Show the code: Table 1.1"
    browser.run("document.querySelector('.show-code').click()")
    assert browser.run(closed) == 0


def test_claims_and_chapters_lead_to_each_other(sample, browser):
    chapter = Links(sample / "notebooks" / "01_sample.html").hrefs
    assert "../claims.html#c8" in chapter
    browser.open((sample / "claims.html").as_uri())
    treated = "document.querySelector('.treated[data-claim=c8]').querySelector('a')"
    assert browser.run(f"{treated}.getAttribute('href')") == "notebooks/01_sample.html#once-more"
    assert browser.run(f"{treated}.innerText") == "1.1. Once more"


def test_a_preview_opens_by_keyboard_and_closes(sample, browser):
    browser.open((sample / "notebooks" / "01_sample.html").as_uri())
    browser.run("document.querySelector('a.claim').focus()")
    assert "Projections are not essential" in browser.run("document.querySelector('[role=tooltip]').innerText")
    browser.run("document.dispatchEvent(new KeyboardEvent('keydown', {key: 'Escape'}))")
    assert browser.run("document.querySelector('[role=tooltip]')") is None


def test_a_figure_leads_to_its_data_and_runs(sample):
    page = sample / "notebooks" / "01_sample.html"
    lines = re.findall(r'<p class="made-from">(.*?)</p>', page.read_text(), re.S)
    assert len(lines) == 2
    targets = re.findall(r'href="([^"#]+)"', lines[0])
    data, runs = ((page.parent / target).resolve() for target in targets[:2])
    assert data.read_text().startswith("panel,series,x,y\n") and len(data.read_text().splitlines()) == 81
    assert json.loads(runs.read_text())["chapter"] == "01_sample"


def test_every_claim_has_its_evidence_drawn_with_its_numbers(site, browser):
    browser.open((site / "claims.html").as_uri(), width=1440)
    assert browser.run("document.querySelectorAll('table.forest .forest-plot').length") > 20
    assert browser.run("[...document.querySelectorAll('svg.forest-plot')].every(s => s.getAttribute('aria-label').length > 40)")
    assert browser.run("document.querySelector('.chip').getBoundingClientRect().top") < 900


@pytest.mark.parametrize("asked", ["C8", "c8"])
def test_search_finds_a_claim_first(site, browser, asked):
    browser.open(f"{(site / 'search.html').as_uri()}?q={asked}")
    first = browser.run("document.querySelector('.claim-found a, #search-results a').getAttribute('href')")
    assert first == "claims.html#c8"


def test_search_gives_excerpts_in_a_folder(site, browser):
    browser.open(f"{(site / 'search.html').as_uri()}?q=projections")
    until = time.monotonic() + 20
    while not browser.run("document.querySelectorAll('#search-results p.context').length") and time.monotonic() < until:
        time.sleep(0.1)
    assert "rojection" in browser.run("document.querySelector('#search-results p.context').innerText")


@pytest.mark.skipif(not shutil.which("pdftotext"), reason="there is no pdftotext here")
def test_print_cuts_nothing(sample, browser, tmp_path):
    browser.open((sample / "notebooks" / "01_sample.html").as_uri())
    made = tmp_path / "page.pdf"
    made.write_bytes(base64.b64decode(browser.send("Page.printToPDF")["data"]))
    text = subprocess.run(["pdftotext", made, "-"], capture_output=True, text=True, check=True).stdout
    assert "the_last_word" in "".join(text.split())
    assert "final" in text


def test_the_whole_book_is_one_pdf(sample, build, monkeypatch):
    if CHROMIUM is None:
        pytest.skip("there is no Chromium here")
    import pdf

    order = [page.stem for page in pdf.order(sample)]
    assert order[:4] == ["index", "01_sample", "live", "claims"] and order[-1] == "references"
    whole = pdf.joined(sample)
    ids = [one["id"] for one in whole.find_all(id=True)]
    assert len(ids) == len(set(ids))
    inner = {link["href"][1:] for link in whole.find_all("a", href=True) if link["href"].startswith("#")}
    assert inner <= {*ids, ""}


def test_buttons_come_with_the_repositorys_address(root, monkeypatch):
    monkeypatch.syspath_prepend(str(root / "book" / "_ext"))
    import bookparts

    assert bookparts.buttons({"a": 1}, None) == {"a": 1}
    made = bookparts.buttons({"a": 1}, "https://example.org/x/y")
    assert made["a"] == 1 and made["repository_url"] == "https://example.org/x/y" and made["use_edit_page_button"]


def test_chapters_can_be_downloaded_in_both_forms(site):
    for page in chapters(site):
        for form in (".ipynb", ".py"):
            assert f"../_sources/notebooks/{page.stem}{form}" in Links(page).hrefs
            assert (site / "_sources" / "notebooks" / f"{page.stem}{form}").stat().st_size
        assert any(
            cell.get("outputs")
            for cell in json.loads((site / "_sources" / "notebooks" / f"{page.stem}.ipynb").read_text())["cells"]
        )


def test_the_status_page_says_what_was_run(sample):
    page = html.unescape(re.sub("<[^>]*>", "", (sample / "status.html").read_text()))
    assert "A sample chapter" in page and 'depths = "20,56"' in page
    for package in ("torch", "jupyter-book"):
        assert package in page
    runs = reslib.records()
    core = sum(runs.recipe_id.isin([recipe.id for _, recipe in planned("pocket", "core")]))
    assert f"{core} of 12" in page and (runs.net == "plain20").any() and "plain-20" in page


def test_every_claim_has_its_place(root):
    from reslib.evidence.claims import CLAIMS

    page = (root / "book" / "claims.md").read_text(encoding="utf-8")
    for claim in CLAIMS:
        assert (
            len(re.findall(rf"^\({claim.id.lower()}\)=\n### {claim.id} · .+\n\n\*{{{{ where:{claim.id} }}}}\.\*", page, re.M))
            == 1
        )
        assert page.count(f"{{{{ judged:{claim.id} }}}}") == 1
    assert page.count("\n### ") == len(CLAIMS)


def test_every_part_of_the_paper_has_its_place_and_a_lost_anchor_stops_the_build(build, root, tmp_path):
    sections, notebooks = build.pages.sections, sorted((root / "notebooks").glob("[0-9][0-9]_*.ipynb"))
    page = sections.table(notebooks)
    assert "[Residual learning: Why depth](#paper-1-depth)" in page and page.count("\n## ") == 14
    assert all(f"(#paper-c{number})" in page for number in range(1, 23))
    for old, new, says in (
        ("(paper-1-depth)=", "", r"no chapter has \(paper-1-depth\)="),
        ("(paper-1-depth)=", "(paper-1-construction)=", r"\(paper-1-construction\)= stands in a second place"),
        ("(paper-1-depth)=", "(paper-1-depth)=\\n(paper-1-more)=", r"\(paper-1-more\)=, which sections.csv does not have"),
    ):
        changed = tmp_path / notebooks[0].name
        changed.write_text(notebooks[0].read_text().replace(old, new))
        with pytest.raises(SystemExit, match=says):
            sections.table([changed, *notebooks[1:]])


def test_a_page_may_not_ask_for_what_nobody_knows(build):
    assert (
        build.pages.fill("a {{ paper:table6.resnet20.test_error }}.", {"paper:table6.resnet20.test_error": "8.75"}) == "a 8.75."
    )
    with pytest.raises(SystemExit, match="paper:table6.resnet21"):
        build.pages.fill("{{ paper:table6.resnet21 }}", {})


@pytest.mark.parametrize("name, text, found", [
    ("a.html", '<script src="https://cdn.example/x.js"></script>', True),
    ("a.html", '<link rel="stylesheet" href="//cdn.example/x.css">', True),
    ("a.html", '<img srcset="x.png 1x, https://cdn.example/x.png 2x">', True),
    ("a.html", '<iframe src=" HTTPS://video.example/1"></iframe>', True),
    ("a.html", '<style>@import "https://fonts.example/css";</style>', True),
    ("a.html", '<p style="background: url(http://x.example/p.png)">', True),
    ("a.css", "@font-face { src: url('https://fonts.example/a.woff2'); }", True),
    ("a.css", "@import url(//fonts.example/css);", True),
    ("a.html", '<a href="https://arxiv.org/abs/1512.03385">paper</a> <img src="_images/a.png"> <p>url(http://x)</p>', False),
    ("a.css", "p { background: url(data:image/png;base64,AA//); } /* see https://x.example */", False),
])  # fmt: skip
def test_what_a_page_would_load_from_the_network_is_found(build, tmp_path, name, text, found):
    (tmp_path / name).write_text(text)
    assert bool(build.finish.network(tmp_path)) == found


def test_rules_of_a_style_that_no_page_uses_are_dropped(build, tmp_path):
    (tmp_path / "_static").mkdir()
    (tmp_path / "page.html").write_text('<p class="used" id="here">')
    style = tmp_path / "_static" / "a.css"
    style.write_text(
        "/* .used {} */p,.gone{a:b}.used:not(.open):hover,.used .gone{c:d}#here{e:f}#lost{g:h}.-used{s:t}"
        "@media print{.gone{i:j}}@media print{.gone{k:l}.used{m:n}}:is(.gone,p){o:p}@font-face{q:r}"
    )
    build.finish.thin(tmp_path)
    left = " p{a:b}.used:not(.open):hover{c:d}#here{e:f}@media print{.used{m:n}}:is(.gone,p){o:p}@font-face{q:r}"
    assert style.read_text() == left


def test_a_failing_chapter_stops_the_build_with_its_name_and_error(build, tmp_path):
    notebook = write(tmp_path / "notebooks" / "07_fails.ipynb", "# Fails", "raise ValueError('no such depth: 21')")
    with pytest.raises(SystemExit, match=r"07_fails\.ipynb failed: ValueError: no such depth: 21"):
        build.build(notebook.parent, tmp_path)
    assert not (tmp_path / "_build" / "html").exists()


def test_a_chapter_is_run_again_only_if_something_that_it_reads_has_changed(build, tmp_path, monkeypatch):
    chapters, runs = build.chapters, []

    def call(*words, failure, note, shell):
        runs.append(shutil.copy(words[2], words[3]))
        note.write_text(f"{used}\n{tmp_path / 'records' / 'run.json'}\n")

    monkeypatch.setattr(chapters, "call", call)
    monkeypatch.setenv("RESLIB_RECORDS", str(tmp_path / "records"))
    for folder in ("reslib", "records"):
        (tmp_path / folder).mkdir()
    used, other, record = tmp_path / "reslib" / "used.py", tmp_path / "reslib" / "other.py", tmp_path / "records" / "run.json"
    for path in (used, other, record):
        path.write_text("1")
    parameters = ("scale = 'demo'", {"tags": ["parameters"]})
    notebook = write(tmp_path / "notebooks" / "01_a.ipynb", "# A", parameters)

    def run(scale=None):
        """How often the notebook was run so far, after asking for it once more."""
        chapters.run(notebook, tmp_path / "done", scale)
        return len(runs)

    assert [run(), run()] == [1, 1]
    used.write_text("2")
    assert [run(), run()] == [2, 2]
    other.write_text("2")  # which the chapter does not read
    assert run() == 2
    record.write_text("{}")
    assert [run(), run()] == [3, 3]
    (tmp_path / "records" / "new.json").write_text("{}")
    assert [run(), run()] == [4, 4]
    write(notebook, "# A", parameters, "1 + 1")
    assert [run(), run()] == [5, 5]
    assert [run("pocket"), run("pocket"), run()] == [6, 6, 7]
    (tmp_path / "done" / "01_a.ipynb").unlink()
    assert [run("pocket"), run("pocket")] == [8, 8]
    assert json.loads((tmp_path / "done" / "01_a.json").read_text())["parameters"] == {"scale": "pocket"}


def test_what_a_chapter_reads_is_noted(build, tmp_path, monkeypatch):
    (tmp_path / "records").mkdir()
    (tmp_path / "records" / "run.json").write_text("{}")
    monkeypatch.setenv("RESLIB_RECORDS", str(tmp_path / "records"))
    code = "import reslib.recipes\nfrom reslib.record import folder\n\n(folder() / 'run.json').read_text()"
    notebook = write(tmp_path / "notebooks" / "01_a.ipynb", "# A", code)
    done = build.chapters.run(notebook, tmp_path / "done")
    read = {path.rsplit("/", 1)[-1] for path in json.loads(done.with_suffix(".json").read_text())["read"]}
    assert {"run.json", "records", "recipes.py", "record.py"} <= read and "sweep.py" not in read


def test_chapters_are_those_of_the_table_of_contents(build, tmp_path):
    for name in ("01_a", "Untitled", "01_a-Copy1"):
        write(tmp_path / f"{name}.ipynb", "# A")
    assert [path.stem for path in build.chapters.listed(tmp_path)] == ["01_a"]
    with pytest.raises(SystemExit, match="holds no chapter"):
        build.chapters.listed(tmp_path / "nothing")


def test_an_edited_script_is_followed_by_its_notebook(build, tmp_path, capsys):
    notebook = write(tmp_path / "01_a.ipynb", "# A", "1 + 1")
    paired, script = jupytext.read(notebook), notebook.with_suffix(".py")
    paired.metadata["jupytext"] = {"formats": "ipynb,py:percent"}
    jupytext.write(paired, notebook)
    jupytext.write(paired, script, fmt="py:percent")
    build.chapters.follow(notebook)
    assert not capsys.readouterr().out
    script.write_text(script.read_text().replace("1 + 1", "1 + 2"))
    os.utime(notebook, (1, 1))
    build.chapters.follow(notebook)
    assert "01_a.py is younger" in capsys.readouterr().out
    assert "1 + 2" in notebook.read_text()
