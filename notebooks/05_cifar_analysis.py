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
# # CIFAR-10 and analysis
#
# > **Section 4.2 of the paper, and footnotes 3 and 5; Table 6, Fig. 6, Fig. 7.** Claims: C13 (residual nets get better with
# > depth, plain nets worse), C14 (110 layers want a warm-up), C4 (three times the iterations are no cure), C15 (residual nets'
# > responses are smaller), C16 (1202 layers overfit), C19 (few parameters).
# >
# > **What this costs.** As it stands, this page trains for about half a minute on two CPU cores and downloads nothing: the
# > smallest nets of the family on scanned digits, a *demonstration* that proves nothing about the paper. The *evidence* is
# > replayed from recorded runs; how long each took is listed at the end. To make it again: the series of five depths with
# > three seeds is thirty runs, the further groups more than as many again, at `pocket` scale minutes each on one core
# > (`python -m reslib plan` has estimates); `paper` scale wants a GPU.

# %% tags=["parameters"]
scale = "demo"  # "demo": demonstration, and the pocket runs replayed; "pocket", "night", "paper": that scale's runs
depths = "20,32,44,56,110"  # layers of the series of plain and residual nets, 6n+2 each, the shallowest first
groups = "warm-up,start,longer,shallow,split,ambiguities,count,1202"  # further groups of the run plan; "none": the series alone
seeds = "0,1,2"  # of the runs; the verdicts' seeds are fixed in reslib/evidence/plan.py
retrain = False  # True: carry out the runs of `scale` here (finished ones are kept, interrupted ones taken up)
out_dir = "runs"  # folder for runs made here

# %% tags=["hide-input"]
from dataclasses import replace
from itertools import combinations, pairwise
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
import torch
from IPython.display import Markdown
from scipy import stats

import reslib
from reslib import CIFAR, data
from reslib.data import draws
from reslib.evidence import chapter, claims, comparison, counts, parameters, plan, plots, rules
from reslib.files import temporary

FURTHER = ("warm-up", "start", "longer", "shallow", "split", "ambiguities", "count", "1202")
parameters.check(
    globals(),
    scale=parameters.choice("demo", "pocket", "night", "paper"),
    depths=parameters.cifar_depths,
    groups=parameters.several("none", *FURTHER),
    seeds=parameters.whole_numbers,
    retrain=parameters.flag,
    out_dir=Path,
)
runs_scale = chapter.scale_of_runs(scale, retrain)
series = {"plain": [plan.plain(depth) for depth in depths], "residual": [plan.residual(depth) for depth in depths]}
planned = {
    kind: [replace(recipe.at(runs_scale), seed=seed) for recipe in nets for seed in seeds] for kind, nets in series.items()
}
for group in plan.PLAN:
    if group.name in groups and runs_scale in group.scales:
        planned[group.name] = [replace(plan.at(group, r, runs_scale), seed=seed) for r in group.recipes for seed in seeds]
everything = list({recipe.id: recipe for recipes in planned.values() for recipe in recipes}.values())
runs, missing = chapter.gather(everything, retrain, out_dir)
paper = claims.paper()
ERRORS = {"train_error": "training error", "test_error": "test error"}  # a record's names for them
plots.style()
torch.set_num_threads(1)  # what is live here is too small to be shared out
say = chapter.say

# %% [markdown]
# ## The protocol
#
# CIFAR-10 is 50,000 training and 10,000 test images of 32x32 pixels in ten classes. The paper uses it to study what depth does
# to *optimisation*, "so we intentionally use simple architectures": a 3x3 convolution, three stages of 2n 3x3 convolutions on
# maps of 32, 16 and 8 pixels with 16, 32 and 64 filters, global average pooling, one fully connected layer. That is 6n+2
# layers, and with an identity shortcut round every two of them the plain net becomes a residual one of the same parameters.
#
# Everything else is one recipe, the same for every net:

# %%
shown = ["batch", "lr", "momentum", "weight_decay", "steps", "milestones", "size", "pad", "flip"]
pd.DataFrame({name: CIFAR.at(name).as_dict() for name in dict.fromkeys(["paper", runs_scale])}).loc[shown]

# %% [markdown]
# **The images.** Per-pixel mean subtracted; for training, a border of zeros, a random crop of the old size, and a mirror image
# in half of the cases. In three lines, and asserted against what `reslib.loader` yields (on scanned digits, which need no
# download; they are mirrored here to show it, though a mirrored digit is none):


# %%
def augment(image, dy, dx, flip, pad):  # (H, W, 3), minus the mean image; where the crop begins in the padded one; mirrored?
    padded = np.pad(image, ((pad, pad), (pad, pad), (0, 0)))
    crop = padded[dy : dy + len(image), dx : dx + len(image)]
    return crop[:, ::-1] if flip else crop


