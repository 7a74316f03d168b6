"""The loading benchmark: measured in turn, tabled, written and read; a damaged record is refused."""

import itertools
import json

import numpy as np
import pytest
import torch
from test_photographs import needs_ffcv, noise_tree

import reslib
from reslib.bench import loading as bench_load


def test_ratios_are_to_the_best_of_torchvision_in_the_same_round():
    known = {("torchvision", 0): [100, 400, 100], ("torchvision", 1): [200, 200, 50], ("array", 2): [2000, 2000, 3000]}
    rows = [{"set": "CIFAR-10, 32 px", "loader": name, "workers": w, "images_per_second": v} for (name, w), v in known.items()]
    frame = bench_load.frame({"rows": rows})
    assert frame["median"].tolist() == [100, 200, 2000] and frame["highest"].tolist() == [400, 200, 3000]
    assert frame["ratio"].tolist() == [1, 0.5, 10]
    assert (frame["ratio_lowest"].tolist(), frame["ratio_highest"].tolist()) == ([0.5, 0.5, 5], [1, 1, 30])


def test_images_are_counted_after_the_first_batch(monkeypatch):
    now = itertools.count()  # a clock that ticks whenever it is read
    monkeypatch.setattr(bench_load.time, "perf_counter", lambda: float(next(now)))
    make = lambda: (x for x in itertools.repeat((torch.zeros(4, 3, 8, 8), torch.zeros(4))))  # noqa: E731
    assert bench_load.images_per_second(make, 10.0, "cpu") == 36 / 11  # nine batches of four, eleven ticks


@pytest.fixture
def record(cifar, tmp_path, monkeypatch):
    monkeypatch.setattr(bench_load, "first_batches", lambda backend, *_, **__: [
        {"set": "CIFAR-10, 32 px", "loader": backend, "process": "first", "first_batch": 1.0}])  # fmt: skip
    monkeypatch.setattr(bench_load, "SETS", {"photographs, scales 256 to 480": ((256, 480), ("raw 480",))})
    return bench_load.run(cifar, noise_tree(tmp_path / "tree", 9), rounds=1, seconds=0.01, workers=[1])


@needs_ffcv
def test_a_whole_run_is_a_record(record, tmp_path):
    frame = bench_load.frame(record)
    assert len(frame) == 10 and (frame["median"] > 0).all() and np.isfinite(frame["ratio"]).all()
    [gap] = record["pixel_differences"]
    assert gap["file"] == "raw 480" and 0 < gap["mean"] < 10
    text = bench_load.table(record)
    for row in ("CIFAR-10, 32 px array 2", "photographs, scales 256 to 480 ffcv raw 480 1"):
        assert any(row in " ".join(line.replace("|", " ").split()) for line in text.splitlines())
    path = bench_load.write(record, tmp_path / "records" / "bench")
    assert bench_load.read(path) == record and reslib.records(tmp_path / "records").empty
    for change in ({"schema": 2}, {"rows": []}, {"rows": [{}]}):
        path.write_text(json.dumps(record | change))
        with pytest.raises(ValueError, match=rf"{path.name} is not a record of `python -m reslib bench load`"):
            bench_load.read(path)


def test_first_batch_in_a_fresh_process(cifar):
    rows = bench_load.first_batches("array", cifar)
    assert [row["process"] for row in rows] == ["first", "second"]
    assert all(0 < row["first_batch"] < 60 for row in rows)
    with pytest.raises(OSError, match="that loads by numpy failed: .*backend 'numpy' is unknown"):
        bench_load.first_batches("numpy", cifar)
