"""The plan and its sweep: what is missing is carried out, killed or stopped at any moment, and gone on with."""

import multiprocessing
import os
import re
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from unittest.mock import Mock

import pytest
import torch

import reslib
from reslib import CIFAR, plan, records
from reslib.checkpoint import busy
from reslib.record import read
from reslib.sweep import collect, missing, sweep

SCRIPT = """
from dataclasses import replace
import reslib, reslib.plan, reslib.sweep
from reslib import CIFAR
SHORT = dict(steps={steps}, milestones=(10, 15), eval_every=10)
reslib.sweep.drawing_seconds = lambda: 0.2  # as on a terminal
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


@pytest.mark.parametrize(
    "number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP], ids=lambda number: number.name
)
def test_stopped_with_checkpoints(number, tmp_path):
    """SIGKILL of the sweep alone, or a signal to its children as well: from a scheduler, at a terminal, where ssh is lost."""

    def as_at_a_terminal():  # the tests may run where some are ignored: under nohup, in the background
        for one in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(one, signal.SIG_DFL)

    out, said = tmp_path / "runs", tmp_path / "said"
    options = dict(start_new_session=True, preexec_fn=as_at_a_terminal)
    with said.open("w") as file, subprocess.Popen(script(tmp_path, 4_000), stdout=file, stderr=file, **options) as process:
        wait_for(lambda: re.search(r"plain8 s0 [1-9]\d?%, plain14 s0 [1-9]\d?%", said.read_text()))
        pids = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        (os.kill if number == signal.SIGKILL else os.killpg)(process.pid, number)
        process.wait(90)
        assert process.returncode == (-number if number in (signal.SIGKILL, signal.SIGINT) else 128 + number)
        assert number in (signal.SIGKILL, signal.SIGINT) or "Traceback" not in said.read_text()
    wait_for(lambda: not any(alive(pid) for pid in pids))  # no child goes on without its parent
    assert len(list(out.glob("*.ckpt"))) == 2 and not list(out.glob("*.json")) and not list(out.glob("*.part"))
    steps = [torch.load(file)["state"]["step"] for file in out.glob("*.ckpt")]
    assert all(0 < step < 4_000 for step in steps)


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_stopped_and_gone_on_with_everything_is_there_once(tmp_path):
    """The records are those of undisturbed runs, to the last bit; a further call does nothing."""
    out, command, said = tmp_path / "runs", script(tmp_path, 80), tmp_path / "said"
    with said.open("w") as file, subprocess.Popen(command, stdout=file, stderr=file) as process:
        wait_for(lambda: re.search(r" s\d [1-9]\d?%", said.read_text()))
        process.terminate()
    begun = [file.stem for file in out.glob("*.ckpt")]
    whole = subprocess.run(command, capture_output=True, text=True)
    assert whole.returncode == 0 and whole.stdout.strip() == "[]", whole.stderr
    assert re.search(r"(\d)/\1 runs", whole.stderr) and "images/s" not in whole.stderr  # one display for all
    made = {file: file.stat().st_mtime_ns for file in out.iterdir()}
    assert len(made) == 4 and all(file.suffix == ".json" for file in made)
    assert subprocess.run(command, capture_output=True, text=True).returncode == 0
    assert {file: file.stat().st_mtime_ns for file in out.iterdir()} == made
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    for record in (read(out / f"{name}.json") for name in begun):
        again = reslib.train(record.recipe, out_dir=tmp_path / "again", device="cpu")
        assert record.environment["threads"] == 1 and record.weights_sha256 == again.weights_sha256
    torch.set_num_threads(threads)
    assert begun


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
    assert sweep(None, "demo", jobs=1, out=tmp_path, device="cpu", time_limit=1e-9) == []


def test_each_failure_is_its_own_runs(tmp_path, monkeypatch):
    """One child is killed while another fails and a third goes on: neither takes the other's words."""
    short = dict(steps=20, milestones=(10, 15), eval_every=10, depth=8)
    broken, killed, long = (replace(CIFAR.at("demo"), **short, **c) for c in ({"lr": 1e30}, {"seed": 1}, {"seed": 2}))
    killed = replace(killed, steps=40_000)
    monkeypatch.setattr("reslib.sweep.planned", lambda scale, name: ((None, recipe) for recipe in (broken, killed, long)))

    def kill():
        wait_for(lambda: any(child.name == killed.name for child in multiprocessing.active_children()))
        child = next(child for child in multiprocessing.active_children() if child.name == killed.name)
        wait_for(lambda: (tmp_path / f"{long.name}.json").exists())
        child.kill()

    with ThreadPoolExecutor(1) as pool:
        pool.submit(kill)
        failed = sweep(None, "demo", jobs=3, out=tmp_path, device="cpu")
    told = {said.partition(": ")[0]: said for said in failed}
    assert set(told) == {broken.name, killed.name} and told[broken.name].count(broken.name) == 1
    assert "the loss is" in told[broken.name] and "killed" in told[killed.name]


def test_what_is_wrong_for_all_stops_it_before_any_run(tmp_path, monkeypatch):
    recipe = replace(CIFAR.at("demo"), depth=8, steps=20, milestones=(10, 15), eval_every=10)
    monkeypatch.setattr("reslib.sweep.planned", lambda scale, name: ((None, recipe) for _ in range(1)))
    file = tmp_path / "file"
    file.touch()
    for options, says in (({"device": "gpu"}, "device 'gpu' is unknown"), ({"device": "cuda:99"}, "is not there"),
                          ({"backend": "numpy"}, "backend 'numpy' is unknown"), ({"time_limit": -5}, "time_limit is -5"),
                          ({"out": file}, f"nothing can be written to {file}")):  # fmt: skip
        with pytest.raises((ValueError, OSError), match=says):
            sweep(None, "demo", **{"out": tmp_path, "device": "cpu"} | options)
    (tmp_path / f"{recipe.name}.json").write_text("garbage")
    with pytest.raises(ValueError, match="is not a readable record: .* Moved away, it can be made again"):
        sweep(None, "demo", out=tmp_path, device="cpu")


def test_what_fails_while_it_stops_is_told(tmp_path, capsys):
    """A checkpoint that cannot be written at the end is a failure, not silence."""
    broken, asked = (Mock(**{"is_alive.return_value": False}, exitcode=code) for code in (1, 128 + signal.SIGTERM))
    (heard, tell), (other, _), failed = multiprocessing.Pipe(duplex=False), multiprocessing.Pipe(duplex=False), []
    tell.send("no room on the disk")
    collect({broken: (CIFAR, None, heard), asked: (CIFAR, None, other)}, [], failed, stopped=True)
    assert failed == ["no room on the disk"] and failed[0] in capsys.readouterr().err


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