recipe = replace(CIFAR.at("demo"), flip=True)
digits, mean = data.images(recipe, train=True), data.mean_image(recipe)
drawn = draws.epoch_draws(
    recipe.seed, epoch=0, n=len(digits.labels), pad=recipe.pad
)  # of the seed, the epoch and the image alone
batch, labels = next(iter(reslib.loader(recipe, "train", epoch=0)))  # (B, 3, H, W), (B,)
for i, sample in enumerate(drawn.order[: recipe.batch]):
    image = digits.pixels[sample] / np.float32(255) - mean
    crop = augment(image, drawn.dy[sample], drawn.dx[sample], drawn.flip[sample], recipe.pad)
    assert torch.equal(batch[i], torch.from_numpy(crop.copy()).permute(2, 0, 1)) and labels[i] == digits.labels[sample]

# %% mystnb={"figure": {"caption": "An image, and what training sees of it in its first eight epochs: a crop of the padded image, minus the mean image (here added again, so that the border shows), mirrored in half of the cases.", "name": "fig-augmentation"}} tags=["hide-input"]
figure, axes = plt.subplots(1, 9, figsize=(8, 1.3))
sample = drawn.order[0]
image = digits.pixels[sample] / np.float32(255) - mean
views = {"image": image}
for epoch in range(8):
    d = draws.epoch_draws(recipe.seed, epoch, len(digits.labels), recipe.pad)
    views[f"epoch {epoch}"] = augment(image, d.dy[sample], d.dx[sample], d.flip[sample], recipe.pad)
for ax, (name, view) in zip(axes, views.items(), strict=True):
    ax.imshow(view[..., 0], cmap="gray")
    ax.set_axis_off()
    ax.set_title(name, fontsize="small")
# %% [markdown]
# **The learning rate** starts at 0.1 and is divided by ten at half and at three quarters of the iterations. For 110 layers,
# "0.1 is slightly too large to start converging", so the paper begins with 0.01 until the training error is below 80 %. That
# depends on the run; given the iteration at which a run got there, the schedule is this, and every recorded curve below is
# held to it:


# %%
def learning_rate(recipe, iteration, warm_at):
    if warm_at is not None and iteration < warm_at:
        return recipe.warmup_lr
    return recipe.lr * 0.1 ** sum(iteration >= milestone for milestone in recipe.milestones)


# %% [markdown]
# The demonstration, on digits: plain and residual nets of the three smallest depths, one seed. No claim is judged by it.

# %%
demonstration = temporary()  # these runs are thrown away
small = [replace(CIFAR, depth=depth, shortcut=shortcut).at("demo") for shortcut in (None, "A") for depth in (8, 14, 20)]
demo_runs = [reslib.train(recipe, out_dir=demonstration, device="cpu") for recipe in small]
demo_table = reslib.records(demo_runs).set_index("net")[list(ERRORS)].rename(columns=ERRORS)
demo_table.T.style.format("{:.1f}").set_caption(f"Final error (%): {plots.about(small[0], 1)}")

# %% [markdown]
# Now the evidence: recorded runs on real CIFAR-10. Which of the planned ones there are:

# %%
for run in runs:
    curve, warm_at = run.frame(), run.final.get("warmup_steps")
    warm_at = run.recipe.steps if run.recipe.warmup_lr and warm_at is None else warm_at  # never below 80 %
    assert np.allclose(curve.lr, [learning_rate(run.recipe, step - 1, warm_at) for step in curve.step])

by_id = {run.recipe_id: run for run in runs}
having = {
    name: [by_id[recipe.id] for recipe in recipes if recipe.id in by_id] for name, recipes in planned.items()
}  # the runs of each group
table = reslib.records(runs)
about = plots.about(planned["plain"][0], len(seeds))
rows = [
    (name, recipe.net_name, plan.changes(recipe) or "-", str(recipe.seed) if recipe.id in by_id else "")
    for name, recipes in planned.items()
    for recipe in recipes
]
found = pd.DataFrame(rows, columns=["runs", "net", "with", "seeds"]).groupby(["runs", "net", "with"], sort=False).seeds
found = found.agg(lambda seeds: ", ".join(filter(None, seeds)) or "missing").to_frame()
found.style.set_caption(f"Seeds recorded at {runs_scale} scale")

