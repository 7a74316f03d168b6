"""What the book adds to Sphinx: numbered tables out of notebook cells, the .py among the downloads; and no thebe.

A cell's output becomes a numbered figure by its metadata, `mystnb={"figure": {"caption": "...", "name": "fig-x"}}`.
A name that begins with "tab-" makes it a numbered table, its caption above (custom.css).
"""

from pathlib import Path

from docutils import nodes
from sphinx.transforms import SphinxTransform

# the summaries of search results are fetched, which a browser forbids in a folder
NO_SUMMARIES = 'if (location.protocol === "file:") DOCUMENTATION_OPTIONS.SHOW_SEARCH_SUMMARY = false;'


class table_figure(nodes.figure):
    """A figure that is counted among the tables."""


class CountTables(SphinxTransform):
    default_priority = 100  # before labels are collected

    def apply(self, **kwargs):
        for old in list(self.document.findall(nodes.figure)):
            if any(name.startswith("tab-") for name in old["names"]):
                new = table_figure("", *old.children)
                new.attributes, new.source, new.line = old.attributes, old.source, old.line
                new["classes"].append("table-figure")
                old.replace_self(new)
                self.document.ids |= dict.fromkeys(new["ids"], new)  # what {numref} looks up


def add_script_download(app, pagename, templatename, context, doctree):
    if (Path(app.srcdir) / f"{pagename}.ipynb").exists():  # build.py puts the .py beside it
        for group in context.get("header_buttons", []):
            if group["label"] == "download-buttons":
                group["buttons"].insert(1, {
                    "type": "link", "text": ".py", "icon": "fas fa-code", "label": "download-script-button",
                    "tooltip": "Download the script form", "url": f"{context['pathto']('_sources', 1)}/{pagename}.py",
                })  # fmt: skip


def setup(app):
    app.add_enumerable_node(
        table_figure, "table",
        html=(lambda self, node: self.visit_figure(node), lambda self, node: self.depart_figure(node)),
    )  # fmt: skip
    app.add_transform(CountTables)
    app.add_js_file(None, body=NO_SUMMARIES)
    app.connect("html-page-context", add_script_download, priority=900)
    for event, listeners in app.events.listeners.items():  # thebe would put a CDN's address into every page
        if event != "builder-inited":
            listeners[:] = [one for one in listeners if one.handler.__module__ != "sphinx_thebe"]
    return {"parallel_read_safe": True, "parallel_write_safe": True}
