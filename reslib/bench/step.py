"""Timings that can be trusted on a noisy machine: variants in turn, several rounds, medians and ratios from one run."""

import os
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial

import torch
from scipy import stats
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, Dataset, RandomSampler
from tqdm.auto import tqdm

from .. import data, machine
from ..cuda_graph import GraphedStep
from ..evidence import counts
from ..recipes import CIFAR
from ..resnet import cifar_resnet
from ..sgd import in_bf16, optimizer_for, train_step

PLAIN, EAGER, COMPILED, GRAPH = "eager NCHW", "channels_last", "channels_last, compiled", "CUDA graph"
SCRIPT = "usual script"


def usual_cifar(data_dir=None) -> Dataset:
    """CIFAR-10 as the usual scripts have it: torchvision's dataset and transforms."""
    from torchvision.datasets import CIFAR10
    from torchvision.transforms import Compose, Normalize, RandomCrop, RandomHorizontalFlip, ToTensor

    data.images(CIFAR, train=True, data_dir=data_dir)  # downloads what is missing, refuses what is damaged
    normalize = Normalize([0.491, 0.482, 0.447], [1.0, 1.0, 1.0])
    usual = Compose([RandomCrop(32, 4), RandomHorizontalFlip(), ToTensor(), normalize])
    return CIFAR10(data.data_folder(data_dir), transform=usual)


def usual_batches(dataset: Dataset, batch: int, workers: int, device) -> Iterator[tuple]:
    """A DataLoader without end over random samples, its batches moved to the device."""
    sampler = RandomSampler(dataset, replacement=True, num_samples=10**9)
    loader = DataLoader(dataset, batch, sampler=sampler, num_workers=workers, pin_memory=device != "cpu")
    for x, labels in loader:
        yield x.to(device, non_blocking=True), labels.to(device, non_blocking=True)


def usual_step(net, optimizer, batches: Iterator) -> tuple:
    """An iteration of the usual script: load a batch, one eager step, and read its loss and error back for the log."""
    images, labels = next(batches)
    logits = net(images)
    loss = cross_entropy(logits, labels)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    wrong = (logits.argmax(1) != labels).sum()
    loss.item(), wrong.item()
    return loss, wrong


def steps_of(depth: int, size: int, batch: int, variants, device: str, data_dir=None,
             precision: str = "tf32") -> dict[str, Callable]:  # fmt: skip
    """A training step of every variant, warmed up, each on a net of its own: {"eager NCHW": step, ...}.

    "eager NCHW" is the plain step: contiguous tensors, torch's default SGD; "usual script" the same in the loop of a widely
    used CIFAR script, with CIFAR-10 from a DataLoader (four workers on a GPU). What `train` does: "channels_last" on a CPU
    in short runs, "channels_last, compiled" in long ones; on a GPU "CUDA graph", in long runs of a compiled net: that loads
    its batches too (CIFAR-10). precision: a recipe's, in what `train` does.
    """
    recipe, made = replace(CIFAR, depth=depth, size=size, batch=batch, precision=precision), {}
    if (index := torch.device(device).index) is not None:
        torch.cuda.set_device(index)  # graphs are captured there
    labels = torch.randint(10, (batch,), device=device)
    for name in tqdm(variants, desc="warm-up", leave=False, disable=None):  # None: shown on a terminal only
        net, images = recipe.net().to(device), torch.randn(batch, 3, size, size, device=device)
        if name in (PLAIN, SCRIPT):
            optimizer = torch.optim.SGD(net.parameters(), recipe.lr, recipe.momentum, weight_decay=recipe.weight_decay)
        else:
            net, images = (t.to(memory_format=torch.channels_last) for t in (net, images))
            optimizer = optimizer_for(recipe, net)
        step_net = machine.compiled(net) if "compiled" in name else net
        step_net = in_bf16(step_net) if precision == "bf16" and name not in (PLAIN, SCRIPT) else step_net
        one = partial(train_step, step_net, optimizer)
        if name == SCRIPT:
            batches = usual_batches(usual_cifar(data_dir), batch, 0 if device == "cpu" else 4, device)
            made[name] = partial(usual_step, net, optimizer, batches)
        elif name.startswith(GRAPH):
            made[name] = partial(GraphedStep(recipe, net, optimizer, one, data_dir=data_dir), recipe.lr)
        else:
            made[name] = partial(one, images, labels)
        made[name]()
    return made


def in_turns(made: dict, rounds: int, steps: int) -> dict[object, list[float]]:
    """Seconds of a step, one mean a round, for each of `made`: they take turns, and each warms up in every round."""
    seconds = {name: [] for name in made}
    for _ in tqdm(range(rounds), desc="rounds", leave=False, disable=None):
        for name, step in made.items():
            step()[0].item()  # waits for a GPU
            tick = time.perf_counter()
            for _ in range(steps):
                loss, _ = step()
            loss.item()
            seconds[name].append((time.perf_counter() - tick) / steps)
    return seconds


