"""A run by two processes is that of one, but for rounding; one of them is killed, or all are stopped, and one goes on."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from test_train_photographs import SMALL, imagenette, tree  # noqa: F401

import reslib
from reslib import CIFAR
from reslib.distributed import Ranks
from reslib.record import read

GENTLE = replace(replace(CIFAR, depth=8, lr=0.003, warmup_lr=0.001, warmup_until=99.0).at("demo"), steps=55, milestones=(),
                 log_every=1, eval_every=20)  # fmt: skip
"""Whose rounding does not grow. The warm-up ends after 50 steps: by the training error, which all ranks must agree on."""

SCRIPT = """
import os, sys, torch
from pathlib import Path
torch.set_num_threads(1)
import reslib
from reslib import Recipe, trainer
out = Path(sys.argv[1])
(out / f"pid-{os.environ.get('RANK')}").write_text(str(os.getpid()))
trainer.CHECKPOINT_SECONDS = 0.05
from reslib.__main__ import main
import reslib.__main__
reslib.__main__.app = lambda: reslib.train(Recipe.from_dict(eval(sys.argv[2])), out_dir=out, device="cpu", data_dir=sys.argv[3])
main()
"""


def start(recipe, out: Path, data_dir="."):
    out.mkdir(exist_ok=True)
    (out / "script.py").write_text(SCRIPT)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    command = [*torchrun, out / "script.py", out, repr(recipe.as_dict()), data_dir]
    with (out / "said").open("a") as said:
        return subprocess.Popen(command, stdout=said, stderr=said, env=os.environ | {"OMP_NUM_THREADS": "1"})


def by_two(recipe, out: Path, **where):
    with start(recipe, out, **where) as process:
        assert process.wait(300) == 0, (out / "said").read_text()[-3000:]
    return read(out / f"{recipe.name}.json")


def by_one(recipe, out: Path, **where):
    return reslib.train(recipe, out_dir=out, device="cpu", **where)


def same_run_but_for_rounding(one, other, rel=1e-4):
    assert one.curve["train_loss"] == pytest.approx(other.curve["train_loss"], rel=rel)
    assert one.curve["lr"] == other.curve["lr"] and one.curve["step"] == other.curve["step"]
    assert one.final.get("warmup_steps") == other.final.get("warmup_steps") and one.data == other.data
    tested = [(a, b) for a, b in zip(one.curve["test_loss"], other.curve["test_loss"], strict=True) if b is not None]
    assert [a for a, _ in tested] == pytest.approx([b for _, b in tested], rel=0.01)


@pytest.mark.parametrize("split", ["train", "val"])
@pytest.mark.parametrize("photographs", [False, True])
def test_ranks_share_the_same_draws(photographs, split, tree):  # noqa: F811
    recipe, where = (SMALL, {"data_dir": tree}) if photographs else (replace(GENTLE, split="45k/5k"), {})
    whole, *parts = (
        list(reslib.loader(recipe, split, backend="torch", workers=0, epoch=1, shard=shard, **where))
        for shard in ((0, 1), (0, 2), (1, 2))
    )
    if split == "train":  # batch by batch
        for (x, y), *shares in zip(whole, *parts, strict=True):
            assert {len(labels) for _, labels in shares} == {recipe.batch // 2}
            assert torch.equal(torch.cat([x for x, _ in shares]), x) and torch.equal(torch.cat([y for _, y in shares]), y)
    else:  # one by one in turn
        for number, part in enumerate(parts):
            for k in (0, 1):
                assert torch.equal(torch.cat([pair[k] for pair in whole])[number::2], torch.cat([pair[k] for pair in part]))


@pytest.mark.parametrize("bn_batch", [None, 64])
def test_two_processes_are_one_but_for_rounding(bn_batch, tmp_path):
    """BN over the whole batch is synchronised; over 64 of 128 it is each process's own, the paper's two GPUs."""
    recipe = replace(GENTLE, bn_batch=bn_batch)
    one, two = by_one(recipe, tmp_path / "1"), by_two(recipe, tmp_path / "2")
    if bn_batch:  # test errors are of moving averages: one process's are of both halves
        for record in (one, two):
            record.curve["test_loss"] = [None] * recipe.steps
    same_run_but_for_rounding(two, one)
    assert two.final["warmup_steps"] == 50
    assert (two.environment["ranks"], two.environment["deterministic"]) == (2, False) and "ranks" not in one.environment
    assert sorted(file.suffix for file in (tmp_path / "2").glob("digits*")) == [".json", ".safetensors"]


def test_two_processes_on_photographs(tree, tmp_path):  # noqa: F811
    recipe = replace(SMALL, lr=1e-4, steps=4, log_every=1)
    one, two = by_one(recipe, tmp_path / "1", data_dir=tree), by_two(recipe, tmp_path / "2", data_dir=tree)
    same_run_but_for_rounding(two, one)


def wait_for(condition, seconds=120):
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert condition()


def test_a_rank_is_killed_then_all_are_stopped_and_one_process_goes_on(tmp_path):
    recipe, out = replace(GENTLE, steps=100, warmup_lr=None, warmup_until=CIFAR.warmup_until), tmp_path / "two"
    checkpoint, said = out / f"{recipe.name}.ckpt", out / "said"
    with start(recipe, out) as process:
        wait_for(checkpoint.exists)
        os.kill(int((out / "pid-1").read_text()), signal.SIGKILL)
        assert process.wait(60) != 0
    assert "rank 0: another process of this run is gone" in said.read_text()
    assert "the same command goes on from the last checkpoint" in said.read_text()
    before = checkpoint.stat().st_mtime_ns
    with start(recipe, out) as process:
        wait_for(lambda: checkpoint.stat().st_mtime_ns > before)
        process.terminate()
        process.wait(60)
    assert "iterations; the same command goes on." in said.read_text()
    at = torch.load(checkpoint)["state"]["step"]
    record = by_one(recipe, out)
    assert 0 < at < recipe.steps and [old["ranks"] for old in record.environment["earlier"]] == [2]
    assert (record.environment["earlier"][0]["step"], record.environment["device"]) == (
        0,
        record.environment["earlier"][0]["device"],
    )
    same_run_but_for_rounding(record, by_one(recipe, tmp_path / "one"), rel=0.02)


@pytest.mark.parametrize(
    ("count", "bn_batch", "across", "says"),
    [
        (2, None, 2, None), (2, 64, 1, None), (2, 32, 1, None), (4, 64, 2, None), (8, None, 8, None),
        (3, None, None, "a batch of 128 cannot be cut into 3 equal parts"),
    ],
)  # fmt: skip
def test_bn_is_over_the_images_that_the_recipe_says(count, bn_batch, across, says, monkeypatch):
    recipe = replace(CIFAR, bn_batch=bn_batch)
    environment = {
        "TORCHELASTIC_RUN_ID": "1",
        "RANK": "1",
        "WORLD_SIZE": str(count),
        "LOCAL_RANK": "1",
        "LOCAL_WORLD_SIZE": "2",
    }
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    if says:
        with pytest.raises(ValueError, match=says):
            Ranks.of(recipe)
    else:
        assert Ranks.of(recipe) == Ranks(1, count, 1, 2) and Ranks.of(recipe).across(recipe) == across
    with pytest.raises(ValueError, match="bn_batch is 48: it must divide the 32 images"):
        monkeypatch.setenv("WORLD_SIZE", "3")
        Ranks.of(replace(CIFAR, batch=96, bn_batch=48))
