"""Runs: killed and resumed, repeated, warmed up; what a record says is what was trained."""

import contextlib
import copy
import errno
import fcntl
import math
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from functools import partial
from types import SimpleNamespace
from unittest.mock import Mock

import pytest
import torch

import reslib
from reslib import CIFAR, data, evaluation, machine, probes, sgd, trainer
from reslib.checkpoint import BusyError, State, locked
from reslib.cuda_graph import GraphedStep
from reslib.record import read, weights_sha256

run = partial(reslib.train, device="cpu")  # the same bits everywhere: also where there is a GPU
ON_A_GPU = replace(replace(CIFAR, depth=8).at("demo"), steps=20, milestones=(10, 15), eval_every=10)
TINY = replace(ON_A_GPU, size=8, pad=1)


@pytest.fixture(autouse=True)
def few_probed(monkeypatch):
    """So that a run takes a second; and threads are given back."""
    monkeypatch.setattr(probes, "PIXELS", 2**12)
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def trained_by_hand(recipe):
    """The loop in its plainest form, NCHW, torch's default SGD: the readable reference."""
    net = recipe.net()
    optimizer = torch.optim.SGD(net.parameters(), recipe.lr, recipe.momentum, weight_decay=recipe.weight_decay)
    step, losses = 0, []
    while True:
        for images, labels in reslib.loader(recipe, "train", epoch=step // 11):
            optimizer.param_groups[0]["lr"] = recipe.lr * 0.1 ** sum(step >= m for m in recipe.milestones)
            optimizer.zero_grad()
            loss = torch.nn.functional.cross_entropy(net(images.contiguous()), labels)
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
            step += 1
            if step == recipe.steps:
                return net, losses


def test_a_run_is_the_plain_loop(tmp_path):
    record = run(TINY, out_dir=tmp_path)
    net, losses = trained_by_hand(TINY)
    rows = [sum(losses[i : i + 5]) / 5 for i in range(0, 20, 5)]
    assert record.curve["train_loss"] == pytest.approx(rows, rel=5e-3)  # channels_last rounds otherwise
    by_hand = reslib.evaluate(net, reslib.loader(TINY, "test"))
    assert record.final["test_loss"] == pytest.approx(by_hand["loss"], rel=0.02)


def test_what_a_caller_has_set_in_torch_neither_enters_a_run_nor_is_changed_by_it(tmp_path):
    few = replace(TINY, steps=5, milestones=())
    expected = run(few, out_dir=tmp_path / "usual").weights_sha256
    torch.set_float32_matmul_precision("medium")
    torch.set_default_dtype(torch.float64)
    state = torch.get_rng_state()
    try:
        with torch.autocast("cpu", torch.bfloat16), torch.inference_mode(), torch.device("meta"):
            assert run(few, out_dir=tmp_path / "set").weights_sha256 == expected
        assert torch.equal(state, torch.get_rng_state())
        assert (torch.get_float32_matmul_precision(), torch.get_default_dtype()) == ("medium", torch.float64)
    finally:
        torch.set_float32_matmul_precision("highest")
        torch.set_default_dtype(torch.float32)


def test_a_compiled_run_is_the_plain_loop_too(tmp_path, monkeypatch):
    monkeypatch.setattr(machine, "COMPILE_STEPS", TINY.steps)
    record = run(TINY, out_dir=tmp_path / "compiled")
    monkeypatch.setattr(machine, "COMPILE_STEPS", TINY.steps + 1)
    eager = run(TINY, out_dir=tmp_path / "eager")
    assert (record.environment["compiled"], eager.environment["compiled"]) == (True, False)
    assert record.curve["train_loss"] == pytest.approx(eager.curve["train_loss"], rel=5e-3)
    assert record.final["test_loss"] == pytest.approx(eager.final["test_loss"], rel=0.02)


class StandIn:
    """For a CUDA graph and all that records one, where there is no GPU: replaying it is computing it again."""

    def __init__(self, monkeypatch):
        stream = SimpleNamespace(wait_stream=lambda other: None)
        for name, made in (("Stream", stream), ("current_stream", stream), ("CUDAGraph", self)):
            monkeypatch.setattr(torch.cuda, name, lambda *_, made=made: made)
        for name in ("stream", "graph"):
            monkeypatch.setattr(torch.cuda, name, lambda made, **options: contextlib.nullcontext())

    def replay(self):
        self.step.result = self.step.iteration()


@pytest.mark.parametrize("graph", [False, True])
@pytest.mark.parametrize(
    ("start", "change"), [(0, {}), (9, {}), (0, {"border": "black"}), (0, {"momentum": 0.0}), (0, {"clip": 0.5})]
)
def test_the_resident_step_is_the_reference_step(start, change, graph, monkeypatch):
    """Iteration by iteration the same bits, over an epoch (11 batches), fresh and resumed; recording changes nothing."""
    recipe = replace(TINY, **change)
    net, other = (TINY.net().to(memory_format=torch.channels_last) for _ in "ab")
    optimizer, resident_optimizer = (sgd.optimizer_for(recipe, n) for n in (net, other))
    batches = data.stream(recipe, 0, backend="array")
    for _ in range(start):
        sgd.train_step(net, optimizer, *next(batches), clip=recipe.clip)
    other.load_state_dict(net.state_dict())
    resident_optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    one = partial(sgd.train_step, other, resident_optimizer, clip=recipe.clip)
    step = GraphedStep(recipe, other, resident_optimizer, one, step=start)
    if graph:
        StandIn(monkeypatch).step = step
        step.record()
    for number in range(start, 15):
        lr = sgd.lr_at(TINY, number)
        optimizer.param_groups[0]["lr"] = lr
        loss, wrong = sgd.train_step(net, optimizer, *next(batches), clip=recipe.clip)
        assert [loss, wrong] == list(step(lr))
    assert all(
        torch.equal(ours, theirs) for ours, theirs in zip(net.state_dict().values(), other.state_dict().values(), strict=True)
    )
    batches.close()


on_a_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")


@on_a_gpu
@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize(
    "change", [{}, {"precision": "bf16"}, {"bn_batch": 64}, {"momentum_form": "caffe"}, {"shortcut": None}]
)
def test_a_run_on_a_gpu_is_the_run_on_a_cpu(change, compiled, tmp_path, monkeypatch):
    recipe = replace(ON_A_GPU, **change)
    cpu = run(recipe, out_dir=tmp_path / "cpu")
    monkeypatch.setattr(machine, "COMPILE_STEPS", recipe.steps + (not compiled))
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):  # a CPU has none
        gpu = reslib.train(recipe, out_dir=tmp_path / "gpu", device="cuda")
    assert gpu.environment["compiled"] == compiled and gpu.environment["device"] == torch.cuda.get_device_name()
    rel = 0.15 if recipe.precision == "bf16" else 5e-2
    assert gpu.curve["train_loss"] == pytest.approx(cpu.curve["train_loss"], rel=rel)
    assert [p["step"] for p in gpu.probes] == [p["step"] for p in cpu.probes]
    if recipe.shortcut is None:
        assert gpu.final["identity_extension"]["logit_difference"] < 1e-3


