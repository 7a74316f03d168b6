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
from types import SimpleNamespace
from unittest.mock import Mock

import pytest
import torch

import reslib
from reslib import CIFAR, records
from reslib.data import fast
from reslib.evidence import plan
from reslib.evidence.plan import missing
from reslib.evidence.sweep import LOST, Worker, collect, run_parallel, side_by_side, submit, worker_for
from reslib.record import read

SCRIPT = """
from dataclasses import replace
import reslib, reslib.evidence.plan, reslib.evidence.sweep
from reslib import CIFAR
SHORT = dict(steps={steps}, milestones=(10, 15), eval_every=10, size=8, pad=1)
reslib.evidence.sweep.drawing_seconds = lambda: 0.2  # as on a terminal
reslib.evidence.plan.SEEDS["demo"] = (0, 1)
nets = tuple(replace(CIFAR, depth=depth, shortcut=None) for depth in (8, 14))
reslib.evidence.plan.PLAN = (reslib.evidence.plan.Group("tiny", "C1", "", nets, scales=("demo",)),)
reslib.evidence.plan.at = lambda group, recipe, scale: replace(recipe.at(scale), **SHORT)
if __name__ == "__main__":
    import sys
    from reslib.__main__ import main
    sys.argv[1:] = ["sweep", "--plan", "tiny", "--scale", "demo", "--out", {out!r}, *sys.argv[1:]]
    main()
"""


def script(tmp_path, steps):
    file = tmp_path / "sweep_tiny.py"
    file.write_text(SCRIPT.format(steps=steps, out=str(tmp_path / "runs")))
    return [sys.executable, str(file), "--jobs", "2", "--device", "cpu"]


def wait_for(what, seconds=300):
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
        process.wait(300)
        assert process.returncode == (-number if number == signal.SIGKILL else 128 + number)
        assert "Traceback" not in said.read_text()
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
    assert whole.returncode == 0 and whole.stdout.startswith("0 planned runs are still"), whole.stderr
    assert re.search(r"(\d)/\1 runs", whole.stderr) and "images/s" not in whole.stderr  # one display for all
    made = {file: file.stat().st_mtime_ns for file in out.glob("*.*")}
    assert sorted(file.suffix for file in made) == [".json"] * 4 + [".safetensors"] * 4
    assert subprocess.run(command, capture_output=True, text=True).returncode == 0
    assert {file: file.stat().st_mtime_ns for file in out.glob("*.json")} == {
        f: t for f, t in made.items() if f.suffix == ".json"
    }
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
    monkeypatch.setattr("reslib.evidence.sweep.LOCK_SECONDS", 1)
    held = "from pathlib import Path; import sys, time; from reslib.checkpoint import locked\n" \
           "with locked(Path(sys.argv[1]), sys.argv[2]): print(flush=True); time.sleep(600)"  # fmt: skip
    with subprocess.Popen([sys.executable, "-c", held, tmp_path, recipes[0].name], stdout=subprocess.PIPE) as other:
        other.stdout.readline()
        assert run_parallel(recipes, jobs=1, out=tmp_path, device="cpu") == []
        other.kill()
    assert [file.stem for file in tmp_path.glob("*.json")] == [recipes[1].name]


SHORT = replace(CIFAR.at("demo"), steps=20, milestones=(10, 15), eval_every=10, depth=8)


def test_a_failure_is_told_and_the_others_go_on(tmp_path, capsys):
    runs = [replace(SHORT, lr=lr, batch=batch) for lr, batch in ((1e30, 128), (0.1, 9_999), (0.1, 128))]
    failed = run_parallel(runs, jobs=1, out=tmp_path, device="cpu")
    assert len(failed) == 2 and "at a learning rate of 1e+30" in failed[0] and "more than the training set holds" in failed[1]
    assert [file.stem for file in tmp_path.glob("*.json")] == [runs[2].name] and failed[0] in capsys.readouterr().err
    assert sorted(file.read_text() for file in tmp_path.glob("*.failed")) == sorted(failed)
    assert read(tmp_path / f"{runs[2].name}.json").time["beside"] == 1
    assert run_parallel(runs, jobs=1, out=tmp_path, device="cpu", time_limit=1e-9) == []
    with ThreadPoolExecutor() as thread:  # a process is started from there too
        assert thread.submit(run_parallel, runs, jobs=1, out=tmp_path, device="cpu", time_limit=0.3).result() == []


