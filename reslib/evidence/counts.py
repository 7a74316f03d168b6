"""What a net costs, counted from its modules: layers, parameters, multiply-adds, receptive field, memory.

A net is taken apart by tracing its forward pass (torch.fx) on the meta device, where tensors have shapes but no values: it has
to be built by `shape_of`.

A multiply-add is one multiplication and one addition: what the paper calls a FLOP, and half of what FlopCounterMode counts.
Convolutions and fully connected layers are counted; biases, normalisation, rectifiers, pooling and additions are not.
"""

from collections.abc import Callable
from copy import deepcopy
from itertools import chain

import pandas as pd
import torch
from torch import fx, nn
from torch.utils.flop_counter import FlopCounterMode

from ..resnet import ZeroPadding

KINDS = {
    nn.Conv2d: "conv", nn.Linear: "fc", nn.BatchNorm2d: "bn", nn.MaxPool2d: "max pool", nn.ReLU: "relu",
    nn.AdaptiveAvgPool2d: "avg pool", ZeroPadding: "zero padding", nn.Identity: "identity",
    "mean": "avg pool", "add": "add", "relu": "relu",
}  # fmt: skip
ON_SHORTCUT, OFF_SHORTCUT = {"conv": "projection"}, {"identity": "other", "zero padding": "other"}


def parameters(net: nn.Module) -> int:
    """Numbers that are trained: weights, biases, scales and shifts."""
    return sum(p.numel() for p in net.parameters())


def multiply_adds(net: nn.Module, size: int, channels: int = 3) -> int:
    """Multiply-adds of one image of (channels, size, size), counted by torch."""
    with FlopCounterMode(display=False) as counter:
        net(image(size, channels))
    return counter.get_total_flops() // 2


def activation_memory(net: nn.Module, size: int, batch: int = 1) -> int:
    """Bytes that autograd keeps from the forward for the backward pass of a training step, without the weights.

    Every storage is counted once: 32-bit maps, the 64-bit indices of max pooling, the statistics of BN. What an allocator or
    a library needs besides is not.
    """
    net, kept = deepcopy(net).train(), {}
    weights = {t.untyped_storage()._cdata for t in chain(net.parameters(), net.buffers())}

    def keep(tensor):
        kept[tensor.untyped_storage()._cdata] = tensor  # a reference, so that no storage is taken twice
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        net(image(size, batch=batch))
    return sum(tensor.untyped_storage().nbytes() for storage, tensor in kept.items() if storage not in weights)


def shape_of(make: Callable[..., nn.Module], *args, **keywords) -> nn.Module:
    """The net that `make` builds, with shapes but without values."""
    with torch.device("meta"):
        return make(*args, **keywords)


def image(size: int, channels: int = 3, batch: int = 1) -> torch.Tensor:
    return torch.empty(batch, channels, size, size, device="meta")


class Leaves(fx.Tracer):
    """Traces a net down to torch's own modules and ZeroPadding."""

    def is_leaf_module(self, module, name):
        return isinstance(module, ZeroPadding) or super().is_leaf_module(module, name)


def layers(net: nn.Module, size: int, channels: int = 3) -> pd.DataFrame:
    """One row for each step of the forward pass, in order, for one image of (channels, size, size).

    Columns: name (of the module, or of the operation), kind ("conv", "bn", "relu", "max pool", "avg pool", "fc", "add", and
    on a shortcut "identity", "zero padding", "projection"), channels and size (pixels) of the output, kernel, stride, padding,
    parameters, multiply_adds, field (the receptive field, in pixels of the input), jump (pixels of the input between
    neighbouring outputs), inputs (names). The first row is the input. Sums of rows equal `parameters` and `multiply_adds`.
    """
    graph = Leaves().trace(net)
    walk = fx.Interpreter(fx.GraphModule(net, graph), garbage_collect_values=False)
    walk.run(image(size, channels))
    rows = {}
    for node in graph.nodes:
        if node.op != "output":
            module = net.get_submodule(node.target) if node.op == "call_module" else None
            rows[node] = step(node, module, walk.env[node], [rows[n] for n in node.all_input_nodes])
    return pd.DataFrame(rows.values())


def step(node: fx.Node, module: nn.Module | None, y: torch.Tensor, before: list[dict]) -> dict:
    """A row of `layers`: a node of the graph, its module if any, its output (1, C, H, H) or (1, C), and its inputs' rows."""
    operation = getattr(node.target, "__name__", node.target) if module is None else type(module)
    kind = "input" if node.op == "placeholder" else KINDS.get(operation, "other")
    name = node.name if module is None else node.target
    on_shortcut = "downsample" in name.split(".")
    kernel, stride, out = first(module, "kernel_size"), first(module, "stride"), y.shape[-1] if y.dim() == 4 else 1
    field, jump = max(((b["field"], b["jump"]) for b in before), default=(1, 1))
    whole = before and out == 1 and not kernel  # pooled, flattened or fully connected: all of the map before it is seen
    reach = before[0]["size"] if whole else kernel or 1
    return {
        "name": name,
        "kind": (ON_SHORTCUT if on_shortcut else OFF_SHORTCUT).get(kind, kind),
        "channels": y.shape[1],
        "size": out,
        "kernel": kernel,
        "stride": stride,
        "padding": first(module, "padding"),
        "parameters": 0 if module is None else parameters(module),
        "multiply_adds": y[0].numel() * module.weight[0].numel() if kind in ("conv", "fc") else 0,
        "field": field + (reach - 1) * jump,
        "jump": jump * (stride or 1),
        "inputs": tuple(b["name"] for b in before),
    }


def first(module, name) -> int:
    """A module's kernel size, stride or padding (both directions are equal here); 0 for what has none."""
    value = getattr(module, name, 0)
    return value[0] if isinstance(value, tuple) else value
