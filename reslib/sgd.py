"""Section 4.2's iteration: the learning rate, the step of SGD, and the variants that the paper leaves open."""

import math
from contextlib import nullcontext

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from .checkpoint import State
from .recipes import Recipe

WARMUP_WINDOW = 50  # steps over which C14's training error is averaged


def lr_at(recipe: Recipe, step: int, warm: bool = True, drops: int = 0) -> float:
    """The learning rate of iteration `step` (from 0): divided by 10 at each milestone; while not `warm`, the warm-up's.

    drops: how often a plateau has divided it.
    """
    if recipe.warmup_lr is not None and not warm:
        return recipe.warmup_lr
    return recipe.lr * 0.1 ** (sum(step >= m for m in recipe.milestones) + drops)


def watch_warmup(recipe: Recipe, state: State, wrong: int) -> None:
    """End the warm-up (section 4.2) once the training error over the last WARMUP_WINDOW steps is below the threshold."""
    state.window = [*state.window, wrong][-WARMUP_WINDOW:]
    error = 100 * sum(state.window) / (recipe.batch * len(state.window))
    if len(state.window) == WARMUP_WINDOW and error < recipe.warmup_until:
        state.warm_at = state.step + 1


def watch_plateau(recipe: Recipe, state: State, error: float) -> None:
    """Count the validation passes that brought no new lowest error (percent); where they are too many, divide the rate by 10.

    Section 3.4, "when the error plateaus", as torch's ReduceLROnPlateau has it with threshold_mode="abs".
    """
    if state.lowest is None or error < state.lowest - recipe.plateau_threshold:
        state.lowest, state.waited = error, 0
        return
    state.waited += 1
    if state.waited > recipe.plateau_patience:
        state.drops, state.waited = min(state.drops + 1, recipe.plateau_drops), 0


def train_step(net: nn.Module, optimizer, images: Tensor, labels: Tensor, clip: float | None = None, part: int | None = None,
               before_last=nullcontext) -> tuple[Tensor, Tensor]:  # fmt: skip
    """One iteration of SGD. Returns the batch's loss (nats, before the step) and how many of its images were wrong.

    clip: where the L2 norm of all gradients together is larger, they are scaled down to it; None: never.
    part: images of a pass; their gradients are added up, and BN takes its statistics over these; None: the whole batch.
    before_last: a context for every pass but the last.
    """
    optimizer.zero_grad(set_to_none=True)
    losses, wrong, parts = [], [], list(zip(images.split(part or len(images)), labels.split(part or len(images)), strict=True))
    for number, (x, y) in enumerate(parts, 1):
        with before_last() if number < len(parts) else nullcontext():
            logits = net(x)  # (b, classes)
            loss = cross_entropy(logits, y) * (len(y) / len(labels))
            loss.backward()
        losses.append(loss.detach())
        wrong.append((logits.argmax(1) != y).sum())
    if clip is not None:
        nn.utils.clip_grad_norm_([p for group in optimizer.param_groups for p in group["params"]], clip)
    optimizer.step()
    return sum(losses), sum(wrong)


def optimizer_for(recipe: Recipe, net: nn.Module) -> torch.optim.SGD:
    """SGD as the recipe has it. With decay_bn=False, BN's scales and shifts are a group of their own, without decay."""
    groups = [{"params": list(net.parameters())}]
    if not recipe.decay_bn:
        bn = {p: None for m in net.modules() if isinstance(m, nn.BatchNorm2d) for p in m.parameters()}
        groups = [{"params": [p for p in net.parameters() if p not in bn]}, {"params": list(bn), "weight_decay": 0.0}]
    return torch.optim.SGD(groups, recipe.lr, recipe.momentum, weight_decay=recipe.weight_decay, fused=True)


def rescale_momentum(optimizer, ratio: float) -> None:
    """Caffe's form of momentum where the learning rate changes: its velocity, lr times ours, stays. ratio: old lr / new lr."""
    for state in optimizer.state.values():
        if (buffer := state.get("momentum_buffer")) is not None:  # there is none without momentum
            buffer.mul_(ratio)


def in_bf16(net: nn.Module):
    """The net applied in bfloat16 where that is safe (torch.autocast), its logits cast to float32; weights stay float32."""

    def apply(x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, torch.bfloat16, cache_enabled=False):  # a CUDA graph must not reuse cast weights
            return net(x).float()

    return apply


def check(recipe: Recipe, state: State, found: dict) -> None:
    """Raises FloatingPointError, with the iteration and the learning rate, if a number is not finite: the run diverged."""
    for name, values in found.items():
        for value in values if isinstance(values, list) else [values]:
            if isinstance(value, float) and not math.isfinite(value):
                where = f"after {state.step:,} iterations, at a learning rate of {state.lr or recipe.lr:g}"
                raise FloatingPointError(f"{recipe.name}: the {name.replace('_', ' ')} is {value} {where}: it diverged.")
