"""Carry out the missing runs of the plan, the most valuable first, several at once; stop at any time, go on later.

    python -m reslib sweep --plan depth --scale pocket --jobs 2 --time-limit 3600 --out runs
    python -m reslib sweep --scale paper --executor slurm --partition gpu --gpus 1 --time 240 --jobs 8 --out runs

A worker takes the next run that nobody holds, until none is left: on a CPU a process of one thread, on a GPU a thread with a
CUDA stream of its own, on a cluster a Slurm job. Workers, sweeps and machines that share `out` share the work; a finished run
is never repeated. The time limit, Ctrl-C, SIGTERM and SIGHUP stop local workers between two iterations, with checkpoints;
after SIGKILL of the sweep they notice and do the same. A job that is preempted, or whose time is up, is requeued and goes on
from its last checkpoint.
"""

import contextlib
import multiprocessing.connection
import os
import signal
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType, SimpleNamespace

import torch
from tqdm.auto import tqdm

from .. import data, machine
from ..checkpoint import LOCK_SECONDS, STOPS, BusyError, between_steps, heard, locked, unwind
from ..files import drawing_seconds, path_of, renamed, tell
from ..machine import cores, device_of, in_a_line
from ..recipes import Recipe
from ..trainer import Trainer
from .plan import on_record, work

RUNS_ON_A_GPU = 4  # at once, where `jobs` does not say: on an H200 1.8 times the iterations of one, and eight gain little more
STOP_SECONDS = 60  # for a worker to finish its iteration and save
LOST = 99  # exit status of a process whose GPU has failed: nothing works in it any more


