"""Train: the learning rate, the step, evaluation, checkpoint and exact resume. `train(recipe)` -> Record.

A run killed at any moment and started again goes on as if nothing had been: random decisions depend on (seed, epoch, sample)
alone, and a checkpoint holds all the rest. On a CPU with as many threads the weights end bit-identical; a GPU adds up in no
fixed order. The step is channels_last; compiled in long runs (machine.py); on a GPU one CUDA graph (cuda_graph.py).
"""

import contextlib
import os
import signal
import sys
import time
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import torch
from torch import Tensor
from tqdm.auto import tqdm

from . import data, evaluation, machine, probes
from .checkpoint import LOCK_SECONDS, State, between_steps, load_checkpoint, locked, save_checkpoint
from .cuda_graph import CAPTURE, GraphedStep
from .distributed import Ranks
from .files import drawing_seconds, path_of, tell
from .machine import device_of
from .recipes import Recipe, needed
from .record import COLUMNS, Record, pack, read, short, weights_sha256, write
from .sgd import check, in_bf16, lr_at, optimizer_for, rescale_momentum, train_step, watch_plateau, watch_warmup

CHECKPOINT_SECONDS = 60  # between checkpoints


def train(recipe: Recipe, *, data_dir=None, out_dir: str | Path = "runs", resume: bool = True, device=None,
          backend: str = "auto") -> Record | None:  # fmt: skip
    """Carry out a recipe and write its record and weights into `out_dir`; returns the record: its `net()` is the trained net.

    resume: take up the checkpoint in `out_dir`, if there is one, with its number of threads; a finished run is only read.
    device=None: a GPU if there is one. Started by torchrun, each process carries out its part; other ranks than 0 return None.
    Ctrl-C, SIGTERM and SIGHUP stop a run after its iteration, with a checkpoint. Raises ValueError or OSError where recipe,
    data, device, folder, checkpoint or record do not serve, or another process is at it; FloatingPointError if it diverges.
    """
    return Trainer(recipe, data_dir=data_dir, out_dir=out_dir, resume=resume, device=device, backend=backend).run()


