"""What a run leaves while it is not finished: a checkpoint, a lock; and how it is stopped between two iterations."""

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from filelock import Timeout
from torch import nn

from .files import alone, renamed
from .record import COLUMNS

STOPS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))  # Windows: no SIGHUP
asked_of_all: list[int] = []  # the stop signals that the main thread has heard, for its other threads
LOCK_SECONDS = 60  # to wait for a run that another process is at: one whose sweep was killed ends within them


@dataclass
class State:
    """What a checkpoint holds beside weights and momentum."""

    step: int = 0  # iterations done
    lr: float | None = None  # of the last iteration
    warm_at: int | None = None  # the iteration at which the warm-up ended
    lowest: float | None = None  # validation error so far, of the plateau's criterion; percent
    waited: int = 0  # validation passes since then, or since the last division
    drops: int = 0  # times that the learning rate was divided by 10 at a plateau
    window: list[int] = field(default_factory=list)  # wrong images in each of the last WARMUP_WINDOW steps of the warm-up
    loss_sum: float = 0.0  # since the last row of the curve
    wrong: int = 0
    curve: dict[str, list] = field(default_factory=lambda: {name: [] for name in COLUMNS})
    probes: list = field(default_factory=list)
    best: dict = field(default_factory=dict)
    seconds: float = 0.0  # in all
    step_seconds: float = 0.0  # in training steps
    start: str = ""
    photographs: dict = field(default_factory=dict)  # which, and read by which backend
    threads: int = 0
    beside: int = 1  # runs that shared the device, this one included; the most
    machines: list[dict] = field(default_factory=list)  # machine.environment of each stretch, and the "step" it began at


def save_checkpoint(path: Path, net: nn.Module, optimizer, state: State) -> None:
    """Weights, momentum and state, written beside and renamed. Raises OSError where a disk is full."""
    state.loss_sum, state.wrong = float(state.loss_sum), int(state.wrong)
    try:
        with renamed(path) as file:
            torch.save({"state": asdict(state), "net": net.state_dict(), "optimizer": optimizer.state_dict()}, file)
    except RuntimeError as error:  # of torch's writer
        raise OSError(f"{path} could not be written ({error}): is there room on the disk?") from None


def load_checkpoint(path: Path, net: nn.Module, optimizer) -> State:
    """Restore weights and momentum in place, return the rest. Raises ValueError, naming the file, if it is damaged.

    Too little memory and a disk's errors are raised as they are: they do not mean that the file is damaged.
    """
    try:
        saved = torch.load(path, map_location=next(net.parameters()).device, weights_only=True)
        net.load_state_dict(saved["net"])
        optimizer.load_state_dict(saved["optimizer"])
        return State(**saved["state"])
    except (MemoryError, torch.OutOfMemoryError, OSError):
        raise
    except Exception as error:  # torch.load raises many kinds
        why = type(error).__name__
        raise ValueError(f"{path} is damaged or of another version ({why}): delete it to start the run anew.") from None


class BusyError(ValueError):
    """Another process is at this run."""


@contextlib.contextmanager
def locked(folder: Path, name: str, seconds: float = LOCK_SECONDS) -> Iterator[None]:
    """Hold a run for this process, as `alone`. Raises BusyError if another one still holds it after so many seconds."""
    with contextlib.ExitStack() as held:
        try:
            held.enter_context(alone(folder, name, seconds))
        except Timeout:
            raise BusyError(f"{name} is being carried out by another process: wait for it, or use another folder.") from None
        except OSError as error:
            raise OSError(f"nothing can be written to {folder}, or it cannot be locked ({error.strerror}): use another folder; "
                          "a cluster's has to be mounted with locks (Lustre: -o flock).") from None  # fmt: skip
        yield


@contextlib.contextmanager
def heard(note: Callable) -> Iterator[None]:
    """Ctrl-C, SIGTERM and SIGHUP, but those that are ignored, call `note`: in the main thread, which alone hears of them."""
    before = {number: signal.signal(number, note) for number in STOPS if signal.getsignal(number) is not signal.SIG_IGN}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def unwind(number: int, _) -> None:
    """For `heard`: end the process by an exception, so that no lock and nothing half-written is left; once."""
    if number == signal.SIGINT:
        raise KeyboardInterrupt
    signal.signal(number, signal.SIG_IGN)
    raise SystemExit(128 + number)


def undisturbed(_: int) -> None:
    """In a DataLoader's worker: what stops a run is for the process that trains, which ends its workers itself."""
    for number in STOPS:
        signal.signal(number, signal.SIG_IGN)


@contextlib.contextmanager
def between_steps() -> Iterator[list[int]]:
    """Ctrl-C, SIGTERM and SIGHUP wait for the end of an iteration: yields the list of those that came.

    A second Ctrl-C is not put off; a second SIGTERM is: both a scheduler and the sweep may send one. Only the main thread
    hears of signals: in another thread it yields the list of the main thread's own `between_steps`.
    """
    global asked_of_all
    if threading.current_thread() is not threading.main_thread():
        yield asked_of_all
        return

    def note(number, _):
        if number == signal.SIGINT and number in came:
            raise KeyboardInterrupt
        came.append(number)

    came, outer = [], asked_of_all
    with heard(note):
        asked_of_all = came
        try:
            yield came
        finally:
            asked_of_all = outer
