"""One JSON file a run: written beside and renamed, read with every check, and laid out as DataFrames.

    cifar10-resnet56-A-paper-s0-1f3a9c2e.json           the end is the recipe's id
    cifar10-resnet56-A-paper-s0-1f3a9c2e.safetensors    the weights it ended with; Record.net() builds the net with them

`replay(recipe)` returns the recorded run of a recipe; `records()` one row a run, `curves()` one row a logged step.
"""

import base64
import hashlib
import json
import math
import os
import reprlib
import zlib
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from torch import nn

from .files import listed, path_of, renamed, words
from .recipes import IMAGENET, Recipe, needed
from .weights import trained_net, write_weights

if TYPE_CHECKING:  # a second to import, and training needs none of it
    import pandas as pd

SCHEMA = 1
COLUMNS = ("step", "lr", "train_error", "train_loss", "test_error", "test_loss")
"""Of a curve. step: iterations done; lr: of the last of them; errors in percent, losses in nats. train_*: running, of the
augmented batches since the last row; test_*: a pass over the test images, null where none was made."""


@dataclass
class Record:
    """What a run left behind. Errors are in percent, losses in nats, time in seconds."""

    recipe: Recipe
    data: dict  # name, sha256 of the bytes used, counts of train, val, test; of photographs also of classes
    environment: dict  # commit, dirty, versions, device, threads, compiled, deterministic
    backend: str
    time: dict  # start (UTC), seconds, images_per_second; beside: runs that its sweep kept on the device at once, most
    final: dict  # at the last step
    best_on_test: dict  # step, test_error: never the headline, it prices the bias
    probes: list  # of {"step", "layer", ...} as probes.probe; older ones: "weight_gradient" at step 0 only, no "bn_scale"
    test_predictions: str  # classes of the test images at the last step, zlib and base64
    curve: dict[str, list]
    weights_sha256: str
    schema: int = SCHEMA
    recipe_id: str = ""
    path: ClassVar[Path | None] = None  # of the file, once it is written or read

    def __post_init__(self):
        self.recipe_id = self.recipe_id or self.recipe.id

    @property
    def name(self) -> str:
        return self.recipe.name

    def predictions(self) -> np.ndarray:
        """The predicted classes of the test images, uint8 or uint16 (n,), in their order."""
        return unpack(self.test_predictions, self.data.get("classes", 10))

    def net(self) -> nn.Module:
        """The trained net, on the CPU, in test mode, from the weights beside the record.

        Raises FileNotFoundError, with the command that makes them, where there are none (the book's records come without);
        ValueError if they are damaged, or another run's.
        """
        path = self.path and self.path.with_suffix(".safetensors")
        if path is None or not path.is_file():
            made = ("--out", "runs") if path is None or path.parent == folder() else ("--anew", "--out", path.parent)
            raise FileNotFoundError(f"no weights of {self.name} beside its record: they are made by `"
                                    f"{command(self.recipe, *made)}`, and lie beside that run's.")  # fmt: skip
        net = trained_net(self.recipe, path)
        if weights_sha256(net) != self.weights_sha256:
            raise ValueError(f"{path} holds the weights of another run than {self.path.name}: delete it, or make both again.")
        return net

    def frame(self) -> "pd.DataFrame":
        """The curve, one row a logged step."""
        import pandas as pd

        return pd.DataFrame(self.curve).astype(dict.fromkeys(COLUMNS[1:], float))

    def probe_frame(self) -> "pd.DataFrame":
        """The probes, one row a step and layer; `depth` counts the layers from 1, the stem."""
        import pandas as pd

        rows = [pd.DataFrame(p).assign(depth=range(1, len(p["layer"]) + 1)) for p in self.probes]
        return pd.concat(rows, ignore_index=True)

    def provenance(self) -> str:
        """One line: recorded when, on what, from which commit."""
        e = self.environment
        commit = (e["commit"] or "unknown")[:10] + (" (uncommitted changes)" if e["dirty"] else "")
        rounded = "".join(f", taken up from half precision at iteration {step:,}" for step in e.get("rounded_at", ()))
        for old in e.get("earlier", ()):
            rounded += f", from iteration {old['step']:,} on {old['device']}, commit {(old['commit'] or 'unknown')[:10]}"
        return (f"{self.name}: recorded {self.time['start'][:10]} on {e['device']} ({e['threads']} threads), "
                f"torch {e['torch']}, commit {commit}, {self.time['seconds'] / 60:.1f} min{rounded}")  # fmt: skip


