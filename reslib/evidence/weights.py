"""Published weights in reslib's own CIFAR nets: tensors matched, the zero channels of option A put last."""

import re
from collections.abc import Iterator
from copy import deepcopy
from functools import partial
from os.path import commonprefix

import torch
from torch import Tensor, nn

from ..resnet import ZeroPadding, cifar_resnet


def units(tensors: dict[str, Tensor]) -> list[list[Tensor]]:
    """The tensors of each convolution with its BN, and of the classifier, in their order.

    Names alike but for their numbers are put in the order of these. A convolution's BN is the nearest by name, then that of the
    same number, then the next: of another size in a net that normalises before it convolves. A convolution's bias is taken off
    the mean of its BN.
    """
    alike, modules, seen = {}, {}, set()
    for name in sorted(tensors, key=lambda name: [part.zfill(9) for part in re.split(r"(\d+)", name)], reverse=True):
        alike.setdefault(re.sub(r"\d+", "", name), []).append(name)
    for name in [alike[re.sub(r"\d+", "", name)].pop() for name in tensors]:
        if (key := (tensors[name].data_ptr(), tensors[name].shape)) not in seen:  # one module may have two names
            modules.setdefault(name.rpartition(".")[0], {})[name.rpartition(".")[2]] = tensors[name]
        seen.add(key)
    place = {module: (module.split("."), re.findall(r"\d*$", module), i) for i, module in enumerate(modules)}
    convs = [module for module, own in modules.items() if "weight" in own and own["weight"].dim() == 4]
    bns = [module for module, own in modules.items() if "running_mean" in own]

    def kin(conv: str, bn: str) -> tuple:
        (path, number, i), (other, same, j) = place[conv], place[bn]
        return len(commonprefix([path, other])), number == same, j > i, -j

    for conv in sorted(convs, key=lambda module: -module.count(".")) if len(convs) == len(bns) else ():
        bns.remove(bn := max(bns, key=partial(kin, conv)))
        own, norm = modules[conv], modules.pop(bn)
        if "bias" in own and own["bias"].shape == norm["running_mean"].shape:
            norm["running_mean"] = norm["running_mean"] - own.pop("bias")
        modules[conv] = norm | {f"conv.{leaf}": t for leaf, t in own.items()}
    return [[own[leaf] for leaf in sorted(own)] for own in modules.values()]


@torch.no_grad()
def fitted(theirs: list[list[Tensor]], depth: int, shortcut: str | None) -> nn.Module | None:
    """reslib's net with these `units`, in their order among those of one shape; None if they do not fit."""
    net = cifar_resnet(depth, shortcut).eval()
    ours = units({name: t for name, t in net.state_dict().items() if t.dim()})
    ours, theirs = (sorted(these, key=lambda unit: [t.shape for t in unit]) for these in (ours, theirs))
    if [[t.shape for t in unit] for unit in ours] != [[t.shape for t in unit] for unit in theirs]:
        return None
    for to, unit in zip(ours, theirs, strict=True):
        for tensor, value in zip(to, unit, strict=True):
            tensor.copy_(value)
    return net


def readings(tensors: dict[str, Tensor]) -> Iterator[tuple[str | None, str | None, nn.Module]]:
    """Every (shortcut, zero channels of option A, net) that the weights fit. Raises ValueError if there is none.

    Plain nets and those of option A have the same tensors, wherever the latter's zero channels are.
    """
    fits, theirs = 0, units(tensors)
    depth = 1 + sum(any(t.shape[2:] == (3, 3) for t in unit) for unit in theirs)  # and the classifier
    for shortcut in ("A", None, "B", "C") if depth >= 8 and depth % 6 == 2 else ():
        if net := fitted(theirs, depth, shortcut):
            fits += 1
            yield shortcut, "last" if shortcut == "A" else None, net
            if shortcut == "A":
                yield shortcut, "around", zeros_last(fitted(theirs, depth, shortcut))
    if not fits:
        raise ValueError(
            "fits no CIFAR net of reslib (6n + 2 layers of 16, 32 and 64 filters, a BN after each convolution, 10 classes): "
            f"it has {depth - 1} 3x3 convolutions, {len(tensors)} tensors"
        )


@torch.no_grad()
def departures(net: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Nets of the same tensors that compute something else, and that reslib does not have: what weights cannot tell."""
    blue, late, pooled = deepcopy(net), deepcopy(net), deepcopy(net)
    blue.conv1.weight.copy_(blue.conv1.weight.flip(1))
    yield "the colours in the order blue, green, red", blue
    for block in (late.layer2[0], late.layer3[0]):
        block.conv1.stride, block.conv2.stride = (1, 1), (2, 2)
    yield "the strides on the second convolutions", late
    if net.layer2[0].downsample:
        for block in (pooled.layer2[0], pooled.layer3[0]):
            block.downsample = nn.Sequential(nn.AvgPool2d(2), nn.Upsample(scale_factor=2), block.downsample)
        yield "average pooling on the shortcuts", pooled


@torch.no_grad()
def zeros_last(net: nn.Module) -> nn.Module:
    """Permute channels, in place, so that a net trained with half of option A's zero channels on each side computes the same.

    `order[j]` is the channel that becomes the j-th of the residual stream; channels inside a block stay where they are.
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
