"""Counts against known values: Table 1, Table 6, torchvision's published numbers, published receptive fields."""

from unittest.mock import Mock

import matplotlib.pyplot as plt
import pytest
import torch
import torchvision
from torch import nn

from reslib import cifar_resnet, imagenet_plain, imagenet_resnet
from reslib.evidence import claims, counted, counts, plots
from reslib.evidence.counts import shape_of
from reslib.resnet import BasicBlock, Bottleneck

FIELDS = {18: 435, 34: 899, 50: 483, 101: 1027, 152: 1507}  # Araujo et al., "Computing Receptive Fields" (Distill, 2019)
PARAMETERS = {"resnet18": 11689512, "resnet50": 25557032, "resnet152": 60192808, "vgg16": 138357544, "vgg19": 143667240}
GIGA = {"resnet18": 1.814, "resnet34": 3.664, "resnet50": 4.089, "resnet152": 11.514, "vgg16": 15.470, "vgg19": 19.632}


def theirs(name):
    return shape_of(getattr(torchvision.models, name))


@pytest.mark.parametrize(("name", "number"), PARAMETERS.items())
def test_parameters_that_torchvision_publishes(name, number):
    assert counts.parameters(theirs(name)) == number


@pytest.mark.parametrize(("name", "giga"), GIGA.items())
def test_multiply_adds_that_torchvision_publishes(name, giga):
    """In its weights' metadata; its ResNets are option B, v1.5."""
    assert counts.multiply_adds(theirs(name), 224) / 1e9 == pytest.approx(giga, abs=0.001)


@pytest.mark.parametrize(("depth", "field"), FIELDS.items())
def test_layers(depth, field):
    net = shape_of(imagenet_resnet, depth)
    frame = counts.layers(net, 224)
    assert frame.parameters.sum() == counts.parameters(net)
    assert frame.multiply_adds.sum() == counts.multiply_adds(net, 224)
    assert frame[frame.kind == "conv"].field.max() == field
    assert frame.kind.isin(["conv", "fc"]).sum() == depth
    assert frame.name.is_unique and set(frame[frame.kind == "projection"].channels) <= {128, 256, 512, 1024, 2048}
    assert counts.layers(shape_of(imagenet_resnet, depth, "B", "3x3"), 224).query("kind == 'conv'").field.max() == (
        field if depth < 50 else field - 56
    )


@pytest.mark.parametrize(("option", "kind"), {None: None, "A": "zero padding", "B": "projection"}.items())
def test_shortcuts_are_found(option, kind):
    kinds = counts.layers(shape_of(cifar_resnet, 20, option), 32).kind.value_counts()
    assert (kinds.get("add", 0), kinds.get("identity", 0), kinds.get(kind, 0)) == ((9, 7, 2) if option else (0, 0, 0))


def test_receptive_field_by_gradient():
    """Positive weights cancel nothing, so the gradient of a unit is nonzero on exactly its receptive field."""
    net = cifar_resnet(20).double().eval().requires_grad_(False)
    for weight in net.parameters():
        weight.abs_()
    image = torch.ones(1, 3, 128, 128, dtype=torch.double, requires_grad=True)
    features = nn.Sequential(net.conv1, net.bn1, net.layer1, net.layer2, net.layer3)
    features(image)[0, :, 16, 16].sum().backward()
    field = counts.layers(shape_of(cifar_resnet, 20), 128).query("kind == 'conv'").field.max()
    assert (image.grad.abs().sum((0, 1)) > 0).sum() == field**2 == 81**2


def test_activation_memory_is_what_autograd_keeps():
    """Known by hand: the input, both convolutions' outputs, both rectifiers' outputs; in 32 bits, and two statistics each."""
    net = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU(),
                        nn.Conv2d(8, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU())  # fmt: skip
    one = 4 * 16 * 16
    assert counts.activation_memory(net.to("meta"), 16, batch=2) == 2 * one * (3 + 4 * 8) + 4 * 4 * 8


@pytest.mark.parametrize(
    ("claim", "verdict"),
    {
        "C10": "holds",
        "C11": "holds",
        "C17": "holds",
        "C18": "holds",
        "C19": "holds in part",
        "C20": "holds",
        "C21": "holds",
    }.items(),  # fmt: skip
)
def test_counted_claims(claim, verdict):
    row = counted.judge(claim, claims.paper())
    assert (row["verdict"], row["n"]) == (verdict, "exact")
    assert claims.sentence(claim, "counted").startswith(f"**{claim}, counted: {verdict}**. Rule: ")


def test_ensembles_and_identities_that_would_not_hold(monkeypatch):
    p = claims.paper()
    assert "4.49 % (validation) against ensembles (test) VGG (ILSVRC'14) 7.32, " in counted.judge("C20", p)["ours"]
    assert counted.judge("C20", p | {"table5.bn_inception.top5_error": 4.4})["verdict"] == "holds in part"
    assert counted.judge("C20", p | {"table5.prelu_net.top5_error": 3.5})["verdict"] == "does not hold"
    runs = [Mock(final={"train_error": 40.0, "identity_extension": {"train_error": e, "logit_difference": 1e-6}})
            for e in (40.0, 40.02)] + [Mock(final={"train_error": 40.0})]  # fmt: skip
    monkeypatch.setattr(counted, "load", lambda: runs)
    found = counted.judge("C21", p)
    assert found["verdict"] == "does not hold" and "equal training error in 1 of 2 runs" in found["ours"]
    monkeypatch.setattr(counted, "load", list)
    assert counted.judge("C21", p)["verdict"] == "no evidence"


def test_architecture_draws_every_layer_and_shortcut():
    nets = {"VGG-19": theirs("vgg19"), "plain": shape_of(imagenet_plain, 34), "residual": shape_of(imagenet_resnet, 34, "A")}
    ax = plots.architecture({name: counts.layers(net, 224) for name, net in nets.items()}, ax=plt.figure().gca())
    texts = [text.get_text() for text in ax.texts]
    assert (texts.count("3x3 conv, 128, /2"), texts.count("7x7 conv, 64, /2"), texts.count("fc, 4096")) == (2, 2, 2)
    assert sum("conv" in text for text in texts) == 16 + 33 + 33 and texts.count("average pool") == 2
    lines = [patch.get_linestyle() for patch in ax.patches if len(patch.get_path().vertices) and patch.get_lw() == 1.1]
    assert (len(lines), sum(line != "solid" and line != "-" for line in lines)) == (16, 3)
    plt.close("all")


def test_blocks_can_be_drawn():
    blocks = {"basic": (BasicBlock, 64, 64), "bottleneck": (Bottleneck, 256, 64)}
    frames = {n: counts.layers(shape_of(make, c, w, 1, "A"), 56, c) for n, (make, c, w) in blocks.items()}
    ax = plots.architecture(frames, "x", ("conv", "bn", "relu", "add"), plt.figure().gca())
    texts = [text.get_text() for text in ax.texts]
    assert (texts.count("BN"), texts.count("+"), texts.count("1x1 conv, 256"), texts.count("ReLU")) == (5, 2, 1, 5)
    plt.close("all")