def short(x):
    """Numbers, also in lists and dicts, to six significant digits: enough for any figure, and records stay small."""
    return json.loads(json.dumps(x), parse_float=lambda number: float(f"{float(number):.6g}"))


def weights_sha256(net: nn.Module) -> str:
    """Of all parameters and buffers, in the order of the state dict."""
    digest = hashlib.sha256()
    for tensor in net.state_dict().values():
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def pack(classes: np.ndarray, of: int = 10) -> str:
    """Classes (n,), out of so many, as text: bytes, or above 256 two each, the lower first; zlib, base64."""
    return base64.b64encode(zlib.compress(classes.astype("u1" if of <= 256 else "<u2").tobytes(), 9)).decode()


def unpack(packed: str, of: int = 10) -> np.ndarray:
    """The classes, uint8 or uint16 (n,), of `pack`'s text."""
    return np.frombuffer(zlib.decompress(base64.b64decode(packed)), "u1" if of <= 256 else "<u2")


def write(record: Record, folder: str | Path, net: nn.Module | None = None) -> Path:
    """Write a record under its name into `folder`, and the net's weights beside it, before it.

    A crash leaves the old file or the new one. Raises ValueError on NaN.
    """
    path = path_of(folder) / f"{record.name}.json"
    values = {"schema": record.schema, "recipe_id": record.recipe_id} | asdict(record)
    try:
        lines = [f" {json.dumps(k)}: {json.dumps(v, allow_nan=False)}" for k, v in values.items()]
    except ValueError:
        raise ValueError(f"{path.name}: the record holds NaN or infinity and was not written.") from None
    if net is not None:
        write_weights(net, record.recipe, path.with_suffix(".safetensors"))
    with renamed(path) as file:
        file.write(("{\n" + ",\n".join(lines) + "\n}\n").encode())
    record.path = path
    return path


NUMBER = int | float
NEEDED = {
    "data": {"name": str, "sha256": str, "train": int, "test": int},
    "environment": {"commit": str | None, "dirty": bool | None, "device": str, "threads": int, "torch": str},
    "time": {"start": str, "seconds": NUMBER, "images_per_second": NUMBER},
    "best_on_test": {"step": int, "test_error": NUMBER},
    "final": dict.fromkeys(("train_error", "train_loss", "test_error", "test_loss"), NUMBER),
}
"""What a record's parts hold at least, and of which type."""


def refuse_constant(name: str):
    """For json.loads: NaN and infinity are errors."""
    raise ValueError(f"it holds {name}")


