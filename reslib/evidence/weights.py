"""Published weights in reslib's own CIFAR nets: tensors matched, the zero channels of option A put last."""

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from ..resnet import ZeroPadding, cifar_resnet


def fitted(tensors: dict[str, Tensor], depth: int, shortcut: str | None) -> nn.Module | None:
    """reslib's net with these weights, matched by name or, if the names differ, by order; None if they do not fit."""
    net = cifar_resnet(depth, shortcut)
    own = {name: t for name, t in net.state_dict().items() if t.dim()}
    names = own if tensors.keys() == own.keys() else tensors
    form = [(name.rpartition(".")[2], tensors[name].shape) for name in names]
    if form != [(name.rpartition(".")[2], t.shape) for name, t in own.items()]:
        return None
    net.load_state_dict({to: tensors[name] for to, name in zip(own, names, strict=True)}, strict=False)
    return net.eval()


def readings(tensors: dict[str, Tensor]) -> Iterator[tuple[str | None, str | None, nn.Module]]:
    """Every (shortcut, zero channels of option A, net) that the weights fit. Raises ValueError if there is none.

    Plain nets and those of option A have the same tensors, wherever the latter's zero channels are.
    """
    depth = 1 + sum(t.dim() == 4 and t.shape[2:] == (3, 3) for t in tensors.values())  # and the classifier
    fits = 0
    for shortcut in ("A", None, "B", "C") if depth >= 8 and depth % 6 == 2 else ():
        if net := fitted(tensors, depth, shortcut):
            fits += 1
            yield shortcut, "last" if shortcut == "A" else None, net
            if shortcut == "A":
                yield shortcut, "around", zeros_last(fitted(tensors, depth, shortcut))
    if not fits:
        raise ValueError(f"fits no CIFAR net of reslib: {len(tensors)} tensors, {depth - 1} 3x3 convolutions")


@torch.no_grad()
def zeros_last(net: nn.Module) -> nn.Module:
    """Permute channels so that a net trained with half of option A's zero channels on each side computes the same here.

    reslib appends all zero channels after the copied ones. In place: `order[j]` is the channel that becomes the j-th of the
    residual stream; channels inside a block stay where they are.
    """
    order = torch.arange(net.conv1.out_channels)
    for block in (*net.layer1, *net.layer2, *net.layer3):
        block.conv1.weight.copy_(block.conv1.weight[:, order])
        if isinstance(block.downsample, ZeroPadding):
            half = (block.downsample.channels - len(order)) // 2
            copied = half + len(order)
            order = torch.cat([half + order, torch.arange(half), torch.arange(copied, copied + half)])
        for tensor in (block.conv2.weight, *block.bn2.state_dict().values()):
            if tensor.dim():
                tensor.copy_(tensor[order])
    net.fc.weight.copy_(net.fc.weight[:, order])
    return net