@dataclass
class Worker:
    """Takes the next run that nobody holds, until none is left, or none has come free for `patience` seconds.

    A run that fails leaves a file, NAME.failed, with the reason: the other workers leave it alone, people read it.
    """

    recipes: list[Recipe]
    out: Path
    options: dict  # of Trainer
    patience: float = LOCK_SECONDS

    def __call__(self, hand=None, steps=None, asked=()) -> None:
        """hand: a shared number, which of `recipes` is in hand; steps: the iterations done of each. Without: a Slurm job.

        asked: holds something once all are to stop.
        """
        if alone := steps is None:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)  # before a preemption: Slurm requeues only what is still there
        if self.options["device"] == "cpu":
            torch.set_num_threads(1)
        hand, idle = SimpleNamespace() if alone else hand, time.monotonic()
        while not asked and (left := self.left()) and time.monotonic() < idle + self.patience:
            for number in left:
                hand.value, steps_done = number, None if alone else steps[number]
                try:
                    Trainer(self.recipes[number], out_dir=self.out, steps_done=steps_done, **self.options).run(wait=0)
                except BusyError:
                    continue
                except Exception as error:
                    said = self.fail(number, in_a_line(error))
                    if alone:
                        print(said, file=sys.stderr)
                    elif isinstance(error, torch.AcceleratorError):
                        os._exit(LOST)  # before the other threads' runs fail too: they go on from their checkpoints
                idle = time.monotonic()
                break  # and look again: the most valuable first
            else:
                time.sleep(0.5)
            hand.value = -1

    def file(self, number: int, end: str) -> Path:
        return self.out / f"{self.recipes[number].name}.{end}"

    def fail(self, number: int, why: str) -> str:
        """Leave the sentence that tells why a run failed."""
        name = self.recipes[number].name
        said = why if why.startswith(name) else f"{name}: {why}"
        with renamed(self.file(number, "failed")) as file:
            file.write(said.encode(errors="backslashreplace"))  # it may name a file whose name is no UTF-8
        return said

    def left(self) -> list[int]:
        """The numbers of the runs that are neither recorded nor failed."""
        numbers = range(len(self.recipes))
        return [n for n in numbers if not self.file(n, "json").exists() and not self.file(n, "failed").exists()]

    def checkpoint(self, *_):
        """What submitit puts in the place of a job that is preempted or out of time: the same again."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


def worker_for(recipes: list[Recipe], out: Path, **options) -> Worker:
    """For the runs that have no record in `out`. Raises, before any run, what is wrong for all of them."""
    worker = Worker([r for r in recipes if not on_record(r, out)], out, options, LOCK_SECONDS)
    for recipe in {(r.data, r.size): r for r in worker.recipes}.values():
        backend = data.prepared(recipe, options["backend"], options["device"], options["data_dir"])  # once, not by each worker
        if recipe.data == "imagenet":
            data.contents(recipe, backend, options["data_dir"])
        else:
            data.images(recipe, train=True, data_dir=options["data_dir"])
    if worker.recipes:
        with locked(out, "sweep"):  # what is wrong with the folder is said here
            pass
        machine.warn_if_no_evidence(machine.environment(torch.device("cpu"), 1))
    for number in range(len(worker.recipes)):  # what failed is tried again
        worker.file(number, "failed").unlink(missing_ok=True)
    return worker


def run_parallel(recipes: list[Recipe], *, out: str | Path = "runs", jobs: int | None = None, time_limit: float | None = None,
                 data_dir=None, device: str | None = None, backend: str = "auto") -> list[str]:  # fmt: skip
    """Carry out several recipes at once, those that have no record in `out`, where records and checkpoints go.

    jobs: runs at once (default: one a CPU core, RUNS_ON_A_GPU on a GPU). time_limit: seconds. The rest as `train`. Returns
    what failed, a sentence each. Raises, before any run, ValueError as `data.images`, `device_of` and `on_record`, and OSError
    where nothing can be written to `out`; KeyboardInterrupt after Ctrl-C and SystemExit after SIGTERM or SIGHUP, when all has
    been saved.
    """
    device = str(device_of(device))
    jobs = jobs or (RUNS_ON_A_GPU if device != "cpu" else cores())
    if time_limit is not None and not time_limit > 0:
        raise ValueError(f"time_limit is {time_limit}: it must be above 0 seconds.")
    worker = worker_for(recipes, path_of(out), data_dir=data_dir, device=device, backend=backend, beside=jobs)
    wanted = worker.options["beside"] = min(jobs, len(worker.recipes))
    end, told = time.monotonic() + (time_limit or float("inf")), time.monotonic()
    spawn, running, failed, total = multiprocessing.get_context("spawn"), {}, {}, sum(map(work, worker.recipes))
    steps = [spawn.RawValue("q", 0) for _ in worker.recipes]
    each, wanted = (wanted, min(wanted, 1)) if device != "cpu" else (1, wanted)  # workers in a process; processes to start
    if wanted:
        on = machine.device_name(torch.device(device))
        tqdm.write(f"{len(steps)} runs, {wanted * each} at once, on {on}", file=sys.stderr)
    bar = tqdm(total=total, desc=f"0/{len(steps)} runs", mininterval=drawing_seconds(), miniters=0,
               bar_format="{desc}: {percentage:3.0f}%|{bar}| {elapsed}<{remaining}{postfix}")  # fmt: skip
    with bar, between_steps() as asked:
        try:
            while (wanted or running) and not asked and time.monotonic() < end:
                for _ in range(wanted):
                    start(spawn, worker, each, steps, running)
                multiprocessing.connection.wait([process.sentinel for process in running], timeout=0.5)
                wanted = collect(running, worker, failed)
                show(bar, running, worker, steps)
                if time.monotonic() > told + 60:
                    told = time.monotonic()
                    tell(bar)
        finally:
            for process in running:
                process.terminate()
            for process in running:
                process.join(STOP_SECONDS)
                process.kill()
                process.join()
            collect(running, worker, failed, stopped=True)
    if asked:
        raise KeyboardInterrupt if asked[0] == signal.SIGINT else SystemExit(128 + asked[0])
    return list(failed.values())


def start(spawn, worker: Worker, each: int, steps: list, running: dict) -> None:
    """So many workers in a process of their own. Without Ctrl-C and SIGHUP, which a terminal sends to all: the parent's.

    It is not told of the main module, which may be a script, a chapter's .py, that it would run again.
    """
    hands = [spawn.RawValue("q", -1) for _ in range(each)]
    process = spawn.Process(target=child, args=(worker, hands, steps))
    ignored = set(STOPS) - {signal.SIGTERM} if threading.current_thread() is threading.main_thread() else ()
    before = {number: signal.signal(number, signal.SIG_IGN) for number in ignored}
    main, sys.modules["__main__"] = sys.modules["__main__"], ModuleType("__main__")
    try:
        process.start()
    finally:
        sys.modules["__main__"] = main
        for number, handler in before.items():
            signal.signal(number, handler)
    running[process] = hands


def child(worker: Worker, hands: list, steps: list) -> None:
    """A process of workers. It ends with its parent, however that ends."""
    threads = max(1, cores() * len(hands) // worker.options["beside"])
    os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", str(threads))  # all processes compile at the same time
    parent = multiprocessing.parent_process()
    threading.Thread(target=lambda: (parent.join(), os.kill(os.getpid(), signal.SIGTERM)), daemon=True).start()
    try:
        with heard(unwind):
            worker(hands[0], steps) if len(hands) == 1 else side_by_side(worker, hands, steps)
    except OSError as error:  # no room to leave word of a failure
        sys.exit(in_a_line(error))


def side_by_side(worker: Worker, hands: list, steps: list) -> None:
    """Workers in threads of one process, on a GPU with a CUDA stream each: there kernels of several runs overlap.

    Those of several processes take turns instead, and four together were slower than one alone.
    """

    def one(hand) -> None:
        with contextlib.nullcontext() if worker.options["device"] == "cpu" else torch.cuda.stream(torch.cuda.Stream()):
            worker(hand, steps, asked)

    sys.setswitchinterval(5e-4)  # seconds: a thread with an iteration to launch should not wait for the others' Python
    with between_steps() as asked, ThreadPoolExecutor(len(hands)) as pool:
        for ended in [pool.submit(one, hand) for hand in hands]:
            ended.result()


def collect(running: dict, worker: Worker, failed: dict, stopped: bool = False) -> int:
    """Take the processes that have ended out of `running`, and tell what failed. Returns how many are to be replaced."""
    as_asked, replaced, told = [128 + number for number in STOPS] + [-signal.SIGTERM], 0, set(failed)
    for process in [process for process in running if not process.is_alive()]:
        numbers, code = [hand.value for hand in running.pop(process) if hand.value >= 0], process.exitcode
        if code == 0 or (stopped and code in as_asked):
            continue
        if code == LOST:  # the run that met the failure has left word of it
            replaced += 1
            continue
        said = f"ended with status {code}" + " (killed, out of memory?)" * (code == -signal.SIGKILL)
        if not numbers:
            failed[-1] = f"a worker {said} before it took a run"
            continue
        for number in numbers:
            failed[number] = f"{worker.recipes[number].name}: {said}"
            with contextlib.suppress(OSError):
                worker.fail(number, said)
        replaced += 1
    for number in range(len(worker.recipes)):
        if number not in failed and worker.file(number, "failed").exists():
            failed[number] = worker.file(number, "failed").read_text(encoding="utf-8")
    for number in failed.keys() - told:
        tqdm.write(failed[number], file=sys.stderr)
    return replaced


def show(bar: tqdm, running: dict, worker: Worker, steps: list) -> None:
    """Bring the bar up to date: the runs recorded, those in hand, and the share of all the work that is done."""
    shares = [
        1.0 if worker.file(n, "json").exists() else steps[n].value / recipe.steps for n, recipe in enumerate(worker.recipes)
    ]
    at = [(worker.recipes[n], shares[n]) for n in sorted(hand.value for hands in running.values() for hand in hands) if n >= 0]
    bar.set_description_str(f"{shares.count(1.0)}/{len(shares)} runs", refresh=False)
    bar.set_postfix_str(", ".join(f"{r.net_name} s{r.seed} {int(100 * share)}%" for r, share in at), refresh=False)
    done = sum(work(recipe) * share for recipe, share in zip(worker.recipes, shares, strict=True))
    bar.update(min(done, bar.total) - bar.n)


def submit(recipes: list[Recipe], *, out: str | Path = "runs", jobs: int | None = None, gpus: int = 1, minutes: int = 60,
           partition: str | None = None, account: str | None = None, data_dir=None,
           backend: str = "auto") -> list[str]:  # fmt: skip
    """Carry out several recipes as Slurm jobs, a worker each, with one GPU (gpus=0: a core). Returns the jobs' numbers.

    jobs: how many (default: 1). minutes: of a job, before it is requeued. Logs go to `out`/slurm. Raises ImportError without
    submitit, OSError without Slurm or where it refuses; the rest as `run_parallel`.
    """
    try:
        import submitit
    except ImportError:
        raise ImportError("a sweep on Slurm needs submitit: pip install 'reslib[slurm]'.") from None
    out, device = path_of(out).resolve(), "cuda" if gpus else "cpu"
    worker = worker_for(recipes, out, data_dir=data_dir and path_of(data_dir).resolve(), device=device, backend=backend)
    if not worker.recipes:
        return []
    asked = dict(time=minutes, partition=partition, account=account, gpus_per_node=gpus or None)  # None: Slurm's own
    try:
        executor = submitit.SlurmExecutor(out / "slurm", max_num_timeout=1_000)
        executor.update_parameters(job_name="reslib", **asked)
        with executor.batch():
            started = [executor.submit(worker) for _ in range(min(jobs or 1, len(worker.recipes)))]
    except RuntimeError as error:  # no srun, or sbatch says no
        raise OSError(f"Slurm does not take the jobs: {' '.join(str(error).split())}") from None
    return [job.job_id for job in started]
