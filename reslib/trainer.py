"""Carry out a recipe: the learning rate, the step, evaluation, checkpoint and exact resume. `train(recipe)` -> Record.

A run killed at any moment and started again goes on as if nothing had been: every random decision depends on (seed, epoch,
sample) alone, and a checkpoint holds all the rest. On a CPU with the same number of threads the weights end bit-identical; a
GPU adds up in no fixed order. The step is channels_last and as precise as the recipe says; it is compiled where a run is long
enough to pay for that (`compiles`; `python -m reslib bench step`); on a GPU it is one CUDA graph (cuda_graph.py).
"""

import contextlib
import importlib.util
import math
import shutil
import signal
import sys
import sysconfig
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from tqdm.auto import tqdm

from . import data, evaluation
from .checkpoint import State, between_steps, load_checkpoint, locked, save_checkpoint
from .cuda_graph import GraphedStep
from .files import drawing_seconds, writable
from .measures import describe_data, finish, note_test, probe, probe_steps, short, weights_sha256, whole
from .recipes import Recipe
from .record import COLUMNS, Record, environment, read, write

CHECKPOINT_SECONDS = 60  # between checkpoints
WARMUP_WINDOW = 50  # steps over which C14's training error is averaged
COMPILE_STEPS = 10_000  # of a run, from which on its step is compiled: that takes a minute or more, ...
COMPILE_DEPTH = 200  # ... and far too long for deeper nets


def lr_at(recipe: Recipe, step: int, warm: bool = True) -> float:
    """The learning rate of iteration `step` (from 0): divided by 10 at each milestone; while not `warm`, the warm-up's."""
    if recipe.warmup_lr is not None and not warm:
        return recipe.warmup_lr
    return recipe.lr * 0.1 ** sum(step >= m for m in recipe.milestones)


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


def compiles(recipe: Recipe, device: torch.device) -> bool:
    """Whether the step of a run is compiled: fixed by the recipe and the kind of machine, never by a timing. Recorded."""
    possible = shutil.which("c++") and Path(sysconfig.get_path("include"), "Python.h").exists()
    if device.type == "cuda":
        possible = possible and importlib.util.find_spec("triton")
    return bool(possible) and recipe.steps >= COMPILE_STEPS and recipe.depth <= COMPILE_DEPTH


def device_of(name: str | torch.device | None) -> torch.device:
    """The device of this name, "cpu", "cuda" or "cuda:1"; None: a GPU if there is one. Raises ValueError where it is not."""
    try:
        device = torch.device(name or ("cuda" if torch.cuda.is_available() else "cpu"))
        known = device.type in ("cpu", "cuda")
    except RuntimeError:
        known = False
    if not known:
        raise ValueError(f"device {str(name)!r} is unknown: use cpu or cuda.")
    if device.type == "cuda" and (device.index or 0) >= (count := torch.cuda.device_count()):
        raise ValueError(f"device {str(device)!r} is not there: PyTorch finds {count} GPUs on this machine; use cpu.")
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"device {str(device)!r} cannot be used: its driver (see nvidia-smi) is too old for this PyTorch, "
                         f"built for CUDA {torch.version.cuda}; use cpu, or a PyTorch for an older CUDA.")  # fmt: skip
    return device


def whole_story(state: State) -> dict:
    """What a record's environment says of a run that was taken up: from half precision, on other code or another machine."""
    story = {"rounded_at": state.rounded} if state.rounded else {}
    if len(state.machines) > 1:
        unclean = [machine["dirty"] for machine in state.machines]
        story["dirty"] = True if True in unclean else None if None in unclean else False
        told = ("step", "commit", "dirty", "device", "threads", "torch")
        story["earlier"] = [{name: machine[name] for name in told} for machine in state.machines[:-1]]
    return story


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


def in_parts(net: nn.Module, images: int):
    """The net applied to so many images at a time, so that BN takes its statistics over these (a batch over several GPUs)."""
    return lambda x: torch.cat([net(part) for part in x.split(images)])


def in_bf16(net: nn.Module):
    """The net applied in bfloat16 where that is safe (torch.autocast), its logits cast to float32; weights stay float32."""

    def apply(x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, torch.bfloat16, cache_enabled=False):  # a CUDA graph must not reuse cast weights
            return net(x).float()

    return apply


