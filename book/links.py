"""What ties the pages together: a claim's number leads to the claim, a claim to its sections, a figure to its data."""

import json
import re
from copy import copy
from pathlib import Path

from bs4 import BeautifulSoup, NavigableString

CLAIM = re.compile(r"\bC([1-9]|1\d|2[0-2])([a-c]?)\b")
SKIP = {"a", "code", "pre", "script", "style", "svg", "button", "summary", "h1", "h2", "h3", "h4", "title"}
LISTS = (
    "index",
    "claims",
    "sections",
    "status",
    "changes",
    "references",
    "search",
    "genindex",
)  # name claims and do not treat them


def tie(site, done):
    """Link the pages in `site`. done: the executed chapters, by stem: (data file by figure's name, sidecar)."""
    soups = {path: BeautifulSoup(path.read_text(encoding="utf-8"), "html.parser") for path in pages(site)}
    treated = {}
    for path, soup in soups.items():
        article = soup.find("article") or soup
        name, up = str(path.relative_to(site)), "../" * (len(path.relative_to(site).parts) - 1)
        for claim, section in claims_in(soup, article, "" if path.stem == "claims" else f"{up}claims.html"):
            if path.stem not in LISTS and section is not None:
                treated.setdefault(claim, {})[f"{name}#{section['id']}"] = heading(section)
        if path.stem in done:
            sources(soup, article, path.stem, up, *done[path.stem])
        for named in soup.select("button.search-button__button, details.hide > summary"):
            del named["aria-label"]  # what they show names them
        for listed in soup.find_all("div", class_="citation-list"):
            del listed["role"]  # its entries are no list items
        for search in soup.find_all("script", src=re.compile("searchtools|language_data|searchindex")):
            if path.stem != "search":
                search.decompose()  # only the page of results needs it
        if not soup.find(class_="drawn"):
            for chart in soup.find_all(["script", "link"], attrs={"src": re.compile("figures.js")}):
                chart.decompose()
        for hidden in article.select("div.cell details.hide"):
            say_what(hidden)
        for cell in article.find_all("th"):
            if not cell.get_text(strip=True):
                cell.name = "td"  # a header that says nothing is none
    for place in soups[site / "claims.html"].find_all("p", class_="treated"):
        tell(soups[site / "claims.html"], place, treated.get(place["data-claim"], {}))
    save(site, soups)


def pages(site):
    """The book's own pages, without what lies in _static."""
    return [path for path in sorted(site.rglob("*.html")) if "_static" not in path.parts]


def claims_in(soup, article, page):
    """Turn claim numbers in running text into links; yields (anchor, the section that it stands in)."""
    for text in list(article.find_all(string=CLAIM)):
        if type(text) is not NavigableString or any(p.name in SKIP or "math" in p.get("class", ()) for p in text.parents):
            continue
        section, parts, last = text.find_parent("section"), [], 0
        for found in CLAIM.finditer(text):
            anchor = f"c{found[1]}"
            yield anchor, section
            link = soup.new_tag("a", href=f"{page}#{anchor}", attrs={"class": "claim"})
            link.string = found[0]
            parts += [NavigableString(text[last : found.start()]), link]
            last = found.end()
        text.replace_with(*parts, NavigableString(text[last:]))


def say_what(hidden):
    """Collapsed code says what it makes: its figure or table, else its text, or nothing yet. Output and solutions say so."""
    cell = hidden.find_parent("div", class_="cell")
    numbers = [" ".join(one.get_text(" ").split()) for one in cell.select("figcaption .caption-number")]
    what = ", ".join(numbers) or ("the text below" if cell.find("div", class_="cell_output") else "set-up")
    what = f"the code: {what}"
    if "below-input" in hidden["class"]:
        what = "the output"
    elif (section := hidden.find_parent("section")) and heading(section).endswith("Exercises"):
        what = "the solution"
    for prompt, word in (("collapsed", "Show"), ("expanded", "Hide")):
        if place := hidden.select_one(f"summary .{prompt}"):
            place.string = f"{word} {what}"


