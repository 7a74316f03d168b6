"""The fast step for a GPU: the whole set lies on the device as bytes, and an iteration is one CUDA graph.

Gather, augmentation, forward, backward and SGD are recorded once and replayed; the host only counts. It computes what
`sgd.train_step` does on the batches of `data.loader`, the readable reference to which a test holds it.
"""

import threading

import torch
from torch import Tensor, nn

from . import data
from .recipes import Recipe

CAPTURE = threading.RLock()
"""For runs that share a process, a thread each: held by the one that compiles or captures, tests, probes, or has TF32 off.

A graph keeps what was set for the whole process when it was captured; only replays go on beside that.
"""


class GraphedStep:
    """Call it with a learning rate: one iteration, from iteration `step` on. Returns the batch's loss and its wrong images.

    Both are tensors on the device that the next call overwrites. train_step: of (images, labels), on this net and optimizer,
    whose learning rate becomes a tensor on the device.
    """

    def __init__(self, recipe: Recipe, net: nn.Module, optimizer, train_step, *, step: int = 0, data_dir=None):
        self.recipe, self.net, self.optimizer, self.train_step = recipe, net, optimizer, train_step
        self.device = next(net.parameters()).device
        part = data.images(recipe, train=True, data_dir=data_dir)
        self.pixels, self.labels = data.resident(part, self.device)
        centre, self.offset = data.centring(recipe, data_dir, self.device)
        self.mean, self.byte = (torch.from_numpy(a).to(self.device) for a in (centre, data.BYTE))
        self.samples = data.split_ids(recipe, "train", len(part.labels))
        self.batches = len(self.samples) // recipe.batch  # an epoch's
        if not self.batches:
            raise ValueError(f"a batch of {recipe.batch} is more than the training set holds.")
        self.row = torch.tensor([step % self.batches], device=self.device)  # the batch within the epoch
        self.lr = torch.zeros((), device=self.device)
        for group in optimizer.param_groups:
            group["lr"] = self.lr
        self.plan, self.step, self.graph = None, step, None
        self.draw(step // self.batches)
        if self.device.type == "cuda":
            self.record()

    def draw(self, epoch: int) -> None:
        """Lay the decisions of an epoch out on the device, batch by batch."""
        columns = data.augmented(self.recipe, self.samples, epoch, len(self.labels), shuffled=True)
        plan = [torch.from_numpy(c.reshape(self.batches, -1)).to(self.device) for c in columns]
        if self.plan is None:
            self.plan = plan
        for old, new in zip(self.plan, plan, strict=True):  # in place: the graph reads there
            old.copy_(new)

    def iteration(self) -> tuple[Tensor, Tensor]:
        ids, dy, dx, flip = (column.index_select(0, self.row)[0] for column in self.plan)
        images = data.gather(self.pixels, ids, dy, dx, flip, self.mean, self.recipe.pad, self.byte)
        if self.offset is not None:
            images = images - self.offset
        result = self.train_step(images, self.labels[ids])
        self.row.add_(1).remainder_(self.batches)  # never past the epoch's end, whoever replays the graph
        return result

    def record(self) -> None:
        """Capture an iteration as a CUDA graph. It takes some real ones to warm up: what they changed is put back."""
        row = self.row.clone()
        momenta = [self.optimizer.state[p].get("momentum_buffer") for p in self.net.parameters()]
        saved = [t.detach().clone() for t in self.net.state_dict().values()]
        saved_momenta = [None if m is None else m.clone() for m in momenta]
        stream = torch.cuda.Stream(self.device)
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(3):
                self.row.zero_()
                self.iteration()
        torch.cuda.current_stream().wait_stream(stream)
        self.graph = torch.cuda.CUDAGraph()
        with CAPTURE, torch.cuda.graph(self.graph, stream=stream, capture_error_mode="thread_local"):  # others may use the GPU
            self.result = self.iteration()
        self.row.copy_(row)
        with torch.no_grad():
            for tensor, old in zip(self.net.state_dict().values(), saved, strict=True):
                tensor.copy_(old)
            for p, old in zip(self.net.parameters(), saved_momenta, strict=True):
                if (buffer := self.optimizer.state[p].get("momentum_buffer")) is not None:
                    buffer.zero_() if old is None else buffer.copy_(old)  # 0: then the first iteration's is the gradient

    def __call__(self, lr: float) -> tuple[Tensor, Tensor]:
        if self.step and self.step % self.batches == 0:
            self.draw(self.step // self.batches)
            self.row.zero_()
        self.lr.fill_(lr)
        self.step += 1
        if self.graph is None:
            return self.iteration()
        self.graph.replay()
        return self.result
