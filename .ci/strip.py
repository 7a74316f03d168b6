"""A notebook as it is committed: no outputs, no counts, no machine's own metadata. Git's clean filter, from stdin to stdout.

Once in a clone, so that running a chapter changes nothing: git config filter.notebook.clean "python3 .ci/strip.py"
"""

import json
import sys

KEPT = ("lines_to_next_cell", "mystnb", "tags")  # of a cell

notebook = json.load(sys.stdin)
notebook["metadata"] = {name: notebook["metadata"][name] for name in ("jupytext", "kernelspec") if name in notebook["metadata"]}
notebook["metadata"].get("jupytext", {}).pop("text_representation", None)
for cell in notebook["cells"]:
    cell["metadata"] = {name: value for name, value in cell["metadata"].items() if name in KEPT}
    if cell["cell_type"] == "code":
        cell |= {"outputs": [], "execution_count": None}
json.dump(notebook, sys.stdout, indent=1, ensure_ascii=False, sort_keys=True)
print()
