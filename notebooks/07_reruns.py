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
# # Public reruns
#
# > **Section 4.2 of the paper; Fig. 1, Fig. 6, Fig. 7 and Table 6, at the paper's scale; Tables 3 and 4 in part.** Claims: C1, C5,
# > C6, C9, C13, C15, C16, C19.
# >
# > **The paper says:** a deeper plain net fits its own training set worse, shortcuts reverse this, and the gain lasts to 110
# > layers; ResNet-1202 overfits.
# >
# > **We see:** every public rerun that reports both finds plain-56 worse than plain-20, and nearly all find ResNet-56 better than
# > ResNet-20. Most find ResNet-110 a little better than ResNet-56, but together they do not decide it, nor ResNet-1202.
# >
# > **Why they agree:** what depth costs plain nets, and what shortcuts bring, is many times the spread over seeds, and at
# > least twice that over authors. The last step, from 56 to 110 layers, is about as small as the spread.
# >
# > **What this costs.** Nothing is trained here: the page reads a table of published results, in seconds on one core.

# %% tags=["parameters"]
recipe = "all"  # whose results: "all", or "paper", "near", "unknown", "far" recipes
train_set = "all"  # trained on "45k" or "50k" images, or "all"
leave_out = "none"  # an author, as the tables below name them: what is left is judged

# %% tags=["hide-input"]
import math

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from scipy import stats
from statsmodels.stats.meta_analysis import combine_effects

from reslib import record
from reslib.evidence import audit, chapter, claims, figures, parameters, plots
from reslib.evidence import reruns as public
from reslib.evidence.comparison import pooled, prediction
from reslib.evidence.reruns import told

everything = public.reruns()
parameters.check(
    globals(),
    recipe=parameters.choice("all", *public.RECIPES),
    train_set=parameters.choice("all", "45k", "50k"),
    leave_out=parameters.choice("none", *sorted(set(everything.author) - {""})),
)
say, paper = chapter.say, claims.paper()
plots.style()

# %% tags=["hide-input"]
chosen = everything[everything.author != leave_out]
chosen = chosen[(recipe == "all") | (chosen.recipe == recipe)]
runs = chosen[chosen.dataset == public.CIFAR]
runs = runs[(train_set == "all") | (runs.train_set == train_set)]
imagenet = chosen[chosen.dataset == public.IMAGENET]
both = pd.concat([runs, imagenet])
whole = (recipe, train_set, leave_out) == ("all", "all", "none")
final = public.levels(runs)  # final test errors, one row an author, net and depth
found = {claim: public.effects(claim, both) for claim in public.CLAIMS}
gaps = {}  # by claim and comparison
for claim, frame in found.items():
    parts = frame.groupby("comparison", sort=False)
    gaps |= {f"{claim}: {what}": part for what, part in parts}
NONE = found["C1"].iloc[:0]
plain_fit = gaps.get("C1: plain-56 − plain-20, training error", NONE)
plain_gap = gaps.get("C13: plain-56 − plain-20, test error", NONE)
fit = gaps.get("C5: ResNet-56 − ResNet-20, training error", NONE)
gap = gaps.get("C5: ResNet-56 − ResNet-20, test error", NONE)
twins = gaps.get("C6: plain-56 − ResNet-56, test error", NONE)
all_gain = gaps.get("C13: ResNet-110 − ResNet-20, test error", NONE)
last_gain = gaps.get("C13: ResNet-110 − ResNet-56, test error", NONE)


# %% tags=["hide-input"]
def sized(table):  # the effects whose size counts: far recipes left out
    return table.effect[table.sized].to_numpy(float)


def agree(table):
    return f"{table.agrees.sum()} of {len(table)}"


def minus(text):
    return text.replace("-", "−")


def by_net(frame, value):  # a row an author, a column a net
    nets = frame[["net", "depth"]].astype({"depth": int}).itertuples(index=False)
    nets = [public.name(*net) for net in nets]
    keys = dict(index=["recipe", "author"], columns="name", values=value)
    table = frame.assign(name=nets).pivot_table(**keys)
    order = sorted(table, key=lambda name: (name[0] != "p", int(name.split("-")[1])))
    narrow = {"": "font-size: 0.76em", "th.col_heading": "white-space: normal"}
    narrow |= {"th, td": "padding: 0.3em 0.25em"}
    narrow = [dict(selector=what, props=css) for what, css in narrow.items()]
    table = table[order].rename_axis(columns=None).style.set_table_styles(narrow)
    return table.format("{:.2f}", na_rep="")


depths = (20, 32, 44, 56)  # plain nets: Fig. 6 read off by eye, within about 0.5 points
READ_OFF = {d: paper[f"fig6.plain{d}.test_error_read_off"] for d in depths}
printed = {d: paper[f"table6.resnet{d}.test_error"] for d in (20, 32, 44, 56)}
printed[110] = paper["table6.resnet110.test_error_mean"]  # 6.43 is the best of five
in_paper = {"plain": READ_OFF[56] - READ_OFF[20], "resnet": printed[56] - printed[20]}

