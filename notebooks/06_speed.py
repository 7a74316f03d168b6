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
# # Fast loading, and the same images
#
# > **An appendix to sections 3.4 and 4.2 of the paper**, which say how images are cropped, mirrored and tinted, and not how fast.
# > It judges no claim of the paper. It shows what the loaders of `reslib` do, that they do the same, and what they cost.
# >
# > **What this costs.** As it stands, this page converts two photographs and downloads nothing: seconds. The benchmark is
# > replayed from a record. `retrain = True` measures it again here, in about two minutes; with a folder of photographs, five.

# %% tags=["parameters"]
scale = "demo"  # any of "demo", "pocket", "night", "paper": this page is the same at each
retrain = False  # True: measure loading here, on CIFAR-10, instead of replaying the record
photographs = ""  # with retrain: an ImageFolder tree of photographs at full size, measured too
rounds = 5  # with retrain: of the benchmark, at least 1

# %% tags=["hide-input"]
import inspect
from dataclasses import replace
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from IPython.display import Code, Markdown, display
from sklearn.datasets import load_sample_images

import reslib
from reslib import CIFAR, IMAGENET, data
from reslib.bench import loading as bench_load
from reslib.data import convert, fast
from reslib.data import photographs as photos
from reslib.data.draws import photo_draws
from reslib.evidence import parameters, plots
from reslib.files import temporary


def at_least_one(value):
    if int(value) < 1:
        raise ValueError(f"{value!r} is not a whole number of at least 1.")
    return int(value)


parameters.check(
    globals(),
    scale=parameters.choice("demo", "pocket", "night", "paper"),
    retrain=parameters.flag,
    photographs=lambda text: text and Path(text),
    rounds=at_least_one,
)
recorded = None if retrain else bench_load.read(bench_load.newest())
plots.style()

# %% [markdown]
# ## One decision, three loaders
#
# A training image is cropped, mirrored, and on ImageNet scaled and tinted, at random. Here every such decision is a pure
# function of (seed, epoch, sample), drawn *outside* the loaders. So a loader has nothing left to decide, and three of them
# can be compared bit by bit:
#
# | loader | what it is | what it is for |
# |---|---|---|
# | `torch` | a Dataset and a DataLoader, image by image | to be read |
# | `array` | the whole set as bytes in memory, one compiled loop; on a GPU one indexed gather | CIFAR-10 |
# | `ffcv` | files in the format of FFCV, opened behind checks | CIFAR-10, ImageNet |
#
# **Prediction.** Whatever the loader and the number of its workers, a CIFAR batch is the same to the last bit.

# %%
recipe = CIFAR.at("demo")
ways = [("torch", 0), ("array", 1)] + [("ffcv", w) for w in (1, 2) if fast.available()]
epochs = {
    way: list(reslib.loader(recipe, "train", epoch=3, backend=way[0], workers=way[1], data_dir=temporary())) for way in ways
}

for batches in epochs.values():
    for (x, y), (u, v) in zip(batches, epochs["torch", 0], strict=True):  # (B, 3, H, W), (B,)
        assert torch.equal(x, u) and torch.equal(y, v)
f"{len(epochs)} loaders gave the same {len(batches)} batches"

# %% [markdown]
# The compiled loop is short. It subtracts the mean image while it converts bytes, crops out of a border of zeros that is never
# built, and mirrors in place:

# %% tags=["hide-input"]
Code(inspect.getsource(data.crop_flip_subtract), language="python")

# %% [markdown]
# ## Photographs
#
# Section 3.4 resizes a photograph so that its shorter side is drawn from [256, 480], crops 224x224 pixels, mirrors half of the
# crops, subtracts the mean image, and adds AlexNet's colour augmentation. A file that keeps the
# *longer* side in bounds, as FFCV's own setting does, could not give that: so `python -m reslib data imagenet` hands FFCV's
# writer photographs whose shorter side is reduced to 480 at most. Two photographs that come with scikit-learn show the path:

# %% tags=["hide-output"]
folder = temporary()
for name, pixels in zip(("building", "flower"), load_sample_images().images, strict=True):
    (folder / "train" / name).mkdir(parents=True)
    plt.imsave(folder / "train" / name / "0.jpg", pixels)

twice = replace(IMAGENET, batch=2)
if fast.available():
    convert.convert(folder, folder, "train", "jpg", jobs=1)
backends = ["ffcv", "torch"] if fast.available() else ["torch"]
crops = {
    b: [next(iter(reslib.loader(twice, "train", data_dir=folder, epoch=e, backend=b, workers=0))) for e in range(3)]
    for b in backends
}

# %% mystnb={"figure": {"caption": "Two photographs in three epochs: scale, crop, mirror and tint as section 3.4 says, the mean image added again to be looked at.", "name": "fig-crops"}}
mean, _ = photos.statistics(folder)
figure, axes = plt.subplots(1, 6, figsize=(8, 1.6))
for epoch, (batch, _) in enumerate(crops[backends[0]]):
    draw = photo_draws(twice.seed, epoch, 2, twice.short_side, twice.colour)
    for k, sample in enumerate(draw.order):
        again = mean[:, ::-1] if draw.flip[sample] else mean  # it was subtracted before the crop was mirrored
        axes[2 * epoch + k].imshow((batch[k].permute(1, 2, 0).numpy() + again).clip(0, 1))
        axes[2 * epoch + k].axis("off")