@on_a_gpu
@pytest.mark.parametrize("compiled", [False, True])
def test_the_graph_is_the_loop_over_many_steps(compiled, tmp_path, monkeypatch):
    recipe = replace(ON_A_GPU, steps=200, milestones=(100, 150), log_every=20, eval_every=100)
    monkeypatch.setattr(machine, "COMPILE_STEPS", recipe.steps + (not compiled))
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        graph, loop = (reslib.train(recipe, out_dir=tmp_path / b, device="cuda", backend=b) for b in ("array", "torch"))
    assert graph.curve["train_loss"] == pytest.approx(loop.curve["train_loss"], rel=1e-2)


@on_a_gpu
def test_a_run_on_a_gpu_is_taken_up(tmp_path, monkeypatch):
    stopped_halfway(tmp_path / "two", monkeypatch, ON_A_GPU, "cuda")
    whole, taken_up = (reslib.train(ON_A_GPU, out_dir=tmp_path / name, device="cuda") for name in ("one", "two"))
    assert taken_up.curve["train_loss"] == pytest.approx(whole.curve["train_loss"], rel=2e-2)
    assert [p["step"] for p in taken_up.probes] == [p["step"] for p in whole.probes]


def test_caffes_momentum(tmp_path):
    """v = m v + lr g, w -= v, written out; the learning rate, low enough for rounding not to grow, is divided by 10 twice."""
    usual = replace(TINY, lr=0.02, milestones=(5, 10))
    recipe = replace(usual, momentum_form="caffe")
    net = recipe.net().to(memory_format=torch.channels_last)
    velocity = [torch.zeros_like(p) for p in net.parameters()]
    batches = data.stream(recipe, 0, backend="array")
    for step in range(recipe.steps):
        net.zero_grad()
        images, labels = next(batches)
        torch.nn.functional.cross_entropy(net(images), labels).backward()
        with torch.no_grad():
            for p, v in zip(net.parameters(), velocity, strict=True):
                v.mul_(recipe.momentum).add_(sgd.lr_at(recipe, step) * (p.grad + recipe.weight_decay * p))
                p -= v
    batches.close()
    loss = reslib.evaluate(net, reslib.loader(recipe, "test"))["loss"]
    caffe, pytorch = (run(r, out_dir=tmp_path) for r in (recipe, usual))
    assert caffe.final["test_loss"] == pytest.approx(loss, rel=1e-3)
    assert abs(pytorch.final["test_loss"] - loss) > 10 * abs(caffe.final["test_loss"] - loss)


