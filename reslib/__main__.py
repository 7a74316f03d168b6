"""python -m reslib data | train | test | plan | sweep | start | audit | claims | bench: from a shell. --help after any."""

import contextlib
import json
import math
import os
import sys
from pathlib import Path
from typing import Annotated

import torch
import typer

from . import __version__
from .bench.commands import Device, expanded
from .bench.commands import app as bench_app
from .checkpoint import heard, unwind
from .machine import cores, in_a_line
from .recipes import CIFAR, IMAGENET, SCALES, Recipe

Backend = Annotated[str, typer.Option(help="auto, ffcv, array, torch")]
Data = Annotated[Path | None, typer.Option(help="holds CIFAR-10, or photographs: DIR/{train,val}/<class>/; default: "
                                           "$RESLIB_DATA, else ./data")]  # fmt: skip
Out = Annotated[Path, typer.Option(help="folder for records and, meanwhile, checkpoints", callback=expanded)]

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False)
app.add_typer(bench_app, name="bench")


@app.callback(help=__doc__, invoke_without_command=True)
def options(version: Annotated[bool, typer.Option("--version")] = False):
    if version:
        print(f"reslib {__version__}")
        raise typer.Exit


@app.command()
def data(
    name: Annotated[str, typer.Argument(help="cifar10 or imagenet")] = "cifar10",
    folder: Annotated[Path | None, typer.Option("--dir", help="default: $RESLIB_DATA, else ./data")] = None,
    source: Annotated[Path | None, typer.Option("--from", help="imagenet: an ImageFolder tree, {train,val}/<class>/")] = None,
    mode: Annotated[str, typer.Option(help="imagenet: jpg (recommended: a server's memory holds it), or raw (faster, "
                                      "several times the room)")] = "jpg",
    short_side: Annotated[int, typer.Option(help="imagenet: longer ones are reduced to this (480: section 3.4's scales; 256: "
                                            "nets without scale augmentation)")] = 480,
    jobs: Annotated[int | None, typer.Option(help="imagenet: processes; default: all cores")] = None,
    skip_unreadable: Annotated[bool, typer.Option(help="imagenet: leave out what cannot be read, or is damaged")] = False,
    check: Annotated[bool, typer.Option("--check", help="read every .beton file there whole, and compare it with its "
                                        "sha256")] = False,
):  # fmt: skip
    """Fetch CIFAR-10 where it is missing, and check it; or write an ImageNet tree as .beton files, all photographs checked."""
    from .data import data_folder, fast, images, tree
    from .data.sources import fetch

    if name not in ("cifar10", "imagenet"):
        raise ValueError(f"data set {name!r} is unknown: use cifar10 or imagenet.")
    if name == "imagenet" and not (check and source is None):
        imagenet_data(source, folder, mode, short_side, jobs, skip_unreadable)
    folder = data_folder(folder) if name == "cifar10" else tree.folder_of(folder)
    if name == "cifar10":
        fetch(folder)
        for train, which in ((True, "training"), (False, "test")):
            part = images(CIFAR, train=train, data_dir=folder)
            print(f"{folder}: CIFAR-10, {len(part.labels):,} {which} images, sha256 {part.sha256[:16]}")
    if check:
        if not (found := sorted((folder / "beton").glob(f"{name}-*.beton"))):
            print(f"{folder / 'beton'} holds no .beton file of {name}")
        for path in found:
            print(f"{path}: {fast.check(path)['count']:,} images, as they were written")


def imagenet_data(source, folder, mode, side, jobs, skip_unreadable) -> None:
    """Convert the parts of a tree, and say what was found in them."""
    from .data import convert, fast, tree

    if source is None:
        raise ValueError("which photographs? Give an ImageFolder tree: python -m reslib data imagenet --from DIR.")
    source, folder = (tree.folder_of(place) for place in (source, folder))
    parts = [part for part in ("train", "val") if (source / part).is_dir()] or ["train"]
    for part in parts:  # mistakes come before the work
        tree.tree(source, part)
    if parts == ["train"] and (source / "train").is_dir():
        print(f"{source} holds no val: nets trained on it are tested on DIR/val/<class>/*.JPEG.")
    for part in parts:
        path = convert.convert(source, folder, part, mode, side, jobs, skip_unreadable)
        note = fast.sidecar(path)
        all_of_it = note["size"] / note["count"] * 1_281_167 / 1e9
        print(f"{path}: {note['count']:,} images of {len(note['classes'])} classes, {note['size'] / 1e9:.3f} GB (ImageNet's "
              f"1,281,167 would take {all_of_it:,.0f}); made RGB: {note['greyscale']} greyscale, {note['cmyk']} CMYK; "
              f"unreadable: {len(note['unreadable'])}")  # fmt: skip


