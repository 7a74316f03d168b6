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
# # How much does one run tell?
#
# > **An appendix on statistics, to all chapters.** Tables 2, 3 and 6 of the paper; the rules that judge its claims.
# >
# > **The paper says:** one run a net, as far as it tells, except for ResNet-110 in Table 6, of which it ran five.
# >
# > **We see:** runs of one net that differ only in their seed differ by as much as neighbouring rows of Table 6, from 32 layers
# > on. One run a net can show what depth costs a plain net and what shortcuts bring. It cannot show which of two deep neighbours
# > is better.
# >
# > **Why:** the large effects of the paper are several times the spread over seeds; the small ones are not.
# >
# > **What this costs.** Nothing is trained here. The page reads records and published results, in seconds on one core.

# %% tags=["parameters"]
spread_from = "all"  # whose spread over seeds: "public" reruns, "own" runs, or "all"
wanted_power = 80  # percent: the power that is asked for when runs are counted

# %% tags=["hide-input"]
import math
from itertools import combinations
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from scipy import stats

import reslib
from reslib.evidence import (
    figures,
    parameters,
    plan,
    plots,
    reported,
    reruns,
    rules,
)
from reslib.evidence.comparison import Part, Runs, pooled, prediction


# %% tags=["hide-input"]
def percent(value):
    number = float(value)
    if not 50 <= number < 100:
        raise ValueError(f"{value!r} is not a power; use a percentage from 50 to 99.")
    return number


parameters.check(
    globals(),
    spread_from=parameters.choice("all", "public", "own"),
    wanted_power=percent,
)
paper = reported.paper()
own = reslib.records()
everything = reruns.reruns()
final = reruns.levels()
final = final[final.net.isin(("plain", "resnet"))].astype({"depth": int})
plots.style()


def minus(text):  # before numbers and between nets
    text = text.replace(" - ", " − ")
    return text.replace("-", "−") if text[:1] == "-" else text


# %% [markdown]
# ## Which rows of Table 6 can be told apart?
#
# Suppose that somebody trains the nets of Table 6 once more. Where would the errors lie? {numref}`fig-one-run-table6` shows it: for each
# printed error the interval in which another run is expected. The intervals of neighbouring depths overlap. The two ends of the
# series do not.

# %% tags=["hide-input"]
TEST = "test_error"
repeated = everything[everything.sd.notna() & everything.report.eq("final")]
repeated = repeated[repeated.recipe.isin(("paper", "near"))]
on_imagenet = repeated[repeated.dataset == reruns.IMAGENET]  # a spread of its own
repeated = repeated[repeated.dataset == reruns.CIFAR]
columns = dict(net=[], depth=[], sd=[], n=[], mean=[], who=[])
for r in repeated.itertuples():
    values = r.net, int(r.depth), r.sd, int(r.seeds), r.test_error, r.author
    for column, value in zip(columns.values(), values, strict=True):
        column.append(value)
published = pd.DataFrame(columns)


# %% tags=["hide-input"]
def spread_interval(spread, freedom):  # 95 %, of normal values, by chi-square
    ends = stats.chi2.ppf([0.975, 0.025], freedom)
    return tuple(spread * np.sqrt(freedom / ends))


runs_at_paper = Runs("paper", own)
NETS = {("plain", d): plan.plain(d) for d in (20, 56)}
NETS |= {("resnet", d): plan.residual(d) for d in (20, 32, 44, 56, 110)}
found = {net: runs_at_paper.find(recipe, extra=True) for net, recipe in NETS.items()}
found = {net: list(records.values()) for net, records in found.items()}
rows = [
    (*net, np.std(errors, ddof=1), len(errors), np.mean(errors), "our runs")
    for net, errors in ((n, [r.final[TEST] for r in rs]) for n, rs in found.items())
    if len(errors) > 1
]
ours = pd.DataFrame(rows, columns=list(columns))
if ours.empty and spread_from == "own":
    raise parameters.ParameterError("spread_from: no net of ours has two runs yet.")
chosen = {"public": [published], "own": [ours], "all": [published, ours]}[spread_from]
spreads = pd.concat([part for part in chosen if len(part)], ignore_index=True)
sd, freedom = pooled(spreads.sd, spreads.n)
sd_low, sd_high = spread_interval(sd, freedom)
t = stats.t.ppf(0.975, freedom)

SINGLE = {d: (paper[f"table6.resnet{d}.test_error"], 1) for d in (20, 32, 44, 56)}
SINGLE[110] = paper["table6.resnet110.test_error_mean"], paper["table6.resnet110.runs"]
ends = {d: t * sd * math.sqrt(1 + 1 / n) for d, (_, n) in SINGLE.items()}