def test_clipped_gradients(tmp_path):
    """Scaled down to the norm where theirs is larger, also where the step's net is no module; else the same bits."""
    net = TINY.net()
    optimizer = sgd.optimizer_for(replace(TINY, decay_bn=False), net)  # two groups: one norm
    images, labels = next(data.stream(TINY, 0, backend="array"))
    sgd.train_step(lambda x: net(x), optimizer, images, labels, clip=1e-3, part=64)
    assert torch.cat([p.grad.flatten() for p in net.parameters()]).norm().item() == pytest.approx(1e-3, rel=1e-3)
    usual, loose, tight = (run(replace(TINY, clip=clip), out_dir=tmp_path) for clip in (None, 1e6, 0.1))
    assert usual.weights_sha256 == loose.weights_sha256 != tight.weights_sha256
    assert tight.recipe.clip == 0.1 and read(tmp_path / f"{tight.name}.json").recipe == tight.recipe


def test_bn_without_decay_and_over_half_a_batch():
    net = TINY.net()
    decayed, free = sgd.optimizer_for(replace(TINY, decay_bn=False), net).param_groups
    assert free["weight_decay"] == 0 and decayed["weight_decay"] == TINY.weight_decay
    assert {id(p) for p in free["params"]} == {id(p) for n, p in net.named_parameters() if "bn" in n}
    assert len(decayed["params"]) + len(free["params"]) == len(list(net.parameters()))
    other, x, y = copy.deepcopy(net), torch.randn(8, 3, 16, 16), torch.arange(8)
    for one, part in ((net, 4), (other, None)):
        loss, wrong = sgd.train_step(one, sgd.optimizer_for(TINY, one), x, y, part=part)
        net = TINY.net()
        logits = torch.cat([net(x[:4]), net(x[4:])]) if part else net(x)
        expected = torch.nn.functional.cross_entropy(logits, y)
        assert loss.item() == pytest.approx(expected.item(), rel=1e-5) and wrong == (logits.argmax(1) != y).sum()
        expected.backward()
        for ours, theirs in zip(one.parameters(), net.parameters(), strict=True):
            assert torch.allclose(ours.grad, theirs.grad, rtol=1e-3, atol=1e-5)
    for wrong in (3, 1, 256):
        with pytest.raises(ValueError, match="bn_batch"):
            replace(CIFAR, bn_batch=wrong)


