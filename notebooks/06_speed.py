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
# > **An appendix to sections 3.4 and 4.2 of the paper**, which say how images are cropped, mirrored and tinted. It judges no claim.
# >
# > **The paper says:** how training images are drawn, and nothing about how they are loaded or how fast.
# >
# > **We see:** three loaders give the same CIFAR-10 batches to the last bit, and the fast ones give them many times faster than
# > torchvision does. Photographs differ a little between loaders, which decode and resize them in different ways.
# >
# > **Why they agree:** every random decision is drawn outside the loaders, so no loader has anything left to decide.
# >
# > **What this costs.** This page converts two photographs and downloads nothing: seconds. The benchmark is replayed from a record.
# > `retrain = True` measures it again here, in about two minutes; with a folder of photographs, five.

# %% tags=["parameters"]
scale = "demo"  # "demo", "pocket", "night", "paper": this page is the same at each
retrain = False  # True: measure loading here, instead of replaying the record
photographs = ""  # with retrain: an ImageFolder tree of photographs, measured too
rounds = 5  # with retrain: of the benchmark, at least 1

# %% tags=["hide-input"]
import inspect
from dataclasses import replace
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from IPython.display import Code
from sklearn.datasets import load_sample_images

import reslib
from reslib import CIFAR, IMAGENET, data
from reslib.bench import loading as bench_load
from reslib.data import convert, draws, fast
from reslib.data import photographs as photos
from reslib.evidence import chapter, parameters, plots
from reslib.files import temporary


def at_least_one(value):
    if not str(value).isdecimal() or int(value) < 1:
        raise ValueError(f"{value!r} is not a whole number of at least 1.")
    return int(value)


# %% tags=["hide-input"]
parameters.check(
    globals(),
    scale=parameters.choice("demo", "pocket", "night", "paper"),
    retrain=parameters.flag,
    photographs=lambda text: text and Path(text),
    rounds=at_least_one,
)
if retrain:
    recorded = bench_load.run(photographs=photographs or None, rounds=rounds)
else:
    recorded = bench_load.read(bench_load.newest())
plots.style()
say, machine = chapter.say, recorded["environment"]
speeds = bench_load.frame(recorded)

# %% [markdown]
# ## How fast are the loaders?
#
# How many images a second does each loader give? {numref}`fig-load` compares them with plain torchvision and PyTorch's `DataLoader`
# {cite}`paszke2019pytorch`, on one machine.

# %% tags=["hide-input"]
best = speeds.loc[speeds.groupby("set").ratio.idxmax()].set_index("set")
cifar = best.loc["CIFAR-10, 32 px"]
say(
    f"On CIFAR-10 the fastest is `{cifar.loader}`, with {cifar['median']:,.0f} images "
    f"a second, {cifar.ratio:.0f} times the speed of torchvision."
)

# %% mystnb={"figure": {"caption": "With two workers the fast loaders of this project are ahead of torchvision, on CIFAR-10 by much more than on photographs. Speed as a multiple of the best plain torchvision + DataLoader in the same round: medians, with lines from the lowest round to the highest. The number after a name is that of workers. \u201craw\u201d and \u201cjpg\u201d are how FFCV's file keeps photographs.", "name": "fig-load"}, "image": {"alt": "Bars of speed relative to torchvision, by loader and number of workers. On CIFAR-10 array is the longest, then ffcv. Of photographs, at random scales and at 256 pixels, ffcv with raw files is the longest, before jpg."}} tags=["hide-input"]
shown = speeds[speeds["set"] != "CIFAR-10, 16 px"]
parts = list(dict.fromkeys(shown["set"]))
figure, axes = plt.subplots(1, len(parts), figsize=(9, 3.4), squeeze=False)
for ax, part in zip(axes[0], parts, strict=True):
    rows = shown[shown["set"] == part]
    spread = [rows.ratio - rows.ratio_lowest, rows.ratio_highest - rows.ratio]
    names = [f"{row.loader} {row.workers}" for row in rows.itertuples()]
    ax.barh(names, rows.ratio, xerr=spread, color=plots.RESIDUAL_HUE, ecolor="0.3")
    ax.invert_yaxis()
    ax.axvline(1, color="black", lw=0.8)
    ax.set(title=part.replace(", scales", ",\nscales"), xlabel="times torchvision")

# %% [markdown]
# All loaders take turns within a round, so that whatever else the machine does affects them all. A ratio is to the best of
# torchvision's worker counts *in the same round*. On another machine the speeds will differ, the order probably less; that was not
# tried.
#
# A training step needs its batch in time and no sooner. Where a step takes longer than a loader needs for a batch, as on a laptop,
# a fast loader saves cores and not time. Where it takes less, as it may on a GPU, the loader decides how long a run takes. The
# first batch costs seconds more, since code is compiled or loaded. The numbers behind the figure:

