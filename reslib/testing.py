"""python -m reslib test: Tables 3, 4 and 5's columns for a run's weights, any in torchvision's names, or torchvision's own.

A net of the paper's is tested on pixels minus the mean image of the tree's training photographs, as it was trained; others on
torchvision's, (x - mean) / std of each channel. Intervals are over images, not over training runs.
"""

import sys
from contextlib import redirect_stdout
from importlib import resources
from pathlib import Path
from textwrap import shorten
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate
from torchvision.transforms.v2.functional import center_crop, resize
from tqdm.auto import tqdm

from . import evaluation
from .data import photographs
from .data.cifar import from_workers
from .data.tree import Tree, decoded
from .evaluation import score_map, ten_crop
from .files import drawing_seconds, path_of, say
from .machine import cores, device_of
from .recipes import Recipe
from .resnet import IMAGENET_NETS, Bottleneck, imagenet_resnet
from .weights import read_weights, recipe_of, trained_net

MEAN, STD = (torch.tensor(x)[:, None, None] for x in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))  # torchvision's
HOW = ("centre", "ten", "scales")  # ways to test photographs
LONGEST = 20  # times its shorter side: a photograph that is still tested whole


class Entry(NamedTuple):
    """A net that is tested on photographs, and the pixels that it was trained on: (x - mean) / std of x in [0, 1]."""

    name: str
    net: nn.Module
    mean: Tensor  # (3, size, size): the mean image; or (3, 1, 1): of each channel
    std: Tensor | float = 1.0  # (3, 1, 1)
    size: int = 224  # pixels of a crop; what follows is given for 224, and in proportion for others


# --- which net -------------------------------------------------------------------------------------------------------


def torchvision_net(name: str) -> nn.Module:
    """torchvision's own weights, from torch's cache or its server: "resnet50", or of one recipe "resnet50:IMAGENET1K_V2".

    Without a recipe its first, V1: the nearest to the paper's.
    """
    from torchvision.models import get_model_weights

    known = {f"resnet{n}:{one.name}": (n, one) for n in IMAGENET_NETS for one in get_model_weights(f"resnet{n}")}
    if (full := name if ":" in name else f"{name}:IMAGENET1K_V1") not in known:
        raise ValueError(f"torchvision:{name} is unknown: use one of {', '.join(known)}.")
    depth, weights = known[full]
    try:
        with redirect_stdout(sys.stderr):  # torch says there what it downloads
            tensors = weights.get_state_dict(progress=False, check_hash=True)
    except (OSError, RuntimeError) as error:  # a wrong hash is a RuntimeError
        raise OSError(f"torchvision:{name} is not in {torch.hub.get_dir()}/checkpoints, and could not be fetched ({error}): "
                      f"put {weights.url} there.") from None  # fmt: skip
    net = imagenet_resnet(depth, "B", stride_on="3x3")
    net.load_state_dict(tensors)
    return net


def file_net(path: Path, shortcut: str | None = "A", stride_on: str = "3x3") -> nn.Module:
    """The net of Table 1 that a state dict in torchvision's names belongs to, with its weights.

    What tensors do not tell is said: without projections it is option A's, or with shortcut=None the plain net's; bottlenecks
    have their stride where `stride_on` says.
    """
    tensors, _ = read_weights(path)
    blocks = tuple(len({n.split(".")[1] for n in tensors if n.startswith(f"layer{i}.")}) for i in range(1, 5))
    bottleneck = "layer1.0.conv3.weight" in tensors
    kinds = {(block is Bottleneck, n): depth for depth, (block, n) in IMAGENET_NETS.items()}
    if (bottleneck, blocks) not in kinds or "fc.weight" not in tensors:
        raise ValueError(f"{path} holds no net of Table 1 in torchvision's names (conv1.weight, layer1.0.conv1.weight, ...); "
                         "CIFAR nets of others are for `python -m reslib audit`.")  # fmt: skip
    projections = sum(name.endswith("downsample.0.weight") for name in tensors)
    option = "C" if projections == sum(blocks) else "B" if projections else shortcut
    if not projections:
        say(f"{path}: without projections: tested as {'a plain net' if shortcut is None else 'option A'}; --shortcut none is "
            "a plain net, --shortcut A option A.")  # fmt: skip
    if bottleneck:
        say(
            f"{path}: its bottlenecks are taken to have their stride in the {stride_on} convolution; the tensors do not tell, "
            "and the other net computes something else: --stride-on is 1x1 (the paper, v1) or 3x3 (torchvision, v1.5)."
        )
    net = imagenet_resnet(kinds[bottleneck, blocks], option, stride_on, num_classes=len(tensors["fc.weight"]))
    try:
        net.load_state_dict(tensors)
    except RuntimeError as error:  # torch's first line names no tensor
        raise ValueError(f"{path} fits no net of Table 1: {shorten(str(error).partition(':')[2], 200)}") from None
    return net


