"""The chapters, run by papermill as a reader would: parameters that are refused, pairs in sync, outputs stripped."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import jupytext
import pytest

from reslib.evidence import parameters

NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))
FIRST, SECOND = NOTEBOOKS[:2]
CIFAR_10, APPENDIX = (FIRST.with_name(f"{name}.ipynb") for name in ("05_cifar_analysis", "08_one_run"))


def papermill(notebook, out, *words, **keywords):
    command = [sys.executable, "-m", "papermill", "--no-progress-bar", str(notebook), str(out), *words]
    return subprocess.run(command, capture_output=True, text=True, **keywords)


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


@pytest.mark.parametrize(
    ("notebook", "words", "says"),
    [
        (FIRST, ("-p", "nosuch", "1"), "unknown parameter 'nosuch': this notebook has scale, depths"),
        (FIRST, ("-y", "depths: [21]"), "depths: depth 21 is not 6n+2"),
        (SECOND, ("-p", "options", "A,A"), "options: 'A,A' must be two or more different options"),
        (APPENDIX, ("-p", "wanted_power", "8"), "wanted_power: 8 is not a power; use a percentage from 50 to 99."),
        (CIFAR_10, ("-p", "groups", "longer,deeper"), "groups: 'deeper' is unknown; use 'none', 'warm-up', 'start'"),
    ],
    ids=lambda v: "-".join(v) if isinstance(v, tuple) else getattr(v, "stem", ""),
)
def test_bad_parameters_stop_the_run_with_one_sentence(notebook, words, says, tmp_path):
    found = papermill(notebook, tmp_path / "out.ipynb", *words)
    assert found.returncode != 0
    assert f"ParameterError: {says}" in found.stderr.strip().splitlines()[-1]


@pytest.mark.parametrize(
    ("reader", "value", "says"),
    [
        (parameters.choice("demo", "pocket"), "huge", "'huge' is unknown; use one of 'demo', 'pocket'."),
        (parameters.flag, "maybe", "'maybe' is neither True nor False."),
        (parameters.cifar_depths, 20, "20 must be two or more depths, the shallowest first; write for example 20,56."),
        (parameters.shortcuts, ["A", "D"], "'D' is unknown; use 'none', 'A', 'B', 'C'."),
    ],
    ids=lambda v: v if isinstance(v, str) else "",
)
def test_what_is_said_of_a_bad_value(reader, value, says):
    with pytest.raises(parameters.ParameterError, match=re.escape(f"name: {says}")):
        parameters.check({"name": value, "In": []}, name=reader)


def test_a_depth_that_table_1_does_not_have(tmp_path):
    found = papermill(FIRST.with_name("03_architectures.ipynb"), tmp_path / "out.ipynb", "-p", "depth", "21")
    says = "ParameterError: depth: 21 is unknown; use one of 18, 34, 50, 101, 152."
    assert found.returncode != 0 and found.stderr.strip().splitlines()[-1] == says


def test_missing_data_stop_the_run_before_any_work(tmp_path, cifar):
    base = tmp_path / "data" / "cifar-10-batches-py"
    base.mkdir(parents=True)
    for file in (cifar / base.name).iterdir():
        (base / file.name).symlink_to(file)
    (base / "test_batch").unlink()
    words = ("-p", "scale", "pocket", "-p", "retrain", "True")
    found = papermill(FIRST, tmp_path / "out.ipynb", *words, env={**os.environ, "RESLIB_DATA": str(base.parent)})
    assert found.returncode != 0 and "test_batch is missing" in found.stderr.strip().splitlines()[-1]


def test_missing_records_name_the_command(tmp_path):
    found = papermill(FIRST, tmp_path / "out.ipynb", "-p", "seeds", "77", "-p", "depths", "8,14")
    assert found.returncode != 0 and "python -m reslib train --scale pocket --depth 8" in found.stderr.strip().splitlines()[-1]


def test_parameters_as_papermill_passes_them():
    scope = {"depths": "20,56", "seeds": [0, 1], "retrain": "True", "scale": "demo", "In": ["", "# Parameters\nscale = 1\n"]}
    kinds = dict(depths=parameters.cifar_depths, seeds=parameters.whole_numbers, retrain=parameters.flag)
    parameters.check(scope, scale=parameters.choice("demo"), **kinds)
    assert (scope["depths"], scope["seeds"], scope["retrain"]) == ((20, 56), (0, 1), True)
    for value in ("20;56", "", [20.5], "56,20", "20,20"):
        with pytest.raises(ValueError):
            parameters.cifar_depths(value)


def test_options_as_papermill_passes_them():
    for value in ("none,A,C", ["none", "A", "C"], [None, "C", "A"], "[C, none, 'A']", ("A", "C", "none")):
        assert parameters.shortcuts(value) == ("none", "A", "C")
    assert parameters.several("warm-up", "1202")(1202) == ("1202",)
    for value in ("A", "", "a,b", "A,D", ["A", "A"], None, 3, []):
        with pytest.raises(ValueError):
            parameters.shortcuts(value)
