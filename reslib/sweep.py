"""Carry out the missing runs of the plan, the most valuable first, several side by side; stop at any time, go on later.

    python -m reslib sweep --plan depth --scale pocket --jobs 2 --time-limit 3600 --out runs

Every run is a process of its own (on a CPU with one thread), so that one that fails does not take others along. The time limit,
Ctrl-C, SIGTERM and SIGHUP stop all of them between two iterations, with checkpoints; after SIGKILL they notice and do the same.
The next call, here or where `out` was carried to, goes on from there. Finished runs are never repeated; several sweeps that
share `out`, the jobs of a cluster, take different ones.
"""

import contextlib
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
from .checkpoint import LOCK_SECONDS, STOPS, BusyError, busy
from .files import drawing_seconds, writable
from .plan import planned, work
from .recipes import Recipe
from .record import device_name, folder, read
from .trainer import device_of, in_a_line, train

SIDE_BY_SIDE = 4  # runs on one GPU, where --jobs does not say; not measured yet
STOP_SECONDS = 60  # for a run to finish its iteration and save
BUSY = 75  # the status of a child whose run another sweep is at


def missing(scale: str, name: str | None, out: Path) -> list[Recipe]:
    """The planned runs that have no record, neither among the evidence nor in `out`. Raises as `plan.planned`, `on_record`."""
    return [r for _, r in planned(scale, name) if not on_record(r, folder()) and not on_record(r, out)]


def on_record(recipe: Recipe, where: Path) -> bool:
    """Whether a folder holds a run's record. Raises ValueError where it holds a file of that name that is none."""
    path = where / f"{recipe.name}.json"
    return path.exists() and bool(read(path))


def lock(recipe: Recipe, out: Path) -> Path:
    return out / f"{recipe.name}.lock"


def carry_out(recipe: Recipe, options: dict, steps, tell) -> None:
    """The child's work: one run. steps: a shared number, the iterations done; tell: the end of a pipe, for what failed."""
    parent = multiprocessing.parent_process()
    threading.Thread(target=lambda: (parent.join(), os.kill(os.getpid(), signal.SIGTERM)), daemon=True).start()
    if options["device"] == "cpu":
        torch.set_num_threads(1)
    if busy(lock(recipe, options["out_dir"])):  # taken by another sweep in the meantime
        sys.exit(BUSY)
    try:
        train(recipe, **options, steps_done=steps)
    except BusyError:  # so it was after all
        sys.exit(BUSY)
    except Exception as error:
        said = in_a_line(error)
        tell.send(said if said.startswith(recipe.name) else f"{recipe.name}: {said}")
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
    what failed, a sentence each. Raises, before any run, ValueError as `data.images`, `device_of` and `on_record`, and OSError
    where nothing can be written to `out`; KeyboardInterrupt after Ctrl-C and SystemExit after SIGTERM or SIGHUP, when all has
    been saved.
    """
    device = str(device_of(device))
    if jobs is None:
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        jobs = SIDE_BY_SIDE if device != "cpu" else cores
    if jobs < 1:
        raise ValueError(f"jobs is {jobs}: it must be at least 1.")
    if time_limit is not None and not time_limit > 0:
        raise ValueError(f"time_limit is {time_limit}: it must be above 0 seconds.")
    out = Path(out)
    began = idle = time.monotonic()
    todo = [recipe for recipe in recipes if not on_record(recipe, out)]
    if todo:  # what is wrong for all of them stops it here
        data.choose_backend(todo[0], backend, device)
        data.images(todo[0], train=True, data_dir=data_dir)
        writable(out)
        tqdm.write(f"{len(todo)} runs, {jobs} at once, on {device_name(torch.device(device))}", file=sys.stderr)
    options = dict(out_dir=out, data_dir=data_dir, device=device, backend=backend, half_checkpoints=half_checkpoints)
    spawn, running, failed, finished, asked = multiprocessing.get_context("spawn"), {}, [], [], []
    before = {}
    for number in STOPS:
        if signal.getsignal(number) is not signal.SIG_IGN:  # nohup, or a shell's background job
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
                    steps, (heard, tell) = spawn.RawValue("q", 0), spawn.Pipe(duplex=False)
                    child = spawn.Process(target=carry_out, args=(recipe, options, steps, tell), name=recipe.name)
                    try:
                        with ignored():  # inherited: these are the parent's to answer
                            child.start()
                    except OSError as error:  # no memory, too many processes
                        fail(failed, f"{recipe.name}: could not be started ({error})")
                    else:
                        running[child] = recipe, steps, heard
                    tell.close()
                if running:
                    idle = time.monotonic()
                    multiprocessing.connection.wait([child.sentinel for child in running], timeout=0.5)
                elif time.monotonic() > idle + LOCK_SECONDS:
                    break  # other sweeps are at all that is left
                else:
                    time.sleep(0.5)
                waiting += collect(running, finished, failed)
                done = sum(map(work, finished)) + sum(work(r) * s.value / r.steps for r, s, _ in running.values())
                bar.set_description_str(f"{len(finished)}/{len(todo)} runs", refresh=False)
                told = ", ".join(f"{r.net_name} s{r.seed} {100 * s.value // r.steps}%" for r, s, _ in running.values())
                bar.set_postfix_str(told, refresh=False)
                bar.update(min(done, bar.total) - bar.n)
    finally:
        for child in running:
            child.terminate()
        for child in running:
            child.join(STOP_SECONDS)
            child.kill()
            child.join()
        collect(running, finished, failed, stopped=True)
        for number, handler in before.items():
            signal.signal(number, handler)
    if asked:
        raise KeyboardInterrupt if asked[0] == signal.SIGINT else SystemExit(128 + asked[0])
    return failed


@contextlib.contextmanager
def ignored():
    """Without Ctrl-C and SIGHUP, which a terminal sends to all of its processes."""
    before = {number: signal.signal(number, signal.SIG_IGN) for number in STOPS if number != signal.SIGTERM}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def fail(failed: list, said: str) -> None:
    """A failure is a sentence, printed at once."""
    failed.append(said)
    tqdm.write(said, file=sys.stderr)


def collect(running: dict, finished: list, failed: list, stopped: bool = False) -> list[Recipe]:
    """Take the children that have ended out of `running`. stopped: they were asked to end. Returns what others are at."""
    taken, as_asked = [], [128 + number for number in STOPS] + [-signal.SIGTERM]
    for child in [child for child in running if not child.is_alive()]:
        (recipe, _, heard), code = running.pop(child), child.exitcode
        if code == 0:
            finished.append(recipe)
        elif code == BUSY:
            taken.append(recipe)
        elif not (stopped and code in as_asked):
            said = f"{recipe.name}: ended with status {code}" + " (killed, out of memory?)" * (code == -signal.SIGKILL)
            with contextlib.suppress(EOFError, OSError):
                said = heard.recv() if heard.poll() else said
            fail(failed, said)
        heard.close()
    return taken