def stream(recipe: Recipe, step: int, **where) -> Iterator[tuple[Tensor, Tensor]]:
    """Training batches from iteration `step` on, epoch after epoch, without end. Arguments as `data.loader`."""
    per_epoch = len(data.loader(recipe, "train", **where))
    while True:
        epoch, start = divmod(step, per_epoch)
        for batch in data.loader(recipe, "train", epoch=epoch, start_batch=start, **where):
            yield batch
            step += 1


def train(recipe: Recipe, *, data_dir=None, out_dir: str | Path = "runs", resume: bool = True, device=None,
          backend: str = "auto", half_checkpoints: bool = False, steps_done=None) -> Record:  # fmt: skip
    """Carry out a recipe and write its record into `out_dir`; returns the record.

    resume: take up the checkpoint in `out_dir`, if there is one, with its number of threads; a finished run is only read.
    device=None: a GPU if there is one. half_checkpoints: weights and momentum in half precision, half the bytes to carry; a
    run taken up from one does not end with the same bits, and its record says so. steps_done: a shared number whose `value`
    is kept at the iterations done, instead of a progress bar. Ctrl-C, SIGTERM and SIGHUP stop a run after its iteration, with
    a checkpoint. Raises as `data.loader` and `device_of`; ValueError for a damaged checkpoint or record, or a run that another
    process is at; OSError where a file cannot be written; FloatingPointError if the loss is no longer finite.
    """
    if recipe.data == "imagenet":
        raise ValueError("train() carries out CIFAR recipes; for ImageNet there are the nets, `reslib.loader` and the tests of "
                         "reslib.evaluation.")  # fmt: skip
    out_dir = Path(out_dir)
    data.choose_backend(recipe, backend, device_of(device))
    writable(out_dir)
    with locked(out_dir / f"{recipe.name}.lock"):
        return carry_out(recipe, data_dir, out_dir, resume, device, backend, half_checkpoints, steps_done)