def test_bf16_is_the_same_run_but_for_rounding(tmp_path):
    bf16, fp32 = (run(replace(TINY, precision=p), out_dir=tmp_path) for p in ("bf16", "tf32"))
    assert bf16.curve["train_loss"] == pytest.approx(fp32.curve["train_loss"], rel=0.05)
    assert bf16.weights_sha256 != fp32.weights_sha256
    net, images = TINY.net(), torch.randn(4, 3, 16, 16)
    assert sgd.in_bf16(net)(images).dtype == torch.float32 and not torch.equal(sgd.in_bf16(net)(images), net(images))


def test_the_record_says_what_was_trained(tmp_path):
    recipe = replace(TINY, shortcut=None)
    record = run(recipe, out_dir=tmp_path)
    assert record == read(tmp_path / f"{recipe.name}.json")
    assert record.curve["step"] == [5, 10, 15, 20] and record.curve["lr"] == pytest.approx([0.1, 0.1, 0.01, 0.001])
    assert [e is None for e in record.curve["test_error"]] == [True, False, True, False]
    assert record.final["test_error"] == record.curve["test_error"][-1] >= record.best_on_test["test_error"]
    assert [p["step"] for p in record.probes] == [0, 1, 2, 4, 8, 10, 15, 16, 20] and len(record.probes[0]["layer"]) == 7
    assert record.data["train"] + record.data["test"] == 1797
    labels = torch.cat([y for _, y in reslib.loader(recipe, "test")])
    wrong = 100 * (torch.from_numpy(record.predictions().copy()) != labels).double().mean().item()
    assert wrong == pytest.approx(record.final["test_error"], abs=1e-3)
    assert record.final["identity_extension"]["train_error"] == pytest.approx(record.final["train_error"])
    assert not list(tmp_path.glob("*.ckpt")) and not list(tmp_path.glob("*.part"))


def same_run(one, other):
    """Equal apart from time and date."""
    return replace(one, time=other.time) == other


def test_two_runs_are_the_same(tmp_path):
    one, other = (run(TINY, out_dir=tmp_path / name) for name in "ab")
    assert same_run(one, other) and one.weights_sha256 == other.weights_sha256
    assert run(replace(TINY, seed=1), out_dir=tmp_path / "a").weights_sha256 != one.weights_sha256


KILLED = replace(CIFAR, depth=8, warmup_lr=0.01, warmup_until=85.0).at("demo")
SCRIPT = f"""
import sys, torch
torch.set_num_threads(1)
from reslib import Recipe, probes, trainer
probes.PIXELS = {2**12}
trainer.CHECKPOINT_SECONDS = 0.05
trainer.train(Recipe.from_dict({KILLED.as_dict()}), out_dir=sys.argv[1], device="cpu")
"""


def test_killed_at_random_steps_and_resumed(tmp_path):
    """SIGKILL, twice, then to the end: the record is that of an undisturbed run, to the last bit."""

    def start(folder):
        return subprocess.Popen([sys.executable, "-c", SCRIPT, folder], stdout=subprocess.DEVNULL)

    torch.set_num_threads(1)
    whole = run(KILLED, out_dir=tmp_path / "whole")
    kills, folder = 0, tmp_path / "killed"
    while kills < 2:
        process = start(folder)
        deadline = time.monotonic() + 60
        while not list(folder.glob("*.ckpt")) and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.02)
        time.sleep(random.uniform(0, 0.7))
        if process.poll() is not None:
            break
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        kills += 1
    assert kills > 0
    last = start(folder)
    assert last.wait() == 0
    assert same_run(whole, read(next(folder.glob("*.json"))))
    assert not list(folder.glob("*.ckpt"))


