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
# # How far can public reruns be trusted?
#
# > **An appendix on sources, to [Public reruns](07_reruns.ipynb).** What others published about Section 4.2 and Table 6 of the
# > paper, and how good it is as evidence.
# >
# > **The paper says:** nothing of reruns, which came later. It reports one run a net, except for ResNet-110.
# >
# > **We see:** however the sources are split, depth hurts plain nets and helps residual ones. Three verdicts (C7a, C13, C15)
# > would change without a single author.
# >
# > **Why:** in a difference of two nets authors vary by less than a point beyond their seeds. What depth and shortcuts do up to 56
# > layers is larger than that; the last step, from 56 to 110 layers, is smaller.
# >
# > **What this costs.** Nothing is trained here: the page reads a table of published results, in seconds on one core.

# %% tags=["parameters"]
recipe = "all"  # whose results: "all", or "paper", "near", "unknown", "far" recipes
leave_out = "none"  # an author, as the tables below name them: what is left is judged

# %% tags=["hide-input"]
import math

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from scipy import stats
from statsmodels.stats.meta_analysis import combine_effects

from reslib import record
from reslib.evidence import chapter, figures, parameters, plots
from reslib.evidence import reruns as public
from reslib.evidence.comparison import pooled, prediction
from reslib.evidence.reruns import told

everything = public.reruns()
parameters.check(
    globals(),
    recipe=parameters.choice("all", *public.RECIPES),
    leave_out=parameters.choice("none", *sorted(set(everything.author) - {""})),
)
say = chapter.say
plots.style()

# %% tags=["hide-input"]
kept = everything[everything.author != leave_out]
kept = kept[(recipe == "all") | (kept.recipe == recipe)]
both = kept[kept.dataset.isin((public.CIFAR, public.IMAGENET))]
runs = both[both.dataset == public.CIFAR]
whole = (recipe, leave_out) == ("all", "none")
found = pd.concat([public.effects(claim, both) for claim in public.CLAIMS])
NAMES = {  # the differences that this page looks at, and their kind of net
    "plain-56 − plain-20": "plain",
    "ResNet-56 − ResNet-20": "resnet",
    "plain-56 − ResNet-56": "plain",
    "ResNet-110 − ResNet-56": "resnet",
}
PAIRS = {name: found[found.comparison == f"{name}, test error"] for name in NAMES}
gap, last_gain = PAIRS["ResNet-56 − ResNet-20"], PAIRS["ResNet-110 − ResNet-56"]
gains, last = gap[gap.sized], last_gain.effect[last_gain.sized].mean()
final = public.levels(runs)  # final test errors, one row an author, net and depth


def minus(text):
    return text.replace("-", "−")


# %% [markdown]
# ## Do the findings depend on who is asked?
#
# Does the answer change with the recipe, the training set, the way of reporting, or what a source shows? Its sign does not. Its
# size hardly changes for residual nets; for plain nets it changes more, and is the largest with far recipes. In
# {numref}`fig-sources-subsets` each row is a group of sources: every square lies right of zero, and every mean of the residual
# pair left of it.

# %% mystnb={"figure": {"caption": "In every group that has the pair, depth hurts plain nets and helps residual ones. Test error of 56 layers minus 20 layers, by recipe, report, training set, and what a source shows. A point is an author, hollow for far recipes; the bar is the mean of the others with its 95 % interval, from three authors on.", "name": "fig-sources-subsets"}, "image": {"alt": "Two panels with a row for each of twelve groups of sources. Left, the plain pair: all orange squares lie right of zero, the means at 3 to 5 points. Right, the residual pair: nearly all blue circles lie left of zero, the means at \u22121.1 to \u22121.5 points."}} tags=["hide-input"]
SPLITS = {
    "all": slice(None),
    **{f"recipe: {value}": ("recipe", value) for value in public.RECIPES},
    **{f"error: {value}": ("report", value) for value in public.REPORTS},
    "45,000 images": ("train_set", "45k"),
    "50,000 images": ("train_set", "50k"),
    "log or weights": ("shown", True),
    "number alone": ("shown", False),
}


def groups(table):
    for name, split in SPLITS.items():
        yield name, table if name == "all" else table[table[split[0]] == split[1]]