# %% mystnb={"figure": {"caption": "Another run of a net may well come out like its neighbour in Table 6, but not like a net far up or down the series. Diamonds: the paper's errors (ResNet-110: its mean of five runs). Bars: the 95 % prediction interval for one more run, from the spread over seeds pooled below. Dots: final errors of public reruns, an author each, with the paper's recipe or near it; they also differ in recipe.", "name": "fig-one-run-table6"}, "image": {"alt": "Test error of ResNet-20, -32, -44, -56 and -110 with vertical bars. The bar of ResNet-20 lies above that of ResNet-110; the bars of ResNet-32 to ResNet-110 overlap one another. Dots of public reruns scatter about as widely as the bars."}} tags=["hide-input"]
figure, ax = plt.subplots(figsize=(8, 3.6))
blue = figures.KINDS["resnet"][0]
nets = final[final.net.eq("resnet") & final.depth.isin(list(SINGLE))]
nets = nets.assign(name="ResNet-" + nets.depth.astype(str))
names = [f"ResNet-{d}" for d in SINGLE]
look = dict(x="name", y=TEST, order=names, color="0.6", size=4, alpha=0.8)
sns.stripplot(nets, **look, jitter=0.08, ax=ax)
errors = [error for error, _ in SINGLE.values()]
look = dict(fmt="D", color=blue, mfc="white", ms=7, elinewidth=2.5, alpha=0.9)
ax.errorbar(np.arange(len(names)) + 0.2, errors, yerr=list(ends.values()), **look)
_ = ax.set(xlabel="", ylabel="test error (%)")

# %% [markdown]
# The difference of two single runs has the spread $\sqrt{2}\,s$, where $s$ is the standard deviation over seeds. Divided by that it becomes
# a number of standard errors. {numref}`fig-one-run-pairs` has it for every pair of Table 6: about two are needed.

# %% mystnb={"figure": {"caption": "Single runs tell ResNet-20 from every deeper net, and no two neighbours among the deeper ones. Each cell is a pair of nets: the printed difference of their test errors (points), and in colour how many standard errors of single runs that is (dark: more). Framed: beyond the 95 % limit.", "name": "fig-one-run-pairs"}, "image": {"alt": "A triangular table of the ten pairs of ResNet-20, -32, -44, -56 and -110. The four pairs with ResNet-20 are dark and framed, and so is ResNet-32 with ResNet-110; pairs of neighbours such as ResNet-44 and ResNet-56 are pale and not framed."}} tags=["hide-input"]
points = pd.DataFrame(np.nan, index=names[:-1], columns=names[1:])
z = points.copy()
for (a, (ea, na)), (b, (eb, nb)) in combinations(SINGLE.items(), 2):
    row, column = f"ResNet-{a}", f"ResNet-{b}"
    points.loc[row, column] = ea - eb
    z.loc[row, column] = (ea - eb) / (sd * math.sqrt(1 / na + 1 / nb))
figure, ax = plt.subplots(figsize=(7, 3.2))
bar = dict(label="standard errors")
look = dict(annot=points, fmt=".2f", cmap="Blues", vmin=0, vmax=6, cbar_kws=bar)
sns.heatmap(z, mask=z.isna(), ax=ax, linewidths=2, **look)
for i, j in np.argwhere(z.to_numpy() > t):
    corner, look = (j + 0.03, i + 0.05), dict(fc="none", ec="black", lw=2.5)
    ax.add_patch(plt.Rectangle(corner, 0.94, 0.9, **look))
ax.grid(False)
ax.tick_params(axis="y", rotation=0)
# %% tags=["hide-cell"]
if spread_from == "all":  # the words of this page are about all runs
    assert z.loc["ResNet-20"].min() > t
    assert all(z.loc[names[i], names[i + 1]] < t for i in (1, 2, 3))

# %% [markdown]
# ## Two kinds of spread
#
# Why seeds and not images? A test error can differ for two reasons, and they answer different questions:
#
# - **Other images.** With $N$ test images and an error $p$, the *standard error over images* is $\sqrt{p(1-p)/N}$. It answers: how well does
#   this one trained net do on images that it has not met?
# - **Another run.** The *spread over seeds* $s$ is the standard deviation over runs that differ in initialisation and order of images alone.
#   It answers: what would this recipe give if it were run again, on the same test images?
#
# Everybody who reruns Table 6 tests on the same 10,000 images. So when a rerun is set beside the paper's number, the spread over seeds
# counts. The standard error over images counts when something is said of images in general. Neither contains the other
# {cite}`bouthillier2021accounting`. {numref}`tab-one-run-kinds` has both; they happen to be of similar size on CIFAR-10.

