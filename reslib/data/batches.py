"""How batches are made, of any images: by threads a little ahead, or through torch's DataLoader."""

import signal
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset


def batches_of(plan, batch: int) -> list[slice]:
    """Where the batches lie in a plan."""
    return [slice(i, i + batch) for i in range(0, len(plan.ids), batch)]


def ahead(work: Callable, items: Iterable, threads: int) -> Iterator:
    """`work(item)` for each of `items`, in their order, a few ahead of the caller.

    The threads end with the iterator, when it is closed or dropped; what one of them raises reaches the caller.
    """
    pool, pending = ThreadPoolExecutor(threads, "ahead"), deque()
    try:
        for item in items:
            pending.append(pool.submit(work, item))
            if len(pending) > threads + 1:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def undisturbed(_: int) -> None:
    """In a worker: what stops a run is for the process that trains, which ends its workers itself."""
    for number in {signal.SIGINT, signal.SIGTERM, getattr(signal, "SIGHUP", signal.SIGTERM)}:  # Windows: no SIGHUP
        signal.signal(number, signal.SIG_IGN)


def from_dataset(samples: Dataset, batch: int, workers: int) -> Iterator[tuple[Tensor, Tensor]]:
    """The readable reference: sample by sample through a DataLoader."""
    for x, labels in DataLoader(samples, batch, num_workers=workers, worker_init_fn=undisturbed):
        yield x.contiguous(memory_format=torch.channels_last), labels
