"""Testing a net: error and loss over batches, a run's final passes, BN statistics recomputed, ImageNet's crops and scales."""

import copy
from collections.abc import Iterable, Iterator
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, cross_entropy, interpolate, relu

from . import data, probes
from .recipes import Recipe

BATCH = 1_000  # images of a pass on a GPU; a CPU takes the recipe's batch
SIDES = (224, 256, 384, 480, 640)  # pixels: the shorter sides of the multi-scale test (section 3.4)


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


def whole(recipe: Recipe, split: str, device: torch.device, data_dir=None):
    """All images of a split, not augmented, in their order, by the array backend: the same bits as from any other."""
    wide = {} if device.type == "cpu" else {"batch": BATCH, "bn_batch": None}
    return data.loader(replace(recipe, **wide), split, data_dir=data_dir, augment=False, backend="array", device=device)


def final_passes(net: nn.Module, recipe: Recipe, data_dir=None) -> tuple[dict, Tensor]:
    """A trained net's errors (percent) and losses (nats), and the classes (N,) that it predicts of the test images.

    train_*: a clean pass over the training images; *_recomputed_bn: with BN statistics recomputed over these;
    identity_extension: a plain net of less than EXTENDED_DEPTH layers extended to it (C21).
    """
    train, test, *val = (
        whole(recipe, split, _device(net), data_dir) for split in ("train", "test", *(["val"] if recipe.split != "50k" else []))
    )
    logits, labels = predict(net, test)
    tested, trained, recomputed = score(logits, labels), evaluate(net, train), evaluate(recomputed_bn(net, train), test)
    final = {
        "train_error": trained["top1_error"], "train_loss": trained["loss"],
        "test_error": tested["top1_error"], "test_loss": tested["loss"],
        "test_error_recomputed_bn": recomputed["top1_error"], "test_loss_recomputed_bn": recomputed["loss"],
    }  # fmt: skip
    if val:
        final["val_error"] = evaluate(net, val[0])["top1_error"]
    if recipe.shortcut is None and recipe.layers == 2 and recipe.depth < probes.EXTENDED_DEPTH:
        deep = probes.extend_by_identity(net, probes.EXTENDED_DEPTH)
        final["identity_extension"] = {
            "depth": probes.EXTENDED_DEPTH,
            "train_error": evaluate(deep, train)["top1_error"],
            "logit_difference": (predict(deep, test)[0] - logits).abs().max().item(),
        }
    return final, logits.argmax(1)


# --- ImageNet (section 3.4) ------------------------------------------------------------------------------------------


def shorter(image: Tensor, side: int) -> Tensor:
    """An image whose shorter side is resized to `side`, antialiased: uint8 (3, H, W) -> float32 in [0, 1]."""
    from torchvision.transforms.v2.functional import resize

    return resize(image, [side], antialias=True).float() / 255


def square(image: Tensor, side: int) -> Tensor:
    """The middle side x side pixels of (3, H, W), half pixels rounded down."""
    top, left = ((n - side) // 2 for n in image.shape[1:])
    return image[:, top : top + side, left : left + side]


def ten_crop(image: Tensor, size: int, mean: Tensor | float = 0.0) -> Tensor:
    """Corners and middle of (3, H, W), minus the mean (3, size, size); then their mirror images: (10, 3, size, size)."""
    height, width = image.shape[1:]
    places = [(0, 0), (0, width - size), (height - size, 0), (height - size, width - size)]
    crops = [image[:, y : y + size, x : x + size] for y, x in places] + [square(image, size)]
    crops = torch.stack(crops) - mean
    return torch.cat([crops, crops.flip(3)])


def score_map(net: nn.Module, x: Tensor) -> Tensor:
    """A ResNet in fully convolutional form, its last layer a 1x1 convolution: (B, 3, H, W) -> scores (B, classes, h, w)."""
    x = net.maxpool(relu(net.bn1(net.conv1(x))))
    for stage in range(1, net.stages + 1):
        x = getattr(net, f"layer{stage}")(x)
    return conv2d(x, net.fc.weight[:, :, None, None], net.fc.bias)


@torch.inference_mode()
def probabilities(net: nn.Module, image: Tensor, mean: Tensor, how: str) -> Tensor:
    """Class probabilities (classes,) of one photograph, uint8 (3, H, W), whose mean image is (3, 224, 224).

    how: "centre" crop; "ten": the crops of AlexNet, out of the middle 256x256 pixels at a shorter side of 256, probabilities
    averaged; "scales": the whole image at the shorter sides SIDES, the score map averaged at each, then the probabilities.
    """
    size, device = mean.shape[1], _device(net)
    if how == "scales":
        views = (shorter(image, side) for side in SIDES)
        views = (x - interpolate(mean[None], x.shape[1:], mode="bilinear")[0] for x in views)
        return torch.stack([score_map(net, x[None].to(device)).mean((2, 3)).softmax(1)[0] for x in views]).mean(0)
    image = square(shorter(image, 256), 256) if how == "ten" else shorter(image, 256)
    crops = ten_crop(image, size, mean) if how == "ten" else (square(image, size) - mean)[None]
    return net(crops.to(device)).softmax(1).mean(0)


def photograph_batches(net: nn.Module, data_dir=None, how: str = "centre") -> Iterator[tuple[Tensor, Tensor]]:
    """Logarithms of `probabilities` (1, classes) and label (1,) of every validation photograph of an ImageFolder tree."""
    from .data import photographs

    folder = photographs.folder_of(data_dir)
    images, mean = photographs.source(folder, "val"), torch.from_numpy(photographs.statistics(folder)[0]).permute(2, 0, 1)
    for name, label in zip(images.names, images.labels, strict=True):
        scores = probabilities(net, photographs.decoded(images.folder / name), mean, how)
        yield scores.log()[None].float().cpu(), torch.tensor([label])


def evaluate_photographs(net: nn.Module, data_dir=None, how: str = "centre") -> dict[str, float]:
    """As `evaluate`, over the validation photographs of an ImageFolder tree, decoded one by one. how: see `probabilities`.

    Raises ValueError for an unknown `how`; FileNotFoundError for no tree.
    """
    if how not in ("centre", "ten", "scales"):
        raise ValueError(f"how is {how!r}: test by 'centre', 'ten' crops, or 'scales'.")
    training = net.training
    net.eval()
    try:
        logits, labels = zip(*photograph_batches(net, data_dir, how), strict=True)
    finally:
        net.train(training)
    return score(torch.cat(logits), torch.cat(labels))