# %% mystnb={"figure": {"caption": "Two kinds of spread for the nets of Table 6, in points of test error. They are of similar size and mean different things. Over seeds: pooled over all nets with several runs, with its 95 % interval.", "name": "tab-one-run-kinds"}} tags=["hide-input"]
images = paper["s42.images_test"]
rows = {}
for depth, (error, _) in SINGLE.items():
    p = error / 100
    over_images = 100 * math.sqrt(p * (1 - p) / images)
    rows[f"ResNet-{depth}"] = {
        "test error (%)": f"{error:.2f}",
        "standard error over images": f"{over_images:.2f}",
        "spread over seeds": f"{sd:.2f} [{sd_low:.2f}, {sd_high:.2f}]",
    }
    assert 0.5 < over_images / sd < 2
pd.DataFrame(rows).T

# %% [markdown]
# ### Two nets on the same images
#
# The standard error of a *difference* is smaller than two independent errors suggest, because both nets are tested on the same images.
# If one net is right and the other wrong on a share $d$ of the images, the variance of the difference of the errors $p$ and $q$ is
# $(d - (p - q)^2)/N$. At least $d = |p - q|$; at most $d$ is the share of images on which their answers differ, which our
# records hold ({numref}`tab-one-run-same-images`). Two seeds of one net disagree on nearly as many images as two different nets. So a net
# trained again makes about the same number of mistakes, but not the same mistakes.


# %%
def standard_error(p, q, d, n):
    """Of p − q on n images, all as fractions; d: where exactly one is right."""
    return math.sqrt(max(d - (p - q) ** 2, 0) / n)


p, q, n = 0.25, 0.28, 5_000  # tried out, for two nets that fail independently
shares = [p * (1 - q), (1 - p) * q, p * q, (1 - p) * (1 - q)]
drawn = np.random.default_rng(0).multinomial(n, shares, 2_000)
simulated = ((drawn[:, 0] - drawn[:, 1]) / n).std()
assert abs(simulated / standard_error(p, q, shares[0] + shares[1], n) - 1) < 0.05

# %% mystnb={"figure": {"caption": "Pairs of our longest runs on the same test images: the difference of their test errors in points, the share of images on which they give different answers, and an upper bound for the standard error over images.", "name": "tab-one-run-same-images"}} tags=["hide-input"]
longest = [records[:2] for records in found.values() if len(records) > 1][:2]
longest = [record for records in longest for record in records]
if not longest:  # short training then
    longest = own[(own.scale == "pocket") & (own.layers == 2)].record.head(4)
rows = {}
for a, b in combinations(longest, 2):
    answers = a.predictions(), b.predictions()
    differ = (answers[0] != answers[1]).mean()
    p, q = (record.final[TEST] / 100 for record in (a, b))
    name = " and ".join(f"{r.recipe.told}, seed {r.recipe.seed}" for r in (a, b))
    bound = 100 * standard_error(p, q, differ, len(answers[0]))
    rows[name] = {
        "points": minus(f"{100 * (p - q):.2f}"),
        "answers differ": f"{differ:.1%}",
        "standard error ≤": f"{bound:.2f}",
    }
pd.DataFrame(rows).T

# %% [markdown]
# ### ImageNet
#
# Tables 2 and 3 of the paper are on 50,000 validation images, one run a net as far as it says. We know of no published spread over seeds of
# these nets with the paper's recipe. With later recipes it is small for ResNet-50 {cite}`goyal2017accurate`, and about a point for plain-34
# and ResNet-34 by one public source with four runs of each. If it were so large in the paper's runs, the step from plain-18 to plain-34 would
# be well within it. The standard error over images can be bounded all the same. In {numref}`fig-one-run-imagenet` a difference stands out if its thick bar does
# not reach zero. What shortcuts bring at 34 layers, and bottlenecks over basic blocks, is far beyond it. Plain-34 against plain-18 is just
# beyond it, A against B just not. Two things are left out. Nets of one family fail on the same images more often than independent ones,
# which makes the true bars shorter. Runs differ in their seeds, which makes them longer.