figure, axes = plt.subplots(1, 2, figsize=(8, 6), sharey=True)
for ax, (name, kind) in zip(axes, list(NAMES.items())[:2], strict=True):
    rows = {group: (kind, part, None) for group, part in groups(PAIRS[name])}
    figures.strips(rows, ax)
    ax.set(title=name, xlabel="points of test error")

# %% [markdown]
# {numref}`tab-sources-subsets` has the numbers, and adds the plain net against its residual twin. The recipes are those of
# [chapter 7](07_reruns.ipynb).

# %% mystnb={"figure": {"caption": "Down a column the sign never turns; the mean changes little for the residual pair, more for the plain net. Differences of test error (points): mean and 95 % interval over authors, far recipes left out except in their own row; in parentheses how many of all authors agree. n: authors with a usable result on CIFAR-10.", "name": "tab-sources-subsets"}} tags=["hide-input"]
usable = runs[runs.report.ne("") & runs.in_meta.ne("no") & runs.recipe.ne("")]
lines = {name: [str(part.author.nunique())] for name, part in groups(usable)}
for name in list(NAMES)[:3]:
    for group, part in groups(PAIRS[name]):
        values = part.effect[part.sized | (group == "recipe: far")]
        agreed = f"{told(values)} ({part.agrees.sum()}/{len(part)})"
        lines[group].append(agreed if len(part) else "")
pd.DataFrame(lines, index=["n", *list(NAMES)[:3]]).T

# %% [markdown]
# ## Does it matter what a source shows?
#
# Do sources that show a log or weights find the same as those that only state a number, which costs nothing to choose well? They
# find about the same gain, and so do sources of several seeds and of one ({numref}`tab-sources-shown`).


# %% mystnb={"figure": {"caption": "No interval of a difference leaves out zero. ResNet-56 minus ResNet-20 (points), and the final error of ResNet-56 (%), of sources that show a log or weights against those that state a number, and of those with several seeds against those with one: means over n authors, far recipes left out, and the difference with its 95 % Welch interval.", "name": "tab-sources-shown"}} tags=["hide-input"]
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


deep56 = final[final.net.eq("resnet") & final.depth.eq(56)]
lines = {}
for what, frame, value in (
    ("ResNet-56 − ResNet-20", gains, gains.effect),
    ("ResNet-56", deep56, deep56.test_error),
):
    for split, first in (
        ("log or weights, against number", frame.shown.astype(bool)),
        ("several seeds, against one", frame.seeds > 1),
    ):
        lines[what, split] = side_by_side(value[first], value[~first])
columns = ["the former", "the latter", "difference"]
by_shown = pd.DataFrame(lines, index=columns).T
by_shown

# %% [markdown]
# The errors of sources that show their work are lower, if anything. All four intervals {cite}`welch1947generalization` hold zero;
# they are wide where one side has few sources.
#
# ## Does one source carry a verdict?
#
# Would any verdict change if one author were left out? Those of C7a, C13 and C15 would ({numref}`tab-sources-carried`). Each is
# judged again without each author in turn; the parameter `leave_out` does the same for a whole page, here and in chapter 7. The
# sources were collected in two searches, which the last section tells of.

# %% mystnb={"figure": {"caption": "Each verdict on public reruns; the authors without any one of whom it would be another; the verdict with the forks of a repository counted as one author with their origin; and that of the first search alone.", "name": "tab-sources-carried"}} tags=["hide-input"]
carried = {}
verdicts = pd.DataFrame([public.judge(claim, both) for claim in public.CLAIMS])
judged = verdicts[["claim", "verdict"]].set_index("claim")
verdict = judged.verdict.str.split(" (", regex=False).str[0]
for claim, word in verdict.items():
    for author in sorted(set(found.author[found.claim == claim])):
        without = public.judge(claim, both[both.author != author])["verdict"]
        if not without.startswith(word):
            carried.setdefault(claim, []).append(author)
without = [", ".join(carried.get(claim, ["no one author"])) for claim in judged.index]
judged["changes without"] = without
one = both.assign(author=both.author.replace(public.FORKS))
frames = {"forks as one": one, "first search alone": both[both.search == "1"]}
for name, frame in frames.items():
    judged[name] = [public.judge(claim, frame)["verdict"] for claim in judged.index]
