"""Testing a net: error and loss over batches, and BN statistics recomputed as true averages."""

import copy
from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy


def _device(model: nn.Module) -> torch.device:
    return next((p.device for p in model.parameters()), torch.device("cpu"))


@torch.inference_mode()
def predict(model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """Logits (N, classes) and labels (N,) of all batches, on the CPU, in test mode; the model's mode is restored."""
    device, training = _device(model), model.training
    model.eval()
    try:
        pairs = [(model(x.to(device)).float().cpu(), y.cpu()) for x, y in batches]
    finally:
        model.train(training)
    if not pairs:
        raise ValueError("there is nothing to evaluate: the batches are empty.")
    logits, labels = zip(*pairs, strict=True)
    return torch.cat(logits), torch.cat(labels)


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