# %% mystnb={"figure": {"caption": "The large differences of the paper's Tables 2 and 3 are far beyond chance over images; those between plain-18 and ResNet-18, from A to B and from B to C, and from 101 to 152 layers are not. Differences of top-1 error with twice their standard error over images: if two nets fail independently (thick) and at the most (thin). The spread over seeds is not included.", "name": "fig-one-run-imagenet"}, "image": {"alt": "Nine differences of top-1 error as points with horizontal bars. The bar of plain-18 minus ResNet-18 crosses zero; those of ResNet-18 minus ResNet-34, plain-34 minus ResNet-34 and ResNet-34 minus ResNet-50 lie far to the right of it."}} tags=["hide-input"]
COMPARED = {
    "plain-34 − plain-18 (C2)": ("table2.plain34", "table2.plain18"),
    "plain-18 − ResNet-18 (C7)": ("table2.plain18", "table2.resnet18"),
    "ResNet-18 − ResNet-34 (C5)": ("table2.resnet18", "table2.resnet34"),
    "plain-34 − ResNet-34 (C6)": ("table2.plain34", "table2.resnet34"),
    "ResNet-34, A − B (C8)": ("table3.resnet34A", "table3.resnet34B"),
    "ResNet-34, B − C (C8)": ("table3.resnet34B", "table3.resnet34C"),
    "ResNet-34, C − ResNet-50 (C9)": ("table3.resnet34C", "table3.resnet50"),
    "ResNet-50 − ResNet-101 (C9)": ("table3.resnet50", "table3.resnet101"),
    "ResNet-101 − ResNet-152 (C9)": ("table3.resnet101", "table3.resnet152"),
}
figure, ax = plt.subplots(figsize=(8, 3.4))
clear, bars = {}, dict(fmt="none", ecolor=blue)
for y, (name, nets) in enumerate(COMPARED.items()):
    p, q = (paper[f"{net}.top1_error"] / 100 for net in nets)
    for d, width in ((p + q, 1), (p + q - 2 * p * q, 4)):
        bar = 200 * standard_error(p, q, d, paper["s41.images_validation"])
        ax.errorbar(100 * (p - q), y, xerr=bar, elinewidth=width, **bars)
    ax.plot(100 * (p - q), y, "o", color="white", mec=blue)
    clear[name] = 100 * (p - q) / bar  # in thick bars
assert on_imagenet.sd.round().eq(1).all() and on_imagenet.seeds.eq(4).all()
assert {name for name, size in clear.items() if abs(size) < 1} == {
    name for name in COMPARED if name.endswith(("(C7)", "(C8)", "152 (C9)"))
}
ax.axvline(0, color="black", lw=0.8)
ax.set_yticks(range(len(COMPARED)), COMPARED)
_ = ax.set(xlabel="points of top-1 error", ylim=(len(COMPARED) - 0.5, -0.5))

# %% [markdown]
# ## The spread over seeds
#
# How large is $s$ on CIFAR-10? {numref}`fig-one-run-spread` collects all nets at the paper's scale of which somebody published several runs, and
# our own.
# Few runs say little about a spread, so each interval is long. Pooled over the nets, with weights by their degrees of freedom, the
# spread is known well enough ({numref}`tab-one-run-spread`).

# %% mystnb={"figure": {"caption": "On CIFAR-10 the spread over seeds is a few tenths of a point for nearly every net that was run several times. Standard deviation of final test errors with its 95 % interval by chi-square, a line a net and author; vertical line and band: pooled, with its interval; dotted: the paper's five runs of ResNet-110.", "name": "fig-one-run-spread"}, "image": {"alt": "A horizontal interval for each net with several runs, labelled by author and number of runs. Nearly all intervals overlap the narrow vertical band of the pooled spread."}} tags=["hide-input"]
path = Path(reported.__file__).with_name("paper.csv")
table = pd.read_csv(path, index_col="quantity")
stated = table.spread["table6.resnet110.test_error_mean"]
shown = spreads.sort_values(["net", "depth", "n"]).reset_index(drop=True)
figure, ax = plt.subplots(figsize=(8, 0.9 + 0.28 * len(shown)))
for y, r in enumerate(shown.itertuples()):
    colour, marker = figures.KINDS[r.net]
    ax.plot(spread_interval(r.sd, r.n - 1), [y, y], color=colour, lw=1.5)
    ax.plot(r.sd, y, marker, color=colour, ms=6)
nets = map(reruns.name, shown.net, shown.depth)
runs = zip(nets, shown.who, shown.n, strict=True)
labels = [f"{net}, {who} (n = {n})" for net, who, n in runs]
ax.set_yticks(range(len(shown)), labels, fontsize=8.5)
ax.axvspan(sd_low, sd_high, color="0.85", zorder=0)
ax.axvline(sd, color="black", lw=1.2)
ax.axvline(stated, color="black", lw=1.2, ls=":")
ax.set(xlim=(0, 1.5), xlabel="standard deviation over seeds (points)")
ax.invert_yaxis()

# %% mystnb={"figure": {"caption": "The spread over seeds of final test errors, pooled, with its 95 % interval, and what the paper states for ResNet-110.", "name": "tab-one-run-spread"}} tags=["hide-input"]
rows = {}
kinds = {"public reruns": published, "our runs": ours, "used here": spreads}
for name, part in kinds.items():
    if len(part):
        value, df = pooled(part.sd, part.n)
        low, high = spread_interval(value, df)
        runs = int(part.n.sum())
        rows[name] = f"{value:.2f} [{low:.2f}, {high:.2f}]", len(part), runs
low, high = spread_interval(stated, SINGLE[110][1] - 1)
rows["the paper, ResNet-110"] = f"{stated:.2f} [{low:.2f}, {high:.2f}]", 1, 5
pd.DataFrame(rows, index=["spread over seeds (points)", "nets", "runs"]).T

