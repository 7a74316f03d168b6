"""Testing a net: error and loss over batches, a run's final passes, BN statistics recomputed, ImageNet's crops and scales."""

import copy
from collections.abc import Iterable, Iterator
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, cross_entropy
from torch.optim.swa_utils import update_bn

from . import data, probes
from .recipes import Recipe

BATCH = 1_000  # images of a pass on a GPU; a CPU takes the recipe's batch
SIDES = (224, 256, 384, 480, 640)  # pixels: the shorter sides of the multi-scale test (section 3.4)


def device_of_net(model: nn.Module) -> torch.device:
    return next((p.device for p in model.parameters()), torch.device("cpu"))


@torch.inference_mode()
def outputs(model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]]) -> Iterator[tuple[Tensor, Tensor]]:
    """Logits (B, classes) and labels (B,), batch by batch, on the model's device, in test mode; its mode is restored."""
    device, training = device_of_net(model), model.training
    model.eval()
    try:
        for batch in batches:  # a GPU is not waited for
            if not isinstance(batch, tuple | list) or len(batch) != 2:
                raise ValueError("a batch is a pair, (images, labels): a single one goes into a list, [(images, labels)].")
            x, labels = (torch.as_tensor(one, device=device) for one in batch)
            yield model(x).float(), labels
    finally:
        model.train(training)


def counts(logits: Tensor, labels: Tensor) -> Tensor:
    """Images whose class is the best; among the best five; the loss in nats, summed; images: float64 (4,)."""
    right = logits.topk(min(5, logits.shape[1]), dim=1).indices == labels[:, None]  # (N, 5)
    loss = cross_entropy(logits.double(), labels, reduction="sum")
    return torch.stack([right[:, 0].sum(), right.sum(), loss, torch.full_like(loss, len(labels))])


def summed(model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]]) -> Tensor:
    """`counts` over all batches, one by one: the logits of all of ImageNet would fill the memory."""
    nothing = torch.zeros(4, dtype=torch.float64, device=device_of_net(model))
    return sum((counts(*pair) for pair in outputs(model, batches)), nothing)


def means(sums: Tensor) -> dict[str, float]:
    best, among_five, loss, n = sums.tolist()
    return {"top1_error": 100 * (1 - best / n), "top5_error": 100 * (1 - among_five / n), "loss": loss / n, "n": int(n)}


def evaluate(model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]]) -> dict[str, float]:
    """Error and loss of a model over any batches of (images, labels), already normalised, as they come.

    Returns {"top1_error": percent, "top5_error": percent, "loss": nats, "n": images}. Raises ValueError for none, or no pairs.
    """
    sums = summed(model, batches)
    if not sums[-1]:
        raise ValueError("there is nothing to evaluate: the batches are empty.")
    return means(sums)


def predict(model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """Logits (N, classes) and labels (N,) of all batches, on the CPU."""
    logits, labels = zip(*outputs(model, batches), strict=True)
    return torch.cat(logits).cpu(), torch.cat(labels).cpu()


def score(logits: Tensor, labels: Tensor) -> dict[str, float]:
    """As `evaluate`, of logits (N, classes) and labels (N,)."""
    return means(counts(logits, labels))


def recomputed_bn(model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]]) -> nn.Module:
    """A copy of the model whose BN statistics are true averages over `batches`, not moving ones (authors' release notes)."""
    model = copy.deepcopy(model)
    update_bn(batches, model, device_of_net(model))
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
    train, test, *val = (whole(recipe, split, device_of_net(net), data_dir, **reading) for split in splits)
    mixed = train  # CIFAR's order has the classes mixed, a tree's has not
    if photographs:
        mixed = data.loader(recipe, "train", data_dir=data_dir, device=device_of_net(net), **reading)
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


def ten_crop(image: Tensor, size: int, mean: Tensor | float = 0.0) -> Tensor:
    """Corners and middle of (..., 3, H, W), minus the mean (3, size, size); then these mirrored: (10, ..., 3, size, size)."""
    from torchvision.transforms.v2.functional import five_crop

    crops = torch.stack(five_crop(image, [size, size])) - mean
    return torch.cat([crops, crops.flip(-1)])


def score_map(net: nn.Module, x: Tensor) -> Tensor:
    """A ResNet in fully convolutional form, its last layer a 1x1 convolution: (B, 3, H, W) -> scores (B, classes, h, w)."""
    return conv2d(net.features(x), net.fc.weight[:, :, None, None], net.fc.bias)