# %% [markdown]
# ## What others found
#
# Does depth hurt plain nets and help residual ones when others train them? {numref}`fig-reruns-forest` answers by author: all
# squares lie on one side of zero, all circles but three on the other.

# %% mystnb={"figure": {"caption": "A square right of zero: in this author's runs plain-56 tests worse than plain-20. A circle left of zero: ResNet-56 tests better than ResNet-20. Each line is one author; the two nets of a pair have the same recipe and are reported in the same way. The first line is the paper, from Table 6 for the residual pair and read off Fig. 6 by eye for the plain one. Mostly one run a net.", "name": "fig-reruns-forest"}, "image": {"alt": "A line for each author, grouped by how close the recipe is to the paper's. All 18 orange squares, the plain pair, lie right of zero, at 2 to 8 points; of the 44 blue circles, the residual pair, all but three lie left of zero, most near \u22121.3 points."}} tags=["hide-input"]
figure, ax = plt.subplots(figsize=(8, 10.5))
figures.forest({"plain": plain_gap, "resnet": gap}, in_paper, ax)

# %% [markdown]
# What the sources say of each claim, by the rule of the next section. The mean and its 95 % interval are over authors, far
# recipes left out; "k of m" counts the signs of all. {numref}`fig-reruns-strips` draws the same.

# %% tags=["hide-input"]
verdicts = pd.DataFrame([public.judge(claim, both) for claim in public.CLAIMS])
verdict = verdicts.set_index("claim").verdict.str.split(" (", regex=False).str[0]
answer = verdict.map({"agrees": "Yes", "disagrees": "No", "too few": "Undecided"})
say(verdicts[["claim", "paper", "ours", "verdict"]].to_markdown(index=False))

# %% mystnb={"figure": {"caption": "Depth costs plain nets several points, on the training set as on the test set; it brings residual nets half a point there and over a point here. Shortcuts are worth more than either at 56 layers; the step from 56 to 110 layers is small. A point is an author, hollow for far recipes; the bar is the mean with its 95 % interval over authors, the diamond the paper where it gives a number.", "name": "fig-reruns-strips"}, "image": {"alt": "Six rows of points, one for each comparison of two nets. The plain pair lies near +4 points and plain against residual nets near +6; the residual pairs lie near \u22120.5 points in training and \u22121.3 in test error, and ResNet-110 against ResNet-56 near \u22120.2, with an interval that reaches just across zero."}} tags=["hide-input"]
STRIPS = {
    "plain-56 − plain-20, training": ("plain", plain_fit, None),
    "plain-56 − plain-20, test": ("plain", plain_gap, in_paper["plain"]),
    "plain-56 − ResNet-56, test": ("plain", twins, READ_OFF[56] - printed[56]),
    "ResNet-56 − ResNet-20, training": ("resnet", fit, None),
    "ResNet-56 − ResNet-20, test": ("resnet", gap, in_paper["resnet"]),
    "ResNet-110 − ResNet-56, test": ("resnet", last_gain, printed[110] - printed[56]),
}
figure, ax = plt.subplots(figsize=(8, 3.8))
figures.strips(STRIPS, ax)

# %% [markdown]
# ## What is compared
#
# What counts as a source, and when do sources agree? A source is a repository, an issue or a paper with a number that can be
# looked up again: `reslib/evidence/reruns.csv` has its commit, its file and line, and where it departs from the paper. They were
# collected in 2026, by two searches. Of the first no protocol was kept. The second had one, committed before it:
# `notebooks/records/reruns/search.md` says where it looked, for what, and what it takes in or leaves out, and `screened.csv`
# beside it lists what was looked at, how it was found, and the reason.

# %% tags=["hide-input"]
screened = pd.read_csv(record.folder() / "reruns" / "screened.csv")
say(
    f"The list has {len(screened)} entries, of which "
    f"{screened.decision.eq('included').sum()} were taken in. An index of public code "
    "does not hold all of it, so sources will be missing still, and this is no "
    "systematic review."
)

# %% [markdown]
# On CIFAR-10 there are, by recipe, by what is reported and by training set:

# %% tags=["hide-input"]
usable = runs[runs.report.ne("") & runs.in_meta.ne("no") & runs.recipe.ne("")]
rows = [("all", "", usable)]
SPLITS = {"recipe": public.RECIPES, "report": public.REPORTS}
SPLITS["train_set"] = ("45k", "50k")
for column, values in SPLITS.items():
    rows += [(column.replace("_", " "), v, usable[usable[column] == v]) for v in values]
rows = [(what, value, f.author.nunique(), len(f)) for what, value, f in rows]
table = pd.DataFrame(rows, columns=["by", "", "authors", "results"])
say(table.to_markdown(index=False))

