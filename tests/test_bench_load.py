"""The loading benchmark: measured in turn, tabled, written and read; a damaged record is refused."""

import itertools
import json

import numpy as np
import pytest
import torch
from test_imagenet import needs_ffcv, noise_tree

import reslib
from reslib import bench_load


def batches(seconds):
    def make():
        for _ in itertools.repeat(None):
            until = bench_load.time.perf_counter() + seconds
            while bench_load.time.perf_counter() < until:
                pass
            yield torch.zeros(4, 3, 8, 8), torch.zeros(4)

    return make


def test_speeds_and_ratios_are_those_of_known_loaders():
    part = "CIFAR-10, 32 px"
    known = {(part, "torchvision", 0): 0.02, (part, "torchvision", 1): 0.01, (part, "array", 2): 0.001}
    rows = bench_load.measure({key: batches(seconds) for key, seconds in known.items()}, 3, 0.1, "cpu")
    frame = bench_load.frame({"rows": rows})
    assert frame["median"].to_numpy() == pytest.approx([200, 400, 4000], rel=0.3)
    assert frame["ratio"].to_numpy() == pytest.approx([0.5, 1, 10], rel=0.4)


@pytest.fixture
def record(cifar, tmp_path, monkeypatch):
    monkeypatch.setattr(bench_load, "first_batches", lambda backend, *_, **__: [
        {"set": "CIFAR-10, 32 px", "loader": backend, "process": "first", "first_batch": 1.0, "memory": 1.0}])  # fmt: skip
    return bench_load.run(cifar, noise_tree(tmp_path / "tree", 9), rounds=1, seconds=0.01, workers=[1])


@needs_ffcv
def test_a_whole_run_is_a_record(record, tmp_path):
    frame = bench_load.frame(record)
    assert len(frame) == 14 and (frame["median"] > 0).all() and np.isfinite(frame["ratio"]).all()
    assert {row["file"] for row in record["pixel_differences"]} == {"raw 480", "jpg 480"} and len(record["disk"]) == 4
    text = bench_load.table(record)
    assert "| CIFAR-10, 32 px | array | 2 |" in text and "| photographs, 256 | ffcv raw 256 | 1 |" in text
    path = bench_load.write(record, tmp_path / "records" / "bench")
    assert bench_load.read(path) == record and reslib.records(tmp_path / "records").empty
    for change in ({"schema": 2}, {"rows": []}, {"rows": [{}]}):
        path.write_text(json.dumps(record | change))
        with pytest.raises(ValueError, match=rf"{path.name} is not a record of `python -m reslib bench load`"):
            bench_load.read(path)


def test_first_batch_in_a_fresh_process(cifar):
    rows = bench_load.first_batches("array", cifar)
    assert [row["process"] for row in rows] == ["first", "second"]
    assert all(0 < row["first_batch"] < 60 and 0.1 < row["memory"] < 10 for row in rows)
    with pytest.raises(OSError, match="that loads by numpy failed: .*backend 'numpy' is unknown"):
        bench_load.first_batches("numpy", cifar)
