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
# # Architectures
#
# > **Sections 3.3, 4.1 and 4.2 of the paper; Table 1, Fig. 3, Fig. 5.** Claims: C10 (ResNet-152 is cheaper than VGG), C17
# > (plain-34 costs a small part of VGG-19), C18 (a projection doubles a bottleneck), C19 (ResNet-110 has few parameters).
# >
# > **What this costs.** Nothing is trained and nothing is downloaded: every number is counted from the nets themselves, and
# > counts are exact. Only the latencies are measured, here, when the page is built. The page takes about a minute on two CPU
# > cores; there is no scale to choose.
#
# The manner of this chapter is *predict, compute, assert*: a line of arithmetic says what a number should be, the nets say what
# it is, and the cell stops with an error where both differ.

# %% tags=["parameters"]
depth = 50  # layers of the net whose layers and memory are looked at closely: 18, 34, 50, 101 or 152

# %% tags=["hide-input"]
import time
from copy import deepcopy
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
import torch
import torchvision
from IPython.display import Markdown, display
from ipywidgets import SelectionSlider, interact
from torch import nn

import reslib
from reslib import IMAGENET, evaluation
from reslib.evidence import claims, counted, counts, parameters, plots
from reslib.evidence.counts import shape_of
from reslib.machine import cpu_name
from reslib.resnet import BasicBlock, Bottleneck

DEPTHS = (18, 34, 50, 101, 152)  # Table 1
parameters.check(globals(), depth=parameters.choice(*DEPTHS))
depth = int(depth)  # 50.0 is taken as 50
paper = claims.paper()
plots.style()


def say(text):
    display(Markdown(text))


# %% [markdown]
# ## The nets
#
# All of Table 1 is one function of the depth. The residual nets of 18 and 34 layers use option A, as in the paper's Table 2;
# those of 50, 101 and 152 use option B, with strides where the authors have them. The nets are built with shapes but without
# values, so even VGG-19 takes no memory.

# %%
nets = {f"ResNet-{d}": shape_of(reslib.imagenet_resnet, d, "A" if d < 50 else "B") for d in DEPTHS}
nets |= {f"plain-{d}": shape_of(reslib.imagenet_plain, d) for d in (18, 34)}
nets |= {f"VGG-{d}": shape_of(getattr(torchvision.models, f"vgg{d}"), init_weights=False) for d in (16, 19)}

# %% [markdown]
# `counts.layers` traces the forward pass of a net and gives a row for each step: what comes out, and what it costs. A
# convolution with a kernel of $k \times k$, on an output of $H \times W$, costs
#
# \begin{equation}
# k^2 \, C_\mathrm{in} \, C_\mathrm{out} \, H \, W
# \end{equation}
#
# multiply-adds. This is what the paper calls FLOPs. The sums over layers are checked against PyTorch's own counter, which knows
# nothing of this formula.

# %%
frames = {name: counts.layers(net, 224) for name, net in nets.items()}
for name, net in nets.items():
    assert frames[name].multiply_adds.sum() == counts.multiply_adds(net, 224)
    assert frames[name].parameters.sum() == counts.parameters(net)
    weighted = frames[name].kind.isin(["conv", "fc"]).sum()  # projections on shortcuts are not counted as layers
    assert name.endswith(f"-{weighted}")
print(f"{len(nets)} nets: the name says the number of weighted layers, and both ways of counting agree")

# %% [markdown]
# ## Table 1
#
# Rebuilt from the modules. A block is written as the kernels and filters of its convolutions.


# %%
def stages(name):
    """(blocks, the convolutions of one block, output size) of conv2_x to conv5_x."""
    frame, found = frames[name], []
    for stage in range(1, 5):
        rows = frame[frame.name.str.startswith(f"layer{stage}.")]
        blocks = rows.name.str.split(".").str[1].nunique()
        each = [rows[rows.name.str.startswith(f"layer{stage}.{i}.") & (rows.kind == "conv")] for i in range(blocks)]
        layers = [list(zip(block.kernel, block.channels, strict=True)) for block in each]
        assert all(block == layers[0] for block in layers)  # all blocks of a stage are alike
        found.append((blocks, layers[0], rows["size"].iloc[-1]))
    return found


def giga(multiply_adds):
    return f"{multiply_adds / 1e9:.2f}"


residual = [f"ResNet-{d}" for d in DEPTHS]

# %% mystnb={"figure": {"caption": "Table 1 of the paper, written out by the nets: output size in pixels, kernels and filters of a block's convolutions, number of blocks. Down-sampling is by conv3_1, conv4_1 and conv5_1.", "name": "tab-table1"}} tags=["hide-input"]
written = {}
for name in residual:
    conv1, pool = (frames[name][frames[name].kind == kind].iloc[0] for kind in ("conv", "max pool"))
    cells = {"conv1": f"{conv1.kernel}x{conv1.kernel}, {conv1.channels}, /{conv1.stride}"}
    for i, (blocks, layers, _) in enumerate(stages(name), 2):
        cells[f"conv{i}_x"] = "<br>".join(f"{k}x{k}, {c}" for k, c in layers) + f"<br>x {blocks}"
    cells["conv2_x"] = f"{pool.kernel}x{pool.kernel} pool, /{pool.stride}<br>{cells['conv2_x']}"
    cells["end"] = f"average pool<br>{frames[name].channels.iloc[-1]}-d fc"
    written[name] = cells | {"FLOPs (billions)": giga(frames[name].multiply_adds.sum())}
written = pd.DataFrame(written)
written.insert(0, "output", [f"{conv1['size']}", *(str(size) for *_, size in stages("ResNet-18")), "1", ""])
top = [{"selector": "th", "props": "vertical-align: top; text-align: left"}]
written.style.set_properties(**{"vertical-align": "top", "text-align": "left"}).set_table_styles(top)