def stopped_halfway(tmp_path, monkeypatch, recipe=TINY, device="cpu"):
    """A run ended after its tenth iteration, with a checkpoint."""

    class Stop:
        value = 0

        def __setattr__(self, name, step):
            if step == 10:
                signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(trainer, "CHECKPOINT_SECONDS", 0)
    with pytest.raises(SystemExit):
        trainer.Trainer(recipe, out_dir=tmp_path, device=device, steps_done=Stop()).run()
    return next(tmp_path.glob("*.ckpt"))


def test_finished_runs_are_only_read(tmp_path):
    record = run(TINY, out_dir=tmp_path)
    tick = time.monotonic()
    assert run(TINY, out_dir=tmp_path) == record and time.monotonic() - tick < 1
    assert run(TINY, out_dir=tmp_path, resume=False).weights_sha256 == record.weights_sha256


def test_a_checkpoint_is_not_blamed_for_too_little_memory(tmp_path, monkeypatch):
    stopped_halfway(tmp_path, monkeypatch)

    def short_of_memory(*_, **__):
        raise torch.OutOfMemoryError("out of memory")

    with monkeypatch.context() as patched, pytest.raises(torch.OutOfMemoryError):
        patched.setattr(torch, "load", short_of_memory)
        run(TINY, out_dir=tmp_path)


def test_a_run_taken_up_on_other_code_says_so(tmp_path, monkeypatch):
    """Which commits made it, and that one of them was not clean: then it is no evidence."""
    here = machine.environment(torch.device("cpu"), 1)
    for commit, dirty, stop in (("a" * 40, True, True), ("b" * 40, False, False)):
        monkeypatch.setattr(machine, "environment", lambda *_, c=commit, d=dirty: here | {"commit": c, "dirty": d})
        if stop:
            stopped_halfway(tmp_path, monkeypatch)
    environment = run(TINY, out_dir=tmp_path).environment
    assert (environment["commit"], environment["dirty"]) == ("b" * 40, True)
    assert [(old["step"], old["commit"], old["dirty"]) for old in environment["earlier"]] == [(0, "a" * 40, True)]
    assert "from iteration 0 on" in read(next(tmp_path.glob("*.json"))).provenance()
    assert "earlier" not in run(replace(TINY, seed=3), out_dir=tmp_path).environment


def test_a_folder_that_is_deleted_during_the_run_is_made_again(tmp_path, monkeypatch):
    save = trainer.Trainer.save
    monkeypatch.setattr(trainer.Trainer, "save", lambda self: (shutil.rmtree(self.out_dir), save(self)))
    record = run(replace(TINY, steps=5, milestones=()), out_dir=tmp_path / "runs")
    assert read(record.path).net() and not list((tmp_path / "runs").glob("*.ckpt"))


def test_a_finished_run_is_read_where_nothing_can_be_written(tmp_path, monkeypatch):
    few = replace(TINY, steps=5, milestones=())
    made = run(few, out_dir=tmp_path)
    monkeypatch.setattr(os, "access", lambda *_: False)  # root may write anywhere
    monkeypatch.setattr(trainer, "locked", Mock(side_effect=OSError))
    assert run(few, out_dir=tmp_path) == made
    with pytest.raises(OSError):
        run(replace(few, seed=1), out_dir=tmp_path)


def test_a_damaged_checkpoint_is_named(tmp_path):
    (tmp_path / f"{TINY.name}.ckpt").write_bytes(b"PK\x03\x04 nothing")
    with pytest.raises(ValueError, match=r"\.ckpt is damaged.*delete it"):
        run(TINY, out_dir=tmp_path)


def test_a_driver_too_old_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match="driver .* is too old"):
        run(TINY, out_dir=tmp_path, device="cuda")
    assert machine.in_a_line(torch.OutOfMemoryError("CUDA out of memory.\nhints")) == "CUDA out of memory."
    assert machine.in_a_line(FloatingPointError()) == "FloatingPointError"


