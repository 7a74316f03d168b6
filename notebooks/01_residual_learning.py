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
# # Residual learning
#
# > **Sections 1, 3.1 and 4.1 of the paper** {cite:p}`he2016resnet`; Fig. 1, Fig. 2, Eq. 1. Claims: C1 (deeper plain nets
# > train worse), C5 (residual nets reverse it), C21 (a deeper net that is no worse exists), C3 (gradients
# > do not vanish), C22 (initialisation and normalisation keep signals alive).
# >
# > **The paper says:** a plain net of 56 layers fits its own training set worse than one of 20. Residual nets do not.
# >
# > **We see:** the same in every public rerun at the paper's scale that reports training errors. Of our own runs there,
# > {numref}`tab-ours` has those that are recorded; a verdict waits for all that are planned.
# >
# > **Why they agree:** in test error, what depth costs a plain net is many times the spread over seeds, and larger than that
# > over authors. But the paper's sentence about gradients needs a limit: before training they do *explode* in deep plain nets,
# > in spite of batch normalisation.
# >
# > **What this costs:** about a minute on two CPU cores, no download, since runs are replayed. To make one again takes minutes
# > on one core at `pocket` scale, hours at `night` scale, and a GPU at `paper` scale.

# %% tags=["parameters"]
scale = "demo"  # of the runs in the last section; "demo" replays the pocket runs
depths = "20,56"  # layers of the nets compared, 6n+2 each, the shallowest first
seeds = "0,1,2"  # of the runs; the verdicts' seeds are fixed in reslib/evidence/plan.py
retrain = False  # True: carry out the runs of `scale` here (finished ones are kept)
out_dir = "runs"  # folder for runs made here

# %% tags=["hide-input"]
from dataclasses import replace
from itertools import chain, count, product
from pathlib import Path
from tempfile import mkdtemp

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from torch import nn
from torch.nn.functional import cross_entropy, mse_loss, relu

import reslib
from reslib import CIFAR, probes
from reslib.evidence import audit, chapter, claims, comparison, counts, figures

# isort: split
from reslib.evidence import parameters, plan, plots, reruns, start
from reslib.record import weights_sha256

parameters.check(
    globals(),
    scale=parameters.choice("demo", "pocket", "night", "paper"),
    depths=parameters.cifar_depths,
    seeds=parameters.whole_numbers,
    retrain=parameters.flag,
    out_dir=Path,
)
# %% tags=["hide-input"]
runs_scale = chapter.scale_of_runs(scale, retrain)
shallow, deep = depths[0], depths[-1]
nets = [replace(CIFAR, depth=d, shortcut=kind) for kind in (None, "A") for d in depths]
planned = [replace(net, seed=seed).at(runs_scale) for net in nets for seed in seeds]
runs, missing = chapter.gather(planned, retrain, out_dir)
evidence, paper = reslib.records(), claims.paper()
NETS = [make(depth) for make in (plan.plain, plan.residual) for depth in (20, 56)]
NETS = {net.told: net for net in NETS}  # plain-20, plain-56, ResNet-20, ResNet-56
PRINTED = [paper[f"fig6.plain{depth}.test_error_read_off"] for depth in (20, 56)]
PRINTED += [paper[f"table6.resnet{depth}.test_error"] for depth in (20, 56)]
PRINTED = dict(zip(NETS, PRINTED, strict=True))  # the paper's test errors (%)
recorded = chapter.by_scale(NETS, evidence)  # by net and scale, the runs
plots.style()
torch.set_num_threads(1)  # what is live here is too small to be shared out

# %% [markdown]
# (paper-abstract)=
# (paper-1-degradation)=
# (paper-fig-1)=
# (paper-c1)=
# (paper-c5)=
# ## The deeper net is worse
#
# Is learning better networks as easy as stacking more layers? No: {numref}`fig-degradation` shows that a *plain* net of 56
# layers ends with a higher error than one of 20, **on the training images too**. A plain net is a stack of 3×3 convolutions,
# each followed by batch normalisation (BN, {cite:t}`ioffe2015batch`) and a ReLU, $\sigma(x) = \max(0, x)$. With a *shortcut*
# around every two layers it is a *residual* net, and there the deeper one is the better.
#
# The paper calls the first *degradation*: with more depth the accuracy saturates, and then gets worse. It is not overfitting,
# for an overfitted net has a *low* training error. The deeper net is harder to optimise.

# %% mystnb={"figure": {"caption": "Degradation and its cure. Without shortcuts (dashed, orange) the net of 56 layers, the darker one, ends above that of 20, in training error (left) as in test error (right); with shortcuts (solid, blue) it ends below. Thin lines are a public rerun (a-martyn), one run a net; bold lines are means of our own runs, of the nets that have any. Diamonds: the paper's test errors, for plain nets read off its Fig. 6 by eye to within half a point. CIFAR-10 as published, 64,000 iterations; training error on augmented images, ours while training, theirs in test mode.", "name": "fig-degradation"}, "image": {"alt": "Two panels of error over 64,000 iterations. In training error plain-56 ends at about 3 percent and the other nets at about 1 percent or below. In test error plain-56 ends at about 13 percent, plain-20 at 9 to 10, ResNet-20 at about 8 and ResNet-56 at about 7, close to the paper's diamonds."}} tags=["hide-input"]
own = [run for net in NETS for run in recorded[net, "paper"]]
figure, axes = plt.subplots(1, 2, sharey=True, figsize=(8, 4))
figures.learning(reslib.curves(own), PRINTED, axes)