# %% [markdown]
# - **The paper's recipe**: 64,000 iterations, batch 128, weight decay 0.0001, a learning rate of 0.1 divided by ten at a half and
#   at three quarters, crops and flips. **Near**: one or two departures, such as 200 epochs, Nesterov momentum or a weight decay
#   of 0.0005. **Far**: another optimiser, no weight decay, other images, colour augmentation, or an error that no paper recipe
#   reaches. A far recipe shows an order; the size of its difference is another experiment's.
# - **Final** is the error after the last iteration. **Best** is the lowest of all test errors, chosen on the test set.
#   **Unclear**: the source does not say which.
#
# The rule, fixed in the code beside the data, was written when the numbers had been collected and summarised once. It gives the
# summary a form; it is not a prediction.

# %% tags=["hide-input"]
say("> " + " ".join(public.RULE.split()))

# %% [markdown]
# An author is one value, whatever the number of repositories, options or runs. It is a difference *within* a source, between two
# nets with the same recipe, training set and way of reporting.
#
# Over authors the 95 % interval is a t interval of their values. Why not random effects, the usual choice? They need each
# source's own variance, and a single run has none. With variances borrowed from the few sources of several seeds they give nearly
# the same interval (below).
#
# ## Does a deeper plain net fit worse?
#
# **C1.** Is the training error of plain-56 above that of plain-20 after the paper's whole schedule?

# %% tags=["hide-input"]
if len(plain_fit):
    say(
        f"{answer['C1']}: by {told(sized(plain_fit))} percentage points; "
        f"{agree(plain_fit)} authors who publish both training errors agree."
    )

# %% [markdown]
# [CIFAR-10 and analysis](05_cifar_analysis.ipynb) shows how it happens, from logs that sources published. Both plain nets train;
# the deeper one is slower throughout and stays above after both cuts of the learning rate. This is the picture of the paper's
# Fig. 1 and Fig. 6. It differs from our short training, where plain-56 often does not start at all. {numref}`tab-reruns-training`
# has the last errors. One of these sources (wooyeolBaek) clipped the gradients of plain-56, by its configuration; `leave_out`
# takes it out.

# %% mystnb={"figure": {"caption": "Training error at the end (%), by author: it rises with the depth of plain nets and falls with the depth of residual nets, in nearly every line. The errors are defined differently (running or evaluated, on augmented images or not): read along a line, not down a column.", "name": "tab-reruns-training"}} tags=["hide-input"]
trained = runs[runs.train_error.notna() & ~runs.in_meta.isin(("no", "best"))]
by_net(trained, "train_error") if len(trained) else None

# %% [markdown]
# (paper-c6)=
# ## Do residual nets reverse it?
#
# **C5 and C6.** Is ResNet-56 better than ResNet-20, and better than its plain twin? The paper states both for ImageNet; these are
# the pairs of Fig. 6 and Table 6 that correspond.

# %% tags=["hide-input"]
if len(gap) and len(twins):
    say(
        f"{answer['C5']}. In test error ResNet-56 minus ResNet-20 is "
        f"{told(sized(gap))} points; {agree(gap)} authors agree. In training error it "
        f"is {told(sized(fit))} points; {agree(fit)} agree. At 56 layers the plain net "
        f"is {told(sized(twins))} points worse than its twin; {agree(twins)} agree."
    )

# %% [markdown]
# Does it depend on the recipe, on the training set, on how errors are reported? {numref}`tab-reruns-subsets` repeats the mean
# for each; its sign is the same throughout, and the means of the residual pair lie close together. The prediction interval
# {cite}`higgins2009reevaluation` says where one more author's difference is expected.


# %% mystnb={"figure": {"caption": "The same differences of test error (points) by subset: mean, 95 % interval over authors, 95 % prediction interval for one more author, and how many authors agree. By training set and report, far recipes are left out.", "name": "tab-reruns-subsets"}} tags=["hide-input"]
def subsets(table):
    yield "all but far recipes", table[table.sized]
    for column, values in SPLITS.items():
        for value in values:
            part = table[table.sized | (value == "far")]
            yield f"{column.replace('_', ' ')}: {value}", part[part[column] == value]


def ahead(values):
    if len(values) < 3:
        return ""
    return " to ".join(minus(f"{end:.1f}") for end in prediction(values))


PAIRS = {"plain-56 − plain-20": plain_gap, "ResNet-56 − ResNet-20": gap}
PAIRS["plain-56 − ResNet-56"] = twins
lines = {}
for pair, table in PAIRS.items():
    for subset, part in subsets(table):
        values = part.effect.to_numpy(float)
        if len(part):
            lines[pair, subset] = told(values), ahead(values), agree(part)
columns = ["mean [95 % interval]", "one more author", "agree"]
pd.DataFrame(lines, index=columns).T