# %% [markdown]
# ## Depth, with and without shortcuts
#
# **Prediction (C13).** The deeper a plain net, the higher its training error; plain-110 is so poor that the paper leaves it out
# of its figure (it is "higher than 60%"). Residual nets go the other way: each is better than the one before. As in the chapter on
# residual learning, that reversal is about *trained* nets; a short training shows a direction at most. Two differences are
# judged, 110 layers against 20 and against 56, rather than a slope that the step from 20 to 32 layers would carry alone.

# %% mystnb={"figure": {"caption": "Fig. 6 of the paper, rebuilt, plain-110 shown and its third panel (1202 layers) left out: running training error (top) and test error (bottom) of plain nets (left) and residual nets (right). 110 residual layers start with the warm-up at 0.01, as in the paper, all others at 0.1. Thin lines are single seeds, bold lines their mean.", "name": "fig-series"}}
figure, axes = plt.subplots(2, 2, sharex=True, sharey=True, figsize=(8, 6))
for column_axes, kind in zip(axes.T, series, strict=True):
    for ax, column in zip(column_axes, ERRORS, strict=True):
        if having[kind]:
            plots.learning_curve(reslib.curves(having[kind]), column, ax)
_ = figure.suptitle(about)
# %% mystnb={"figure": {"caption": "Final error over depth (logarithmic), a point a run: training error (left, a clean pass over all training images) and test error (right). 110 residual layers have the warm-up.", "name": "fig-series-depth"}}
by_depth = reslib.records([*having["plain"], *having["residual"], *having.get("shallow", [])])
figure, axes = plt.subplots(1, 2, sharey=True)
for ax, column in zip(axes, ERRORS, strict=True):
    plots.depth_effect(by_depth, column, ax)
    ax.set_xscale("log", base=2)
    ax.set_xticks(sorted(by_depth.depth.unique()), sorted(by_depth.depth.unique()))
    ax.minorticks_off()
_ = figure.suptitle(about)
# %%
by_net = by_depth.groupby(["shortcut", "depth"])
means = by_net[list(ERRORS)].agg(["mean", "min", "max"]).rename(columns=ERRORS).map("{:.1f}".format)
pd.concat([means, by_net.seed.count().rename(("n", ""))], axis=1).style.set_caption(f"Final error (%), n seeds; {about}")

# %%
say(claims.sentence("C13", runs_scale, table))

# %% tags=["hide-input"]
poor = by_depth[by_depth.shortcut == "none"].groupby("depth").test_error.mean()[lambda error: error > 60]
if set(poor.index) - {110}:
    say(
        f"The part about plain-110 is no test here: plain nets of {', '.join(map(str, poor.index))} layers are all above 60 % test error "
        f"({about})."
    )

# %% tags=["hide-input"]
best = {kind: frame.groupby("depth").train_error.mean() for kind, frame in by_depth.groupby("shortcut")}
said = [
    f"the {'plain' if kind == 'none' else 'residual'} nets have their lowest mean training error at {errors.idxmin()} layers, "
    + (
        "the shallowest tried, so no such rise is seen"
        if errors.idxmin() == errors.index.min()
        else "and shallower ones are behind"
    )
    for kind, errors in best.items()
]
say(
    "Does accuracy rise with depth before it falls, because very shallow nets are too small? "
    f"Of {', '.join(map(str, sorted(by_depth.depth.unique())))} layers, {'; '.join(said)} ({about})."
)

# %% [markdown]
# ### The deepest plain net
#
# A net that has not started (its running training error was never below 80 %) adds to a slope that it did not start, not how
# well it learns. And in such a net the gradient need not be healthy. C3 was judged on plain-56; here is the gradient that
# reaches the first third of the layers over that of the last third, for all depths, through training. Shown, not judged:

# %% tags=["hide-input"]
never = comparison.unstarted([run for kind in series for run in having[kind]])
say(f"Runs that never start: {never or 'none'}; {about}.")
ratios = {
    (run.recipe.net_name, run.recipe.seed): rules.backward_ratio(run)
    for kind in series
    for run in having[kind]
    if run.recipe.depth <= 110
}
ratios = pd.DataFrame(ratios).T.rename_axis(["net", "seed"]) if ratios else pd.DataFrame()
logs = ratios.groupby("net", sort=False).mean()
logs.style.format("{:.1f}").set_caption(f"log10 of that ratio by iteration, mean over seeds; {about}")

# %% tags=["hide-input"]
far = logs.abs().max(axis=1)[lambda largest: largest > rules.HEALTHY] if len(logs) else []
say(
    "With batch normalisation, at some probed iteration the gradient is not healthy by C3's mark (a factor of 100 either way) in: "
    f"{', '.join(far.index)}. Why is not tested here."
    if len(far)
    else "By C3's mark (a factor of 100 either way) the gradient is healthy in all of these nets, at all of these iterations."
)