def test_a_run_is_held_by_one_process(tmp_path, monkeypatch):
    """Another one waits, then says so; a disk without locks is refused; the lock of a process that was killed is free."""
    hold = "import sys, time; from pathlib import Path; from reslib.checkpoint import locked\n" \
           "with locked(Path(sys.argv[1]), sys.argv[2]): print(flush=True); time.sleep(600)"  # fmt: skip
    with subprocess.Popen([sys.executable, "-c", hold, tmp_path, TINY.name], stdout=subprocess.PIPE) as other:
        other.stdout.readline()
        with pytest.raises(BusyError, match="carried out by another process"):
            trainer.Trainer(TINY, out_dir=tmp_path, device="cpu").run(wait=0)
        other.kill()
    with locked(tmp_path, TINY.name, 0):
        pass
    monkeypatch.setattr(fcntl, "flock", Mock(side_effect=OSError(errno.ENOSYS, "not implemented")))
    with pytest.raises(OSError, match="cannot be locked .*Lustre"), locked(tmp_path, TINY.name, 0):
        pass


def test_a_run_stopped_in_its_final_passes_is_finished_by_a_sweep(tmp_path, monkeypatch):
    """Where a shared number takes the place of the bar."""

    def stop(*_):
        raise SystemExit(143)

    with monkeypatch.context() as patched, pytest.raises(SystemExit):
        patched.setattr(evaluation, "final_passes", stop)
        run(TINY, out_dir=tmp_path / "two")
    record = trainer.Trainer(TINY, out_dir=tmp_path / "two", device="cpu", steps_done=SimpleNamespace(value=0)).run()
    assert same_run(record, run(TINY, out_dir=tmp_path / "one"))


def test_threads_of_a_run_taken_up_are_its_own(tmp_path, monkeypatch):
    """It goes on with as many as it began with; afterwards the process has those that it had."""
    torch.set_num_threads(1)
    stopped_halfway(tmp_path, monkeypatch)
    torch.set_num_threads(2)
    assert run(TINY, out_dir=tmp_path).environment["threads"] == 1
    assert torch.get_num_threads() == 2


@pytest.mark.parametrize("broken", ["noexec", "CXX"])
def test_a_compiler_that_fails_is_done_without(broken, tmp_path):
    """A TMPDIR from which no code may be run, a CXX that does not exist: the run is eager, and says so."""
    script = (
        "import reslib, sys; from reslib import machine\n"
        "machine.COMPILE_STEPS = 20\n"
        f"r = reslib.Recipe.from_dict({TINY.as_dict()})\n"
        "record = reslib.train(r, out_dir=sys.argv[1], device='cpu')\n"
        "print(record.environment['compiled'], record.weights_sha256)"
    )
    environment = os.environ | {"OMP_NUM_THREADS": "1", "TORCHINDUCTOR_VEC_ISA_OK": "0"}  # else it tries each of AVX first
    environment.pop("TORCHINDUCTOR_CACHE_DIR", None)  # set by a compilation before this
    if broken == "CXX":
        environment["CXX"] = "/nonexistent/c++"
    else:
        (mount := tmp_path / "noexec").mkdir()
        if os.geteuid() or subprocess.run(["mount", "-t", "tmpfs", "-o", "noexec", "tmpfs", mount]).returncode:
            pytest.skip("a folder can be mounted noexec by root alone")
        environment["TMPDIR"] = str(mount)
    try:
        told = subprocess.run([sys.executable, "-c", script, tmp_path / "one"], env=environment, capture_output=True, text=True)
    finally:
        if broken == "noexec":
            subprocess.run(["umount", mount], check=True)
    assert told.returncode == 0, told.stderr[-2000:]
    torch.set_num_threads(1)
    assert told.stdout == f"False {run(TINY, out_dir=tmp_path / 'eager').weights_sha256}\n"
    assert "The step is not compiled, the compiler fails here" in told.stderr