# %% [markdown]
# Three authors find ResNet-56 *worse* than ResNet-20, by half a point or less but for one far recipe, which has no weight decay at
# all. The training error of their ResNet-56 is the lower one all the same ({numref}`tab-reruns-training`). So it fits better and
# generalises worse, which is no degradation in the paper's sense.
#
# ## Does the gain last to 110 layers?
#
# **C13.** Is ResNet-110 better than ResNet-20, and still better than ResNet-56?

# %% tags=["hide-input"]
if len(last_gain):
    say(
        f"ResNet-110 minus ResNet-20 is {told(sized(all_gain))} points "
        f"({agree(all_gain)} authors agree), minus ResNet-56 {told(sized(last_gain))} "
        f"({agree(last_gain)}). The last step is small."
    )

# %% [markdown]
# So small a gain is about as large as the spread over seeds, which a few sources measured:

# %%
seeds = everything[everything.sd.notna() & (everything.dataset == public.CIFAR)]
seeds = seeds[seeds.report == "final"]
spread, _ = pooled(seeds.sd, seeds.seeds)  # points, over nets
last = sized(last_gain).mean() if len(last_gain) else np.nan
print(f"spread over seeds {spread:.2f} points ({len(seeds)} nets)")

# %% [markdown]
# A source with one run a net says little by itself {cite}`bouthillier2021accounting`; the sign of many sources says more, and here
# not enough. By the first search alone they agreed on the last step ({numref}`tab-reruns-carried`). What turned it are two forks
# of one repository, whose ResNet-110 had no warm-up; the paper's had one. They stay: no source is left out for what it says. How
# many seeds one person would need is told in [How much does one run tell?](08_one_run.ipynb).

# %% tags=["hide-input"]
late = both.departures.str.contains("no warm-up") & both.depth.ge(110)
forks = ("jayroxis", "yangyang0611", "AngelG23", "m-shahbaz-kharal")  # of a-martyn's
one = both.assign(author=both.author.replace(dict.fromkeys(forks, "a-martyn")))
other = [public.judge("C13", frame)["verdict"] for frame in (both[~late], one)]
kinds = "without deep nets that had no warm-up", "forks counted with their origin"
say("C13, " + "; ".join(map("{}: {}".format, kinds, other)) + ".")
say("Forks so counted, C1: " + public.judge("C1", one)["ours"] + ".")

# %% [markdown]
# ## Do bottleneck nets gain from depth on ImageNet?
#
# **C9.** Are ResNet-50, -101 and -152 more accurate than ResNet-34? {numref}`tab-reruns-imagenet` has the sources that trained
# it and deeper nets by one recipe. No recipe is the paper's: nearly all crops have a random size and shape.

# %% tags=["hide-input"]
WHAT = "C9: ResNet-{} − ResNet-34, ImageNet top-1 error"
deeper = {d: gaps.get(WHAT.format(d), NONE) for d in (50, 101, 152)}
base, *others = (paper[f"table3.resnet{d}.top1_error"] for d in ("34B", *deeper))
parts = [
    f"ResNet-{d} minus ResNet-34 is {told(sized(part))} points ({agree(part)} authors "
    f"agree; the paper, with ten crops: {minus(f'{other - base:.1f}')})"
    for (d, part), other in zip(deeper.items(), others, strict=True)
]
if all(map(len, deeper.values())):
    say(f"{answer['C9']}. In top-1 error of one crop, {'; '.join(parts)}.")

# %% mystnb={"figure": {"caption": "Top-1 error (%) of one centre crop on ImageNet's validation images, by author: it falls with depth in every line. An author with two sources has their mean. A far recipe smooths labels, mixes images, or averages weights: its sign counts and its size does not.", "name": "tab-reruns-imagenet"}} tags=["hide-input"]
compared = imagenet[imagenet.author.isin(found["C9"].author)]
compared = compared[compared.in_meta.ne("no")]
by_net(compared, "test_error") if len(compared) else None

# %% [markdown]
# ## Table 6: was the paper lucky?
#
# Where do the paper's single runs lie among the reruns of its own recipe? {numref}`tab-reruns-table6` gives the rank of each
# printed error and the interval in which one more rerun is expected; only final errors count.

# %% mystnb={"figure": {"caption": "Table 6 among its reruns: test error (%) as printed, and of final errors one value an author. At or below: so many reruns are at least as good as the printed error. Chance: how probable it is that one run drawn from the same population ranks so low or lower. One more: the 95 % prediction interval for another author's run. ResNet-110 is printed as the best of five runs, so its mean is compared.", "name": "tab-reruns-table6"}} tags=["hide-input"]
rows, share = [], {}
for depth, error in printed.items():
    nets = final[(final.net == "resnet") & (final.depth == depth)]
    own = nets.recipe == "paper"
    for group, part in (("the paper's recipe", nets[own]), ("all but far", nets)):
        values = part.test_error.to_numpy()
        k, m = int((values <= error).sum()), len(values)
        if m:
            share[depth, group] = k / m
            row = [f"ResNet-{depth}", f"{error:.2f}", group, told(values)]
            chance = f"{(k + 1) / (m + 1):.0%}"
            rows.append([*row, f"{k} of {m}", chance, ahead(values)])