# %% tags=["hide-output"]
say(bench_load.table(recorded))

# %% [markdown]
# ## One decision, three loaders
#
# Do they give the same images? On CIFAR-10 they do, to the last bit. A training image is cropped, mirrored, and on ImageNet scaled and
# tinted, at random. Here each such decision is a pure function of (seed, epoch, sample), drawn *outside* the loaders by a counter-based
# generator {cite}`salmon2011parallel`. Three loaders use the same draws:
#
# | loader | what it is | what it is for |
# |---|---|---|
# | `torch` | a Dataset and a DataLoader, image by image | to be read |
# | `array` | the whole set as bytes in memory, one compiled loop; on a GPU one indexed gather | CIFAR-10 |
# | `ffcv` | files in the format of FFCV {cite}`leclerc2023ffcv`, opened behind checks | CIFAR-10, ImageNet |
#
# **Prediction.** Whatever the loader and the number of its workers, a CIFAR batch is the same to the last bit.

# %%
recipe = CIFAR.at("demo")
ways = [("torch", 0), ("array", 1)]
ways += [("ffcv", workers) for workers in (1, 2) if fast.available()]
epochs = {}
for name, n in ways:
    where = dict(backend=name, workers=n, data_dir=temporary())
    epochs[name, n] = list(reslib.loader(recipe, "train", epoch=3, **where))
for batches in epochs.values():
    for (x, y), (u, v) in zip(batches, epochs["torch", 0], strict=True):
        assert torch.equal(x, u) and torch.equal(y, v)  # (B, 3, H, W), (B,)
print(f"{len(epochs)} loaders gave the same {len(batches)} batches")

# %% [markdown]
# The compiled loop subtracts the mean image while it converts bytes, crops out of a border of zeros that is never built, and mirrors
# in place:

# %% tags=["hide-input"]
Code(inspect.getsource(data.crop_flip_subtract), language="python")

# %% [markdown]
# ## Photographs
#
# Can a fast loader draw images as section 3.4 does ([chapter 4](04_imagenet.ipynb) tells it)? Yes: {numref}`fig-crops` shows two
# photographs in three epochs. A file that keeps the *longer* side in bounds, as FFCV's own setting does, could not give such
# images, because section 3.4 draws the *shorter* side from [256, 480]. So `python -m reslib data imagenet` hands FFCV's writer
# photographs whose shorter side is reduced to 480 at most.

# %% tags=["hide-output"]
folder = temporary()
pictures = load_sample_images().images  # come with scikit-learn
for name, pixels in zip(("building", "flower"), pictures, strict=True):
    (folder / "train" / name).mkdir(parents=True)
    plt.imsave(folder / "train" / name / "0.jpg", pixels)

twice = replace(IMAGENET, batch=2)
backend = "ffcv" if fast.available() else "torch"
if fast.available():
    convert.convert(folder, folder, "train", "jpg", jobs=1)
where = dict(data_dir=folder, backend=backend, workers=0)
crops = [next(iter(reslib.loader(twice, "train", epoch=e, **where))) for e in range(3)]

# %% mystnb={"figure": {"caption": "The same photograph is never seen the same way twice. Two photographs in three epochs: scale, crop, mirror and tint as section 3.4 says; the mean image is added again to be looked at.", "name": "fig-crops"}, "image": {"alt": "Six square crops of 2 photographs, a building and a flower, in 3 epochs: each shows another part at another size, some are mirrored, and colours are shifted slightly."}} tags=["hide-input"]
mean, covariance = photos.statistics(folder)
figure, axes = plt.subplots(1, 6, figsize=(8, 1.6))
for epoch, (batch, _) in enumerate(crops):
    drawn = draws.photo_draws(twice.seed, epoch, 2, twice.short_side, twice.colour)
    for k, sample in enumerate(drawn.order):
        image = batch[k].permute(1, 2, 0).numpy()
        again = mean[:, ::-1] if drawn.flip[sample] else mean  # as it was subtracted
        axes[2 * epoch + k].imshow((image + again).clip(0, 1))
        axes[2 * epoch + k].axis("off")

# %% [markdown]
# The rectangle is one function of the drawn numbers and the photograph's size, and both loaders call it. Their pixels differ
# because they decode and resize differently. FFCV crops in the stored image, at whole pixels, and averages areas. Torchvision
# resizes the whole photograph with an antialiased filter and crops then. {numref}`tab-pixels` says by how much the results differ.

# %% tags=["hide-input"]
Code(inspect.getsource(photos.rectangle), language="python")

# %% mystnb={"figure": {"caption": "The loaders' crops of a photograph differ by a few grey levels of 255, mostly at edges. Absolute difference of ffcv's and torchvision's pixels: mean, median and 99th percentile over some crops.", "name": "tab-pixels"}} tags=["hide-input"]
differences = pd.DataFrame(recorded["pixel_differences"])
differences.set_index("file") if len(differences) else None