# %% [markdown]
# ## What several runs promise
#
# How much better are five runs than two? {numref}`fig-one-run-width` gives two widths for a recipe that was run $n$ times. The *confidence
# interval* of the mean says where the recipe's true mean lies. The *prediction interval* says where one more run lies, and it can be set
# beside a single number such as the paper's. Both need at least two runs, and with two they are nearly useless. From five runs on, more
# runs narrow the confidence interval; the prediction interval stays, because one run always has its own spread.
# That is why at the paper's scale at least five seeds are planned here of every net but ResNet-1202.

# %% mystnb={"figure": {"caption": "Two runs give intervals so wide that they say nothing; five are where most is gained. Half the width of the two-sided 95 % t intervals, in units of the spread over seeds, by number of runs.", "name": "fig-one-run-width"}, "image": {"alt": "Two falling curves over the number of runs from 2 to 12 on a logarithmic axis. Both fall steeply from 2 to 5 runs; then the prediction interval levels off near two spreads, the confidence interval goes on falling."}} tags=["hide-input"]
n = np.arange(2, 13)
quantile = stats.t.ppf(0.975, n - 1)
widths = {"confidence interval of the mean": quantile / np.sqrt(n)}
widths["prediction interval of one more run"] = quantile * np.sqrt(1 + 1 / n)
frame = pd.DataFrame(widths, index=pd.Index(n, name="runs"))
figure, ax = plt.subplots(figsize=(8, 3))
sns.lineplot(frame, markers=True, palette=[blue, "#b04a00"], ax=ax)
ax.set(yscale="log", ylabel="half width (spreads)", xlabel="runs of the recipe")
ax.yaxis.set_major_formatter("{x:g}")
ax.set_yticks([0.5, 1, 2, 5, 10])

# %% [markdown]
# {numref}`tab-one-run-prediction` applies it at the paper's scale: the final errors of public reruns of the paper's own recipe, and our own runs,
# each predict one more run. Each author has another machine and other code, so the public interval holds the authors' part, too.

# %% mystnb={"figure": {"caption": "Where one more run is expected (95 % prediction interval, test error in percent), from public reruns of the paper's recipe and from our own runs at the paper's scale, and what the paper printed (ResNet-110: its mean of five; plain nets: read off Fig. 6 by eye). From three runs on.", "name": "tab-one-run-prediction"}} tags=["hide-input"]
rows = {}
for (net, depth), records in found.items():
    public = final[(final.net == net) & (final.depth == depth)]
    public = public.test_error[public.recipe == "paper"]
    mine = [record.final[TEST] for record in records]
    given = paper.get(f"fig6.{net}{depth}.test_error_read_off")
    row = {"the paper": f"{given or SINGLE[depth][0]:.2f}"}
    for who, part in (("public", public), ("ours", mine)):
        ahead = "{:.1f} to {:.1f}".format(*prediction(part)) if len(part) > 2 else ""
        row |= {f"{who}, n": len(part), f"{who}, one more run": ahead}
    rows[reruns.name(net, depth)] = row
pd.DataFrame(rows).T

# %% [markdown]
# ## How many runs does each rule need?
#
# The *power* of a rule is the chance that it bears a claim out if the truth is what the paper says. A rule with little power is silent
# about true claims, so by [our rules](../claims.md) it may not contradict one. {numref}`tab-one-run-power` gives it for each part of each
# rule at the paper's scale, computed with statsmodels {cite}`seabold2010statsmodels`. Nets of different architecture are compared by
# Welch's test {cite}`welch1947generalization`.
#
# Which spread? Of test errors it is the pooled one from above, of training errors that of our own runs at the paper's scale, pooled in
# the same way. Other quantities take their own spread in those runs or, where there are none, in short training, which is only a hint.
# Parts of which no spread is known are left out. Two warnings: our runs are few and so far of shallow nets, whose training errors may
# spread less than those of deep plain nets; and the power of a rule about equality is given for nets that are truly equal.


# %%
fits = [[r.final["train_error"] for r in records] for records in found.values()]
fits = [errors for errors in fits if len(errors) > 1]
each = [np.std(errors, ddof=1) for errors in fits]
sd_fit = pooled(each, map(len, fits))[0] if fits else 0


def spread_of(part, twin):
    """The spread to plan with, and its source. twin: the part in short training."""
    paired = part.other is None and " - " in part.what
    both = 2**0.5 if paired else 1  # seeds share nothing
    special = part.what.startswith(("plain-110", "ResNet-1202,"))
    if "test error" in part.what and not special:
        return both * sd, "pooled"
    if "training error:" in part.what and sd_fit and not special:
        return both * sd_fit, "ours, pooled"
    for runs, source in ((part, "ours"), (twin, "short")):
        if runs is not None and runs.n > 1 and runs.spread > 0:
            return runs.spread, source
    return math.nan, "unknown"


