"""The chapters: parameters that are refused, by papermill as a reader runs it and cell by cell; pairs in sync and stripped."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import jupytext
import pytest

from reslib.evidence import parameters

NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))
FIRST, SECOND, THIRD = NOTEBOOKS[:3]
CIFAR_10, APPENDIX = (FIRST.with_name(f"{name}.ipynb") for name in ("05_cifar_analysis", "08_one_run"))


def run(notebook, **given):
    """Its cells one after the other in this process, with these parameters where papermill puts them."""
    cells = [cell for cell in jupytext.read(notebook).cells if cell.cell_type == "code"]
    sources = [cell.source for cell in cells]
    [at] = [i for i, cell in enumerate(cells) if "parameters" in cell.metadata.get("tags", [])]
    sources.insert(at + 1, "\n".join(["# Parameters", *(f"{name} = {value!r}" for name, value in given.items())]))
    scope = {"In": sources}
    for source in sources:
        exec(source, scope)


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda p: p.stem)
def test_pairs_are_in_sync_and_stripped(notebook):
    cells = jupytext.read(notebook)
    assert jupytext.writes(cells, "py:percent") == notebook.with_suffix(".py").read_text(encoding="utf-8")
    assert not any(c.get("outputs") or c.get("execution_count") for c in json.loads(notebook.read_text())["cells"])
    assert sum("parameters" in c.metadata.get("tags", []) for c in cells.cells) == 1


def test_each_chapter_has_both_halves():
    assert [p.stem for p in NOTEBOOKS] == [p.stem for p in sorted(FIRST.parent.glob("*.py"))]


def test_the_clean_filter_takes_away_what_running_and_saving_adds():
    def cleaned(text):
        words = [sys.executable, FIRST.parents[1] / ".ci" / "strip.py"]
        return subprocess.run(words, input=text, capture_output=True, encoding="utf-8", check=True).stdout

    for notebook in NOTEBOOKS:
        text = notebook.read_text(encoding="utf-8")
        values = json.loads(text)
        values["metadata"] |= {"language_info": {"version": "3"}, "papermill": {"input_path": "/here"}, "widgets": {}}
        for cell in values["cells"]:
            cell["metadata"]["papermill"] = {"duration": 1}
            if cell["cell_type"] == "code":
                cell |= {"execution_count": 1, "outputs": [{"output_type": "stream", "name": "stdout", "text": "1"}]}
        assert cleaned(json.dumps(values)) == cleaned(text) == text


def test_jupyter_rooted_in_the_chapters_folder_saves_both_halves(tmp_path):
    for path in (FIRST, FIRST.with_suffix(".py")):
        shutil.copy(path, tmp_path)
    manager = jupytext.TextFileContentsManager(root_dir=str(tmp_path))
    model = manager.get(FIRST.name)
    model["content"]["cells"][0]["source"] = "# Another title"
    manager.save(model, FIRST.name)
    assert "\n# # Another title\n" in (tmp_path / FIRST.name).with_suffix(".py").read_text()


def test_papermill_stops_at_a_bad_parameter_with_one_sentence(tmp_path):
    command = [sys.executable, "-m", "papermill", "--no-progress-bar", FIRST, tmp_path / "out.ipynb", "-p", "nosuch", "1"]
    found = subprocess.run(command, capture_output=True, text=True)
    says = "ParameterError: unknown parameter 'nosuch': this notebook has scale, depths"
    assert found.returncode != 0 and says in found.stderr.strip().splitlines()[-1]


@pytest.mark.parametrize(
    ("notebook", "given", "says"),
    [
        (FIRST, {"depths": [21]}, "depths: depth 21 is not 6n+2"),
        (SECOND, {"options": "A,A"}, "options: 'A,A' must be two or more different options"),
        (THIRD, {"depth": 21}, "depth: 21 is unknown; use one of 18, 34, 50, 101, 152."),
        (APPENDIX, {"wanted_power": 8}, "wanted_power: 8 is not a power; use a percentage from 50 to 99."),
        (CIFAR_10, {"groups": "longer,deeper"}, "groups: 'deeper' is unknown; use one of 'none', 'warm-up', 'start'"),
    ],
    ids=lambda v: getattr(v, "stem", ""),
)
def test_bad_parameters_are_refused_before_any_work(notebook, given, says):
    with pytest.raises(parameters.ParameterError, match=f"^{re.escape(says)}"):
        run(notebook, **given)


@pytest.mark.parametrize(
    ("reader", "value", "says"),
    [
        (parameters.choice("demo", "pocket"), "huge", "'huge' is unknown; use one of 'demo', 'pocket'."),
        (Path, 5, "5 is of the wrong kind; its cell has an example."),
        (parameters.flag, "maybe", "'maybe' is neither True nor False."),
        (parameters.cifar_depths, 20, "20 must be two or more depths, the shallowest first; write for example 20,56."),
        (parameters.several("none", "A", "B", "C", least=2), ["A", "D"], "'D' is unknown; use one of 'none', 'A', 'B', 'C'."),
    ],
    ids=lambda v: v if isinstance(v, str) else "",
)
def test_what_is_said_of_a_bad_value(reader, value, says):
    with pytest.raises(parameters.ParameterError, match=re.escape(f"name: {says}")):
        parameters.check({"name": value, "In": []}, name=reader)


def test_missing_data_stop_the_run_before_any_work(tmp_path, cifar, monkeypatch):
    base = tmp_path / "data" / "cifar-10-batches-py"
    base.mkdir(parents=True)
    for file in (cifar / base.name).iterdir():
        (base / file.name).symlink_to(file)
    (base / "test_batch").unlink()
    monkeypatch.setenv("RESLIB_DATA", str(base.parent))
    with pytest.raises(ValueError, match="test_batch is missing"):
        run(FIRST, scale="pocket", retrain=True, out_dir=str(tmp_path))


def test_missing_records_name_the_command():
    with pytest.raises(FileNotFoundError, match="python -m reslib train --scale pocket --depth 8"):
        run(FIRST, seeds="77", depths="8,14")


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_code_fits_the_books_column(notebook):
    lines = notebook.with_suffix(".py").read_text().splitlines()
    wide = [f"line {i}" for i, line in enumerate(lines, 1) if len(line) > 88 and not line.startswith("#")]
    assert not wide and len(lines) <= 700


def test_a_notebook_of_another_clone_says_whose_code_it_runs(root, tmp_path, monkeypatch, capsys):
    clone = tmp_path / "older clone"
    for folder in ("reslib", "notebooks"):
        (clone / folder).mkdir(parents=True)
    (clone / "reslib" / "resnet.py").touch()
    for place, said in ((root / "notebooks", ""), (clone / "notebooks", f"records of {root}, not with those beside it")):
        monkeypatch.chdir(place)
        parameters.check({"In": []})
        assert said in (told := capsys.readouterr().err) and bool(told) == bool(said)
    assert f"`pip install -e '{clone}'`" in told


def test_parameters_as_papermill_passes_them():
    scope = {"depths": "20,56", "seeds": [0, 1], "retrain": "True", "scale": "demo", "In": ["", "# Parameters\nscale = 1\n"]}
    kinds = dict(depths=parameters.cifar_depths, seeds=parameters.whole_numbers, retrain=parameters.flag)
    parameters.check(scope, scale=parameters.choice("demo"), **kinds)
    assert (scope["depths"], scope["seeds"], scope["retrain"]) == ((20, 56), (0, 1), True)
    for value in ("20;56", "", [20.5], "56,20", "20,20"):
        with pytest.raises(ValueError):
            parameters.cifar_depths(value)


def test_options_as_papermill_passes_them():
    shortcuts = parameters.several("none", "A", "B", "C", least=2)
    for value in ("none,A,C", ["none", "A", "C"], [None, "C", "A"], "[C, none, 'A']", ("A", "C", "none")):
        assert shortcuts(value) == ("none", "A", "C")
    assert parameters.several("warm-up", "1202")(1202) == ("1202",)
    for value in ("A", "", "a,b", "A,D", ["A", "A"], None, 3, []):
        with pytest.raises(ValueError):
            shortcuts(value)