class Trainer:
    """One run: `fit` is its loop, the other methods are what surrounds it. Arguments as `train`.

    steps_done: a shared number whose `value` is kept at the iterations done, instead of a progress bar.
    beside: how many runs share the device, this one included, for the record: its images/s are then no speed.
    """

    def __init__(self, recipe: Recipe, *, data_dir=None, out_dir: str | Path = "runs", resume: bool = True, device=None,
                 backend: str = "auto", steps_done=None, beside: int = 1):  # fmt: skip
        self.recipe, self.data_dir, self.out_dir, self.resume = needed(recipe), data_dir, path_of(out_dir), resume
        self.device, self.ranks = device_of(device), Ranks.of(recipe)
        self.asked_for, self.steps_done, self.beside = backend, steps_done, beside
        self.checkpoint, self.recorded = (self.out_dir / f"{recipe.name}.{end}" for end in ("ckpt", "json"))

    def run(self, wait: float = LOCK_SECONDS) -> Record | None:
        """The run's record, made, or read where it is finished. wait: seconds, for a run that another process holds."""
        threads, first = torch.get_num_threads(), self.ranks.rank == 0
        with self.ranks.joined(self.device), machine.own_settings(self.device), contextlib.ExitStack() as held:
            read_only = self.recorded.exists() and not os.access(self.out_dir, os.W_OK)
            if first and not (self.resume and read_only):
                held.enter_context(locked(self.out_dir, self.recipe.name, wait))
            if self.ranks.told(self.resume and self.recorded.exists()):
                record = read(self.recorded) if first else None
                if record and self.recipe.data == "imagenet":  # any photographs: they are not part of a recipe
                    data.photographs.check_same(self.recorded, record, self.data_dir)
                with contextlib.suppress(OSError):
                    self.checkpoint.unlink()  # of a run killed just before it did so
                return record
            try:
                self.prepare()
                self.fit()
                return self.finish() if first else None
            finally:
                torch.set_num_threads(threads)

    # --- before the loop ---------------------------------------------------------------------------------------------

    def prepare(self) -> None:
        """The data, the net, the optimizer and the state of the run, new or as its checkpoint has them; and its step."""
        recipe, device, photographs = self.recipe, self.device, self.recipe.data == "imagenet"
        for left in self.out_dir.glob(f"{recipe.name}.*.part"):  # of a run killed while it wrote
            left.unlink(missing_ok=True)
        if device.type == "cuda":
            own = self.ranks.local if self.ranks.count > 1 else torch.cuda.current_device()
            self.device = device = torch.device("cuda", own if device.index is None else device.index)
            torch.cuda.set_device(device)  # graphs are captured there
        self.backend = data.prepared(recipe, self.asked_for, device, self.data_dir)
        self.data = data.contents(recipe, self.backend, self.data_dir)
        workers = max(1, machine.cores() // self.ranks.beside)
        self.reading = {"backend": self.backend, "workers": workers} if photographs else {}
        self.net = recipe.net(self.data.get("classes")).to(device, memory_format=torch.channels_last)
        self.net.classes = self.data.pop("names", None)  # the weights' file tells them
        self.optimizer = optimizer_for(recipe, self.net)
        self.state = State(start=datetime.now(UTC).isoformat(timespec="seconds"), threads=torch.get_num_threads())
        if self.ranks.told(self.resume and self.checkpoint.exists()):
            self.state = load_checkpoint(self.checkpoint, self.net, self.optimizer)
            torch.set_num_threads(self.state.threads)
        if photographs:
            here = {"backend": self.backend} | data.photographs.identity(self.data, self.backend)
            if self.state.photographs not in ({}, here):
                raise ValueError(f"{self.checkpoint} is of a run on {self.state.photographs}, and here are {here}: give the "
                                 "same photographs and backend, or delete it to start the run anew.")  # fmt: skip
            self.state.photographs = here
        self.state.beside = max(self.state.beside, self.beside)
        compiled = machine.compiles(recipe, device, self.state.step) and self.ranks.across(recipe) == 1
        environment = machine.environment(device, self.state.threads, compiled)
        if self.ranks.count > 1:
            environment |= {"ranks": self.ranks.count, "deterministic": False}
        self.environment = machine.provenance(self.state, environment)
        if self.steps_done is None and recipe.scale != "demo" and self.ranks.rank == 0:
            machine.warn_if_no_evidence(self.environment)
        with CAPTURE:  # one compiles at a time
            self.step = self.make_step(compiled)

    def make_step(self, compiled: bool):
        """A function of the learning rate: an iteration on the next batch. Returns the loss and how many images were wrong."""
        recipe, ranks = self.recipe, self.ranks
        net = machine.compiled(self.net) if compiled else self.net  # the same weights
        net, part, before_last = ranks.parallel(net, recipe)
        if recipe.precision == "bf16":
            net = in_bf16(net)
        sgd = partial(train_step, net, self.optimizer, clip=recipe.clip, part=part, before_last=before_last)
        where = dict(data_dir=self.data_dir, device=self.device, backend=self.backend, shard=(ranks.rank, ranks.count))
        self.batches = data.stream(recipe, self.state.step, **where | self.reading)
        if self.device.type == "cuda" and self.backend == "array" and ranks.count == 1:
            return GraphedStep(recipe, self.net, self.optimizer, sgd, step=self.state.step, data_dir=self.data_dir)

        def step(lr: float) -> tuple[Tensor, Tensor]:
            for group in self.optimizer.param_groups:
                group["lr"] = lr
            images, labels = next(self.batches)  # (B, 3, H, W), (B,); by R ranks, B / R of them each
            loss, wrong = sgd(images, labels)
            return ranks.total(torch.stack([loss.double() / ranks.count, wrong.double()])).unbind()

        return step

    # --- the loop ----------------------------------------------------------------------------------------------------

    def fit(self) -> None:
        """Train to the last iteration: chapter 1's `sgd`, which ends with the same bits, and what a long run needs beside."""
        recipe, state, probed = self.recipe, self.state, probes.probe_steps(self.recipe)
        self.began = self.saved = time.monotonic() - state.seconds
        with self.progress() as bar, contextlib.closing(self.batches), between_steps() as signals:
            if state.step == 0:
                self.probe()
            while state.step < recipe.steps:
                tick = time.monotonic()
                # the learning rate of this iteration
                lr = self.learning_rate()
                # forward, backward and SGD on the next batch
                loss, wrong = self.step(lr)
                # what the batch says of the training error, and so of the warm-up's end
                self.count(loss, wrong)
                # a row of the curve: the means since the last
                if state.step % recipe.log_every == 0:
                    self.log(lr, bar)
                state.step_seconds += time.monotonic() - tick
                bar.update()
                # now and then the error on the test images, and a look at responses and gradients
                if state.step % recipe.eval_every == 0 and state.step < recipe.steps:
                    self.test()
                if state.step in probed:
                    self.probe()
                if self.steps_done is not None:
                    self.steps_done.value = state.step
                # a checkpoint every minute, at the end, and where the run is told to stop
                stop = self.ranks.agreed(signals)
                if stop or time.monotonic() - self.saved > CHECKPOINT_SECONDS or state.step == recipe.steps:
                    self.save()
                    if state.step < recipe.steps:
                        tell(bar)
                if stop:
                    self.stop(stop)
            if not bar.disable:
                bar.set_description_str("final passes")

    def progress(self) -> tqdm:
        """A bar that counts iterations, the bar itself last: 80 columns hold what matters. None where `steps_done` counts."""
        return tqdm(total=self.recipe.steps, initial=self.state.step, desc=self.recipe.name.rsplit("-", 1)[0],
                    bar_format="{desc}: {percentage:3.0f}%{postfix}, {n_fmt}/{total_fmt} [{elapsed}<{remaining}] {bar}",
                    mininterval=drawing_seconds(), dynamic_ncols=True, postfix=self.epoch(),
                    disable=self.steps_done is not None or self.ranks.rank > 0)  # fmt: skip

    def epoch(self) -> dict[str, str]:
        """Of a run on photographs: where it is, and where it ends, in passes over the training images."""
        if self.recipe.data != "imagenet":
            return {}
        batches = self.data["train"] // self.recipe.batch
        return {"epoch": f"{self.state.step / batches:.1f}/{self.recipe.steps / batches:.0f}"}

    def learning_rate(self) -> float:
        """This iteration's. Where it changes, Caffe's form of momentum needs its buffers rescaled."""
        state = self.state
        lr = lr_at(self.recipe, state.step, state.warm_at is not None, state.drops)
        if self.recipe.momentum_form == "caffe" and state.lr not in (None, lr):
            rescale_momentum(self.optimizer, state.lr / lr)
        state.lr = lr
        return lr

    def count(self, loss: Tensor, wrong: Tensor) -> None:
        """Add an iteration to the running means; on a GPU without waiting for it, except in the warm-up."""
        state = self.state
        state.loss_sum, state.wrong = state.loss_sum + loss.double(), state.wrong + wrong
        if self.recipe.warmup_lr is not None and state.warm_at is None:
            watch_warmup(self.recipe, state, int(wrong))
        state.step += 1
        if loss.device.type == "cpu":  # a GPU is not waited for: its rows of the curve tell
            check(self.recipe, self.state, {"training loss": loss.item()})

    def log(self, lr: float, bar: tqdm) -> None:
        """Close a row of the curve: the means since the last one."""
        recipe, state = self.recipe, self.state
        loss, error = float(state.loss_sum) / recipe.log_every, 100 * int(state.wrong) / (recipe.log_every * recipe.batch)
        check(self.recipe, self.state, {f"mean training loss of the last {recipe.log_every}": loss})
        row = short({"step": state.step, "lr": lr, "train_error": error, "train_loss": loss})
        for name in COLUMNS:
            state.curve[name].append(row.get(name))
        state.loss_sum, state.wrong = 0.0, 0
        speed = recipe.batch * state.step / (time.monotonic() - self.began)
        shown = {"loss": f"{loss:.3f}", "error": f"{error:.1f}%", "images/s": f"{speed:,.0f}"}
        bar.set_postfix(self.epoch() | shown, refresh=False)

    def test(self) -> None:
        """A pass over the test images, ImageNet's validation images, into the curve's last row."""
        with CAPTURE:
            self.ranks.level(self.net)
            share = (self.ranks.rank, self.ranks.count)
            batches = evaluation.whole(self.recipe, "test", self.device, self.data_dir, shard=share, **self.reading)
            result = evaluation.means(self.ranks.total(evaluation.summed(self.net, batches)))
        self.note_test(result["top1_error"], result["loss"])
        if self.recipe.plateau:
            watch_plateau(self.recipe, self.state, result["top1_error"])

    def note_test(self, error: float, loss: float) -> None:
        check(self.recipe, self.state, {"test loss": loss})
        state = self.state
        state.curve["test_error"][-1], state.curve["test_loss"][-1] = short(error), short(loss)
        if not state.best or error < state.best["test_error"]:
            state.best = {"step": state.step, "test_error": short(error)}

    def probe(self) -> None:
        """Responses and gradients of every layer, on the first training images, not augmented.

        Of photographs, whose first are of one class, on the first of the first epoch.
        """
        few = replace(self.recipe, batch=max(16, probes.PIXELS // self.recipe.size**2), bn_batch=None)
        with CAPTURE:
            if self.recipe.data == "imagenet":
                few = replace(few, batch=min(few.batch, self.recipe.batch))
                batches = data.loader(few, "train", data_dir=self.data_dir, device=self.device, backend=self.backend, workers=0)
            else:
                batches = evaluation.whole(few, "train", self.device, self.data_dir)
            images, labels = next(iter(batches))
            found = probes.probe(self.net, images[: few.batch], labels[: few.batch])
        check(self.recipe, self.state, {name: values for name, values in found.items() if name != "layer"})
        self.state.probes.append(short({"step": self.state.step} | found))

    def save(self) -> None:
        self.saved = time.monotonic()
        self.state.seconds = self.saved - self.began
        if self.ranks.rank == 0:
            save_checkpoint(self.checkpoint, self.net, self.optimizer, self.state)

    def stop(self, number: int) -> None:
        """End as the signal asks, the checkpoint written."""
        if self.steps_done is None and self.ranks.rank == 0:
            done = f"stopped after {self.state.step:,} of {self.recipe.steps:,} iterations"
            tqdm.write(f"{self.recipe.name}: {done}; the same command goes on.", file=sys.stderr)
        raise KeyboardInterrupt if number == signal.SIGINT else SystemExit(128 + number)

    # --- after the loop ----------------------------------------------------------------------------------------------

    def finish(self) -> Record:
        """The final passes, and the record, written."""
        recipe, state = self.recipe, self.state
        with CAPTURE, torch.backends.cudnn.flags(enabled=True, allow_tf32=False):  # in TF32 an identity layer would round
            final, predicted = evaluation.final_passes(self.net, recipe, self.data_dir, **self.reading)
        check(self.recipe, self.state, final | final.get("identity_extension", {}))
        self.note_test(final["test_error"], final["test_loss"])
        running = {f"{name}_running": state.curve[name][-1] for name in ("train_error", "train_loss")}
        warm = {} if recipe.warmup_lr is None else {"warmup_steps": state.warm_at}
        record = Record(
            recipe=recipe, data=self.data, environment=self.environment, backend=self.backend,
            time={"start": state.start, "seconds": round(time.monotonic() - self.began, 1), "beside": state.beside,
                  "images_per_second": round(recipe.steps * recipe.batch / state.step_seconds, 1)},
            final={"step": state.step, **short(final), **running, **warm}, best_on_test=state.best, probes=state.probes,
            test_predictions=pack(predicted.numpy(), self.data.get("classes", 10)), curve=state.curve,
            weights_sha256=weights_sha256(self.net),
        )  # fmt: skip
        write(record, self.out_dir, self.net)
        self.checkpoint.unlink(missing_ok=True)
        return record
