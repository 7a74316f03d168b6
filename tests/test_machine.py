"""Which code made a run: the commit of the repository that holds this very file at its place, or none."""

import shutil
import subprocess
from pathlib import Path

import torch

from reslib import machine

ROOT = Path(__file__).parents[1]


def test_a_copy_inside_another_repository_has_no_commit(tmp_path, monkeypatch):
    def told(folder):
        monkeypatch.setattr(machine, "__file__", str(folder / "reslib" / "machine.py"))
        found = machine.environment(torch.device("cpu"), 1)
        return found["commit"], found["dirty"]

    for name, inner in (("ignored", "venv"), ("vendored", "libraries"), ("own", ".")):
        (folder := tmp_path / name / inner / "reslib").mkdir(parents=True)
        shutil.copy(ROOT / "reslib" / "machine.py", folder)
        (tmp_path / name / ".gitignore").write_text("venv\n")
        who = ["-c", "user.name=n", "-c", "user.email=n@example.org"]
        for words in (["init", "-q"], ["add", "--all"], [*who, "commit", "-q", "-m", "first"]):
            subprocess.run(["git", *words], cwd=tmp_path / name, check=True)
    assert told(tmp_path / "ignored" / "venv") == told(tmp_path / "vendored" / "libraries") == (None, None)
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "ignored" / ".git"))  # as in a hook of that repository
    commit, dirty = told(tmp_path / "own")
    assert len(commit) == 40 and dirty is False
    (tmp_path / "own" / "reslib" / "new.py").touch()
    assert told(tmp_path / "own") == (commit, True)