# %%
plans = {}
for rule, parts_of in rules.RULES.items():
    planned = Runs("paper", own)
    parts = [part for part in parts_of(planned) if part.judged]
    twins = [part for part in parts_of(Runs("pocket", own)) if part.judged]
    twins += [None] * len(parts)
    seeds = min((net.planned for net in planned.asked.values()), default=0)
    for part, twin in zip(parts, twins, strict=False):
        spread, source = spread_of(part, twin)
        if seeds > 1 and not math.isnan(spread):
            plans[rule, part.what.rstrip(":")] = part, spread, source, seeds

# %% mystnb={"figure": {"caption": "With the runs planned most rules have the power asked for; those without are about small differences, equality, or starting times. For each part of each rule at the paper's scale: the effect that the paper speaks of (for the same error: the margin), the spread to plan with and its source (pooled test errors; our runs, pooled or of these nets; short training), the planned runs of each net, the power with these, and the runs that would be needed. Ratios are compared as logarithms.", "name": "tab-one-run-power"}} tags=["hide-input"]
LONG = {"|": "", "largest log10 of gradient, first / last third": "gradient ratio"}
LONG |= {"log2 of the median response std": "response"}
LONG |= {"three times the iterations": "longer", "one-layer ResNet-56": "one-layer"}
LONG["extended plain-20"] = "extended"
LONG |= {"log2 of iterations to ": "iterations to ", " training error, ": ", "}


def brief(what):
    for long, short in LONG.items():
        what = what.replace(long, short)
    return minus(what)


rows = []
for (rule, what), (part, spread, source, seeds) in plans.items():
    chance = part.power(seeds, spread)
    effect = f"within {part.threshold:g}" if part.side == 0 else f"{part.effect:g}"
    need = part.needed(spread, wanted_power / 100)
    enough = f"{need}" if need < 1_000 else "1,000 or more"
    row = rule, brief(what), effect, f"{spread:.2g}", source, seeds
    rows.append((*row, f"{chance:.0%}", enough))
columns = "rule,compared,effect,spread,from,runs,power,needed".split(",")
pd.DataFrame(rows, columns=columns).set_index("rule")

# %% [markdown]
# {numref}`fig-one-run-power` draws the power of the rules about test errors over the number of runs. The gain from 20 to 110 layers is seen with
# very few runs, the step from 56 to 110 layers needs many. Table 3's steps among A, B and C would also need several runs of each, or many, if
# the nets on ImageNet spread like these ({numref}`tab-one-run-options`).

# %% mystnb={"figure": {"caption": "Large effects need two or three runs, small ones several times as many. Power of the rules about test errors by number of runs of each net, at the pooled spread; the dashed line is the power that is asked for.", "name": "fig-one-run-power"}, "image": {"alt": "Curves of power over two to sixteen runs. Those of large differences such as plain-56 minus ResNet-56 reach one at once; that of ResNet-110 minus ResNet-56 rises slowest, and those of the two equivalences within half a point are below 30 % at three runs."}} tags=["hide-input"]
n = np.arange(2, 17)
tested = {}
for (rule, what), (part, spread, source, _) in plans.items():
    if source == "pooled" and part.unit == "points" and rule != "C8a":
        name = f"{rule}: {minus(what.removesuffix(', test error'))}"
        tested[name] = [part.power(int(k), spread) for k in n]
frame = 100 * pd.DataFrame(tested, index=pd.Index(n, name="runs of each net"))
last = frame.iloc[3].sort_values(ascending=False)  # at five runs
frame = frame[last.index]
figure, ax = plt.subplots(figsize=(8, 4.2))
colours = sns.color_palette("dark", frame.shape[1])
sns.lineplot(frame, palette=colours, dashes=True, ax=ax)
ax.axhline(wanted_power, color="black", lw=1, ls="--")
ax.set(ylabel="power (%)", ylim=(0, 102))
equal = [name for name in frame if name[:3] in ("C7b", "C8c")]
assert (frame.loc[3, equal] < 30).all()  # the words for who cannot see it
ax.legend(fontsize="small", loc="center left", bbox_to_anchor=(1, 0.5))

# %% mystnb={"figure": {"caption": "Runs of each net that would show the differences of the paper's Table 3 (points of top-1 error), by a two-sided Welch test at 5 %, if the spread over seeds were the pooled one from CIFAR-10, or at the ends of its interval.", "name": "tab-one-run-options"}} tags=["hide-input"]
top1 = {o: paper[f"table3.resnet34{o}.top1_error"] for o in "ABC"}
top1["none"] = paper["table3.plain34.top1_error"]
rows = {}
for a, b in (("none", "A"), ("A", "C"), ("A", "B"), ("B", "C")):
    part = Part("", (), (), effect=top1[a] - top1[b])
    runs = [part.needed(s, wanted_power / 100) for s in (sd, sd_low, sd_high)]
    rows[f"{a} − {b}"] = f"{part.effect:.2f}", "{} [{}, {}]".format(*runs)
