"""Published weights in reslib's own CIFAR nets: files read, tensors matched, the zero channels of option A put last."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from ..resnet import ZeroPadding, cifar_resnet

SUFFIXES = (".bin", ".ckpt", ".pt", ".pth", ".safetensors", ".tar", ".th")
WRAPPERS = ("state_dict", "model_state_dict", "model", "net", "weights", "params")
BEST = ("best_prec1", "best_acc1", "best_acc")  # a checkpoint's own note: best test accuracy, in percent or as a fraction
DTYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "I64": torch.int64}


def read_weights(path: Path) -> tuple[dict[str, Tensor], float | None]:
    """The parameters and BN statistics of a file, float32, by name, in its order; its best test error in percent, or None.

    A wrapper such as {"state_dict": ...} and prefixes common to all names ("module.") are taken off. No code of the file
    is run. Raises ValueError, naming the file, if it is damaged or holds anything but finite tensors.
    """
    try:
        if path.suffix == ".safetensors":
            found = read_safetensors(path)
        else:
            found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever damage makes torch or JSON raise
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise ValueError(f"{path} holds no weights that can be read without running its code: {reason}") from None
    best = None
    if isinstance(found, Mapping):
        accuracy = next((float(found[key]) for key in BEST if isinstance(found.get(key), int | float)), None)
        best = None if accuracy is None else round(100 - accuracy * (100 if accuracy <= 1 else 1), 4)
        found = next((found[key] for key in WRAPPERS if isinstance(found.get(key), Mapping)), found)
    if not isinstance(found, Mapping) or not found or not all(isinstance(t, Tensor) for t in found.values()):
        raise ValueError(f"{path} holds no state dict: a mapping of names to tensors, alone or under {', '.join(WRAPPERS)}.")
    while len({name.partition(".")[0] for name in found}) == 1 and all("." in name for name in found):
        found = {name.partition(".")[2]: t for name, t in found.items()}
    tensors = {name: t.float() for name, t in found.items() if t.dim()}  # no counters of batches
    if not all(t.isfinite().all() for t in tensors.values()):
        raise ValueError(f"{path} holds NaN or infinity.")
    return tensors, best


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file: the header's length in 8 bytes, the header in JSON, then the bytes."""
    raw = path.read_bytes()
    start = 8 + int.from_bytes(raw[:8], "little")
    tensors = {}
    for name, note in json.loads(raw[8:start]).items():
        if name != "__metadata__":
            first, last = note["data_offsets"]
            values = torch.frombuffer(bytearray(raw[start + first : start + last]), dtype=DTYPES[note["dtype"]])
            tensors[name] = values.reshape(note["shape"])
    return tensors


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