# %% [markdown]
# ## Table 6
#
# The paper's table compares its nets with the best of their time by test error and number of parameters. Only at `paper` scale
# can our errors be compared with its errors: the smaller scales train for a fraction of the iterations, on smaller images.
# Parameters are counted, at every scale the same (C19). "mean ± std" is the paper's, where it gives it; "ours" is the mean over
# n seeds, with the lowest and the highest.

# %% tags=["hide-input"]
others = {
    "maxout": "Maxout", "nin": "NIN", "dsn": "DSN", "fitnet19": "FitNet", "highway19": "Highway", "highway32": "Highway",
}  # fmt: skip
spread = pd.read_csv(Path(claims.__file__).with_name("paper.csv"), index_col="quantity").spread


def several_runs(key):
    mean = f"table6.{key}.test_error_mean"
    return f"{paper[mean]:.2f} ± {spread[mean]:.2f}" if mean in paper else ""


rows = []
for key, name in others.items():
    layers, parameters_ = (paper.get(f"table6.{key}.{what}", np.nan) for what in ("layers", "parameters"))
    name += f"-{layers:.0f}" * (layers == layers)
    rows.append((name, parameters_ / 1e6, np.nan, paper[f"table6.{key}.test_error"], several_runs(key), "", ""))
tested = reslib.records(having["residual"]).groupby("depth").test_error
for depth in sorted({*depths, *(int(key.split(".")[1][6:]) for key in paper if key.startswith("table6.resnet"))}):
    key = f"table6.resnet{depth}"
    made = sum(p.numel() for p in counts.shape_of(reslib.cifar_resnet, depth).parameters()) / 1e6
    ours = tested.get_group(depth) if depth in tested.groups else pd.Series(dtype=float)
    told = f"{ours.mean():.2f} ({ours.min():.2f} to {ours.max():.2f})" if len(ours) else ""
    rows.append(
        (f"ResNet-{depth}", paper.get(f"{key}.parameters", np.nan) / 1e6, made, paper.get(f"{key}.test_error", np.nan),
         several_runs(f"resnet{depth}"), told, len(ours) or "")
    )  # fmt: skip
columns = ["net", "parameters (M)", "counted", "paper (%)", "mean ± std", "ours (%)", "n"]
pd.DataFrame(rows, columns=columns).set_index("net").rename_axis(None).style.format(
    dict.fromkeys(columns[1:4], "{:.2f}"), na_rep=""
).set_caption(f"Table 6, and our runs beside it: test error; {about}")

# %% [markdown]
# At `paper` scale one more question can be asked: is the paper's number one that our recipe would give? It is, as far as these
# runs can tell, where it lies in their 95 % prediction interval. For ResNet-110 it is the mean of the paper's five runs, not the
# best of them.

# %% tags=["hide-input"]
rows = {}
for depth, errors in tested if runs_scale == "paper" else ():
    several = depth == 110
    printed = paper[f"table6.resnet{depth}.test_error{'_mean' * several}"]
    low, high = comparison.prediction(errors, int(paper["table6.resnet110.runs"]) if several else 1)
    rows[f"ResNet-{depth}"] = {
        "paper (%)": f"{printed:.2f}",
        "ours expect": f"{low:.2f} to {high:.2f}",
        "inside": "yes" if low <= printed <= high else "no",
        "n": len(errors),
    }
say(pd.DataFrame(rows).T.to_markdown() if rows else "No run at `paper` scale is shown here.")

# %%
say(claims.listed(("C19",), runs_scale, table))

# %% [markdown]
# ### How much a difference means
#
# Neighbours in Table 6 are close to each other, and most of its rows are one number. For two nets it gives the best, the mean
# and the standard deviation of several runs: ResNet-110, run five times, and the Highway net of 19 layers.

# %% tags=["hide-input"]
sd = spread["table6.resnet110.test_error_mean"]
printed = {depth: paper[f"table6.resnet{depth}.test_error"] for depth in (20, 32, 44, 56, 110)}
rows = {}
for a, b in pairwise(printed):
    errors = reslib.records(having["residual"])
    errors = errors[errors.depth.isin((a, b))].pivot(index="seed", columns="depth", values="test_error").dropna()
    gaps = errors[a] - errors[b] if errors.shape[1] == 2 else pd.Series(dtype=float)
    mean_gap, low, high = comparison.interval(gaps) if len(gaps) else (np.nan,) * 3
    rows[f"ResNet-{a} - ResNet-{b}"] = {
        "paper": f"{printed[a] - printed[b]:.2f}",
        "ours [95 % interval]": f"{mean_gap:.2f} [{low:.2f}, {high:.2f}]" if len(gaps) else "",
        "n": len(gaps),
    }