judged = judged.rename_axis(None).replace(" sources", "", regex=True)
judged

# %% [markdown]
# C15 depends on wooyeolBaek, whose plain-56 was trained with clipped gradients. C13 depends on two authors, either of whom turns
# it, and who are not quite independent: they forked the same repository. Forks counted as one author with their origin turn C13
# back to what the first search found. C7a, of which few published logs tell, only just agrees: without any one of four authors it
# is open, and so it is with forks counted as one.
#
# ## Do authors differ more than seeds do?
#
# Is the spread over authors only that of single runs? No: authors differ by more than seeds do, most of all with plain-56. Random
# effects {cite}`paule1982consensus,hartung2001refined` split the spread. They need each source's own variance, and a single run
# has none. So in {numref}`tab-sources-spread` every source is lent the spread over seeds that a few of them measured; statsmodels
# {cite}`seabold2010statsmodels` computes the rest.

# %%
seeds = everything[everything.sd.notna() & (everything.dataset == public.CIFAR)]
seeds = seeds[seeds.report == "final"]
spread, _ = pooled(seeds.sd, seeds.seeds)  # points, over nets
print(f"spread over seeds {spread:.2f} points ({len(seeds)} nets)")

# %% mystnb={"figure": {"caption": "The two intervals nearly coincide; authors add spread beyond that of seeds, most with plain-56. Differences of test error (points) over authors, far recipes left out: the mean with its 95 % t interval, with that of random effects, the spread over authors beyond that of seeds, and the 95 % prediction interval for one more author.", "name": "tab-sources-spread"}}
lines, beyond = {}, {}
for pair, table in PAIRS.items():
    part = table[table.sized]
    if len(part) > 2:
        variance = 2 * spread**2 / part.seeds  # of a difference of two nets
        model = combine_effects(part.effect, variance, method_re="iterated", use_t=True)
        low, high = model.conf_int()[3]  # random effects, by Hartung and Knapp
        beyond[pair] = math.sqrt(max(model.tau2, 0))
        random = minus(f"{model.mean_effect_re:.2f} [{low:.2f}, {high:.2f}]")
        ahead = minus("{:.1f} to {:.1f}".format(*prediction(part.effect)))
        lines[pair] = told(part.effect), random, f"{beyond[pair]:.2f}", ahead
columns = ["t interval", "random effects", "beyond seeds", "one more"]
pd.DataFrame(lines, index=columns).T

# %% [markdown]
# The two intervals nearly coincide, which is why the simpler one is used. To a difference of two residual nets authors add about
# as much spread as seeds, and with plain-56 about twice as much: how a net is trained seems to matter more where training is
# hard. The prediction interval {cite}`higgins2009reevaluation` says where one more author's difference is expected.
#
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
# So best errors cannot be set beside final ones: the flattery is nearly as large as the step from 56 to 110 layers. It matters
# less for a *difference* of two nets reported in the same way: in {numref}`tab-sources-subsets` best-on-test sources find the
# same gain.
#
# ## 45,000 or 50,000 training images?
#
# The paper tuned its schedule on 45,000 images and says that the nets are "trained on the training set". Does it matter which is
# meant? Perhaps by some tenths of a point ({numref}`tab-sources-split`, with Welch intervals {cite}`welch1947generalization`);
# these sources cannot tell.

# %% mystnb={"figure": {"caption": "Final test error (%) of the paper's recipe by training set, means over n authors, and their difference with a 95 % Welch interval where each side has at least two authors. A positive difference: fewer images, a higher error.", "name": "tab-sources-split"}} tags=["hide-input"]
lines = {}
for (net, depth), part in final[final.recipe == "paper"].groupby(["net", "depth"]):
    few, many = (part[part.train_set == size].test_error for size in ("45k", "50k"))
    if len(few) and len(many):
        lines[public.name(net, int(depth))] = side_by_side(few, many)
pd.DataFrame(lines, index=["45,000", "50,000", "difference"]).T

