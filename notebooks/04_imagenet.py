# ---
# jupyter:
#   jupytext:
#     cell_metadata_filter: mystnb,tags,-all
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
#       format_version: '1.3'
#       jupytext_version: 1.19.6
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # ImageNet
#
# > **Sections 3.4 and 4.1 of the paper; Tables 2 to 5, Fig. 4.** Claims: C2 (plain nets degrade here too), C5 and C6 (residual
# > nets reverse it), C7 (as accurate, but faster), C9 (50 to 152 layers), C20 (the competition).
# >
# > **The paper says:** on ImageNet too, 34 plain layers are worse than 18, 34 residual layers are better, and accuracy grows up
# > to 152 layers.
# >
# > **We see:** public reruns of the residual nets order them by depth as the paper does. Of plain nets we found one source, of 34
# > layers and none of 18, and have trained none of these nets at the paper's scale.
# >
# > **Why:** up to 101 layers the residual steps in depth are several times their standard error over images; the plain one is
# > barely twice. What is missing is computing, not code: the page trains on any folder of photographs.
# >
# > **What this costs.** As it stands: under two minutes on one core, and no download. `retrain = True` with a folder of photographs
# > trains four nets: at `pocket` scale some minutes each on one core, at `paper` scale the GPU hours of the tables below.

# %% tags=["parameters"]
scale = "demo"  # "demo": nothing is trained; with retrain: "pocket", "night", "paper"
data_dir = ""  # with retrain: photographs, DIR/train/<class>/ and DIR/val/<class>/
retrain = False  # True: train plain and residual nets of 18 and 34 layers there
out_dir = "runs"  # folder for runs made here
depth = 18  # layers of the net that is tested on a photograph: 18, 34, 50, 101, 152

# %% tags=["hide-input"]
import json
import re
from dataclasses import replace
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from matplotlib.patches import Rectangle
from sklearn.datasets import load_sample_images
from torch.nn.functional import relu
from torchvision.transforms.v2.functional import center_crop, resize

import reslib
from reslib import CIFAR, IMAGENET, evaluation, record
from reslib.checkpoint import State
from reslib.data import data_folder
from reslib.data import photographs as photos
from reslib.data.draws import photo_draws
from reslib.evidence import chapter, claims, comparison, counts, parameters, plan, plots
from reslib.evidence import reruns as public
from reslib.evidence.audit import load_audits
from reslib.files import temporary
from reslib.resnet import IMAGENET_NETS
from reslib.sgd import lr_at, watch_plateau

# %% tags=["hide-input"]
parameters.check(
    globals(),
    scale=parameters.choice("demo", "pocket", "night", "paper"),
    data_dir=lambda text: text and Path(text).expanduser(),
    retrain=parameters.flag,
    out_dir=Path,
    depth=parameters.choice(*IMAGENET_NETS),
)
if retrain and (scale == "demo" or not data_dir):
    says = "give data_dir, a folder of photographs, and a scale: pocket, night, paper."
    raise parameters.ParameterError(f"retrain: {says}")
if retrain:  # what is wrong with the folder is said before any work
    for part in ("train", "val"):
        photos.tree(data_dir, part)
depth, paper, say = int(depth), claims.paper(), chapter.say
plots.style()
torch.set_num_threads(1)  # what is live here is too small to be shared out


# %% [markdown]
# ## How the paper trains
#
# What does section 3.4 do to get from a photograph to a weight? It is one recipe, {numref}`tab-imagenet-recipe`; each line is told
# below. Where the paper leaves something open, `reslib.recipes.DEPARTURES` says what is done here.

# %% mystnb={"figure": {"caption": "Section 3.4 as a recipe, reslib.IMAGENET.", "name": "tab-imagenet-recipe"}} tags=["hide-input"]
SHOWN = {
    "batch": "images of an iteration",
    "lr": "learning rate at the start",
    "plateau": "divided by 10 when the error plateaus",
    "steps": "iterations, at most",
    "momentum": "of SGD",
    "weight_decay": "on all parameters",
    "short_side": "pixels: the shorter side is drawn from this range",
    "size": "pixels: width of the crop",
    "flip": "half of the crops are mirrored",
    "colour": "standard deviation of the colour augmentation",
    "init": "He initialisation, by",
}
rows = [(name, str(getattr(IMAGENET, name)), what) for name, what in SHOWN.items()]
pd.DataFrame(rows, columns=["field", "value", "what it is"]).style.hide(axis="index")

# %% [markdown]
# (paper-3-4-augmentation)=
# ### One photograph, four times
#
# What does training see of a photograph? Hardly ever the same pixels twice. Its shorter side is resized to a length drawn from
# [256, 480], which changes the size of objects; a crop of 224×224 pixels is cut out, which moves them; half of the crops are
# mirrored. The mean image is subtracted. Last, a colour is added to all pixels alike: the principal components of the colours
# of all training pixels, each times its eigenvalue and a normal number with a standard deviation of 0.1
# {cite:p}`krizhevsky2012imagenet`. That imitates a change of light.
#
# All of it is drawn from the seed, the epoch and the number of the photograph alone. The function below is the whole
# augmentation, and is held to what `reslib.loader` yields.

