"""Weights in files: a run's own, kept beside its record as NAME.safetensors, and those of others, in whatever wrapper.

No code of a file is ever run.
"""

import json
import re
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import Tensor, nn

from .files import renamed
from .recipes import Recipe

SUFFIXES = (".bin", ".ckpt", ".model", ".pkl", ".pt", ".pth", ".safetensors", ".tar", ".th")
WRAPPERS = ("state_dict", "model_state_dict", "model_state", "model", "net", "network", "weights", "params")
PROFILED = ("total_ops", "total_params", "num_batches_tracked")  # what else may lie in every module
BEST = ("best_prec1", "best_acc1", "best_acc")  # a checkpoint's own note: best test accuracy, in percent or as a fraction
SAFE = [Namespace, np.ndarray, np.dtype, *(type(np.dtype(kind)) for kind in "?bhilBHILefd")] + [
    (data.__reduce__()[0], f"numpy.{core}.multiarray.{name}")
    for core in ("core", "_core") for data, name in ((np.float64(0), "scalar"), (np.zeros(0), "_reconstruct"))
]  # fmt: skip
"""What lies beside weights in many a checkpoint, and is no code: numbers of NumPy's, a command line's options."""


def write_weights(net: nn.Module, recipe: Recipe, path: Path) -> None:
    """Parameters and buffers as safetensors, the recipe and any `net.classes` in the header; after a crash, old or new."""
    tensors = {name: t.detach().cpu().contiguous() for name, t in net.state_dict().items()}
    note = {"recipe": recipe.as_dict(), "classes": getattr(net, "classes", None)}
    data = save(tensors, {"format": "pt"} | {name: json.dumps(value) for name, value in note.items() if value})
    with renamed(path) as file:
        file.write(data)


def recipe_of(path: Path) -> Recipe | None:
    """The recipe whose run left a .safetensors file; None if none is named in it."""
    if path.suffix != ".safetensors":
        return None
    try:
        with safe_open(path, "pt") as file:
            note = (file.metadata() or {}).get("recipe")
        return note and Recipe.from_dict(json.loads(note))
    except (SafetensorError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is damaged, or of another version of reslib: {error}") from None


def trained_net(recipe: Recipe, path: Path) -> nn.Module:
    """The recipe's net with the weights of its run, in test mode; `classes`: of a run on photographs, their names.

    Raises ValueError, naming the file, if they do not fit.
    """
    try:
        tensors = load_file(path)
        net = recipe.net(len(tensors["fc.bias"]))
        with safe_open(path, "pt") as file:
            net.classes = json.loads((file.metadata() or {}).get("classes", "null"))
        net.load_state_dict(tensors)
    except (SafetensorError, KeyError, RuntimeError, TypeError, ValueError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise ValueError(f"{path} does not hold the weights of {recipe.name}: {reason}") from None
    return net.eval()


def read_weights(path: Path) -> tuple[dict[str, Tensor], float | None]:
    """The parameters and BN statistics of a file, float32, by name, in its order; its best test error in percent, or None.

    A wrapper such as {"state_dict": ...} and prefixes common to all names ("module.") are taken off. Raises ValueError,
    naming the file, if it is damaged or holds anything but finite tensors.
    """
    try:
        with torch.serialization.safe_globals(SAFE):
            found = load_file(path) if path.suffix == ".safetensors" else torch.load(path, "cpu", weights_only=True)
    except FileNotFoundError:
        raise FileNotFoundError(f"{path} is no file: give a file of weights.") from None
    except Exception as error:  # whatever damage makes torch or safetensors raise
        named = re.search(r"GLOBAL (\S+)", str(error))
        words = "it is damaged, or no such file" if isinstance(error, KeyError) else str(error).strip()
        reason = f"it calls {named[1]}" if named else re.split(r"\n|\. ", words)[0] or type(error).__name__
        raise ValueError(f"{path} holds no weights that can be read without running its code: {reason}") from None
    best = None
    if isinstance(found, Mapping):
        accuracy = next((float(found[key]) for key in BEST if isinstance(found.get(key), int | float)), None)
        best = None if accuracy is None else round(100 - accuracy * (100 if accuracy <= 1 else 1), 4)
        found = next((found[key] for key in WRAPPERS if isinstance(found.get(key), Mapping)), found)
    if not isinstance(found, Mapping) or not found or not all(isinstance(t, Tensor) for t in found.values()):
        raise ValueError(f"{path} holds no state dict: a mapping of names to tensors, alone or under {', '.join(WRAPPERS)}.")
    tensors = {name: t.float() for name, t in found.items() if t.is_floating_point() and not name.endswith(PROFILED)}
    while len({name.partition(".")[0] for name in tensors}) == 1 and all("." in name for name in tensors):
        tensors = {name.partition(".")[2]: t for name, t in tensors.items()}
    if not all(t.isfinite().all() for t in tensors.values()):
        raise ValueError(f"{path} holds NaN or infinity.")
    return tensors, best
