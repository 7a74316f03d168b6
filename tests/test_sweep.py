"""The plan and its sweep: what is missing is carried out, killed or stopped at any moment, and gone on with."""

import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import reslib
from reslib import CIFAR, plan, records
from reslib.checkpoint import busy
from reslib.records import read
from reslib.sweep import missing, sweep

SCRIPT = """
from dataclasses import replace
import reslib, reslib.plan, reslib.sweep
from reslib import CIFAR
SHORT = dict(steps={steps}, milestones=(10, 15), eval_every=10)
reslib.plan.SEEDS["demo"] = (0, 1)
nets = tuple(replace(CIFAR, depth=depth, shortcut=None) for depth in (8, 14))
reslib.plan.PLAN = (reslib.plan.Group("tiny", "C1", "", nets, scales=("demo",)),)
reslib.plan.at = lambda group, recipe, scale: replace(recipe.at(scale), **SHORT)
if __name__ == "__main__":
    print(reslib.sweep.sweep("tiny", "demo", jobs=2, out={out!r}, device="cpu"))
"""


def script(tmp_path, steps):
    file = tmp_path / "sweep_tiny.py"
    file.write_text(SCRIPT.format(steps=steps, out=str(tmp_path / "runs")))
    return [sys.executable, str(file)]


def wait_for(what, seconds=90):
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT], ids=lambda n: n.name)
def test_stopped_and_gone_on_with(number, tmp_path):
    out, command, said = tmp_path / "runs", script(tmp_path, 4_000), tmp_path / "said"
    with said.open("w") as file, subprocess.Popen(command, stdout=file, stderr=file) as process:
        wait_for(lambda: re.search(r"plain8 s0 [1-9]\d?%, plain14 s0 [1-9]\d?%", said.read_text()))
        pids = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        process.send_signal(number)
        process.wait(90)
        assert process.returncode != 0
    wait_for(lambda: not any(alive(pid) for pid in pids))  # no child goes on without its parent
    assert len(list(out.glob("*.ckpt"))) == 2 and not list(out.glob("*.json")) and not list(out.glob("*.part"))
    steps = [torch.load(file)["state"]["step"] for file in out.glob("*.ckpt")]
    assert all(0 < step < 4_000 for step in steps)


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_everything_once(tmp_path):
    out, command = tmp_path / "runs", script(tmp_path, 20)
    first = subprocess.run(command, capture_output=True, text=True)
    assert first.returncode == 0 and first.stdout.strip() == "[]", first.stderr
    assert "4/4 runs" in first.stderr and "images/s" not in first.stderr  # one display for all
    made = {file: file.stat().st_mtime_ns for file in out.iterdir()}
    assert len(made) == 4 and all(file.suffix == ".json" for file in made)
    assert subprocess.run(command, capture_output=True, text=True).returncode == 0
    assert {file: file.stat().st_mtime_ns for file in out.iterdir()} == made
    record = read(min(made))
    assert record.environment["threads"] == 1
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    again = reslib.train(record.recipe, out_dir=tmp_path / "again", device="cpu")
    torch.set_num_threads(threads)
    assert record.weights_sha256 == again.weights_sha256


def test_two_sweeps_share_the_work(tmp_path, monkeypatch):
    """Each takes the runs that the other is not at; one that the other keeps is no failure."""
    recipes = [replace(CIFAR.at("demo"), depth=8, seed=seed) for seed in (1, 2)]
    monkeypatch.setattr("reslib.sweep.planned", lambda scale, name: ((None, recipe) for recipe in recipes))
    monkeypatch.setattr("reslib.sweep.LOCK_SECONDS", 1)
    locks = [tmp_path / f"{recipe.name}.lock" for recipe in recipes]
    held = "from pathlib import Path; import sys, time; from reslib.checkpoint import locked\n" \
           "with locked(Path(sys.argv[1])): print(flush=True); time.sleep(600)"  # fmt: skip
    with subprocess.Popen([sys.executable, "-c", held, locks[0]], stdout=subprocess.PIPE) as other:
        other.stdout.readline()
        assert [busy(lock) for lock in locks] == [True, False]
        assert sweep(None, "demo", jobs=1, out=tmp_path, device="cpu") == []
        other.kill()
    assert missing("demo", None, tmp_path) == recipes[:1] and not any(busy(lock) for lock in locks)


def test_a_failure_is_told_and_the_others_go_on(tmp_path, monkeypatch, capsys):
    short = dict(steps=20, milestones=(10, 15), eval_every=10, depth=8)
    runs = [replace(CIFAR.at("demo"), **short, lr=lr, batch=batch) for lr, batch in ((1e30, 128), (0.1, 9_999), (0.1, 128))]
    monkeypatch.setattr("reslib.sweep.planned", lambda scale, name: ((None, recipe) for recipe in runs))
    failed = sweep(None, "demo", jobs=1, out=tmp_path, device="cpu")
    assert len(failed) == 2 and "the loss is" in failed[0] and "more than the training set holds" in failed[1]
    assert missing("demo", None, tmp_path) == runs[:2] and failed[0] in capsys.readouterr().err
    assert sweep(None, "demo", jobs=1, out=tmp_path, device="cpu", time_limit=0) == []


def test_the_plan_holds_every_recorded_run():
    ids = {recipe.id for _, recipe in plan.planned()}
    runs = records()
    assert set(runs.recipe_id) <= ids
    table = plan.table(runs)
    assert table.recorded.sum() == len(set(runs.recipe_id)) and table.runs.sum() == len(ids)
    assert (table.recorded <= table.runs).all() and (table.hours > 0).all()


def test_the_most_valuable_come_first_seed_by_seed():
    runs = list(plan.planned("paper"))
    names = [(group.name, recipe.net_name, recipe.seed) for group, recipe in runs]
    first = [("core", net, seed) for seed in (0, 1) for net in ("plain20", "plain56", "resnet20-A", "resnet56-A")]
    assert names[:8] == first
    assert len({recipe.id for _, recipe in runs}) == len(runs)


def test_mistakes():
    with pytest.raises(ValueError, match="plan 'nosuch' is unknown: use one of core, depth"):
        sweep("nosuch", "pocket")
    with pytest.raises(ValueError, match="scale 'demo' is not planned"):
        sweep(None, "demo")
    with pytest.raises(ValueError, match="jobs is -1"):
        sweep("core", "pocket", jobs=-1)
    assert os.environ.get("TQDM_DISABLE") is None