pd.DataFrame(rows, index=["difference", "runs of each"]).T

# %% [markdown]
# ## "The same" is a claim, too
#
# When may one say that two nets are *equally* good? Not when their difference is "not significant": with few runs nothing is.
# Equality needs a margin, fixed beforehand, and two one-sided tests that the difference is not beyond it on either side (TOST,
# {cite}`schuirmann1987comparison`). In practice: the 90 % interval of the difference lies inside the margin. So a claim of equality needs
# enough runs, too, and {numref}`tab-one-run-power` counts them for the rules C7b, C8c and C14b.
#
# {numref}`fig-one-run-tost` tries it on public reruns: are ResNets with option A and with option B equally accurate, within the half point of rule
# C8c? At 20 layers they are, at 56 nearly so. Elsewhere too few authors use option B; at 110 layers it is even ahead, where two
# nets with option A had no warm-up. "No difference found" and "no difference" are not the same.

# %% mystnb={"figure": {"caption": "Options A and B differ by little in public reruns, but only an interval inside the shaded margin would show that they are equally good. Difference of final test errors, A minus B, by depth: 90 % Welch intervals over authors; depths where each option has at least two authors.", "name": "fig-one-run-tost"}, "image": {"alt": "Horizontal intervals of the difference between options A and B for several depths, over a shaded band of half a point either way. That of 20 layers lies inside the band, that of 56 reaches just beyond it, that of 44 far beyond; that of 110 lies right of zero."}} tags=["hide-input"]
option = final.shortcut.str.extract(r"^([AB])\b", expand=False)
margin = rules.ESSENTIAL
same = {}
for depth in SINGLE:
    rows = (final.net == "resnet") & (final.depth == depth)
    sides = [tuple(final.test_error[rows & (option == o)]) for o in "AB"]
    part = Part("A − B", *sides, threshold=margin, side=0)
    if part.n > 1:
        same[f"ResNet-{depth} (n = {len(sides[0])}, {len(sides[1])})"] = part
figure, ax = plt.subplots(figsize=(8, 0.8 + 0.45 * len(same)))
ax.axvspan(-margin, margin, color="0.88", zorder=0)
for y, part in enumerate(same.values()):
    ax.plot(part.interval(0.90), [y, y], color=blue, lw=2.5)
    ax.plot(part.estimate, y, "o", color=blue, ms=7)
ax.axvline(0, color="black", lw=0.8)
ax.set_yticks(range(len(same)), same)
ax.set(xlabel="A − B, test error (points)", ylim=(len(same) - 0.5, -0.5))
inside = [name for name, part in same.items() if part.outcome == "for"]
assert len(inside) == 1 and "-20" in inside[0]  # the words above
assert all(max(map(abs, p.interval(0.9))) < 0.6 for n, p in same.items() if "56" in n)
assert [name for name, part in same.items() if part.interval()[0] > 0][0][7:10] == "110"

# %% [markdown]
# ## The best of several
#
# Which of many numbers is reported? Two choices flatter. The *best checkpoint on the test set* is chosen by the very images that it is tested
# on; {numref}`tab-one-run-best` says by how much it is below the last one. The *best of $k$ runs* is on average below their mean by a known
# multiple of the spread. ResNet-110 is printed as the best of five, and its mean stands beside it.

# %% mystnb={"figure": {"caption": "How much lower the best test error of a run is than its last one (points): means of our recorded runs by scale, and of authors who publish both. All verdicts use the last one.", "name": "tab-one-run-best"}} tags=["hide-input"]
rows = {}
price = own.assign(price=own.test_error - own.best_test_error)
for scale in ("paper", "night", "pocket"):
    part = price.price[price.scale == scale]
    if len(part):
        told = f"{part.mean():.2f}", f"{part.max():.2f}", len(part)
        rows[f"our runs, {scale} scale"] = told
both = everything[everything.in_meta.isin(("yes", "best"))]
both = both[(both.dataset == "CIFAR-10") & both.report.isin(("final", "best"))]
keys = ["author", "source", "net", "depth", "shortcut"]
both = both.pivot_table(index=keys, columns="report", values=TEST).dropna()
both = both[both.final < 50]  # nets that trained: not plain-110
part = (both.final - both.best).groupby("author").mean()
rows["public reruns, by author"] = f"{part.mean():.2f}", f"{part.max():.2f}", len(part)
pd.DataFrame(rows, index=["mean", "largest", "n"]).T

