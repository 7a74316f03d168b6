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
# > **None of these is replicated here.** They need ImageNet, and far more computing than this machine has. What this page
# > does instead: it writes out how the paper trains and tests, and holds the code of `reslib` to it; it counts what a
# > replication costs; and it asks how much the paper's tables, one run a net, can bear at all. That can be answered without
# > training.
# >
# > **What this costs.** Seconds, and no download: the photographs come with scikit-learn.

# %% tags=["parameters"]
scale = "demo"  # any of "demo", "pocket", "night", "paper": nothing is trained here, the page is the same at each
depth = 18  # layers of the net that is tested on a photograph: 18, 34, 50, 101, 152

# %% tags=["hide-input"]
from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from IPython.display import Markdown, display
from matplotlib.patches import Rectangle
from sklearn.datasets import load_sample_images
from torch.nn.functional import relu
from torchvision.transforms.v2.functional import resize

import reslib
from reslib import IMAGENET, evaluation
from reslib.bench import step as bench
from reslib.data import photographs as photos
from reslib.data.draws import photo_draws
from reslib.evidence import claims, counted, counts, parameters, plots
from reslib.files import temporary
from reslib.resnet import IMAGENET_NETS

parameters.check(
    globals(),
    scale=parameters.choice("demo", "pocket", "night", "paper"),
    depth=parameters.choice(*IMAGENET_NETS),
)
depth = int(depth)  # 50.0 is taken as 50
paper = claims.paper()
plots.style()
torch.set_num_threads(1)  # what is live here is too small to be shared out


def say(text):
    display(Markdown(text))


# %% [markdown]
# (paper-3-4-augmentation)=
# (paper-3-4-schedule)=
# ## How the paper trains
#
# Section 3.4 in one recipe. Where it leaves something open, `reslib.recipes.DEPARTURES` says what is done here; the book's
# first page has the list.

# %%
shown = ["batch", "lr", "momentum", "weight_decay", "steps", "plateau", "size", "short_side", "colour", "flip"]
pd.Series({name: IMAGENET.as_dict()[name] for name in shown}, name="section 3.4").to_frame()

# %% [markdown]
# **A training image** is resized so that its shorter side has a length drawn from [256, 480]; a crop of 224x224 pixels is cut
# out, mirrored in half of the cases, the mean image is subtracted, and a colour is added: the principal components of the
# colours of all pixels, each times its eigenvalue and a number drawn from a normal distribution with a standard deviation of
# 0.1. Written out, and held to what `reslib.loader` yields:

# %%
folder = temporary()
for name, pixels in zip(("building", "flower"), load_sample_images().images, strict=True):
    (folder / "train" / name).mkdir(parents=True)
    plt.imsave(folder / "train" / name / "0.jpg", pixels)
tree = photos.tree(folder, "train")
mean, covariance = photos.statistics(folder)  # of these two photographs; of ImageNet, where there is ImageNet
eigenvalues, components = photos.components(covariance)
mean = torch.from_numpy(mean).permute(2, 0, 1)  # (3, 224, 224)


def training_crop(image, draw, sample):  # uint8 (3, H, W) -> float32 (3, 224, 224)
    height, width = image.shape[1:]
    short, side = min(height, width), int(draw.scale[sample])
    tall, wide = height * side // short, width * side // short
    top, left = (int(u) * (n - 224 + 1) >> 32 for u, n in ((draw.top[sample], tall), (draw.left[sample], wide)))
    crop = resize(image, [tall, wide], antialias=True)[:, top : top + 224, left : left + 224]
    crop = crop / 255 - mean
    crop = crop.flip(2) if draw.flip[sample] else crop
    return crop + torch.from_numpy(components @ (eigenvalues * draw.colour[sample])).float()[:, None, None]


twice = replace(IMAGENET, batch=2)
pictures = [photos.decoded(tree.folder / name) for name in tree.names]
seen = []
for epoch in range(4):
    draw = photo_draws(
        twice.seed, epoch, len(pictures), twice.short_side, twice.colour
    )  # of the seed, the epoch and the image alone
    batch, _ = next(iter(reslib.loader(twice, "train", data_dir=folder, epoch=epoch, backend="torch", workers=0)))
    for i, sample in enumerate(draw.order):
        torch.testing.assert_close(batch[i], training_crop(pictures[sample], draw, sample))
    seen.append((draw, batch))

