"""python -m reslib data | train | test | plan | sweep | start | audit | claims | bench: from a shell. --help after any."""

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import torch
import typer

from . import __version__
from .bench.commands import app as bench_app
from .evidence.commands import app as evidence_app
from .machine import in_a_line
from .options import Backend, DataDir, Device, Out
from .recipes import CIFAR, IMAGENET, SCALES

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False, help=__doc__)
app.add_typer(bench_app, name="bench")
DATA = ("cifar10", "imagenet")


def show_version(asked: bool) -> None:
    if asked:
        print(f"reslib {__version__}")
        raise typer.Exit


@app.callback(help=__doc__)
def options(version: Annotated[bool, typer.Option("--version", callback=show_version, is_eager=True)] = False):
    pass


@app.command()
def data(
    name: Annotated[str, typer.Argument(help="cifar10 or imagenet")] = "cifar10",
    folder: Annotated[Path | None, typer.Option("--dir", help="default: $RESLIB_DATA, else ./data")] = None,
    source: Annotated[Path | None, typer.Option("--from", help="imagenet: an ImageFolder tree, {train,val}/<class>/")] = None,
    mode: Annotated[str, typer.Option(help="imagenet: jpg, or raw: faster, in several times the room")] = "jpg",
    short_side: Annotated[int, typer.Option(help="imagenet: at most; 480 serves section 3.4, 256 nets of one scale")] = 480,
    jobs: Annotated[int | None, typer.Option(help="imagenet: threads; default: all cores")] = None,
    skip_unreadable: Annotated[bool, typer.Option(help="imagenet: leave out what cannot be read, or is damaged")] = False,
):  # fmt: skip
    """Fetch CIFAR-10 where it is missing, and check it; or write an ImageNet tree as .beton files, all photographs checked."""
    from .data import convert, data_folder, fast, images, sources, tree

    if name not in DATA:
        raise ValueError(f"data set {name!r} is unknown: use cifar10 or imagenet.")
    if name == "cifar10":
        sources.fetch(folder := data_folder(folder))
        for train in (True, False):
            part = images(CIFAR, train=train, data_dir=folder)
            kind = "training" if train else "test"
            print(f"{folder}: CIFAR-10, {len(part.labels):,} {kind} images, sha256 {part.sha256[:16]}")
        return
    if source is None:
        raise ValueError("which photographs? Give an ImageFolder tree: python -m reslib data imagenet --from DIR.")
    source = tree.folder_of(source)
    parts = [part for part in ("train", "val") if (source / part).is_dir()] or ["train"]
    for part in parts:  # mistakes come before the work
        tree.tree(source, part)
    if parts == ["train"] and (source / "train").is_dir():
        print(f"{source} holds no val: nets trained on it are tested on DIR/val/<class>/*.JPEG.")
    for part in parts:
        path = convert.convert(source, tree.folder_of(folder), part, mode, short_side, jobs, skip_unreadable)
        note = fast.sidecar(path)
        print(f"{path}: {note['count']:,} images of {len(note['classes'])} classes, {note['size'] / 1e9:.3f} GB")


@app.command()
def train(
    data: Annotated[str, typer.Option(help="cifar10, or imagenet: an ImageFolder tree, or .beton files")] = "cifar10",
    scale: Annotated[str | None, typer.Option(help=f"{', '.join(SCALES)}; default: pocket; imagenet: paper (default), or "
                                            "extension: 64 pixels, 2,000 steps")] = None,
    depth: Annotated[int | None, typer.Option(help="6n+2, default: 20; imagenet: 18, 34 (default), 50, 101, 152")] = None,
    shortcut: Annotated[str, typer.Option(help="A, B, C, or none: a plain net")] = "A",
    seed: int = 0,
    change: Annotated[list[str] | None, typer.Option("--set", help="any other field, as FIELD=VALUE, e.g. batch=64")] = None,
    out: Out = Path("runs"),
    data_dir: DataDir = None,
    backend: Backend = "auto",
    device: Device = None,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads; default: torch's choice")] = None,
    anew: Annotated[bool, typer.Option(help="start over: take up neither checkpoint nor record")] = False,
):  # fmt: skip
    """Carry out a run; go on from its checkpoint if it was interrupted."""
    from .trainer import train as run

    fields = dict(split_field(words) for words in change or [])
    option = None if shortcut.lower() == "none" else shortcut
    if data not in DATA:
        raise ValueError(f"data set {data!r} is unknown: use cifar10 or imagenet.")
    base, scale = (CIFAR, scale or "pocket") if data == "cifar10" else (IMAGENET, scale or "paper")
    first = {"depth": depth or base.depth, "shortcut": option, "seed": seed, "layers": fields.pop("layers", 2)}
    recipe = replace(replace(base, **first).at(scale), **fields)
    if threads:
        torch.set_num_threads(threads)
    read_only = not anew and (out / f"{recipe.name}.json").exists()
    if (record := run(recipe, data_dir=data_dir, out_dir=out, resume=not anew, device=device, backend=backend)) is None:
        return  # under torchrun, a rank that does not record
    if read_only:
        print(f"{record.provenance()}: only read; --anew carries it out again", file=sys.stderr)
    final = record.final
    errors = f"training error {final['train_error']:.2f} %, test error {final['test_error']:.2f} %"
    print(f"{out / record.name}.json: {errors} at the last of {final['step']:,} iterations")


def split_field(words: str):
    """ "batch=64" -> ("batch", 64). Raises ValueError for no field of a recipe."""
    name, _, value = words.partition("=")
    if name == "scale":
        raise ValueError(f"--set {words}: a scale sets several fields at once; use --scale.")
    if name not in CIFAR.as_dict():
        raise ValueError(f"--set {words}: a recipe has no field {name!r}; it has {', '.join(CIFAR.as_dict())}.")
    try:
        value = json.loads(value)
    except ValueError:
        pass  # a word such as fan_out
    return name, tuple(value) if isinstance(value, list) else value


@app.command()
def test(
    weights: Annotated[list[str], typer.Option(help="a run's .safetensors or record, a state dict in torchvision's names, or "
                                               "torchvision:resnet50; several: also their ensemble")],
    data_dir: DataDir = None,
    how: Annotated[str, typer.Option(help="centre crop; ten crops (Table 3); scales: whole, at five (Table 4)")] = "centre",
    pixels: Annotated[str, typer.Option(help="mean: minus DIR/train's mean image; torchvision; auto: by the weights")] = "auto",
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


app.registered_commands += evidence_app.registered_commands


def main() -> None:
    """Run the command line; what is wrong is said in one sentence."""
    sys.stdout.reconfigure(errors="backslashreplace")  # a file's name may be no UTF-8
    try:
        return app()
    except (ValueError, OSError, ImportError, FloatingPointError, torch.OutOfMemoryError, torch.AcceleratorError) as error:
        message = in_a_line(error)
    sys.exit(message)  # out here, where what the error held on to, a pool of processes, is gone


if __name__ == "__main__":
    main()