# %% tags=["hide-input"]
folder = temporary()
samples = load_sample_images().images
for name, pixels in zip(("building", "flower"), samples, strict=True):
    (folder / "train" / name).mkdir(parents=True)
    plt.imsave(folder / "train" / name / "0.jpg", pixels)
tree = photos.tree(folder, "train")
mean, covariance = photos.statistics(folder)  # of these two; of ImageNet, where it is
eigenvalues, components = photos.components(covariance)
mean = torch.from_numpy(mean).permute(2, 0, 1)  # (3, 224, 224)


# %%
def place(image, draw, sample):  # the resized image's size, and the crop's corner in it
    height, width = image.shape[1:]
    short, side = min(height, width), int(draw.scale[sample])
    tall, wide = height * side // short, width * side // short
    top = int(draw.top[sample]) * (tall - 224 + 1) >> 32
    left = int(draw.left[sample]) * (wide - 224 + 1) >> 32
    return tall, wide, top, left


def training_crop(image, draw, sample):  # uint8 (3, H, W) -> float32 (3, 224, 224)
    tall, wide, top, left = place(image, draw, sample)
    scaled = resize(image, [tall, wide], antialias=True)
    crop = scaled[:, top : top + 224, left : left + 224] / 255 - mean
    crop = crop.flip(2) if draw.flip[sample] else crop
    shift = components @ (eigenvalues * draw.colour[sample])
    return crop + torch.from_numpy(shift).float()[:, None, None]


# %% tags=["hide-input"]
pair = replace(IMAGENET, batch=2)
pictures = [photos.decoded(tree.folder / name) for name in tree.names]
seen = []
for epoch in range(4):
    draw = photo_draws(pair.seed, epoch, len(pictures), pair.short_side, pair.colour)
    where = dict(data_dir=folder, epoch=epoch, backend="torch", workers=0)
    batch, _ = next(iter(reslib.loader(pair, "train", **where)))
    for i, sample in enumerate(draw.order):
        expected = training_crop(pictures[sample], draw, sample)
        torch.testing.assert_close(batch[i], expected)
    seen.append((draw, batch[list(draw.order).index(1)]))

# %% [markdown]
# {numref}`fig-imagenet-crops` shows four epochs of one photograph. The colours hardly change to the eye:
# {numref}`fig-imagenet-colour` exaggerates them.

# %% mystnb={"figure": {"caption": "One photograph in four epochs. Above: resized, with the crop marked; the same flower is larger or smaller. Below: what the net sees, each time mirrored with a chance of one half (here once) and tinted; the mean image is added again to be looked at.", "name": "fig-imagenet-crops"}, "image": {"alt": "Four columns, one an epoch: above, a photograph of a flower at four sizes with a square of 224 pixels marked; below, the four crops."}} tags=["hide-input"]
flower = pictures[1]
figure, axes = plt.subplots(2, 4, figsize=(8, 4))
for (above, below), (draw, crop) in zip(axes.T, seen, strict=True):
    tall, wide, top, left = place(flower, draw, 1)
    above.imshow(resize(flower, [tall, wide], antialias=True).permute(1, 2, 0))
    above.add_patch(Rectangle((left, top), 223, 223, fill=False, color="white", lw=1.5))
    above.set(xlim=(0, 750), ylim=(480, 0), facecolor="white")
    above.set_title(f"shorter side {draw.scale[1]}", fontsize="small")
    again = mean.flip(2) if draw.flip[1] else mean  # subtracted before it was mirrored
    below.imshow((crop + again).permute(1, 2, 0).clip(0, 1))
    below.set_title("mirrored" if draw.flip[1] else "as it is", fontsize="small")
for ax in axes.flat:
    ax.set_axis_off()