@app.command()
def train(
    data: Annotated[str, typer.Option(help="cifar10, or imagenet: an ImageFolder tree, or .beton files")] = "cifar10",
    scale: Annotated[str | None, typer.Option(help=f"{', '.join(SCALES)}; default: pocket; imagenet: paper, extension")] = None,
    depth: Annotated[int | None, typer.Option(help="layers: 20 (default), 32, 44, 56, 110, any 6n+2; imagenet: 18, 34 "
                                              "(default), 50, 101, 152")] = None,
    shortcut: Annotated[str, typer.Option(help="A, B, C, or none: a plain net")] = "A",
    seed: int = 0,
    change: Annotated[list[str] | None, typer.Option("--set", help="any other field, as FIELD=VALUE, e.g. batch=64")] = None,
    out: Out = Path("runs"),
    data_dir: Data = None,
    backend: Backend = "auto",
    device: Device = None,
    threads: Annotated[int | None, typer.Option(min=1, max=1024, help="CPU threads; default: torch's choice")] = None,
    anew: Annotated[bool, typer.Option(help="start over: take up neither checkpoint nor record")] = False,
):  # fmt: skip
    """Carry out a run; go on from its checkpoint if it was interrupted."""
    from .trainer import train as run

    if data not in ("cifar10", "imagenet"):
        raise ValueError(f"data set {data!r} is unknown: use cifar10 or imagenet.")
    base, scale = (CIFAR, scale or "pocket") if data == "cifar10" else (IMAGENET, scale or "paper")
    option = None if shortcut.lower() == "none" else shortcut
    fields = {"depth": depth or base.depth, "shortcut": option, "seed": seed} | dict(map(split_field, change or []))
    recipe = Recipe.from_dict(base.at(scale).as_dict() | fields)
    if threads or "OMP_NUM_THREADS" not in os.environ:  # torch's choice does not know a container's quota
        torch.set_num_threads(threads or min(torch.get_num_threads(), cores()))
    read_only = not anew and (out / f"{recipe.name}.json").exists()
    if (record := run(recipe, data_dir=data_dir, out_dir=out, resume=not anew, device=device, backend=backend)) is None:
        return  # under torchrun, a rank that does not record
    if read_only:
        print(f"{record.provenance()}: only read; --anew carries it out again", file=sys.stderr)
    final = record.final
    errors = f"training error {final['train_error']:.2f} %, test error {final['test_error']:.2f} %"
    print(f"{out / record.name}.json: {errors} at the last of {final['step']:,} iterations")


def split_field(words: str):
    """ "batch=64" -> ("batch", 64). Raises ValueError for the scale."""
    name, _, value = words.partition("=")
    if name == "scale":
        raise ValueError(f"--set {words}: a scale sets several fields at once; use --scale.")
    with contextlib.suppress(ValueError):  # a word such as fan_out
        value = json.loads(value)
    return name, value


@app.command()
def plan(
    scale: Annotated[str | None, typer.Option(help="pocket, night or paper; default: all")] = None,
    out: Annotated[Path | None, typer.Option(help="a sweep's folder, whose records count too")] = None,
):
    """List every run that a claim or a table needs, the most valuable first, and how many of them are recorded."""
    from .evidence.plan import PLAN, table
    from .record import load, records

    rows = table(records([*load(), *(load(out) if out else [])]), scale)
    print("\n".join(f"{group.name} ({group.claims}): {group.why}" for group in PLAN), end="\n\n")
    print(rows.to_markdown(index=False, floatfmt=",.2f"))
    missing = (rows.hours * (rows.runs - rows.recorded)).sum(skipna=False)
    hours = "unknown" if math.isnan(missing) else f"{missing:,.0f} hours"
    print(f"\n{rows.recorded.sum()} of {rows.runs.sum()} runs recorded. hours: of one run, estimated from the faster of those "
          f"recorded on a CPU (one thread); all that is missing: {hours}")  # fmt: skip


@app.command()
def sweep(
    plan: Annotated[str | None, typer.Option(help="one group of the plan; default: all, the most valuable first")] = None,
    scale: Annotated[str, typer.Option(help="pocket, night or paper")] = "pocket",
    jobs: Annotated[int | None, typer.Option(min=1, help="at once; default: one a CPU core, 4 on a GPU, 1 on slurm")] = None,
    time_limit: Annotated[float | None, typer.Option(help="seconds; what runs then is stopped with a checkpoint")] = None,
    out: Out = Path("runs"),
    data_dir: Data = None,
    backend: Backend = "auto",
    device: Device = None,
    executor: Annotated[str, typer.Option(help="local: processes on this machine; slurm: jobs of a cluster")] = "local",
    partition: Annotated[str | None, typer.Option(help="slurm: where the jobs run")] = None,
    account: Annotated[str | None, typer.Option(help="slurm: whom they are charged to")] = None,
    gpus: Annotated[int, typer.Option(min=0, max=1, help="slurm: of a job; 0: a core")] = 1,
    minutes: Annotated[int, typer.Option("--time", min=1, help="slurm: minutes of a job, after which it is requeued")] = 60,
):
    """Carry out what is missing of the plan; stop it at any time, and go on with the same command."""
    from .evidence.plan import missing
    from .evidence.sweep import run_parallel, submit

    if executor not in ("local", "slurm"):
        raise ValueError(f"executor {executor!r} is unknown: use local or slurm.")
    if executor == "slurm":
        asked = dict(jobs=jobs, gpus=gpus, minutes=minutes, partition=partition, account=account)
        started = submit(missing(scale, plan, out), out=out, data_dir=data_dir, backend=backend, **asked)
        return print(f"{len(started)} Slurm jobs: {', '.join(started)}; logs in {out}/slurm, what fails in {out}/*.failed")
    where = dict(out=out, data_dir=data_dir, device=device, backend=backend)
    failed = run_parallel(missing(scale, plan, out), jobs=jobs, time_limit=time_limit, **where)
    left = len(missing(scale, plan, out))
    print(f"{left} planned runs are still missing at {scale} scale" + (f"; {len(failed)} failed" if failed else ""))
    if failed:
        sys.exit(1)