columns = "net,paper,reruns,mean [95 % interval],at or below,chance,one more".split(",")
pd.DataFrame(rows, columns=columns).set_index(columns[:3])

# %% [markdown]
# Luck would put a printed error among the best reruns at every depth. ResNet-20 is the other way round: most reruns beat it. The
# deeper nets are printed better than most reruns of the same recipe, but no rank alone is improbable. The paper's gain from 20 to
# 56 layers lies at the upper end of what reruns find, yet within the range expected of one more author:

# %% tags=["hide-input"]
if len(gap):
    own, values = in_paper["resnet"], sized(gap)
    say(
        f"ResNet-56 minus ResNet-20 is {minus(f'{own:.2f}')} points in the paper; one "
        f"more author is expected at {ahead(values)}, and {(values <= own).sum()} of "
        f"{len(values)} find a gain as large."
    )

# %% [markdown]
# [CIFAR-10 and analysis](05_cifar_analysis.ipynb) draws all of them over depth beside the paper and our own runs;
# {numref}`tab-reruns-levels` names them.

# %% mystnb={"figure": {"caption": "Final test error (%) by author: from 20 to 56 layers plain nets get worse and residual nets better in nearly every line that has both. Empty: not published, or not said to be final.", "name": "tab-reruns-levels"}} tags=["hide-input"]
by_net(final[final.depth <= 110], "test_error") if len(final) else None

# %% [markdown]
# ## Is ResNet-110 ahead of Highway networks?
#
# **C19.** Table 6 sets ResNet-110 against the best Highway network {cite}`srivastava2015highway`. Is the reruns' whole interval
# below that error?

# %% tags=["hide-input"]
highway = paper["table6.highway19.test_error"]
deep = final[final.net.eq("resnet") & final.depth.eq(110)].test_error.to_numpy()
if len(deep):
    say(
        f"{answer['C19']}: ResNet-110 is at {told(deep)} %, the Highway network at "
        f"{highway:.2f} %; {(deep < highway).sum()} of {len(deep)} authors are below. "
        "The comparison is with one number that others printed; nobody reran both."
    )

# %% [markdown]
# ## Does ResNet-1202 test worse than ResNet-110?
#
# **C16.** Do sources find the overfitting that the paper reports at 1202 layers? {numref}`tab-reruns-1202` has all that we found,
# and it does not decide.

# %% mystnb={"figure": {"caption": "All results of 1202 layers that we found, with ResNet-110 of the same source: test error (%). In the paper ResNet-1202 is worse than ResNet-110.", "name": "tab-reruns-1202"}} tags=["hide-input"]
nets = runs[runs.net == "resnet"].drop_duplicates(["source", "depth"])
deepest, shallower = (nets[nets.depth == d].set_index("source") for d in (1202, 110))
table = deepest[["recipe", "stat"]].rename(columns={"stat": "reported"})
table["ResNet-110"] = shallower.test_error.reindex(table.index)
table["ResNet-1202"] = deepest.test_error
table = table.rename(deepest.author).rename_axis("author")
table.style.format(precision=2, na_rep="")

# %% [markdown]
# Every source that reports an error shows that such a net *trains* at all; one author reports that it did not converge. That it
# *tests worse* is found by half of the authors and not by the others. All of these are single runs, and how far two runs of so
# deep a net differ, nobody has reported.
#
# ## What do the weights of others say?
#
# **C15, Fig. 7.** Are the responses of ResNet-56 smaller than those of plain-56 and of ResNet-20 in nets that others trained? We
# measured published weights anew, also those without a licence: that copies nothing of them ({numref}`tab-reruns-responses`).

# %% mystnb={"figure": {"caption": "Median layer's response in published weights (standard deviation after batch normalisation, before the addition or the ReLU), measured by us, by recipe and author.", "name": "tab-reruns-responses"}} tags=["hide-input"]
about = chosen.drop_duplicates("source")[["source", "author", "recipe"]]
weights = audit.audits().drop(columns="net").merge(about)
weights["net"] = np.where(weights.shortcut == "none", "plain", "resnet")
weights["response"] = [np.median(a["probes"]["response_std"]) for a in weights.audit]
by_net(weights, "response") if len(weights) else None

# %% [markdown]
# With depth the responses of residual nets fall in every source. Against plain twins ResNet-56 responds less in all sources but
# one. The plain-56 of wooyeolBaek, trained with clipped gradients, responds about a tenth as strongly as the others, and fits about
# as well. The rule takes the mean of relative differences, so this one net leaves C15 open.
#
# **C1, C5.** How well do the same nets fit? {numref}`tab-reruns-weights` has one clean pass over all training images, by one
# procedure for all. Depth costs plain nets and helps residual ones, with one source the other way round twice: FrankZhang869's
# stored plain-20 and ResNet-56 do not reach the accuracy that its logs end with, so they are not the nets of these logs.

