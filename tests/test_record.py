"""Records: what is written is read, what is damaged is refused by name; the evidence in the book is sound."""

import errno
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import pandas as pd
import pytest

import reslib
from reslib import CIFAR
from reslib.record import COLUMNS, command, folder, load, read, write
from reslib.weights import read_weights, recipe_of

ROOT = Path(__file__).parents[1]
TINY = replace(replace(CIFAR, depth=8, shortcut=None).at("demo"), steps=10, milestones=(5,), eval_every=5)


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    out = tmp_path_factory.mktemp("runs")
    reslib.train(TINY, out_dir=out, device="cpu")
    return out / f"{TINY.name}.json"


def test_round_trip(path, tmp_path):
    record = read(path)
    assert read(write(record, tmp_path)) == record and record.recipe == TINY
    assert (tmp_path / path.name).read_bytes() == path.read_bytes()
    assert not list(tmp_path.glob("*.part"))


def test_the_weights_are_kept_beside_the_record(path, tmp_path):
    record = reslib.train(TINY, out_dir=path.parent)  # finished: only read
    net = record.net()
    found = reslib.evaluate(net, reslib.loader(TINY, "test"))
    assert found["top1_error"] == pytest.approx(record.final["test_error"], abs=1e-3) and not net.training
    weights = path.with_suffix(".safetensors")
    assert recipe_of(weights) == TINY and read_weights(weights)[0].keys() == {k for k, t in net.state_dict().items() if t.dim()}
    alone = read(shutil.copy(path, tmp_path))
    with pytest.raises(FileNotFoundError, match=f"train --scale demo --depth 8 .* --anew --out {tmp_path}`"):
        alone.net()
    shutil.copy(weights, tmp_path)
    assert alone.net().fc.weight.equal(net.fc.weight)
    reslib.train(replace(TINY, seed=1), out_dir=tmp_path / "other")
    shutil.copy(next((tmp_path / "other").glob("*.safetensors")), tmp_path / weights.name)
    with pytest.raises(ValueError, match=f"{weights.name} holds the weights of another run"):
        alone.net()
    (tmp_path / weights.name).write_bytes(weights.read_bytes()[:999])
    with pytest.raises(ValueError, match=f"{weights.name} does not hold the weights of digits-plain8") as error:
        alone.net()
    assert len(str(error.value).splitlines()) == 1


def test_the_book_s_records_come_without_weights():
    with pytest.raises(FileNotFoundError, match="python -m reslib train --scale paper .*--out runs`"):
        reslib.replay(CIFAR).net()


def edited(path, tmp_path, edit):
    values = json.loads(path.read_text())
    edit(values)
    changed = tmp_path / path.name
    changed.write_text(json.dumps(values))
    return changed


@pytest.mark.parametrize(
    ("edit", "says"),
    [
        (lambda v: v.update(schema=99), "its schema is not 1"),
        (lambda v: v.update(recipe_id="00000000"), "is not its recipe's"),
        (lambda v: v["recipe"].update(seed=3), "is not its recipe's"),
        (lambda v: v["recipe"].update(colours=3), "colours"),
        (lambda v: v["recipe"].update(depth=21), r"6n\+2"),
        (lambda v: v["curve"].pop("lr"), "'lr' is missing"),
        (lambda v: v["curve"]["lr"].pop(), "as many rows"),
        (lambda v: v.pop("curve"), "curve"),
        (lambda v: v["final"].update(train_error=float("nan")), "NaN"),
        (lambda v: v.update(test_predictions="AAAA"), "not a readable record"),
        (lambda v: v["data"].update(test=7), "predictions"),
        (lambda v: v["time"].update(seconds="3 min"), "its time has '3 min' as 'seconds'"),
        (lambda v: v["environment"].update(commit=5), "its environment has 5 as 'commit'"),
        (lambda v: v["curve"].update(lr=["0.1"] * len(v["curve"]["lr"])), "its curve holds more than numbers"),
        (lambda v: v["probes"][0]["response_std"].pop(), "its probes are not a row a layer"),
    ],
)
def test_changed_records_are_refused_by_name(path, tmp_path, edit, says):
    changed = edited(path, tmp_path, edit)
    with pytest.raises(ValueError, match=says) as error:
        read(changed)
    assert str(changed) in str(error.value)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe", b"null"])
def test_damaged_files_are_refused_by_name(path, tmp_path, content):
    (tmp_path / path.name).write_bytes(content)
    with pytest.raises(ValueError, match="not a readable record"):
        read(tmp_path / path.name)


def test_a_renamed_record_is_refused(path, tmp_path):
    other = tmp_path / path.name.replace("-s0-", "-s1-")
    other.write_bytes(path.read_bytes())
    with pytest.raises(ValueError, match="its name is not that of its recipe"):
        read(other)


def test_hidden_files_as_macos_leaves_are_no_records(path, tmp_path):
    shutil.copy(path, tmp_path)
    (tmp_path / f"._{path.name}").write_bytes(b"\0\5\x16\7")
    assert load(tmp_path) == [read(path)]


