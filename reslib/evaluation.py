"""Testing a net: error and loss over batches, a run's final passes, BN statistics recomputed, ImageNet's crops and scales."""

import copy
from collections.abc import Iterable
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, cross_entropy, interpolate, relu

from . import data, probes
from .recipes import Recipe

BATCH = 1_000  # images of a pass on a GPU; a CPU takes the recipe's batch
SIDES = (224, 256, 384, 480, 640)  # pixels: the shorter sides of the multi-scale test (section 3.4)
HOW = {"centre": 1, "ten": 10, "scales": 10}  # ways to test photographs, and about how many crops' work each is
LONGEST = 20  # times its shorter side: a photograph that is still tested whole


def _device(model: nn.Module) -> torch.device:
    return next((p.device for p in model.parameters()), torch.device("cpu"))


@torch.inference_mode()
def predict(model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """Logits (N, classes) and labels (N,) of all batches, on the CPU, in test mode; the model's mode is restored."""
    device, training = _device(model), model.training
    model.eval()
    try:
        pairs = [(model(x.to(device)).float(), y) for x, y in batches]  # a GPU is not waited for
    finally:
        model.train(training)
    if not pairs:
        raise ValueError("there is nothing to evaluate: the batches are empty.")
    logits, labels = zip(*pairs, strict=True)
    return torch.cat(logits).cpu(), torch.cat(labels).cpu()


def score(logits: Tensor, labels: Tensor) -> dict[str, float]:
    """{"top1_error": percent, "top5_error": percent, "loss": nats, "n": images} of logits (N, classes), labels (N,)."""
    best = logits.topk(min(5, logits.shape[1]), dim=1).indices  # (N, 5)
    right = best == labels[:, None]
    n = len(labels)
    return {
        "top1_error": 100 * (1 - right[:, 0].sum().item() / n),
        "top5_error": 100 * (1 - right.any(1).sum().item() / n),
        "loss": cross_entropy(logits.double(), labels).item(),
        "n": n,
    }


def evaluate(model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]]) -> dict[str, float]:
    """Error and loss of a model over any batches of (images, labels), already normalised, as they come.

    Returns {"top1_error": percent, "top5_error": percent, "loss": nats, "n": images}. Raises ValueError if there are none.
    """
    return score(*predict(model, batches))


@torch.no_grad()
def recomputed_bn(model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]]) -> nn.Module:
    """A copy of the model whose BN statistics are true averages over `batches`, not moving ones (authors' release notes)."""
    model = copy.deepcopy(model).train()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.reset_running_stats()
            module.momentum = None  # cumulative average
    device = _device(model)
    for x, _ in batches:
        model(x.to(device))
    return model.eval()


def whole(recipe: Recipe, split: str, device: torch.device, data_dir=None, backend: str = "array", workers: int = 1,
          shard: tuple[int, int] = (0, 1)):  # fmt: skip
    """All images of a split, not augmented, in their order; CIFAR's by the array backend: the same bits as from any other."""
    wide = {} if device.type == "cpu" or recipe.data == "imagenet" else {"batch": BATCH, "bn_batch": None}
    where = dict(data_dir=data_dir, backend=backend, device=device, workers=workers, shard=shard)
    return data.loader(replace(recipe, **wide), split, augment=False, **where)


