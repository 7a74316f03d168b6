"""Timings that can be trusted on a noisy machine: variants in turn, several rounds, medians and ratios from one run."""

import statistics
import time
from dataclasses import replace

import torch

from .recipes import CIFAR
from .train import optimizer_for, train_step

VARIANTS = ("eager NCHW", "channels_last", "channels_last, compiled")


def step_times(depth: int, size: int, batch: int, rounds: int, steps: int, compiled: bool, device: str) -> dict:
    """Seconds of a training step by variant: {"eager NCHW": [one mean a round], ...}; the variants take turns.

    "eager NCHW" is the plain loop: contiguous tensors, torch's default SGD. "channels_last" is what `train` does on a CPU.
    """
    recipe = replace(CIFAR, depth=depth, size=size, batch=batch)
    labels = torch.randint(10, (batch,), device=device)
    runs = {}
    for name in VARIANTS if compiled else VARIANTS[:2]:
        net, images = recipe.net().to(device), torch.randn(batch, 3, size, size, device=device)
        if name == VARIANTS[0]:
            optimizer = torch.optim.SGD(net.parameters(), recipe.lr, recipe.momentum, weight_decay=recipe.weight_decay)
        else:
            net, images = (t.to(memory_format=torch.channels_last) for t in (net, images))
            optimizer = optimizer_for(recipe, net)
        runs[name] = (torch.compile(net) if name == VARIANTS[2] else net, optimizer, images)
        train_step(*runs[name], labels)  # warms up, compiles
    seconds = {name: [] for name in runs}
    for _ in range(rounds):
        for name, (net, optimizer, images) in runs.items():
            train_step(net, optimizer, images, labels)
            tick = time.perf_counter()
            for _ in range(steps):
                loss, _ = train_step(net, optimizer, images, labels)
            loss.item()  # waits for a GPU
            seconds[name].append((time.perf_counter() - tick) / steps)
    return seconds


def step_table(seconds: dict, batch: int) -> str:
    """A Markdown table of `step_times`: median, spread, images/s, and the median over rounds of the ratio to the first."""
    first = seconds[VARIANTS[0]]
    lines = ["| variant | ms a step (lowest to highest) | images/s | times eager NCHW |", "|---|---|---|---|"]
    for name, values in seconds.items():
        ms = [1e3 * v for v in values]
        middle = statistics.median(ms)
        ratio = statistics.median(a / b for a, b in zip(first, values, strict=True))
        lines.append(f"| {name} | {middle:.1f} ({min(ms):.1f} to {max(ms):.1f}) | {batch / middle * 1e3:,.0f} | {ratio:.2f} |")
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