# %% mystnb={"figure": {"caption": "The colour augmentation, ten times as strong as in training: one component of colour at a time, two standard deviations down (left) and up (right). The first is about brightness.", "name": "fig-imagenet-colour"}, "image": {"alt": "The same crop of a flower, six times: darker and lighter, then with two opposite shifts of hue, twice."}} tags=["hide-input"]
centre = center_crop(resize(flower, [256]) / 255, [224, 224])
figure, axes = plt.subplots(1, 6, figsize=(8, 1.5))
for i, ax in enumerate(axes):
    number = np.zeros(3)
    number[i // 2] = 10 * 2 * IMAGENET.colour * (-1, 1)[i % 2]
    shift = torch.from_numpy(components @ (eigenvalues * number)).float()
    ax.imshow((centre + shift[:, None, None]).permute(1, 2, 0).clip(0, 1))
    ax.set_title(f"component {i // 2 + 1}", fontsize="x-small")
    ax.set_axis_off()
# %% [markdown]
# ### Where batch normalisation stands, and why there is no dropout
#
# Where does BN stand? "Right after each convolution and before activation"; [chapter 3](03_architectures.ipynb) says why, and why
# convolutions then need no bias. In a residual block the last BN stands before the addition. An identity shortcut is not
# normalised, so with option A nothing on the way from the first block to the last rescales the signal. (A projection of options
# B and C has its own BN.)
#
# Why no dropout? The paper gives no reason but the practice of {cite:t}`ioffe2015batch`, who found that nets with BN need it
# less: each image's activations depend on the other images of its batch, which is noise of its own. A second reason is in the
# nets: dropout was used in the large fully connected layers of AlexNet and VGG
# {cite:p}`krizhevsky2012imagenet,simonyan2015very`, and a ResNet has one, after a global average.

# %% [markdown]
# (paper-3-4-schedule)=
# ### When the error plateaus
#
# When is the learning rate divided by 10? "When the error plateaus": the paper gives no criterion. Here it is part of the recipe: when
# more than `plateau_patience` passes over the validation images in a row bring no error lower than the lowest by more than
# `plateau_threshold` points, and at most `plateau_drops` times. The code that training runs, on an error that is **made up**:
# it falls towards a floor, the floor depends on the learning rate, and each pass adds noise.

# %%
rng, state, error, rows = np.random.default_rng(0), State(), 99.0, []
floors = {0: 45.0, 1: 30.0, 2: 26.0, 3: 25.5}  # made up: percent, by divisions so far
for step in range(0, IMAGENET.steps, IMAGENET.eval_every):
    error += 0.15 * (floors[state.drops] - error)  # a pass every eval_every iterations
    measured = error + rng.normal(0, 0.15)
    rows.append((step, lr_at(IMAGENET, step, drops=state.drops), measured))
    watch_plateau(IMAGENET, state, measured)
stairs = pd.DataFrame(rows, columns=["step", "lr", "error"])

# %% tags=["hide-input"]
real = [r for r in record.load() if r.recipe == replace(CIFAR, seed=r.recipe.seed)]
first = []
for run in real:  # real errors, up to the division that their own schedule makes
    watched = State()
    curve = run.frame().dropna(subset="test_error")
    for row in curve[curve.step <= CIFAR.milestones[0]].itertuples():
        watch_plateau(IMAGENET, watched, row.test_error)
        if watched.drops:
            first.append(int(row.step))
            break

# %% mystnb={"figure": {"caption": "The plateau rule on a made-up sequence of errors. Above: the error after each pass. Below: the learning rate that the rule gives, a staircase whose steps nobody has set beforehand.", "name": "fig-imagenet-plateau"}, "image": {"alt": "Above, an error that falls in three stages and levels out in each; below, a learning rate that is divided by ten after each levelling out."}} tags=["hide-input"]
figure, (above, below) = plt.subplots(2, 1, sharex=True, figsize=(8, 3.6))
above.plot(stairs.step, stairs.error, ".-", color="#0b5394", lw=0.8, ms=4)
above.set(ylabel="error (%), made up")
below.step(stairs.step, stairs.lr, where="post", color="#b04a00")
below.set(yscale="log", ylabel="learning rate", xlabel="iterations")
# %% [markdown]
# {numref}`fig-imagenet-plateau` is the result. On real errors the rule can be tried only up to the point where a run changes its own
# rate. {numref}`tab-imagenet-first-drop` does that with ResNet-20 on CIFAR-10: a pass there comes every 1,000 iterations, and the
# run's own schedule waits until 32,000.

# %% mystnb={"figure": {"caption": "The plateau rule on the errors of recorded runs, up to the iteration at which their own schedule divides the rate. Noise between passes can end the first stage early.", "name": "tab-imagenet-first-drop"}} tags=["hide-input"]
told = {"recorded runs of ResNet-20 at the paper's scale": len(real)}
told["in which the rule divides the rate before their own schedule does"] = len(first)
told["at iteration"] = ", ".join(f"{step:,}" for step in first) or "-"
pd.Series(told).to_frame("the plateau rule")

# %% [markdown]
# (paper-3-4-testing)=
# ## How the paper tests
#
# How is a net tested that was trained on crops? Three ways, not to be compared with each other: Tables 2 and 3 average ten crops,
# Table 4 takes whole photographs at five scales, and the validation curves of Fig. 4 are of one centre crop.
#
# **Ten crops**: the corners and the middle, and their mirror images, out of the middle 256×256 pixels
# {cite:p}`krizhevsky2012imagenet`. The net's probabilities for the ten are averaged ({numref}`fig-ten-crops`).


# %%
def ten_crops(image, size):  # (3, H, W) -> (10, 3, size, size)
    height, width = image.shape[1:]
    places = [(y, x) for y in (0, height - size) for x in (0, width - size)]
    places.append(((height - size) // 2, (width - size) // 2))
    crops = torch.stack([image[:, y : y + size, x : x + size] for y, x in places])
    return torch.cat([crops, crops.flip(3)])


square = center_crop(resize(flower, [256]) / 255, [256, 256])
assert torch.equal(ten_crops(square, 224), evaluation.ten_crop(square, 224))

# %% mystnb={"figure": {"caption": "Left: the middle 256\u00d7256 pixels of a photograph whose shorter side is 256, with the four corner crops marked. Right: the ten crops, which differ by a few pixels and by their side.", "name": "fig-ten-crops"}, "image": {"alt": "A square photograph of a flower with four overlapping squares marked in it, and ten nearly equal crops of it, five of them mirrored."}} tags=["hide-input"]
figure, axes = plt.subplots(2, 6, figsize=(8, 2.9))
for ax in axes.flat:
    ax.set_axis_off()
axes[0, 0].imshow(square.permute(1, 2, 0))
for y in (0, 32):
    for x in (0, 32):
        axes[0, 0].add_patch(Rectangle((x, y), 223, 223, fill=False, lw=0.8))
for ax, crop in zip(axes[:, 1:].flat, ten_crops(square, 224), strict=True):
    ax.imshow(crop.permute(1, 2, 0))
# %% [markdown]
# **Fully convolutional.** Global average pooling and the last layer are both linear, so they can change places: the last
# layer is applied at every position of the last map, as a 1×1 convolution, and the *scores* are averaged. At 224 pixels this
# is the same net, which is asserted. But it takes photographs of any size and shape, whole, and at five scales
# ({numref}`fig-five-scales`): an object that is too large at one of them is right at another.


# %%
@torch.no_grad()
def scores(net, x):  # (B, 3, H, W) -> (B, classes, h, w)
    x = net.maxpool(relu(net.bn1(net.conv1(x))))
    for stage in (net.layer1, net.layer2, net.layer3, net.layer4):
        x = stage(x)
    return torch.einsum("kc,bchw->bkhw", net.fc.weight, x) + net.fc.bias[:, None, None]


option = {layers: "A" if layers < 50 else "B" for layers in IMAGENET_NETS}
net = replace(IMAGENET, depth=depth, shortcut=option[depth]).net().eval()  # untrained
with torch.no_grad():
    x = centre[None] - mean
    close = dict(rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(scores(net, x).mean((2, 3)), net(x), **close)
    torch.testing.assert_close(scores(net, x), evaluation.score_map(net, x), **close)

# %% mystnb={"figure": {"caption": "The five scales of section 3.4, drawn to the same measure; the square is what the net was trained on, 224 pixels. The titles give the map of scores that is averaged.", "name": "fig-five-scales"}, "image": {"alt": "The same photograph at shorter sides of 224, 256, 384, 480 and 640 pixels, each with a square of 224 pixels."}} tags=["hide-input"]
whole = [resize(flower, [side]) / 255 for side in evaluation.SIDES]
keys = dict(width_ratios=[view.shape[2] for view in whole])
figure, axes = plt.subplots(1, 5, figsize=(8, 2), gridspec_kw=keys)
for ax, view in zip(axes, whole, strict=True):
    *_, height, width = evaluation.score_map(net, view[None]).shape
    ax.imshow(view.permute(1, 2, 0))
    ax.add_patch(Rectangle((0, 0), 223, 223, fill=False, color="white", lw=1.2))
    ax.set_title(f"{view.shape[1]}: {width}×{height}", fontsize="x-small")
    ax.set_axis_off()
# %% [markdown]
# From a shell, for weights of one's own or of others, with the columns of Tables 3 to 5:
#
# ```console
# $ python -m reslib test --data-dir DIR --how ten --weights runs/NAME.safetensors
# $ python -m reslib test --data-dir DIR --how scales --weights torchvision:resnet50
# $ python -m reslib test --data-dir DIR --how scales --weights one.pth --weights two.pth
# ```
#
# torchvision's ResNet-50, -101 and -152 are not the authors' nets but "v1.5", with the stride in another layer ([chapter
# 3](03_architectures.ipynb)). Weights of one load into the other without a word and compute something else; `test` says which it
# takes.

# %% [markdown]
# (paper-fig-4)=
# ## Our own nets
#
# Can we draw Fig. 4 of nets of our own? With a folder of photographs anybody can: this page trains plain and residual nets of
# 18 and 34 layers there, on crops of 64 pixels (at `paper` scale: of 224). On other photographs than ImageNet's that is an
# *extension* of the paper, and shows a direction at most.
#
# The extension that is planned, with three seeds a net, takes ten of ImageNet's classes: the 4,500 training and 1,500
# validation photographs of a part of [Imagenette](https://github.com/fastai/imagenette), at 224×224 pixels. Its recipe is
# section 3.4's with crops of 64 pixels, a batch of 128, 2,000 iterations and milestones at half and three quarters of them; a
# ResNet-50 with option B joins the four nets of Fig. 4. The rules stand on [the page of claims](../claims.md). The figure below
# has the runs recorded so far; a claim is *incomplete* until all of its runs are in.

# %%
pocket = replace(IMAGENET, size=64, batch=32, steps=80, log_every=10, eval_every=40)
pocket = replace(pocket, plateau=False, milestones=(40, 60))
night = IMAGENET.at("extension")
recipe = {"pocket": pocket, "night": night, "paper": IMAGENET}.get(scale, night)
nets = [replace(recipe, depth=n, shortcut=s) for s in (None, "A") for n in (18, 34)]

# %% tags=["hide-input"]
if retrain:
    where = dict(data_dir=data_dir, out_dir=out_dir)
    ours = [reslib.train(one, **where) for one in nets]
else:
    ours = [run for run in record.load() if run.recipe.data == "imagenet"]
for run in ours:
    print(run.provenance())
if not ours:
    planned = len(list(plan.planned("extension")))
    say(f"None of the {planned} planned runs is recorded yet. What makes them:")
    print("python -m reslib sweep --scale extension --data-dir DIR --out runs")

# %% mystnb={"figure": {"caption": "Plain-34 does not start; the nets of 18 layers train alike. The extension so far: running training error (%) of our own plain nets (left) and residual nets (right) on other photographs than ImageNet's, over iterations; a thin line a seed, a bold one their mean.", "name": "fig-extension"}, "image": {"alt": "Two panels of running training error over iterations, plain nets on the left and residual nets on the right, for the nets that are recorded."}} tags=["hide-input"]
if ours:
    figure, (left, right) = plt.subplots(1, 2, sharey=True)
    runs = reslib.curves(ours)
    plots.learning_curve(runs[runs.shortcut == "none"], "train_error", left)
    plots.learning_curve(runs[runs.shortcut != "none"], "train_error", right)
    left.set_title("plain")
    right.set_title("residual")
    stuck = [r.recipe.told == "plain-34" for r in ours if not comparison.started(r)]
    every = [run for run in ours if run.recipe.told == "plain-34"]
    assert retrain or (all(stuck) and len(stuck) == len(every))  # the words below

# %% [markdown]
# So far plain-34 alone never starts: a failed start, as of plain-56 in some short trainings, and not the degradation of Fig. 4. At
# 18 layers the residual net so far ends behind the plain one ({numref}`tab-extension`), against what C7 says.

# %% mystnb={"figure": {"caption": "At 18 layers the residual net is so far behind the plain one. Errors (%) at the end, means over n seeds. Ten classes, crops of 64 pixels: not to be compared with any number of the paper.", "name": "tab-extension"}} tags=["hide-input"]
ends = [(r.recipe.told, r.final["train_error"], r.final["test_error"]) for r in ours]
ends = pd.DataFrame(ends, columns=["net", "training error", "top-1 error"])
ends = ends.groupby("net", sort=False).mean().assign(n=ends.net.value_counts())
assert retrain or (of := ends["top-1 error"].get)("ResNet-18", 99) > of("plain-18", 0)
ends.style.format(precision=1).format("{:.0f}", subset=["n"]) if ours else None

# %% [markdown]
# (paper-table-2)=
# (paper-table-4)=
# (paper-c2)=
# (paper-c7)=
# (paper-c9)=
# ## Tables 2 to 5
#
# How close does anybody come to the paper's numbers? The tables set beside each other what the paper printed, what others
# published on the same 50,000 validation images {cite:p}`russakovsky2015imagenet`, and what a replication takes. None of ours is
# among them.
#
# The GPU hours are counted: a training step costs about three forward passes, a multiply-add is two operations, and the
# rate is the best that was measured on an H200 GPU with the nets of CIFAR-10, several at once. We expect large nets to use a GPU
# better than these, and so fewer hours; the loading of photographs is not counted.

# %% tags=["hide-input"]
gpu = max((record.folder() / "bench").glob("gpu-*.json"), key=lambda p: p.stem[-10:])
gpu = json.loads(gpu.read_text())
small = counts.multiply_adds(counts.shape_of(reslib.cifar_resnet, 20), gpu["size"])
timed = pd.DataFrame(gpu["rows"]).query("net == 'ResNet-20'")
rate = timed.iterations_per_second.max()  # several runs at once
rate *= gpu["batch"] * small * 6  # operations a second, of training


def hours(layers, shortcut):
    net = counts.shape_of(reslib.imagenet_resnet, layers, shortcut)
    work = 6 * counts.multiply_adds(net, IMAGENET.size) * IMAGENET.batch
    return work * IMAGENET.steps / rate / 3600


everyone = public.reruns().query("in_meta != 'no' and recipe != 'far'")


def rerun(layers, shortcut, views):  # a net's published errors, cited
    found = everyone[everyone.dataset == f"ImageNet ({views}, top-1)"]
    found = found[(found.net == "resnet") & (found.depth == layers)]
    found = found[found.shortcut.replace("", "B") == shortcut]
    found = found.drop_duplicates("author").sort_values("test_error")
    found = [f"<a href='{r.url}'>{r.test_error:.2f}</a>" for r in found.itertuples()]
    return ", ".join(found) or "none found"


def printed(table, name):
    found = [paper.get(f"table{table}.{name}.top{k}_error") for k in (1, 5)]
    return " / ".join("–" if one is None else f"{one:.2f}" for one in found)


def rows_of(table, nets, views):
    rows = []
    for name, (layers, shortcut) in nets.items():
        quantity = re.sub("[- ]", "", name).replace("ResNet", "resnet")
        rows.append(
            {
                "net": name,
                "paper": printed(table, quantity),
                "public reruns": rerun(layers, shortcut, views),
                "H200 hours, counted": f"{hours(layers, shortcut):.0f}",
            }
        )
    wrapped = {"subset": ["public reruns"], "white-space": "normal"}
    return pd.DataFrame(rows).style.hide(axis="index").set_properties(**wrapped)


# %% [markdown]
# {numref}`tab-imagenet-2` and {numref}`tab-imagenet-3` are by ten crops, and one public source tested so. Its recipe differs
# from the paper's, most in scale and aspect augmentation, and its nets have option B, the default of its code. Sources that do
# not say which option their nets have stand beside B too, as most libraries have it.

# %% mystnb={"figure": {"caption": "Table 2: top-1 error (%) on the validation images, ten crops. Public reruns: each number links to its source. Hours: of one run, counted.", "name": "tab-imagenet-2"}} tags=["hide-input"]
TWO = {f"plain-{n}": (n, None) for n in (18, 34)}
TWO |= {f"ResNet-{n}": (n, "A") for n in (18, 34)}
rows_of(2, TWO, "10-crop")

# %% [markdown]
# One public source has a plain net of Table 2, tested by one crop ({numref}`tab-imagenet-plain`). It is worse than its residual
# twin, as C6 says of these two nets. One source judges nothing.

# %% mystnb={"figure": {"caption": "The one plain net on ImageNet that we found, and its residual twin by the same recipe: top-1 error (%) of one crop, mean over runs, and their standard deviation.", "name": "tab-imagenet-plain"}} tags=["hide-input"]
twins = everyone[(everyone.dataset == public.IMAGENET) & (everyone.depth == 34)]
twins = twins[twins.source.isin(twins[twins.net == "plain"].source)].set_index("net")
assert twins.source.nunique() == 1 and twins.test_error.plain > twins.test_error.resnet
twins = twins.rename({"plain": "plain-34", "resnet": "ResNet-34"}).sort_index()
twins = twins[::-1][["source", "test_error", "sd", "seeds"]]
twins.columns = ["source", "top-1 error", "sd", "runs"]
twins.style.format({"runs": "{:.0f}"}, precision=1)

# %% mystnb={"figure": {"caption": "Table 3: top-1 / top-5 error (%), ten crops. Public reruns: top-1 error, linked to the source.", "name": "tab-imagenet-3"}} tags=["hide-input"]
THREE = {f"ResNet-34 {s}": (34, s) for s in "ABC"}
THREE |= {f"ResNet-{n}": (n, "B") for n in (50, 101, 152)}
rows_of(3, THREE, "10-crop")

# %% [markdown]
# {numref}`tab-imagenet-4` is by whole photographs at five scales. We found no public rerun that tested so. What many published is the error of
# one centre crop, which stands there instead, and is higher by some points for that reason alone.

# %% mystnb={"figure": {"caption": "Table 4: top-1 / top-5 error (%), whole photographs at five scales. Public reruns: top-1 error of one centre crop, linked to the source.", "name": "tab-imagenet-4"}} tags=["hide-input"]
FOUR = {name: net for name, net in THREE.items() if name != "ResNet-34 A"}
rows_of(4, FOUR, "1-crop")

# %% [markdown]
# (paper-table-5)=
# ### Ensembles
#
# {numref}`tab-imagenet-5` is of ensembles on the *test* images, whose labels are not published. The paper names two of its six nets;
# the hours are those of two ResNet-152 and of the four smaller nets of {numref}`tab-imagenet-4`.

# %% mystnb={"figure": {"caption": "Table 5: top-5 error (%) of ensembles on the test images. No public rerun was found, and none is ours.", "name": "tab-imagenet-5"}} tags=["hide-input"]
FIVE = {
    "vgg_ilsvrc14": "VGG (ILSVRC'14)",
    "googlenet": "GoogLeNet",
    "vgg_v5": "VGG (v5)",
    "prelu_net": "PReLU-net",
    "bn_inception": "BN-inception",
    "resnet_ensemble": "six ResNets, two of 152 layers",
}
rows = {told: paper[f"table5.{name}.top5_error"] for name, told in FIVE.items()}
six = 2 * hours(152, "B") + sum(hours(n, "B") for n in (34, 34, 50, 101))
table = pd.Series(rows, name="paper").map("{:.2f}".format).to_frame()
table["H200 hours, counted"] = [""] * (len(table) - 1) + [f"{six:.0f}"]
table

# %% [markdown]
# ### What an ensemble gains: an analogue on CIFAR-10
#
# How much does averaging several nets bring? On CIFAR-10 it can be seen from the records: each holds the class that a net gave to
# every test image. Votes of recorded nets are an *analogue* of Table 5, not a test of it: there probabilities were averaged. Two
# nets help each other only where they disagree ({numref}`tab-imagenet-votes`).


# %%
def vote(predictions):  # (nets, images) -> (images,); of a tie, the first net's
    counts = np.stack([(predictions == k).sum(0) for k in range(10)])  # (10, images)
    counts = counts + 0.5 * (predictions[0] == np.arange(10)[:, None])
    return counts.argmax(0)


def disagreement(predictions):  # mean share of images on which two of the nets differ
    n = len(predictions)
    pairs = [(a, b) for a in range(n) for b in range(a)]
    return np.mean([(predictions[a] != predictions[b]).mean() for a, b in pairs])


# %% mystnb={"figure": {"caption": "Votes of recorded CIFAR-10 nets, an analogue of Table 5: % of the 10,000 test images. The vote errs less than the mean net and than the best one, which is chosen afterwards, on the same images. \u201cDisagree on\u201d: where two of the nets differ, on average.", "name": "tab-imagenet-votes"}} tags=["hide-input"]
own = [run for run in record.load() if run.recipe.scale == "paper"]
own = [run for run in own if run.recipe.data == "cifar10"]
audits = [a for a in load_audits() if a["shortcut"]]
by_others = [(a["measured"]["test_error"], a["test_predictions"]) for a in audits]
by_us = [(run.final["test_error"], run.test_predictions) for run in own]
groups = {  # test errors, and packed predictions
    "our nets, plain and residual": by_us,
    "public residual nets, audited": by_others,
}
there = (data_folder() / "cifar-10-batches-py" / "test_batch").is_file()
labels = reslib.data.images(CIFAR, train=False).labels if there else None
rows = []
for name, runs in groups.items():
    if len(runs) < 2:
        continue
    best_first = sorted(runs, key=lambda run: run[0])
    errors, packed = zip(*best_first, strict=True)
    predictions = np.stack([record.unpack(one) for one in packed])
    voted = "needs CIFAR-10"
    if there:
        voted = f"{100 * (vote(predictions) != labels).mean():.2f}"
    rows.append(
        {
            "nets": f"{len(runs)} {name}",
            "mean error": f"{np.mean(errors):.2f}",
            "the best one": f"{min(errors):.2f}",
            "their vote": voted,
            "disagree on": f"{100 * disagreement(predictions):.1f}",
        }
    )
pd.DataFrame(rows).style.hide(axis="index")

# %% [markdown]
# (paper-4-1-competition)=
# (paper-c20)=
# ### The competition
#
# **C20**: a single ResNet-152 (Table 4) has a lower top-5 error than all earlier *ensembles* (Table 5). That is arithmetic of printed
# numbers; but they are about different images, the validation set, on which a single model is chosen, and the test set.
# {numref}`tab-imagenet-c20` compares the difference with its standard error over images.

# %% mystnb={"figure": {"caption": "C20: a single net against the best earlier ensemble, both as printed.", "name": "tab-imagenet-c20"}} tags=["hide-input"]
pair_of = "table4.resnet152", "table5.bn_inception"
single, best = (paper[f"{name}.top5_error"] / 100 for name in pair_of)
tested = paper["s41.images_validation"], paper["s41.images_test"]
error = sum(p * (1 - p) / n for p, n in zip((single, best), tested, strict=True)) ** 0.5
rows = {
    "ResNet-152 alone, validation set (%)": f"{100 * single:.2f}",
    "the best earlier ensemble, test set (%)": f"{100 * best:.2f}",
    "difference (points)": f"{100 * (best - single):.2f}",
    "in standard errors over images": f"{(best - single) / error:.1f}",
}
pd.Series(rows).to_frame("top-5 error")

# %% [markdown]
# ## What one run can tell
#
# Every row of Tables 2 to 4 is one net, trained once as far as the paper says, so a difference of two rows has to be set against
# chance. The [appendix](08_one_run.ipynb) does it for C2 and C5 to C9: beyond chance over images are the large steps, and barely
# that of C2, but not the steps from A to B, from B to C, and from 101 to 152 layers.

# %% [markdown]
# ## Where the claims stand

# %% tags=["hide-input"]
ids = ("C2", "C5", "C6", "C7", "C8", "C9", "C20")
tried = ids[:-1]  # C20 is counted
rows = [(c.id, c.text, "not tested") for c in claims.CLAIMS if c.id in tried]
names = ["claim", "the paper, on ImageNet", "ours, on ImageNet"]
say(pd.DataFrame(rows, columns=names).to_markdown(index=False))
if any(one.recipe.scale == "extension" for one in record.load()):
    say("On other photographs, a direction at most:")
    say(claims.table(claims.verdicts(of=ids, scales=["extension"]), "ours"))
others = [("C9", "public"), ("C10", "counted"), ("C20", "counted")]
others = [claims.verdicts(of=[claim], scales=[kind]) for claim, kind in others]
say(claims.table(pd.concat(others), "paper", "ours"))

# %% [markdown]
# C9 is judged by [public reruns](07_reruns.ipynb), which crop in another way than the paper. C20 holds as arithmetic of the
# paper's numbers ({numref}`tab-imagenet-c20`). C5 to C8 are tried on CIFAR-10 in other chapters, and C10 is in
# [the one on architectures](03_architectures.ipynb).
#
# ## What was not tested, and why
#
# - **Everything at the paper's scale.** It needs ImageNet and the hours of the tables.
# - **Plain nets.** No public rerun that we found gives the error of a plain net of 18 layers, so C2 rests on the paper alone.
# - **The authors' own weights** of ResNet-50, -101 and -152 are in Caffe's format. Whoever has them, and the validation images,
#   can test Tables 3 and 4 without training, once they are in torchvision's names.
# - **Weights of libraries** come from other recipes, and from nets with another stride: their errors say little about the paper's.
# - **Fig. 4 itself**: {numref}`fig-extension` is of other photographs, and the paper gives no numbers of its curves.
#
# ## Exercises
#
# 1. How many epochs of ImageNet's 1,281,167 training images are 600,000 iterations?

# %% tags=["hide-cell"]
print(f"{IMAGENET.steps * IMAGENET.batch / 1_281_167:.0f} epochs")

# %% [markdown]
# 2. Which share of the photograph does a crop of 224×224 show, at the smallest and at the largest scale? Take a photograph of
#    500×375 pixels. What does that mean for the size of objects at test time?
#
# ```{admonition} Solution
# :class: dropdown
# The crop shows from more than a half to a sixth of it. On average the net is trained on larger objects than a centre crop at a
# shorter side of 256 shows it, which is one reason why larger scales help at test time.
# ```

# %% tags=["hide-cell"]
for side in IMAGENET.short_side:
    print(f"{side}: {224**2 / (side * side * 500 / 375):.0%}")

# %% [markdown]
# 3. Set the patience of the plateau rule to 0 and to 20, with the made-up errors. What goes wrong in each case?
#
# ```{admonition} Solution
# :class: dropdown
# With 0, noise alone ends a stage. In this made-up model nothing is lost by it, because a floor depends on the rate alone; a real
# net that stops early at a high rate may not catch up. With 20, the iterations are spent on floors, and later divisions never come.
# ```

# %% tags=["hide-cell"]
for patience in (0, 20):
    tried, state, error = replace(IMAGENET, plateau_patience=patience), State(), 99.0
    at, rng = [], np.random.default_rng(0)
    for step in range(0, tried.steps, tried.eval_every):
        error += 0.15 * (floors[state.drops] - error)
        before = state.drops
        watch_plateau(tried, state, error + rng.normal(0, 0.15))
        at += [step] * (state.drops - before)
    print(f"patience {patience}: divided at {at}, ends at {error:.1f} %")

# %% [markdown]
# 4. Ten crops are not independent: how much do two corner crops overlap? Why do they help all the same?
#
# ```{admonition} Solution
# :class: dropdown
# Two opposite corners share the middle 192×192 pixels. But a net with stride 32 sees them at other positions of its grid, and the
# mirror image is new: errors that depend on such details average out.
# ```

# %% tags=["hide-cell"]
print(f"opposite corners share {(2 * 224 - 256) ** 2 / 224**2:.0%} of their pixels")

# %% [markdown]
# 5. Three nets err on 30 % of the images each, independently, and those that err on an image all name the same wrong class. What
#    is the error of their vote? And if all wrong answers differ, and a tie goes to the first net? And if the three err on the same
#    images?
#
# ```{admonition} Solution
# :class: dropdown
# The same wrong class: two must err, 21.6 %. Wrong answers that differ: the first net must err, and another one too; if only
# one errs, the other two outvote it. That is 15.3 %. The same images: 30 %, whatever is averaged. Table 5's gain lies between.
# ```

# %% tags=["hide-cell"]
rng = np.random.default_rng(0)
wrong = rng.random((3, 1_000_000)) < 0.3
differ = wrong[0] & (wrong[1] | wrong[2])
print(f"the same {(wrong.sum(0) >= 2).mean():.1%}, different {differ.mean():.1%}")
print(f"exactly {3 * 0.3**2 * 0.7 + 0.3**3:.3f} and {0.3 * (1 - 0.7**2):.3f}")