def test_the_rule_by_which_a_step_is_compiled(monkeypatch):
    """On a GPU by what is left of a run; on a CPU by the whole of it, so that a run taken up ends with the same bits."""
    monkeypatch.setattr(machine, "compiler_works", lambda device: True)
    cpu, gpu = torch.device("cpu"), torch.device("cuda")
    assert machine.compiles(CIFAR, cpu) and machine.compiles(CIFAR, gpu) and not machine.compiles(TINY, gpu)
    assert machine.compiles(CIFAR, cpu, 63_900) and not machine.compiles(CIFAR, gpu, 63_900)
    assert not machine.compiles(replace(CIFAR, depth=1202), cpu)


def test_a_sentence_at_the_start_where_a_run_cannot_become_evidence(capsys):
    for dirty, says in ((None, "is of no known commit, `git -C"), (True, "has uncommitted changes"), (False, None)):
        machine.say.cache_clear()
        machine.warn_if_no_evidence({"dirty": dirty})
        assert (says or "") in (told := capsys.readouterr().err) and bool(told) == bool(says)


def test_parts_of_a_batch_that_are_no_divisor_of_the_probes(tmp_path):
    assert len(run(replace(TINY, batch=96, bn_batch=48), out_dir=tmp_path).probes) == 9


@pytest.mark.parametrize("lr", [1e20, 1e6])
def test_a_run_that_diverges_stops_where_it_is_seen(lr, tmp_path):
    """In a row of the curve, a probe or a pass over the test images; never with a record that cannot be written."""
    says = rf"the .* is (nan|inf) after \d+ iterations, at a learning rate of {re.escape(f'{lr:g}')}"
    with pytest.raises(FloatingPointError, match=says):
        run(replace(TINY, lr=lr), out_dir=tmp_path / "runs")
    assert not list(tmp_path.iterdir())  # neither a record, nor a lock, nor an empty folder


def test_learning_rate():
    assert [sgd.lr_at(CIFAR, step) for step in (0, 31_999, 32_000, 47_999, 48_000, 63_999)] == pytest.approx(
        [0.1, 0.1, 0.01, 0.01, 0.001, 0.001]
    )
    warming = replace(CIFAR, depth=110, warmup_lr=0.01)
    assert (sgd.lr_at(warming, 0, warm=False), sgd.lr_at(warming, 0, warm=True)) == (0.01, 0.1)
    later = warming.delayed(400)  # the warm-up's iterations on top of the 64k
    assert later.steps == 64_400
    assert all(sgd.lr_at(later, s + 400) == sgd.lr_at(warming, s) for s in (0, 31_999, 32_000, 47_999, 48_000, 63_999))


def test_warmup_ends_below_the_threshold():
    """Section 4.2: when the running training error is below 80 %."""
    recipe, state = replace(CIFAR, warmup_lr=0.01), State()
    for step, wrong in enumerate([128] * 30 + [100] * 60):
        state.step = step
        sgd.watch_warmup(recipe, state, wrong)
        if state.warm_at:
            break
    mean = [100 * (128 * max(0, 50 - k) + 100 * min(50, k)) / (50 * 128) for k in range(60)]
    assert state.warm_at == 30 + next(k for k, e in enumerate(mean) if e < 80)


def test_probing_changes_nothing():
    net, (images, labels) = TINY.net(), next(iter(reslib.loader(TINY, "train")))
    before = weights_sha256(net)
    found = probes.probe(net, images, labels)
    assert weights_sha256(net) == before and net.training and all(p.grad is None for p in net.parameters())
    assert found["layer"] == ["conv1", *(f"layer{s}.0.conv{i}" for s in (1, 2, 3) for i in (1, 2))]
    assert found["response_std"] == pytest.approx([1] * 7, rel=0.05)  # fresh BN
    assert all(math.isfinite(g) and g > 0 for g in found["response_gradient"] + found["weight_gradient"])


