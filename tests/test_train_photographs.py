"""Training on a tree of photographs: stopped and taken up, plateaus, what does not fit; on real ones at 64 pixels."""

import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torchvision.transforms.v2.functional import center_crop, resize

import reslib
from reslib import CIFAR, IMAGENET, evaluation, sgd, trainer
from reslib.checkpoint import State
from reslib.data import convert, fast
from reslib.record import command, pack, read, unpack

SMALL = replace(IMAGENET, depth=18, size=64, batch=8, lr=0.01, steps=6, log_every=2, eval_every=2)


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def imagenette(root) -> Path:
    """Ten classes of real photographs: $RESLIB_IMAGENETTE, or ../shared/data; else skip."""
    folder = Path(os.environ.get("RESLIB_IMAGENETTE") or root.parent / "shared" / "data" / "imagenette")
    if not (folder / "train").is_dir():
        pytest.skip("no Imagenette here: set RESLIB_IMAGENETTE to its tree")
    return folder


@pytest.fixture
def tree(imagenette, tmp_path) -> Path:
    """Two photographs of each class to train on, one to test on; names with spaces and accents; behind symbolic links."""
    for part, count in (("train", 2), ("val", 1)):
        for number, folder in enumerate(sorted((imagenette / part).iterdir())[:10]):
            (to := tmp_path / "vraies données" / part / f"{number} épagneul").mkdir(parents=True)
            for file in sorted(folder.iterdir())[:count]:
                shutil.copy(file, to / f"été {file.name}")
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "vraies données")
    moved = tmp_path / "elsewhere"
    (link / "train" / "3 épagneul").rename(moved)
    (link / "train" / "3 épagneul").symlink_to(moved)
    return link


def stopped(recipe, step, monkeypatch, **where):
    """A run ended by SIGTERM after so many iterations, with a checkpoint."""

    class Stop:
        value = 0

        def __setattr__(self, name, value):
            if value == step:
                signal.raise_signal(signal.SIGTERM)

    with monkeypatch.context() as patched, pytest.raises(SystemExit):
        patched.setattr(trainer, "CHECKPOINT_SECONDS", 0)
        trainer.Trainer(recipe, steps_done=Stop(), device="cpu", **where).run()


@pytest.fixture
def read_only(tree):
    """The tree where nothing can be written to it."""
    real = tree.resolve()
    if os.geteuid():
        real.chmod(0o555)
    elif subprocess.run(["mount", "--bind", "-o", "ro", real, real], capture_output=True).returncode:
        pytest.skip("a folder is read-only for root where it is mounted so")
    yield tree
    if os.geteuid():
        real.chmod(0o755)
    else:
        subprocess.run(["umount", real], check=True)


def test_a_run_on_photographs_stopped_and_taken_up_ends_with_the_same_bits(read_only, tmp_path, monkeypatch):
    where = dict(data_dir=read_only, backend="torch")
    whole = reslib.train(SMALL, out_dir=tmp_path / "whole", device="cpu", **where)
    stopped(SMALL, 3, monkeypatch, out_dir=tmp_path / "two", **where)  # between two rows, in the second epoch
    record = reslib.train(SMALL, out_dir=tmp_path / "two", device="cpu", **where)
    assert replace(record, time=whole.time) == whole and record == read(tmp_path / "two" / f"{SMALL.name}.json")
    assert record.data | {"sha256": ""} == {
        "name": "imagenet-64px", "sha256": "", "train": 20, "val": 0, "test": 10, "classes": 10
    }  # fmt: skip
    assert record.curve["lr"] == [0.01] * 3 and None not in record.curve["test_error"]
    assert len(record.predictions()) == 10 and 0 <= record.final["test_top5_error"] <= record.final["test_error"]
    assert [probe["step"] for probe in record.probes] == [0, 1, 2, 3, 4, 6] and len(record.probes[0]["layer"]) == 17
    assert not (read_only / "beton").exists()


