"""Section 4.2's iteration: the learning rate, the step of SGD, and the variants that the paper leaves open."""

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from .checkpoint import State
from .recipes import Recipe

WARMUP_WINDOW = 50  # steps over which C14's training error is averaged


def lr_at(recipe: Recipe, step: int, warm: bool = True) -> float:
    """The learning rate of iteration `step` (from 0): divided by 10 at each milestone; while not `warm`, the warm-up's."""
    if recipe.warmup_lr is not None and not warm:
        return recipe.warmup_lr
    return recipe.lr * 0.1 ** sum(step >= m for m in recipe.milestones)


def watch_warmup(recipe: Recipe, state: State, wrong: int) -> None:
    """End the warm-up (section 4.2) once the training error over the last WARMUP_WINDOW steps is below the threshold."""
    state.window = [*state.window, wrong][-WARMUP_WINDOW:]
    error = 100 * sum(state.window) / (recipe.batch * len(state.window))
    if len(state.window) == WARMUP_WINDOW and error < recipe.warmup_until:
        state.warm_at = state.step + 1


def train_step(net: nn.Module, optimizer, images: Tensor, labels: Tensor, clip: float | None = None) -> tuple[Tensor, Tensor]:
    """One iteration of SGD. Returns the batch's loss (nats, before the step) and how many of its images were wrong.

    clip: where the L2 norm of all gradients together is larger, they are scaled down to it; None: never.
    """
    optimizer.zero_grad(set_to_none=True)
    logits = net(images)  # (B, classes)
    loss = cross_entropy(logits, labels)
    loss.backward()
    if clip is not None:
        nn.utils.clip_grad_norm_([p for group in optimizer.param_groups for p in group["params"]], clip)
    optimizer.step()
    return loss.detach(), (logits.argmax(1) != labels).sum()


def optimizer_for(recipe: Recipe, net: nn.Module) -> torch.optim.SGD:
    """SGD as the recipe has it. With decay_bn=False, BN's scales and shifts are a group of their own, without decay."""
    groups = [{"params": list(net.parameters())}]
    if not recipe.decay_bn:
        bn = [p for m in net.modules() if isinstance(m, nn.BatchNorm2d) for p in m.parameters()]
        ids = set(map(id, bn))
        groups = [{"params": [p for p in net.parameters() if id(p) not in ids]}, {"params": bn, "weight_decay": 0.0}]
    return torch.optim.SGD(groups, recipe.lr, recipe.momentum, weight_decay=recipe.weight_decay, fused=True)


def rescale_momentum(optimizer, ratio: float) -> None:
    """Caffe's form of momentum where the learning rate changes: its velocity, lr times ours, stays. ratio: old lr / new lr."""
    for state in optimizer.state.values():
        if (buffer := state.get("momentum_buffer")) is not None:  # there is none without momentum
            buffer.mul_(ratio)


def ghost_batch_norm(net: nn.Module, images: int):
    """The net applied to so many images at a time, so that BN takes its statistics over these (a batch over several GPUs)."""
    return lambda x: torch.cat([net(part) for part in x.split(images)])


def in_bf16(net: nn.Module):
    """The net applied in bfloat16 where that is safe (torch.autocast), its logits cast to float32; weights stay float32."""

    def apply(x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, torch.bfloat16, cache_enabled=False):  # a CUDA graph must not reuse cast weights
            return net(x).float()

    return apply
