"""A run by several processes, one a GPU: `torchrun --nproc_per_node 8 -m reslib train ...`, on one machine or more.

Each batch is cut into equal parts, a rank's each; which images it has, and how they are cropped, depends on no rank. Gradients
are averaged (DistributedDataParallel); BN takes its statistics over the recipe's bn_batch images, within a rank or across
ranks. So the number of ranks changes a run's rounding alone, and a run may be taken up with another; with BN within ranks its
moving averages are those of rank 0. Rank 0 writes. A rank that is gone ends all the others within a minute.
"""

import contextlib
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor, nn

from .recipes import Recipe
from .synced_bn import synchronised

SILENCE = timedelta(seconds=50)  # in a step, after which another rank counts as gone


@dataclass
class Ranks:
    """The processes of a run, and which of them this one is; of a run by one process every method does nothing."""

    rank: int = 0
    count: int = 1
    local: int = 0  # rank within the machine
    beside: int = 1  # processes on the machine
    group: object = None  # for what happens in a step

    @classmethod
    def of(cls, recipe: Recipe) -> "Ranks":
        """As torchrun has started them. Raises ValueError if a batch cannot be cut into as many equal parts."""
        if not dist.is_torchelastic_launched():
            return cls()
        ranks = cls(*(int(os.environ[name]) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")))
        part, over = recipe.batch // ranks.count, recipe.bn_batch or recipe.batch
        if part * ranks.count != recipe.batch:
            raise ValueError(f"a batch of {recipe.batch} cannot be cut into {ranks.count} equal parts: start as many processes "
                             "as divide it.")  # fmt: skip
        if part % over and over % part:
            raise ValueError(f"bn_batch is {over}: it must divide the {part} images of a process, or be a multiple of them.")
        return ranks

    def across(self, recipe: Recipe) -> int:
        """Over how many ranks BN takes its statistics."""
        return max(1, (recipe.bn_batch or recipe.batch) * self.count // recipe.batch)

    @contextlib.contextmanager
    def joined(self, device: torch.device) -> Iterator[None]:
        """The ranks can speak to each other. Raises ConnectionError where one of them is gone."""
        if self.count > 1 and not dist.is_initialized():
            dist.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo")
        try:
            yield
        except RuntimeError as error:
            said = f"{error}".partition("\n")[0]
            if self.count == 1 or not re.search("gloo|nccl|connection|timed out", said, re.IGNORECASE):
                raise
            why = re.sub(r"\[/\S+\] ", "", said).partition(". ")[0]  # without gloo's own places and advice
            raise ConnectionError(f"rank {self.rank}: another process of this run is gone, or does not answer ({why}): the "
                                  "same command goes on from the last checkpoint.") from None  # fmt: skip

    @contextlib.contextmanager
    def one_first(self) -> Iterator[None]:
        """One rank of each machine goes first: it makes the files that the others then read."""
        for turn in (True, False):
            if turn == (self.local == 0):
                yield
            if self.count > 1:
                dist.all_reduce(torch.zeros(1))

    def told_in_records(self) -> dict:
        """Of a run's environment."""
        return {"ranks": self.count, "deterministic": False} if self.count > 1 else {}

    def told(self, value):
        """Rank 0's value, anything that can be pickled."""
        if self.count > 1:
            dist.broadcast_object_list(values := [value])
            return values[0]
        return value

    def parallel(self, net: nn.Module, recipe: Recipe) -> tuple[nn.Module, int | None, object]:
        """The net that a step applies, images of a pass, and the context of every pass but the last: see sgd.train_step."""
        if self.count == 1:
            return net, recipe.bn_batch, contextlib.nullcontext
        self.group = dist.new_group(timeout=SILENCE)
        if (across := self.across(recipe)) > 1:
            net = synchronised(net, dist.new_subgroups(across, timeout=SILENCE)[0])
        net = nn.parallel.DistributedDataParallel(net, process_group=self.group)
        return net, min(recipe.bn_batch or recipe.batch, recipe.batch // self.count), net.no_sync

    def of_batch(self, loss: Tensor, wrong: Tensor) -> tuple[Tensor, Tensor]:
        """Loss and wrong images of the whole batch, from those of this rank's part."""
        if self.count > 1:
            dist.all_reduce(both := torch.stack([loss.double(), wrong.double()]), group=self.group)
            return both[0] / self.count, both[1].long()
        return loss, wrong

    def tested(self, net: nn.Module, evaluate) -> dict[str, float]:
        """`evaluate(net, shard)` on every rank's share of the images, with rank 0's moving averages, and its mean over all."""
        if self.count == 1:
            return evaluate(net, (0, 1))
        for buffer in net.buffers():
            dist.broadcast(buffer, 0, group=self.group)
        found = evaluate(net, (self.rank, self.count))
        n = found.pop("n")
        sums = torch.tensor([n, *(value * n for value in found.values())], dtype=torch.float64)
        dist.all_reduce(sums, group=self.group)
        return dict(zip(found, (sums[1:] / sums[0]).tolist(), strict=True)) | {"n": int(sums[0])}

    def agreed(self, signals: list[int]) -> int:
        """The signal by which any rank was told to stop; 0: none."""
        number = signals[0] if signals else 0
        if self.count > 1:
            dist.all_reduce(highest := torch.tensor(number), dist.ReduceOp.MAX, group=self.group)
            return int(highest)
        return number