# %% [markdown]
# The rectangle is one function of the drawn numbers and the photograph's size, and both loaders call it. Their pixels differ
# because they resize differently: FFCV crops in the stored image, at whole pixels, and averages areas; torchvision resizes
# the whole photograph with an antialiased filter and crops then. The record below says by how much.

# %% tags=["hide-input"]
Code(inspect.getsource(photos.rectangle), language="python")

# %% [markdown]
# **Prediction.** Drawn scales are uniform over the 225 whole numbers from 256 to 480.

# %% mystnb={"figure": {"caption": "Scales drawn for 200,000 photographs in one epoch: counts of each shorter side, against three standard deviations about the uniform count.", "name": "fig-scales"}}
count = 200_000
scales = np.bincount(photo_draws(0, 0, count, IMAGENET.short_side, IMAGENET.colour).scale - 256, minlength=225)
expected = count / 225
plt.fill_between([256, 480], expected - 3 * expected**0.5, expected + 3 * expected**0.5, alpha=0.2)
plt.plot(range(256, 481), scales, ".", ms=3)
plt.ylim(0, 1.3 * expected)
_ = plt.gca().set(xlabel="shorter side (pixels)", ylabel="photographs")

# %% [markdown]
# ## What it costs
#
# All loaders take turns within a round, so that whatever else the machine does meets them all. A ratio is to the best of
# torchvision's worker counts *in the same round*, and the table shows its median over the rounds. Ratios travel better than
# speeds: on another machine the speeds will differ, the order probably less; that was not tried.

# %% tags=["hide-output"]
if retrain:
    recorded = bench_load.run(photographs=photographs or None, rounds=rounds)
machine = recorded["environment"]

# %% tags=["hide-input"]
display(Markdown(bench_load.table(recorded)))

# %% mystnb={"figure": {"caption": "Loading speed as a multiple of the best plain torchvision + DataLoader in the same round (medians; lines from the lowest round to the highest). Numbers after a name are workers.", "name": "fig-load"}}
frame = bench_load.frame(recorded)
frame = frame[frame["set"] != "CIFAR-10, 16 px"]
parts = list(dict.fromkeys(frame["set"]))
figure, axes = plt.subplots(1, len(parts), figsize=(9, 3.4), squeeze=False)
for ax, part in zip(axes[0], parts, strict=True):
    rows = frame[frame["set"] == part]
    spread = [rows.ratio - rows.ratio_lowest, rows.ratio_highest - rows.ratio]
    ax.barh([f"{r.loader} {r.workers}" for r in rows.itertuples()], rows.ratio, xerr=spread, color="#0b5394", ecolor="#e69f00")
    ax.invert_yaxis()
    ax.axvline(1, color="black", lw=0.8)
    ax.set(title=part.replace(", scales", ",\nscales"), xlabel="times torchvision")

# %% [markdown]
# What the ratios mean. A training step needs its batch in time and no sooner. Where a step takes longer than any loader needs
# for a batch, as on a laptop, a fast loader saves cores and not time. Where it takes less, as on a GPU, the loader decides
# how long a run takes: divide the images a second that the step could use by those in the table. Converting bytes to floats
# writes four bytes for each one read, so `array` is probably limited by memory, and photographs by decoding and resizing.
#
# The colour components, computed from the photographs, against those that are passed on as ImageNet's:

# %%
if recorded.get("colours"):
    colours = pd.DataFrame(recorded["colours"], index=["first", "second", "third"]).assign(published=photos.PUBLISHED_VALUES)
    display(
        colours.style.format("{:.4f}").set_caption(f"Eigenvalues for pixels in [0, 1]; {recorded['photographs']} photographs")
    )

# %% [markdown]
# AlexNet's text does not say in which units an eigenvalue is meant. The ones that are passed on are of the size of those of
# the covariance of pixels in [0, 1], so that is what is used here: the tint is a component, times its eigenvalue, times a
# draw from N(0, 0.1).
#
# Where these numbers come from:

# %%
print(f"measured {recorded['start'][:10]} on {machine['device']}, {machine['cores']} cores, torch {machine['torch']}, "
      f"torchvision {machine['torchvision']}, ffcv {machine['ffcv']}, commit {(machine['commit'] or 'unknown')[:10]}"
      f"{' (uncommitted changes)' if machine['dirty'] else ''}: {recorded['rounds']} rounds of {recorded['seconds']} s each")  # fmt: skip

# %% [markdown]
# ## What was not tested, and why
#
# - **A GPU.** The record's device is named above. `python -m reslib bench load --device cuda` measures images on the device.
# - **A disk that is slower than memory.** The photographs measured are few and stay in memory. All of ImageNet as raw pixels
#   does not: then the disk decides, and `jpg` may be the faster.
# - **Training with either resizing.** The loaders' pixels differ by what the table says; what that does to an error on
#   ImageNet is not known here.
