"""What the book adds to Sphinx: numbered tables out of notebook cells, the .py among the downloads, set equations; no thebe.

A cell's output becomes a numbered figure by its metadata, `mystnb={"figure": {"caption": "...", "name": "fig-x"}}`.
A name that begins with "tab-" makes it a numbered table, its caption above (custom.css).
"""

import json
import re
from pathlib import Path

import yaml
from docutils import nodes
from sphinx.transforms import SphinxTransform


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


def buttons(options, address):
    """The theme's options with the buttons that need the repository's address; as they are where there is none."""
    if not address:
        return options
    return options | {
        "repository_url": address, "repository_branch": "main", "path_to_docs": "", "use_repository_button": True,
        "use_edit_page_button": True, "use_issues_button": True,
        "launch_buttons": {"colab_url": "https://colab.research.google.com", "binderhub_url": "https://mybinder.org"},
    }  # fmt: skip


def add_buttons(app, config):
    about = yaml.safe_load((Path(__file__).parents[2] / "CITATION.cff").read_text(encoding="utf-8"))
    config.html_theme_options = buttons(config.html_theme_options, about.get("repository-code"))


SET = json.loads((Path(__file__).parents[1] / "_vendor" / "katex" / "set.json").read_text(encoding="utf-8"))
"""HTML of equations by kind and TeX, made by katex.cjs. What is not in it is set by the reader's browser: 280 KB to load."""


def tex(node):
    """The kind of an equation, and its text for KaTeX."""
    text = node.astext()
    if isinstance(node, nodes.math):
        return "inline", text
    text = f"\\begin{{split}}{text}\\end{{split}}" if "\\\\" in text and not node.get("nowrap") else text
    return "display", re.sub(r"\\(begin|end)\{(equation|align|gather)\}", r"\\\1{\2*}", text)  # Sphinx has put the number


def katex(self, node):
    kind, text = tex(node)
    return SET[kind].get(text) or self.encode(text)


def katex_inline(self, node):
    self.body.append(self.starttag(node, "span", "", CLASS="math") + katex(self, node) + "</span>")
    raise nodes.SkipNode


def katex_block(self, node):
    self.body.append(self.starttag(node, "div", CLASS="math"))
    if node["number"]:
        self.body.append(f'<span class="eqno">({self.encode(str(node["number"]))})')
        self.add_permalink_ref(node, "Link to this equation")
        self.body.append("</span>")
    self.body.append(f'<span class="display">{katex(self, node)}</span></div>')
    raise nodes.SkipNode


def load_katex(app, pagename, templatename, context, doctree):
    found = [] if doctree is None else [tex(n) for n in doctree.findall(lambda n: isinstance(n, nodes.math | nodes.math_block))]
    if found:
        app.add_css_file("vendored/katex/katex.min.css")
    if any(text not in SET[kind] for kind, text in found):
        app.add_js_file("vendored/katex/katex.min.js", loading_method="defer", priority=400)
    app.equations.update(found)


def list_equations(app, error):
    found = {kind: sorted(text for one, text in app.equations if one == kind) for kind in SET}
    (Path(app.outdir).parent / "equations.json").write_text(json.dumps(found), encoding="utf-8")  # for katex.cjs


def setup(app):
    app.add_html_math_renderer("katex", (katex_inline, None), (katex_block, None))
    app.equations = set()
    app.connect("html-page-context", load_katex)
    app.connect("build-finished", list_equations)
    app.connect("config-inited", add_buttons)
    app.add_enumerable_node(
        table_figure, "table",
        html=(lambda self, node: self.visit_figure(node), lambda self, node: self.depart_figure(node)),
    )  # fmt: skip
    app.add_transform(CountTables)
    app.connect("html-page-context", add_script_download, priority=900)
    for event, listeners in app.events.listeners.items():  # thebe would put a CDN's address into every page
        if event != "builder-inited":
            listeners[:] = [one for one in listeners if one.handler.__module__ != "sphinx_thebe"]
    return {"parallel_read_safe": True, "parallel_write_safe": True}
