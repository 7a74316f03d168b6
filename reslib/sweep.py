"""Carry out the missing runs of the plan, the most valuable first, several side by side; stop at any time, go on later.

    python -m reslib sweep --plan depth --scale pocket --jobs 2 --time-limit 3600 --out runs

Every run is a process of its own (on a CPU with one thread), so that one that fails does not take others along. Ctrl-C, SIGTERM
and the time limit stop all of them between two iterations, with checkpoints; after SIGKILL they notice and do the same. The
next call, here or where `out` was carried to, goes on from there. Finished runs are never repeated; several sweeps that share
`out`, the jobs of a cluster, take different ones.
"""

import multiprocessing.connection
import os
import signal
import sys
import threading
import time
from pathlib import Path

import torch
from tqdm.auto import tqdm

from . import data
from .checkpoint import LOCK_SECONDS, busy
from .files import drawing_seconds
from .plan import planned, work
from .recipes import Recipe
from .records import folder

SIDE_BY_SIDE = 4  # runs on one GPU, where --jobs does not say
STOP_SECONDS = 60  # for a run to finish its iteration and save
BUSY = 75  # the status of a child whose run another sweep is at


def missing(scale: str, name: str | None, out: Path) -> list[Recipe]:
    """The planned runs that have no record, neither among the evidence nor in `out`. Raises as `plan.planned`."""
    recipes = [recipe for _, recipe in planned(scale, name)]
    return [r for r in recipes if not any((where / f"{r.name}.json").exists() for where in (folder(), out))]


def lock(recipe: Recipe, out: Path) -> Path:
    return out / f"{recipe.name}.lock"


def carry_out(recipe: Recipe, options: dict, steps, messages) -> None:
    """The child's work: one run. steps: a shared number, the iterations done; messages: where a failure is told."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent's to answer
    parent = multiprocessing.parent_process()
    threading.Thread(target=lambda: (parent.join(), os.kill(os.getpid(), signal.SIGTERM)), daemon=True).start()
    from .train import train

    if options["device"] == "cpu":
        torch.set_num_threads(1)
    if busy(lock(recipe, options["out_dir"])):  # taken by another sweep in the meantime
        sys.exit(BUSY)
    try:
        train(recipe, **options, steps_done=steps)
    except Exception as error:
        messages.put(f"{recipe.name}: {error}")
        sys.exit(1)


def sweep(name: str | None, scale: str, *, out: str | Path = "runs", **options) -> list[str]:
    """Carry out what is missing of a plan (None: of all) at a scale. Options and the rest as `side_by_side`.

    Raises ValueError as `plan.planned`, too.
    """
    return side_by_side(missing(scale, name, Path(out)), out=out, **options)


def side_by_side(recipes: list[Recipe], *, out: str | Path = "runs", jobs: int | None = None, time_limit: float | None = None,
                 data_dir=None, device: str | None = None, backend: str = "auto",
                 half_checkpoints: bool = False) -> list[str]:  # fmt: skip
    """Carry out several recipes at once, those that have no record in `out`, where records and checkpoints go.

    jobs: runs at once (default: one a CPU core, SIDE_BY_SIDE on a GPU). time_limit: seconds. The rest as `train`. Returns
    what failed, a sentence each. Raises ValueError as `data.images`, KeyboardInterrupt after Ctrl-C or SIGTERM, when all has
    been saved.
    """
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    if jobs is None:
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        jobs = SIDE_BY_SIDE if device != "cpu" else cores
    if jobs < 1:
        raise ValueError(f"jobs is {jobs}: it must be at least 1.")
    out = Path(out)
    began = idle = time.monotonic()
    todo = [recipe for recipe in recipes if not (out / f"{recipe.name}.json").exists()]
    if todo:
        data.images(todo[0], train=True, data_dir=data_dir)  # missing or damaged data stop it here
    options = dict(out_dir=out, data_dir=data_dir, device=device, backend=backend, half_checkpoints=half_checkpoints)
    spawn, running, failed, finished, asked = multiprocessing.get_context("spawn"), {}, [], [], []
    messages, before = spawn.SimpleQueue(), {}
    for number in (signal.SIGINT, signal.SIGTERM):
        before[number] = signal.signal(number, lambda number, _: asked.append(number))
    bar = tqdm(total=sum(map(work, todo)), desc=f"0/{len(todo)} runs", mininterval=drawing_seconds(), miniters=0,
               bar_format="{desc}: {percentage:3.0f}%|{bar}| {elapsed}<{remaining}{postfix}")  # fmt: skip
    waiting = list(todo)
    try:
        with bar:
            while (waiting or running) and not asked and (time_limit is None or time.monotonic() - began < time_limit):
                free = [recipe for recipe in waiting if not busy(lock(recipe, out))]
                for recipe in free[: jobs - len(running)]:
                    waiting.remove(recipe)
                    steps = spawn.Value("q", 0)
                    child = spawn.Process(target=carry_out, args=(recipe, options, steps, messages), name=recipe.name)
                    child.start()
                    running[child] = recipe, steps
                if running:
                    idle = time.monotonic()
                    multiprocessing.connection.wait([child.sentinel for child in running], timeout=0.5)
                elif time.monotonic() > idle + LOCK_SECONDS:
                    break  # other sweeps are at all that is left
                else:
                    time.sleep(0.5)
                waiting += collect(running, finished, failed, messages)
                done = sum(map(work, finished)) + sum(work(r) * s.value / r.steps for r, s in running.values())
                bar.set_description_str(f"{len(finished)}/{len(todo)} runs", refresh=False)
                told = ", ".join(f"{r.net_name} s{r.seed} {100 * s.value // r.steps}%" for r, s in running.values())
                bar.set_postfix_str(told, refresh=False)
                bar.update(min(done, bar.total) - bar.n)
    finally:
        for child in running:
            child.terminate()
        for child in running:
            child.join(STOP_SECONDS)
            child.kill()
            child.join()
        collect(running, finished, failed, messages, stopped=True)
        for number, handler in before.items():
            signal.signal(number, handler)
    if asked:
        raise KeyboardInterrupt
    return failed


def collect(running: dict, finished: list, failed: list, messages, stopped: bool = False) -> list[Recipe]:
    """Take the children that have ended out of `running`; a failure becomes a sentence in `failed`, printed at once.

    Returns the runs that other sweeps were at."""
    taken = []
    for child in [child for child in running if not child.is_alive()]:
        recipe, _ = running.pop(child)
        if child.exitcode == 0:
            finished.append(recipe)
        elif child.exitcode == BUSY:
            taken.append(recipe)
        elif not stopped:
            code = child.exitcode
            said = f"{recipe.name}: ended with status {code}" + " (killed, out of memory?)" * (code == -signal.SIGKILL)
            failed.append(said if messages.empty() else messages.get())
            tqdm.write(failed[-1], file=sys.stderr)
    return taken