def test_the_command_line_trains_on_a_tree(tree, tmp_path):
    words = [f"--set={name}={getattr(SMALL, name)}" for name in ("size", "batch", "lr", "log_every", "eval_every", "steps")]
    found = subprocess.run(
        [sys.executable, "-m", "reslib", "train", "--data", "imagenet", "--data-dir", tree, "--depth", "18", "--shortcut=none",
         "--out", tmp_path, "--set=steps=2", *words[:-1], "--set=plateau=false", "--set=bn_batch=4"],
        capture_output=True, text=True)  # fmt: skip
    assert found.returncode == 0 and "epoch=1.0/1," in found.stderr, found.stderr
    recipe = replace(SMALL, shortcut=None, steps=2, plateau=False, bn_batch=4)
    assert "test error" in found.stdout
    assert read(tmp_path / f"{recipe.name}.json").net().classes == [f"{i} épagneul" for i in range(10)]
    assert "--data imagenet --data-dir DIR --scale paper --depth 18 --shortcut none" in command(recipe)


def test_the_rate_falls_where_the_validation_error_stops_falling(tree, tmp_path, monkeypatch):
    """A simulated sequence of errors, in one go and over a stop: the curve has the rates that the criterion says."""
    errors = [80.0, 79.95, 70.0, 70.0, 69.95, 69.85, 69.8, 60.0, 60.5, 60.0, 61.0]
    recipe = replace(SMALL, batch=4, steps=12, log_every=1, eval_every=1, plateau_patience=1, plateau_drops=2)
    expected = [0.01] * 5 + [0.001] * 5 + [0.0001] * 2  # a lower error by 0.1 or less is none: after 5 and 10 passes
    for name, stop in (("whole", None), ("two", 5)):
        left = iter(errors)
        monkeypatch.setattr(
            evaluation, "means", lambda *_, left=left: {"top1_error": next(left, 50.0), "top5_error": 0.0, "loss": 1.0, "n": 10}
        )
        if stop:
            stopped(recipe, stop, monkeypatch, data_dir=tree, out_dir=tmp_path / name)
        record = reslib.train(recipe, data_dir=tree, out_dir=tmp_path / name, device="cpu")
        assert record.curve["lr"] == pytest.approx(expected)
    again = partial(reslib.train, recipe, out_dir=tmp_path / "whole", device="cpu")
    assert again(data_dir=tree) == again(data_dir=tmp_path / "gone")  # a record is read without its photographs, ...
    next((tree / "train" / "0 épagneul").iterdir()).rename(tree / "train" / "1 épagneul" / "relabelled.jpg")
    with pytest.raises(ValueError, match="is of a run on other photographs"):  # ... but is not the result of others
        again(data_dir=tree)
    begun = replace(recipe, seed=1)
    stopped(begun, 2, monkeypatch, data_dir=tree, out_dir=tmp_path)
    next((tree / "val" / "0 épagneul").iterdir()).rename(tree / "val" / "0 épagneul" / "another.jpg")
    with pytest.raises(ValueError, match="is of a run on .* give the same photographs"):
        reslib.train(begun, data_dir=tree, out_dir=tmp_path, device="cpu")


@pytest.mark.parametrize(("patience", "threshold"), [(0, 0.0), (2, 0.1), (5, 1.0)])
def test_the_plateau_is_that_of_pytorch(patience, threshold):
    recipe = replace(IMAGENET, plateau_patience=patience, plateau_threshold=threshold, plateau_drops=3)
    optimizer = torch.optim.SGD([torch.zeros(1)], recipe.lr)
    torchs = torch.optim.lr_scheduler.ReduceLROnPlateau(
        optimizer, patience=patience, threshold=threshold, threshold_mode="abs", min_lr=recipe.lr * 1e-3
    )
    state, rng = State(), np.random.default_rng(0)
    for error in np.round(30 + 40 / np.arange(1, 80) ** 0.5 + rng.normal(0, 1, 79), 2):
        torchs.step(error)
        sgd.watch_plateau(recipe, state, error)
        state = State(**json.loads(json.dumps(asdict(state))))
        assert sgd.lr_at(recipe, 0, drops=state.drops) == pytest.approx(optimizer.param_groups[0]["lr"])
    assert state.drops == 3


@pytest.mark.skipif(not fast.available(), reason="FFCV is not installed here")
def test_a_run_through_ffcv_is_not_taken_up_through_pillow(tree, tmp_path, monkeypatch):
    for part in ("train", "val"):
        convert.convert(tree, tree, part, jobs=1)
    where = dict(data_dir=tree, out_dir=tmp_path)
    stopped(SMALL, 3, monkeypatch, **where)
    with pytest.raises(ValueError, match="'backend': 'ffcv'.*'backend': 'torch'"):
        reslib.train(SMALL, device="cpu", backend="torch", **where)
    record = reslib.train(SMALL, device="cpu", **where)
    assert record.backend == "ffcv" and record.data["classes"] == 10
    assert reslib.train(SMALL, device="cpu", resume=False, **where).weights_sha256 == record.weights_sha256


