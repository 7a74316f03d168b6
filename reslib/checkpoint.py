"""What a run leaves while it is not finished: a checkpoint, a lock; and how it is stopped between two iterations."""

import contextlib
import errno
import os
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TextIO

import torch
from torch import Tensor, nn

from .files import renamed
from .record import COLUMNS

STOPS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))  # Windows: no SIGHUP
LOCK_SECONDS = 60  # to wait for a run that another process is at: one whose sweep was killed ends within them


@dataclass
class State:
    """What a checkpoint holds beside weights and momentum."""

    step: int = 0  # iterations done
    lr: float | None = None  # of the last iteration
    warm_at: int | None = None  # the iteration at which the warm-up ended
    window: list[int] = field(default_factory=list)  # wrong images in each of the last WARMUP_WINDOW steps of the warm-up
    loss_sum: float = 0.0  # since the last row of the curve
    wrong: int = 0
    curve: dict[str, list] = field(default_factory=lambda: {name: [] for name in COLUMNS})
    probes: list = field(default_factory=list)
    best: dict = field(default_factory=dict)
    seconds: float = 0.0  # in all
    step_seconds: float = 0.0  # in training steps
    start: str = ""
    threads: int = 0
    rounded: list[int] = field(default_factory=list)  # iterations at which it was taken up from half precision
    machines: list[dict] = field(default_factory=list)  # record.environment of each stretch, and the "step" it began at


def save_checkpoint(path: Path, net: nn.Module, optimizer, state: State, half: bool = False) -> None:
    """Weights, momentum and state, written beside and renamed. half: the tensors in half precision, to be carried."""
    state.loss_sum, state.wrong = float(state.loss_sum), int(state.wrong)
    weights, momenta = net.state_dict(), optimizer.state_dict()
    if half:
        weights = {name: halved(tensor) for name, tensor in weights.items()}
        momenta["state"] = {n: {k: halved(v) for k, v in s.items()} for n, s in momenta["state"].items()}
    try:
        with renamed(path) as file:
            torch.save({"state": asdict(state), "net": weights, "optimizer": momenta, "half": half}, file)
    except RuntimeError as error:  # of torch's writer, where a disk is full
        raise OSError(f"{path} could not be written ({error}): is there room on the disk?") from None


def halved(tensor: Tensor) -> Tensor:
    """float32 as float16, unless a value is too large for that."""
    half = tensor.half() if tensor.is_floating_point() else tensor
    return half if half.isfinite().all() else tensor


def load_checkpoint(path: Path, net: nn.Module, optimizer) -> State:
    """Restore weights and momentum in place, return the rest. Raises ValueError, naming the file, if it is damaged.

    What is no fault of the file, too little memory or a disk's error, is raised as it is.
    """
    try:
        saved = torch.load(path, map_location=next(net.parameters()).device, weights_only=True)
        net.load_state_dict(saved["net"])
        optimizer.load_state_dict(saved["optimizer"])
        state, half = State(**saved["state"]), saved["half"]
        if not state.machines or state.machines[0]["step"] != 0:
            raise ValueError("it does not say on what code and machine it began")
    except (MemoryError, torch.OutOfMemoryError, OSError):
        raise
    except Exception as error:  # torch.load raises many kinds
        raise ValueError(
            f"{path} is damaged or of another version ({error if type(error) is ValueError else type(error).__name__}): "
            "delete it to start the run anew."
        ) from None
    if half:
        state.rounded.append(state.step)
    return state


class BusyError(ValueError):
    """Another process is at this run."""


def take(path: Path) -> TextIO | None:
    """A lock file, opened and held by this process; None if another one holds it. (Windows: it is not locked.)

    Raises OSError where the file system, a cluster's, has no locks.
    """
    try:
        file = path.open("w")
    except PermissionError:  # another user's: it can be locked all the same
        file = path.open()
    try:
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if not os.path.samestat(os.fstat(file.fileno()), path.stat()):
            raise FileNotFoundError  # its holder removed it just now
    except ImportError:
        pass
    except (BlockingIOError, FileNotFoundError):
        file.close()
        return None
    except OSError as error:
        file.close()
        if error.errno == errno.ESTALE:  # removed just now, on another node
            return None
        raise OSError(f"{path} cannot be locked ({error.strerror}), so two jobs could be at one run: have the file system "
                      "mounted with locks (Lustre: -o flock), or give every job a folder of its own.") from None  # fmt: skip
    return file


def busy(path: Path) -> bool:
    """Whether another process holds the run of this lock file."""
    if not path.exists():
        return False
    file = take(path)
    if file:
        file.close()
    return file is None


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a run for this process. Raises BusyError if another one still holds it after LOCK_SECONDS."""
    end = time.monotonic() + LOCK_SECONDS
    while (file := take(path)) is None:
        if time.monotonic() > end:
            raise BusyError(f"{path.stem} is being carried out by another process: wait for it, or use another folder.")
        time.sleep(1)
    with file:
        try:
            yield
        finally:
            with contextlib.suppress(PermissionError):  # Windows keeps what is open
                path.unlink(missing_ok=True)


@contextlib.contextmanager
def between_steps() -> Iterator[list[int]]:
    """Ctrl-C, SIGTERM and SIGHUP wait for the end of an iteration: yields the list of those that came.

    A second Ctrl-C is not put off. A second SIGTERM is: a process group's may come from both a scheduler and the sweep.
    """

    def note(number, _):
        if number == signal.SIGINT and number in came:
            raise KeyboardInterrupt
        came.append(number)

    came, before = [], {}
    if threading.current_thread() is threading.main_thread():
        for number in STOPS:
            if signal.getsignal(number) is not signal.SIG_IGN:
                before[number] = signal.signal(number, note)
    try:
        yield came
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