# %% mystnb={"figure": {"caption": "Training error (%) of published weights, one clean pass by us, by recipe and author.", "name": "tab-reruns-weights"}} tags=["hide-input"]
by_net(weights, "train_error") if len(weights) else None

# %% tags=["hide-input"]
reported = weights.audit.map(lambda one: one["reported"].get("final"))
apart = (weights.test_error - reported).abs().dropna()
if len(apart):
    say(
        f"Of {len(apart)} nets whose last test error is reported, "
        f"{apart.lt(audit.TOLERANCE).sum()} measure exactly the same; all others "
        f"within {apart.max():.2f} points."
    )

# %% [markdown]
# ## What does the best of all epochs hide?
#
# How much lower is the best test error of a run than its last one? It is chosen on the test set, so it flatters.

# %% tags=["hide-input"]
pairs = runs[runs.in_meta.isin(("yes", "best")) & runs.report.isin(("final", "best"))]
keys = ["author", "source", "net", "depth", "shortcut"]
pairs = pairs.pivot_table(index=keys, columns="report", values="test_error")
pairs = pairs.reindex(columns=["final", "best"]).dropna()
pairs = pairs[pairs.final < 50]  # nets that trained: not plain-110
price = (pairs.final - pairs.best).groupby("author").mean()
if len(price):
    say(
        f"By {told(price.to_numpy())} points, over {len(price)} authors who publish "
        f"both ({len(pairs)} nets); at most by {(pairs.final - pairs.best).max():.2f}."
    )

# %% [markdown]
# So best errors cannot be set beside final ones: the flattery is nearly as large as the step from 56 to 110 layers. It matters less
# for a *difference* of two nets reported in the same way: in {numref}`tab-reruns-subsets` best-on-test sources find the same gain.
#
# ## 45,000 or 50,000 training images?
#
# The paper tuned its schedule on 45,000 images and says that the nets are "trained on the training set". Does it matter which is
# meant? Perhaps by some tenths of a point ({numref}`tab-reruns-split`, with Welch intervals {cite}`welch1947generalization`);
# these sources cannot tell.


# %% mystnb={"figure": {"caption": "Final test error (%) of the paper's recipe by training set, means over n authors, and their difference with a 95 % Welch interval where each side has at least two authors. A positive difference: fewer images, a higher error.", "name": "tab-reruns-split"}} tags=["hide-input"]
def side_by_side(a, b):  # each mean, and their difference with its Welch interval
    means = [minus(f"{x.mean():.2f}") if len(x) else "" for x in (a, b)]
    sides = zip(means, map(len, (a, b)), strict=True)
    sides = [f"{mean} (n = {n})" if n else "" for mean, n in sides]
    if not (len(a) and len(b)):
        return [*sides, ""]
    difference = f"{a.mean() - b.mean():.2f}"
    if min(len(a), len(b)) > 1:
        low, high = stats.ttest_ind(a, b, equal_var=False).confidence_interval()
        difference += f" [{low:.2f}, {high:.2f}]"
    return [*sides, minus(difference)]


lines = {}
for (net, depth), part in final[final.recipe == "paper"].groupby(["net", "depth"]):
    few, many = (part[part.train_set == size].test_error for size in ("45k", "50k"))
    if len(few) and len(many):
        lines[public.name(net, int(depth))] = side_by_side(few, many)
pd.DataFrame(lines, index=["45,000", "50,000", "difference"]).T

# %% [markdown]
# Fewer images should cost something, and the means mostly say so. Authors differ in more than this, so the intervals are wide.
# Whether 45,000 images explain that reruns miss the paper's errors of deep nets stays open; `train_set = "50k"` leaves them out.
#
# ## Do authors differ more than seeds do?
#
# Is the spread over authors only that of single runs? No: authors differ by more than seeds do, most of all with plain-56. Random
# effects {cite}`paule1982consensus,hartung2001refined` split the spread, if we lend every source the spread over seeds that a few of
# them measured; statsmodels {cite}`seabold2010statsmodels` computes them.

# %%
lines, beyond = {}, {}
for pair, table in {**PAIRS, "ResNet-110 − ResNet-56": last_gain}.items():
    part = table[table.sized]
    if len(part) > 2:
        variance = 2 * spread**2 / part.seeds  # of a difference of two nets
        model = combine_effects(part.effect, variance, method_re="iterated", use_t=True)
        low, high = model.conf_int()[3]  # random effects, by Hartung and Knapp
        beyond[pair] = math.sqrt(max(model.tau2, 0))
        random = minus(f"{model.mean_effect_re:.2f} [{low:.2f}, {high:.2f}]")
        lines[pair] = told(sized(table)), random, f"{beyond[pair]:.2f}", len(part)