# %% [markdown]
# Fewer images should cost something, and the means mostly say so. Authors differ in more than this, so the intervals are wide.
# Whether 45,000 images explain that reruns miss the paper's errors of deep nets stays open; in chapter 7 `train_set = "50k"`
# leaves them out.
#
# ## Who does not publish?
#
# Would failed reruns be published? Nobody can know, and a rerun that agrees with a famous paper is easier to publish than one
# that does not. Two failures are among the results that were left out: a ResNet-20 far above all others, which the maintainer of
# its code puts down to a software version, and a ResNet-1202 that did not converge.
#
# **How many silent sources of the other sign would undo the agreement?** This is the file-drawer question
# {cite}`rosenthal1979file`. The last column of {numref}`tab-sources-silent` says how many authors who found the opposite, and
# said nothing, it would take to bring the share below two thirds. The p value is of a sign test; it supposes that authors are
# independent.

# %% mystnb={"figure": {"caption": "The large effects would stand even if several authors had found the opposite and said nothing. By comparison: how many authors agree, a sign test, and how many silent authors it would take to bring the share of those who agree below two thirds.", "name": "tab-sources-silent"}} tags=["hide-input"]
lines, signed = {}, found[found.claim != "C7b"]  # "the same" has no sign
for what, part in signed.groupby(["claim", "comparison"], sort=False):
    k, m = int(part.agrees.sum()), len(part)
    silent = max(math.floor(k / public.SHARE) - m + 1, 0)
    p = stats.binomtest(k, m).pvalue
    lines[what] = f"{k} of {m}", f"{p:.3f}" if p >= 0.001 else "< 0.001", silent
columns = ["agree", "sign test, p", "silent authors"]
pd.DataFrame(lines, index=columns).T

# %% [markdown]
# Sources that show their work, which leaves less to choose, find the same as those that state a number
# ({numref}`tab-sources-shown`): there is no sign that numbers were chosen. Whether whole reruns stayed unpublished, this cannot
# show. A funnel plot, the usual look at small studies, cannot say more: nearly all sources ran one seed,
# so the funnel has no depth.
#
# ## The sources
#
# Who are they, and how were they found? By two searches in 2026. Of the first no protocol was kept. The second had one, committed
# before it: `notebooks/records/reruns/search.md` says where it looked, for what, and what it takes in or leaves out, and
# `screened.csv` beside it lists what was looked at, how it was found, and the reason.

# %% tags=["hide-input"]
screened = pd.read_csv(record.folder() / "reruns" / "screened.csv")
say(
    f"The second search looked at {len(screened)} candidates, of which "
    f"{screened.decision.eq('included').sum()} were taken in. With the first, "
    f"{usable.source.nunique()} sources on CIFAR-10 count. An index of public code "
    "does not hold all of it, so sources will be missing still, and this is no "
    "systematic review."
)

# %% [markdown]
# Each line has a source's nets, which error it reports (final, best on the test set, or unclear), and its departures from the
# paper. Each name links to the commit, or to the thread, that was read; in parentheses the author, where the tables call the
# source by another name. In short: *its* are iterations, *wd* weight decay, *lr* the learning rate, *AMP* mixed precision.


# %% tags=["hide-input"]
def joined(values, by=", "):
    return by.join(dict.fromkeys(value for value in values if value))


def breakable(text):  # long names of files and folders, on a telephone
    return text.replace("/", "/\u200b").replace("_", "_\u200b")


def nets_of(part):  # "plain-20, -56; ResNet-20, -56"
    for net, depths in part.depth.astype(int).groupby(part.net):
        first, *others = sorted(set(depths))
        yield public.name(net, first) + "".join(f", -{depth}" for depth in others)


compared = found.author[found.claim == "C9"]
compared = both[(both.dataset == public.IMAGENET) & both.author.isin(compared)]
compared = compared[compared.in_meta.ne("no")]
named = pd.concat([usable, compared]).groupby(["source", "url"], sort=False)
lines = {value: [] for value in public.RECIPES}
for (source, url), part in named:
    told_of = [joined(nets_of(part), by="; "), f"error {joined(part.report)}"]
    told_of += [f"recipe {joined(part.recipe)}"] * (part.recipe.nunique() > 1)
    departures = joined("; ".join(part.departures).split("; "), by="; ")
    told_of += [f"departures: {departures}"] if departures else []
    link = f"[{breakable(source)}]({url})" if url else source
    authors = {name for name in part.author if name not in source}
    link += "".join(f" ({name})" for name in sorted(authors))
    text = breakable("; ".join(told_of))
    lines[part.recipe.iloc[0]].append(f"- {link}: {text}")
