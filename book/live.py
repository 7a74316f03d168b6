"""The net of the page "One net, live": a run's weights in 8 bits, written as a script, which a page may load from a folder.

    python book/live.py runs/cifar10-resnet20-A-night-s0-73746fb7.json       # writes book/_live/net.js; about 5 minutes

The run's weights lie beside its record. The weights of a filter become whole numbers, -127 to 127, times a scale of its own;
this scale and the batch normalisation behind it (in test mode) make one factor and one shift a channel. All that the page says
of the test images is measured here, on the net in 8 bits: its error, and the error without a block's shortcut, or without F.
"""

import argparse
import base64
import json
from copy import deepcopy
from pathlib import Path

import torch
from torch import nn

from reslib import data, evaluation, record
from reslib.resnet import Block

NET = Path(__file__).with_name("_live") / "net.js"
CIFAR10 = "airplane automobile bird cat deer dog frog horse ship truck".split()


@torch.no_grad()
def eight_bits(net):
    """A copy of the net with rounded weights, and what net.js holds: shapes, int8 weights, factors and shifts by channel."""
    net, shapes, weights, floats = deepcopy(net).eval(), [], [], []
    norms = [m for m in net.modules() if isinstance(m, nn.BatchNorm2d)]
    convolutions = [m for m in net.modules() if isinstance(m, nn.Conv2d)]
    for layer, norm in zip([*convolutions, net.fc], [*norms, None], strict=True):
        scale = layer.weight.flatten(1).abs().amax(1).clamp(min=1e-12) / 127
        of_filter = scale.view(-1, *[1] * (layer.weight.dim() - 1))
        whole = (layer.weight / of_filter).round()
        layer.weight.copy_(whole * of_filter)
        factor = norm.weight / (norm.running_var + norm.eps).sqrt() if norm else torch.ones_like(scale)
        shift = norm.bias - norm.running_mean * factor if norm else layer.bias
        shapes.append([layer.weight.shape[1], layer.weight.shape[0], layer.stride[0] if norm else 1])
        weights.append(whole.to(torch.int8).flatten())
        floats += [scale * factor, shift]
    return net, shapes, torch.cat(weights), torch.cat(floats)


def errors(net, recipe, data_dir=None):
    """Test errors (percent): of the whole net, without all shortcuts, and by block without its shortcut ("x") or its "F"."""

    def error():
        batches = evaluation.whole(recipe, "test", torch.device("cpu"), data_dir)
        return round(evaluation.evaluate(net, batches)["top1_error"], 2)

    blocks = [module for module in net.modules() if isinstance(module, Block)]
    found = {"whole": error(), "x": [], "F": []}
    for block in blocks:
        shortcut, block.downsample = block.downsample, None
        found["x"].append(error())
        block.downsample, block.F = shortcut, lambda x: 0.0
        found["F"].append(error())
        del block.F  # the method again
    for block in blocks:
        block.downsample = None
    return found | {"plain": error()}


def script(run, data_dir=None):
    """The text of net.js for a record whose weights lie beside it: a net of option A, whose shortcuts have no weights."""
    net, shapes, weights, floats = eight_bits(run.net())
    mean = torch.from_numpy(data.mean_image(run.recipe, data_dir)).permute(2, 0, 1).flatten()
    classes = CIFAR10 if run.recipe.data == "cifar10" else [str(i) for i in range(net.fc.out_features)]
    told = {
        "name": run.name, "weights_sha256": run.weights_sha256, "depth": run.recipe.depth, "steps": run.recipe.steps,
        "size": run.recipe.size, "images": run.data["test"], "recorded": round(run.final["test_error"], 2),
        "error": errors(net, run.recipe, data_dir), "classes": classes, "layers": shapes,
        "weights": base64.b64encode(weights.numpy().tobytes()).decode(),
        "floats": base64.b64encode(torch.cat([floats, mean]).numpy().astype("<f4").tobytes()).decode(),
    }  # fmt: skip
    return f'"use strict"; // {run.name}, made by book/live.py\nconst NET = {json.dumps(told)};\n'


def values():
    """What live.md asks for, out of net.js."""
    net = json.loads(NET.read_text(encoding="utf-8").partition("const NET = ")[2].rstrip(";\n"))
    known = {name: net[name] for name in ("name", "depth")} | {name: f"{net[name]:,}" for name in ("images", "steps")}
    known |= {"recorded": f"{net['recorded']:.2f}", "rounded": f"{net['error']['whole']:.2f}"}
    errors = {"whole": net["error"]["whole"], "plain": net["error"]["plain"]}
    for part in "xF":
        errors |= {f"{part}_least": min(net["error"][part]), f"{part}_most": max(net["error"][part])}
    return {f"live:{name}": value for name, value in (known | {name: f"{e:.1f}" for name, e in errors.items()}).items()}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("record", type=Path, help="the record of a CIFAR-10 ResNet of option A, its weights beside it")
    NET.write_text(script(record.read(parser.parse_args().record)), encoding="utf-8")