# %% [markdown]
# One run a net proves little. {numref}`fig-public` has the *public reruns* that we found at the paper's scale, trainings of
# these nets that others published, and {numref}`tab-public` their means. Depth costs a plain net a few points. In test error this
# is about four standard deviations over authors; in training error, which they measure in different ways, about two.
#
# **Predictions.** The training error of plain-56 lies above that of plain-20 (C1). Both errors of ResNet-56 lie below those of
# ResNet-20 (C5). By the rule for public runs, the reruns agree with both.

# %% mystnb={"figure": {"caption": "Right of zero the deeper net is worse: every plain pair (squares), on training as on test images. Left of zero it is better: nearly every residual pair (circles). A point is an author; the bar is the mean over authors with its 95 % interval; hollow points are recipes far from the paper's. Diamonds: the paper (plain nets read off its Fig. 6).", "name": "fig-public"}, "image": {"alt": "Four rows of points, one point an author. The rows of plain-56 minus plain-20 lie right of zero, at about 4 points, those of ResNet-56 minus ResNet-20 left of zero, in training and in test error."}} tags=["hide-input"]
pairs = reruns.depth_pairs(PRINTED)
figure, ax = plt.subplots(figsize=(8, 2.8))
figures.strips(pairs, ax)

# %% mystnb={"figure": {"caption": "What 56 layers instead of 20 change: the paper, and public reruns (mean over authors with its 95 % interval, far recipes left out). A difference of positive sign is a worse deeper net.", "name": "tab-public"}} tags=["hide-input"]
for what, times in (("test", 4), ("training", 2)):  # the words above
    _, of, _ = pairs[f"plain-56 − plain-20, {what} error"]
    assert round(of.effect[of.sized].mean() / of.effect[of.sized].std()) == times
figures.strips_table(pairs)

# %% [markdown]
# The [chapter on public reruns](07_reruns.ipynb) has the rule, [its appendix](09_sources.ipynb) the sources. {numref}`tab-ours`
# has our own runs on CIFAR-10 {cite:p}`krizhevsky2009learning` so far. Until all are in, C1 and C5 are *incomplete* by them.

# %% mystnb={"figure": {"caption": "Our own runs of the four nets on the paper's images: final errors (%), means over n seeds. The 16,000 iterations of night scale, in bfloat16, are a quarter of the paper's schedule. The paper's test errors of plain nets are read off Fig. 6, to within half a point.", "name": "tab-ours"}} tags=["hide-input"]
rows = {
    (net, f"{CIFAR.at(at).steps:,}"): {
        "n": len(of),
        "training error": np.mean([run.final["train_error"] for run in of]),
        "test error": np.mean([run.final["test_error"] for run in of]),
        "the paper, test": PRINTED[net] if at == "paper" else np.nan,
    }
    for (net, at), of in recorded.items()
    if of and at != "pocket"
}
table_ours = pd.DataFrame(rows).T.rename_axis(["net", "iterations"])
table_ours.style.format("{:.1f}", na_rep="").format("{:.0f}", subset=["n"])

# %% [markdown]
# (paper-1-depth)=
# ## Why depth
#
# Why would one want depth at all? Because deep nets were the better ones, until they were too deep. A net integrates *low, mid
# and high-level features*: edges and colours, then textures and parts, then objects. {cite:t}`zeiler2014visualizing` made them
# visible layer by layer. More layers can enrich the levels, and the best ImageNet results before the paper came from nets of
# 16 to 30 layers {cite:p}`simonyan2015very,szegedy2015going,ioffe2015batch`.
#
# One reason can be computed. A unit sees only a window of the image, its *receptive field*, and each 3×3 convolution widens it.
# By {numref}`tab-field` no unit of an 8-layer net sees a whole CIFAR image of 32×32 pixels before the maps are averaged, so
# none can see an object that fills the image. At 20 layers the last two *stages*, runs of layers on maps of one size, can.

# %% mystnb={"figure": {"caption": "Depth widens what a unit can see: receptive field, in pixels of the 32\u00d732 input, at the end of each stage of plain nets.", "name": "tab-field"}} tags=["hide-input"]
fields = {}
for depth in (8, 20, 56):
    rows = counts.layers(counts.shape_of(reslib.cifar_plain, depth), 32)
    rows = rows[rows.kind == "conv"].groupby("size", sort=False)
    fields[f"plain-{depth}"] = rows.field.max()
pd.DataFrame(fields).rename(lambda size: f"maps of {size}x{size}").T

# %% [markdown]
# (paper-1-construction)=
# (paper-c21)=
# ## A solution by construction
#
# Must a deeper net be worse? No: a deeper net that is exactly as good exists *by construction* (section 1). Take a trained
# shallow net and add layers that are the identity. After a ReLU every value is at least zero, so a convolution that copies its
# input, a BN that divides by one, and another ReLU change nothing. It holds for any weights, so an untrained net shows it:


# %%
@torch.no_grad()
def become_identity(block):
    for conv, bn in ((block.conv1, block.bn1), (block.conv2, block.bn2)):
        nn.init.dirac_(conv.weight)  # copies every channel
        nn.init.constant_(bn.running_mean, 0)
        nn.init.constant_(bn.running_var, 1)
        nn.init.constant_(bn.weight, (1 + bn.eps) ** 0.5)  # undoes 1 / sqrt(1 + eps)
        nn.init.constant_(bn.bias, 0)