def carry_out(recipe: Recipe, data_dir, out_dir: Path, resume: bool, device, backend: str, half: bool, steps_done) -> Record:
    """`train`, once the run is held."""
    checkpoint, finished = out_dir / f"{recipe.name}.ckpt", out_dir / f"{recipe.name}.json"
    if resume and finished.exists():
        record = read(finished)
        checkpoint.unlink(missing_ok=True)  # of a run killed just before it did so
        return record
    for left in out_dir.glob(f"{recipe.name}.*.part"):  # of a run killed while it wrote
        left.unlink(missing_ok=True)
    device = device_of(device)
    if device.type == "cuda":
        device = torch.device("cuda", torch.cuda.current_device() if device.index is None else device.index)
        torch.cuda.set_device(device)  # graphs are captured there
    backend = data.prepared(recipe, backend, device, data_dir)
    fingerprint = describe_data(recipe, data_dir)

    net = recipe.net().to(device, memory_format=torch.channels_last)
    optimizer = optimizer_for(recipe, net)
    state = State(start=datetime.now(UTC).isoformat(timespec="seconds"), threads=torch.get_num_threads())
    if resume and checkpoint.exists():
        state = load_checkpoint(checkpoint, net, optimizer)
        torch.set_num_threads(state.threads)
    compiled = compiles(recipe, device)
    if compiled:
        torch._dynamo.reset()  # what other runs of this process compiled: after eight it would give up, silently
    step_net = torch.compile(net, dynamic=False) if compiled else net  # the same weights
    if recipe.bn_batch is not None:
        step_net = in_parts(step_net, recipe.bn_batch)
    if recipe.precision == "bf16":
        step_net = in_bf16(step_net)
    machine = environment(device, state.threads, compiled)
    stretch = {"step": state.step} | machine
    if not state.machines or state.machines[-1] | {"step": state.step} != stretch:
        state.machines.append(stretch)
    machine |= whole_story(state)

    still = dict(data_dir=data_dir, augment=False, backend="array", device=device)  # the same batches bit for bit
    batches = stream(recipe, state.step, data_dir=data_dir, backend=backend, device=device)
    began = saved = time.monotonic() - state.seconds
    resident = None
    if device.type == "cuda" and backend == "array":
        step = partial(train_step, step_net, optimizer, clip=recipe.clip)
        resident = GraphedStep(recipe, net, optimizer, step, step=state.step, data_dir=data_dir)
    name = recipe.name.rsplit("-", 1)[0]
    bar = tqdm(total=recipe.steps * recipe.batch, initial=state.step * recipe.batch, unit=" images", unit_scale=True,
               desc=name, mininterval=drawing_seconds(), dynamic_ncols=True,
               disable=steps_done is not None)  # fmt: skip
    with bar, contextlib.closing(batches), between_steps() as stop:
        if state.step == 0:
            state.probes.append(probe(recipe, net, 0, still))
        while state.step < recipe.steps:
            lr = lr_at(recipe, state.step, state.warm_at is not None)
            if recipe.momentum_form == "caffe" and state.lr not in (None, lr):
                rescale_momentum(optimizer, state.lr / lr)
            state.lr = lr
            tick = time.monotonic()
            if resident is not None:
                loss, wrong = resident(lr)
            else:
                for group in optimizer.param_groups:
                    group["lr"] = lr
                loss, wrong = train_step(step_net, optimizer, *next(batches), clip=recipe.clip)
            state.loss_sum, state.wrong = state.loss_sum + loss.double(), state.wrong + wrong
            if recipe.warmup_lr is not None and state.warm_at is None:
                watch_warmup(recipe, state, int(wrong))
            state.step += 1
            if state.step % recipe.log_every == 0:
                log_row(recipe, state, lr)
                loss, error = (state.curve[name][-1] for name in ("train_loss", "train_error"))
                bar.set_postfix(loss=f"{loss:.3f}", error=f"{error:.1f}%", refresh=False)
            state.step_seconds += time.monotonic() - tick
            bar.update(recipe.batch)

            if state.step % recipe.eval_every == 0 and state.step < recipe.steps:
                result = evaluation.evaluate(net, whole(recipe, "test", still))
                note_test(state, result["top1_error"], result["loss"])
            if state.step in probe_steps(recipe):
                state.probes.append(probe(recipe, net, state.step, still))
            if steps_done is not None:
                steps_done.value = state.step
            if stop or time.monotonic() - saved > CHECKPOINT_SECONDS or state.step == recipe.steps:
                state.seconds = time.monotonic() - began
                save_checkpoint(checkpoint, net, optimizer, state, half)
                saved = time.monotonic()
            if stop:
                if steps_done is None:
                    done = f"stopped after {state.step:,} of {recipe.steps:,} iterations"
                    tqdm.write(f"{recipe.name}: {done}; the same command goes on.", file=sys.stderr)
                raise KeyboardInterrupt if stop[0] == signal.SIGINT else SystemExit(128 + stop[0])

        bar.set_description_str(f"{name}, final passes")
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):  # in TF32 an identity layer would round
        final, predictions = finish(recipe, net, state, still)
    seconds = time.monotonic() - began
    record = Record(
        recipe=recipe, data=fingerprint, environment=machine, backend=backend,
        time={"start": state.start, "seconds": round(seconds, 1),
              "images_per_second": round(recipe.steps * recipe.batch / state.step_seconds, 1)},
        final=final, best_on_test=state.best, probes=state.probes, test_predictions=predictions, curve=state.curve,
        weights_sha256=weights_sha256(net),
    )  # fmt: skip
    write(record, out_dir)
    checkpoint.unlink(missing_ok=True)
    return record


def in_a_line(error: BaseException) -> str:
    """What an error says; of PyTorch's own, which go on with hints, the first line."""
    said = f"{error}" or type(error).__name__
    return said.splitlines()[0] if isinstance(error, torch.OutOfMemoryError | torch.AcceleratorError) else said[:2000]


def watch_warmup(recipe: Recipe, state: State, wrong: int) -> None:
    """End the warm-up (section 4.2) once the training error over the last WARMUP_WINDOW steps is below the threshold."""
    state.window = [*state.window, wrong][-WARMUP_WINDOW:]
    error = 100 * sum(state.window) / (recipe.batch * len(state.window))
    if len(state.window) == WARMUP_WINDOW and error < recipe.warmup_until:
        state.warm_at = state.step + 1


def log_row(recipe: Recipe, state: State, lr: float) -> None:
    """Close a row of the curve: the means since the last one. Raises FloatingPointError if the loss is not finite."""
    loss = float(state.loss_sum) / recipe.log_every
    if not math.isfinite(loss):
        raise FloatingPointError(f"{recipe.name}: the loss is {loss} after {state.step} steps; the run was given up, its last "
                                 "checkpoint is kept.")  # fmt: skip
    error = 100 * int(state.wrong) / (recipe.log_every * recipe.batch)
    row = {"step": state.step, "lr": short(lr), "train_error": short(error), "train_loss": short(loss)}
    for name in COLUMNS:
        state.curve[name].append(row.get(name))
    state.loss_sum, state.wrong = 0.0, 0