pd.DataFrame(rows).T.style.set_caption(f"Differences of test error between neighbours (points), paired by seed; {about}")

# %% tags=["hide-input"]
made = paper["table6.resnet110.runs"]
fair = printed | {110: paper["table6.resnet110.test_error_mean"]}
edge = stats.t.ppf(0.975, made - 1) * sd
apart = {depth: edge * (1 + (1 / made if depth == 110 else 1)) ** 0.5 for depth in printed}
close = [f"{a} and {b}" for a, b in pairwise(fair) if fair[a] - fair[b] < apart[b]]
say(
    f"Take the paper's standard deviation of {sd} points, estimated from {made:.0f} runs of one depth, to hold at every depth. Then two "
    f"*single* runs of equally good nets differ by more than {apart[20]:.2f} points in one of twenty cases, a single run and the mean "
    f"of ResNet-110's by more than {apart[110]:.2f}. In the paper's own table, with that mean ({fair[110]:.2f} %) in the place of "
    f"the best run, this leaves undecided: {', '.join(close)} layers."
)

# %% [markdown]
# ### What nets agree on
#
# An error is a count; it does not say how far two nets agree. The records hold every prediction on the 10,000 test images, so
# this can be asked without a single weight: on what share of them do two runs predict different classes?

# %% mystnb={"figure": {"caption": "Share of the test images (%) on which two runs predict different classes, averaged over pairs of runs with different seeds. On the diagonal: two runs of the same net.", "name": "fig-agreement"}} tags=["hide-input"]
compared = {f"{run.recipe.net_name} s{run.recipe.seed}": run for kind in series for run in having[kind]}
nets = list(dict.fromkeys(run.recipe.net_name for run in compared.values()))
apart_by = {pair: [] for pair in ((a, b) for a in nets for b in nets)}
for first, second in combinations(compared.values(), 2):
    if first.recipe.seed != second.recipe.seed:
        share = 100 * (first.predictions() != second.predictions()).mean()
        for a, b in ((first, second), (second, first)):
            apart_by[a.recipe.net_name, b.recipe.net_name].append(share)
disagree = pd.Series({pair: np.mean(shares) if shares else np.nan for pair, shares in apart_by.items()}).unstack()
disagree = disagree.loc[nets, nets]
if len(seeds) > 1:
    figure, ax = plt.subplots(figsize=(7, 5.6))
    sns.heatmap(disagree, annot=True, fmt=".0f", cmap="viridis_r", square=True, ax=ax, cbar_kws={"label": "different (%)"})
    ax.set(xlabel="", ylabel="")
    figure.suptitle(about)

# %% tags=["hide-input"]
same, errors = pd.Series(np.diag(disagree), nets), by_depth.groupby("net").test_error.mean()
learned = [net for net in nets if all(comparison.started(run) for run in compared.values() if run.recipe.net_name == net)]
ratio = (same / errors)[learned].dropna()
say(
    "This takes runs of two seeds or more."
    if not len(ratio)
    else "Two runs of the same net, which differ in the seed alone, are as far apart as "
    + "; ".join(f"{same[net]:.0f} % ({net}, test error {errors[net]:.0f} %)" for net in nets if same[net] == same[net])
    + f" ({about}). That is {ratio.min():.0%} to {ratio.max():.0%} of their error, nets with runs that never start left out. It does not follow that they fail "
    "on different images: two wrong answers to the same image can differ too."
)

# %% [markdown]
# ## A warm-up for 110 layers
#
# **Prediction (C14).** At a learning rate of 0.1 from the start ResNet-110 takes more iterations to get below 80 % training
# error than with the warm-up. It "still reaches similar accuracy" (footnote 5): that is judged at `paper` scale.

# %% mystnb={"figure": {"caption": "ResNet-110 with the warm-up at 0.01 (solid) and straight at 0.1 (dashed): running training error at the start (left) and over the whole run (right). The dotted line, 80 %, is where the warm-up ends, by the mean over the last 50 iterations. Thin lines are single seeds, bold lines their mean.", "name": "fig-warm-up"}} tags=["hide-input"]
schedules = {
    "warm-up": [run for run in having["residual"] if run.recipe.depth == 110],
    "straight": having.get("warm-up", []),
}
figure, axes = plt.subplots(1, 2)
early = planned["residual"][0].steps / 4
for ax, last in zip(axes, (early, np.inf), strict=True):
    for name, line, colour in (("warm-up", "-", "#0b5394"), ("straight", "--", "#b04a00")):
        frames = [frame[frame.step <= last] for frame in map(reslib.Record.frame, schedules[name])]
        for frame in frames:
            ax.plot(frame.step, frame.train_error, line, color=colour, lw=0.7, alpha=0.35)
        if frames:
            mean_curve = pd.concat(frames).groupby("step").train_error.mean()
            ax.plot(mean_curve.index, mean_curve, line, color=colour, lw=1.8, label=f"{name}, n = {len(frames)}")
            ax.legend(fontsize="small")
    ax.axhline(CIFAR.warmup_until, color="black", lw=0.8, ls=":")
    ax.set(xlabel="iterations", ylabel="running training error (%)")