torch.manual_seed(0)
small = reslib.cifar_plain(shallow).eval()  # test mode: BN uses its stored statistics
extended = reslib.cifar_plain(deep).eval()
extended.load_state_dict(small.state_dict(), strict=False)  # the layers of both nets
for stage in (extended.layer1, extended.layer2, extended.layer3):
    for block in stage[len(small.layer1) :]:
        become_identity(block)

x = torch.randn(8, 3, 32, 32)
with torch.inference_mode():
    assert torch.allclose(extended(x), small(x), rtol=1e-3, atol=1e-3)
    assert torch.equal(extended(x), probes.extend_by_identity(small, deep)(x))

# %% [markdown]
# The *function classes are nested*: of all functions that plain-20 and plain-56 can compute in test mode,
# $\mathcal{C}_{20} \subset \mathcal{C}_{56}$, and the best training error within $\mathcal{C}_{56}$ cannot be higher. What fails is
# the search: stochastic gradient descent (SGD) does not find a solution that is known to exist.
#
# **Prediction (C21).** A trained plain-20 extended to 56 layers keeps its training error, and plain-56 trained from scratch
# ends above it. {numref}`tab-extended` shows the first half with our own nets. For the second half a public plain-56 stands
# beside them, until all planned runs of our own are in.

# %% mystnb={"figure": {"caption": "The extended net computes what it was made of: training error (%, a clean pass over all training images) of our plain-20 at the paper's scale, of the same net extended to 56 layers, and of a public plain-56 trained from scratch (a-martyn, weights measured by us).", "name": "tab-extended"}} tags=["hide-input"]
audited = audit.audits().query("source == 'a-martyn/resnet'").set_index("net")
built = pd.DataFrame(
    {
        f"plain-20, seed {run.recipe.seed}": {
            "trained": run.final["train_error"],
            "extended to 56 layers": run.final["identity_extension"]["train_error"],
        }
        for run in recorded["plain-20", "paper"]
    }
).T
built.loc["plain-56, public", "trained"] = audited.train_error["plain56"]
assert (built["extended to 56 layers"].dropna() < audited.train_error["plain56"]).all()
built.style.format("{:.2f}", na_rep="")

# %% [markdown]
# (paper-3-1-residual)=
# (paper-eq-1)=
# (paper-fig-2)=
# ## Learning the residual
#
# If added layers should start from the identity, can we make it easy to reach? Yes, by one addition ({numref}`fig-block`). Let
# $\mathcal{H}(\mathbf{x})$ be the mapping that a few layers should learn, $\mathbf{x}$ being their input. Instead of
# $\mathcal{H}$, let the layers learn the *residual function* $\mathcal{F}(\mathbf{x}) = \mathcal{H}(\mathbf{x}) - \mathbf{x}$,
# and add the input back:
#
# \begin{equation}
# \mathbf{y} = \mathcal{F}(\mathbf{x}, \{W_i\}) + \mathbf{x}, \qquad \mathcal{F} = W_2\,\sigma(W_1 \mathbf{x})
# \end{equation}
#
# for a block of two layers with weights $W_1$ and $W_2$. Biases are omitted, as in the paper, "for simplifying notations";
# after the addition there is a second ReLU, $\sigma(\mathbf{y})$. The shortcut needs neither parameters nor multiplications.

# %% mystnb={"figure": {"caption": "A building block (Fig. 2 of the paper, redrawn). The layers learn what has to be added to their input.", "name": "fig-block"}, "image": {"alt": "Diagram of a block: the input x goes through two weight layers with a ReLU between them, and past them along a curved identity shortcut; both are added, then a ReLU follows."}} tags=["hide-input"]
figure, ax = plt.subplots(figsize=(4.2, 3.2))
drawn = counts.shape_of(reslib.cifar_resnet, 20).layer1[1]
drawn = {"a block of ResNet-20": counts.layers(drawn, 32, 16)}
plots.architecture(drawn, r"$\mathbf{x}$", ("conv", "relu", "add"), ax)
labels = {(-0.55, 2.6): r"$\mathcal{F}(\mathbf{x})$", (0.46, 2.2): "identity"}
labels[0.04, 4.6] = r"$\mathcal{F}(\mathbf{x}) + \mathbf{x}$"
_ = [ax.text(*at, text, fontsize=9) for at, text in labels.items()]


# %% [markdown]
# In code, with BN after each convolution and before the ReLU (section 3.4). The block is compared with the one of `reslib`:


