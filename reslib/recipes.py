"""What to run: a frozen Recipe says everything that a run's result depends on, with the section that says so.

`CIFAR` (section 4.2) and `IMAGENET` (section 3.4) are the published protocols; `dataclasses.replace(CIFAR, depth=56,
shortcut=None)` is a plain net; `recipe.at("pocket")` is the same recipe at a smaller scale.
"""

import hashlib
import json
import reprlib
from dataclasses import asdict, dataclass, fields, replace
from typing import Annotated, Literal

import numpy as np
from pydantic import ConfigDict, Field, ValidationError, create_model

from . import resnet
from .files import say

Count = Annotated[int, Field(ge=1)]
FromZero = Annotated[int, Field(ge=0)]
Range = Annotated[tuple[int, ...], Field(min_length=2, max_length=2)]
Rate = Annotated[float, Field(ge=0)]
Above0 = Annotated[float, Field(gt=0)]


@dataclass(frozen=True)
class Recipe:
    """One run. The defaults are section 4.2's protocol. Raises ValueError where a field, or their combination, is wrong."""

    data: Literal["cifar10", "digits", "imagenet"] = "cifar10"  # digits: the embedded demonstration
    depth: int = 20  # weighted layers: 6n+2 (section 4.2), 3n+2 with layers=1; ImageNet: Table 1
    shortcut: Literal[resnet.SHORTCUTS] = "A"  # "A", "B", "C" (section 4.1); None: a plain net
    layers: Annotated[int, Field(ge=1, le=2)] = 2  # 3x3 layers in a CIFAR block; 1: section 3.2's single-layer F
    stride_on: Literal["1x1", "3x3"] = "1x1"  # of bottlenecks: "1x1" the paper (v1), "3x3" most libraries (v1.5)
    init: Literal[resnet.INITS] = "fan_in"  # He initialisation by "fan_in" (Caffe's default), "fan_out", or one part by fan-out
    fc_std: Above0 | None = None  # the classifier's weights from N(0, fc_std^2) instead of He's
    split: Literal["50k", "45k/5k"] = "50k"  # train on all 50,000, or "45k/5k" (the last 5,000 held out)

    scale: Literal["demo", "pocket", "night", "paper", "extension"] = "paper"  # see SCALES; of photographs, EXTENSION
    size: Count = 32  # pixels, height and width of the input
    pad: Annotated[int, Field(ge=0, le=127)] = 4  # pixels of zeros round the image, out of which the crop is taken
    border: Literal["mean", "black"] = "mean"  # zeros round the image minus the mean; black: the mean is taken off after that
    flip: bool = True  # mirror half of the crops
    steps: Count = 64_000  # iterations in all
    milestones: tuple[int, ...] = (32_000, 48_000)  # iterations at which the learning rate is divided by 10
    log_every: Count = 200  # steps averaged in a row of the curve
    eval_every: Count = 1_000  # steps between passes over the test images

    batch: Count = 128  # images
    lr: Rate = 0.1
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    clip: Above0 | None = None  # gradients are scaled down to this global L2 norm where theirs is larger
    weight_decay: Rate = 1e-4
    decay_bn: bool = True  # on BN's scale and shift too, as in Caffe
    momentum_form: Literal["pytorch", "caffe"] = "pytorch"  # v = m v + g, w -= lr v; "caffe": v = m v + lr g, w -= v, which
    # differs where lr changes
    bn_batch: int | None = None  # images over which BN's statistics are taken, and of a pass, the gradients being added up;
    # None: the whole batch, however many GPUs share it; 64: as the paper's two GPUs
    precision: Literal["tf32", "bf16"] = "tf32"  # of the step: a GPU's convolutions (a CPU knows only fp32); "bf16": autocast
    warmup_lr: Rate | None = None  # section 4.2, ResNet-110: this rate, 0.01, ...
    warmup_until: float = 80.0  # ... until the running training error (percent, over 50 steps) is below this

    short_side: Range | None = None  # ImageNet's scale augmentation: the shorter side is drawn from this range, in pixels for
    # crops of 224; at another `size` in proportion: size=64 draws from [73, 137]
    colour: float = 0.0  # standard deviation of the PCA colour augmentation
    plateau: bool = False  # divide the learning rate by 10 where the validation error stops falling, instead of at milestones:
    plateau_patience: FromZero = 5  # where more passes in a row than this, one every eval_every steps, brought no lowest error,
    plateau_threshold: Rate = 0.1  # ... lower by more than these percentage points than the one before, ...
    plateau_drops: FromZero = 3  # ... and so many times at most

    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0  # of the weights and every decision in draws.py; pilots use 1000 and above

    def __post_init__(self):
        given = {f.name: getattr(self, f.name) for f in fields(self)}
        for name, value in given.items():  # 20 out of a DataFrame is 20, and [3, 4] is (3, 4)
            given[name] = value.item() if isinstance(value, np.generic) else tuple(value) if isinstance(value, list) else value
        try:
            checked = dict(Fields(**given))
        except ValidationError as error:
            name, says = error.errors()[0]["loc"][0], error.errors()[0]["msg"]
            says = says.replace("Input should", "it must").replace("a valid tuple", "whole numbers, as [3, 4]")
            raise ValueError(f"{name} is {given[name]!r}: {says}.") from None
        for name, value in checked.items():  # a rate is a float, and -0.0 is 0.0: one run has one id
            object.__setattr__(self, name, value + 0.0 if isinstance(value, float) else value)
        if self.bn_batch is not None and (self.bn_batch < 2 or self.batch % self.bn_batch):
            raise ValueError(f"bn_batch is {self.bn_batch!r}: it must divide the batch of {self.batch}, and be at least 2.")
        if list(self.milestones) != sorted(set(self.milestones)) or any(not 0 < m < self.steps for m in self.milestones):
            raise ValueError(f"milestones {self.milestones} must rise, from 1 or more, and lie below steps ({self.steps}).")
        if self.steps % self.log_every or self.eval_every % self.log_every:
            raise ValueError(f"log_every ({self.log_every}) must divide steps ({self.steps}), eval_every ({self.eval_every}).")
        if self.data == "imagenet":
            if self.depth not in resnet.IMAGENET_NETS or (self.shortcut is None and self.depth not in (18, 34)):
                raise ValueError(f"depth {self.depth} is not in Table 1: use 18, 34, 50, 101 or 152; for a plain net 18 or 34.")
            if self.size < 64:
                raise ValueError(f"size is {self.size}: crops of photographs must be at least 64 pixels wide.")
            if self.plateau and self.milestones:
                raise ValueError("a plateau and milestones do not go together: set plateau=false, or milestones=[].")
            low, high = self.short_side or (224, 224)
            if not 224 <= low <= high < 2**12:
                raise ValueError(f"short_side is {self.short_side}: it must rise, from 224 pixels, the crop's, or more.")
        else:
            resnet.cifar_blocks(self.depth, self.layers)
        for name, usual in self.unused().items():
            if (value := getattr(self, name)) != usual:  # the same run would have another id
                raise ValueError(f"{name} is {value!r}: a recipe like this has no use for it, and leaves it {usual!r}.")

    def unused(self) -> dict:
        """The fields that such a run has no use for, and what they are left at."""
        if self.data == "imagenet":
            names = ["layers", "split", "border"] + (["stride_on"] if self.depth < 50 else [])
        else:
            names = ["stride_on", "short_side", "colour", "plateau"]
        names += [] if self.plateau else ["plateau_patience", "plateau_threshold", "plateau_drops"]
        names += [] if self.warmup_lr is not None else ["warmup_until"]
        return {name: getattr(Recipe, name) for name in names} | ({"pad": 0} if self.data == "imagenet" else {})

    def at(self, scale: str) -> "Recipe":
        """The same recipe at another scale. Raises ValueError for a scale that its data do not have."""
        scales = ("paper", "extension") if self.data == "imagenet" else tuple(SCALES)
        if scale not in scales:
            raise ValueError(f"scale {scale!r} is unknown for {self.data}: use one of {', '.join(map(repr, scales))}.")
        if self.data == "imagenet":
            return replace(self, scale=scale, **EXTENSION) if scale == "extension" else self
        if lost := [name for name, value in SCALES[self.scale].items() if getattr(self, name) != value]:
            say(f"{self.name}: at {scale!r} sets {', '.join(lost)} anew: replace fields after at(), not before.")
        return replace(self, scale=scale, **SCALES[scale])

    def longer(self, times: int) -> "Recipe":
        """The same recipe with so many times the iterations, milestones included (footnote 3)."""
        return replace(self, steps=times * self.steps, milestones=tuple(times * m for m in self.milestones))

    def delayed(self, extra: int) -> "Recipe":
        """The same recipe with so many iterations before the others: milestones and the end come later."""
        return replace(self, steps=self.steps + extra, milestones=tuple(m + extra for m in self.milestones))

    def net(self, classes: int | None = None) -> resnet.ResNet:
        """The untrained net, He-initialised from the recipe's seed. classes: a tree's; None: ImageNet's 1,000, CIFAR's 10."""
        if self.data == "imagenet":
            net = resnet.imagenet_resnet(self.depth, self.shortcut, self.stride_on, classes or 1000)
        else:
            net = resnet.cifar_resnet(self.depth, self.shortcut, self.layers)
        return resnet.he_init(net, self.seed, self.init, self.fc_std)

    @property
    def id(self) -> str:
        """Eight hex digits: a hash of the fields that differ from the defaults (so a new field changes no old id)."""
        changed = {f.name: getattr(self, f.name) for f in fields(self) if getattr(self, f.name) != f.default}
        return hashlib.sha256(json.dumps(changed, sort_keys=True).encode()).hexdigest()[:8]

    @property
    def net_name(self) -> str:
        """ "plain56", "resnet56-A"; with one-layer blocks "resnet56-A-1layer"."""
        name = f"plain{self.depth}" if self.shortcut is None else f"resnet{self.depth}-{self.shortcut}"
        return name if self.layers == 2 else f"{name}-1layer"

    @property
    def told(self) -> str:
        """The net in prose: "plain-56", "ResNet-56"; other options than A, and one-layer blocks, are named."""
        if self.shortcut is None:
            return f"plain-{self.depth}"
        return f"ResNet-{self.depth}" + f" {self.shortcut}" * (self.shortcut != "A") + ", one-layer" * (self.layers == 1)

    @property
    def name(self) -> str:
        """Of the run and its files: `cifar10-resnet56-A-paper-s0-1f3a9c2e`."""
        return f"{self.data}-{self.net_name}-{self.scale}-s{self.seed}-{self.id}"

    @classmethod
    def from_dict(cls, values: dict) -> "Recipe":
        """A recipe from `as_dict()`'s form. ValueError for a field that recipes do not have."""
        own = [f.name for f in fields(cls)]
        if strange := sorted(set(values) - set(own)):
            raise ValueError(f"a recipe has no field {strange[0]!r}; it has {', '.join(own)}.")
        return cls(**values)

    def as_dict(self) -> dict:
        return asdict(self)