def own_file(weights: str) -> tuple[Path, Recipe | None]:
    """The file that `--weights` names, beside a record if it names that; and the recipe whose run left it, if one did."""
    path = path_of(weights)
    path = path.with_suffix(".safetensors") if path.suffix == ".json" else path
    if not path.is_file() and not weights.startswith("torchvision:"):
        raise FileNotFoundError(f"{path} is no file: give a file of weights.")
    return path, recipe_of(path) if path.is_file() else None


def entry(weights: str, folder: Path, pixels: str = "auto", **choices) -> Entry:
    """The net that `--weights` names, for photographs of the tree at `folder`. choices: as `file_net`.

    pixels: "mean" image of the training photographs, "torchvision", or "auto": the first for a record's weights.
    """
    if pixels not in ("auto", "mean", "torchvision"):
        raise ValueError(f"pixels is {pixels!r}: use auto, mean, or torchvision.")
    scheme, _, name = weights.partition(":")
    recipe, size = None, 224
    if scheme == "torchvision" and name:
        net = torchvision_net(name)
    else:
        path, recipe = own_file(weights)
        name, size = path.stem, recipe.size if recipe else size
        net = trained_net(recipe, path) if recipe else file_net(path, **choices)
    if pixels == "torchvision" or (pixels == "auto" and recipe is None):
        return Entry(name, net.eval(), MEAN, STD)
    mean = photographs.resized(photographs.statistics(folder)[0], size)
    return Entry(name, net.eval(), torch.from_numpy(mean).permute(2, 0, 1), size=size)


def labels_for(images: Tree, classes: int, name: str, own: list[str] | None = None) -> Tensor:
    """The photographs' labels, int64 (N,), among a net's classes: the tree's own, or for a part of these the net's, by name.

    own: the names of the net's classes; None: of 1,000, ImageNet's.
    """
    labels = images.labels
    ids = own or resources.files("reslib.data").joinpath("imagenet_classes.txt").read_text().split()
    if classes == len(images.classes) == len(ids) and images.classes != ids:
        say(f"{images.folder}: its folders are not named as {name if own else 'ImageNet'}'s classes ({ids[0]}): they count as "
            "these in the order of their names.")  # fmt: skip
    if classes != len(images.classes):
        if classes != len(ids) or not set(images.classes) <= set(ids):
            raise ValueError(f"{name} tells {classes:,} classes apart and {images.folder} holds {len(images.classes)}: test "
                             "it on its own classes, or ImageNet's on folders named as ImageNet's (n01440764).")  # fmt: skip
        labels = np.array([ids.index(one) for one in images.classes])[labels]
    return torch.from_numpy(labels)


# --- its errors ------------------------------------------------------------------------------------------------------


def interval(error: float, n: int) -> str:
    """An error in percent and its 95 % interval over n images (Wilson, 1927): "24.70 [24.32, 25.08]"."""
    from statsmodels.stats.proportion import proportion_confint

    low, high = proportion_confint(round(error * n / 100), n, method="wilson")
    return f"{error:.2f} [{100 * low:.2f}, {100 * high:.2f}]"


def row(name: str, chances: Tensor, labels: Tensor) -> dict:
    """Of class probabilities (N, classes): a row of Tables 3 to 5."""
    found = evaluation.score(chances.log(), labels)
    errors = {f"top-{k} error, %": interval(found[f"top{k}_error"], found["n"]) for k in (1, 5)}
    return {"net": name, **errors, "images": found["n"]}


def test(weights: list[str], data_dir=None, how: str = "centre", device=None, **choices) -> list[dict]:
    """A row for each of `weights`, and of several one for their ensemble: softmax probabilities, averaged (Table 5).

    choices: as `entry`. All that is wrong with the weights, and how they go together, is said before any photograph is read.
    """
    if how not in HOW:
        raise ValueError(f"how is {how!r}: test by 'centre', 'ten' crops, or 'scales'.")
    device, recipes = device_of(device), [own_file(one) for one in weights]
    if any(recipe and recipe.data != "imagenet" for _, recipe in recipes):
        names, chances, labels = cifar_probabilities(recipes, data_dir, how, device)
    else:
        folder = photographs.folder_of(data_dir)
        images = photographs.tree(folder, "val")
        entries = [entry(one, folder, **choices) for one in weights]
        names = [one.name for one in entries]
        labels = [labels_for(images, one.net.fc.out_features, one.name, getattr(one.net, "classes", None)) for one in entries]
        if len({one.size for one in entries}) > 1 or any(not torch.equal(labels[0], one) for one in labels):
            raise ValueError("the nets do not tell the same classes apart, or not on crops of one size, as an ensemble has to: "
                             "test them one by one.")  # fmt: skip
        labels = labels[0]
        for one in entries:
            one.net.to(device, memory_format=torch.channels_last)
        chances = tree_probabilities(entries, images, how)
    rows = [row(name, one, labels) for name, one in zip(names, chances, strict=True)]
    return rows + [row(f"ensemble of {len(names)}", torch.stack(chances).mean(0), labels)] * (len(names) > 1)