# %%
class ResidualBlock(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn1, self.bn2 = nn.BatchNorm2d(channels), nn.BatchNorm2d(channels)

    def F(self, x):  # (B, C, H, W) -> (B, C, H, W)
        return self.bn2(self.conv2(relu(self.bn1(self.conv1(x)))))

    def forward(self, x):
        return relu(self.F(x) + x)  # Eq. 1, then the second ReLU


block, tested = ResidualBlock(16), reslib.cifar_resnet(20).layer1[1]
block.load_state_dict(tested.state_dict())
x = relu(torch.randn(8, 16, 16, 16))  # what a block meets: the output of a ReLU
assert torch.equal(block(x), tested(x))

# %% [markdown]
# (paper-3-1-expressiveness)=
# ### Equally expressive
#
# Can residual blocks compute more than plain ones? In the limit, no. If many nonlinear layers can approximate any function
# $\mathcal{H}$, they can approximate $\mathcal{H}(\mathbf{x}) - \mathbf{x}$ as well. The forms differ in ease of learning.
#
# For finite layers the argument can be made exact. A plain block $\mathcal{H}(\mathbf{x}) = W_2\,\sigma(W_1\mathbf{x})$ is also
# a residual block, with some more hidden units: these copy $\mathbf{x}$, which is not negative, and subtract it again.

# %%
W1, W2 = torch.randn(32, 16), torch.randn(16, 32)
wide1 = torch.cat([W1, torch.eye(16)])  # 16 hidden units more, which copy x
wide2 = torch.cat([W2, -torch.eye(16)], dim=1)  # and take it away
x = relu(torch.randn(100, 16))
H = relu(x @ W1.T) @ W2.T
F = relu(x @ wide1.T) @ wide2.T
assert torch.allclose(F + x, H, atol=1e-4)

# %% [markdown]
# (paper-3-1-easy)=
# (paper-3-1-zero)=
# ### Easier to learn
#
# Why should $\mathcal{F}$ be easier to learn than $\mathcal{H}$? Because good functions may be closer to the identity than to
# zero. The paper calls this *preconditioning*: the solver has to find only how they differ from the identity. In the extreme,
# "if identity mappings are optimal, the solvers may simply drive the weights of the multiple nonlinear layers toward zero".
#
# With BN the quoted sentence is not true as it stands. Shrinking the weights in front of a BN changes nothing, because BN
# divides by their size. What makes $\mathcal{F}$ vanish is the *scale* of its last BN:

# %%
x = relu(torch.randn(8, 16, 16, 16))
before = block(x)
with torch.no_grad():
    for conv in (block.conv1, block.conv2):
        conv.weight *= 0.1  # ten times smaller
torch.testing.assert_close(block(x), before, rtol=0.01, atol=0.01)  # no change

nn.init.zeros_(block.bn2.weight)  # the scale of the last BN; its shift is zero already
assert torch.equal(block(x), x)  # the identity, exactly

# %% [markdown]
# Is the identity easy to learn, then? {numref}`tab-learn-identity` trains stacks of one, three and nine blocks to return
# random feature maps as they are: plain blocks, residual blocks, and residual blocks whose last BN scale starts at zero. Each
# stack gets the best of three learning rates by a run with another seed; where that is the largest, a larger one might be better.
#
# **Prediction.** Residual stacks come closer to the identity than plain ones.


# %%
def stack(kind, blocks, channels=8):
    net = nn.Sequential(*(ResidualBlock(channels) for _ in range(blocks)))
    for block in net:
        if kind == "plain":
            block.forward = lambda x, F=block.F: relu(F(x))
        if kind == "zero scale":
            nn.init.zeros_(block.bn2.weight)
    return net


def learn_identity(kind, blocks, lr, seed, steps=50):  # -> relative error at the end
    torch.manual_seed(seed)
    net, found = stack(kind, blocks), []
    optimizer = torch.optim.SGD(net.parameters(), lr, CIFAR.momentum)
    for _ in range(steps):
        x = relu(torch.randn(16, 8, 8, 8))
        error = mse_loss(net(x), x)
        optimizer.zero_grad()
        error.backward()
        optimizer.step()
        found.append(error.item() / x.var().item())
    return np.mean(found[-10:])


learned = {}
for kind, blocks in product(("plain", "residual", "zero scale"), (1, 3, 9)):
    pilot = {lr: learn_identity(kind, blocks, lr, 1000) for lr in (0.01, 0.1, 0.5)}
    best = min(pilot, key=pilot.get)
    reached = [learn_identity(kind, blocks, best, seed) for seed in (0, 1)]
    learned[kind, f"{2 * blocks} layers"] = f"{np.mean(reached):.2g} ({best:g})"

# %% mystnb={"figure": {"caption": "How far stacks are from the identity after 50 steps of SGD: mean squared error over the variance of the input, the last ten steps, mean of two seeds; in brackets the learning rate chosen. The best constant reaches 1. Zero scale: the stack starts as the identity and stays there.", "name": "tab-learn-identity"}} tags=["hide-input"]
learned_table = pd.Series(learned).unstack(sort=False)
reached = learned_table.map(lambda text: float(text.split()[0]))
assert (reached.loc["residual"].iloc[:2] < reached.loc["plain"].iloc[:2] / 5).all()
assert (reached.loc["zero scale"] == 0).all() and reached.loc["residual"].iloc[2] > 0.3
learned_table

# %% [markdown]
# At two and six layers the prediction holds by far. At 18 layers ordinary residual blocks are no better than plain ones in
# these few steps. BN gives the output of every untrained $\mathcal{F}$ a standard deviation of one, and nine of them add up: a
# deep stack does *not* start near the identity, unless its scales start small, which the paper's do not. The [chapter on
# shortcuts](02_shortcuts.ipynb) asks the same of functions *near* the identity.

# %% [markdown]
# (paper-4-1-gradients)=
# (paper-c3)=
# ## The way back
#
# What does the addition do for the gradient? It gives every layer a direct path to the loss. Leave the second ReLU out for a
# moment, and let $\mathbf{x}_l$ be the input of block $l$, so that $\mathbf{x}_{l+1} = \mathbf{x}_l +
# \mathcal{F}_l(\mathbf{x}_l)$. Let $L$ be the number of blocks and $\mathcal{L}$ the loss. By the chain rule
#
# \begin{equation}
# \frac{\partial \mathcal{L}}{\partial \mathbf{x}_l} = \frac{\partial \mathcal{L}}{\partial \mathbf{x}_L}
# \prod_{i=L-1}^{l} \left( I + \frac{\partial \mathcal{F}_i}{\partial \mathbf{x}_i} \right).
# \end{equation}
#
# Multiplied out, one term of the product is $I$: the gradient at the output reaches $\mathbf{x}_l$ unchanged, whatever the
# weights are. A plain net has the factors $\partial \mathcal{F}_i / \partial \mathbf{x}_i$ alone, and a product of dozens of
# matrices tends to vanish or to explode {cite:p}`bengio1994learning,glorot2010understanding`. The equation in numbers:

# %%
torch.manual_seed(0)
layers = iter(nn.Linear(6, 6, bias=False) for _ in range(10))
functions = [nn.Sequential(next(layers), nn.ReLU(), next(layers)) for _ in range(5)]
xs = [torch.randn(6, requires_grad=True)]
for F in functions:
    xs.append(xs[-1] + F(xs[-1]))
loss = xs[-1].square().sum()
grads = torch.autograd.grad(loss, [xs[-1], xs[0]])

jacobian = torch.eye(6)  # of all blocks
for F, x in zip(functions, xs[:-1], strict=True):  # later blocks to the left
    jacobian = (torch.eye(6) + torch.autograd.functional.jacobian(F, x)) @ jacobian
torch.testing.assert_close(grads[1], grads[0] @ jacobian)

# %% [markdown]
# The paper's blocks end with a ReLU after the addition. So each factor is multiplied by a diagonal matrix of zeros and ones,
# one where the sum is positive, and the path is open only there. {cite:t}`he2016identity` later moved the ReLU into
# $\mathcal{F}$, to make the equation exact.
#
# **Prediction (C3).** The paper says that degradation is "unlikely to be caused by vanishing gradients": with BN, forward
# signals have non-zero variances and backward gradients healthy norms. We call a gradient healthy if what reaches the first
# third of the layers is within a factor of 100, either way, of that in the last third. (The forward half is no test. BN itself
# sets the standard deviation of each response.)
#
# {numref}`fig-gradient-map` shows recorded gradients layer by layer. At the paper's scale the gradient of plain-20 is nearly
# even from soon after the start to the last iteration. In plain-56, in short training, it is large at the first layers *before*
# the first step, and does not vanish afterwards.

# %% mystnb={"figure": {"caption": "The gradient at every layer over the course of training, in decades (powers of ten) above (red) or below (blue) its level in the last third of the layers. Top: 20 layers at the paper's scale. Bottom: 56 layers in short training (CIFAR-10 at 16\u00d716, 1,600 iterations). Only plain-56 before its first step passes two decades, the mark of C3. Norm of the derivative of the loss by each layer's response after BN; means over seeds.", "name": "fig-gradient-map"}, "image": {"alt": "Four heat maps of layers over training steps. The maps of plain-20, ResNet-20 and ResNet-56 are pale nearly throughout; that of plain-56 is dark red at its lower layers at step 0, more than three decades, and pale afterwards."}} tags=["hide-input"]
figure, axes = plt.subplots(2, 2, figsize=(8, 5.6), sharey="row")
for ax, net in zip(axes.T.flat, NETS, strict=True):
    of = recorded[net, "paper" if net.endswith("20") else "pocket"]
    image = plots.gradient_map(of, ax, title=net, xlabel="step", ylabel="layer")
_ = figure.colorbar(image, ax=axes, label="decades above the last third")

# %% [markdown]
# {numref}`tab-gradient` has the same as ratios, with the trained public nets. In the public plain-56 the gradient of the first
# third is a few times that of the last: after the whole schedule it has not vanished. But in our plain-56, before the first
# step, it is more than a hundred times as large, an *explosion*, of which section 4.1 does not speak. In short training C3 is
# *unclear* by its rule, which asks about plain-110 as well (see the [chapter on CIFAR-10](05_cifar_analysis.ipynb)).

# %% mystnb={"figure": {"caption": "Gradient in the first third of the layers over that in the last third (geometric means over layers and seeds): before training, after 1 % of it, and at its end; `pocket` is the short training. Between 0.01 and 100 it counts as healthy. Of the public nets only the trained weights are known.", "name": "tab-gradient"}} tags=["hide-input"]
ratios = chapter.gradient_ratios(recorded)
assert 1 < ratios.loc["plain-56", "public, paper"].end.item() < 10  # the words above
assert ratios.loc["plain-56", "ours, pocket"].before.item() > 100
assert claims.judge("C3", "pocket", evidence)["verdict"] == "unclear"
ratios.style.format(lambda ratio: f"{float(f'{ratio:.2g}'):g}", na_rep="")

# %% [markdown]
# (paper-1-vanishing)=
# (paper-c22)=
# ## What normalisation has to do with it
#
# Do normalised initialisation and BN deal with vanishing and exploding gradients? Forward they do, as BN sets each response's
# size. On the way back, in plain nets, they do not: before training each layer makes the gradient larger, by a factor of about
# 1.2. Over plain-56 this amounts to nearly four powers of ten ({numref}`fig-initialisation`); between thirds of it, to less.
#
# **Prediction (C22).** Section 1 says that both problems have "been largely addressed" by normalised initialisation
# {cite:p}`he2015delving` and by BN. Take an untrained net, send images forward and gradients back, and ask by how many decades
# the signal grows or shrinks from one layer to the next: the slope of its logarithm over the layers. Slopes within ±0.01 count
# as kept; over the layers of plain-56 that is a factor of 3.5.
#
# {numref}`fig-initialisation` is this measurement, with weights by He's rule (a normal distribution of standard deviation
# $\sqrt{2/\mathrm{fan}}$, the fan being the number of inputs of a unit), on CIFAR-10 at 32×32, the paper's nets at five depths,
# with ten draws of the weights each. The rule and its margin were committed before these draws were made. But it was not quite
# blind: recorded runs had shown by then that the gradient of plain nets grows on its way back.

# %% mystnb={"figure": {"caption": "What a layer does before training. With BN the signal is kept exactly (left, on zero), but the gradient of plain nets grows at every depth (right, squares), and that of residual nets by less a layer the deeper they are (circles). Without BN plain nets lose the signal slowly, less where the padding is circular; residual nets gain. Slopes over the layers, means of ten draws; bars: the range of all; grey: the margin of the rule. CIFAR-10 at 32\u00d732, He's initialisation.", "name": "fig-initialisation"}, "image": {"alt": "Two panels of decades a layer over depth, forward and backward. Forward, the two nets with BN lie on zero. Backward, plain nets with BN lie at about 0.07 at all depths, residual nets with BN fall from about 0.05 at 20 layers to 0.01 at 110."}} tags=["hide-input"]
slopes = start.table()
figure, axes = plt.subplots(1, 2, sharey=True, figsize=(8, 4.2))
for ax in axes:
    ax.axhspan(-start.MARGIN, start.MARGIN, color="0.85", zorder=0)
plots.slopes(slopes[slopes.init == "He"], axes)
figures.legend_below(axes, ncols=3)

# %% mystnb={"figure": {"caption": "C22 by its rule, in plain nets with He's initialisation and BN: decades a layer with 95 % intervals over ten draws. Kept means within \u00b10.01.", "name": "tab-c22"}} tags=["hide-input"]
assert start.judge(slopes)["verdict"] == "contradicted at initialisation"
table_c22 = start.parts_table(slopes)
a_layer = float(table_c22.loc["backward, 56 layers", "decades a layer"])
assert round(10**a_layer, 1) == 1.2 and 3.7 < 55 * a_layer < 4  # the words above
table_c22

# %% [markdown]
# By the rule ({numref}`tab-c22`) C22 is *contradicted at initialisation*. Why does BN make gradients grow?
# {cite:t}`yang2019mean` give the reason, and for wide nets the rate. A ReLU lets half of the gradient's square pass, since half
# of its inputs are positive. Of the variance of its input it keeps less than half, $(\pi-1)/2\pi = 0.34$, because BN counts
# variance about the mean, and a ReLU's output has a mean. The next BN restores the variance to one, which multiplies the
# gradient's square by $2\pi/(\pi-1)$. Both together give
#
# \begin{equation}
# \frac{1}{2}\cdot\frac{2\pi}{\pi-1} = \frac{\pi}{\pi-1} \approx 1.47
# \end{equation}
#
# a layer, or 0.083 decades of the norm; in the paper's nets we measure a little less. No scale of the initial weights changes
# this, since BN divides it out. He's rule alone, without BN, keeps gradients far better ({numref}`fig-initialisation`).
#
# Shortcuts alone do not keep signals either. Without BN, $\mathcal{F}(\mathbf{x}) + \mathbf{x}$ about doubles the variance in
# every block. With shortcuts and BN, a block adds a normalised $\mathcal{F}$ to an $\mathbf{x}$ whose variance has grown from
# block to block, so a deep block changes it by a small part. The gradient then grows as a power of the depth only.
#
# Two remarks limit the verdict. The paper's sentence is about nets that *start to converge*, and the one and a half decades
# over the layers of plain-20 do not prevent that. And without BN a part of the shrinking is zero padding, not initialisation.

# %% [markdown]
# (paper-4-2-protocol)=
# ## How the nets are trained
#
# All of section 4.2's training fits into one loop: SGD with batches of 128 images, momentum 0.9, weight decay $10^{-4}$, and a
# learning rate of 0.1 that is divided by 10 after half and three quarters of the 64,000 iterations. (The [chapter on
# CIFAR-10](05_cifar_analysis.ipynb) has the protocol in full.) The last line asserts that the trainer of `reslib`, which adds
# checkpoints and records, ends with the same weights to the last bit. It runs here on scanned digits
# {cite:p}`alpaydin1998optical`, to save time.


# %% tags=["remove-output"]
def sgd(recipe):
    net = recipe.net().to(memory_format=torch.channels_last)  # He initialisation
    fixed = dict(momentum=recipe.momentum, weight_decay=recipe.weight_decay, fused=True)
    optimizer = torch.optim.SGD(net.parameters(), recipe.lr, **fixed)
    epochs = (reslib.loader(recipe, "train", epoch=epoch) for epoch in count())
    batches = chain.from_iterable(epochs)  # images (B, 3, H, W), labels (B,)
    for step, (images, labels) in zip(range(recipe.steps), batches, strict=False):
        passed = sum(step >= milestone for milestone in recipe.milestones)
        for group in optimizer.param_groups:
            group["lr"] = recipe.lr * 0.1**passed
        optimizer.zero_grad()
        cross_entropy(net(images), labels).backward()
        optimizer.step()
    return net


digits = nets[0].at("demo")
trained = reslib.train(digits, out_dir=mkdtemp(), device="cpu")
assert trained.weights_sha256 == weights_sha256(sgd(digits))

# %% [markdown]
# *Training error* can mean two things. The *running* one is that of the augmented batches as they come. A *clean pass* goes
# over all training images at the end, not augmented, in test mode; our final errors are of this kind. In test mode BN uses moving
# averages of the batch statistics; they can also be *recomputed* over the training set. {numref}`tab-reporting` has what such
# choices, which the paper leaves open, change at its scale. Our headline is always the last iteration.

# %% mystnb={"figure": {"caption": "So far recomputed BN tests worse, and the best iteration flatters. What the paper leaves unsaid, priced on our own runs at its scale: test error by the best iteration on the test images, or with recomputed BN; training error by the running mean. Points, means over the runs of each net.", "name": "tab-reporting"}} tags=["hide-input"]
costs = reslib.records(own).assign(net=[run.recipe.told for run in own])
costs["best on test − last"] = costs.best_test_error - costs.test_error
costs["recomputed BN − moving"] = costs.test_error_recomputed_bn - costs.test_error
costs["running − clean"] = costs.train_error_running - costs.train_error
costs.groupby("net")[list(costs)[-3:]].mean().map("{:.2f}".format).map(comparison.minus)

# %% [markdown]
# ## Short training: how nets start
#
# What can be seen without a GPU, in minutes? Only how nets *start*. {numref}`fig-short` shows the four nets in a short
# training (`pocket` scale, or the one that the parameters choose). There ResNet-56 is still behind ResNet-20, the opposite of
# what trained nets show, so this scale judges nothing.

# %% mystnb={"figure": {"caption": "In short training plain-56 hardly starts, and depth costs residual nets something too. Running training error (left) and test error (right) of the nets, dashed without shortcuts, solid with them; thin lines are single seeds, bold lines their mean.", "name": "fig-short"}, "image": {"alt": "Two panels of error over iterations of the chosen scale. At pocket scale plain-56 stays near 80 to 90 percent, ResNet-56 ends above plain-20, and ResNet-20 is lowest."}} tags=["hide-input"]
table, curves = reslib.records(runs), reslib.curves(runs)
figure, axes = plt.subplots(1, 2, sharey=True)
for ax, column in zip(axes, ("train_error", "test_error"), strict=True):
    plots.learning_curve(curves, column, ax)
_ = figure.suptitle(plots.about(planned[0], len(seeds)))


# %% [markdown]
# ### Exploding at the start is not degrading
#
# Is the bad plain-56 of short training the paper's degraded one? Mostly not: not all of its runs start at all
# ({numref}`tab-treatments`, column *as it is*), while degradation is about nets that have started and end worse.
#
# - *Explosion at the start.* The gradient grows on its way back, as computed above. At the paper's learning rate the first
#   steps then drive the BN scales of a deep plain net far from one, and it may learn nothing. Shortcuts prevent most of this.
# - *Degradation.* A deeper plain net ends with the higher training error although it has started, in public reruns by a few
#   points after the whole schedule ({numref}`tab-public`). Shortcuts are the paper's cure for this.
#
# **Prediction.** If explosion makes the short training fail, then taming the steps lets plain-56 start; degradation gives no
# reason for it. Three treatments leave the net and the data as they are. (Plain-56 warms up for about half the steps.)

# %%
treatments = {
    "as it is": {},
    "warm-up": {"warmup_lr": 0.01},  # until the running training error is below 80 %
    "clipping": {"clip": 1.0},  # at every step, to a global norm of the gradients of 1
    "small classifier": {"fc_std": 0.01},  # so small gradients enter at the last layer
}
keys = product(NETS, treatments)
variants = {(net, how): replace(NETS[net], **treatments[how]) for net, how in keys}
treated = chapter.by_scale(variants, evidence, ("pocket",))

# %% mystnb={"figure": {"caption": "Before the first step all of a row look alike: no treatment changes the ratio between layers. The gradient at every layer of the 56-layer nets, in decades above (red) or below (blue) the last third of the layers, at the first steps. Means over three seeds; pocket scale; grey: not probed.", "name": "fig-first-steps"}, "image": {"alt": "Eight heat maps of layers over steps 0 to 16: plain-56 above, ResNet-56 below, a column for each treatment. At step 0 the lower layers of plain-56 are dark red in every column; ResNet-56 is pale."}} tags=["hide-input"]
figure, axes = plt.subplots(2, 4, sharex=True, sharey=True, figsize=(8, 5))
steps, deep_ones = [0, 1, 2, 4, 8, 16], ("plain-56", "ResNet-56")
for ax, (net, treatment) in zip(axes.flat, product(deep_ones, treatments), strict=True):
    of = treated[(net, treatment), "pocket"]
    image = plots.gradient_map(of, ax, steps, title=treatment, ylabel=net)
    ax.label_outer()
_ = figure.colorbar(image, ax=axes, label="decades above the last third")

# %% mystnb={"figure": {"caption": "Every treated plain-56 starts; of the untreated some do not. Training error at the end (%, a clean pass, mean over seeds) and how many runs start; pocket scale.", "name": "tab-treatments"}} tags=["hide-input"]
ends = pd.DataFrame(index=NETS, columns=treatments, data="")
for ((net, treatment), _), runs_of in treated.items():
    if runs_of:
        error = np.mean([run.final["train_error"] for run in runs_of])
        start = sum(map(comparison.started, runs_of))
        ends.loc[net, treatment] = f"{error:.0f} ({start} of {len(runs_of)} start)"
assert ends.loc["plain-56"].str[:2].astype(float).idxmax() == "as it is"
ends

# %% [markdown]
# {numref}`fig-first-steps` and {numref}`tab-treatments` explore, and no claim is judged by them. Tamed steps do let plain-56
# start. ResNet-56 ends lower too, so a rough start may cost it something as well. None of this shows degradation: these nets are
# far from trained, and a comparison with nets that never start tells about starting, not about depth.

# %% [markdown]
# ## Verdicts
#
# {numref}`tab-verdicts-1` collects what this chapter's evidence says. The rules and intervals are on the [claims page](#c1).

# %% mystnb={"figure": {"caption": "The claims of this chapter by kind of evidence; kinds are never mixed in one verdict. A claim is incomplete until all planned runs are in.", "name": "tab-verdicts-1"}} tags=["hide-input"]
everything = pd.concat([evidence, table]).drop_duplicates("recipe_id", keep="last")
verdicts = claims.verdicts(everything, ["C1", "C3", "C5", "C21", "C22"])
verdicts[["claim", "kind", "n", "verdict"]].style.hide(axis="index")

# %% tags=["hide-cell"]
chapter.report(runs, missing)  # of the section on short training

# %% [markdown]
# ## What was not tested, and why
#
# - **All planned runs of our own at the paper's scale.** Until they are in, only public runs judge C1 and C5 there.
# - **More iterations** (C4), **other depths** (C13), **other shortcuts** (C8) and **ImageNet** (C2) belong to later chapters.
# - **Why** plain nets are hard to optimise. The paper conjectures "exponentially low convergence rates" and leaves it open. A
#   gradient that does not vanish in a net rules out one explanation for that net, and proves no other.

# %% [markdown]
# ## Exercises
#
# **1.** Extend a residual net by blocks that are the identity. Why is it enough to set one number a channel to zero, and why
# does the extension hold in training mode too, where that of a plain net does not?

# %% tags=["hide-cell"]
# F ends with a BN: with its scale and shift at zero F is zero, whatever the batch is.
torch.manual_seed(0)
net, longer = reslib.cifar_resnet(20), reslib.cifar_resnet(56)
longer.load_state_dict(net.state_dict(), strict=False)
for stage in (longer.layer1, longer.layer2, longer.layer3):
    for block in stage[3:]:  # ResNet-20 has three blocks a stage
        nn.init.zeros_(block.bn2.weight)
x = torch.randn(8, 3, 32, 32)
torch.testing.assert_close(longer.train()(x), net.train()(x))
# The plain extension relies on stored statistics; in training mode BN takes the batch's.

# %% [markdown]
# **2.** Make the weights of a convolution in front of BN ten times larger. What happens to the output, to the gradient of these
# weights, and so to the effect of a step of SGD?

# %% tags=["hide-cell"]
conv, bn = nn.Conv2d(8, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
x, target = torch.randn(16, 8, 8, 8), torch.randn(16, 8, 8, 8)
y = bn(conv(x))
before = torch.autograd.grad(mse_loss(y, target), conv.weight)[0]
conv.weight.data *= 10
z = bn(conv(x))
after = torch.autograd.grad(mse_loss(z, target), conv.weight)[0]
torch.testing.assert_close(y, z, rtol=1e-3, atol=1e-3)  # the output stays
assert abs(before.norm() / after.norm() - 10) < 0.1  # the gradient is ten times smaller
# A step is ten times smaller on weights ten times larger: a hundredth of the effect.
# So weight decay sets an effective learning rate, not the size of the function.

# %% [markdown]
# **3.** A student says: "Deeper plain nets test worse because they overfit." Which two numbers a net decide, and what do they
# say of a public pair of plain nets?

# %% tags=["hide-cell"]
pair = audited.loc[["plain20", "plain56"], ["train_error", "test_error"]]
pair["gap"] = pair.test_error - pair.train_error
rise = pair.loc["plain56"] - pair.loc["plain20"]
assert rise.train_error > 0 and rise.gap < rise.train_error
# Overfitting lowers the training error. Here it rises, by more than the gap does.
pair.rename(lambda net: f"plain-{net[5:]}").round(2)

# %% [markdown]
# **4.** He's rule has a factor of 2 in the variance, "because a ReLU drops half". How many decades a layer does a plain net
# without BN lose without this factor, and what remains after 20 layers?

# %% tags=["hide-cell"]
images, labels = torch.randn(16, 3, 32, 32), torch.zeros(16, dtype=torch.long)
slopes_of = []
for factor in (1, 0.5**0.5):
    torch.manual_seed(0)
    net = probes.without_bn(reslib.cifar_plain(20))
    for weight in (m.weight for m in net.modules() if isinstance(m, nn.Conv2d)):
        weight.data *= factor
    signal = np.log10(probes.probe(net, images, labels)["response_std"])
    slopes_of.append(np.polyfit(range(len(signal)), signal, 1)[0])
assert abs(slopes_of[0] - slopes_of[1] - np.log10(2) / 2) < 1e-3
# Half of log10(2), 0.15 decades a layer: three decades over 20 layers.

# %% [markdown]
# **5.** In the product of $I + \partial\mathcal{F}_i/\partial\mathbf{x}_i$, let every $\mathcal{F}_i$ be zero, and keep the
# second ReLU. Which gradient reaches the input of a stack of nine blocks? Check it.

# %% tags=["hide-cell"]
net = stack("residual", 9)
for block in net:
    nn.init.zeros_(block.bn2.weight)
x = torch.randn(4, 8, 8, 8, requires_grad=True)  # of both signs
gradient = torch.randn(4, 8, 8, 8)
net(x).backward(gradient)
torch.testing.assert_close(x.grad, gradient * (x > 0))
# That of the output where x is positive; the ReLUs close the path everywhere else.
