"""The networks of the paper, each beside its equation: shortcuts A, B, C, the two blocks, the nets and their plain twins.

Source: He, Zhang, Ren, Sun, "Deep Residual Learning for Image Recognition" (2015), sections 3 and 4.2, Table 1, Fig. 2-5.
State dicts use torchvision's names, so its weights load into `imagenet_resnet(depth, "B", stride_on="3x3")` unchanged.
(Into the default, stride_on="1x1", they load without a complaint too, from 50 layers on, and compute something else.)

Departures: max pooling is padded by 1 as in every library of today (the authors' network files pool unpadded with ceiling
division: the same size at 224 pixels, every window one pixel further down and right); no convolution has a bias (in the
authors' file of ResNet-50 the first one has).
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import pad, relu

SHORTCUTS = (None, "A", "B", "C")
INITS = ("fan_in", "fan_out", "fan_out_conv", "fan_out_fc")


class ZeroPadding(nn.Module):
    """Option A where the dimensions grow: sub-sampled identity, with zeros for the new channels (section 3.3).

    (B, C, H, W) -> (B, channels, H / stride, W / stride). Free of parameters; the zero channels come after the copied ones.
    """

    def __init__(self, channels: int, stride: int):
        super().__init__()
        self.channels, self.stride = channels, stride

    def forward(self, x: Tensor) -> Tensor:
        x = x[:, :, :: self.stride, :: self.stride]
        return pad(x, (0, 0, 0, 0, 0, self.channels - x.shape[1]))

    def extra_repr(self) -> str:
        return f"channels={self.channels}, stride={self.stride}"


def projection(c_in: int, c_out: int, stride: int) -> nn.Module:
    """W_s of Eq. 2: a 1x1 convolution that matches the dimensions, normalised like every other convolution."""
    return nn.Sequential(nn.Conv2d(c_in, c_out, 1, stride, bias=False), nn.BatchNorm2d(c_out))


def shortcut_path(option: str | None, c_in: int, c_out: int, stride: int) -> nn.Module | None:
    """What a block adds to F(x): nothing (None: a plain net), x (Eq. 1), or W_s x (Eq. 2).

    A: identity everywhere, zero-padded where the dimensions grow. B: projections there, identity elsewhere. C: projections
    everywhere (section 4.1, "Identity vs. Projection Shortcuts").
    """
    same = c_in == c_out and stride == 1
    if option is None:
        return None
    if option == "C" or (option == "B" and not same):
        return projection(c_in, c_out, stride)
    return nn.Identity() if same else ZeroPadding(c_out, stride)


class Block(nn.Module):
    """y = relu(F(x) + x): Eq. 1; with a projection, y = relu(F(x) + W_s x): Eq. 2; in a plain net, y = relu(F(x))."""

    def forward(self, x: Tensor) -> Tensor:  # (B, C_in, H, W) -> (B, C_out, H / stride, W / stride)
        if self.downsample is None:
            return relu(self.F(x))
        return relu(self.F(x) + self.downsample(x))


class BasicBlock(Block):
    """F = two 3x3 convolutions (Fig. 5 left); with layers=1 a single one (section 3.2: "similar to a linear layer")."""

    expansion = 1

    def __init__(self, c_in: int, width: int, stride: int, shortcut: str | None, layers: int = 2, stride_on: str = "1x1"):
        super().__init__()
        self.conv1 = nn.Conv2d(c_in, width, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        if layers == 2:
            self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
            self.bn2 = nn.BatchNorm2d(width)
        self.layers = layers
        self.downsample = shortcut_path(shortcut, c_in, width, stride)

    def F(self, x: Tensor) -> Tensor:
        x = self.bn1(self.conv1(x))
        return x if self.layers == 1 else self.bn2(self.conv2(relu(x)))


class Bottleneck(Block):
    """F = 1x1 down to `width`, 3x3, 1x1 up to 4 x width (Fig. 5 right).

    stride_on="1x1": as in the paper's network files ("v1"). "3x3": torchvision's and most libraries' departure ("v1.5").
    """

    expansion = 4

    def __init__(self, c_in: int, width: int, stride: int, shortcut: str | None, layers: int = 3, stride_on: str = "1x1"):
        super().__init__()
        first, second = (stride, 1) if stride_on == "1x1" else (1, stride)
        self.conv1 = nn.Conv2d(c_in, width, 1, first, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, second, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, 4 * width, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(4 * width)
        self.downsample = shortcut_path(shortcut, c_in, 4 * width, stride)

    def F(self, x: Tensor) -> Tensor:
        x = relu(self.bn1(self.conv1(x)))
        x = relu(self.bn2(self.conv2(x)))
        return self.bn3(self.conv3(x))


class ResNet(nn.Module):
    """A stem, stages of blocks, global average pooling, one fully connected layer: (B, 3, H, W) -> (B, num_classes).

    The first block of every stage but the first halves the map and doubles the width. The stem is one 3x3 convolution on
    small images (section 4.2), or a 7x7 convolution and max pooling, both of stride 2 (Table 1). Raises ValueError for an
    unknown shortcut or stride_on.
    """

    responses = r"(layer\d+\.\d+\.)?bn\d"  # whose outputs are the responses of Fig. 7: BN on the main path, not a projection's

    def __init__(self, block, blocks: tuple[int, ...], width: int, shortcut: str | None, num_classes: int, *,
                 large_images: bool = False, layers: int = 2, stride_on: str = "1x1"):  # fmt: skip
        super().__init__()
        if shortcut not in SHORTCUTS:
            raise ValueError(f"shortcut {shortcut!r} is unknown: use 'A', 'B', 'C', or None for a plain net.")
        if stride_on not in ("1x1", "3x3"):
            raise ValueError(f"stride_on {stride_on!r} is unknown: use '1x1' (the paper, v1) or '3x3' (v1.5).")
        self.conv1 = nn.Conv2d(3, width, 7, 2, 3, bias=False) if large_images else nn.Conv2d(3, width, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.maxpool = nn.MaxPool2d(3, 2, 1) if large_images else nn.Identity()
        c_in = width
        for stage, n in enumerate(blocks):
            c_mid, row = width * 2**stage, []
            for i in range(n):
                row.append(block(c_in, c_mid, 2 if stage and i == 0 else 1, shortcut, layers, stride_on))
                c_in = c_mid * block.expansion
            setattr(self, f"layer{stage + 1}", nn.Sequential(*row))
        self.fc = nn.Linear(c_in, num_classes)
        self.stages = len(blocks)
        he_init(self)

    def features(self, x: Tensor) -> Tensor:
        x = self.maxpool(relu(self.bn1(self.conv1(x))))
        for stage in range(1, self.stages + 1):
            x = getattr(self, f"layer{stage}")(x)  # (B, width * 2**(stage-1) * expansion, H, W)
        return x

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.features(x).mean((2, 3)))  # global average pooling: (B, C, H, W) -> (B, C)


def he_init(net: nn.Module, seed: int | None = None, mode: str = "fan_in", fc_std: float | None = None) -> nn.Module:
    """He initialisation ([13] of the paper): weights N(0, 2 / fan), biases 0, BN scale 1 and shift 0. In place.

    mode: "fan_in" (Caffe's default) or "fan_out"; by fan-out the convolutions alone, "fan_out_conv", or the classifier alone,
    "fan_out_fc". fc_std: the classifier's weights N(0, fc_std^2) instead. All draw the same numbers and scale them otherwise.
    seed=None draws from torch's global generator. Raises ValueError for an unknown mode.
    """
    if mode not in INITS:
        raise ValueError(f"init {mode!r} is unknown: use one of {', '.join(map(repr, INITS))}.")
    generator = None if seed is None else torch.Generator().manual_seed(seed)
    for module in net.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            part = "fan_out_fc" if isinstance(module, nn.Linear) else "fan_out_conv"
            fan = "fan_out" if mode in ("fan_out", part) else "fan_in"
            if fc_std is not None and isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=fc_std, generator=generator)
            else:
                nn.init.kaiming_normal_(module.weight, mode=fan, nonlinearity="relu", generator=generator)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.BatchNorm2d):
            module.reset_parameters()
    return net


def cifar_blocks(depth: int, layers: int = 2) -> int:
    """n of the CIFAR nets: depth = 6n + 2 (section 4.2), or 3n + 2 with one-layer blocks. Raises ValueError otherwise."""
    if layers not in (1, 2):
        raise ValueError(f"layers is {layers!r}: a block of the CIFAR nets has 2 layers, or 1 (section 3.2).")
    step = 3 * layers
    if not isinstance(depth, int) or isinstance(depth, bool) or depth < step + 2 or (depth - 2) % step:
        below = max(step + 2, depth - (depth - 2) % step) if isinstance(depth, int) else 20
        raise ValueError(f"depth {depth!r} is not {step}n+2: the nearest depths are {below} and {below + step}.")
    return (depth - 2) // step


def cifar_resnet(depth: int, shortcut: str | None = "A", layers: int = 2, num_classes: int = 10) -> ResNet:
    """The nets of section 4.2: 3x3 convolutions, three stages of 16, 32, 64 filters, 6n + 2 layers (3n + 2: layers=1).

    20, 32, 44, 56, 110 and 1202 in the paper (Table 6). Input (B, 3, 32, 32), or any even size; output (B, num_classes).
    Raises ValueError for a depth that is not 6n + 2, or an unknown shortcut.
    """
    n = cifar_blocks(depth, layers)
    return ResNet(BasicBlock, (n, n, n), 16, shortcut, num_classes, layers=layers)


def cifar_plain(depth: int) -> ResNet:
    """The plain twin of `cifar_resnet`: the same layers without shortcuts (section 4.2)."""
    return cifar_resnet(depth, shortcut=None)


IMAGENET_NETS = {
    18: (BasicBlock, (2, 2, 2, 2)),
    34: (BasicBlock, (3, 4, 6, 3)),
    50: (Bottleneck, (3, 4, 6, 3)),
    101: (Bottleneck, (3, 4, 23, 3)),
    152: (Bottleneck, (3, 8, 36, 3)),
}
"""Table 1: block and blocks a stage, by depth."""


def imagenet_resnet(depth: int, shortcut: str | None = "B", stride_on: str = "1x1", num_classes: int = 1000) -> ResNet:
    """The nets of Table 1: 18, 34 (basic blocks), 50, 101, 152 (bottlenecks). (B, 3, 224, 224) -> (B, num_classes).

    Table 2 uses option A; Table 3's 50, 101 and 152 use B. torchvision's weights of these three are for stride_on="3x3": into
    the paper's net, "1x1", they load without a word and compute something else. Raises ValueError for a depth that Table 1
    does not have, or an unknown shortcut or stride_on.
    """
    if depth not in IMAGENET_NETS:
        raise ValueError(f"depth {depth!r} is not in Table 1: use one of {', '.join(map(str, IMAGENET_NETS))}.")
    block, blocks = IMAGENET_NETS[depth]
    return ResNet(block, blocks, 64, shortcut, num_classes, large_images=True, stride_on=stride_on)


def imagenet_plain(depth: int, num_classes: int = 1000) -> ResNet:
    """The plain nets of Table 2: 18 and 34 layers (Fig. 3, middle). Raises ValueError for another depth."""
    if depth not in (18, 34):
        raise ValueError(f"depth {depth!r} has no plain net in the paper: use 18 or 34.")
    return imagenet_resnet(depth, shortcut=None, num_classes=num_classes)
