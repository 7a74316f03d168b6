"""A run by several processes, one a GPU: `torchrun --nproc_per_node 8 -m reslib train ...`, on one machine or more.

Each batch is cut into equal parts, a rank's each; which images it has, and how they are cropped, depends on no rank. Gradients
are averaged (DistributedDataParallel); BN takes its statistics over the recipe's bn_batch images, within a rank or across
ranks. So the number of ranks changes a run's rounding alone, and a run may be taken up with another. Rank 0 writes. A rank
that is gone ends all the others within a minute.
"""

import contextlib
import copy
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.nn.functional import all_reduce

from .recipes import Recipe

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
        if recipe.batch % ranks.count:
            raise ValueError(f"a batch of {recipe.batch} cannot be cut into {ranks.count} equal parts, one a process.")
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
            said = f"{error}".partition("\n")[0].partition(". ")[0]  # without gloo's own advice
            if self.count == 1 or not re.search("gloo|nccl|connection|timed out", said, re.IGNORECASE):
                raise
            raise ConnectionError(f"rank {self.rank}: another process of this run is gone, or does not answer ({said}): the "
                                  "same command goes on from the last checkpoint.") from None  # fmt: skip

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

    def total(self, values: Tensor) -> Tensor:
        """The sum over all ranks."""
        if self.count > 1:
            dist.all_reduce(values, group=self.group)
        return values

    def level(self, net: nn.Module) -> None:
        """Give every rank rank 0's moving averages."""
        for buffer in net.buffers() if self.count > 1 else ():
            dist.broadcast(buffer, 0, group=self.group)

    def agreed(self, signals: list[int]) -> int:
        """The signal by which any rank was told to stop; 0: none."""
        number = torch.tensor(signals[0] if signals else 0)
        if self.count > 1:
            dist.all_reduce(number, dist.ReduceOp.MAX, group=self.group)
        return int(number)


class SyncedBN(nn.BatchNorm2d):
    """What nn.SyncBatchNorm, for GPUs alone, computes: BN over the images of all ranks of a group, which have equally many."""

    def forward(self, x: Tensor) -> Tensor:  # (B, C, H, W)
        if not self.training:
            return super().forward(x)
        n = x.numel() // x.shape[1] * dist.get_world_size(self.group)
        mean = all_reduce(x.sum((0, 2, 3)), group=self.group) / n
        centred = x - mean[:, None, None]
        variance = all_reduce(centred.square().sum((0, 2, 3)), group=self.group) / n
        with torch.no_grad():
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * n / (n - 1), self.momentum)
            self.num_batches_tracked.add_(1)
        scale = self.weight * (variance + self.eps).rsqrt()
        return centred * scale[:, None, None] + self.bias[:, None, None]


def synchronised(net: nn.Module, group) -> nn.Module:
    """A net of the same parameters and buffers, whose BN layers are synchronised over a group."""
    twin = copy.deepcopy(net)
    for new, old in zip(twin.modules(), net.modules(), strict=True):
        new._parameters, new._buffers = old._parameters, old._buffers
        if isinstance(new, nn.BatchNorm2d):
            new.__class__, new.group = SyncedBN, group
    on_gpu = next(net.parameters()).is_cuda
    return nn.SyncBatchNorm.convert_sync_batchnorm(twin, group) if on_gpu else twin