def test_each_failure_is_its_own_runs(tmp_path):
    """One worker is killed, another's run fails, a third goes on: neither takes the other's words, and all is done."""
    broken, long, *others = (replace(SHORT, **c) for c in ({"lr": 1e30}, {"seed": 1, "steps": 9_000}, {"seed": 2}, {"seed": 3}))

    def kill():
        wait_for(lambda: all((tmp_path / f"{recipe.name}.json").exists() for recipe in others))
        wait_for(lambda: len(multiprocessing.active_children()) == 1)  # the other one finds nothing more to take, and ends
        multiprocessing.active_children()[0].kill()

    with ThreadPoolExecutor(1) as pool:
        killed = pool.submit(kill)
        failed = run_parallel([broken, long, *others], jobs=2, out=tmp_path, device="cpu")
        killed.result()
    told = {said.partition(": ")[0]: said for said in failed}
    assert set(told) == {broken.name, long.name} and told[broken.name].count(broken.name) == 1
    assert "learning rate" in told[broken.name] and "killed" in told[long.name]


@pytest.fixture
def settings():
    threads, interval = torch.get_num_threads(), sys.getswitchinterval()
    yield
    torch.set_num_threads(threads)
    sys.setswitchinterval(interval)


def hands_and_steps(runs):
    return [SimpleNamespace(value=-1) for _ in range(2)], [SimpleNamespace(value=0) for _ in runs]


def test_side_by_side_in_one_process(tmp_path, settings):
    """As on a GPU: two threads carry out three runs, each with the bits that it has alone."""
    runs = [replace(SHORT, seed=seed, shortcut=shortcut) for seed, shortcut in ((0, None), (1, "A"), (2, None))]
    worker = Worker(runs, tmp_path / "two", {"device": "cpu", "backend": "array", "beside": 2})
    side_by_side(worker, *hands_and_steps(runs))
    torch.set_num_threads(1)  # as the workers did
    for run in runs:
        alone = reslib.train(run, out_dir=tmp_path / "one", device="cpu", backend="array")
        record = read(tmp_path / "two" / f"{run.name}.json")
        assert record.weights_sha256 == alone.weights_sha256 and record.time["beside"] == 2


def test_a_signal_stops_all_of_a_process(tmp_path, settings):
    runs = [replace(SHORT, steps=9_000, seed=seed) for seed in (0, 1)]  # fewer than are compiled
    hands, steps = hands_and_steps(runs)

    def stop():
        wait_for(lambda: all(done.value for done in steps))
        os.kill(os.getpid(), signal.SIGTERM)

    with ThreadPoolExecutor(1) as pool, pytest.raises(SystemExit) as ended:
        told = pool.submit(stop)
        side_by_side(Worker(runs, tmp_path, {"device": "cpu", "beside": 2}), hands, steps)
    told.result()
    assert ended.value.code == 128 + signal.SIGTERM
    assert sorted(file.stem for file in tmp_path.glob("*.ckpt")) == sorted(run.name for run in runs)


def test_what_is_wrong_for_all_stops_it_before_any_run(tmp_path):
    file = tmp_path / "file"
    file.touch()
    for options, says in (({"device": "gpu"}, "device 'gpu' is unknown"), ({"device": "cuda:99"}, "is not there"),
                          ({"backend": "numpy"}, "backend 'numpy' is unknown"), ({"time_limit": -5}, "time_limit is -5"),
                          ({"out": file}, f"nothing can be written to {file}")):  # fmt: skip
        with pytest.raises((ValueError, OSError), match=says):
            run_parallel([SHORT], **{"out": tmp_path, "device": "cpu"} | options)
    (tmp_path / f"{SHORT.name}.json").write_text("garbage")
    with pytest.raises(ValueError, match="is not a readable record: .* Moved away, it can be made again"):
        run_parallel([SHORT], out=tmp_path, device="cpu")