def table(rows: list[dict]) -> str:
    """`test`'s rows as Markdown, and what the intervals are."""
    from tabulate import tabulate

    note = "In brackets: 95 % intervals over images (Wilson); how much training runs differ is not in them."
    return f"{tabulate(rows, headers='keys', tablefmt='github')}\n\n{note}"


def cifar_probabilities(files: list[tuple[Path, Recipe | None]], data_dir, how: str, device):
    """Names, class probabilities (N, 10) and labels (N,) of our CIFAR nets on the test images, the single view."""
    if how != "centre":
        raise ValueError(f"how is {how!r}: CIFAR nets are tested on the single view of each image, 'centre'.")
    if len({(recipe.data, recipe.size) if recipe else None for _, recipe in files}) > 1:
        raise ValueError("the nets are of different images: an ensemble needs the same. Test them one by one.")
    chances = []
    for path, recipe in files:
        net = trained_net(recipe, path).to(device)
        logits, labels = evaluation.predict(net, evaluation.whole(recipe, "test", device, data_dir))
        chances.append(logits.softmax(1))
    return [path.stem for path, _ in files], chances, labels


class _Views(torch.utils.data.Dataset):
    """What a test takes from each photograph, uint8: at a shorter side of 256 the "centre" crop of `size`, or for "ten" the
    middle 256x256 pixels; for "scales" the whole at each of evaluation.SIDES.
    """

    def __init__(self, images: Tree, how: str, size: int):
        self.images, self.how, self.size = images, how, size

    def __len__(self) -> int:
        return len(self.images.names)

    def __getitem__(self, i: int) -> list[np.ndarray]:
        """As arrays: of a tensor that a worker makes the process keeps a file open, and it may have a thousand or so."""
        path = self.images.folder / self.images.names[i]
        image, side = decoded(path), round(256 * self.size / 224)
        if self.how != "scales":
            middle = side if self.how == "ten" else self.size
            return [center_crop(resize(image, [side]), [middle, middle]).numpy()]
        tall, wide = image.shape[1:]
        if max(tall, wide) > LONGEST * min(tall, wide):
            raise ValueError(f"{path} is {wide} x {tall} pixels, too long to be tested whole: use how='ten'.")
        return [resize(image, [round(side * self.size / 224)]).numpy() for side in evaluation.SIDES]


def probabilities(entry: Entry, x: Tensor, how: str) -> Tensor:
    """Class probabilities (B, classes) of `_Views`, uint8 (B, 3, H, W): averaged over crops, or of the averaged score map."""
    device = next(entry.net.parameters()).device
    mean, std, x = entry.mean.to(device), torch.as_tensor(entry.std, device=device), x.to(device) / 255
    if how == "ten":
        views = ten_crop(x, entry.size, mean)  # (10, B, 3, size, size)
    else:
        mean = interpolate(mean[None], x.shape[2:], mode="bilinear")[0] if mean.shape[1] > 1 else mean
        views = (x - mean)[None]  # (1, B, 3, H, W)
    x = (views / std).flatten(0, 1).contiguous(memory_format=torch.channels_last)
    scores = score_map(entry.net, x).mean((2, 3)) if how == "scales" else entry.net(x)
    return scores.softmax(1).unflatten(0, views.shape[:2]).mean(0)


@torch.inference_mode()
def tree_probabilities(entries: list[Entry], images: Tree, how: str = "centre") -> list[Tensor]:
    """Of each net the class probabilities (N, classes), on the CPU, of all photographs of a tree, averaged over their views.

    The nets share the work of decoding; workers do it beside them.
    """
    cpu = all(next(entry.net.parameters()).device.type == "cpu" for entry in entries)
    workers = 0 if len(images.names) < 100 else max(1, cores() // 4) if cpu else min(cores(), 16)
    loader = from_workers(_Views(images, how, entries[0].size), 4 if cpu else 32, workers, collate_fn=list)
    found = [[] for _ in entries]
    bar = tqdm(total=len(images.names), desc=f"testing, {how}", unit="image", mininterval=drawing_seconds())
    with bar, torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        for batch in loader:
            views = [[torch.from_numpy(x)[None] for x in one] for one in batch]  # whole photographs have their own shapes
            if how != "scales":
                views = [[torch.cat([crop for (crop,) in views])]]
            for rows, entry in zip(found, entries, strict=True):
                rows += [torch.stack([probabilities(entry, x, how) for x in one]).mean(0).cpu() for one in views]
            bar.update(len(batch))
    return [torch.cat(rows) for rows in found]
