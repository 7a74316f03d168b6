"""What a run leaves while it is not finished: a checkpoint, a lock; and how it is stopped between two iterations."""

import contextlib
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from .files import renamed
from .records import COLUMNS

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


def save_checkpoint(path: Path, net: nn.Module, optimizer, state: State, half: bool = False) -> None:
    """Weights, momentum and state, written beside and renamed. half: the tensors in half precision, to be carried."""
    state.loss_sum, state.wrong = float(state.loss_sum), int(state.wrong)
    weights, momenta = net.state_dict(), optimizer.state_dict()
    if half:
        weights = {name: halved(tensor) for name, tensor in weights.items()}
        momenta["state"] = {n: {k: halved(v) for k, v in s.items()} for n, s in momenta["state"].items()}
    with renamed(path) as file:
        torch.save({"state": asdict(state), "net": weights, "optimizer": momenta, "half": half}, file)


def halved(tensor: Tensor) -> Tensor:
    """float32 as float16, unless a value is too large for that."""
    half = tensor.half() if tensor.is_floating_point() else tensor
    return half if half.isfinite().all() else tensor


def load_checkpoint(path: Path, net: nn.Module, optimizer) -> State:
    """Restore weights and momentum in place, return the rest. Raises ValueError, naming the file, if it is damaged."""
    try:
        saved = torch.load(path, map_location=next(net.parameters()).device, weights_only=True)
        net.load_state_dict(saved["net"])
        optimizer.load_state_dict(saved["optimizer"])
        state, half = State(**saved["state"]), saved["half"]
    except Exception as error:  # torch.load raises many kinds
        raise ValueError(
            f"{path} is damaged or of another version ({type(error).__name__}): delete it to start the run anew."
        ) from None
    if half:
        state.rounded.append(state.step)
    return state


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a run for this process. Raises ValueError if another one still holds it after LOCK_SECONDS. (Windows: no lock.)"""
    try:
        import fcntl
    except ImportError:
        yield
        return
    with path.open("w") as file:
        for tries in range(LOCK_SECONDS + 1):
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            if tries == LOCK_SECONDS:
                raise ValueError(f"{path.stem} is being carried out by another process: wait for it, or use another out_dir.")
            time.sleep(1)
        yield
        path.unlink(missing_ok=True)


@contextlib.contextmanager
def between_steps() -> Iterator[list[int]]:
    """Ctrl-C and SIGTERM wait for the end of an iteration: yields the list of those that came. A second one is not put off."""

    def note(number, _):
        if came:
            raise KeyboardInterrupt
        came.append(number)

    came, before = [], {}
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM):
            if signal.getsignal(number) is not signal.SIG_IGN:
                before[number] = signal.signal(number, note)
    try:
        yield came
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