def needed(recipe) -> Recipe:
    """The recipe. Raises ValueError for anything else."""
    if not isinstance(recipe, Recipe):
        raise ValueError(f"{reprlib.repr(recipe)} is no recipe: give reslib.CIFAR, or replace(reslib.CIFAR, depth=56).")
    return recipe


Fields = create_model("Fields", __config__=ConfigDict(strict=True, allow_inf_nan=False),
                      **{f.name: (f.type, ...) for f in fields(Recipe)})  # fmt: skip
"""What each field may hold, by its type: a Recipe checks itself with it."""

SCALES = {
    "demo": dict(data="digits", size=16, pad=2, flip=False, steps=60, milestones=(30, 45), log_every=5, eval_every=20,
                 precision="tf32"),
    "pocket": dict(data="cifar10", size=16, pad=2, flip=True, steps=64_000 // 40,
                   milestones=(64_000 // 40 // 2, 64_000 // 40 * 3 // 4), log_every=20, eval_every=200, precision="tf32"),
    "night": dict(data="cifar10", size=32, pad=4, flip=True, steps=64_000 // 4,
                  milestones=(32_000 // 4, 48_000 // 4), log_every=100, eval_every=1_000, precision="bf16"),
    "paper": dict(data="cifar10", size=32, pad=4, flip=True, steps=64_000, milestones=(32_000, 48_000),
                  log_every=200, eval_every=1_000, precision="tf32"),
}  # fmt: skip
"""What each scale sets. demo: digits, seconds; pocket: CIFAR-10 pooled to 16x16, 1/40 of the steps; night: CIFAR-10 as
published, 1/4 of the steps, in bfloat16, so that a CPU that computes in it does 56 layers in hours; paper: all of them."""

EXTENSION = dict(size=64, batch=128, steps=2_000, milestones=(1_000, 1_500), plateau=False, log_every=50, eval_every=250)
"""What the scale "extension" sets in a recipe of section 3.4, for some thousand photographs of a few classes. One to two hours
of a core for 18 to 50 layers. No scale of the paper's: it shows a direction at most."""

CIFAR = Recipe()
"""Section 4.2."""

IMAGENET = Recipe(
    data="imagenet", depth=34, shortcut="A", size=224, pad=0, batch=256, steps=600_000, milestones=(), plateau=True,
    log_every=1_000, eval_every=5_000, short_side=(256, 480), colour=0.1,
)  # fmt: skip
"""Section 3.4."""

DEPARTURES = (
    ("train/val split", "the paper tunes on 45k/5k and does not say which the tables use", "all 50,000 by default"),
    ("border", "zeros before or after the mean is subtracted", "after: the border is the mean image"),
    ("weight decay", "whether BN's scale and shift decay", "they do, as in Caffe"),
    ("BN statistics", "moving averages, or recomputed after training", "moving averages; every record holds both"),
    ("momentum", "Caffe folds the learning rate into the velocity", "PyTorch's form"),
    ("reported checkpoint", "last, or best on the test set", "the last; every record holds both"),
    ("batch over two GPUs", "BN statistics over 64 images each", "over the whole batch of 128"),
    ("training error", "running or a clean pass", "a clean pass for verdicts; every record holds both"),
    ("He initialisation", "by fan-in or fan-out", "fan-in, the fully connected layer included"),
    ("warm-up", "whether its steps count among the 64k", "they do"),
    ("zero channels", "where option A puts them", "after the copied ones (the same function up to a permutation)"),
    ("plateau", "when the error has stopped falling",
     f"when more than {IMAGENET.plateau_patience} validation passes in a row, one every {IMAGENET.eval_every:,} steps, brought "
     f"no error lower by more than {IMAGENET.plateau_threshold:g} points; {IMAGENET.plateau_drops} times at most"),
    ("ImageNet's mean image", "the mean of which pixels", "of 224x224 centre crops at a shorter side of 256"),
    ("colour augmentation", "in which units an eigenvalue is meant", "of the covariance of pixels in [0, 1]"),
    ("resizing", "how, and when", "ffcv: the crop alone, at whole pixels, by area; torch: the photograph, antialiased"),
    ("10-crop", "of the whole photograph or a square", "of the middle 256x256 pixels, as AlexNet's; probabilities averaged"),
    ("multi-scale test", "which scores are averaged",
     "the score map at each scale, then the scales' probabilities; no mirror images"),
)  # fmt: skip
"""Where the paper is silent or ambiguous: what, the question, what is done here."""