columns = ["t interval", "random effects", "spread beyond seeds", "authors"]
pd.DataFrame(lines, index=columns).T

# %% [markdown]
# The two intervals nearly coincide, which is why the simpler one is used. To a difference of two residual nets authors add about as
# much spread as seeds, and with plain-56 about twice as much: how a net is trained seems to matter more where training is hard.
#
# ## Who does not publish?
#
# Would failed reruns be published? Nobody can know, and a rerun that agrees with a famous paper is easier to publish than one that
# does not. One failure is among the results that were left out: a single ResNet-20 far above all others, which the maintainer of
# its code puts down to a software version.
#
# **How many silent sources of the other sign would undo the agreement?** This is the file-drawer question
# {cite}`rosenthal1979file`. The last column says how many authors who found the opposite, and said nothing, it would take to bring
# the share below two thirds. The p value is of a sign test; it supposes that authors are independent.

# %% tags=["hide-input"]
lines = {}
for what, part in gaps.items():
    k, m = int(part.agrees.sum()), len(part)
    silent = max(math.floor(k / public.SHARE) - m + 1, 0)
    p = stats.binomtest(k, m).pvalue
    lines[what] = f"{k} of {m}", f"{p:.3f}" if p >= 0.001 else "< 0.001", silent
columns = ["agree", "sign test, p", "silent sources"]
pd.DataFrame(lines, index=columns).T

# %% [markdown]
# **Do sources that show a log or weights find the same as those that only state a number?** And do those with several
# seeds differ from those with one ({numref}`tab-reruns-shown`)? A number alone costs nothing to choose well.

# %% mystnb={"figure": {"caption": "ResNet-56 minus ResNet-20 (points), and the final error of ResNet-56 (%), by what a source shows (a log or weights, or only a number) and how often it ran: means over n authors, far recipes left out, and the difference with its 95 % Welch interval.", "name": "tab-reruns-shown"}} tags=["hide-input"]
gains, deep56 = gap[gap.sized], final[final.net.eq("resnet") & final.depth.eq(56)]
lines = {}
for what, frame, value in (
    ("ResNet-56 − ResNet-20", gains, gains.effect),
    ("ResNet-56", deep56, deep56.test_error),
):
    for split, first in (
        ("log or weights; number", frame.shown.astype(bool)),
        ("several seeds; one", frame.seeds > 1),
    ):
        lines[what, split] = side_by_side(value[first], value[~first])
columns = ["the first", "the second", "difference"]
pd.DataFrame(lines, index=columns).T

# %% [markdown]
# Sources that show their work find no smaller gain, and lower errors if anything; those of several seeds find about the same gain
# as those of one. So nothing here looks like selective publishing, with few sources on one side. A funnel plot, the usual look at
# small studies, cannot say more: nearly all sources ran one seed, so the funnel has no depth.
#
# ## Does one source carry a verdict?
#
# Would any verdict change if one author were left out? Those of C13 and C15 would ({numref}`tab-reruns-carried`). Each is judged again
# without each author in turn; the parameter `leave_out` does the same for this whole page.

# %% mystnb={"figure": {"caption": "C13 and C15 depend on single authors, and no other verdict does. Each verdict on public reruns, the authors without any one of whom it would be another, and the verdict before the second search.", "name": "tab-reruns-carried"}} tags=["hide-input"]
carried = {}
for claim, word in verdict.items():
    for author in sorted(set(found[claim].author)):
        without = public.judge(claim, both[both.author != author])["verdict"]
        if not without.startswith(word):
            carried.setdefault(claim, []).append(author)
table = verdicts[["claim", "verdict"]].set_index("claim")
without = [", ".join(carried.get(claim, ["no one author"])) for claim in table.index]
table["changes without"] = without
first = both[both.search == "1"]
first = [public.judge(claim, first)["verdict"] for claim in table.index]
table["by the first search alone"] = first
table

# %% [markdown]
# ## The sources
#
# Who are they, and where do they depart from the paper? Each name links to the commit, or to the thread, that was read.


# %% tags=["hide-input"]
def joined(values, by=", "):
    return by.join(dict.fromkeys(value for value in values if value))


rows = []
named = pd.concat([usable, compared]).groupby(["source", "url"], sort=False)
for (source, url), part in named:
    nets = part[["net", "depth"]].astype({"depth": int}).itertuples(index=False)
    nets = joined(public.name(*net) for net in nets)
    departures = joined("; ".join(part.departures).split("; "), by="; ")
    link = f"[{source}]({url})" if url else source
    rows.append((link, joined(part.recipe), nets, joined(part.report), departures))
columns = ["source", "recipe", "nets", "report", "departures"]
table = pd.DataFrame(rows, columns=columns)
order = table.recipe.str.split(",").str[0].map(public.RECIPES.index)
say(table.loc[order.sort_values(kind="stable").index].to_markdown(index=False))

