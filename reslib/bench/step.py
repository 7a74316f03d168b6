"""Timings that can be trusted on a noisy machine: variants in turn, several rounds, medians and ratios from one run."""

import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial

import torch
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, Dataset, RandomSampler
from tqdm.auto import tqdm

from .. import data, machine
from ..cuda_graph import GraphedStep
from ..recipes import CIFAR
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