def test_how_workers_end(tmp_path, capsys):
    """Asked to: silence. A checkpoint that cannot be written meanwhile, a kill, a worker that cannot begin: told, each once."""
    worker, failed = Worker([replace(SHORT, seed=seed) for seed in range(3)], tmp_path, {}), {}
    worker.fail(0, "no room on the disk")

    def ended(number, code):
        return {Mock(**{"is_alive.return_value": False}, exitcode=code): [SimpleNamespace(value=number)]}

    assert collect(ended(0, 0) | ended(1, 128 + signal.SIGTERM), worker, failed, stopped=True) == 0
    assert failed == {0: f"{worker.recipes[0].name}: no room on the disk"}
    worker.fail(0, "/photographs/k\udce4se.jpg cannot be decoded")  # a name in Latin-1
    assert "k\\udce4se.jpg" in worker.file(0, "failed").read_text()
    assert collect(ended(2, -signal.SIGKILL), worker, failed) == 1 and "killed, out of memory?" in failed[2]
    assert collect(ended(-1, 1), worker, failed) == 0 and "before it took a run" in failed[-1]
    assert collect(ended(1, LOST), worker, failed) == 1 and 1 not in failed  # taken up by the process that replaces it
    assert worker.left() == [1] and capsys.readouterr().err.splitlines() == list(failed.values())


def test_the_plan_holds_every_recorded_run():
    ids = {recipe.id for _, recipe in plan.planned()}
    runs = records()
    assert set(runs.recipe_id) <= ids
    table = plan.table(runs)
    assert table.recorded.sum() == len(set(runs.recipe_id)) and table.runs.sum() == len(ids)
    assert (table.recorded <= table.runs).all() and (table.hours > 0).all()


def test_the_sweeps_that_the_readme_shows_train_something(root, tmp_path, monkeypatch):
    shown = re.findall(r"^    (.*)python -m reslib sweep --plan (\S+) --scale (\S+)", (root / "README.md").read_text(), re.M)
    assert len(shown) == 2
    for before, name, scale in shown:
        with monkeypatch.context() as patched:
            if "RESLIB_RECORDS=runs" in before:
                patched.setenv("RESLIB_RECORDS", str(tmp_path))
            assert missing(scale, name, tmp_path), f"--plan {name} --scale {scale}: all is recorded"


def test_the_most_valuable_come_first_seed_by_seed():
    runs = list(plan.planned("paper"))
    names = [(group.name, recipe.net_name, recipe.seed) for group, recipe in runs]
    first = [("core", net, seed) for seed in (0, 1) for net in ("plain20", "resnet20-A", "plain56", "resnet56-A")]
    assert names[:8] == first
    assert len({recipe.id for _, recipe in runs}) == len(runs)


def test_mistakes(tmp_path):
    with pytest.raises(ValueError, match="plan 'nosuch' is unknown: use one of core, depth"):
        missing("pocket", "nosuch", tmp_path)
    with pytest.raises(ValueError, match="scale 'demo' is not planned"):
        missing("demo", None, tmp_path)
    assert os.environ.get("TQDM_DISABLE") is None


def test_without_slurm(tmp_path, monkeypatch):
    with monkeypatch.context() as patched, pytest.raises(ImportError, match=r"needs submitit: pip install 'reslib\[slurm\]'"):
        patched.setitem(sys.modules, "submitit", None)
        submit([SHORT], out=tmp_path, gpus=0)
    pytest.importorskip("submitit")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(OSError, match="Slurm does not take the jobs: .*srun"):
        submit([SHORT], out=tmp_path, gpus=0)


def test_a_script_is_not_run_again_by_the_workers(tmp_path):
    """A chapter's .py has no main guard."""
    file = tmp_path / "chapter.py"
    file.write_text(
        "from dataclasses import replace\nimport sys\nfrom reslib import CIFAR\n"
        "from reslib.evidence.sweep import run_parallel\n"
        "print('once')\nrecipe = replace(CIFAR.at('demo'), depth=8, steps=20, milestones=(10, 15), eval_every=10)\n"
        "print(run_parallel([recipe], out=sys.argv[1], device='cpu'))\n"
    )
    done = subprocess.run([sys.executable, file, tmp_path / "runs"], capture_output=True, text=True)
    assert done.stdout.splitlines() == ["once", "[]"], done.stderr
    assert len(list((tmp_path / "runs").glob("*.json"))) == 1


@pytest.mark.skipif(not fast.available(), reason="FFCV is not installed here")
def test_files_of_images_are_written_before_the_workers_start(cifar, tmp_path):
    (tmp_path / "cifar-10-batches-py").symlink_to(cifar / "cifar-10-batches-py")
    worker_for([CIFAR.at("pocket")], tmp_path / "runs", data_dir=tmp_path, device="cpu", backend="auto")
    names = sorted(file.name for file in (tmp_path / "beton").glob("*.beton"))
    assert names == ["cifar10-16px-test.beton", "cifar10-16px-train.beton"]