# %% [markdown]
# **Prediction.** Drawn scales are uniform over the 225 whole numbers from 256 to 480 ({numref}`fig-scales`).

# %% mystnb={"figure": {"caption": "Every shorter side is drawn about equally often. Counts of each for 200,000 photographs in one epoch; the band is three standard deviations about the uniform count.", "name": "fig-scales"}, "image": {"alt": "Points for the 225 shorter sides from 256 to 480 pixels, scattered around a count of about 889 within a band of three standard deviations, 89 either way."}} tags=["hide-input"]
count = 200_000
drawn = draws.photo_draws(0, 0, count, IMAGENET.short_side, IMAGENET.colour)
scales = np.bincount(drawn.scale - 256, minlength=225)
expected = count / 225
edges = [expected - 3 * expected**0.5, expected + 3 * expected**0.5]
figure, ax = plt.subplots(figsize=(8, 2.6))
ax.fill_between([256, 480], *edges, alpha=0.2)
ax.plot(range(256, 481), scales, ".", ms=3)
ax.set(xlabel="shorter side (pixels)", ylabel="photographs")
_ = ax.set_ylim(0, 1.3 * expected)

# %% [markdown]
# ## The colour augmentation
#
# In which units are the colours shifted? {cite:t}`krizhevsky2012imagenet` add to each photograph the principal components of
# ImageNet's colours, each times its eigenvalue times a normal draw of standard deviation 0.1, and do not say in which units an
# eigenvalue is meant. The values that are passed on, by AlexNet's own code and later ones, have the size of those of pixels in
# [0, 1] ({numref}`tab-colours`), so that is what is used here. Bytes would have eigenvalues 65,025 times as large.

# %% mystnb={"figure": {"caption": "Eigenvalues of the colours' covariance for pixels in [0, 1]: of the two photographs above, and as passed on for ImageNet.", "name": "tab-colours"}} tags=["hide-input"]
two, _ = photos.components(covariance)
columns = {"two photographs": two, "ImageNet": [0.2175, 0.0188, 0.0045]}
rows = pd.DataFrame(columns, index=["first", "second", "third"])
rows.style.format("{:.4f}")

# %% [markdown]
# Where the numbers of the benchmark come from:

# %% tags=["hide-output"]
what = ("device", "cores", "torch", "torchvision", "ffcv", "commit", "dirty")
print(recorded["start"], *(f"{name} {machine[name]}" for name in what), sep=", ")
print(f"{recorded['rounds']} rounds of {recorded['seconds']} s each")

# %% [markdown]
# ## What was not tested, and why
#
# - **Loading on a GPU.** The record's device is named above. `python -m reslib bench load --device cuda` measures a GPU; the page on
#   rerunning has the time that one batch took there.
# - **A disk that is slower than memory.** The photographs measured are few and stay in memory. All of ImageNet as raw pixels does
#   not: then the disk decides, and `jpg` may be the faster.
# - **Training with either resizing.** What the difference in pixels does to an error on ImageNet is not known here.
#
# ## Exercises
#
# 1. A run at the paper's scale needs 64,000 batches of 128 images. How long does each loader take for them, on this machine?

# %% tags=["hide-cell"]
images = CIFAR.steps * CIFAR.batch
for row in speeds[speeds["set"] == "CIFAR-10, 32 px"].itertuples():
    print(f"{row.loader} {row.workers}: {images / row.median / 60:.1f} minutes")

# %% [markdown]
# 2. An epoch is one permutation, cut into whole batches. Check that no image comes twice in an epoch, and count those left out.

# %% tags=["hide-cell"]
n = len(data.images(recipe, train=True).labels)
order = draws.epoch_draws(recipe.seed, 0, n, recipe.pad).order
assert sorted(order) == list(range(n))
print(f"{n} images, {n // recipe.batch} batches, {n % recipe.batch} images left out")

# %% [markdown]
# 3. Draw the decisions of epoch 3 without having drawn those of epochs 0 to 2. Why does a resumed run need no saved generator?

# %% tags=["hide-cell"]
once = draws.epoch_draws(0, 3, n, 2)
for epoch in range(4):
    again = draws.epoch_draws(0, epoch, n, 2)
for what in ("dy", "dx", "flip"):
    assert np.array_equal(getattr(once, what), getattr(again, what))
print("the same: the draws depend on (seed, epoch, sample) alone")

# %% [markdown]
# 4. How many different crops of a CIFAR image are there with a border of 4 pixels, mirrored ones included?

# %% tags=["hide-cell"]
print(f"{(2 * CIFAR.pad + 1) ** 2 * 2} crops")