def heading(section):
    """A section's title, without its permalink's sign."""
    title = section.find(re.compile("^h[1-6]$"))
    return " ".join(title.get_text(" ", strip=True).removesuffix("#").split()) if title else ""


def tell(soup, place, sections):
    """The sections that treat a claim, as a line of links."""
    place.append("Treated in: " if sections else "Treated on this page only.")
    for i, (address, title) in enumerate(sections.items()):
        link = soup.new_tag("a", href=address)
        link.string = title
        place.extend([", " if i else "", link])


def sources(soup, article, stem, up, data, sidecar):
    """Below each figure and table that shows data: its code, data, runs, commit and picture."""
    for figure in article.find_all("figure", id=True):
        cell, caption = figure.find_parent("div", class_="cell"), figure.find("figcaption")
        name = figure["id"]
        if cell is None or caption is None or name not in data:
            continue
        cell["id"] = f"code-{name}"
        picture = figure.find("img")
        links = [("code", f"#code-{name}"), ("data (CSV)", f"{up}{data[name]}"), ("runs (JSON)", f"{up}records/{stem}.json")]
        links += [(Path(picture["src"]).suffix[1:].upper(), picture["src"])] if picture and picture.get("src") else []
        links += [("SVG", f"{up}{data[name].removesuffix('.csv')}.svg")] if figure.find("svg") else []
        line = soup.new_tag("p", attrs={"class": "made-from"})
        for word, address in links:
            link = soup.new_tag("a", href=address)
            link.string = word
            line.extend([link, " · "])
        line.append(f"commit {sidecar['commit']}")
        figure.insert_after(line)


def save(site, soups):
    """Write the pages, and two scripts: what hovering shows (previews.js), texts for search from a folder (texts.js)."""
    shown, texts = {}, {}
    for path, soup in soups.items():
        name = str(path.relative_to(site))
        article = soup.find("article")
        if article is None:
            continue
        if path.stem == "claims":
            for section in article.find_all("section"):
                for anchor in [section.get("id", ""), *(s["id"] for s in section.find_all("span", id=True, recursive=False))]:
                    if re.fullmatch(r"c\d+", anchor):
                        shown[f"{name}#{anchor}"] = f"{heading(section)}\n{plain(section.find('p', recursive=False))}"
        for one in [*article.find_all("div", class_="citation"), *article.find_all("figure")]:
            if one.get("id"):
                shown[f"{name}#{one['id']}"] = plain(one.find("figcaption") or one)[:400]
        for term in article.find_all("dt", id=re.compile("^term-")):
            shown[f"{name}#{term['id']}"] = f"{plain(term)}: {plain(term.find_next_sibling('dd'))}"[:400]
        texts[name] = "".join(f'<section id="{s["id"]}">{plain(s)}</section>' for s in article.find_all("section", id=True))
    for name, value in (("PREVIEWS", shown), ("TEXTS", texts)):
        script = site / "_static" / f"{name.lower()}.js"
        script.write_text(f"window.{name} = {json.dumps(value, ensure_ascii=False)};\n", encoding="utf-8")
    for path, soup in soups.items():
        up = "../" * (len(path.relative_to(site).parts) - 1)
        for name in ("previews", "texts")[: 2 if path.stem == "search" else 1]:
            soup.head.append(soup.new_tag("script", src=f"{up}_static/{name}.js", defer=""))
        soup.head.append(soup.new_tag("link", rel="stylesheet", href=f"{up}_static/icons.css"))
        for old in soup.find_all(["script", "link"], attrs={"src": re.compile("fontawesome")}) + soup.find_all(
            "link", attrs={"href": re.compile("fontawesome")}
        ):
            old.decompose()
        path.write_text(str(soup), encoding="utf-8")


def plain(element):
    """An element's text in one line, its equations as TeX."""
    element = copy(element)
    for equation in element.select(".katex") if element is not None else ():
        equation.replace_with(equation.annotation.get_text())
    return " ".join(element.get_text(" ").replace("#", " ").split()) if element is not None else ""