def test_weight_gradients_are_those_of_autograd():
    net, (images, labels) = TINY.net(), next(iter(reslib.loader(TINY, "train")))
    torch.nn.functional.cross_entropy(net.train()(images), labels).backward()  # as a training step leaves them behind
    found = probes.probe(net, images, labels)
    torch.nn.functional.cross_entropy(net.train()(images), labels).backward()
    assert found["weight_gradient"][3] == pytest.approx(net.layer2[0].conv1.weight.grad.norm().item(), rel=1e-4)


def test_identity_extension(tmp_path):
    recipe = replace(TINY, shortcut=None)
    net, _ = trained_by_hand(recipe)
    deep = probes.extend_by_identity(net, 56)
    images, _ = next(iter(reslib.loader(recipe, "test")))
    with torch.inference_mode():
        assert torch.allclose(net.eval()(images), deep.eval()(images), atol=1e-4)
    assert sum(isinstance(m, torch.nn.Conv2d) for m in deep.modules()) == 55
    with pytest.raises(ValueError, match="only a plain CIFAR net"):
        probes.extend_by_identity(reslib.cifar_resnet(20), 56)


def test_evaluate_counts():
    class Echo(torch.nn.Module):
        def forward(self, x):
            return x[:, :, 0, 0]

    logits = torch.eye(10)[[0, 1, 2, 3]] + torch.arange(10) / 100
    batches = [(logits[:3, :, None, None], torch.tensor([0, 1, 9])), (logits[3:, :, None, None], torch.tensor([0]))]
    found = reslib.evaluate(Echo(), batches)
    assert found["n"] == 4 and found["top1_error"] == 50 and found["top5_error"] == 25
    with pytest.raises(ValueError, match="nothing to evaluate"):
        reslib.evaluate(Echo(), [])


def test_recomputed_bn_is_the_true_average():
    net = TINY.net()
    images = torch.cat([x for x, _ in reslib.loader(TINY, "train")])
    again = evaluation.recomputed_bn(net, [(x, None) for x in images.split(128)])
    stem = torch.nn.functional.conv2d(images, net.conv1.weight, padding=1)
    assert torch.allclose(again.bn1.running_mean, stem.mean((0, 2, 3)), atol=1e-5)
    assert not torch.allclose(net.bn1.running_mean, again.bn1.running_mean)


@pytest.mark.parametrize(
    ("recipe", "options", "says"),
    [
        ("resnet56", {}, "'resnet56' is no recipe: give reslib.CIFAR"),
        (replace(TINY, batch=9_999), {}, "a batch of 9999 is more than the training set holds"),
        (CIFAR, {"data_dir": "data of mine"}, "data of mine is no folder"),
        (TINY, {"out_dir": "$NOSUCH/runs"}, "the path .NOSUCH/runs cannot be expanded: there is no such user or variable"),
    ],
    ids=["recipe", "batch", "data", "path"],
)
def test_what_is_wrong_is_said_before_anything_is_made(recipe, options, says, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises((ValueError, OSError), match=says):
        run(recipe, **options)
    assert not list(tmp_path.iterdir())


def test_a_bar_of_80_columns_holds_loss_and_error(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(trainer, "drawing_seconds", lambda: 0)
    run(replace(TINY, depth=14, steps=4, milestones=(), log_every=1, eval_every=4), out_dir="~/runs")
    drawn = [line for line in re.split(r"[\r\n]", capsys.readouterr().err) if "loss=" in line]
    assert not [line for line in drawn if not re.search(r"loss=[\d.]+, error=[\d.]+%, images/s=[\d,]+", line[:80])]
    assert drawn and list((tmp_path / "runs").glob("*.json"))


def test_in_a_notebook_a_line_a_minute_tells_what_papermill_s_log_shows_of_no_bar(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "ipykernel", None)
    monkeypatch.setattr(trainer, "CHECKPOINT_SECONDS", -1)  # a minute is over after each iteration
    run(replace(TINY, steps=4, milestones=(), log_every=2, eval_every=4), out_dir=tmp_path)
    first, second, third = capsys.readouterr().out.splitlines()
    assert ", 25%: " in first and ", 50%: loss=" in second and ", 75%: loss=" in third
