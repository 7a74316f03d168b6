"""python -m reslib bench step | load: speed on this machine."""

import math
from pathlib import Path
from typing import Annotated

import torch
import typer

from ..files import path_of

app = typer.Typer(no_args_is_help=True, help="Measure speed on this machine.")
Count = Annotated[int, typer.Option(min=1)]
Device = Annotated[str | None, typer.Option(help="cpu or cuda; default: a GPU if there is one")]


def expanded(written: Path | None) -> Path | None:
    """An option as `path_of` reads it."""
    return written and path_of(written)


@app.command()
def step(depth: int = 20, size: Count = 32, batch: Count = 128, rounds: Count = 7,
         steps: Annotated[int, typer.Option(min=1, help="of a round; a GPU is fast enough for 200")] = 5,
         threads: Count | None = None,
         compiled: Annotated[bool, typer.Option(help="also compiled, as long runs are (takes a minute)")] = True,
         script: Annotated[bool, typer.Option("--script", help="also the usual script's loop, on CIFAR-10")] = False,
         precision: Annotated[str, typer.Option(help="tf32, or bf16: of what `train` does")] = "tf32",
         device: Device = None, data_dir: Path | None = None):  # fmt: skip
    """The training step: what `train` does against the plain eager NCHW loop, in turn, in one run."""
    from ..machine import device_of
    from . import step as bench

    device = str(device_of(device))
    if threads:
        torch.set_num_threads(threads)
    if script and size != 32:
        raise ValueError(f"size is {size}: the usual script loads CIFAR-10 at 32 pixels, so --script goes with --size 32.")
    variants = [bench.SCRIPT] * script + [bench.PLAIN, bench.EAGER, bench.COMPILED]
    variants += [bench.GRAPH, f"{bench.GRAPH}, compiled"] if device != "cpu" else []
    variants = [name for name in variants if compiled or "compiled" not in name]
    made = bench.steps_of(depth, size, batch, variants, device, data_dir, precision)
    seconds = bench.in_turns(made, rounds, steps)
    print(f"ResNet-{depth}, {size}x{size}, batch {batch}, {precision}, {machine(device)}, median of {rounds} rounds\n\n"
          f"{bench.step_table(seconds, batch)}")  # fmt: skip


def machine(device: str) -> str:
    """The processor, threads and release that a timing belongs to."""
    from ..machine import device_name

    return f"{device_name(torch.device(device))}, {torch.get_num_threads()} threads, torch {torch.__version__}"


@app.command()
def load(
    data_dir: Annotated[Path | None, typer.Option(help="holds CIFAR-10; default: $RESLIB_DATA, else ./data")] = None,
    imagenet: Annotated[
        Path | None, typer.Option(help="an ImageFolder tree of photographs at full size, to be measured too", callback=expanded)
    ] = None,
    rounds: Count = 5,
    seconds: Annotated[float, typer.Option(help="for each loader in each round")] = 1.5,
    workers: Annotated[str, typer.Option(help="to try, e.g. 1,2,4; torchvision also without")] = "1,2",
    device: Device = None,
    write: Annotated[
        Path | None, typer.Option(help="folder for the record, e.g. notebooks/records/bench", callback=expanded)
    ] = None,
):
    """The loaders against plain torchvision + DataLoader, in turn, in one run."""
    from ..evidence.parameters import whole_numbers
    from ..machine import device_of
    from . import loading as bench_load

    if not 0 < seconds < math.inf:
        raise ValueError(f"seconds is {seconds}: it must be above 0.")
    device = str(device_of(device))
    counts = [n for n in whole_numbers(workers) if n]
    record = bench_load.run(data_dir, imagenet, rounds, seconds, counts or [1], device)
    machine = record["environment"]
    print(f"{machine['device']}, {machine['cores']} cores, torch {machine['torch']}, batch 128, median of {rounds} rounds\n\n"
          f"{bench_load.table(record)}")  # fmt: skip
    if write:
        print(f"\n{bench_load.write(record, write)}")