# %% tags=["hide-input"]
left_out = runs[runs.in_meta.eq("no")].drop_duplicates("source")
why = left_out[["stat", "departures", "note"]].agg(joined, axis=1)
say("Read and not counted: " + "; ".join(left_out.source + " (" + why + ")") + ".")

# %% tags=["hide-cell"]
if whole:  # the fixed words of this page hold for the whole table
    others = ["C1", "C5", "C6", "C9", "C19"]
    assert (verdict[others] == "agrees").all() and set(carried) == {"C13", "C15"}
    assert (verdict[["C13", "C15", "C16"]] == "too few").all()
    assert first[4][:6] == other[0][:6] == other[1][:6] == "agrees"
    twin, by_depth = (p for _, p in found["C15"].groupby("comparison", sort=False))
    assert by_depth.agrees.all() and set(twin[~twin.agrees].author) == {"wooyeolBaek"}
    cells = weights.set_index(["author", "net", "depth"])[["train_error", "response"]]
    train, response = (cells[of].unstack(["net", "depth"]) for of in cells)
    plain56 = response["plain", 56].dropna().sort_values()
    assert plain56.index[0] == "wooyeolBaek" and plain56.iloc[0] < plain56.iloc[1] / 8
    assert train["plain", 56]["wooyeolBaek"] < train["plain", 56].median()
    eased = train["plain", 56] < train["plain", 20]
    harmed = train["resnet", 56] > train["resnet", 20]
    assert list(train[eased].index) == list(train[harmed].index) == ["FrankZhang869"]
    assert apart.max() < 0.025
    alike = plain_fit, plain_gap, fit, *deeper.values()
    assert all(t.agrees.all() for t in alike)
    odd = gap[~gap.agrees].set_index("author")
    assert len(odd) == 3 and (odd.effect[odd.sized] < 0.55).all()
    assert (fit.set_index("author").effect[odd.index] < 0).all()
    own = [share[depth, "the paper's recipe"] for depth in printed]
    assert own[0] > 0.5 > max(own[1:]) and 0.6 < price.mean() / -last < 1
    low, high = prediction(sized(gap))
    assert low < in_paper["resnet"] < np.quantile(sized(gap), 0.2)
    assert found["C16"].agrees.mean() == 0.5
    one, several = (part for _, part in gains.groupby(gains.seeds > 1).effect)
    assert abs(several.mean() - one.mean()) < 0.1 and several.max() < 0
    added = {pair: sd / (2**0.5 * spread) for pair, sd in beyond.items()}
    assert all(round(t) == 1 + pair.startswith("plain") for pair, t in added.items())
    large = (sized(table) for table in (plain_fit, plain_gap, twins))
    assert all(np.mean(one) > 2 * np.std(one, ddof=1) for one in large)
    deepest = usable.query("net == 'plain' and depth == 110")
    assert deepest.author.nunique() == 3 and deepest.test_error.min() > 60

# %% [markdown]
# ## What was not tested, and why
#
# - **Independence.** An author counts once, but authors copy code, and a shared mistake would look like agreement.
# - **What is not public.** A rerun that failed has fewer reasons to be published.
# - **Each author's bookkeeping.** Few publish weights. Where they do, errors can be measured again.
# - **C2.** No plain net of 18 layers with a published error on ImageNet was found, and one of 34.
# - **plain-110.** Three authors trained it in full, and all end above 60 %, as the paper says. No rule was fixed for it before.
#
# ## Exercises
#
# 1. How much of the agreement rests on sources that only state a number? Judge C5 from those with a log or weights alone.

# %% tags=["hide-cell"]
print(public.judge("C5", runs[runs.shown])["ours"])

# %% [markdown]
# 2. Suppose that the true gain from 56 to 110 layers is zero and that only seeds differ. How often would a mean at least as large
#    as the one found turn up? Simulate it: a difference of two normal errors for each author, averaged.

# %% tags=["hide-cell"]
rng = np.random.default_rng(0)
part = last_gain[last_gain.sized]
scale = spread * np.sqrt(2 / part.seeds.to_numpy(float))
means = rng.normal(0, scale, (20_000, len(part))).mean(1)
print(f"as large by chance: {(means <= last).mean():.2%}")

# %% [markdown]
# 3. Table 6's nets are one run each, except ResNet-110, the best of five. How far below the mean does the best of five runs lie on
#    average, if runs are normal with the spread over seeds found here? Compare with the paper's best and mean.
#
# ```{admonition} Solution
# :class: dropdown
# The smallest of five standard normal values is 1.16 standard deviations below the mean, on average.
# ```

# %% tags=["hide-cell"]
best_of_five = rng.normal(0, spread, (100_000, 5)).min(1).mean()
difference = paper["table6.resnet110.test_error"] - printed[110]
print(f"expected {best_of_five:.2f} points; in the paper {difference:.2f}")
