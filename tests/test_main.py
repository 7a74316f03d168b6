"""The command line, as a user calls it: what works, and one sentence for what does not.

Each command is called once as a process of its own, here or in the file of its subject; what else is asked of it, in this one.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from functools import partial

import pytest
import torch

import reslib


def run(*words, **keywords):
    return subprocess.run([sys.executable, "-m", "reslib", *words], capture_output=True, text=True, **keywords)


def test_the_version_is_told(reslib_main):
    assert reslib_main("--version").stdout == f"reslib {reslib.__version__}\n"


def test_train_writes_a_record_and_keeps_it(tmp_path, reslib_main):
    words = ("train", "--scale", "demo", "--depth", "8", "--shortcut", "none", "--seed", "4", "--out", str(tmp_path))
    short = ("--set", "steps=10", "--set", "milestones=[5]", "--threads", "1")
    first = run(*words, *short)
    assert first.returncode == 0, first.stderr
    assert "images/s" in first.stderr and "loss=" in first.stderr and "test error" in first.stdout
    record = next(tmp_path.glob("digits-plain8-demo-s4-*.json"))
    assert json.loads(record.read_text())["environment"]["threads"] == 1
    second = reslib_main(*words, *short)
    assert second.stdout == first.stdout and "images/s" not in second.stderr
    assert "only read" in second.stderr and "only read" not in first.stderr


def test_train_where_nothing_can_be_said(tmp_path):
    """A daemon's stdout and stderr may be closed: Python has None in their place."""
    short = ("--scale", "demo", "--depth", "8", "--set", "steps=10", "--set", "milestones=[5]", "--set", "size=8")
    command = [sys.executable, "-m", "reslib", "train", *short, "--out", tmp_path]
    assert subprocess.run(["sh", "-c", 'exec "$@" >&- 2>&-', "sh", *command]).returncode == 0
    assert len(list(tmp_path.glob("*.json"))) == 1


def test_ctrl_c_during_the_imports_says_nothing(root, tmp_path):
    (tmp_path / "torch.py").write_text("import os, signal, time\nos.kill(os.getpid(), signal.SIGINT)\ntime.sleep(9)")
    heard = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)  # what these tests run under may ignore it
    found = run("plan", env=os.environ | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{root}"}, preexec_fn=heard)
    assert found.returncode == -signal.SIGINT and not found.stdout + found.stderr


def test_a_deleted_working_directory_is_one_sentence(root, tmp_path):
    command = [sys.executable, "-m", "reslib", "plan"]
    lost = ["sh", "-c", 'mkdir gone && cd gone && rmdir ../gone && exec "$@"', "sh", *command]
    found = subprocess.run(lost, cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(root)}, capture_output=True, text=True)
    assert found.returncode == 1 and not found.stdout
    assert found.stderr.startswith("The working directory has been deleted") and len(found.stderr.splitlines()) == 1