@app.command()
def test(
    weights: Annotated[list[str], typer.Option(help="a run's .safetensors (or record), a state dict in torchvision's names "
                                               "(.pt, .pth), or torchvision:resnet50; several: also their ensemble")],
    data_dir: Data = None,
    how: Annotated[str, typer.Option(help="centre crop; ten crops (Table 3); scales: whole, at five (Table 4)")] = "centre",
    pixels: Annotated[str, typer.Option(help="minus the mean image of DIR/train, or torchvision's mean and std; auto: mean for "
                                        "a run's weights")] = "auto",
    shortcut: Annotated[str, typer.Option(help="of a state dict without projections: A, or none: a plain net")] = "A",
    stride_on: Annotated[str, typer.Option(help="of a state dict's bottlenecks: 3x3 (torchvision, v1.5), 1x1 (v1)")] = "3x3",
    device: Device = None,
):  # fmt: skip
    """Test nets on photographs: top-1 and top-5 error, each with its 95 % interval over the images."""
    from . import testing

    if shortcut.lower() not in ("a", "none"):
        raise ValueError(f"shortcut {shortcut!r}: without projections a net is option A's, or plain: none.")
    option = None if shortcut.lower() == "none" else "A"
    rows = testing.test(weights, data_dir, how, device, pixels=pixels, shortcut=option, stride_on=stride_on)
    print(testing.table(rows))


@app.command()
def start(
    write: Annotated[Path | None, typer.Option(help="folder for slopes.json, e.g. notebooks/records/start",
                                               file_okay=False, writable=True, callback=expanded)] = None,
    data_dir: Data = None,
):  # fmt: skip
    """What a layer does to signals and gradients before any training (C22): computed on CIFAR-10, about ten minutes."""
    from .evidence import start

    values = start.compute(data_dir)
    means = start.table(values).groupby([*start.NAMES, "depth"])[["forward", "backward"]].mean()
    shown = means.reset_index().to_markdown(index=False, floatfmt=".4f")
    print(f"decades a layer, means of {len(start.SEEDS)} draws\n\n{shown}")
    if write:
        print(f"\n{start.write(values, write)}")


@app.command()
def claims(
    write: Annotated[Path | None, typer.Option(help="put the summary into this file, between its claims marks",
                                               callback=expanded)] = None,
):  # fmt: skip
    """Print the verdicts on the paper's claims, from the records."""
    from .evidence.claims import put_summary, table, verdicts
    from .files import listed
    from .record import folder

    if not listed(folder(), "*.json"):
        raise ValueError(f"{folder()} holds no records: RESLIB_RECORDS must name the folder that does.")
    if write is None:
        return print(table(verdicts()))
    put_summary(write)


@app.command()
def audit(
    folder: Annotated[Path, typer.Argument(help="<owner>+<repo>/ folders of weights and logs, or one of them",
                                           callback=expanded)],
    out: Annotated[Path | None, typer.Option(help="default: the recorded audits' folder", callback=expanded)] = None,
    data_dir: Data = None,
):  # fmt: skip
    """Measure the CIFAR-10 nets that others published: errors, probes and predictions, one record a net."""
    from .evidence.audit import audit_folder, write_audit
    from .record import folder as recorded

    out, failed = out or recorded() / "audits", False
    for found in audit_folder(folder, data_dir):
        if isinstance(found, ValueError):
            failed = True
            print(in_a_line(found), file=sys.stderr, flush=True)
            continue
        said = ", ".join(f"{kind} {error:.2f} %" for kind, error in found["reported"].items()) or "nothing"
        print(f"{write_audit(found, out)}: test error {found['measured']['test_error']:.2f} %; reported: {said}; agrees with "
              f"{found['agrees_with'] or 'none'}", flush=True)  # fmt: skip
    if failed:
        sys.exit(1)


def main() -> None:
    """Run the command line; what is wrong is said in one sentence."""
    sys.stdout, sys.stderr = (file or open(os.devnull, "w") for file in (sys.stdout, sys.stderr))  # None: they are closed
    sys.stdout.reconfigure(errors="backslashreplace")  # a file's name may be no UTF-8
    try:
        with heard(unwind):
            return app()
    except (ValueError, OSError, ImportError, FloatingPointError, torch.OutOfMemoryError, torch.AcceleratorError) as error:
        message = in_a_line(error)
    sys.exit(message)  # out here, where what the error held on to, a pool of processes, is gone


if __name__ == "__main__":
    main()