def step_table(seconds: dict, batch: int) -> str:
    """A Markdown table of `in_turns` over variants: median, spread, images/s, and the median ratios to PLAIN and SCRIPT."""
    bases = [name for name in (PLAIN, SCRIPT) if name in seconds]
    lines = ["| " + " | ".join(["variant", "ms a step (lowest to highest)", "images/s", *(f"times {n}" for n in bases)]) + " |",
             "|---" * (3 + len(bases)) + "|"]  # fmt: skip
    for name, values in seconds.items():
        ms = [1e3 * v for v in values]
        middle = statistics.median(ms)
        ratios = [statistics.median(a / b for a, b in zip(seconds[base], values, strict=True)) for base in bases]
        cells = [name, f"{middle:.2f} ({min(ms):.2f} to {max(ms):.2f})", f"{batch / middle * 1e3:,.0f}"]
        lines.append("| " + " | ".join([*cells, *(f"{ratio:.2f}" for ratio in ratios)]) + " |")
    return "\n".join(lines)


KINDS = {"convolution": ("conv",), "batch norm": ("batch_norm",), "ReLU": ("relu", "clamp_min", "threshold"), "SGD": ("sgd",)}
"""Kinds of operations by words in PyTorch's names of them; what fits none is "other": additions, the loss, copies, dispatch."""


def shares(step: Callable, device: str) -> dict[str, float]:
    """Where the time of an eager step goes: percent of it by kind of operation, the largest first (torch.profiler)."""
    os.environ.setdefault("KINETO_LOG_LEVEL", "6")  # the profiler talks on stderr
    activity = torch.profiler.ProfilerActivity
    activities = [activity.CPU] if device == "cpu" else [activity.CPU, activity.CUDA]
    with torch.profiler.profile(activities=activities) as profile:
        step()[0].item()
    found = dict.fromkeys([*KINDS, "other"], 0.0)
    for event in profile.key_averages():
        if event.device_type != torch.autograd.DeviceType.CPU:
            continue  # a kernel: its time is with the operation that started it
        kind = next((kind for kind, words in KINDS.items() if any(word in event.key.lower() for word in words)), "other")
        found[kind] += event.self_cpu_time_total if device == "cpu" else event.self_device_time_total
    total = sum(found.values())
    return {kind: 100 * time / total for kind, time in sorted(found.items(), key=lambda item: -item[1])}


def ceilings(device: str) -> tuple[float, float]:
    """What the device does at best, measured: FLOP/s of a large float32 matrix product, bytes/s of a large copy.

    The best of five. On a GPU the product is in TF32, as its convolutions are by default.
    """
    n = 8192 if device != "cpu" else 2048
    a, big = torch.randn(n, n, device=device), torch.empty(2**28, dtype=torch.uint8, device=device).fill_(1)
    tf32, torch.backends.cuda.matmul.allow_tf32 = torch.backends.cuda.matmul.allow_tf32, True
    best = []
    for work in (lambda: a @ a, big.clone):
        times = []
        for _ in range(6):
            tick = time.perf_counter()
            work().view(-1)[0].item()
            times.append(time.perf_counter() - tick)
        best.append(min(times[1:]))
    torch.backends.cuda.matmul.allow_tf32 = tf32
    return 2 * n**3 / best[0], 2 * big.numel() / best[1]


def scaling(depths: tuple[int, ...], batches: tuple[int, ...], size: int, rounds: int, steps: int, device: str,
            data_dir=None, precision: str = "tf32") -> str:  # fmt: skip
    """A table of the step as `train` runs it, across depth and batch, against the device's ceilings, and how cost grows.

    FLOPs: two for each multiply-add, three times the forward pass's for a step. Bytes: the least that a step moves, what
    its forward pass keeps (counts.activation_memory) written once and read once.
    """
    variant = EAGER if device == "cpu" else f"{GRAPH}, compiled"
    made = {(d, b): steps_of(d, size, b, (variant,), device, data_dir, precision)[variant] for d in depths for b in batches}
    seconds = {key: statistics.median(values) for key, values in in_turns(made, rounds, steps).items()}
    flops, traffic = ceilings(device)
    best = f"{flops / 1e9:,.0f} GFLOP/s (matrix product), {traffic / 1e9:,.0f} GB/s (copy)"
    lines = [f"{variant}, {precision}, {size}x{size}; ceilings: {best}", "",
             "| depth | batch | ms a step | images/s | GFLOP/s | of the ceiling | GB/s, at least | of the ceiling |",
             "|---|---|---|---|---|---|---|---|"]  # fmt: skip
    for (depth, batch), s in seconds.items():
        net = counts.shape_of(cifar_resnet, depth)
        work = 6 * batch * counts.multiply_adds(net, size) / s
        moved = 2 * batch * counts.activation_memory(net, size) / s
        lines.append(f"| {depth} | {batch} | {1e3 * s:.2f} | {batch / s:,.0f} | {work / 1e9:,.0f} | {work / flops:.0%} | "
                     f"{moved / 1e9:,.1f} | {moved / traffic:.0%} |")  # fmt: skip
    for batch in batches if len(depths) > 2 else ():
        fit = stats.linregress(depths, [1e3 * seconds[d, batch] for d in depths])
        lines += ["", f"Batch {batch}: {fit.intercept:.2f} ms + {fit.slope:.3f} ms a layer; a straight line in depth explains "
                      f"{100 * fit.rvalue**2:.1f} % of the variance."]  # fmt: skip
    return "\n".join(lines)


def peak_memory() -> float:
    """The process's largest resident memory so far, GB (10^9 bytes); NaN where the system does not tell (Windows)."""
    try:
        import resource
    except ImportError:
        return float("nan")
    import sys

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e9 if sys.platform == "darwin" else peak * 1024 / 1e9
