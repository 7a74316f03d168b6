"""Batch normalisation over the images of several processes: torch's own on GPUs, and the same, written out, on CPUs."""

import copy

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.nn.functional import all_reduce


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