# %% mystnb={"figure": {"caption": "Two photographs, and what training sees of them in four epochs; the mean image is added again to be looked at.", "name": "fig-imagenet-crops"}} tags=["hide-input"]
figure, axes = plt.subplots(2, 5, figsize=(8, 3))
for row, picture in zip(axes, pictures, strict=True):
    row[0].imshow(picture.permute(1, 2, 0))
    row[0].set_title(f"{picture.shape[2]} x {picture.shape[1]}", fontsize="small")
for column, (draw, batch) in zip(axes.T[1:], seen, strict=True):
    for crop, sample in zip(batch, draw.order, strict=True):
        again = mean.flip(2) if draw.flip[sample] else mean  # it was subtracted before the crop was mirrored
        column[sample].imshow((crop + again).permute(1, 2, 0).clip(0, 1))
        column[sample].set_title(f"shorter side {draw.scale[sample]}", fontsize="small")
for ax in axes.flat:
    ax.set_axis_off()
# %% [markdown]
# (paper-3-4-testing)=
# ## How the paper tests
#
# Three ways, and they are not to be compared with each other: Tables 2 and 3 are by ten crops, Table 4 by "the fully
# convolutional form" at several scales, the authors' later release notes by one crop.
#
# **Ten crops**: the corners and the middle of the photograph, and their mirror images; the probabilities are averaged.


