"""The machine a run is made on: which device, whether its step is compiled, and what a record says of all that."""

import contextlib
import functools
import os
import platform
import re
import subprocess
import time
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch
from torch import nn

from .files import say, words
from .recipes import Recipe

COMPILE_STEPS = 10_000  # iterations from which on a step is compiled: that takes a minute or more, ...
COMPILE_DEPTH = 200  # ... and far too long for deeper nets
GIT_VARIABLES = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE")  # of a hook: they name another repository
STRUCTURES = 64  # nets that one process keeps compiled; from the ninth on dynamo's default would silently run them eagerly


def device_of(name: str | torch.device | None) -> torch.device:
    """The device of this name, "cpu", "cuda" or "cuda:1"; None: a GPU if there is one. Raises ValueError where it is not."""
    usable = torch.cuda.is_available()
    try:
        device = torch.device(name or ("cuda" if usable else "cpu"))
    except RuntimeError:
        device = None
    if device is None or device.type not in ("cpu", "cuda"):
        raise ValueError(f"device {str(name)!r} is unknown: use cpu or cuda.")
    if device.type == "cuda" and (device.index or 0) >= (count := torch.cuda.device_count()):
        raise ValueError(f"device {str(device)!r} is not there: PyTorch finds {count} GPUs on this machine; use cpu.")
    if device.type == "cuda" and not usable:
        raise ValueError(f"device {str(device)!r} cannot be used: its driver (see nvidia-smi) is too old for this PyTorch, "
                         f"built for CUDA {torch.version.cuda}; use cpu, or a PyTorch for an older CUDA.")  # fmt: skip
    return device


def compiles(recipe: Recipe, device: torch.device, step: int = 0) -> bool:
    """Whether a run's step is compiled from iteration `step` on: by a fixed rule, never by a timing. Recorded.

    On a CPU the rule looks at the whole run, so that one taken up ends with the same bits; on a GPU, which promises none, at
    what is left of it.
    """
    steps = recipe.steps - (step if device.type == "cuda" else 0)
    return steps >= COMPILE_STEPS and recipe.depth <= COMPILE_DEPTH and compiler_works(device.type)


@functools.cache
def compiler_works(device: str) -> bool:
    """Whether something tiny can be compiled here: a compiler, its headers, a folder that code may run from. Once a process."""
    number = time.time_ns() % 2**20  # a constant of the code: not found in the compiler's cache, so really compiled
    try:
        torch.compile(lambda x: (x + number).relu(), dynamic=False)(torch.ones(8, device=device))
    except Exception as error:  # of many kinds
        say(f"The step is not compiled, the compiler fails here: {in_a_line(error)[:200]}")
        return False
    return True


def compiled(net: nn.Module) -> nn.Module:
    """The net, its forward and backward passes compiled: the same weights. Nets of one structure share what was compiled."""
    torch._dynamo.config.recompile_limit = max(STRUCTURES, torch._dynamo.config.recompile_limit)
    return torch.compile(net, dynamic=False)


@contextlib.contextmanager
def own_settings(device: torch.device) -> Iterator[None]:
    """A run is its recipe's: what a caller set in torch does not enter it, and is as before at its end; random state too."""
    precision, dtype = torch.get_float32_matmul_precision(), torch.get_default_dtype()
    with (
        torch.random.fork_rng(devices=[]),
        torch.autocast(device.type, enabled=False),
        torch.inference_mode(False),
        torch.enable_grad(),
        contextlib.nullcontext() if torch.get_default_device().type == "cpu" else torch.device("cpu"),
    ):
        torch.set_float32_matmul_precision("highest")
        torch.set_default_dtype(torch.float32)
        try:
            yield
        finally:
            torch.set_float32_matmul_precision(precision)
            torch.set_default_dtype(dtype)


def environment(device: torch.device, threads: int, compiled: bool = False) -> dict:
    """Commit, versions and machine. dirty: code under reslib/ or notebooks/*.py is uncommitted.

    Both are None where no repository has this very file at its place: a copy in the folder of another project is not known.
    """
    root, here = Path(__file__).parents[1], {name: value for name, value in os.environ.items() if name not in GIT_VARIABLES}
    this = Path(__file__).relative_to(root).as_posix()

    def git(*words):
        with contextlib.suppress(OSError):  # no git, or none that this user may run
            result = subprocess.run(["git", "-C", root, *words], capture_output=True, text=True, env=here)
            return result.stdout.strip() if result.returncode == 0 else None

    def installed(name):
        with contextlib.suppress(PackageNotFoundError):
            return version(name)

    commit = git("rev-parse", "HEAD") if git("ls-files", "--full-name", this) == this else None
    changes = git("status", "--porcelain", "--", "reslib", "notebooks/*.py") if commit else None
    return {
        "commit": commit,
        "dirty": None if changes is None else bool(changes),
        **{name: installed(name) for name in ("reslib", "torch", "torchvision", "numpy", "ffcv")},
        "python": platform.python_version(),
        "device": device_name(device),
        "threads": threads,
        "compiled": compiled,
        "deterministic": device.type == "cpu",
        **({"cuda": torch.version.cuda, "cudnn": torch.backends.cudnn.version()} if device.type == "cuda" else {}),
    }


def provenance(state, here: dict) -> dict:
    """A record's environment: this machine's and, of a run that was taken up, what came before, on other code or machines."""
    stretch = {"step": state.step} | here
    if not state.machines or state.machines[-1] | {"step": state.step} != stretch:
        state.machines.append(stretch)
    if len(state.machines) > 1:
        here["dirty"] = max((one["dirty"] for one in state.machines), key=[False, None, True].index)
        told = ("step", "commit", "dirty", "device", "threads", "torch", "compiled", "ranks")
        here["earlier"] = [{name: one[name] for name in told if name in one} for one in state.machines[:-1]]
    return here


def cores() -> int:
    """Cores that this process may use, by its affinity and its container's quota."""
    from joblib import cpu_count

    return cpu_count()


def warn_if_no_evidence(environment: dict) -> None:
    """Say at the start what would be held against the record at the end."""
    if environment["dirty"] is not False:
        status = words("git", "-C", Path(__file__).parents[1], "status")
        why = "has uncommitted changes" if environment["dirty"] else f"is of no known commit, `{status}` may tell why"
        say(f"What is trained here cannot become evidence: the code {why}.")


def device_name(device: torch.device) -> str:
    """The GPU's name; or the processor's model, and its instruction set as torch sees it."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    info = Path("/proc/cpuinfo")
    names = re.findall(r"^model name\s*: (.*)$", info.read_text(), re.MULTILINE) if info.exists() else []
    return f"{[*names, platform.processor() or platform.machine()][0]}, {torch.backends.cpu.get_cpu_capability()}"


def in_a_line(error: BaseException) -> str:
    """What an error says; of PyTorch's own, which go on with hints, the first line; of a DataLoader's worker the last."""
    said = f"{error}" or type(error).__name__
    if said.startswith("Caught "):
        return said.splitlines()[-1].partition(": ")[2]
    return said.splitlines()[0] if isinstance(error, torch.OutOfMemoryError | torch.AcceleratorError) else said[:2000]
