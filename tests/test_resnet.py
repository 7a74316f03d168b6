"""The nets against known values: Table 1, Table 6, and torchvision's weights. Source: the paper, and counting."""

import pytest
import torch
import torchvision
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from reslib import cifar_plain, cifar_resnet, imagenet_plain, imagenet_resnet
from reslib.evidence.counts import shape_of
from reslib.resnet import INITS, he_init

CIFAR_PARAMETERS = {20: 0.2697, 32: 0.4642, 44: 0.6586, 56: 0.8530, 110: 1.7280, 1202: 19.421}  # millions, option A


def parameters(net):
    return sum(p.numel() for p in net.parameters())


def multiply_adds(net, size):
    with FlopCounterMode(display=False) as counter:
        net(torch.empty(1, 3, size, size, device="meta"))
    return counter.get_total_flops() / 2


@pytest.mark.parametrize(("depth", "millions"), CIFAR_PARAMETERS.items())
def test_cifar_parameters(depth, millions):
    assert parameters(shape_of(cifar_resnet, depth)) / 1e6 == pytest.approx(millions, abs=0.0005)


@pytest.mark.parametrize(("depth", "millions"), {20: 40.6, 56: 125.5, 110: 252.9}.items())
def test_cifar_multiply_adds(depth, millions):
    assert multiply_adds(shape_of(cifar_resnet, depth), 32) / 1e6 == pytest.approx(millions, abs=0.06)


@pytest.mark.parametrize(("make", "depth", "size"), [(cifar_resnet, 56, 32), (imagenet_resnet, 34, 224)])
def test_option_a_costs_nothing(make, depth, size):
    nets = {option: shape_of(make, depth, option) for option in (None, "A", "B", "C")}
    assert parameters(nets["A"]) == parameters(nets[None])
    assert multiply_adds(nets["A"], size) == multiply_adds(nets[None], size)
    assert parameters(nets["A"]) < parameters(nets["B"]) < parameters(nets["C"])


@pytest.mark.parametrize(("depth", "giga"), {18: 1.8, 34: 3.6, 50: 3.8, 101: 7.6, 152: 11.3}.items())
def test_imagenet_multiply_adds(depth, giga):
    """Table 1; ResNet-50 is counted as 3.86e9, which the paper gives as 3.8."""
    shortcut = "A" if depth < 50 else "B"
    assert multiply_adds(shape_of(imagenet_resnet, depth, shortcut), 224) / 1e9 == pytest.approx(giga, abs=0.07)


@pytest.mark.parametrize("depth", [18, 34, 50])  # the others are 50 with more of its blocks, as counted above
def test_torchvision_weights_give_torchvision_outputs(depth):
    torch.manual_seed(depth)
    theirs = getattr(torchvision.models, f"resnet{depth}")().eval()
    ours = imagenet_resnet(depth, "B", stride_on="3x3").eval()
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        assert torch.equal(ours(x), theirs(x))


def convolutions(net, size):
    """(name, channels out, kernel, stride, height of the output) of every convolution on the way of an image."""
    rows = []

    def hook(name):
        return lambda m, _, y: rows.append((name, m.out_channels, m.kernel_size[0], m.stride[0], y.shape[-1]))

    for name, module in net.named_modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(hook(name))
    net(torch.empty(1, 3, size, size, device="meta"))
    return rows


@pytest.mark.parametrize(("depth", "blocks"), {50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}.items())
def test_bottleneck_layer_by_layer(depth, blocks):
    """Table 1 with the authors' strides (v1): the first 1x1 of conv3_1, conv4_1, conv5_1, and its projection, have 2."""
    expected = [("conv1", 64, 7, 2, 112)]
    for stage, n in enumerate(blocks):
        width, size = 64 * 2**stage, 56 // 2**stage
        for i in range(n):
            stride, name = 2 if stage and i == 0 else 1, f"layer{stage + 1}.{i}"
            expected += [(f"{name}.conv1", width, 1, stride, size), (f"{name}.conv2", width, 3, 1, size)]
            expected += [(f"{name}.conv3", 4 * width, 1, 1, size)]
            expected += [(f"{name}.downsample.0", 4 * width, 1, stride, size)] if i == 0 else []
    assert convolutions(shape_of(imagenet_resnet, depth), 224) == expected
    v15 = {row[0]: row[3] for row in convolutions(shape_of(imagenet_resnet, depth, stride_on="3x3"), 224)}
    assert (v15["layer2.0.conv1"], v15["layer2.0.conv2"]) == (1, 2)