def test_nan_is_not_written(path, tmp_path):
    record = read(path)
    with pytest.raises(ValueError, match="NaN"):
        write(replace(record, final=record.final | {"test_error": float("nan")}), tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_full_disk_names_the_file(path, tmp_path, monkeypatch):
    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=rf"No space left on device: '{tmp_path / 'full' / path.name}'"):
        write(read(path), tmp_path / "full")
    assert not list((tmp_path / "full").iterdir())


def test_replay(path, monkeypatch):
    monkeypatch.setenv("RESLIB_RECORDS", str(path.parent))
    assert reslib.replay(TINY) == read(path)


@pytest.mark.parametrize("where", ["my records", "~/my records"])
def test_the_command_that_replay_advises_makes_the_record(path, tmp_path, monkeypatch, where):
    """Run as a reader would, from notebooks/ or elsewhere, into a folder whose name has a space."""
    other = replace(TINY, seed=4, milestones=(2, 5), init="fan_out")
    (records := tmp_path / "notebooks" / "my records").mkdir(parents=True)
    monkeypatch.setenv("HOME", str(records.parent))
    monkeypatch.chdir(tmp_path if "~" in where else records.parent)
    monkeypatch.setenv("RESLIB_RECORDS", where)
    with pytest.raises(FileNotFoundError) as error:
        reslib.replay(other)
    assert str(records) in str(error.value)
    _, *words = shlex.split(re.search("`(.*)`", str(error.value))[1])
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    made = subprocess.run([sys.executable, *words], env=environment, capture_output=True, text=True)
    assert made.returncode == 0, made.stderr
    assert reslib.replay(other).recipe == other
    assert sorted(p.name for p in tmp_path.rglob("*") if p.is_dir()) == ["my records", "notebooks"]


def test_the_command_names_what_differs():
    missing = replace(CIFAR, depth=56, shortcut=None, seed=2, batch=64).at("pocket")
    said = command(missing)
    assert said.startswith("python -m reslib train --scale pocket --depth 56 --shortcut none --seed 2 --set batch=64 --out")


def test_a_folder_that_is_not_there_is_an_error(tmp_path, monkeypatch):
    with pytest.raises(FileNotFoundError, match="typo is no folder: name the one that holds the records"):
        reslib.records(tmp_path / "typo")
    monkeypatch.setenv("RESLIB_RECORDS", str(tmp_path / "typo"))
    for ask in (reslib.records, reslib.curves, lambda: reslib.replay(TINY)):
        with pytest.raises(FileNotFoundError, match="typo is no folder"):
            ask()


def test_frames(path):
    runs, curves = reslib.records(path.parent), reslib.curves(path.parent)
    assert runs.loc[0, ["net", "shortcut", "depth"]].tolist() == ["plain8", "none", 8]
    assert set(COLUMNS) <= set(curves) and len(curves) == 2 and curves.test_error.isna().tolist() == [False, False]
    assert runs.train_error[0] == read(path).final["train_error"]
    for given in (read(path), (read(path),), runs, runs.record, runs.iloc[0]):
        assert reslib.curves(given).equals(curves)
    for given in (CIFAR, [path], 3):
        with pytest.raises(ValueError, match="is no record: give a folder"):
            reslib.curves(given)


def test_no_records_are_empty_frames(tmp_path):
    assert len(reslib.records(tmp_path)) == len(reslib.curves(tmp_path)) == 0
    assert isinstance(reslib.records(tmp_path), pd.DataFrame)


def test_the_evidence_is_sound():
    """Every committed record: readable, from committed code, small, the curve complete."""
    found = load()
    assert found, "notebooks/records is empty"
    for record in found:
        assert record.environment["dirty"] is False and len(record.environment["commit"]) == 40, record.name
        assert (folder() / f"{record.name}.json").stat().st_size < 200_000
        assert record.recipe.scale != "demo" and record.curve["step"][-1] == record.recipe.steps
    assert len({record.data["sha256"] for record in found if record.data["name"] == "cifar10-16px"}) == 1


def test_a_record_names_the_code_that_made_it(root):
    """Its commit is not younger than its start, unless it says of every stretch from which commit it went on."""
    git = ["git", "-C", str(root), "log", "--all", "--format=%H %ct"]
    known = dict(line.split() for line in subprocess.run(git, capture_output=True, text=True).stdout.splitlines())
    if len(known) < 2:
        pytest.skip("the history of the checkout is not here")
    for record in load():
        stretches = [*record.environment.get("earlier", []), record.environment]
        start = datetime.fromisoformat(record.time["start"]).timestamp()
        assert stretches[0].get("step", 0) == 0, f"{record.name}: its first stretch is not named"
        committed = int(known.get(stretches[0]["commit"], 0))
        assert 0 < committed <= start, f"{record.name}: {stretches[0]['commit'][:10]} is unknown, or younger than its start"
