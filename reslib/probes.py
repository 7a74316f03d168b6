"""What goes on inside a net: layer responses (Fig. 7), gradients (C3, C22), and nets extended by identity layers (C21).

A layer is a convolution on the main path; its response is what comes after BN and before the ReLU or the addition, as in
Fig. 7. Probing changes neither the weights nor the BN statistics.
"""

import copy
import re

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from . import resnet
from .recipes import Recipe

EXTENDED_DEPTH = 56  # plain nets are also tested when extended to it by identity layers (C21)
FIRST_STEPS = (1, 2, 4, 8, 16)  # probed too: what the first steps do to a deep net
PIXELS = 2**16  # of the images probed, in all: 256 of 16x16, 64 of 32x32


def probe(net: nn.Module, images: Tensor, labels: Tensor) -> dict[str, list]:
    """One forward and backward pass in training mode, read out layer by layer, the stem first.

    images (B, 3, H, W), labels (B,). Returns lists of one entry a layer: "layer" (names of the convolutions), "response_std"
    (over batch, channels and positions), "response_gradient" (L2 norm of d loss / d response, loss in nats averaged over the
    batch), "weight_gradient" (L2 norm of d loss / d weights), "bn_scale" (largest absolute scale of the BN behind the layer).
    A net without BN (`without_bn`) is read at the same places, its scales as 1.
    """
    buffers = {name: b.clone() for name, b in net.named_buffers()}
    training, stds, gradients = net.training, {}, {}

    def read(name):  # at once, so that neither response nor gradient is kept
        def hook(module, inputs, output):
            stds[name] = output.detach().std().item()
            output.register_hook(lambda gradient: gradients.update({name: gradient.contiguous().norm().item()}))

        return hook

    hooks = [m.register_forward_hook(read(name)) for name, m in net.named_modules() if re.fullmatch(net.responses, name)]
    weights = dict(net.named_parameters())
    net.zero_grad(set_to_none=True)  # the last training step's gradients are not part of what is measured
    try:
        cross_entropy(net.train()(images), labels).backward()
        layers = [name.replace("bn", "conv") for name in stds]
        return {
            "layer": layers,
            "response_std": list(stds.values()),
            "response_gradient": [gradients[name] for name in stds],
            "weight_gradient": [weights[f"{layer}.weight"].grad.norm().item() for layer in layers],
            "bn_scale": [weights[f"{name}.weight"].abs().max().item() if f"{name}.weight" in weights else 1.0 for name in stds],
        }
    finally:
        for hook in hooks:
            hook.remove()
        net.zero_grad(set_to_none=True)
        net.train(training)
        for name, b in net.named_buffers():
            b.copy_(buffers[name])


def probe_steps(recipe: Recipe) -> set[int]:
    """Iterations after which a run is probed; only the ends for very deep nets, to keep records small."""
    if recipe.depth > 200:
        return {0, recipe.steps}
    return {0, *FIRST_STEPS, *(recipe.steps * percent // 100 for percent in (1, 10, 50, 75, 100))}


def without_bn(net: nn.Module) -> nn.Module:
    """A copy of the net with every BN layer replaced by the identity (C22: how signals fared before BN)."""
    net = copy.deepcopy(net)
    for module in list(net.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.BatchNorm2d):
                setattr(module, name, nn.Identity())
    return net


@torch.no_grad()
def make_identity(block: resnet.BasicBlock) -> None:
    """Set a plain block of equal width in and out to the identity on what it meets, the output of a ReLU (section 1).

    A convolution that copies, a BN that divides by one: relu(x) = x where x >= 0. In test mode, where BN uses its statistics.
    """
    for conv, bn in ((block.conv1, block.bn1), (block.conv2, block.bn2)):
        nn.init.dirac_(conv.weight)
        bn.reset_running_stats()  # mean 0, variance 1
        bn.weight.fill_((1 + bn.eps) ** 0.5)
        nn.init.zeros_(bn.bias)


def extend_by_identity(net: resnet.ResNet, depth: int) -> resnet.ResNet:
    """A plain CIFAR net of more layers that computes the same: a copy of `net`, the added blocks set to the identity.

    Section 1: "a solution by construction to the deeper model". Raises ValueError if `net` has shortcuts or is as deep.
    """
    old, new = len(net.layer1), resnet.cifar_blocks(depth)
    if net.layer1[0].downsample is not None or new <= old:
        raise ValueError(f"only a plain CIFAR net can be extended, and only to more than its {6 * old + 2} layers.")
    deep = resnet.cifar_plain(depth)
    deep.load_state_dict(net.state_dict(), strict=False)
    for stage in (deep.layer1, deep.layer2, deep.layer3):
        for block in stage[old:]:
            make_identity(block)
    return deep.to(next(net.parameters()).device).train(net.training)