@pytest.mark.parametrize(("words", "threads"), [((), 1), (("--threads", "2"), 2)])
def test_threads_are_no_more_than_a_container_s_cores_unless_asked_for(words, threads, reslib_main, monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setenv("LOKY_MAX_CPU_COUNT", "1")  # joblib takes it as it does a container's quota
    torch.set_num_threads(2)
    assert "backend 'numpy' is unknown" in reslib_main("train", "--scale", "demo", *words, "--backend", "numpy").stderr
    assert torch.get_num_threads() == threads


def test_data(cifar):
    found = run("data", "--dir", str(cifar))
    assert found.returncode == 0 and "50,000 training images" in found.stdout and "10,000 test images" in found.stdout


def test_test_of_a_run_s_weights(tmp_path, reslib_main):
    """On its own test images it finds the record's error; two seeds make an ensemble."""
    short = ("--scale", "demo", "--depth", "8", "--set", "steps=10", "--set", "milestones=[5]", "--threads", "1")
    for seed in "01":
        assert reslib_main("train", *short, "--seed", seed, "--out", str(tmp_path)).returncode == 0
    one, two = sorted(tmp_path.glob("*.safetensors"))
    found = reslib_main("test", "--weights", str(one), "--weights", str(two.with_suffix(".json")))
    assert found.returncode == 0, found.stderr
    for path in (one, two):
        error = json.loads(path.with_suffix(".json").read_text())["final"]["test_error"]
        assert re.search(rf"\| {path.stem} +\| {error:.2f} \[", found.stdout)
    assert "| ensemble of 2 " in found.stdout
    found = reslib_main("test", "--weights", str(one), "--how", "ten")
    assert found.returncode != 0 and "CIFAR nets are tested on the single view" in found.stderr


def test_bench_step():
    found = run(
        "bench", "step", "--depth", "8", "--size", "8", "--batch", "4", "--rounds", "1", "--steps", "1", "--no-compiled"
    )
    assert found.returncode == 0, found.stderr
    rows = re.findall(r"^\| (eager NCHW|channels_last) \| ([\d.]+) \(", found.stdout, re.MULTILINE)
    assert [name for name, _ in rows] == ["eager NCHW", "channels_last"] and all(float(ms) > 0 for _, ms in rows)
    assert found.stderr == ""


def test_bench_step_against_the_usual_script_which_loads_its_batches(cifar, reslib_main):
    words = ("bench", "step", "--script", "--depth", "8", "--batch", "4", "--rounds", "1", "--steps", "1", "--no-compiled")
    found = reslib_main(*words, "--data-dir", cifar)
    assert found.returncode == 0, found.stderr
    ratios = re.search(r"\| usual script \| .* \| ([\d.]+) \| ([\d.]+) \|", found.stdout)
    assert ratios and ratios[2] == "1.00" and "times usual script" in found.stdout


def test_plan():
    found = run("plan", "--scale", "pocket")
    assert found.returncode == 0 and "| pocket  | core " in found.stdout and "runs recorded" in found.stdout


def test_plan_counts_the_records_of_a_sweep_too(root, tmp_path, reslib_main, monkeypatch):
    name = "cifar10-resnet20-A-pocket-s0-38e3e073.json"
    (tmp_path / "none").mkdir()
    shutil.copy(root / "notebooks" / "records" / name, tmp_path)
    monkeypatch.setenv("RESLIB_RECORDS", str(tmp_path / "none"))
    for words, count in (((), 0), (("--out", tmp_path), 1)):
        found = reslib_main("plan", "--scale", "pocket", *words)
        assert f"\n{count} of " in found.stdout, found.stderr


def test_claims_are_printed_or_put_between_the_marks_of_a_page(tmp_path, reslib_main):
    found = run("claims")
    assert found.returncode == 0 and found.stdout.startswith("| claim")
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- claims -->\nan older table\n<!-- /claims -->\nafter\n")
    assert reslib_main("claims", "--write", page).returncode == 0
    before, marked = page.read_text().split("<!-- claims -->\n")
    written, after = marked.split("<!-- /claims -->")
    assert (before, after) == ("before\n", "\nafter\n") and "| evidence" in written and "an older" not in written
    page.write_text("no marks")
    found = reslib_main("claims", "--write", page)
    assert found.returncode != 0 and "has no claims marks" in found.stderr and page.read_text() == "no marks"


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("bench", "step", "--script", "--size", "16"), "--script goes with --size 32"),
        (("train", "--depth", "21"), "depth 21 is not 6n+2: the nearest depths are 20 and 26."),
        (("train", "--scale", "huge"), "scale 'huge' is unknown"),
        (("train", "--shortcut", "D"), "shortcut is 'D': it must be None, 'A', 'B' or 'C'."),
        (("train", "--set", "speed=2"), "a recipe has no field 'speed'"),
        (("train", "--scale", "demo", "--backend", "numpy"), "backend 'numpy' is unknown"),
        (("train", "--scale", "demo", "--device", "gpu"), "device 'gpu' is unknown: use cpu or cuda."),
        (("train", "--set", "lr=abc"), "lr is 'abc': it must be a valid number."),
        (("train", "--set", "momentum=2"), "momentum is 2: it must be less than 1."),
        (("train", "--set", "scale=night"), "use --scale"),
        (("train", "--scale", "demo", "--out", __file__), f"nothing can be written to {__file__}"),
        (("plan", "--out", "nowhere"), "nowhere is no folder"),
        (("plan", "--scale", "foo"), "scale 'foo' is not planned"),
        (("sweep", "--time-limit", "nan"), "time_limit is nan: it must be above 0 seconds."),
        (("sweep", "--executor", "pbs"), "executor 'pbs' is unknown: use local or slurm."),
        (("bench", "load", "--seconds", "nan"), "seconds is nan"),
    ],
)
def test_mistakes_are_one_sentence(words, says, tmp_path, reslib_main, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = reslib_main(*words)
    assert found.returncode != 0 and says in found.stderr
    assert len(found.stderr.strip().splitlines()) == 1 and not found.stdout and not list(tmp_path.rglob("*.json"))