def emptied(folder):
    for file in folder.iterdir():
        file.unlink()


def but_one_moved(folder):
    for other in sorted(folder.iterdir())[1:]:
        other.rename(folder.parent / f"{folder.name} {other.name}")


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda top: [but_one_moved(top / part) for part in ("train", "val")], "train holds one class alone, '0 épagneul'"),
        (lambda top: shutil.rmtree(top / "val"), "val is no folder"),
        (lambda top: emptied(top / "train" / "4 épagneul"), "train holds no photographs of the class '4 épagneul'"),
        (lambda top: shutil.rmtree(top / "val" / "7 épagneul"), "val holds no photographs of the class '7 épagneul'"),
        (lambda top: (top / "val" / "1 épagneul").rename(top / "val" / "zebra"), "zebra is a class that .* does not have"),
        (lambda top: emptied(top / "elsewhere"), "the class '3 épagneul'"),
        (lambda top: [shutil.rmtree(d) for d in list((top / "train").iterdir())[:8] if not d.is_symlink()], "does not have"),
    ],
)
def test_what_does_not_fit_is_said_before_training(spoil, says, tree, tmp_path):
    (tree / "elsewhere").symlink_to(tmp_path / "elsewhere")
    spoil(tree)
    with pytest.raises((ValueError, FileNotFoundError), match=says):
        reslib.train(SMALL, data_dir=tree, out_dir=tmp_path / "runs", device="cpu", backend="torch")
    assert not list((tmp_path / "runs").glob("*.*t*"))


def test_fewer_photographs_than_a_batch_and_a_tree_without_parts_are_said(tree, tmp_path):
    for recipe, top, says in (
        (replace(SMALL, batch=32), tree, "a batch of 32 is more than the 20 photographs"),
        (SMALL, tree / "train", "holds no val: give photographs to test on"),
    ):
        with pytest.raises(ValueError, match=says):
            reslib.train(recipe, data_dir=top, out_dir=tmp_path / "runs", device="cpu")


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        (dict(size=32), "size is 32: crops of photographs must be at least 64"),
        (dict(milestones=(4,)), "a plateau and milestones do not go together"),
        (dict(short_side=(200, 480)), "short_side is"),
        (dict(split="45k/5k"), "split is .45k/5k.: a recipe like this has no use for it"),
        (dict(plateau_patience=-1), "plateau_patience is -1"),
    ],
)
def test_wrong_recipes_are_refused(changes, says):
    with pytest.raises(ValueError, match=says):
        replace(SMALL, **changes)
    with pytest.raises(ValueError, match="plateau_drops is 1: a recipe like this"):
        replace(CIFAR, plateau_drops=1)


def test_scales_are_in_proportion_to_the_crop(tree):
    """section 3.4's [256, 480] and 256 are for crops of 224: at 64, [73, 137] and 73; the mean image is reduced too."""
    from reslib.data import photographs as photos

    assert photos.scales_of(SMALL, True) == (73, 137) and photos.scales_of(SMALL, False) == (73, 73)
    assert photos.scales_of(IMAGENET, True) == (256, 480)
    (x, y), *_ = reslib.loader(SMALL, "val", data_dir=tree, backend="torch", workers=0)
    assert x.shape == (8, 3, 64, 64) and y.tolist() == list(range(8))
    mean = photos.resized(photos.statistics(tree)[0], 64)
    image = resize(photos.decoded(next((tree / "val" / "0 épagneul").iterdir())), [73]) / 255
    assert torch.allclose(center_crop(image, [64, 64]) - torch.from_numpy(mean).permute(2, 0, 1), x[0], atol=2 / 255)
    assert mean.mean((0, 1)) == pytest.approx(photos.statistics(tree)[0].mean((0, 1)), abs=1e-3)


def test_predictions_of_any_number_of_classes():
    for of, kind in ((10, np.uint8), (256, np.uint8), (1000, np.uint16)):
        classes = np.arange(50_000) * 7 % of
        found = unpack(pack(classes, of), of)
        assert found.dtype == kind and (found == classes).all()