_ = figure.suptitle(about)
# %%
rows = {}
for name, of in schedules.items():
    for run in of:
        rows[name, run.recipe.seed] = {
            "warm until": run.final.get("warmup_steps") if name == "warm-up" else None,
            "below 80 %": comparison.steps_to(run, comparison.STARTED),
            "training error": run.final["train_error"],
            "test error": run.final["test_error"],
        }
started = pd.DataFrame(rows).T.rename_axis(index=["schedule", "seed"] if rows else None)
started.style.format({"training error": "{:.1f}", "test error": "{:.1f}"}, precision=0, na_rep="").set_caption(
    f"ResNet-110: iterations, by the running training error (“below 80 %”: the first row of the curve that is), and final errors (%); {about}"
)

# %%
say(claims.sentence("C14", runs_scale, table))

# %% tags=["hide-input"]
again = {seed: frame.train_error[(frame.step > comparison.steps_to(run, comparison.STARTED)) & (frame.step <= early)].max()
         for run in schedules["warm-up"] for seed, frame in [(run.recipe.seed, run.frame())]}  # fmt: skip
if again:
    say(
        "The statistic counts the first time below. After that, with the rate going up to 0.1, the highest running training error is "
        + ", ".join(f"{error:.1f} % (seed {seed})" for seed, error in again.items())
        + f" within the first quarter of the iterations; {about}."
    )

# %% [markdown]
# The series over depth mixes two schedules, as the paper's does: 110 layers have the warm-up, the others do not. So its last
# step shows two things at once. Side by side; the runs of 20 and 56 layers with the warm-up were planned after the first ones
# of 110 layers had shown how much it does, to explore that, and judge no claim:

# %% tags=["hide-input"]
both = reslib.records([*having["residual"], *having.get("warm-up", []), *having.get("start", [])])
both["schedule"] = both.warmup_lr.notna().map({True: "warm-up", False: "straight"})
both = both.groupby(["depth", "schedule"])[[*ERRORS, "seed"]].agg({**dict.fromkeys(ERRORS, "mean"), "seed": "count"})
both.rename(columns=ERRORS | {"seed": "n"}).style.format("{:.1f}", subset=list(ERRORS.values())).set_caption(
    f"Final error (%) of residual nets by schedule, mean over seeds; {about}"
)

# %% [markdown]
# ## Three times the iterations
#
# Perhaps deeper plain nets are only slower? **Prediction (C4).** With three times the iterations, all three parts of the
# schedule three times as long, plain-56 still has a higher training error than plain-20.

# %% tags=["hide-input"]
rows = [
    (f"{run.recipe.steps:,} iterations", run.recipe.seed, run.recipe.net_name, run.final["train_error"])
    for run in [*having["plain"], *having.get("longer", [])]
    if run.recipe.depth in (20, 56)
]
gap = pd.DataFrame(rows, columns=["trained for", "seed", "net", "error"])
gap = gap.pivot(index=["trained for", "seed"], columns="net", values="error")
if {"plain20", "plain56"} <= set(gap):
    gap["difference"] = gap.plain56 - gap.plain20
gap.style.format("{:.1f}", na_rep="").set_caption(f"Training error (%), a clean pass; {runs_scale} scale")

# %% mystnb={"figure": {"caption": "Three times the iterations: running training error (left) and test error (right) of plain-20 and plain-56. Thin lines are single seeds, bold lines their mean.", "name": "fig-longer"}} tags=["hide-input"]
longer = having.get("longer", [])
if longer:
    figure, axes = plt.subplots(1, 2, sharey=True)
    for ax, column in zip(axes, ERRORS, strict=True):
        plots.learning_curve(reslib.curves(longer), column, ax)
    _ = figure.suptitle(plots.about(longer[0].recipe, len({run.recipe.seed for run in longer})))

# %% tags=["hide-input"]
late = [(comparison.steps_to(run, comparison.STARTED), run) for run in longer if run.recipe.depth == 56]
if late:
    say(
        "In these longer runs plain-56 starts (running training error below 80 %) after "
        + ", ".join(f"{start:,.0f}" if comparison.started(run) else "never" for start, run in late)
        + f" of {late[0][1].recipe.steps:,} iterations, a number a seed. So part of what remains of the difference can be a late start."
    )