# %%
def ten_crops(image, size):  # (3, H, W) -> (10, 3, size, size)
    height, width = image.shape[1:]
    corners = [(y, x) for y in (0, height - size) for x in (0, width - size)]
    places = [*corners, ((height - size) // 2, (width - size) // 2)]
    crops = [image[:, y : y + size, x : x + size] for y, x in places]
    return torch.stack([*crops, *(crop.flip(2) for crop in crops)])


square = evaluation.square(evaluation.shorter(pictures[1], 256), 256)
assert torch.equal(ten_crops(square, 224), evaluation.ten_crop(square, 224))

# %% mystnb={"figure": {"caption": "Ten crops of the middle 256x256 pixels of a photograph whose shorter side is 256.", "name": "fig-ten-crops"}} tags=["hide-input"]
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
# layer is applied at every position of the last map, as a 1x1 convolution, and the *scores* are averaged. At 224 pixels that
# is the same net, which is asserted. But it takes photographs of any size and shape, whole.


# %%
@torch.no_grad()
def scores(net, x):  # (B, 3, H, W) -> (B, classes, h, w)
    x = net.maxpool(relu(net.bn1(net.conv1(x))))
    for stage in (net.layer1, net.layer2, net.layer3, net.layer4):
        x = stage(x)
    return torch.einsum("kc,bchw->bkhw", net.fc.weight, x) + net.fc.bias[:, None, None]


option = {layers: "A" if layers < 50 else "B" for layers in IMAGENET_NETS}  # the paper's nets
net = replace(IMAGENET, depth=depth, shortcut=option[depth]).net().eval()  # untrained: its scores mean nothing, their places do
with torch.no_grad():
    x = evaluation.square(evaluation.shorter(pictures[1], 256), 224)[None] - mean
    torch.testing.assert_close(scores(net, x).mean((2, 3)), net(x), rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(scores(net, x), evaluation.score_map(net, x), rtol=1e-3, atol=1e-4)

rows = []
for side in evaluation.SIDES:
    view = evaluation.shorter(pictures[1], side)
    *_, height, width = evaluation.score_map(net, view[None]).shape
    rows.append((side, f"{view.shape[2]} x {view.shape[1]}", f"{width} x {height}"))
sizes = pd.DataFrame(rows, columns=["shorter side", "image", "map of scores"]).set_index("shorter side")
sizes.style.set_caption(f"The second photograph at the five scales of section 3.4, through ResNet-{depth}")

# %% [markdown]
# (paper-table-2)=
# (paper-table-4)=
# (paper-c2)=
# (paper-c7)=
# (paper-c9)=
# ## What the tables can bear
#
# The paper's Tables 2 to 5. These are its numbers, not ours: none of them is made again here.

# %% tags=["hide-input"]
TABLES = {"2": "Table 2, 10-crop", "3": "Table 3, 10-crop", "4": "Table 4, single nets", "5": "Table 5, ensembles, test set"}
printed = {}
for quantity, value in paper.items():
    table, _, rest = quantity.partition(".")
    net, _, what = rest.partition(".")
    if table[:5] == "table" and table[5:] in TABLES and what in ("top1_error", "top5_error"):
        printed.setdefault(net, {})[TABLES[table[5:]], what[:4].replace("p", "p-")] = value
pd.DataFrame(printed).T.sort_index(axis=1).style.format("{:.2f}", na_rep="").set_caption(
    "Errors on ImageNet (%), as the paper prints them: validation set, but for Table 5"
)

# %% [markdown]
# Every row of Tables 2 to 4 is one net, trained once as far as the paper says, tested on the same 50,000 validation images.
# Two things could make such a row come out otherwise. One is *other images*. The other is *another training run*, a new
# initialisation and a new order; the paper says nothing about it on ImageNet. The first can be bounded without a single run.
#
# Say that two nets have top-1 errors $p$ and $q$, and predict one of them rightly and the other wrongly on a share $d$ of the
# images. Then the variance of the difference is $(d - (p - q)^2) / N$. Only $d$ is unknown, and it has bounds: it is at least
# $|p - q|$, when the better net is right wherever the worse one is, and at most $p + q$, when they never fail together. Two
# nets that fail *independently* lie between, at $p + q - 2pq$.
#
# **Prediction.** A difference that the paper makes something of is larger than twice its standard error, even if the two nets
# fail independently.


# %%
def standard_error(p, q, disagreement, images):  # of p - q, all as fractions
    return ((disagreement - (p - q) ** 2) / images) ** 0.5


p, q, n = 0.25, 0.28, 5_000  # tried out: 2,000 test sets of n images, on which two nets fail independently
fail = np.random.default_rng(0).multinomial(n, [p * (1 - q), (1 - p) * q, p * q, (1 - p) * (1 - q)], 2_000)
simulated = ((fail[:, 0] - fail[:, 1]) / n).std()  # one net alone fails, less the other alone
assert abs(simulated / standard_error(p, q, p + q - 2 * p * q, n) - 1) < 0.05

COMPARED = {
    ("C2", "plain-34 - plain-18"): ("table2.plain34", "table2.plain18"),
    ("C7", "plain-18 - ResNet-18"): ("table2.plain18", "table2.resnet18"),
    ("C5", "ResNet-18 - ResNet-34"): ("table2.resnet18", "table2.resnet34"),
    ("C6", "plain-34 - ResNet-34"): ("table2.plain34", "table2.resnet34"),
    ("C8", "ResNet-34 A - B"): ("table3.resnet34A", "table3.resnet34B"),
    ("C8", "ResNet-34 B - C"): ("table3.resnet34B", "table3.resnet34C"),
    ("C9", "ResNet-34 C - ResNet-50"): ("table3.resnet34C", "table3.resnet50"),
    ("C9", "ResNet-50 - ResNet-101"): ("table3.resnet50", "table3.resnet101"),
    ("C9", "ResNet-101 - ResNet-152"): ("table3.resnet101", "table3.resnet152"),
}
images, rows = paper["s41.images_validation"], {}
for key, names in COMPARED.items():
    p, q = (paper[f"{name}.top1_error"] / 100 for name in names)
    d = {"least": abs(p - q), "independent": p + q - 2 * p * q, "most": p + q}
    error = {how: 100 * standard_error(p, q, share, images) for how, share in d.items()}
    rows[key] = {"difference": 100 * (p - q)} | error | {"in standard errors": 100 * (p - q) / error["independent"]}
bearing = pd.DataFrame(rows).T.rename_axis(index=["claim", "top-1 error"])
bearing.style.format("{:.2f}").set_caption(
    "Differences in Tables 2 and 3 (points), and their standard error over images: the least and the most possible, and if the nets fail "
    "independently"
)

# %% mystnb={"figure": {"caption": "Differences of top-1 error in the paper's Tables 2 and 3, with twice their standard error over images: if two nets fail independently (thick) and at the most (thin). Spread over training runs, which the paper does not give, is not in it.", "name": "fig-bearing"}} tags=["hide-input"]
figure, ax = plt.subplots(figsize=(8, 3.4))
places = np.arange(len(bearing))[::-1]
for how, width in (("most", 1), ("independent", 4)):
    ax.errorbar(bearing.difference, places, xerr=2 * bearing[how], fmt="none", ecolor="#0b5394", elinewidth=width)
ax.plot(bearing.difference, places, "o", color="white", mec="#0b5394")
ax.axvline(0, color="black", lw=0.8)
ax.set_yticks(places, [f"{name} ({claim})" for claim, name in bearing.index])
_ = ax.set(xlabel="points of top-1 error")
# %% tags=["hide-input"]
clear = bearing["in standard errors"].abs() > 2
beyond = bearing.difference.abs() > 2 * bearing["most"]
say(
    "Larger than twice the standard error, if nets fail independently: "
    + "; ".join(f"{name} ({claim}, {size:.1f})" for (claim, name), size in bearing["in standard errors"][clear].items())
    + ". Not larger: "
    + "; ".join(f"{name} ({claim}, {size:.1f})" for (claim, name), size in bearing["in standard errors"][~clear].items())
    + f". {beyond.sum()} of {len(bearing)} are larger whatever the nets agree on."
)

# %% [markdown]
# Nets of one family can be expected to fail on the same images more often than independent ones, which would make standard
# errors smaller than those of the thick lines. The spread over training runs makes them larger, and it is unknown: it would
# take several runs of each net. So this is the most that can be said: what does not stand out here cannot be told from the
# paper's table without knowing on which images the nets agree; what does may still be one lucky run.

# %% [markdown]
# (paper-4-1-competition)=
# (paper-table-5)=
# (paper-c20)=
# ### The competition
#
# **C20**: a single ResNet-152 (Table 4) has a lower top-5 error than all earlier *ensembles* (Table 5). The two numbers are
# about different images: the validation set, on which a single model is chosen, and the test set, on which a server counts.

# %%
single, ensemble = (paper[f"{name}.top5_error"] / 100 for name in ("table4.resnet152", "table5.bn_inception"))
tested = paper["s41.images_validation"], paper["s41.images_test"]
error = sum(p * (1 - p) / n for p, n in zip((single, ensemble), tested, strict=True)) ** 0.5  # of different images: independent
say(
    f"ResNet-152 alone {100 * single:.2f} %, the best earlier ensemble {100 * ensemble:.2f} %: a difference of {100 * (ensemble - single):.2f} points, "
    f"{(ensemble - single) / error:.1f} standard errors over images."
)

# %% [markdown]
# ## What a replication costs
#
# A training step costs about three times the forward pass, and a multiply-add is two operations. So the work is counted from
# the nets alone; the time is what this machine would take if it did nothing but the largest matrix products it is good at, on
# one thread, which no training reaches.

# %% tags=["hide-input"]
flops, _ = bench.ceilings("cpu")
rows = {}
for layers in IMAGENET_NETS:
    count = counts.multiply_adds(counts.shape_of(reslib.imagenet_resnet, layers, option[layers]), 224)
    work = 6 * count * IMAGENET.batch * IMAGENET.steps
    rows[f"ResNet-{layers}"] = {
        "multiply-adds (G)": f"{count / 1e9:.2f}",
        "operations of a run": f"{work:.1e}",
        "years here": f"{work / flops / 3600 / 24 / 365:.1f}",
    }
pd.DataFrame(rows).T.style.set_caption(
    f"One run of each net, of {IMAGENET.steps:,} iterations; a large matrix product here does {flops / 1e9:,.0f} GFLOP/s on one thread"
)

# %% [markdown]
# ## Where the claims stand

# %% tags=["hide-input"]
rows = [(claim.id, claim.text, "not tested") for claim in claims.CLAIMS if claim.id in ("C2", "C6", "C7", "C9", "C20")]
say(pd.DataFrame(rows, columns=["claim", "the paper", "here"]).to_markdown(index=False))
say(pd.DataFrame([counted.row("C10", paper)]).to_markdown(index=False))

# %% [markdown]
# C5 and C8 are stated for ImageNet too. What CIFAR-10 says about them is in the chapters on residual learning and on
# shortcuts. C10, counted, is in the chapter on architectures.
#
# (paper-fig-4)=
# ## What was not tested, and why
#
# - **Everything that has to be trained.** `reslib` has the nets, the loader of section 3.4 and the tests of this page;
#   `reslib.train` does not carry out ImageNet recipes, and the plateau schedule ("divided by 10 when the error plateaus") is
#   not written.
# - **Published weights.** The weights that libraries offer come from other recipes, and from nets with another stride. Their
#   errors would say nothing about the paper's.
# - **Fig. 4** is not redrawn: it shows training curves, of which the paper gives no numbers.