for value, heading in zip(lines, figures.HEADINGS, strict=True):
    if lines[value]:
        say(f"**{heading.capitalize()}**\n\n" + "\n".join(lines[value]))

# %% tags=["hide-input"]
left_out = runs[runs.in_meta.eq("no")].drop_duplicates("source")
why = left_out[["stat", "departures", "note"]].agg(joined, axis=1)
if len(left_out):
    texts = map(breakable, "- " + left_out.source + ": " + why)
    say("**Read and not counted**\n\n" + "\n".join(texts))

# %% tags=["hide-cell"]
if whole:  # the fixed words of this page hold for the whole table
    assert set(carried) == {"C7a", "C13", "C15"} and carried["C15"] == ["wooyeolBaek"]
    assert len(carried["C7a"]) == 4
    assert {"jayroxis", "m-shahbaz-kharal"} == set(carried["C13"]) <= set(public.FORKS)
    for name in frames:
        other = judged[name].str.split(" (", regex=False).str[0]
        assert list(verdict.index[other != verdict]) == ["C7a", "C13"]
    for name, side in zip(list(NAMES)[:2], (1, -1), strict=True):
        for _, part in groups(PAIRS[name]):
            size = side * part.effect[part.sized].mean()
            assert not size < 0 and (side < 0 or (part.effect > 0).all())
    assert 0.6 < price.mean() / -last < 1 and 0.5 < -last / spread < 1.5
    assert by_shown.difference.str.contains(r"\[−.*, \d").all()  # intervals hold zero
    several, single = (gains.effect[few] for few in (gains.seeds > 1, gains.seeds == 1))
    assert abs(several.mean() - single.mean()) < 0.1 and several.max() < 0
    sizes = {pair: abs(PAIRS[pair].effect.mean()) for pair in beyond}
    assert [pair for pair in beyond if sizes[pair] < beyond[pair]] == [list(NAMES)[3]]
    assert max(beyond.values()) < 1
    added = {pair: sd / (2**0.5 * spread) for pair, sd in beyond.items()}
    assert all(round(t) == 1 + pair.startswith("plain") for pair, t in added.items())

# %% [markdown]
# ## What was not tested, and why
#
# - **Independence.** An author counts once, but authors copy code, and a shared mistake would look like agreement.
# - **What is not public.** A rerun that failed has fewer reasons to be published.
# - **What a log does not show.** A source says what it departs from, as far as we could read its code; its data and its machine
#   cannot be checked.
#
# ## Exercises
#
# 1. How much of the agreement rests on sources that only state a number? Judge C5 from those with a log or weights alone.

# %% tags=["hide-cell"]
print(public.judge("C5", runs[runs.shown])["ours"])

# %% [markdown]
# 2. Suppose that the true gain from 56 to 110 layers is zero and that only seeds differ. How often would a mean at least as large
#    as the one found turn up? Simulate it: a difference of two normal errors for each author, averaged. Does that settle it?
#
# ```{admonition} Solution
# :class: dropdown
# Hardly ever. It does not settle the matter, because authors differ by more than seeds do: their own spread makes the interval.
# ```

# %% tags=["hide-cell"]
rng = np.random.default_rng(0)
part = last_gain[last_gain.sized]
scale = spread * np.sqrt(2 / part.seeds.to_numpy(float))
means = rng.normal(0, scale, (20_000, len(part))).mean(1)
print(f"as large by chance: {(means <= last).mean():.2%}")
assert not whole or (means <= last).mean() < 0.01

# %% [markdown]
# 3. A sign test takes authors as independent. Suppose that they come in groups of three who share their code and their mistakes,
#    so that a third of them counts. Which p values of {numref}`tab-sources-silent` stay below 0.05?

# %% tags=["hide-cell"]
for (claim, what), part in signed.groupby(["claim", "comparison"], sort=False):
    k, m = part.agrees.sum() // 3, len(part) // 3
    if m:
        print(f"{claim}: {what}: {k} of {m}, p = {stats.binomtest(k, m).pvalue:.3f}")