# %%
say(claims.sentence("C4", runs_scale, table))

# %% [markdown]
# ## Layer responses
#
# **Prediction (C15).** A *response* is what a 3x3 layer puts out after batch normalisation, before the addition or the
# rectifier. If residual functions are mostly close to zero, the responses of residual nets are smaller than those of their
# plain twins, and smaller the deeper the net: "an individual layer of ResNets tends to modify the signal less". The statistic
# is the standard deviation of the median layer's response at the end of training: a mean would be carried by a few layers.

# %% mystnb={"figure": {"caption": "Fig. 7 of the paper, rebuilt: standard deviation of the layers' responses at the last step, in the order of the layers (top) and ranked (bottom); mean over seeds. Plain nets dashed, residual nets solid; plain-110, which the paper leaves out too, is in the table only. The scale is logarithmic, the paper's is not.", "name": "fig-responses"}} tags=["hide-input"]
figure, (original, ranked) = plt.subplots(2, 1, figsize=(8, 6))
for run_list, line in ((having["plain"], "--"), (having["residual"], "-")):
    for depth in (depth for depth in depths if depth in (20, 56, 110)):
        frames = [run.probe_frame().query("step == step.max()") for run in run_list if run.recipe.depth == depth]
        if frames and (depth < 110 or line == "-"):  # as in the paper: no plain-110
            std = pd.concat(frames).groupby("depth").response_std.mean()
            look = dict(color=plots.PALETTE[depth], ls=line, lw=1.4, label=f"{'plain' if line == '--' else 'ResNet'}-{depth}")
            original.plot(std.index, std, **look)
            ranked.plot(range(1, len(std) + 1), sorted(std, reverse=True), **look)
original.set(xlabel="layer, in its order", ylabel="std", yscale="log")
ranked.set(xlabel="layer, sorted by magnitude", ylabel="std", yscale="log")
original.legend(fontsize="small", ncols=3)
_ = figure.suptitle(about)
# %%
responses = []
for kind in series:
    for run in having[kind]:
        last = run.probe_frame().query("step == step.max()").response_std
        responses.append((kind, run.recipe.depth, last.mean(), last.median()))
responses = pd.DataFrame(responses, columns=["nets", "layers", "mean", "median"])
by_layers = responses.groupby(["nets", "layers"])
responses = by_layers[["mean", "median"]].mean().assign(n=by_layers.size())
responses.unstack("nets").style.format("{:.3g}", subset=["mean", "median"], na_rep="").format(
    "{:.0f}", subset=["n"], na_rep=""
).set_caption(
    f"Standard deviation of a layer's response at the last step: mean and median over layers, mean over n seeds; {about}"
)

# %%
say(claims.sentence("C15", runs_scale, table))

# %% [markdown]
# The mean is carried by the layers with large responses; the median, which the rule takes, is not. Where the two tell different
# stories, few layers make the difference.

# %% tags=["hide-input"]
kept = {}
for name in dict.fromkeys([runs_scale, "paper"]):
    at_scale = CIFAR.at(name)
    rates = sum(learning_rate(at_scale, step, None) for step in range(at_scale.steps))
    kept[name] = np.exp(-rates * at_scale.weight_decay / (1 - at_scale.momentum))
say(
    "A response is about as large as the scale that its batch normalisation has learned, which starts at 1. Weight decay alone, did the "
    "loss not hold against it, would leave of it "
    + ", ".join(f"{share:.2f} at {name} scale" for name, share in kept.items())
    + ". So a layer that has little to do could become small in a long training, and hardly in a short one. Whether that is why was not tested."
)

# %% tags=["hide-input"]
rows = {}
for run in (run for kind in series for run in having[kind]):
    largest = run.probe_frame().groupby("step").response_std.max()
    rows[run.recipe.net_name, run.recipe.seed] = {"before": largest.iloc[0], "early": largest.iloc[1], "end": largest.iloc[-1]}
grown = pd.DataFrame(rows).T.groupby(level=0, sort=False).mean() if rows else pd.DataFrame()
grown.rename_axis("net").style.format("{:.3g}").set_caption(
    f"Largest standard deviation of any layer's response: before training, at the second probe (a hundredth of the iterations), at the end; {about}"
)

# %% [markdown]
# Compare this with the medians above: where a mean is high and the median is not, a few layers carry it (the figure says which),
# and this table says when they grew.

# %% [markdown]
# ## 1202 layers
#
# **Prediction (C16).** ResNet-1202 trains without difficulty (training error below 0.1 %), and tests worse than ResNet-110: the
# paper blames overfitting. The claim is about trained nets, so it is planned at `paper` scale only.

