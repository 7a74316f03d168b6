"""Options that several commands have."""

from pathlib import Path
from typing import Annotated

import typer

from .files import path_of


def expanded(written: Path | None) -> Path | None:
    """An option as `path_of` reads it."""
    return written and path_of(written)


Backend = Annotated[str, typer.Option(help="auto, ffcv, array, torch")]
DataDir = Annotated[Path | None, typer.Option(help="holds CIFAR-10, or photographs, DIR/{train,val}/<class>/; default: "
                                              "$RESLIB_DATA, else ./data")]  # fmt: skip
Device = Annotated[str | None, typer.Option(help="cpu or cuda; default: a GPU if there is one")]
Out = Annotated[Path, typer.Option(help="folder for records and, meanwhile, checkpoints", callback=expanded)]