def read(path: str | Path) -> Record:
    """Read one record. Raises ValueError, naming the file, if it is no record, or one that was changed or damaged."""
    path = path_of(path)
    try:
        values = json.loads(path.read_text(), parse_constant=refuse_constant)
        if not isinstance(values, dict) or values.get("schema") != SCHEMA:
            raise ValueError(f"its schema is not {SCHEMA}, which this version of reslib reads")
        values["recipe"] = Recipe.from_dict(values["recipe"])
        record = Record(**values)
        if record.recipe_id != record.recipe.id:
            raise ValueError(f"its recipe_id {record.recipe_id} is not its recipe's, {record.recipe.id}")
        if path.name != f"{record.name}.json":
            raise ValueError(f"its name is not that of its recipe, {record.name}.json")
        lengths = {len(record.curve[name]) for name in COLUMNS}
        if lengths != {record.recipe.steps // record.recipe.log_every}:
            raise ValueError("its curve has not as many rows as its recipe logs")
        if not math.isfinite(record.final["train_error"] + record.final["test_error"]):
            raise ValueError("its final errors are no numbers")
        if len(record.predictions()) != record.data["test"]:
            raise ValueError("its predictions are not as many as its test images")
        for part, kinds in NEEDED.items():
            if wrong := [name for name, kind in kinds.items() if not isinstance(getattr(record, part)[name], kind)]:
                raise ValueError(f"its {part} has {getattr(record, part)[wrong[0]]!r} as {wrong[0]!r}")
        if not all(isinstance(x, NUMBER | None) for name in COLUMNS for x in record.curve[name]):
            raise ValueError("its curve holds more than numbers")
        for probe in record.probes:
            if type(probe["step"]) is not int or len({len(probe[name]) for name in {*probe, "layer"} - {"step"}}) != 1:
                raise ValueError("its probes are not a row a layer")
        record.path = path
    except (AttributeError, KeyError, TypeError, ValueError, zlib.error) as error:  # JSON's and Unicode's are ValueErrors
        why = f"{error} is missing" if isinstance(error, KeyError) else error
        raise ValueError(f"{path} is not a readable record: {why}. Moved away, it can be made again.") from None
    return record


def folder() -> Path:
    """Where the recorded evidence lies: $RESLIB_RECORDS (raises as `there`), else notebooks/records of the checkout."""
    given = os.environ.get("RESLIB_RECORDS")
    return there(given) if given else Path(__file__).parents[1] / "notebooks" / "records"


def there(where: str | Path) -> Path:
    """A folder of records. Raises FileNotFoundError where there is none."""
    if not (path := path_of(where).absolute()).is_dir():
        raise FileNotFoundError(f"{path} is no folder: name the one that holds the records.")
    return path


def replay(recipe: Recipe) -> Record:
    """The recorded run of a recipe. Raises FileNotFoundError, with the command that makes it, if there is none."""
    path = folder() / f"{needed(recipe).name}.json"
    if not path.is_file():
        raise FileNotFoundError(f"no record of {recipe.name} in {path.parent}: make it with `{command(recipe)}`.")
    return read(path)


def recorded(recipes: list[Recipe]) -> tuple[list[Record], list[Recipe]]:
    """The recorded runs among those of `recipes`, and the recipes that have none. Raises as `replay` if none has."""
    missing = [recipe for recipe in recipes if not (folder() / f"{recipe.name}.json").is_file()]
    if len(missing) == len(recipes):
        replay(recipes[0])
    return [replay(recipe) for recipe in recipes if recipe not in missing], missing


def command(recipe: Recipe, *where: object) -> str:
    """The shell command that carries out a recipe and records it; where: options in place of the folder of the evidence."""
    imagenet = recipe.data == "imagenet"
    base = (IMAGENET if imagenet else Recipe()).at(recipe.scale).as_dict()
    changed = {k: v for k, v in recipe.as_dict().items() if v != base[k]}
    said = ["python", "-m", "reslib", "train"]
    said += ["--data", "imagenet", "--data-dir", "DIR"] * imagenet + ["--scale", recipe.scale]
    for name in ("depth", "shortcut", "seed"):
        said += [f"--{name}", changed.pop(name) or "none"] if name in changed else []
    for name, value in changed.items():
        said += ["--set", f"{name}={json.dumps(value)}"]
    return words(*said, *(where or ("--out", named())))


def named() -> Path:
    """The folder of the evidence as a command names it: from the working directory where it lies below."""
    place = folder()
    return place.relative_to(here) if place.is_relative_to(here := Path.cwd()) else place


def load(where=None) -> list[Record]:
    """Every record in a folder (default: the evidence), by name; or those given, as a list: one, several, rows of `records`."""
    if where is None or isinstance(where, str | os.PathLike):
        return [read(path) for path in listed(there(where) if where else folder(), "*.json")]
    given = getattr(where, "record", where)  # a DataFrame's column
    found = list(given) if isinstance(given, Iterable) else [given]
    if alien := [one for one in found if not isinstance(one, Record)]:
        raise ValueError(f"{reprlib.repr(alien[0])} is no record: give a folder of records, records, or rows of records().")
    return found


def records(where=None) -> "pd.DataFrame":
    """One row a run of a folder (default: the evidence), or of records as `load`.

    Columns: the recipe's fields, the final values, best_on_test, seconds, commit, dirty, n test images."""
    import pandas as pd

    rows = [
        {"name": r.name, "recipe_id": r.recipe_id, "net": r.recipe.net_name, **r.recipe.as_dict(),
         "shortcut": r.recipe.shortcut or "none", **r.final,
         "best_test_error": r.best_on_test["test_error"], "seconds": r.time["seconds"], "date": r.time["start"][:10],
         "device": r.environment["device"], "commit": r.environment["commit"], "dirty": r.environment["dirty"],
         "record": r}
        for r in load(where)
    ]  # fmt: skip
    columns = ["name", "recipe_id", "net", *Recipe().as_dict(), "train_error", "test_error", "dirty", "record"]
    return pd.DataFrame(rows) if rows else pd.DataFrame(columns=columns)


def curves(where=None) -> "pd.DataFrame":
    """One row a logged step of every run: name, net, depth, shortcut, scale, seed and the columns of a curve."""
    import pandas as pd

    frames = [
        r.frame().assign(name=r.name, net=r.recipe.net_name, depth=r.recipe.depth, shortcut=r.recipe.shortcut or "none",
                         scale=r.recipe.scale, seed=r.recipe.seed)
        for r in load(where)
    ]  # fmt: skip
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(columns=["name", *COLUMNS])