def final_passes(net: nn.Module, recipe: Recipe, data_dir=None, **reading) -> tuple[dict, Tensor]:
    """A trained net's errors (percent) and losses (nats), and the classes (N,) that it predicts of the test images.

    train_*: a clean pass over the training images; *_recomputed_bn: with BN statistics recomputed over these;
    identity_extension: a plain CIFAR net of less than EXTENDED_DEPTH layers extended to it (C21). reading: backend and workers
    for photographs, whose test images are those of val; theirs is test_top5_error too.
    """
    splits, photographs = ["train", "test"] + ["val"] * (recipe.split != "50k"), recipe.data == "imagenet"
    train, test, *val = (whole(recipe, split, _device(net), data_dir, **reading) for split in splits)
    mixed = train  # CIFAR's order has the classes mixed, a tree's has not
    if photographs:
        mixed = data.loader(recipe, "train", data_dir=data_dir, device=_device(net), **reading)
    logits, labels = predict(net, test)
    tested, trained, recomputed = score(logits, labels), evaluate(net, train), evaluate(recomputed_bn(net, mixed), test)
    final = {
        "train_error": trained["top1_error"], "train_loss": trained["loss"],
        "test_error": tested["top1_error"], "test_loss": tested["loss"],
        "test_error_recomputed_bn": recomputed["top1_error"], "test_loss_recomputed_bn": recomputed["loss"],
    }  # fmt: skip
    if val:
        final["val_error"] = evaluate(net, val[0])["top1_error"]
    if photographs:
        final["test_top5_error"] = tested["top5_error"]
    elif recipe.shortcut is None and recipe.layers == 2 and recipe.depth < probes.EXTENDED_DEPTH:
        deep = probes.extend_by_identity(net, probes.EXTENDED_DEPTH)
        final["identity_extension"] = {
            "depth": probes.EXTENDED_DEPTH,
            "train_error": evaluate(deep, train)["top1_error"],
            "logit_difference": (predict(deep, test)[0] - logits).abs().max().item(),
        }
    return final, logits.argmax(1)


# --- ImageNet (section 3.4) ------------------------------------------------------------------------------------------


class Entry(NamedTuple):
    """A net that is tested on photographs, and the pixels that it was trained on: (x - mean) / std of x in [0, 1]."""

    name: str
    net: nn.Module
    mean: Tensor  # (3, size, size): the mean image; or (3, 1, 1): of each channel
    std: Tensor | float = 1.0  # (3, 1, 1)
    size: int = 224  # pixels of a crop; what follows is given for 224, and in proportion for others


def known(how: str) -> str:
    """The way to test, if it is one. Raises ValueError."""
    if how not in HOW:
        raise ValueError(f"how is {how!r}: test by 'centre', 'ten' crops, or 'scales'.")
    return how


def resized(image: Tensor, side: int) -> Tensor:
    """An image whose shorter side is resized to `side`, antialiased: uint8 (3, H, W) -> uint8 (3, h, w)."""
    from torchvision.transforms.v2.functional import resize

    return resize(image, [side], antialias=True)


def shorter(image: Tensor, side: int) -> Tensor:
    """As `resized`, but float32 in [0, 1]."""
    return resized(image, side).float() / 255