# %% mystnb={"figure": {"caption": "How far the best of k runs lies below their mean (points): expected for normal errors with the pooled spread, simulated; and the paper's own five runs of ResNet-110.", "name": "tab-one-run-best-of"}} tags=["hide-input"]
rng = np.random.default_rng(0)
below = {k: -sd * rng.normal(size=(20_000, k)).min(1).mean() for k in (2, 3, 5, 10)}
row = {f"{k} runs": f"{value:.2f}" for k, value in below.items()}
lead = SINGLE[110][0] - paper["table6.resnet110.test_error"]
row["the paper, 5 runs"] = f"{lead:.2f}"
pd.DataFrame([row], index=["best below the mean"])

# %% [markdown]
# By {numref}`tab-one-run-best-of` the best of five is about one spread below the mean. Where the best run of ResNet-110 is compared with
# single runs of other nets, this is part of its lead. Its mean is the fair number, and the book's rules use it.
#
# ## What was not tested, and why
#
# - **Spread over seeds on ImageNet** with the paper's recipe: we know of no publication that gives it.
# - **Spread over machines and libraries.** Authors differ in more than seeds; [chapter 9](09_sources.ipynb) takes the two apart.
# - **Sources of spread beyond the seed**: other splits of the data and other hyperparameters {cite}`bouthillier2021accounting`.
# - **Errors that are not normal.** A net that sometimes fails to start has two kinds of runs, and no t interval describes it
#   ([chapter 1](01_residual_learning.ipynb)).
#
# ## Exercises
#
# 1. The paper prints a spread of its five runs of ResNet-110. Compare it with the standard error over the test images. Does one contain the
#    other?
#
# ```{admonition} Solution
# :class: dropdown
# No. The five runs share their test images, so the images' part is common to all and does not appear in their spread.
# ```

# %% tags=["hide-cell"]
p = SINGLE[110][0] / 100
over_images = 100 * math.sqrt(p * (1 - p) / images)
print(f"over seeds {stated:.2f}, over images {over_images:.2f}")

# %% [markdown]
# 2. Suppose that ResNet-44 and ResNet-56 were equally good. How often would single runs of the two differ by as much as in Table 6, either way?
#
# ```{admonition} Solution
# :class: dropdown
# The difference of two runs is normal with the spread $\sqrt{2}\,s$. So large a difference is what chance usually gives.
# ```

# %% tags=["hide-cell"]
gap = SINGLE[44][0] - SINGLE[56][0]
print(f"{2 * stats.norm.sf(gap / (math.sqrt(2) * sd)):.0%}")

# %% [markdown]
# 3. Why is no verdict given before all planned runs are there? Two nets are equally good. Test after two, three, four and five runs of each, and stop
#    at the first "significant" difference. How often do you stop?
#
# ```{admonition} Solution
# :class: dropdown
# About twice as often as the five percent of a single test at the end. Every look is another chance to be wrong.
# ```

# %% tags=["hide-cell"]
a, b = rng.normal(size=(2, 20_000, 5))
test = dict(axis=1, equal_var=False)
p_values = [stats.ttest_ind(a[:, :k], b[:, :k], **test).pvalue for k in (2, 3, 4, 5)]
wrong = np.array(p_values) < 0.05
print(f"one test: {wrong[-1].mean():.1%}; four looks: {wrong.any(0).mean():.1%}")

# %% [markdown]
# 4. Two nets can be compared *paired by seed*: the runs with the same seed see the same images in the same order. Pairing removes what the two
#    have in common, and costs half of the degrees of freedom. From which correlation on are its intervals shorter, for 3, 5 and 9 seeds?
#
# ```{admonition} Solution
# :class: dropdown
# The paired interval is as long as Welch's where $t_{n-1}\sqrt{1-\rho} = t_{2n-2}$. Seeds of nets with different architecture share
# little, so the rules compare these by Welch's test, and pair only nets that differ in one setting.
# ```

# %% tags=["hide-cell"]
for n in (3, 5, 9):
    ratio = stats.t.ppf(0.975, 2 * n - 2) / stats.t.ppf(0.975, n - 1)
    print(f"{n} seeds: from a correlation of {1 - ratio**2:.2f} on")

# %% [markdown]
# 5. "One run each shows the order." Take the errors of Table 6 as the truth, draw one run of each of the five nets with the pooled spread, and count how
#    often the order of all five comes out right.
#
# ```{admonition} Solution
# :class: dropdown
# In less than half of the cases. The series as a whole falls nearly always; its steps do not.
# ```

# %% tags=["hide-cell"]
runs = rng.normal(errors, sd, (20_000, len(errors)))
falls = (np.diff(runs, axis=1) < 0).all(1).mean()
ends_fall = (runs[:, -1] < runs[:, 0]).mean()
print(f"all five in order: {falls:.0%}; 110 below 20: {ends_fall:.1%}")
if spread_from == "all":
    assert falls < 0.5 < 0.99 < ends_fall