# %% tags=["hide-input"]
say(claims.sentence("C16", runs_scale, table))
hours = plan.table(reslib.records(), "paper").set_index("plan").hours
deepest = plan.PLAN[-1].recipes[0]
say(
    f"One such run takes {plan.work(deepest) / plan.work(plan.residual(110)):.0f} times the work of ResNet-110, and keeps "
    f"{counts.activation_memory(counts.shape_of(reslib.cifar_resnet, deepest.depth), deepest.size) * deepest.batch / 1e9:.0f} GB of "
    f"activations for its backward pass: {hours['1202']:,.0f} hours on one core of the machine that made the pocket records."
)

# %% [markdown]
# ## What the paper leaves open
#
# Each of these choices could have been made in two ways. Where it is recorded, a pair of runs that differ in it alone puts a
# price on it: the difference in test error, paired by seed, with its 95 % interval. An interval that holds zero says that these
# runs cannot tell whether the choice matters; its width, how large an effect they could have missed.

# %% tags=["hide-input"]
base = {(run.recipe.depth, run.recipe.seed): run for run in having["residual"]}
IN_WORDS = {
    "init=fan_out": "He initialisation by fan-out",
    "init=fan_out_conv": "fan-out in the convolutions alone",
    "init=fan_out_fc": "fan-out in the classifier alone",
    "decay_bn=False": "no weight decay on BN",
    "momentum_form=caffe": "Caffe's momentum",
    "bn_batch=64": "BN over 64 images",
    "border=black": "zeros round the image before the mean is subtracted",
    "split=45k/5k": "trained on 45,000 images",
}


def in_words(recipe):
    return IN_WORDS.get(plan.changes(recipe), plan.changes(recipe))


prices = {}
for name in ("split", "ambiguities", "count"):
    for run in having.get(name, []):
        twin = base.get((run.recipe.depth, run.recipe.seed))
        if twin:
            key = run.recipe.net_name, in_words(run.recipe)
            prices.setdefault(key, []).append([run.final[column] - twin.final[column] for column in ERRORS])
rows = {}
for key, pairs in prices.items():
    intervals = [comparison.interval(values) for values in zip(*pairs, strict=True)]
    told = [("{:.2f} [{:.2f}, {:.2f}]" if len(pairs) > 1 else "{:.2f}").format(*three) for three in intervals]
    rows[key] = dict(zip((f"{what} (points)" for what in ERRORS.values()), told, strict=True)) | {"n": len(pairs)}
priced = pd.DataFrame(rows).T.rename_axis(index=["net", "with"] if rows else None)
priced = priced.style.set_caption(f"What a choice changes, against the same net without it; {about}")
priced if rows else Markdown("None of these pairs is recorded yet.")

# %% tags=["hide-input"]
clear = []
for (net, what), pairs in prices.items():
    mean, low, high = comparison.interval([pair[1] for pair in pairs])
    if len(pairs) > 1 and not low <= 0 <= high:
        clear.append(f"{what} ({net}, {mean:+.1f} points)")
say(f"What changes the test error by more than seeds do: {'; '.join(clear) or 'nothing that is recorded'} ({about}).")

# %% tags=["hide-input"]
open_ones = [
    (kind, recipe) for kind in ("split", "ambiguities", "count") for recipe in planned.get(kind, []) if recipe.id not in by_id
]
names = list(dict.fromkeys(f"{recipe.net_name}, {in_words(recipe)}" for _, recipe in open_ones))
say(
    f"Not all recorded yet at {runs_scale} scale: {'; '.join(names)}."
    if names
    else f"All that are planned at {runs_scale} scale are recorded."
)

# %% [markdown]
# ## Verdicts

# %%
say(claims.listed(("C13", "C14", "C4", "C15", "C16", "C19"), runs_scale, table))

# %% [markdown]
# Where these numbers come from, and what is planned and not recorded:

# %% tags=["hide-output"]
chapter.report(runs, missing)

# %% [markdown]
# ## What was not tested, and why
#
# - **The paper's own scale**, unless `scale` says so above: `pocket` runs see images pooled to 16x16 for a fortieth of the
#   iterations, with the paper's learning rate. They show how depth and schedule act in a short training, not what trained nets
#   reach, and none of their errors is to be compared with one in Table 6.
# - **1202 layers** (C16): see above.
# - **The other methods of Table 6**: their numbers are the paper's quotations of other papers.
# - **Stronger regularisation** for very deep nets ("combining with stronger
#   regularization may improve results, which we will study in the future"): the paper did not try it, nor do we.