def test_cifar_layer_table():
    """Section 4.2: 1 + 2n layers on maps of 32, 2n on 16, 2n on 8, with 16, 32, 64 filters."""
    rows = [row for row in convolutions(shape_of(cifar_resnet, 56), 32) if "downsample" not in row[0]]
    counts = {size: [r[1] for r in rows if r[4] == size] for size in (32, 16, 8)}
    assert {size: (len(c), set(c)) for size, c in counts.items()} == {32: (19, {16}), 16: (18, {32}), 8: (18, {64})}
    assert all(kernel == 3 for _, _, kernel, _, _ in rows)


def test_option_a_subsamples_and_appends_zeros():
    shortcut = cifar_resnet(20).layer2[0].downsample
    x = torch.randn(2, 16, 8, 8)
    y = shortcut(x)
    assert torch.equal(y[:, :16], x[:, :, ::2, ::2]) and y.shape == (2, 32, 4, 4) and not y[:, 16:].any()


def test_a_block_with_zero_residual_is_the_rectified_identity():
    block = cifar_resnet(20).layer1[0]
    nn.init.zeros_(block.bn2.weight)
    x = torch.randn(4, 16, 8, 8)
    assert torch.equal(block(x), x.relu())


@pytest.mark.parametrize("shortcut", [None, "A", "B", "C"])
def test_every_weight_is_trained(shortcut):
    net = cifar_resnet(14, shortcut)
    net(torch.randn(4, 3, 16, 16)).square().sum().backward()
    assert all(p.grad.abs().sum() > 0 for p in net.parameters())


def test_one_layer_blocks():
    assert sum(isinstance(m, nn.Conv2d) for m in cifar_resnet(20, layers=1).modules()) == 19
    with pytest.raises(ValueError, match=r"3n\+2"):
        cifar_resnet(21, layers=1)


@pytest.mark.parametrize("mode", INITS)
def test_he_initialisation(mode):
    net = imagenet_resnet(18)

    def weights(seed=3, **options):  # (512, 256, 3, 3), (1000, 512)
        he_init(net, seed=seed, mode=mode, **options)
        return net.layer4[0].conv1.weight.detach().clone(), net.fc.weight.detach().clone()

    conv, fc = weights()
    fan = 9 * (512 if mode in ("fan_out", "fan_out_conv") else 256)
    assert conv.std().item() == pytest.approx((2 / fan) ** 0.5, rel=0.01)
    fan = 1000 if mode in ("fan_out", "fan_out_fc") else 512
    assert fc.std().item() == pytest.approx((2 / fan) ** 0.5, rel=0.01) and not net.fc.bias.any()
    same, small = weights(fc_std=0.01)  # the same draws, the classifier's scaled otherwise
    assert torch.equal(conv, same)
    torch.testing.assert_close(small / 0.01, fc / (2 / fan) ** 0.5)
    assert torch.equal(conv, weights()[0]) and not torch.equal(conv, weights(seed=4)[0])


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: cifar_resnet(21), r"depth 21 is not 6n\+2: the nearest depths are 20 and 26"),
        (lambda: cifar_resnet(2), r"6n\+2"),
        (lambda: cifar_plain("20"), r"6n\+2"),
        (lambda: cifar_resnet(20, "D"), "shortcut 'D' is unknown"),
        (lambda: cifar_resnet(20, layers=3), "layers is 3"),
        (lambda: imagenet_resnet(35), "not in Table 1"),
        (lambda: imagenet_resnet(50, stride_on="2x2"), "stride_on"),
        (lambda: imagenet_plain(50), "use 18 or 34"),
        (lambda: he_init(cifar_plain(20), mode="fan"), "init 'fan' is unknown"),
    ],
)
def test_bad_arguments_are_named(make, says):
    with pytest.raises(ValueError, match=says):
        make()
