"""The house: imports run one way, from what judges and draws down to the nets, and no file is a wall of text."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

RESLIB = Path(__file__).parents[1] / "reslib"


def imports(path, nested=True):
    """The modules of reslib that a file imports, from reslib down: "data.cifar". nested: within functions too."""
    package = path.relative_to(RESLIB).parts[:-1]
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree) if nested else tree.body:
        if isinstance(node, ast.ImportFrom) and node.level:
            base = package[: len(package) - node.level + 1]
            names = [node.module] if node.module else [alias.name for alias in node.names]
            yield from (".".join((*base, name)) for name in names)


def room(name):
    return name.split(".")[0]


def test_nothing_below_imports_what_judges():
    for path in RESLIB.rglob("*.py"):
        here = room(".".join(path.relative_to(RESLIB).with_suffix("").parts))
        above = {"evidence": {"bench", "__main__"}, "bench": {"__main__"}, "__main__": set()}
        forbidden = above.get(here, {"evidence", "bench", "__main__"})
        assert not forbidden & set(map(room, imports(path))), path.name


def test_there_is_no_circle():
    """Of modules, by what they import when they are loaded."""
    graph = {}
    for path in RESLIB.rglob("*.py"):
        parts = path.relative_to(RESLIB).with_suffix("").parts
        graph[".".join(part for part in parts if part != "__init__")] = set(imports(path, nested=False))
    graph.pop("")  # reslib itself lists the public names

    def walk(name, seen):
        assert name not in seen, f"a circle: {' -> '.join((*seen, name))}"
        for other in graph.get(name, ()):
            walk(other, (*seen, name))

    for name in graph:
        walk(name, ())


@pytest.mark.parametrize("path", sorted(RESLIB.rglob("*.py")), ids=lambda path: path.stem)
def test_no_function_is_over_60_lines(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef):
            assert node.end_lineno - node.lineno < 60, f"{path.name}: {node.name}"


def test_importing_reslib_is_light():
    """What draws, judges and reads through FFCV is loaded when it is needed."""
    heavy = ("matplotlib", "pandas", "seaborn", "ffcv", "numba", "scipy", "statsmodels")
    code = f"import reslib, sys; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=RESLIB.parent)
    assert done.stdout.strip() == "[]", done.stdout + done.stderr