def square(image: Tensor, side: int) -> Tensor:
    """The middle side x side pixels of (..., H, W), half pixels rounded down."""
    top, left = ((n - side) // 2 for n in image.shape[-2:])
    return image[..., top : top + side, left : left + side]


def ten_crop(image: Tensor, size: int, mean: Tensor | float = 0.0) -> Tensor:
    """Corners and middle of (..., 3, H, W), minus the mean (3, size, size); then these mirrored: (10, ..., 3, size, size)."""
    height, width = image.shape[-2:]
    places = [(0, 0), (0, width - size), (height - size, 0), (height - size, width - size)]
    crops = [image[..., y : y + size, x : x + size] for y, x in places] + [square(image, size)]
    crops = torch.stack(crops) - mean
    return torch.cat([crops, crops.flip(-1)])


def score_map(net: nn.Module, x: Tensor) -> Tensor:
    """A ResNet in fully convolutional form, its last layer a 1x1 convolution: (B, 3, H, W) -> scores (B, classes, h, w)."""
    x = net.maxpool(relu(net.bn1(net.conv1(x))))
    for stage in range(1, net.stages + 1):
        x = getattr(net, f"layer{stage}")(x)
    return conv2d(x, net.fc.weight[:, :, None, None], net.fc.bias)


def views(image: Tensor, how: str, size: int = 224) -> list[Tensor]:
    """What a test takes from a photograph, uint8 (3, H, W), for crops of `size`: at a shorter side of 256 the "centre" crop,
    or for "ten" the middle 256x256 pixels; "scales": the whole photograph at each of SIDES.

    Raises ValueError if it is too long for that.
    """
    sides = [round(side * size / 224) for side in (SIDES if how == "scales" else (256,))]
    if how != "scales":
        return [square(resized(image, sides[0]), size if how == "centre" else sides[0])]
    if max(image.shape[1:]) > LONGEST * min(image.shape[1:]):
        raise ValueError(f"it is {image.shape[2]} x {image.shape[1]} pixels, too long to be tested whole: use how='ten'.")
    return [resized(image, side) for side in sides]


def crop_probabilities(entry: Entry, squares: Tensor, how: str) -> Tensor:
    """Class probabilities (B, classes) of `views` in [0, 1], (B, 3, S, S): of the "centre" crop; of "ten" crops, averaged."""
    size, mean, std = entry.size, entry.mean.to(squares.device), torch.as_tensor(entry.std, device=squares.device)
    crops = ten_crop(squares, size, mean) if how == "ten" else (squares - mean)[None]
    x = (crops / std).flatten(0, 1).contiguous(memory_format=torch.channels_last)  # (k B, 3, size, size)
    return entry.net(x).softmax(1).view(len(crops), len(squares), -1).mean(0)


def whole_probabilities(entry: Entry, images: list[Tensor], device: torch.device) -> Tensor:
    """Class probabilities (B, classes) of whole photographs, uint8, the score map averaged; equal shapes go together."""
    found, std = [None] * len(images), torch.as_tensor(entry.std, device=device)
    for shape in {image.shape for image in images}:
        where = [i for i, image in enumerate(images) if image.shape == shape]
        x, mean = torch.stack([images[i] for i in where]).to(device) / 255, entry.mean.to(device)
        if mean.shape[1] > 1:
            mean = interpolate(mean[None], shape[1:], mode="bilinear")[0]
        x = ((x - mean) / std).contiguous(memory_format=torch.channels_last)
        for i, row in zip(where, score_map(entry.net, x).mean((2, 3)).softmax(1), strict=True):
            found[i] = row
    return torch.stack(found)


def batch_probabilities(entry: Entry, batch: list[list[Tensor]], how: str) -> Tensor:
    """Class probabilities (B, classes) of the `views` of B photographs; "scales": averaged over them."""
    device = _device(entry.net)
    if how == "scales":
        return torch.stack([whole_probabilities(entry, one, device) for one in map(list, zip(*batch, strict=True))]).mean(0)
    return crop_probabilities(entry, torch.stack([one[0] for one in batch]).to(device) / 255, how)


@torch.inference_mode()
def probabilities(net: nn.Module, image: Tensor, mean: Tensor, how: str) -> Tensor:
    """Class probabilities (classes,) of one photograph, uint8 (3, H, W), whose mean image is (3, size, size).

    how: "centre" crop; "ten": the crops of AlexNet, out of the middle 256x256 pixels at a shorter side of 256, probabilities
    averaged; "scales": the whole image at the shorter sides SIDES, the score map averaged at each, then the probabilities.
    """
    entry = Entry("", net, mean, size=mean.shape[1])
    return batch_probabilities(entry, [views(image, how, entry.size)], how)[0]


def evaluate_photographs(net: nn.Module, data_dir=None, how: str = "centre") -> dict[str, float]:
    """As `evaluate`, over the validation photographs of an ImageFolder tree, minus the mean image. how: see `probabilities`.

    Raises ValueError for an unknown `how`; FileNotFoundError for no tree.
    """
    from .data import photographs
    from .testing import tree_probabilities

    known(how)
    folder = photographs.folder_of(data_dir)
    images, mean = photographs.source(folder, "val"), torch.from_numpy(photographs.statistics(folder)[0]).permute(2, 0, 1)
    found = tree_probabilities([Entry("", net, mean)], images, how)[0]
    return score(found.log(), torch.from_numpy(images.labels))