# %% [markdown]
# And against what the paper prints, number by number: all of Table 1, the counts of Fig. 3 and of sections 3.3 and 4.1, and
# section 3.4's training and testing as `reslib.IMAGENET` and its test have them. Kernels and widths within a block follow from
# the width it puts out. A count agrees where ours, rounded to the digits of the paper's, is the paper's.

# %%
ours = {}
for name in residual:
    key = f"table1.{name.lower().replace('-', '')}"
    ours[f"{key}.flops"] = frames[name].multiply_adds.sum()
    for i, (blocks, layers, size) in enumerate(stages(name), 2):
        wide = int(paper[f"{key}.conv{i}_x.out_channels"])
        assert layers in ([(3, wide), (3, wide)], [(1, wide // 4), (3, wide // 4), (1, wide)])  # Table 1's brackets
        ours |= {f"{key}.conv{i}_x.blocks": blocks, f"{key}.conv{i}_x.out_channels": layers[-1][1]}
        assert ours.setdefault(f"table1.conv{i}.output_size", size) == size  # the same in all nets
ours |= {f"table1.conv1.{column}": conv1[column] for column in ("kernel", "stride")}
ours |= {"table1.conv1.output_size": conv1["size"], "table1.conv1.out_channels": conv1.channels}
ours |= {f"table1.maxpool.{column}": pool[column] for column in ("kernel", "stride")}
ours |= {"table1.fc.classes": frames["ResNet-18"].channels.iloc[-1]}
assert set(ours) == {quantity for quantity in paper if quantity.startswith("table1.")}  # all of Table 1

for quantity in ("fig3.vgg19", "fig3.plain34", "fig3.resnet34", "s41.vgg16", "s41.vgg19"):
    name = quantity.split(".")[1].replace("vgg", "VGG-").replace("plain", "plain-").replace("resnet", "ResNet-")
    ours[f"{quantity}.flops"] = frames[name].multiply_adds.sum()
ours["s33.plain34.share_of_vgg19_flops"] = 100 * ours["fig3.plain34.flops"] / ours["fig3.vgg19.flops"]

ours |= {f"s34.{field}": getattr(IMAGENET, field) for field in ("batch", "momentum", "weight_decay", "lr")}
ours |= {"s34.iterations": IMAGENET.steps, "s34.crop": IMAGENET.size}
ours |= dict(zip(("s34.scale_min", "s34.scale_max"), IMAGENET.short_side, strict=True))
ours |= {"s34.dropout": sum(isinstance(m, nn.Dropout) for name in residual for m in nets[name].modules())}
ours |= {"s34.test.crops": len(evaluation.ten_crop(torch.zeros(3, 256, 256), IMAGENET.size))}
ours |= {f"s34.test.scale{i}": side for i, side in enumerate(evaluation.SIDES, 1)}
assert {q for q in paper if q.startswith("s34.")} - set(ours) == {"s34.lr_divisor"}  # the schedule's, and no field of a recipe


# %% mystnb={"figure": {"caption": "The paper's numbers beside ours. A number's name is that in paper.csv; flops are multiply-adds, in billions, the share is in percent.", "name": "tab-numbers"}} tags=["hide-input", "output_scroll"]
def beside(quantity):
    """The paper's number and ours, as text, and whether they agree."""
    theirs, mine = paper[quantity], ours[quantity]
    if quantity.endswith(".flops"):
        return f"{theirs / 1e9:.1f}", f"{mine / 1e9:.3f}", f"{mine / 1e9:.1f}" == f"{theirs / 1e9:.1f}"
    if "share" in quantity:
        return f"{theirs:.0f}", f"{mine:.1f}", round(mine) == theirs
    return f"{theirs:g}", f"{mine:g}", mine == theirs


compared = pd.DataFrame({quantity: beside(quantity) for quantity in ours}, index=["paper", "ours", "agree"]).T
compared.insert(0, "where", pd.read_csv(Path(claims.__file__).with_name("paper.csv"), index_col="quantity").locator)
with pd.option_context("display.max_rows", None):
    display(compared.replace({True: "yes", False: "NO"}))

# %% tags=["hide-input"]
differ = compared[~compared.agree.astype(bool)]
say(
    f"{len(compared)} numbers compared, {len(differ)} differ: "
    + "; ".join(f"`{quantity}` {row.paper} in the paper, {row.ours} here" for quantity, row in differ.iterrows())
    + ". What is behind them comes next."
)

# %% [markdown]
# ## Which counting gives which number
#
# "FLOPs (multiply-adds)" leaves open what is counted. Here are six ways.


# %%
def ways(name):
    """Multiply-adds of a net by six ways of counting."""
    frame = frames[name]
    kinds = frame.groupby("kind").multiply_adds.sum()
    elements = (frame.channels * frame["size"] ** 2)[frame.kind.isin(["bn", "relu", "add"])].sum()
    found = {
        "all": kinds.sum(),
        "no fc": kinds.sum() - kinds["fc"],
        "no conv1": kinds.sum() - frame[frame.kind == "conv"].multiply_adds.iloc[0],
        "no proj.": kinds.sum() - kinds.get("projection", 0),
        "+ elem.": kinds.sum() + elements,  # one operation for each element
    }
    if name in residual:
        other = shape_of(reslib.imagenet_resnet, int(name.split("-")[1]), "B", stride_on="3x3")
        found["v1.5, B"] = counts.multiply_adds(other, 224)
    return found


prints = {f"ResNet-{d}": paper[f"table1.resnet{d}.flops"] for d in DEPTHS}
prints = pd.Series(prints | {"VGG-16": paper["s41.vgg16.flops"], "VGG-19": paper["s41.vgg19.flops"]}) / 1e9
counting = pd.DataFrame({name: ways(name) for name in prints.index}) / 1e9
rounded, cut = (number.eq(prints, axis=1) for number in (counting.round(1), np.floor(counting * 10) / 10))

# %% mystnb={"figure": {"caption": "Multiply-adds (billions) of one image of 224 x 224 pixels by six ways of counting: all convolutions and fully connected layers; these without the fully connected ones, without the first layer, without projections; with an operation more for each element of a BN, ReLU or addition; all, of option B with the strides of v1.5. \u2713: rounded to one decimal, it is what the paper prints. Below: how many of the ResNets' numbers a way gives, rounded, and cut off after one decimal.", "name": "tab-conventions"}} tags=["hide-input"]
shown = (counting.map("{:.2f}".format, na_action="ignore").fillna("") + rounded.replace({True: " ✓", False: ""})).T
shown["paper"] = prints.map("{:.1f}".format)
fits = pd.DataFrame({"rounded": rounded[residual].sum(axis=1), "cut off": cut[residual].sum(axis=1)}).T
pd.concat([shown, fits.astype(str)]).fillna("")

# %% tags=["hide-input"]
alone, element = counting.loc["all", residual], counting.loc["+ elem.", residual]
low, high = ((prints[residual] + more - alone) / (element - alone) for more in (0, 0.1))  # operations an element that fit
assert fits.loc["rounded", "all"] == 4 and fits.loc["cut off", "+ elem."] == 5
say(
    f"- **Rounded**, all convolutions and the fully connected layer give {fits.loc['rounded', 'all']} of {len(residual)}. ResNet-50 does "
    f"not fit: {alone['ResNet-50']:.2f}, printed as {prints['ResNet-50']:.1f}. This is the counting of this book: it is the "
    f"plain meaning of multiply-adds.\n"
    f"- **Cut off instead of rounded**, and with the elementwise operations counted too, {fits.loc['cut off', '+ elem.']} of "
    f"{len(residual)} fit: any count of {low.max():.2f} to {high.min():.2f} operations an element gives Table 1. It may be what "
    f"the authors did. It was found by trying, so it proves nothing, and the paper does not say.\n"
    f"- **ResNet-152** is {alone['ResNet-152']:.2f}, or {element['ResNet-152']:.2f} with elementwise operations, or "
    f"{counting.loc['v1.5, B', 'ResNet-152']:.2f} in v1.5; printed as {prints['ResNet-152']:.1f}.\n"
    f"- **VGG-16's** {prints['VGG-16']:.1f} leaves the fully connected layers out (with them "
    f"{counting.loc['all', 'VGG-16']:.2f}); **VGG-19's** {prints['VGG-19']:.1f} counts them (without them "
    f"{counting.loc['no fc', 'VGG-19']:.2f}). The two were not counted alike.\n"
    f"- **Plain-34's share** of VGG-19 is {ours['s33.plain34.share_of_vgg19_flops']:.1f} %. The paper's is the quotient of "
    f"its rounded numbers, {100 * paper['fig3.plain34.flops'] / paper['fig3.vgg19.flops']:.1f} %.\n"
    f"- Libraries' numbers differ by the strides: ResNet-50 has {counting.loc['v1.5, B', 'ResNet-50']:.2f} in v1.5, "
    f"of which more below."
)

# %%
say(counted.sentence("C10", paper))

# %%
say(counted.sentence("C17", paper))

# %% [markdown]
# ## Two design rules
#
# The plain nets follow VGG, by two rules (section 3.3): (i) layers with the same size of output map have the same number of
# filters; (ii) where the map is halved, the number of filters is doubled, "so as to preserve the time complexity per layer".
#
# **Prediction.** By the formula above, half of $H$ and of $W$ with twice $C_\mathrm{in}$ and $C_\mathrm{out}$ leaves the
# cost as it is, and one 3x3 layer of 64 filters on a map of 56 pixels tells the cost of all of them.

# %%
predicted = 3**2 * 64 * 64 * 56 * 56
for name in ("plain-18", "plain-34", *residual):
    frame = frames[name]
    inner = frame[(frame.kind == "conv") & (frame.kernel == 3)]
    assert inner.groupby("size").channels.nunique().eq(1).all()  # (i)
    assert (inner.channels * inner["size"]).nunique() == 1  # (ii): half the map, twice the filters
    halving = inner.stride == 2
    assert (inner[~halving].multiply_adds == predicted).all()
    assert (inner[halving].multiply_adds == predicted / 2).all()
print(f"every 3x3 layer that keeps the size of its map: {predicted / 1e6:.1f} million multiply-adds")

# %% mystnb={"figure": {"caption": "Filters and multiply-adds (millions) of the convolutions by the size of their output map, projections left out; different values only, in the order of the layers.", "name": "tab-rules"}} tags=["hide-input"]
rows = []
for name in ("plain-34", "ResNet-50", "VGG-19"):
    frame = frames[name]
    for kernel in sorted(frame[frame.kind == "conv"].kernel.unique(), reverse=True):
        chosen = frame[(frame.kind == "conv") & (frame.kernel == kernel)]
        for size, group in chosen.groupby("size", sort=False):
            filters, costs = (
                ", ".join(map(str, dict.fromkeys(v))) for v in (group.channels, (group.multiply_adds / 1e6).round(1))
            )
            rows.append({"net": name, "layers": f"{kernel}x{kernel}", "map": size, "number": len(group),
                         "filters": filters, "multiply-adds a layer": costs})  # fmt: skip
pd.DataFrame(rows).set_index(["net", "layers", "map"])

# %% [markdown]
# What we see: the rules hold exactly for the 3x3 layers of every net of Table 1. Where they do not hold:
#
# - The **stem**. Max pooling halves the map between conv1 and conv2_x, and the filters are not doubled.
# - The **first layer of a stage** in the nets of basic blocks: it has the stride, and half as many channels come in, so it costs
#   half.
# - The **1x1 layers** of bottlenecks. At one map size there are two widths, so rule (i) is about 3x3 layers only, and a 1x1 layer
#   costs less than half of a 3x3 layer (projections on shortcuts aside, which are not in this table).
# - **VGG** itself: its last halving of the map leaves the filters as they are, so the layers after it are cheaper.

# %% [markdown]
# ## Layer by layer
#
# The table is that of the net chosen by the parameter `depth`, the figure below it is of all five.

# %% mystnb={"figure": {"caption": "The net chosen by the parameter, layer by layer: channels and size of the output, kernel, stride, parameters, cost in multiply-adds (millions) and receptive field (pixels).", "name": "tab-layers"}} tags=["hide-input", "output_scroll"]
chosen = frames[f"ResNet-{depth}"]
chosen = chosen[chosen.kind.isin(["conv", "projection", "max pool", "avg pool", "fc"])].set_index("name")
chosen["cost"] = (chosen.multiply_adds / 1e6).map("{:.1f}".format)
with pd.option_context("display.max_rows", None):
    display(chosen[["channels", "size", "kernel", "stride", "parameters", "cost", "field"]].rename_axis(None))


# %% tags=["hide-input"]
def look(depth, ax=None):
    """Multiply-adds of every layer, by stage."""
    frame = frames[f"ResNet-{depth}"]
    frame = frame[frame.kind.isin(["conv", "projection", "fc"])]
    stage = frame.name.where(frame.name.str.startswith("layer"), "conv1 and fc").str.split(".").str[0]
    stage = stage.str.replace(r"layer(\d)", lambda match: f"conv{int(match[1]) + 1}_x", regex=True)
    ax = ax or plt.figure(figsize=(8, 3)).gca()
    names = [name for name in stage.unique() if name != "conv1 and fc"]
    colours = dict(zip([*names, "conv1 and fc"], [*sns.color_palette("viridis", 4), "white"], strict=True))
    for name, colour in colours.items():
        part = (stage == name).to_numpy()
        edge = 0.6 * (name == "conv1 and fc")
        ax.bar(np.flatnonzero(part) + 1, frame.multiply_adds[part] / 1e6, 0.8, color=colour, label=name, ec="black", lw=edge)
    aside = (frame.kind == "projection").to_numpy()
    label = "projection" if aside.any() else None
    ax.plot(np.flatnonzero(aside) + 1, frame.multiply_adds[aside] / 1e6, "v", color="black", ms=4, label=label)
    total = f"ResNet-{depth}: {giga(frame.multiply_adds.sum())} billion multiply-adds"
    ax.set(ylabel="millions", xlim=(0, len(frame) + 1), ylim=(0, 125))
    ax.set_title(total, fontsize="medium")
    ax.xaxis.get_major_locator().set_params(integer=True)
    ax.grid(False, axis="x")
    return ax


# %% mystnb={"figure": {"caption": "Multiply-adds of every convolution and of the fully connected layer, in their order, projections where they are computed. 3x3 layers cost the same in every stage, the rules at work; half as much where a stage begins with a basic block. In the nets of 50 layers and more these are the tall bars, 1x1 layers the lower ones.", "name": "fig-layers"}} tags=["hide-input"]
figure, axes = plt.subplots(len(DEPTHS), figsize=(8, 8))
for ax, d in zip(axes, DEPTHS, strict=True):
    look(d, ax)
axes[-1].set_xlabel("convolution or fully connected layer")
_ = figure.legend(*axes[-1].get_legend_handles_labels(), fontsize="small", ncols=6, loc="outside lower center")

# %% [markdown]
# With a running kernel, as in JupyterLab, a slider takes one net after the other; on a page without one there is nothing more to
# see:


# %% tags=["hide-input"]
@interact(depth=SelectionSlider(options=DEPTHS, value=depth))
def one(depth):
    look(depth).legend(fontsize="small", ncols=6, loc="upper center", bbox_to_anchor=(0.5, -0.2))


# %% [markdown]
# ### The authors' own files
#
# The authors published the network files of ResNet-50, -101 and -152 (for Caffe, at github.com/KaimingHe/deep-residual-networks).
# Below are the layers in them, in their order and with their names, written as a rule, since the files are long. The rule was
# checked against the files: written out in their format, it has their length to the character (ResNet-101's file as in the
# authors' repository; those of 50 and 152 as in a public copy, apart from its edited first lines).


# %%
def authors(depth):
    """Name, filters, kernel, padding, stride of every convolution in the authors' file."""
    rows = [("conv1", 64, 7, 3, 2)]
    for stage in (2, 3, 4, 5):
        width = 64 * 2 ** (stage - 2)
        for i in range(int(paper[f"table1.resnet{depth}.conv{stage}_x.blocks"])):
            block = "abcdef"[i] if depth == 50 or stage in (2, 5) or i == 0 else f"b{i}"
            stride = 2 if i == 0 and stage > 2 else 1
            if i == 0:
                rows.append((f"res{stage}{block}_branch1", 4 * width, 1, 0, stride))
            rows.append((f"res{stage}{block}_branch2a", width, 1, 0, stride))
            rows.append((f"res{stage}{block}_branch2b", width, 3, 1, 1))
            rows.append((f"res{stage}{block}_branch2c", 4 * width, 1, 0, 1))
    return pd.DataFrame(rows, columns=["authors' name", "channels", "kernel", "padding", "stride"])


for d in (50, 101, 152):
    frame = frames[f"ResNet-{d}"]
    frame = frame[frame.kind.isin(["conv", "projection"])]
    first = frame.name.str.extract(r"(layer\d\.\d+)\.downsample")[0].to_numpy()  # the authors write branch1 before branch2
    block = frame.name.str.extract(r"(layer\d\.\d+)")[0].fillna("").to_numpy()
    order = sorted(range(len(frame)), key=lambda i: (list(block).index(block[i]), pd.isna(first[i]), i))
    frame, theirs = frame.iloc[order].reset_index(drop=True), authors(d)
    assert (frame[theirs.columns[1:]] == theirs[theirs.columns[1:]]).all(axis=None)
    print(f"ResNet-{d}: {len(frame)} convolutions, equal in filters, kernel, padding and stride")
frame[["name"]].join(theirs).iloc[[0, 1, 2, 3, 4, 5, 11, 12, -1]].set_index("name").rename_axis(None)

# %% [markdown]
# Two oddities of these files are departures here: in ResNet-50's file the first convolution has a bias, and max pooling is not
# padded but rounds up. The size of the map is the same, which pixels are pooled is not:

# %%
before = torch.arange(112.0).expand(1, 112, 112)
theirs, ours = nn.MaxPool2d(3, 2, ceil_mode=True)(before), nn.MaxPool2d(3, 2, 1)(before)
assert theirs.shape == ours.shape
print(
    f"the last pixel that each pooled pixel sees: {theirs[0, 0, :4].tolist()} ... in the files, {ours[0, 0, :4].tolist()} ... here"
)

# %% [markdown]
# ## Fig. 3
#
# VGG-19, the plain net of 34 layers, the residual net. Nothing is drawn by hand: every box is a layer, every bracket an
# addition that was found in the forward pass. Solid brackets are identities, dotted ones mark where the dimensions grow
# (here zero padding, option A). Nets stand level where their maps have the same size.

# %% mystnb={"figure": {"caption": "Fig. 3 of the paper, drawn by the modules: VGG-19, 34-layer plain net, 34-layer residual net. /2 is a stride of 2; the number after a kernel is that of filters. Dotted shortcuts are where the dimensions grow.", "name": "fig-architectures"}}
plt.figure(figsize=(7, 13))
_ = plots.architecture(
    {"VGG-19": frames["VGG-19"], "34-layer plain": frames["plain-34"], "34-layer residual": frames["ResNet-34"]}
)

# %% tags=["hide-input"]
shortcuts = frames["ResNet-34"].kind.value_counts()
for column in ("parameters", "multiply_adds"):
    assert frames["ResNet-34"][column].sum() == frames["plain-34"][column].sum()
assert (
    shortcuts["add"] == shortcuts["identity"] + shortcuts["zero padding"] == sum(blocks for blocks, *_ in stages("ResNet-34"))
)
say(
    f"ResNet-34 has {shortcuts['add']} shortcuts, {shortcuts['zero padding']} of them dotted. Its multiply-adds "
    f"({giga(frames['ResNet-34'].multiply_adds.sum())} G) and parameters are exactly those of its plain twin; the paper prints "
    f"{paper['fig3.plain34.flops'] / 1e9:.1f} G for both, and {paper['fig3.vgg19.flops'] / 1e9:.1f} G for VGG-19."
)

# %% [markdown]
# ## The bottleneck
#
# The deeper nets change the block: 1x1 down to a quarter of the channels, 3x3 on few of them, 1x1 up again (Fig. 5).

# %% mystnb={"figure": {"caption": "Fig. 5 of the paper, drawn by the modules: a basic block on 64 channels, a bottleneck on 256, and the same bottleneck with a projection as its shortcut (dotted: not the identity). The paper draws no normalisation; it is where section 3.4 puts it.", "name": "fig-blocks"}}
basic = counts.layers(shape_of(BasicBlock, 64, 64, 1, "A"), 56, 64)
bottleneck, projected = (counts.layers(shape_of(Bottleneck, 256, 64, 1, option), 56, 256) for option in "AC")
plt.figure(figsize=(7, 4))
_ = plots.architecture(
    {"basic block (64-d)": basic, "bottleneck (256-d)": bottleneck, "with a projection": projected},
    source="x",
    kinds=("conv", "bn", "relu", "add"),
)

# %% [markdown]
# **Prediction.** With a width of $w$, two 3x3 layers have $2 \cdot 9 w^2 = 18 w^2$ weights. A bottleneck has
# $4 w^2 + 9 w^2 + 4 w^2 = 17 w^2$, with four times the channels going in and out, and three layers instead of two. So
# exchanging every basic block of a 34-layer net for a bottleneck makes it deeper by its number of blocks, and hardly dearer.
# Two 3x3 layers on all of the $4w$ channels would have $18 \cdot 16 w^2$.


# %%
def weights(frame):
    return frame.multiply_adds.sum() // 56**2  # on a map of 56 x 56 pixels each weight is used once a pixel


w = 64
wide = counts.layers(shape_of(BasicBlock, 256, 256, 1, "A"), 56, 256)
for frame, predicted in ((basic, 18), (bottleneck, 17), (projected, 17 + 16), (wide, 18 * 16)):
    assert weights(frame) == predicted * w**2

where = {"stem": "conv1", "blocks": "layer", "fully connected": "fc"}
economy = pd.DataFrame(
    {
        name: {part: frames[name][frames[name].name.str.startswith(start)].multiply_adds.sum() for part, start in where.items()}
        | {"projections": frames[name][frames[name].kind == "projection"].multiply_adds.sum()}
        for name in ("ResNet-34", "ResNet-50")
    }
)
economy.loc["blocks"] -= economy.loc["projections"]
assert economy.sum().to_dict() == {name: frames[name].multiply_adds.sum() for name in economy}
economy.loc["sum"] = economy.sum()

# %% mystnb={"figure": {"caption": "Where the multiply-adds (billions) of the 34- and the 50-layer net go.", "name": "tab-economy"}}
economy.map(lambda value: f"{value / 1e9:.3f}")

# %%
extra = {d: [shape_of(reslib.imagenet_resnet, d, option) for option in "BC"] for d in (50, 101, 152)}
growth = {
    d: (counts.parameters(c) / counts.parameters(b), counts.multiply_adds(c, 224) / counts.multiply_adds(b, 224))
    for d, (b, c) in extra.items()
}
say(
    f"Without its projections, ResNet-50 costs {giga(economy.loc['sum', 'ResNet-50'] - economy.loc['projections', 'ResNet-50'])} G, "
    f"less than ResNet-34 ({giga(economy.loc['sum', 'ResNet-34'])} G). Its blocks cost "
    f"{economy.loc['blocks', 'ResNet-50'] / economy.loc['blocks', 'ResNet-34']:.3f} times as much as the basic ones; $17/18$ would be "
    f"{17 / 18:.3f}, and the difference is in the blocks that begin a stage. What makes it the dearer net in the end are the "
    f"projections of option B. The paper says of the two blocks of Fig. 5 that they have similar time complexity."
)

# %% [markdown]
# **Prediction (C18).** The identity is what makes bottlenecks cheap: their shortcuts join the two *wide* ends. A projection there
# has $4w \cdot 4w = 16 w^2$ weights, nearly as many as the block itself, so the block becomes $33/17$ times as large.

# %%
say(counted.sentence("C18", paper))
say(
    "That is one block. For whole nets, option C (all shortcuts are projections) against B (only where the dimensions grow): "
    + "; ".join(f"ResNet-{d}: {p:.2f} times the parameters, {m:.2f} times the multiply-adds" for d, (p, m) in growth.items())
    + "."
)

# %% [markdown]
# ## Strides: v1 and v1.5
#
# Where a stage begins, something must have the stride of 2. In the paper's nets it is the first 1x1 layer of the bottleneck
# ("v1"), in most libraries of today the 3x3 layer ("v1.5"). It is the same list of weights, so either net loads the other's, but
# not the same function.

# %%
v1 = {d: shape_of(reslib.imagenet_resnet, d) for d in (50, 101, 152)}
v15 = {d: shape_of(reslib.imagenet_resnet, d, stride_on="3x3") for d in (50, 101, 152)}
sides = {"v1": counts.layers(v1[50], 224), "v1.5": counts.layers(v15[50], 224)}
for d in v1:
    assert {k: v.shape for k, v in v1[d].state_dict().items()} == {k: v.shape for k, v in v15[d].state_dict().items()}

# %% mystnb={"figure": {"caption": "The first block of conv3_x, conv4_x and conv5_x of ResNet-50 in both versions: stride, size of the output map, cost in multiply-adds (millions).", "name": "tab-strides"}} tags=["hide-input"]
both = {}
for version, frame in sides.items():
    part = frame[frame.name.str.match(r"layer[234]\.0\.(conv\d|downsample\.0)")].set_index("name")
    both[version] = part[["stride", "size"]].assign(cost=(part.multiply_adds / 1e6).round(1))
pd.concat(both, axis=1).rename_axis(None)

# %% tags=["hide-input"]
rows = {}
for d in v1:
    a, b = counts.multiply_adds(v1[d], 224), counts.multiply_adds(v15[d], 224)
    memory = [f"{counts.activation_memory(net[d], 224) / 2**20:.1f}" for net in (v1, v15)]
    rows[f"ResNet-{d}"] = {"v1": giga(a), "v1.5": giga(b), "more": f"{giga(b - a)}", "more (%)": f"{100 * (b / a - 1):.1f}",
                           "v1 (MB)": memory[0], "v1.5 (MB)": memory[1],
                           "parameters (M)": f"{counts.parameters(v1[d]) / 1e6:.2f}"}  # fmt: skip
pd.DataFrame(rows).T.style.set_caption(
    "Multiply-adds (billions) and activations kept for the backward pass (MB, see the next section) of the two versions; their parameters are the same"
)

# %% [markdown]
# What we see: v1.5 costs the same amount more at every depth, since only three blocks differ. What one buys: a 1x1 layer with a
# stride of 2 looks at one pixel in four and never at the others; with the stride on the 3x3 layer, every pixel is used.

# %% [markdown]
# ## What a net costs
#
# Four costs, and they do not all go together. *Parameters* and *multiply-adds* as above. *Activation memory*: the bytes that
# autograd keeps from the forward for the backward pass, for one image of 224 pixels in 32-bit numbers, each storage once;
# weights, gradients and the optimiser come on top, and what the library needs to work is left out.
#
# **Prediction.** A convolution with normalisation keeps its output (for the normalisation) and the normalisation's output
# after the rectifier (for the next layer), so about two copies of all maps; the wide ends of bottlenecks cost little time
# but much memory.

# %%
frame = frames[f"ResNet-{depth}"]
elements = frame.channels * frame["size"] ** 2
keeps = 4 * elements[frame.kind.isin(["input", "relu", "conv", "projection", "max pool"])].sum()
keeps += 8 * elements[frame.kind == "max pool"].sum()  # which of the nine pixels was the largest, as 64-bit numbers
counted_bytes = counts.activation_memory(nets[f"ResNet-{depth}"], 224)
print(f"ResNet-{depth}: {keeps / 2**20:.1f} MB predicted, {counted_bytes / 2**20:.1f} MB kept")
assert abs(keeps / counted_bytes - 1) < 0.03


# %% [markdown]
# *Latency*: the time of one forward pass on this machine, one image, on one thread, which a busy machine disturbs least; the median
# of several passes. It is a measurement, so it differs from machine to machine and from build to build.


# %%
@torch.inference_mode()
def latency(net):
    """Seconds of each of 3 to 9 forward passes of one image after a first one, as many as fit into a second and a half."""
    net = deepcopy(net).to_empty(device="cpu").eval().to(memory_format=torch.channels_last)
    for tensor in (*net.parameters(), *net.buffers()):
        tensor.fill_(0.01)
    image = torch.randn(1, 3, 224, 224).to(memory_format=torch.channels_last)
    seconds = []
    while len(seconds) < 4 or (len(seconds) < 10 and sum(seconds) < 1.5):
        start = time.perf_counter()
        net(image)
        seconds.append(time.perf_counter() - start)
    return np.array(seconds[1:])


threads = torch.get_num_threads()
torch.set_num_threads(1)
rows = {}
for name in ("plain-18", "plain-34", *residual, "VGG-16", "VGG-19"):
    milliseconds = 1e3 * latency(nets[name])
    rows[name] = {
        "parameters": frames[name].parameters.sum() / 1e6,
        "multiply-adds": frames[name].multiply_adds.sum() / 1e9,
        "activations": counts.activation_memory(nets[name], 224) / 2**20,
        "latency": np.median(milliseconds),
        "min": milliseconds.min(),
        "max": milliseconds.max(),
    }
torch.set_num_threads(threads)
costs = pd.DataFrame(rows).T
costs["speed"] = 1e3 * costs["multiply-adds"] / costs.latency

# %% mystnb={"figure": {"caption": "What each net costs. Counted: parameters (millions), multiply-adds (billions), activations kept for the backward pass (MB). Measured when this page was built: latency (ms: median, least, most), and multiply-adds (billions) a second.", "name": "tab-costs"}}
costs.style.format("{:.0f}").format("{:.1f}", subset=["parameters", "activations"]).format("{:.2f}", subset=["multiply-adds"])

# %% mystnb={"figure": {"caption": "Measured time against multiply-adds (left), memory for training against parameters (right). Squares: VGG; circles: residual nets, by their layers. The plain nets are not drawn: their counts are those of their residual twins.", "name": "fig-costs"}} tags=["hide-input"]
figure, axes = plt.subplots(1, 2, figsize=(8, 3.4))
axis = {"parameters": "parameters (millions)", "multiply-adds": "multiply-adds (billions)",
        "latency": "latency (ms)", "activations": "activations (MB)"}  # fmt: skip
for ax, (x, y) in zip(axes, (("multiply-adds", "latency"), ("parameters", "activations")), strict=True):
    for name, row in costs.drop(["plain-18", "plain-34"]).iterrows():
        marker, colour = ("s", "#b04a00") if "VGG" in name else ("o", "#0b5394")
        ax.plot(row[x], row[y], marker, color=colour, ms=6)
        place = dict(xytext=(5, -12) if name in ("ResNet-18", "ResNet-34", "VGG-16") else (5, 4), textcoords="offset points")
        ax.annotate(name.replace("ResNet-", ""), (row[x], row[y]), fontsize=8.5, **place)
    ax.set(xlabel=axis[x], ylabel=axis[y], xlim=(0, 1.25 * costs[x].max()), ylim=(0, 1.15 * costs[y].max()))

# %% tags=["hide-input"]
vgg, basic_net, bottle = costs.loc["VGG-19"], costs.loc["ResNet-34"], costs.loc["ResNet-50"]
say(
    f"Measured on {cpu_name()}, one thread, torch {torch.__version__}, in single precision. What we see: "
    f"multiply-adds tell the time roughly (between {costs.speed.min():.0f} and {costs.speed.max():.0f} billion of them a "
    f"second), but parameters do not tell the memory: VGG-19 has {vgg.parameters / bottle.parameters:.1f} times the parameters of "
    f"ResNet-50 and keeps {vgg.activations / bottle.activations:.2f} times its activations. ResNet-50 costs "
    f"{bottle['multiply-adds'] / basic_net['multiply-adds']:.2f} times ResNet-34 in multiply-adds, and "
    f"{bottle.activations / basic_net.activations:.2f} times in memory: the bottleneck saves arithmetic, not memory."
)

# %% [markdown]
# ## What a unit sees
#
# The receptive field of a unit is the square of the image that it can depend on. It follows from the modules alone: a layer with
# kernel $k$ adds $(k - 1)$ times the distance $j$, in pixels, of its neighbouring inputs, and a stride multiplies $j$.
#
# **Prediction.** After the stem only 3x3 layers let it grow, so bottlenecks, which have one of them where basic blocks have two, see less: a
# 50-layer net less than a 34-layer one. For the check, take the net of 18 layers with all weights positive, so that nothing can
# cancel, and max pooling exchanged for average pooling of the same geometry, so that no pixel is left out. The
# gradient of one unit in the middle of the last map must then be zero outside a square of exactly that size, and nowhere zero
# inside.

# %%
fields = {}
for name in residual:
    fields[name] = frames[name].query("kind == 'conv'").field.to_numpy()
assert fields["ResNet-50"][-1] < fields["ResNet-34"][-1]
assert all(values[-1] > 224 for values in fields.values())
field18 = fields["ResNet-18"][-1]

net = reslib.imagenet_resnet(18).double().eval().requires_grad_(False)
for weight in net.parameters():
    weight.abs_()
net.maxpool = nn.AvgPool2d(3, 2, 1)
image = torch.ones(1, 3, 480, 480, dtype=torch.double, requires_grad=True)
x = image
for module in (net.conv1, net.bn1, net.maxpool, net.layer1, net.layer2, net.layer3, net.layer4):
    x = module(x)  # all values are positive: the rectifiers change nothing
x[0, :, 7, 7].sum().backward()
seen = image.grad[0].abs().sum(0)  # (480, 480)
across = (seen > 0).any(0).nonzero().flatten()
assert (seen > 0).sum() == field18**2 and len(across) == field18 == across[-1] - across[0] + 1
print(f"ResNet-18, a unit of the last map: {field18} pixels from the modules, {len(across)} by the gradient")

# %%
share = (seen / seen.sum()).sum(0).cumsum(0)  # from left to right; from top to bottom it is the same
low, high = (int((share > part).nonzero()[0]) for part in (0.025, 0.975))
within = (seen[low : high + 1, low : high + 1].sum() / seen.sum()).item()

# %% mystnb={"figure": {"caption": "Left: receptive field of the convolutions by depth; the dashed line is the image. Right: the gradient of one unit of ResNet-18 in an image of 480 pixels, weights positive, logarithmic (bright: large). The coloured square is the receptive field; the white frame has 95 % of the gradient between its left and right side, and as much between top and bottom.", "name": "fig-fields"}} tags=["hide-input"]
figure, (left, right) = plt.subplots(1, 2, figsize=(8, 3.5), width_ratios=(1.25, 1))
for (name, values), line, colour in zip(
    fields.items(), ("-", "--", "-", "--", "-."), sns.color_palette("viridis", 6)[:5], strict=True
):
    left.plot(range(1, len(values) + 1), values, line, color=colour, lw=1.6)
    left.annotate(
        name.split("-")[1], (len(values), values[-1]), xytext=(0, 4), textcoords="offset points", fontsize=8.5, ha="center"
    )
left.axhline(224, color="black", lw=0.8, ls=(0, (4, 3)))
left.set(xlabel="layer", ylabel="receptive field (pixels)", ylim=(0, None), xlim=(0, 170))
picture = seen.log10().where(seen > 0, torch.nan)
right.imshow(picture, cmap="viridis", vmin=float(seen.max().log10()) - 8)
for start, stop in ((int(across[0]), int(across[-1])), (low, high)):
    right.add_patch(
        plt.Rectangle(
            (start - 0.5, start - 0.5), stop - start + 1, stop - start + 1, fill=False, ec="white" if start == low else "black"
        )
    )
right.set(xticks=[0, 240, 479], yticks=[0, 240, 479], xlabel="pixels")
right.grid(False)

# %% tags=["hide-input"]
v15_field = {d: counts.layers(v15[d], 224).query("kind == 'conv'").field.max() for d in v15}
say(
    "Receptive field of the last map: "
    + ", ".join(f"{name} {values[-1]}" for name, values in fields.items())
    + f" pixels; with the strides of v1.5, {', '.join(f'ResNet-{d} {value}' for d, value in v15_field.items())}. All see more than the "
    f"image of 224 pixels. But the edge of the field counts for little: with positive random weights, a square of {high - low + 1} "
    f"pixels, instead of {field18}, holds {within:.0%} of the gradient of ResNet-18."
)

# %% [markdown]
# ## The family for CIFAR-10
#
# Section 4.2 has nets for small images: one 3x3 convolution, then $6n$ layers of 3x3 on maps of 32, 16 and 8 pixels, $2n$ for
# each, with 16, 32 and 64 filters; 6n + 2 layers with the fully connected one. Shortcuts join pairs of layers, $3n$ of them,
# all of option A.

# %% mystnb={"figure": {"caption": "The table of section 4.2, from the modules of the net with 20 layers: number of layers and of filters by the size of the output map.", "name": "tab-cifar"}}
family = [20, 32, 44, 56, 110, 1202]
cifar = {d: counts.layers(shape_of(reslib.cifar_resnet, d), 32) for d in family}
for d, frame in cifar.items():
    n = int(paper[f"s42.resnet{d}.n"])
    convs = frame[frame.kind == "conv"].groupby("size", sort=False).agg(layers=("name", "size"), filters=("channels", "max"))
    expected = [
        (paper[f"s42.stage{i}.map_size"], (1 if i == 1 else 0) + 2 * n, paper[f"s42.stage{i}.filters"]) for i in (1, 2, 3)
    ]
    assert list(convs.reset_index().itertuples(index=False, name=None)) == expected
    assert len(frame[frame.kind.isin(["conv", "fc"])]) == 6 * n + 2 == d and (frame.kind == "add").sum() == 3 * n
first = cifar[family[0]]
first[first.kind == "conv"].groupby("size", sort=False).agg(layers=("name", "size"), filters=("channels", "max")).T

# %% mystnb={"figure": {"caption": "The CIFAR-10 nets, and the parameters that Table 6 of the paper gives (millions, like the multiply-adds); field: the receptive field of the last map, in pixels.", "name": "tab-family"}} tags=["hide-input"]
rows = []
for d, frame in cifar.items():
    ours, theirs = frame.parameters.sum() / 1e6, paper[f"table6.resnet{d}.parameters"] / 1e6
    assert round(ours, 2 if theirs < 1 else 1) == theirs
    rows.append({"layers": d, "n": int(paper[f"s42.resnet{d}.n"]), "shortcuts": (frame.kind == "add").sum(),
                 "parameters": f"{ours:.4f}", "Table 6": f"{theirs:.3g}",
                 "multiply-adds": f"{frame.multiply_adds.sum() / 1e6:.1f}",
                 "field": frame[frame.kind == "conv"].field.max()})  # fmt: skip
pd.DataFrame(rows).set_index("layers").rename_axis(None)

# %% [markdown]
# **Prediction (C19).** ResNet-110 "has fewer parameters than other deep and thin networks such as FitNet and Highway, yet is
# among the state-of-the-art results". Only the counting half is judged here; the other is a matter of errors (C13).

# %%
say(counted.sentence("C19", paper))
say(
    f"The Highway net of {paper['table6.highway32.layers']:.0f} layers is the exception: it is smaller, and its error is larger "
    f"({paper['table6.highway32.test_error']:.2f} % against {paper['table6.resnet110.test_error']:.2f} %). ResNet-56 is smaller than all three "
    f"({paper['table6.resnet56.parameters'] / 1e6:.2f} M), with an error of {paper['table6.resnet56.test_error']:.2f} % in the paper."
)

# %% [markdown]
# ## Verdicts

# %%
say(pd.DataFrame([counted.row(claim, paper) for claim in ("C10", "C17", "C18", "C19")]).to_markdown(index=False))

# %% [markdown]
# ## What was not tested, and why
#
# - **Accuracy.** That these nets are as good as the paper says (C9, and the other half of C19) needs training on ImageNet or
#   CIFAR-10. Nothing on this page says that a cheaper net is a better one.
# - **How the paper counted.** Its counting is not described. A rule that gives all of its numbers was found by trying, which is
#   no proof that it was the authors'.
# - **Time on a GPU**, with larger batches or in half precision. Latency depends on all of these; one image in single precision on a
#   CPU says what a net costs there, not elsewhere.
# - **Peak memory.** What autograd keeps is a lower bound. Workspaces, gradients, the optimiser and fragmentation come on top.
# - **The receptive field of a trained net.** Which part of its field a unit really uses depends on the weights. The gradient
#   above is that of positive random weights.
# - **The 1202-layer net**, beyond its counts: C16 belongs to another chapter.
